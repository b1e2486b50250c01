"""Responses by their kind: JSON, an event stream, a refusal, an error."""

import json
from collections.abc import Mapping
from typing import Any

from holystream.simulator.failures import error_body
from holystream.simulator.messages import Response

_JSON = "application/json"
_EVENT_STREAM = "text/event-stream; charset=utf-8"


class Refused(Exception):
    """The request is answered by this response instead."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.response = error_response(status, error_body(status, message, code=code))


def json_response(value: object, status: int = 200) -> Response:
    """Return a JSON body."""
    return Response(status, _JSON, (json.dumps(value, indent=2).encode(),), {})


def stream_response(blocks: tuple[bytes, ...], status: int = 200) -> Response:
    """Return an event stream of these blocks."""
    return Response(status, _EVENT_STREAM, blocks, {"Cache-Control": "no-cache"})


def bare_response(status: int, headers: dict[str, str] | None = None) -> Response:
    """Return a status without a body."""
    return Response(status, _JSON, None, headers or {})


def error_response(status: int, error: Mapping[str, Any] | bytes) -> Response:
    """Return an error: JSON, or bytes whose type is guessed as browsers do."""
    if isinstance(error, bytes):
        kinds = {b"{": _JSON, b"<": "text/html; charset=utf-8"}
        kind = kinds.get(error.lstrip()[:1], "text/plain; charset=utf-8")
        return Response(status, kind, (error,), {})
    return json_response(dict(error), status)
