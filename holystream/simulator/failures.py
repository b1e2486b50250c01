"""How providers say that something failed.

`error_body` is the JSON of a response with an error status, `ERROR_EVENTS` the
shapes in which an error arrives inside a stream that began with 200. Each value
is a whole block of the event stream, with LF line endings.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


def _data(value: object) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


ERROR_EVENTS: Mapping[str, bytes] = MappingProxyType(
    {
        # An error object alone, then the end of the body.
        "openai": _data(
            {
                "error": {
                    "message": "The server had an error processing your request.",
                    "type": "server_error",
                    "param": None,
                    "code": None,
                }
            }
        ),
        # A normal chunk with an error beside its choices.
        "openrouter": _data(
            {
                "id": "gen-1",
                "object": "chat.completion.chunk",
                "created": 1700000000,
                "model": "openrouter/auto",
                "provider": "openai",
                "error": {
                    "code": "server_error",
                    "message": "Provider disconnected unexpectedly",
                },
                "choices": [
                    {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
                ],
            }
        ),
        # An error, and [DONE] behind it all the same.
        "vllm": _data(
            {
                "error": {
                    "object": "error",
                    "message": "EngineCore encountered an issue.",
                    "type": "InternalServerError",
                    "param": None,
                    "code": 500,
                }
            }
        )
        + b"data: [DONE]\n\n",
        # The code is a string, the type is null, the end is clean.
        "litellm": _data(
            {
                "error": {
                    "message": "litellm.MidStreamFallbackError: upstream is gone",
                    "type": None,
                    "param": None,
                    "code": "500",
                }
            }
        ),
        # A named event with another envelope.
        "anthropic": b"event: error\n"
        + _data(
            {
                "type": "error",
                "error": {"type": "overloaded_error", "message": "Overloaded"},
            }
        ),
        # The code is a number and comes first.
        "llama.cpp": _data(
            {
                "error": {
                    "code": 500,
                    "message": "Compute error.",
                    "type": "server_error",
                }
            }
        ),
        # No object at all.
        "string": _data({"error": "model runner has unexpectedly stopped"}),
        # One that another try cannot mend.
        "insufficient_quota": _data(
            {
                "error": {
                    "message": "You exceeded your current quota.",
                    "type": "insufficient_quota",
                    "param": None,
                    "code": "insufficient_quota",
                }
            }
        ),
    }
)

_INVALID = "invalid_request_error"
_BY_STATUS: Mapping[int, tuple[str, str, str | None]] = {
    400: ("Invalid request.", _INVALID, None),
    401: ("Incorrect API key provided.", _INVALID, "invalid_api_key"),
    403: ("You do not have access to this model.", _INVALID, "model_not_found"),
    404: ("The resource does not exist.", _INVALID, None),
    405: ("Not allowed to use this method here.", _INVALID, None),
    429: ("Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
    503: ("The engine is currently overloaded.", "server_error", None),
}


def error_body(
    status: int, message: str | None = None, *, code: str | None = None
) -> dict[str, Any]:
    """Return the error object OpenAI sends with that status."""
    text, kind, known_code = _BY_STATUS.get(
        status, ("The server had an error.", "server_error", None)
    )
    return {
        "error": {
            "message": text if message is None else message,
            "type": kind,
            "param": None,
            "code": code or known_code,
        }
    }
