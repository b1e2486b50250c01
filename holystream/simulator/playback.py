"""Playing a response to a Peer, with everything the script makes go wrong.

The response is known to its last byte before the first one is sent. Bytes are
gathered and sent in big writes; only where the script wants a wait (pace, gate,
drip, silence) is what was gathered sent before it, so a healthy answer costs one
write and a paced one a write per event.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Literal, TypeAlias

from holystream.simulator.framing import Framer, rechunk, split_at
from holystream.simulator.messages import Live, Response, response_head
from holystream.simulator.peer import Peer
from holystream.simulator.script import Script

_Stop: TypeAlias = Literal["fin", "rst", "stall"]
_BIG = 256 * 1024
_LOOK = 0.02
_CHUNK_SIZE_DRIP = (1, 0.05)
_GARBAGE = b"\x15\x03\x01\x00\x02\x02\x16 not HTTP\r\n\r\n"


class _Stopped(Exception):
    """Nothing more is written of what is sent."""


def play(peer: Peer, response: Response, script: Script, *, keep_alive: bool) -> bool:
    """Send the response; tell whether the connection may be used again.

    When it may not, it has been ended here, the way the script wants it.

    Raises:
        Gone: The client left.
        Dropped: The simulator ends the connection.
    """
    if script.latency:
        peer.pause(time.monotonic() + script.latency)
    if script.stall_headers:
        peer.pause(math.inf)
    if script.cut_before_headers is not None:
        _hang_up(peer, script.cut_before_headers)
        return False
    if script.garbage_status_line:
        peer.send(_GARBAGE)
        peer.finish()
        return False
    return _Playback(peer, response, script, keep_alive=keep_alive).run()


def _hang_up(peer: Peer, how: str) -> None:
    if how == "rst":
        peer.reset()
    else:
        peer.finish(clean=False)


class _Playback:
    def __init__(
        self, peer: Peer, response: Response, script: Script, *, keep_alive: bool
    ) -> None:
        events = response.pieces or ()
        if response.live is not None:
            # Its pings are in the body, where they count, and so is its own pace.
            script = replace(script, pings=None)
            if response.live.is_first:
                script = replace(script, pace=0.0, first_token=0.0)
        self._peer = peer
        self._script = script
        self._live = response.live
        chunked = response.is_stream or script.drip_chunk_size
        self._framing = script.framing or ("chunked" if chunked else "length")
        self._keep_alive = keep_alive and self._framing != "close"
        size = sum(map(len, events))
        end = script.cut_at if script.cut == "end" else None
        ends_early = end is not None and end <= size
        if end is not None and ends_early:
            events, size = _first(events, end), end
        pieces = events
        if script.rechunk is not None:
            pieces = tuple(rechunk(events, script.rechunk))
        # Where a line of its own may be put in without breaking an event.
        self._edges = frozenset[int]() if script.pings is None else _edges(events)
        self._stop, offset = self._find_stop(size, pieces)
        self._count, self._inner = split_at(pieces, offset)
        self._pieces = pieces
        self._framer = Framer(
            self._framing, self._parts(), gzip=script.gzip, trailer=not ends_early
        )
        self._head = self._make_head(response)
        self._bodiless = response.pieces is None
        self._gathered = bytearray()
        self._offset = 0
        self._drip_due = 0.0
        self._last_sent = 0.0

    def _find_stop(
        self, size: int, pieces: Sequence[bytes]
    ) -> tuple[_Stop | None, int]:
        script = self._script
        stall, cut = script.stall_at, script.cut_at
        if script.drip_chunk_size:
            stall = _next(_edges(pieces), stall or 0)
        elif script.pings is not None and stall is not None:
            stall = _next(self._edges, stall)
        before_stall = cut is not None and (stall is None or cut <= stall)
        if cut is not None and script.cut != "end" and before_stall and cut <= size:
            return script.cut, cut
        if stall is not None and stall <= size:
            return "stall", stall
        return None, size

    def _parts(self) -> tuple[bytes, ...]:
        if not self._inner:
            return self._pieces
        split = self._pieces[self._count]
        halves = (split[: self._inner], split[self._inner :])
        return (*self._pieces[: self._count], *halves, *self._pieces[self._count + 1 :])

    def _make_head(self, response: Response) -> bytes:
        fields = {"Content-Type": response.content_type, **response.headers}
        if response.pieces is None:
            del fields["Content-Type"]
        else:
            fields |= self._framer.fields()
        if self._script.content_type is not None:
            fields["Content-Type"] = self._script.content_type
        fields["Connection"] = "keep-alive" if self._keep_alive else "close"
        return response_head(response.status, _replaced(fields, self._script.headers))

    def run(self) -> bool:
        script = self._script
        if script.drip_headers is None:
            self._gathered += self._head
            if script.drip is not None:
                self._flush(dripped=False)
        else:
            self._drip(self._head, script.drip_headers)
        if self._bodiless:
            return self._end()
        self._gathered += self._framer.open()
        try:
            self._send_pieces()
        except _Stopped:
            return self._end_early()
        if self._stop is not None:
            self._flush()
            self._break_off(self._stop)
            return False
        if script.linger:
            self._flush()
            self._peer.pause(time.monotonic() + script.linger)
        self._gathered += self._framer.close()
        return self._end()

    def _send_pieces(self) -> None:
        script = self._script
        start = time.monotonic() + script.first_token
        if not self._pieces and (script.first_token or self._live):
            self._wait(start, 0)
        for index, piece in enumerate(self._pieces[: self._count]):
            self._wait(start + index * script.pace, len(piece))
            self._gathered += self._framer.piece(piece)
            self._sent(len(piece))
        if self._inner:
            self._wait(start + self._count * script.pace, self._inner)
            piece = self._pieces[self._count]
            # A ping must not land in the data of a chunk that was announced.
            pinged = script.pings is not None and self._stop == "stall"
            tail = b"" if pinged else piece[self._inner :]
            self._gathered += self._framer.piece(piece[: self._inner], tail)
            self._sent(self._inner)

    def _end_early(self) -> bool:
        """End a body of which nothing more is written."""
        if self._framing in ("one-chunk", "length"):
            self._flush()
            _hang_up(self._peer, "fin")
            return False
        self._gathered += self._framer.close()
        return self._end()

    def _end(self) -> bool:
        self._flush()
        if not self._keep_alive:
            self._peer.finish()
        return self._keep_alive

    def _break_off(self, stop: _Stop) -> None:
        if stop != "stall":
            _hang_up(self._peer, stop)
        elif self._script.drip_chunk_size:
            _, every = self._script.drip or _CHUNK_SIZE_DRIP
            while True:
                self._peer.send(b"0")
                self._peer.pause(time.monotonic() + every)
        elif self._script.pings is None:
            self._peer.pause(math.inf)
        else:
            self._pause_with_pings(math.inf)

    def _sent(self, size: int) -> None:
        self._offset += size
        if self._script.pace or len(self._gathered) > _BIG:
            self._flush()

    def _wait(self, due: float, size: int) -> None:
        """Wait for the time of the next piece, of that size, then for its gate."""
        if self._live is not None:
            self._wait_for_writer(self._live, self._offset + size)
        if due > time.monotonic():
            self._flush()
            pings = self._script.pings is not None and self._may_ping()
            (self._pause_with_pings if pings else self._peer.pause)(due)
        gate = self._script.gate
        if gate is not None and not gate.acquire(blocking=False):
            self._flush()
            while not gate.acquire(timeout=_LOOK):
                self._peer.check()

    def _wait_for_writer(self, live: Live, size: int) -> None:
        ready = live.ready_at(size)
        if ready > time.monotonic():
            self._flush()
        while (now := time.monotonic()) < min(ready, live.ends_at):
            self._peer.pause(min(ready, now + _LOOK))
        if live.ends_at < ready:
            raise _Stopped

    def _may_ping(self) -> bool:
        announced = self._framing in ("one-chunk", "length")
        before_bom = self._script.bom and not self._offset
        return not announced and not before_bom and self._offset in self._edges

    def _pause_with_pings(self, until: float) -> None:
        every, ending = self._script.pings or math.inf, self._script.newline
        ping = f": {self._script.ping_text}{ending}{ending}".encode()
        while (due := self._last_sent + every) < until:
            self._peer.pause(due)
            self._peer.send(self._framer.aside(ping))
            self._last_sent = due
        self._peer.pause(until)

    def _flush(self, *, dripped: bool = True) -> None:
        if not self._gathered:
            return
        if self._script.drip is not None and dripped:
            self._drip(bytes(self._gathered), self._script.drip)
        else:
            self._peer.send(self._gathered)
        self._gathered = bytearray()
        self._last_sent = time.monotonic()

    def _drip(self, data: bytes, drip: tuple[int, float]) -> None:
        size, every = drip
        self._drip_due = max(self._drip_due, time.monotonic())
        for at in range(0, len(data), size):
            self._peer.pause(self._drip_due)
            self._peer.send(data[at : at + size])
            self._drip_due += every
        self._last_sent = time.monotonic()


def _first(pieces: tuple[bytes, ...], size: int) -> tuple[bytes, ...]:
    index, inner = split_at(pieces, size)
    rest = (pieces[index][:inner],) if inner else ()
    return (*pieces[:index], *rest)


def _edges(pieces: Sequence[bytes]) -> frozenset[int]:
    return frozenset(accumulate(map(len, pieces), initial=0))


def _next(edges: frozenset[int], offset: int) -> int:
    return min((edge for edge in edges if edge >= offset), default=offset)


def _replaced(fields: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    taken = {name.lower() for name in extra}
    kept = {name: value for name, value in fields.items() if name.lower() not in taken}
    return {**kept, **extra}
