"""Sessions: generations that outlive their client, as llama-server has them.

A POST with `X-Conversation-Id` begins one. It is written at the pace of its script,
whoever reads it and however often it is cut, and `GET /v1/stream` goes on with it at
any byte of the body: of the event stream after framing and compression are taken off,
its pings included. Only a DELETE, or another POST of that id, ends it early.
"""

import math
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any
from urllib.parse import parse_qs, urlsplit

from holystream.simulator.messages import ReceivedRequest, Response
from holystream.simulator.responses import (
    bare_response,
    json_response,
    stream_response,
)
from holystream.simulator.script import Script

STREAM_ROUTE = "/v1/stream"
LOOKUP_ROUTE = "/v1/streams/lookup"
_HEADER = "x-conversation-id"
_MOST_SESSIONS = 64
_NOT_FOUND = 404


class Session:
    """One generation, written as time goes by; thread-safe."""

    def __init__(self, name: str, blocks: Sequence[bytes], script: Script) -> None:
        self.name = name
        self._ring = script.ring
        self._ttl = script.ttl
        self._started_at = time.time()
        self._begun = time.monotonic()
        written = tuple(_written(blocks, script, self._begun + script.latency))
        self._times = [due for due, _ in written]
        self.blocks = tuple(block for _, block in written)
        self._ends = list(accumulate(map(len, self.blocks)))
        # Set once, by the thread that stops it; readers look now and then.
        self.stopped_at = math.inf

    def stop(self) -> None:
        """Write nothing more."""
        self.stopped_at = min(self.stopped_at, time.monotonic())

    def ready_at(self, size: int) -> float:
        """Return when so many bytes are there, or all of them if there are fewer."""
        if not self._ends:
            return self._begun
        at = min(bisect_left(self._ends, size), len(self._ends) - 1)
        return self._times[at]

    def is_expired(self) -> bool:
        """Tell whether it was over for too long to be remembered."""
        return self._over_at() + self._ttl < time.monotonic()

    def has_lost(self, offset: int) -> bool:
        """Tell whether that byte was thrown away for newer ones."""
        return offset < self._size() - self._ring

    def state(self) -> dict[str, Any]:
        """Return what a lookup tells of it."""
        over = self._over_at()
        is_done = over <= time.monotonic()
        ended_at = int(self._started_at + over - self._begun)
        return {
            "conversation_id": self.name,
            "is_done": is_done,
            "total_bytes": self._size(),
            "started_at": int(self._started_at),
            "completed_at": ended_at if is_done else 0,
        }

    def _over_at(self) -> float:
        return min(self.stopped_at, self._times[-1] if self._times else self._begun)

    def _size(self) -> int:
        now = min(time.monotonic(), self.stopped_at)
        return sum(
            len(block)
            for due, block in zip(self._times, self.blocks, strict=True)
            if due <= now
        )


class Sessions:
    """The sessions of one server by their ids; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _known
        self._known: dict[str, Session] = {}

    def begin(
        self, request: ReceivedRequest, response: Response, script: Script
    ) -> Response:
        """Return the response, as a session if the request asks for one."""
        name = request.headers.get(_HEADER)
        if not name or response.pieces is None or not response.is_stream:
            return response
        session = Session(name, response.pieces, script)
        with self._lock:
            replaced = self._known.pop(name, None)
            self._known[name] = session
            if len(self._known) > _MOST_SESSIONS:
                del self._known[next(iter(self._known))]
        if replaced is not None:
            replaced.stop()
        return replace(
            response, pieces=session.blocks, live=Reader(session, 0, is_first=True)
        )

    def respond(self, request: ReceivedRequest, script: Script) -> Response:
        """Return the response to a request for a session."""
        if request.route == LOOKUP_ROUTE:
            return self._look_up(request.json)
        query = parse_qs(urlsplit(request.path).query)
        name, offset = (query.get(key, [""])[0] for key in ("conv_id", "from"))
        if not name:
            return _error(400, "Missing conversation id in path")
        if request.method == "DELETE":
            with self._lock:
                stopped = self._known.pop(name, None)
            if stopped is not None:
                stopped.stop()
            return bare_response(204)
        return self._go_on(name, offset or "0", script)

    def _go_on(self, name: str, offset: str, script: Script) -> Response:
        session = self._find(name)
        if session is None:
            return _error(404, "Stream not found or expired")
        if not (offset.isascii() and offset.isdigit()):
            return _error(400, "Invalid 'from' offset")
        start = int(offset)
        if session.has_lost(start):
            return _error(400, "Stream offset lost, please restart")
        pieces = tuple(_behind(session.blocks, start))
        response = stream_response(pieces, script.status)
        return replace(response, live=Reader(session, start, is_first=False))

    def _find(self, name: str) -> Session | None:
        with self._lock:
            session = self._known.get(name)
            if session is not None and session.is_expired():
                del self._known[name]
                return None
            return session

    def _look_up(self, body: object) -> Response:
        if not isinstance(body, dict):
            return _error(400, "invalid body: not a JSON object")
        wanted = body.get("conversation_ids")
        names = wanted if isinstance(wanted, list) else []
        with self._lock:
            known = tuple(self._known.values())
        return json_response(
            [
                session.state()
                for name in names
                if name
                for session in known
                # The same conversation may go on with several models.
                if session.name == name or session.name.startswith(f"{name}::")
                if not session.is_expired()
            ]
        )


class Reader:
    """One response that brings a session, from that byte on."""

    def __init__(self, session: Session, start: int, *, is_first: bool) -> None:
        self._session = session
        self._start = start
        self.is_first = is_first

    @property
    def ends_at(self) -> float:
        """When it was stopped, in monotonic time; infinity if it was not."""
        return self._session.stopped_at

    def ready_at(self, size: int) -> float:
        """Return when so many bytes of this response can be sent."""
        return self._session.ready_at(self._start + size)


def _written(
    blocks: Sequence[bytes], script: Script, start: float
) -> Iterator[tuple[float, bytes]]:
    """Return the blocks, and the pings between them, with the time of each."""
    ping = f": {script.ping_text}{script.newline * 2}".encode()
    last = start
    for index, block in enumerate(blocks):
        due = start + script.first_token + index * script.pace
        while script.pings is not None and last + script.pings < due:
            last += script.pings
            if index or not script.bom:
                yield last, ping
        last = due
        yield due, block


def _behind(blocks: Sequence[bytes], start: int) -> Iterator[bytes]:
    for block in blocks:
        if start < len(block):
            yield block[start:]
        start = max(start - len(block), 0)


def _error(status: int, message: str) -> Response:
    kind = "not_found_error" if status == _NOT_FOUND else "invalid_request_error"
    error = {"code": status, "message": message, "type": kind}
    return json_response({"error": error}, status)
