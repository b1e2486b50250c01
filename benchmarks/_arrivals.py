"""The readers of latency.py, and the child process that measures one of them.

``python _arrivals.py READER URL STREAMS`` prints one line of JSON: how many
microseconds after it was sent each token was in its caller's hands, and for each stream
how many microseconds passed from the call to the first token.
"""

# ruff: noqa: PLC0415 - a child imports the library of its reader, and no other

from __future__ import annotations

import json
import socket
import sys
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Read = Callable[[], Iterator[str]]

_MESSAGES = [{"role": "user", "content": "What time is it?"}]
_REQUEST = {"model": "m", "messages": _MESSAGES, "stream": True}
_KEY = "sk-loopback-0123456789abcdef"


def raw(url: str) -> Read:
    """A socket that is kept while the framing allows, a split and a typed decode.

    The floor of throughput.py: it finds the data of an event by looking for it.
    """
    import _floor
    import msgspec

    parts = urlsplit(url)
    body = json.dumps(_REQUEST).encode()
    head = f"POST {parts.path}/x HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
    decode = msgspec.json.Decoder(_floor.Chunk).decode
    kept: list[socket.socket] = []

    def read() -> Iterator[str]:
        if not kept:
            sock = socket.create_connection((parts.hostname, parts.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            kept.append(sock)
        sock = kept[0]
        sock.sendall(head.encode() + body)
        recv = sock.recv
        rest = b""
        while data := recv(65536):
            blocks = (rest + data).split(b"\n\n")
            rest = blocks.pop()
            for block in blocks:
                event = block[block.find(b"data: ") + 6 :]
                if event == b"[DONE]":
                    if b"/close/" in head.encode():
                        kept.clear()
                        sock.close()
                    return
                choices = decode(event).choices
                if choices and (text := choices[0].delta.content):
                    yield text

    return read


def naive(url: str) -> Read:
    import requests

    session = requests.Session()

    def read() -> Iterator[str]:
        with session.post(f"{url}/x", json=_REQUEST, stream=True) as response:
            for line in response.iter_lines():
                if line.startswith(b"data: ") and line != b"data: [DONE]":
                    chunk = json.loads(line[6:])
                    if chunk["choices"]:
                        yield chunk["choices"][0]["delta"].get("content")

    return read


def httpx_sse(url: str) -> Read:
    import httpx
    from httpx_sse import connect_sse

    client = httpx.Client(timeout=60)

    def read() -> Iterator[str]:
        with connect_sse(client, "POST", f"{url}/x", json=_REQUEST) as source:
            for event in source.iter_sse():
                if event.data != "[DONE]":
                    chunk = json.loads(event.data)
                    if chunk["choices"]:
                        yield chunk["choices"][0]["delta"].get("content")

    return read


def openai(url: str) -> Read:
    from openai import OpenAI

    client = OpenAI(api_key=_KEY, base_url=url, max_retries=0)

    def read() -> Iterator[str]:
        for chunk in client.chat.completions.create(
            model="m", messages=_MESSAGES, stream=True
        ):
            if chunk.choices:
                yield chunk.choices[0].delta.content

    return read


def holystream(url: str) -> Read:
    from holystream import Client

    client = Client(provider="openai-compatible", base_url=url, model="m")

    def read() -> Iterator[str]:
        with client.stream(_MESSAGES) as stream:
            yield from stream.text_stream

    return read


READERS = {
    function.__name__: function
    for function in (raw, naive, httpx_sse, openai, holystream)
}


def main(name: str, url: str, streams: str) -> None:
    make = READERS[name]
    lateness: list[float] = []
    first: list[float] = []
    fresh: list[float] = []
    read = make(url)
    for number in range(int(streams) + 2):
        called = time.monotonic_ns()
        begun = None
        for text in read():
            now = time.monotonic_ns()
            if text:
                begun = begun or now
                if number > 1:
                    lateness.append((now - int(text)) / 1e3)
        if number > 1:
            first.append((begun - called) / 1e3)
    for _ in range(int(streams)):
        called = time.monotonic_ns()
        begun = None
        for text in make(url)():
            if text:
                begun = begun or time.monotonic_ns()
        fresh.append((begun - called) / 1e3)
    print(json.dumps({"lateness": lateness, "first": first, "fresh": fresh}))


if __name__ == "__main__":
    main(*sys.argv[1:])
