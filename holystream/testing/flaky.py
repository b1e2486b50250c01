"""A body for `responses` that arrives in pieces and breaks where it is told to.

`responses` hands its body to urllib3 as if it were http.client's response. Ours behaves
as one with a chunked body: each piece is read as one HTTP chunk, by `requests` as well
as by holystream, and a fault raises what http.client and the socket would raise.
"""

from __future__ import annotations

import dataclasses
import errno
import http.client
import io
import os
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import ReadableBuffer


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """The connection ends, by a FIN or a reset, before the body does."""

    how: Literal["fin", "rst"] = "fin"

    def __post_init__(self) -> None:
        """Refuse what no connection does."""
        if self.how not in ("fin", "rst"):
            raise ValueError(f"how must be 'fin' or 'rst', not {self.how!r}")


@dataclasses.dataclass(frozen=True, slots=True)
class Stall:
    """Nothing comes any more, until the reader's timeout: it passes at once."""


_Fault: TypeAlias = Cut | Stall | Exception


def flaky_body(
    items: Iterable[bytes | str | _Fault],
) -> io.BufferedReader:
    """Return a ``body=`` for `responses` that is read exactly as given here.

    A body without a fault ends cleanly. Each request that meets the body reads it from
    its start, if the response before it was read to its end or closed; for requests at
    the same time use ``responses.add_callback`` and make a body for each. Do not set
    ``Content-Length``.

    Args:
        items: The pieces in order: bytes, or text to be sent as UTF-8. The last may be
            a fault: `Cut`, `Stall`, or an exception that the socket shall raise.

    Raises:
        TypeError: An item is none of these, or ``items`` is one piece and no list.
        ValueError: Something follows a fault.
    """
    if isinstance(items, bytes | str):
        raise TypeError("flaky_body takes the pieces in a list: flaky_body([...])")
    pieces: list[bytes | _Fault] = []
    for item in items:
        if pieces and not isinstance(pieces[-1], bytes):
            raise ValueError(f"nothing can follow {pieces[-1]!r}: it ends the body")
        piece = item.encode() if isinstance(item, str) else item
        if not isinstance(piece, bytes | Cut | Stall | Exception):
            raise TypeError(
                "flaky_body takes bytes, str, Cut(), Stall() and exceptions, not "
                f"{type(piece).__name__}"
            )
        # An empty piece would be the end.
        if piece != b"":
            pieces.append(piece)
    return _FlakyBody(pieces)


def _raised_by(fault: _Fault) -> Exception:
    match fault:
        case Cut(how="rst"):
            return ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        case Cut():
            return http.client.IncompleteRead(b"")
        case Stall():
            return TimeoutError("timed out")
    return fault


class _FlakyBody(io.BufferedReader):
    """A file as urllib3 reads it. A `BufferedReader`, because `responses` asks for one.

    `responses` keeps one body for all the requests that it answers, and asks for its
    truth each time it does: that is where the next reading begins.
    """

    def __init__(self, pieces: list[bytes | _Fault]) -> None:
        super().__init__(io.BytesIO())
        self._pieces = pieces
        self._begin()

    def _begin(self) -> None:
        self._index = 0
        self._offset = 0
        self._over = False
        self._pausing = self._paused = False

    def __bool__(self) -> bool:
        if self._over:
            self._begin()
        return True

    @property
    def closed(self) -> bool:
        return self._over

    def close(self) -> None:
        # Urllib3 closes what it got nothing from; between two pieces that is no end.
        self._over = not self._paused
        self._paused = False

    def readable(self) -> bool:
        return True

    def read1(self, size: int | None = -1, /) -> bytes:
        """Return what is left of the current piece, at most ``size`` bytes."""
        if self._index == len(self._pieces):
            self._over = True
        if self._over:
            return b""
        piece = self._pieces[self._index]
        if not isinstance(piece, bytes):
            self._over = True
            raise _raised_by(piece)
        end = len(piece) if size is None or size < 0 else self._offset + size
        data = piece[self._offset : end]
        self._offset += len(data)
        if self._offset == len(piece):
            self._index += 1
            self._offset = 0
        return data

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the same, and nothing once after a piece that was too short.

        For urllib3 reads on until it has ``size`` bytes or gets none, while of a
        chunked body, whose chunks it knows, it hands on each as it comes.
        """
        self._paused, self._pausing = self._pausing, False
        if self._paused:
            return b""
        data = self.read1(size)
        wanted = -1 if size is None else size
        self._pausing = len(data) < wanted and self._index < len(self._pieces)
        return data

    def readinto(self, _buffer: ReadableBuffer, /) -> int:
        raise io.UnsupportedOperation("a flaky body is read by read and read1")
