"""Where in its answer a server could go on: a cursor, kept up to date."""

from __future__ import annotations

import hashlib
import re
import zlib
from typing import TYPE_CHECKING, Final

from holystream.providers.base import Cursor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holystream.wire.sse import ServerSentEvent

_REMEMBERED: Final = 1024
"""Messages without an id of their own, beyond which no cursor is kept."""
_NUMBERED: Final = re.compile(r"(.*?)([0-9]{1,18})", re.DOTALL)
_DIGEST_BYTES: Final = 16


def digest(message: ServerSentEvent) -> bytes:
    """Return what tells one message from another, without its content."""
    return hashlib.blake2b(message.raw, digest_size=_DIGEST_BYTES).digest()


def numbered(event_id: str) -> tuple[str, int] | None:
    """Return an id in two parts, the number at its end and what stands before it."""
    match = _NUMBERED.fullmatch(event_id)
    return (match[1], int(match[2])) if match else None


def follows(one: str, other: str) -> bool:
    """Whether one id is another one's next."""
    before, after = numbered(one), numbered(other)
    return (
        before is not None
        and after is not None
        and before[0] == after[0]
        and before[1] + 1 == after[1]
    )


class CursorTracker:
    """Notes what an answer's messages say of their places. Not thread-safe.

    For one generation, over as many connections as bring it.
    """

    __slots__ = (
        "_began",
        "_behind",
        "_check",
        "_conversation",
        "_first",
        "_id",
        "_last",
        "_lost",
        "_numbered",
        "_offset",
        "_seen",
        "_too_many",
    )

    def __init__(self, conversation: str = "") -> None:
        self._conversation = conversation
        self._id = ""
        self._last: ServerSentEvent | bytes = b""
        self._behind: list[ServerSentEvent | bytes] = []
        self._numbered = True
        # Of all numbered messages: a server may bring them again from the first one.
        self._began: int | None = None
        self._check = 0
        self._lost = False
        self._too_many = False
        # The last id that this connection gave: a later message may have inherited it.
        self._seen = ""
        self._offset = 0
        self._first = b""

    @classmethod
    def behind(cls, cursor: Cursor) -> CursorTracker:
        """Return a tracker that stands at this cursor."""
        tracker = cls(cursor.conversation)
        tracker._id = cursor.last_event_id
        tracker._last = cursor.last
        tracker._behind = list(cursor.behind)
        tracker._numbered = cursor.consecutive
        tracker._began = cursor.began
        tracker._check = cursor.check
        tracker._offset = cursor.offset
        tracker._first = cursor.first
        return tracker

    def reconnected(self) -> None:
        """Expect the messages of another connection, whose ids begin anew."""
        self._seen = ""

    def passed_over(self, event_id: str) -> None:
        """Note the id of a message that had come before and was not taken again."""
        self._seen = event_id

    def note(self, messages: Sequence[ServerSentEvent]) -> None:
        """Note messages that were taken."""
        for message in messages:
            if message.id and message.id != self._seen:
                self._seen = message.id
                if self._numbered:
                    self._count(message)
                self._id = message.id
                self._last = message
                self._behind.clear()
                self._too_many = False
            elif self._id:
                self._numbered = False
                self._too_many = self._too_many or len(self._behind) >= _REMEMBERED
                if self._too_many:
                    self._behind.clear()
                else:
                    self._behind.append(message)

    def _count(self, message: ServerSentEvent) -> None:
        if not self._id:
            place = numbered(message.id)
            self._numbered = place is not None
            self._began = place[1] if place is not None else None
        else:
            self._numbered = follows(self._id, message.id)
        self._check = zlib.crc32(message.raw, self._check)

    def began(self, message: ServerSentEvent) -> None:
        """Note the first message of a body whose bytes are counted."""
        self._first = self._first or digest(message)

    def reached(self, offset: int | None) -> None:
        """Note how many bytes of the body were taken; None: it cannot be known."""
        if offset is None:
            self._lost = True
        else:
            self._offset = offset

    @property
    def offset(self) -> int:
        """Bytes of the body's whole events that were taken."""
        return self._offset

    @property
    def keeps_ids(self) -> bool:
        """Whether a message had an id."""
        return bool(self._id)

    @property
    def keeps_bytes(self) -> bool:
        """Whether the server counts bytes."""
        return bool(self._conversation)

    def cursor(self, response_id: str | None) -> Cursor | None:
        """Return where to go on; None where the server gave no place or no name."""
        if self._lost or self._too_many:
            return None
        if self._conversation:
            return Cursor(
                response_id=response_id or "",
                conversation=self._conversation,
                offset=self._offset,
                first=self._first,
            )
        if not self._id or not response_id:
            return None
        return Cursor(
            response_id=response_id,
            last_event_id=self._id,
            last=_digested(self._last),
            behind=tuple(map(_digested, self._behind)),
            consecutive=self._numbered,
            began=self._began if self._numbered else None,
            check=self._check if self._numbered else 0,
        )


def _digested(message: ServerSentEvent | bytes) -> bytes:
    return message if isinstance(message, bytes) else digest(message)
