"""Cursor: the server kept the answer and sends the rest of the same generation.

An id proves nothing by itself: a server that does not know ``Last-Event-ID`` answers
200 with another generation, whose ids begin anew. What counts as proof is the answer's
own id together with the next number, or with messages that are known; where the answer
is kept under a name of ours, the name. Some servers give all answers one id: where one
begins with its first message again, all that came must come again, and be the same.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from holystream.events import Guarantee, Resumed
from holystream.resume.base import Continuation, SeamMismatch
from holystream.resume.tracker import digest, numbered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holystream.providers.base import Cursor
    from holystream.resume.base import Gate, Trail
    from holystream.wire.sse import ServerSentEvent

_HELD: Final = 1024
"""Messages that may wait for the ones before them."""


class CursorJoin:
    """The server sends what lies behind the last message that was taken."""

    name = "cursor"
    guarantee = Guarantee.VERBATIM
    keeps = True
    extends = False

    def join(self, trail: Trail) -> Continuation | None:
        """Ask for the rest, if the server gave a place and the answer a name."""
        cursor, decoder = trail.cursor, trail.decoder
        if cursor is None or decoder is None:
            return None
        identity = trail.provider.identity
        gate: Gate = (
            ByteGate(cursor, identity)
            if cursor.conversation
            else IdGate(cursor, identity)
        )
        return Continuation(
            request=trail.provider.behind(trail.asked or trail.request, cursor),
            gate=gate,
            decoder=decoder,
        )


class ByteGate:
    """Lets the rest of a body through that the server kept under our name."""

    def __init__(
        self, cursor: Cursor, identity: Callable[[ServerSentEvent], str | None]
    ) -> None:
        self._response_id = cursor.response_id
        self._first = cursor.first
        self._identity = identity
        self.proven = False
        self.passed_over = ""

    def admit(self, messages: Sequence[ServerSentEvent]) -> list[ServerSentEvent]:
        """Return all messages, if none of them names another answer.

        Nor if the first is the one that the answer began with: the place was ignored.
        """
        if not self.proven and self._first in map(digest, messages[:1]):
            raise SeamMismatch("it is sent from its beginning")
        for message in messages:
            _check_identity(self._identity(message), self._response_id)
        self.proven = True
        return list(messages)

    @property
    def whole(self) -> bool:
        """Whether anything came: nothing is held back."""
        return self.proven

    def resumed(self, offset: int) -> Resumed:
        """Return the event that says how the answer went on."""
        return _resumed(offset)


class IdGate:
    """Finds what is new by the ids of messages, and puts it in order.

    Until the answer is proven to be the same nothing passes. Then each number passes
    once and in turn; what had come before is passed over, what comes too early waits.
    A message without a number belongs behind the one before it, as long as nothing that
    came again makes that doubtful: whether it is new could only be guessed then.

    Attributes:
        proven: It is the same answer.
        passed_over: The id of the last message of a batch that was not new; empty if
            none was.
    """

    def __init__(
        self, cursor: Cursor, identity: Callable[[ServerSentEvent], str | None]
    ) -> None:
        self._cursor = cursor
        self._identity = identity
        self._behind = list(cursor.behind)
        place = numbered(cursor.last_event_id) if cursor.consecutive else None
        # The number that came last before the cut, and the one that comes next, where
        # messages are numbered.
        self._prefix, self._last = place or ("", 0)
        self._next = self._last + 1 if place is not None else None
        # By their numbers, each with those behind it that have none.
        self._early: dict[int, list[ServerSentEvent]] = {}
        # Where a message without a number belongs, and what came there so far; None
        # where that would have to be guessed.
        self._at = self._last
        self._there: set[bytes] | None = set()
        # Of a beginning that comes again: the number that comes next, the checksum of
        # those before it, and what came before its turn.
        self._again: int | None = None
        self._check = 0
        self._came: dict[int, bytes] = {}
        self._compared = False
        self._id_before = ""
        self._named = False
        self.proven = False
        self.passed_over = ""

    def admit(self, messages: Sequence[ServerSentEvent]) -> list[ServerSentEvent]:
        """Return what of these messages is new, in order."""
        self.passed_over = ""
        admitted: list[ServerSentEvent] = []
        for message in messages:
            name = self._identity(message)
            _check_identity(name, self._cursor.response_id)
            self._named = self._named or name is not None
            own = message.id != self._id_before
            if self._next is not None:
                if own and message.id:
                    self._by_number(message, self._next, admitted)
                else:
                    self._by_place(message, self._next, admitted)
            elif self.proven:
                admitted.append(message)
            else:
                self._by_digest(message, own=own)
            self._id_before = message.id
        return admitted

    @property
    def whole(self) -> bool:
        """Whether something was proven, and nothing is missing between what came."""
        return self.proven and not self._early

    def resumed(self, offset: int) -> Resumed:
        """Return the event that says how the answer went on."""
        return _resumed(offset)

    def _by_number(
        self, message: ServerSentEvent, expected: int, admitted: list[ServerSentEvent]
    ) -> None:
        place = numbered(message.id)
        if place is None or place[0] != self._prefix:
            raise SeamMismatch("its messages are numbered in another way")
        number = place[1]
        again = number < expected or number in self._early
        first = number == self._last and self._at == self._last and not self._there
        self._at = number
        self._there = {message.raw} if first or not again else None
        if number <= self._last:
            self._pass_over(message)
            if self._comes_whole(message, number) and expected in self._early:
                self._prove(self._early[expected][0])
                self._take_early(admitted)
        elif again:
            return
        elif number > expected or self._again is not None:
            self._early[number] = [message]
            if len(self._early) > _HELD:
                raise SeamMismatch("messages between those that came are missing")
        else:
            self._prove(message)
            admitted.append(message)
            self._next = expected + 1
            self._take_early(admitted)

    def _by_place(
        self, message: ServerSentEvent, expected: int, admitted: list[ServerSentEvent]
    ) -> None:
        """Take a message without a number of its own, where its place is certain."""
        there = self._there
        if there is None or message.raw in there:
            # The same once more, or another one that says the same.
            raise SeamMismatch("nothing says where a message belongs")
        there.add(message.raw)
        if self._at == expected - 1:
            self._prove(message)
            admitted.append(message)
        elif self._at in self._early:
            self._early[self._at].append(message)
        else:
            raise SeamMismatch("a message came behind the ones that follow it")

    def _take_early(self, admitted: list[ServerSentEvent]) -> None:
        while self._next in self._early:
            admitted += self._early.pop(self._next)
            self._next += 1

    def _pass_over(self, message: ServerSentEvent) -> None:
        if message.id == self._cursor.last_event_id and (
            digest(message) != self._cursor.last
        ):
            raise SeamMismatch("a message that came before is another one now")
        self.passed_over = message.id

    def _comes_whole(self, message: ServerSentEvent, number: int) -> bool:
        """Whether this is the last of all that came before, and it is the same.

        Once its first message has come again nothing new passes until all of it has,
        in any order.
        """
        began = self._cursor.began
        if self.proven or self._compared or began is None:
            return False
        if self._again is None and number == began:
            self._again = began
        if self._again is None or number >= self._again:
            self._came[number] = message.raw
        while self._again in self._came:
            self._check = zlib.crc32(self._came.pop(self._again), self._check)
            self._again += 1
        if self._again == self._last + 1:
            if self._check != self._cursor.check:
                raise SeamMismatch("a message that came before is another one now")
            self._again, self._compared = None, True
        elif len(self._came) > _HELD:
            # It is not its beginning, or too much of that is missing.
            self._came.clear()
        return self._compared

    def _prove(self, message: ServerSentEvent) -> None:
        # An end mark names no answer; it adds nothing that could belong to another.
        if not (self.proven or self._named) and message.raw.lstrip()[:1] == b"{":
            raise SeamMismatch("nothing says that it is the same answer")
        self.proven = True

    def _by_digest(self, message: ServerSentEvent, *, own: bool) -> None:
        """Compare with what is known to come first: the last message, or behind it."""
        if own and message.id == self._cursor.last_event_id:
            known = self._cursor.last
        elif self._behind:
            known = self._behind.pop(0)
        else:
            raise SeamMismatch("nothing says where it goes on")
        if digest(message) != known:
            raise SeamMismatch("a message that came before is another one now")
        self.passed_over = message.id
        if not self._behind:
            self._prove(message)


def _check_identity(name: str | None, expected: str) -> None:
    if name is not None and expected and name != expected:
        raise SeamMismatch("it is an answer of another name")


def _resumed(offset: int) -> Resumed:
    return Resumed(
        strategy=CursorJoin.name, guarantee=CursorJoin.guarantee, offset=offset
    )
