"""The response under urllib3's: reads through a guard and de-chunks in bulk.

http.client reads three times for each HTTP chunk, and a chunk is usually one token;
that is most of the cost of a naive stream. Here one recv brings whatever has come, and
all chunks in it are taken apart at once. Part of a chunk is handed over as it comes.
"""

from __future__ import annotations

import contextlib
import enum
import http
import http.client
import socket
from typing import TYPE_CHECKING, Any

from holystream.errors import Phase
from holystream.wire.socketio import GuardedSocket

if TYPE_CHECKING:
    from holystream.wire.guard import SocketGuard

READ_BYTES = 65536
_MAX_LINE_BYTES = 65536
_SIZES_KEPT = 256
_LONGEST_KEPT = 16
_SWITCHING_PROTOCOLS = 101
_HEX_DIGITS = b"0123456789abcdefABCDEF"


class _State(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILER = enum.auto()
    END = enum.auto()


class ChunkedDecoder:
    """Takes the chunked coding (RFC 9112, section 7.1) off a stream of bytes.

    Not thread-safe.

    Attributes:
        at_chunk: What comes next begins a chunk.
        sizes: The size lines that were seen, and what they say in bytes.
        width: Bytes of the last one.
        broken: What came is not the chunked coding; nothing after it is decoded.
        over: Nothing more is decoded: the end was seen, or it is broken.
        surplus: Bytes followed the end of the body: the connection is out of step.
    """

    __slots__ = (
        "_left",
        "_line",
        "_sizes",
        "_state",
        "at_chunk",
        "broken",
        "over",
        "sizes",
        "surplus",
        "width",
    )

    def __init__(self) -> None:
        self._state = _State.SIZE
        self._left = 0
        self._line = b""
        self._sizes: dict[bytes, int] = {}
        self.at_chunk = True
        self.sizes: dict[bytes, int] = {}
        self.width = 0
        self.broken = False
        self.over = False
        self.surplus = False

    @property
    def finished(self) -> bool:
        """The last chunk and the trailer after it were seen."""
        return self._state is _State.END

    @property
    def may_end(self) -> bool:
        """The last chunk was seen; some servers leave out the empty line after it."""
        return self._state in (_State.TRAILER, _State.END)

    def feed(self, data: bytes) -> bytes:
        """Return the payload that ``data`` brings."""
        if self._line:
            data = self._line + data
            self._line = b""
        payload: list[bytes] = []
        position = 0
        end = len(data)
        state = self._state
        while position < end:
            if state is _State.DATA:
                stop = position + self._left
                payload.append(data[position:stop])
                if stop > end:
                    self._left = stop - end
                    break
                position = self._take_usual(data, stop, payload)
                if data[position : position + 2] == b"\r\n":
                    position += 2
                    state = _State.SIZE
                else:
                    state = _State.DATA_END
                continue
            newline = data.find(b"\n", position)
            if newline < 0:
                self._line = data[position:]
                self.broken = len(self._line) > _MAX_LINE_BYTES
                break
            line = data[position : newline + 1]
            position = newline + 1
            state = self._next_state(state, line)
            if state is _State.END:
                self.surplus = position < end
                break
        self._state = state
        self.at_chunk = state is _State.SIZE and not self._line
        self.over = self.broken or state is _State.END
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _take_usual(self, data: bytes, position: int, payload: list[bytes]) -> int:
        """Take the chunks behind one that ends at ``position``; return where they end.

        The usual chunks are small and of a size seen before: one token each. What
        stands between two of them, CRLF and size line, is looked up whole, so that it
        is found and checked in one step.
        """
        append = payload.append
        known = self._sizes.get
        width = 2 + self.width
        end = len(data)
        while (size := known(data[position : position + width])) is not None:
            start = position + width
            stop = start + size
            if stop > end:
                break
            append(data[start:stop])
            position = stop
        return position

    def _next_state(self, state: _State, line: bytes) -> _State:
        """Take a line that is not payload."""
        if state is _State.SIZE:
            behind = b"\r\n" + line
            if (size := self._sizes.get(behind)) is not None:
                self._left = size
                self.width = len(line)
                return _State.DATA
        text = line.rstrip(b"\r\n")
        if state is _State.SIZE:
            digits = text.partition(b";")[0].strip()
            # int() would also take a sign, an underscore or a prefix.
            if digits and not digits.translate(None, _HEX_DIGITS):
                self._left = int(digits, 16)
                if not self._left:
                    return _State.TRAILER
                if text == digits and line.endswith(b"\r\n"):
                    self._remember(line)
                return _State.DATA
        elif not text:
            return _State.SIZE if state is _State.DATA_END else _State.END
        elif state is _State.TRAILER:
            return _State.TRAILER
        self.broken = True
        return _State.END

    def _remember(self, line: bytes) -> None:
        """Know this size line again, with the end of a chunk before it."""
        if len(self._sizes) < _SIZES_KEPT and len(line) <= _LONGEST_KEPT:
            self._sizes[b"\r\n" + line] = self.sizes[line] = self._left
            self.width = len(line)


class _Head:
    """Stands in for a response's reader while http.client reads the head with it.

    To http.client the end of the connection is the end of the headers: it would take
    the half of a type for the type.
    """

    __slots__ = ("_whole", "close", "flush")

    def __init__(self, whole: Any) -> None:
        self._whole = whole
        self.close = whole.close
        self.flush = whole.flush

    def readline(self, limit: int) -> bytes:
        """Return a whole line.

        Raises:
            http.client.RemoteDisconnected: The connection ended within it.
        """
        line: bytes = self._whole.readline(limit)
        if len(line) < limit and not line.endswith(b"\n"):
            raise http.client.RemoteDisconnected("closed within the head")
        return line


class BulkHTTPResponse(http.client.HTTPResponse):
    """http.client's response with guarded reads and bulk de-chunking.

    A chunked body can be read with `read1` alone. Not thread-safe.

    Attributes:
        decoder: Takes off the chunked coding.
    """

    def __init__(
        self, sock: Any, *args: Any, guard: SocketGuard, **kwargs: Any
    ) -> None:
        super().__init__(GuardedSocket(sock, guard), *args, **kwargs)  # type: ignore[arg-type]
        self._sock = sock
        self._guard = guard
        self.decoder = ChunkedDecoder()

    def _read_status(self) -> tuple[str, int, str]:
        """Read the status line of the answer, past those of interim ones.

        http.client passes over 100 alone. Any other that were taken for the answer
        would leave the real one on the connection, for the next request to read.
        """
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not _SWITCHING_PROTOCOLS < status < http.HTTPStatus.OK:
                return version, status, reason
            http.client.parse_headers(self.fp)

    def begin(self) -> None:
        """Read the status line and the headers.

        Raises:
            http.client.RemoteDisconnected: They broke off.
        """
        whole = self.fp
        head: Any = _Head(whole)
        self.fp = head
        try:
            super().begin()
        finally:
            if self.fp is head:
                self.fp = whole
        if self.status == _SWITCHING_PROTOCOLS:
            # What follows is not HTTP: not to be read as the answer to a next request.
            self.will_close = True

    def read1(self, n: int = -1) -> bytes:
        """Return what one recv brings, at most ``n`` bytes; empty at the end.

        Raises:
            http.client.IncompleteRead: The chunked coding broke off or is not one.
        """
        if not self.chunked or self.fp is None:
            return super().read1(n)
        amount = READ_BYTES if n < 0 else min(n, READ_BYTES)
        payload = b""
        while not payload and self.fp is not None:
            self._check_coding()
            data = self.fp.read1(amount)
            payload = self.decoder.feed(data)
            if self.decoder.over or not data:
                self.end_coding(data)
        return payload

    def _check_coding(self) -> None:
        if self.decoder.broken:
            self.close()
            raise http.client.IncompleteRead(b"")

    def end_coding(self, data: bytes) -> None:
        """Close where the coding ended or is cut off."""
        decoder = self.decoder
        if not data:
            self.close()
            if not decoder.may_end:
                raise http.client.IncompleteRead(b"")
        elif not decoder.broken:
            if decoder.surplus:
                # Answers to come would be read out of step: do not re-use it.
                with contextlib.suppress(OSError):
                    self._sock.shutdown(socket.SHUT_RDWR)
            self.close()

    def _close_conn(self) -> None:
        super()._close_conn()  # type: ignore[misc]  # http.client's own
        # The body has ended, and urllib3 is about to give the connection to whoever
        # wants it next: a late stop must not reach it. A proxy's answer to CONNECT is
        # only the beginning.
        if self._guard.phase is not Phase.CONNECT:
            self._guard.release()
