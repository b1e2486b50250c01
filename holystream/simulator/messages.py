"""HTTP requests in, response heads out: only what a client may see of HTTP.

`read_request` takes exactly one request from a Peer and leaves what was
pipelined behind it. A request is complete when its body is; only then does it
become a ReceivedRequest.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

from holystream.simulator.peer import Peer

_MOST_HEAD = 256 * 1024
_MOST_BODY = 64 * 1024 * 1024
_REQUEST_LINE = 3


class BadRequest(Exception):
    """The request is not HTTP, or not one that is served here."""


class Headers(Mapping[str, str]):
    """Header fields by name in any case; repeated ones joined by a comma."""

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields: dict[str, str] = {}
        for name, value in fields:
            key = name.lower()
            known = self._fields.get(key)
            self._fields[key] = value if known is None else f"{known}, {value}"

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Headers({list(self._fields)})"


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request as it came in; `at` is `time.monotonic` of its last byte."""

    method: str
    path: str
    headers: Headers
    body: bytes
    json: Any
    """The body as JSON, None if it is not."""
    connection: int
    """The number of its connection: 1 is the first that was accepted."""
    at: float
    version: str = "HTTP/1.1"

    @property
    def route(self) -> str:
        """The path without its query."""
        return self.path.partition("?")[0]

    @property
    def keep_alive(self) -> bool:
        """Whether the client may use the connection again."""
        wish = self.headers.get("connection", "").lower()
        return "close" not in wish and self.version == "HTTP/1.1"


def read_request(peer: Peer, connection: int) -> ReceivedRequest:
    """Wait for the next request.

    Raises:
        Gone: The client left instead.
        BadRequest: What came is not a request.
    """
    head = _take_until(peer, b"\r\n\r\n").decode("latin-1")
    line, *rows = head.split("\r\n")
    words = line.split(" ")
    if len(words) != _REQUEST_LINE or not words[2].startswith("HTTP/1."):
        raise BadRequest(f"not a request line: {line[:100]!r}")
    headers = Headers(
        (name, value.strip()) for name, _, value in (row.partition(":") for row in rows)
    )
    if headers.get("expect", "").lower() == "100-continue":
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = _read_body(peer, headers)
    return ReceivedRequest(
        method=words[0],
        path=words[1],
        headers=headers,
        body=body,
        json=_parsed(body),
        connection=connection,
        at=time.monotonic(),
        version=words[2],
    )


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _read_body(peer: Peer, headers: Headers) -> bytes:
    if "chunked" in headers.get("transfer-encoding", "").lower():
        parts = []
        while size := _number(_take_until(peer, b"\r\n").partition(b";")[0], 16):
            parts.append(_take(peer, size))
            _take(peer, 2)
        while _take_until(peer, b"\r\n"):
            pass
        return b"".join(parts)
    return _take(peer, _number(headers.get("content-length", "0").encode(), 10))


def _number(text: bytes, base: int) -> int:
    try:
        value = int(text, base)
    except ValueError:
        raise BadRequest(f"not a length: {text[:40]!r}") from None
    if not 0 <= value <= _MOST_BODY:
        raise BadRequest(f"a body of {value} bytes is not read here")
    return value


def _take(peer: Peer, size: int) -> bytes:
    while len(peer.received) < size:
        peer.receive()
    taken = bytes(peer.received[:size])
    del peer.received[:size]
    return taken


def _take_until(peer: Peer, mark: bytes) -> bytes:
    while (at := peer.received.find(mark)) < 0:
        if len(peer.received) > _MOST_HEAD:
            raise BadRequest("the head is too long")
        peer.receive()
    taken = bytes(peer.received[:at])
    del peer.received[: at + len(mark)]
    return taken


def response_head(status: int, fields: Mapping[str, str]) -> bytes:
    """Return status line and header fields; None values are left out."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    rows = [f"HTTP/1.1 {status} {phrase}"]
    rows += [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(rows) + "\r\n\r\n").encode("latin-1", "replace")


class Live(Protocol):
    """A body that is still being written, whoever reads it."""

    is_first: bool
    """Whether this is the response it began with, which comes at its pace."""

    @property
    def ends_at(self) -> float:
        """When it was stopped, in monotonic time; infinity if it was not."""
        ...

    def ready_at(self, size: int) -> float:
        """Return when so many bytes of the body are there, in monotonic time."""
        ...


@dataclass(frozen=True, slots=True)
class Response:
    """What is to be answered, before anything goes wrong with it.

    `pieces` is the body in the order of its events; None means no body at all.
    """

    status: int
    content_type: str
    pieces: tuple[bytes, ...] | None
    headers: dict[str, str]
    live: Live | None = None

    @property
    def is_stream(self) -> bool:
        """Whether the body is an event stream."""
        return self.content_type.startswith("text/event-stream")
