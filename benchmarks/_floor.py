"""The floor: a socket, a split, and a typed decode of the one field that is wanted.

No HTTP library, no event-stream rules, no checks. It relies on the server never cutting
an event in two chunks, and takes off the chunked coding by looking for the data.
"""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable


class Delta(msgspec.Struct, gc=False):
    """What a chunk adds."""

    content: str | None = None


class Choice(msgspec.Struct, gc=False):
    """The one choice of a chunk."""

    delta: Delta


class Chunk(msgspec.Struct, gc=False):
    """A chunk, without all that is not wanted."""

    choices: list[Choice]


def reader(url: str, request: dict[str, Any]) -> Callable[[], list[str]]:
    parts = urlsplit(url)
    body = json.dumps(request).encode()
    head = (
        f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    decode = msgspec.json.Decoder(Chunk).decode

    def read() -> list[str]:
        texts: list[str] = []
        append = texts.append
        with socket.create_connection((parts.hostname, parts.port)) as connection:
            connection.sendall(head.encode() + body)
            recv = connection.recv
            received = b""
            while b"\r\n\r\n" not in received:
                received += recv(65536) or b"\r\n\r\n"
            received = received.partition(b"\r\n\r\n")[2]
            while True:
                blocks = received.split(b"\n\n")
                rest = blocks.pop()
                for block in blocks:
                    event = block[block.find(b"data: ") + 6 :]
                    if event == b"[DONE]":
                        return texts
                    choices = decode(event).choices
                    if choices and (text := choices[0].delta.content):
                        append(text)
                if not (data := recv(65536)):
                    return texts
                received = rest + data

    return read
