"""How a body is laid out on the wire: gzip and HTTP framing, piece by piece.

A Framer takes the pieces in order. Each becomes one HTTP chunk (`chunked`), a
part of the one big chunk (`one-chunk`), or plain bytes (`close`, `length`). With
gzip every piece ends in a flush, so it can be read without the next one.
"""

import zlib
from collections.abc import Iterator, Sequence

from holystream.simulator.script import Framing

_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class _Gzip:
    def __init__(self) -> None:
        self._deflate = zlib.compressobj(wbits=_GZIP_WINDOW)

    def __call__(self, data: bytes) -> bytes:
        deflate = self._deflate
        return deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)

    def trailer(self) -> bytes:
        return self._deflate.flush(zlib.Z_FINISH)


def split_at(pieces: Sequence[bytes], offset: int) -> tuple[int, int]:
    """Return which piece the offset is in, and where; an edge begins a piece."""
    for index, piece in enumerate(pieces):
        if offset < len(piece):
            return index, offset
        offset -= len(piece)
    return len(pieces), 0


def rechunk(pieces: Sequence[bytes], size: int) -> Iterator[bytes]:
    """Cut the same bytes into pieces of that size."""
    whole = b"".join(pieces)
    return (whole[at : at + size] for at in range(0, len(whole), size))


class Framer:
    """Lays out one body; `parts` is all of it, as it will be given."""

    def __init__(
        self, framing: Framing, parts: Sequence[bytes], *, gzip: bool, trailer: bool
    ) -> None:
        self._framing = framing
        self._gzip = _Gzip() if gzip else None
        self._trailer = trailer
        self._announces = framing in ("length", "one-chunk")
        self.room = self._measure(parts) if self._announces else 0
        self.length = self.room

    def _measure(self, parts: Sequence[bytes]) -> int:
        if self._gzip is None:
            return sum(map(len, parts))
        trial = _Gzip()
        size = sum(len(trial(part)) for part in parts)
        return size + (len(trial.trailer()) if self._trailer else 0)

    def fields(self) -> dict[str, str]:
        """Return the header fields that announce the layout."""
        fields = {} if self._gzip is None else {"Content-Encoding": "gzip"}
        if self._framing == "length":
            fields["Content-Length"] = str(self.length)
        elif self._framing != "close":
            fields["Transfer-Encoding"] = "chunked"
        return fields

    def open(self) -> bytes:
        """Return what comes before the first piece."""
        one = self._framing == "one-chunk" and self.length
        return b"%x\r\n" % self.length if one else b""

    def piece(self, head: bytes, tail: bytes = b"") -> bytes:
        """Lay out one piece; with a tail, only the head of it, unfinished."""
        first, rest = self._packed(head), self._packed(tail)
        self.room -= len(first)
        if self._framing != "chunked" or not first + rest:
            return first
        size = b"%x\r\n" % len(first + rest)
        return size + first if rest else size + first + b"\r\n"

    def aside(self, data: bytes) -> bytes:
        """Lay out a piece nobody announced, if there is room for it."""
        if self._announces and self.room < len(data):
            return b""
        return self.piece(data)

    def close(self) -> bytes:
        """Return what comes after the last piece."""
        trailer = self._gzip.trailer() if self._gzip and self._trailer else b""
        if self._framing == "chunked":
            last = b"%x\r\n%b\r\n" % (len(trailer), trailer) if trailer else b""
            return last + b"0\r\n\r\n"
        if self._framing == "one-chunk":
            return trailer + (b"\r\n" if self.length else b"") + b"0\r\n\r\n"
        return trailer

    def _packed(self, data: bytes) -> bytes:
        return data if self._gzip is None or not data else self._gzip(data)
