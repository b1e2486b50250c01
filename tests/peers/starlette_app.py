"""A chat API on sse-starlette, for uvicorn: CRLF between its lines, comments as pings.

The model's name says what happens; with an ``X-Once: KEY`` header only to the first
request with that key.
"""

from __future__ import annotations

import json

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

seen: set[str] = set()


async def chat(request):
    """Answer one request."""
    body = await request.json()
    key = request.headers.get("x-once")
    what = "healthy" if key in seen else body["model"]
    if key is not None:
        seen.add(key)
    if what == "throttled":
        return JSONResponse({"detail": "Slow down."}, 429, {"retry-after-ms": "20"})
    if what == "unknown":
        return JSONResponse({"detail": "The model `unknown` does not exist."}, 404)
    blocks = events(body["messages"][-1]["content"], what)
    return EventSourceResponse(blocks, sep="\r" if what == "cr" else None)


async def events(prompt, what):
    """Yield the events of an answer."""
    words = prompt.split(" ")
    pieces = [words[0], *(f" {word}" for word in words[1:])]
    for number, piece in enumerate(pieces):
        if number == len(pieces) // 2:
            if what == "crashing":
                raise RuntimeError("as it was told")
            if what == "ending":
                return
            if what == "failing":
                yield {"event": "error", "data": json.dumps({"error": overloaded()})}
                return
        chunk = data({"content": piece}, None)
        if what == "named":
            yield ServerSentEvent(
                chunk, event="message", id=str(number), retry=3000, comment="a\nb"
            )
        else:
            yield chunk if what == "text" else {"data": chunk}
    yield {"data": data({}, "stop")}
    yield {"data": "[DONE]"}


def overloaded():
    """Return an error object."""
    return {"message": "Overloaded", "type": "overloaded_error", "code": 529}


def data(delta, finish):
    """Return the data of one event."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}
    return json.dumps(chunk, ensure_ascii=False)


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
