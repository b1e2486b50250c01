"""What is answered to a request: routes, keys, models, errors.

Knows HTTP only as requests and responses and the network not at all. What it
remembers from one request to the next is in `chats` and `sessions`.
"""

import hmac
from collections.abc import Collection, Mapping
from typing import Any

from holystream.simulator.answers import Answer, Text
from holystream.simulator.chats import Chats
from holystream.simulator.failures import error_body
from holystream.simulator.generations import Generation
from holystream.simulator.messages import ReceivedRequest, Response
from holystream.simulator.responses import (
    Refused,
    bare_response,
    error_response,
    json_response,
)
from holystream.simulator.script import Script
from holystream.simulator.sessions import LOOKUP_ROUTE, STREAM_ROUTE, Sessions

# DeepSeek's prefix is a beta feature, with a path of its own.
_CHAT_ROUTES = ("/v1/chat/completions", "/beta/chat/completions")
_SESSION_ROUTES = (
    ("GET", STREAM_ROUTE),
    ("DELETE", STREAM_ROUTE),
    ("POST", LOOKUP_ROUTE),
)
_MODELS_ROUTE = "/v1/models"
_MODELS = ("simulator", "simulator-reasoner")
_OK, _MULTIPLE_CHOICES, _REDIRECTS = 200, 300, range(300, 400)
_WITHOUT_BODY = (204, 304)


def takes_script(request: ReceivedRequest) -> bool:
    """Tell whether the request asks for an answer, or for the rest of one."""
    return _is_chat(request) or (
        request.method == "GET" and request.route == STREAM_ROUTE
    )


def _is_chat(request: ReceivedRequest) -> bool:
    return request.method == "POST" and request.route in _CHAT_ROUTES


class Service:
    """Answers requests; used by all connections."""

    def __init__(self, *, text: Text, length: int, api_keys: Collection[str]) -> None:
        self._chats = Chats(text=text, length=length)
        self._sessions = Sessions()
        self._api_keys = tuple(api_keys)

    @property
    def generations(self) -> tuple[Generation, ...]:
        """What was generated lately."""
        return self._chats.generations.all()

    def answer(
        self, body: Mapping[str, Any], script: Script, sample: int | None = None
    ) -> Answer:
        """Return what the next such request (or that sample) is answered."""
        return self._chats.foretell(body, script, sample)

    def respond(self, request: ReceivedRequest, script: Script) -> Response:
        """Return the response to one request."""
        if early := _scripted(request, script):
            return early
        try:
            self._check_key(request)
            if _is_chat(request):
                response = self._chats.respond(request, script)
                return self._sessions.begin(request, response, script)
            if (request.method, request.route) in _SESSION_ROUTES:
                return self._sessions.respond(request, script)
            return _others(request)
        except Refused as refused:
            return refused.response
        except Exception as error:  # noqa: BLE001 - `text` is the user's; he sees it
            message = f"the simulator failed: {error!r}"
            return error_response(500, error_body(500, message))

    def _check_key(self, request: ReceivedRequest) -> None:
        if not self._api_keys:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Refused(401, "You didn't provide an API key.")
        if not any(
            hmac.compare_digest(key.encode(), known.encode())
            for known in self._api_keys
        ):
            shown = f"{key[:3]}***{key[-3:]}" if len(key) > len("sk-***xyz") else "***"
            raise Refused(401, f"Incorrect API key provided: {shown}.")


def _scripted(request: ReceivedRequest, script: Script) -> Response | None:
    status = script.status
    if script.redirect is not None:
        status = status if status in _REDIRECTS else 307
        return Response(status, "application/json", (), {"Location": script.redirect})
    if status in _WITHOUT_BODY:
        return bare_response(status)
    if script.echo_key:
        status = 401 if status == _OK else status
        key = request.headers.get("authorization", "(none)")
        return error_response(
            status, error_body(status, f"Incorrect API key provided: {key}")
        )
    if script.error is not None:
        return error_response(status, script.error)
    if not _OK <= status < _MULTIPLE_CHOICES:
        return error_response(status, error_body(status))
    return None


def _others(request: ReceivedRequest) -> Response:
    if request.route in _CHAT_ROUTES:
        raise Refused(405, f"{request.method} is not allowed here.")
    rows = {
        name: {
            "id": name,
            "object": "model",
            "created": 1_700_000_000,
            "owned_by": "sim",
        }
        for name in _MODELS
    }
    name = request.route.removeprefix(_MODELS_ROUTE).removeprefix("/")
    if not request.route.startswith(_MODELS_ROUTE) or (name and name not in rows):
        raise Refused(404, f"Unknown request URL: {request.method} {request.route}.")
    if request.method != "GET":
        raise Refused(405, f"{request.method} is not allowed here.")
    value = rows[name] if name else {"object": "list", "data": list(rows.values())}
    return json_response(value)
