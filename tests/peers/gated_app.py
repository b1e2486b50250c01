"""A chat API in WSGI, for gunicorn: it repeats the prompt, a word for an event.

With an ``X-Gate: PORT`` header it connects to that port of this machine, tells its
process id, and before each event waits for a byte from there; once the other side has
closed, it goes on by itself. Before the end of the body it waits as well.
"""

from __future__ import annotations

import json
import os
import socket


def app(environ, start_response):
    """Answer one request."""
    size = int(environ["CONTENT_LENGTH"])
    prompt = json.loads(environ["wsgi.input"].read(size))["messages"][-1]["content"]
    headers = [("Content-Type", "text/event-stream")]
    if environ.get("HTTP_X_UNBUFFERED"):
        headers.append(("X-Accel-Buffering", "no"))
    start_response("200 OK", headers)
    gate = environ.get("HTTP_X_GATE")
    return gated(events(prompt), int(gate)) if gate else events(prompt)


def events(prompt):
    """Yield the events of an answer."""
    words = prompt.split(" ")
    deltas = [{"role": "assistant", "content": ""}]
    deltas += [{"content": word} for word in [words[0], *(f" {w}" for w in words[1:])]]
    for delta in deltas:
        yield event(delta, None)
    yield event({}, "stop")
    yield b"data: [DONE]\n\n"


def event(delta, finish):
    """Return one event."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def gated(blocks, port):
    """Yield blocks as the gate lets them through; what was sent is reported."""
    with socket.create_connection(("127.0.0.1", port)) as gate:
        gate.sendall(f"{os.getpid()}\n".encode())
        for block in blocks:
            gate.recv(1)
            yield block
            gate.sendall(b".")
        gate.recv(1)
