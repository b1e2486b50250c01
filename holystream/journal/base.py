"""The journal: what every store of a stream's events promises, and its records.

A stream has one owner at a time, who holds a `Claim` and appends; anybody may read. The
events of a stream are numbered from 1, without a gap: ``seq`` is both an event's number
and how many there are up to it, so that a reader goes on after the last one it has. A
claim's fence is higher than that of any earlier claim of the journal, and a store takes
an append from the latest claim alone. What a call of `Journal` that writes has returned
from is stored: it survives as long as the store does.

Prompts and texts are stored; keys and headers are never given to a journal. No record
shows them in its ``repr()``, nor does an error.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from holystream.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from holystream.clocks import CancelToken
    from holystream.events import StreamEvent

Durability: TypeAlias = Literal["process", "power"]
"""What a commit survives: the end of the process, or that of the power as well."""

READ_LIMIT = 1000
"""Events that one read returns at most, unless told otherwise."""
LIST_LIMIT = 100
"""Streams that one look returns at most, unless told otherwise."""
_LONGEST_ID = 256


class Outcome(enum.StrEnum):
    """How a stream ended."""

    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JournalState(enum.StrEnum):
    """How a recorded stream stands."""

    LIVE = "live"
    """Its owner is alive."""
    ABANDONED = "abandoned"
    """It has not ended, and has no owner, or a dead one: it can be claimed."""
    FINISHED = "finished"
    """It has ended: it can be read."""
    DAMAGED = "damaged"
    """Its row in the store is: calls that need it raise `JournalCorrupt`."""


@dataclasses.dataclass(slots=True, kw_only=True, eq=False, weakref_slot=True)
class Claim:
    """The right to write a stream. One thread at a time uses it.

    It is this object: when nobody has it any more, its journal lets go of the stream as
    `Journal.release_later` does.

    Attributes:
        stream_id: The stream.
        owner: Who has it; no two processes are ever the same owner, forked ones too.
        fence: Higher than that of every earlier claim.
        next_seq: The number of the next event; the journal counts it on.
        stop_requested: Who asked the owner to stop, as far as the claim itself or the
            last append found; None if nobody had.
    """

    stream_id: str
    owner: str
    fence: int
    next_seq: int = 1
    stop_requested: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """How a recorded stream stands.

    Of a damaged one it is what can be read, and else what a new stream would have.

    Attributes:
        stream_id: The stream.
        created: When it was created, in seconds since 1970.
        updated: When it was last written, in seconds since 1970.
        state: Live, abandoned, finished or damaged.
        owner: Who has or last had it; None if it was let go.
        fence: That of its latest claim.
        next_seq: The number of its next event; one less is how many there are.
        outcome: How it ended, or None.
        stop_requested: Who asked its owner to stop, or None.
    """

    stream_id: str
    created: float
    updated: float
    state: JournalState
    owner: str | None
    fence: int
    next_seq: int
    outcome: Outcome | None
    stop_requested: str | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StreamMeta(StreamInfo):
    """All that is recorded of a stream beside its events.

    Attributes:
        request: What its creator gave.
        cursor: The resume state that was saved last, or None.
        final: What its owner gave when it ended, or None.
    """

    request: bytes = dataclasses.field(repr=False)
    cursor: bytes | None = dataclasses.field(repr=False)
    final: bytes | None = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """Events of a stream, in order; none if there are no new ones.

    Attributes:
        events: The events; those of text come without the server's raw bytes.
        next_seq: The number of the event that follows.
        finished: The stream has ended, and these are its last events.
    """

    events: tuple[StreamEvent, ...] = dataclasses.field(repr=False)
    next_seq: int
    finished: bool

    @property
    def last_seq(self) -> int:
        """The number of the last event: go on with ``read(after=last_seq)``."""
        return self.next_seq - 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trimmed:
    """The event that was asked for is no longer stored; ``first_seq`` still is."""

    first_seq: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """There is no such stream, or no longer."""


Reading: TypeAlias = Entries | Trimmed | Gone
"""What a read finds."""


class Journal(Protocol):
    """The append-only record of streams. Thread-safe and fork-safe.

    Every call raises `JournalUnavailable`, `JournalCorrupt` or `JournalVersion` where
    the store is at fault, and `InvalidRequest` for an id or a place that cannot be one.
    A call that an exception out of a signal handler ends (Ctrl-C) may have been carried
    out or not: `meta` tells, and of an append the claim's ``next_seq``.
    """

    def create(self, stream_id: str, *, request: bytes, ttl: float) -> Claim:
        """Begin a stream, and own it.

        Args:
            stream_id: Its id: printable, at most 256 characters.
            request: What it takes to ask again; never a key or a header.
            ttl: Seconds to keep it after its creation, its last claim or its end,
                whichever is latest; never swept while its owner is alive.

        Raises:
            StreamExists: The id is taken.
        """
        ...

    def append(
        self,
        claim: Claim,
        events: Sequence[StreamEvent],
        *,
        cursor: bytes | None = None,
    ) -> None:
        """Store events and what it takes to go on after them, both or neither.

        Args:
            claim: The stream's; its ``next_seq`` is counted on, and it is told who
                asked it to stop.
            events: What came, in order; may be empty.
            cursor: Replaces the saved resume state; None leaves it as it is.

        Raises:
            Fenced: The claim no longer holds.
            StreamFinished: The stream has ended.
            StreamUnknown: The stream was deleted.
        """
        ...

    def finish(self, claim: Claim, outcome: Outcome, final: bytes) -> None:
        """End a stream, for good; the claim ends with it.

        Raises:
            Fenced: The claim no longer holds.
            StreamFinished: The stream has ended already.
            StreamUnknown: The stream was deleted.
        """
        ...

    def release(self, claim: Claim) -> None:
        """Let go of a stream that has not ended: another may claim it at once.

        Nothing happens if the claim no longer holds.
        """
        ...

    def release_later(self, claim: Claim) -> None:
        """Let go of a stream as `release` does, but soon: for finalisers.

        It never waits and takes no lock. The stream is free when a journal of this
        process is next asked how one stands, or writes.
        """
        ...

    def claim(self, stream_id: str) -> Claim:
        """Take over a stream that nobody alive owns, where its last owner left it.

        Raises:
            StreamBusy: Its owner is alive.
            StreamFinished: It has ended; read it.
            StreamUnknown: There is no such stream.
        """
        ...

    def read(
        self,
        stream_id: str,
        *,
        after: int = 0,
        limit: int = READ_LIMIT,
        wait: float = 0.0,
        cancel: CancelToken | None = None,
    ) -> Reading:
        """Read the events behind ``after``.

        Args:
            stream_id: The stream.
            after: The number of the last event the reader has.
            limit: Events to return at most.
            wait: Seconds to wait for the first of them, whoever writes it; a stream
                that ends or is deleted ends the wait.
            cancel: Ends the wait at once, from any thread.

        Returns:
            `Entries`, empty if nothing came in time; `Trimmed`; or `Gone`.
        """
        ...

    def meta(self, stream_id: str) -> StreamMeta | None:
        """Return what is recorded of a stream; None if there is no such stream."""
        ...

    def streams(
        self,
        *,
        states: Collection[JournalState] = tuple(JournalState),
        limit: int = LIST_LIMIT,
    ) -> list[StreamInfo]:
        """Return the streams of these states, the newest first.

        A stream whose row is damaged is one of them, and hides no other.
        """
        ...

    def request_stop(self, stream_id: str, by: str) -> None:
        """Ask the owner to stop, by a mark that stays; nothing if it has ended.

        Whoever writes finds it with the next append, in its claim; anybody in `meta`.

        Raises:
            StreamUnknown: There is no such stream.
        """
        ...

    def delete(self, stream_id: str) -> None:
        """Forget a stream, owned or damaged; nothing happens if there is none."""
        ...

    def sweep(self, now: float) -> int:
        """Forget the streams whose time is over, damaged ones too; return how many.

        Args:
            now: Seconds since 1970.
        """
        ...

    def close(self) -> None:
        """Let go of the store; its claims lapse. Closing twice is harmless."""
        ...


def check_stream_id(stream_id: str) -> None:
    """Refuse what cannot be the id of a stream.

    Raises:
        InvalidRequest: It is empty, too long or not printable.
    """
    if not 0 < len(stream_id) <= _LONGEST_ID or not stream_id.isprintable():
        raise InvalidRequest(
            f"stream_id= must be a printable text of 1 to {_LONGEST_ID} characters"
        )


def check_after(after: int) -> None:
    """Refuse what cannot be the number of the last event that a reader has.

    Raises:
        InvalidRequest: It is less than none.
    """
    if after < 0:
        raise InvalidRequest(f"after= must be 0 or the number of an event, not {after}")
