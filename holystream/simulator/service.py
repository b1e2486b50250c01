"""What is answered to a request: routes, keys, models, errors.

Knows HTTP only as requests and responses and the network not at all. The one
thing that changes is how often each question was asked: sampling counts it, per
question, so that other requests going on at the same time change nothing.
"""

import hashlib
import hmac
import json
import threading
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from holystream.simulator import chat
from holystream.simulator.answers import Answer, Text, is_sampled, make_answer
from holystream.simulator.failures import error_body
from holystream.simulator.messages import ReceivedRequest, Response
from holystream.simulator.script import Script

CHAT_ROUTE = "/v1/chat/completions"
_MODELS_ROUTE = "/v1/models"
_MODELS = ("simulator", "simulator-reasoner")
_JSON = "application/json"
_EVENT_STREAM = "text/event-stream; charset=utf-8"
_OK, _MULTIPLE_CHOICES, _REDIRECTS = 200, 300, range(300, 400)
_WITHOUT_BODY = (204, 304)


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.response = _error(status, error_body(status, message, code=code))


def is_chat(request: ReceivedRequest) -> bool:
    """Tell whether the request asks for a chat completion."""
    return request.method == "POST" and request.route == CHAT_ROUTE


class Service:
    """Answers requests; used by all connections."""

    def __init__(self, *, text: Text, length: int, api_keys: Collection[str]) -> None:
        self._text = text
        self._length = length
        self._api_keys = tuple(api_keys)
        self._lock = threading.Lock()  # guards _asked
        self._asked: Counter[bytes] = Counter()

    def answer(self, body: dict[str, Any], sample: int | None = None) -> Answer:
        """Return what the next such request (or that sample) is answered."""
        if sample is None:
            with self._lock:
                sample = self._asked[_question(body)]
        return make_answer(body, sample=sample, text=self._text, length=self._length)

    def respond(self, request: ReceivedRequest, script: Script) -> Response:
        """Return the response to one request."""
        if early := _scripted(request, script):
            return early
        try:
            self._check_key(request)
            if request.route == CHAT_ROUTE:
                return self._chat(request, script)
            return _models(request)
        except _Refused as refused:
            return refused.response
        except Exception as error:  # noqa: BLE001 - `text` is the user's; he sees it
            return _error(500, error_body(500, f"the simulator failed: {error!r}"))

    def _check_key(self, request: ReceivedRequest) -> None:
        if not self._api_keys:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise _Refused(401, "You didn't provide an API key.")
        if not any(
            hmac.compare_digest(key.encode(), known.encode())
            for known in self._api_keys
        ):
            shown = f"{key[:3]}***{key[-3:]}" if len(key) > len("sk-***xyz") else "***"
            raise _Refused(401, f"Incorrect API key provided: {shown}.")

    def _chat(self, request: ReceivedRequest, script: Script) -> Response:
        if request.method != "POST":
            raise _Refused(405, f"{request.method} is not allowed here.")
        body = _checked(request)
        if not is_sampled(body):
            sample = 0
        else:
            question = _question(body)
            with self._lock:
                sample = self._asked[question]
                self._asked[question] += 1
        answer = self.answer(body, sample)
        if not body.get("stream"):
            value = chat.completion(answer, script)
            return Response(script.status, _JSON, (_dumped(value),), {})
        blocks = chat.event_stream(answer, body, script)
        return Response(
            script.status, _EVENT_STREAM, blocks, {"Cache-Control": "no-cache"}
        )


def _question(body: Mapping[str, Any]) -> bytes:
    key = json.dumps((body.get("model"), body.get("messages")), sort_keys=True)
    return hashlib.sha256(key.encode()).digest()


def _checked(request: ReceivedRequest) -> dict[str, Any]:
    body = request.json
    if not isinstance(body, dict):
        raise _Refused(400, "We could not parse the JSON body of your request.")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise _Refused(400, "you must provide a model parameter")
    messages = body.get("messages")
    if (
        not isinstance(messages, list)
        or not messages
        or not all(isinstance(message, dict) for message in messages)
    ):
        raise _Refused(400, "Invalid 'messages': expected a non-empty array.")
    return body


def _scripted(request: ReceivedRequest, script: Script) -> Response | None:
    status = script.status
    if script.redirect is not None:
        status = status if status in _REDIRECTS else 307
        return Response(status, _JSON, (), {"Location": script.redirect})
    if status in _WITHOUT_BODY:
        return Response(status, _JSON, None, {})
    if script.echo_key:
        status = 401 if status == _OK else status
        key = request.headers.get("authorization", "(none)")
        return _error(status, error_body(status, f"Incorrect API key provided: {key}"))
    if script.error is not None:
        return _error(status, script.error)
    if not _OK <= status < _MULTIPLE_CHOICES:
        return _error(status, error_body(status))
    return None


def _models(request: ReceivedRequest) -> Response:
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
        raise _Refused(404, f"Unknown request URL: {request.method} {request.route}.")
    if request.method != "GET":
        raise _Refused(405, f"{request.method} is not allowed here.")
    value = rows[name] if name else {"object": "list", "data": list(rows.values())}
    return Response(200, _JSON, (_dumped(value),), {})


def _error(status: int, error: Mapping[str, Any] | bytes) -> Response:
    if isinstance(error, bytes):
        kinds = {b"{": _JSON, b"<": "text/html; charset=utf-8"}
        kind = kinds.get(error.lstrip()[:1], "text/plain; charset=utf-8")
        return Response(status, kind, (error,), {})
    return Response(status, _JSON, (_dumped(dict(error)),), {})


def _dumped(value: object) -> bytes:
    return json.dumps(value, indent=2).encode()
