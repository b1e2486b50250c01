"""Whether another answer begins within one, by what its chunks say of themselves.

A proxy whose upstream fails may go on with another generation on the same connection,
which is no rest of the first one. It shows where the id, the same until then, changes
in a chunk that says who speaks, as an answer's first chunk does, and text follows under
the new id before the first answer has its finish reason. Less than that is no sign:
some servers give each chunk an id of its own, some say in each who speaks, some do
both, and some name only the end otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from holystream.providers.chunks import (
    UNREADABLE,
    Malformed,
    parts_of,
    read_identity,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holystream.providers.chunks import ChunkChoice

__all__ = ["Speaker"]


class _Role(msgspec.Struct, gc=False):
    role: str | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Role | None = None
    finish_reason: str | None = None


class _Introduction(msgspec.Struct, gc=False):
    id: str | None = None
    choices: list[_Choice] | None = None


_read = msgspec.json.Decoder(_Introduction).decode


class Speaker:
    """The one that gives an answer, on one connection.

    Attributes:
        another: Another one was introduced, and has said nothing yet.
    """

    __slots__ = ("_id", "_steady", "another")

    def __init__(self) -> None:
        self.another = False
        self._id: str | None = None
        self._steady = False

    def name(self, name: str | None) -> bool:
        """Take the id of one of the first chunks; return whether that was enough."""
        if self._id is None and name:
            self._id = name
            return False
        self._steady = self._id == name is not None
        return True

    def speaks(self, data: bytes) -> bool:
        """Whether a chunk in the midst of the text says who speaks, as all here do."""
        try:
            chunk = _read(data)
        except UNREADABLE:
            return False
        if not any(
            choice.delta and choice.delta.role and not choice.finish_reason
            for choice in chunk.choices or ()
        ):
            return False
        self.another = self._steady and chunk.id not in (None, "", self._id)
        return not self.another

    def check(self, choices: Iterable[ChunkChoice], data: bytes) -> None:
        """Refuse what the one says that was introduced.

        Raises:
            Malformed: It says something.
        """
        if all(
            part == "end"
            for choice in choices
            for part in parts_of(choice, choice.delta)
        ):
            return
        self.another = read_identity(data) not in (None, self._id)
        if self.another:
            raise Malformed("another answer began within this one")
