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
    NamedChunk,
    parts_of,
    read_identity,
    read_named,
    read_named_spoken,
    read_plain,
    read_spoken,
    read_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holystream.providers.chunks import Chunk, ChunkChoice, SpokenChunk

__all__ = ["Speakers"]


class _Role(msgspec.Struct, gc=False):
    role: str | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = None
    delta: _Role | None = None


class _Introduction(msgspec.Struct, gc=False):
    id: str | None = None
    choices: list[_Choice] | None = None


_read = msgspec.json.Decoder(_Introduction).decode


def _introduced(data: bytes) -> tuple[str | None, frozenset[int]]:
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


class _Speaker:
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


class Speakers:
    """Those that give the answers of one connection, one for each.

    Attributes:
        wary: Every chunk is to be met: not all of them are known, or another one was
            introduced.
        read: What reads a chunk; until they are known, with its names.
        read_text: What reads a chunk that is text of the first choice and nothing else.
    """

    __slots__ = ("_answers", "_by_index", "read", "read_text", "wary")

    def __init__(self, answers: int) -> None:
        self.wary = True
        self.read: Callable[[bytes], Chunk] = read_named
        self.read_text: Callable[[bytes], SpokenChunk] = read_text
        self._answers = answers
        self._by_index: dict[int, _Speaker] = {}

    def meet(self, chunk: Chunk, data: bytes, begun: Callable[[int], bool]) -> None:
        """Note who speaks, and refuse another one.

        Args:
            chunk: A chunk that is about to be taken.
            data: What it was read from.
            begun: Tells whether anything of an answer has come.

        Raises:
            Malformed: Another answer goes on where one has begun.
        """
        many = self._answers > 1
        named: set[int] = set()
        name, roles = _introduced(data) if b'"role"' in data else (None, ())
        for choice in chunk.choices or ():
            index = (choice.index or 0) if many else 0
            speaker = self._by_index.get(index)
            if speaker is None:
                speaker = self._by_index[index] = _Speaker()
            speaks = (choice.index or 0) in roles and begun(index)
            if not speaker.known:
                # A proxy may have numbered the parts of one answer.
                if isinstance(chunk, NamedChunk) and index not in named:
                    named.add(index)
                    speaker.name(chunk.id, introduced=speaks)
            elif speaks:
                speaker.meet(name)
                if index == 0 and not speaker.another:
                    self.read_text = speaker.reading
            if speaker.another:
                speaker.check(choice, data)
        speakers = self._by_index.values()
        if len(speakers) >= self._answers and all(each.known for each in speakers):
            self.read = read_plain
        self.wary = self.read is read_named or any(each.another for each in speakers)
