"""Whether another answer begins within one, by what its chunks say of themselves.

A proxy whose upstream fails may go on with another generation on the same connection,
which is no rest of the first one. It shows where the id, the same until then, changes
in a chunk that says who speaks, as an answer's first chunk does, and content follows
under the new id: text, reasoning, a refusal or a tool call, behind a finish reason as
well. Less than that is no sign: some servers give each chunk an id of its own, some say
in each who speaks, some do both, and some name only the end otherwise. Where the second
chunk is the one that has another id and says who speaks, the third one tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from holystream.providers.chunks import (
    UNREADABLE,
    Malformed,
    parts_of,
    read_identity,
    read_named_spoken,
    read_spoken,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holystream.providers.chunks import ChunkChoice, SpokenChunk

__all__ = ["Speaker", "introduced"]


class _Role(msgspec.Struct, gc=False):
    role: str | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    delta: _Role | None = None


class _Introduction(msgspec.Struct, gc=False):
    id: str | None = None
    choices: list[_Choice] | None = None


_read = msgspec.json.Decoder(_Introduction).decode


def introduced(data: bytes) -> tuple[str | None, frozenset[int]]:
    """Return a chunk's id, and the choices in which it says who speaks."""
    try:
        chunk = _read(data)
    except UNREADABLE:
        return None, frozenset()
    return chunk.id, frozenset(
        choice.index or 0
        for choice in chunk.choices or ()
        if choice.delta and choice.delta.role
    )


class Speaker:
    """The one that gives an answer, on one connection.

    Attributes:
        known: Enough of the first chunks has been seen.
        another: Another one was introduced, and has said nothing yet.
    """

    __slots__ = ("_doubted", "_id", "_steady", "another", "known")

    def __init__(self) -> None:
        self.known = False
        self.another = False
        self._id: str | None = None
        self._steady = False
        # The id of another one, or of the second of chunks that all have their own.
        self._doubted: str | None = None

    def name(self, name: str | None, *, introduced: bool) -> None:
        """Take the id of one of the first chunks.

        Args:
            name: The id.
            introduced: The chunk says who speaks, after something was said.

        Raises:
            Malformed: It is the second chunk of another answer.
        """
        if self._id is None and name:
            self._id = name
        elif self._doubted is None:
            self._steady = name is not None and name == self._id
            self._doubted = name if introduced and not self._steady else None
            self.known = not self._doubted
        elif name == self._doubted:
            raise Malformed("another answer began within this one")
        else:
            self.known = True

    def meet(self, name: str | None) -> None:
        """Take the id of a chunk in the midst of the answer that says who speaks."""
        self.another = self._steady and name not in (None, "", self._id)

    def check(self, choice: ChunkChoice, data: bytes) -> None:
        """Refuse what the one says that was introduced.

        Raises:
            Malformed: It says something.
        """
        if all(part == "end" for part in parts_of(choice, choice.delta)):
            return
        self.another = read_identity(data) not in (None, self._id)
        if self.another:
            raise Malformed("another answer began within this one")

    @property
    def reading(self) -> Callable[[bytes], SpokenChunk]:
        """What reads text in chunks that may say who speaks, of this one only."""
        return self._read_own if self._steady else read_spoken

    def _read_own(self, data: bytes) -> SpokenChunk:
        chunk = read_named_spoken(data)
        if chunk.id != self._id:
            raise ValueError("it has another id")
        return chunk
