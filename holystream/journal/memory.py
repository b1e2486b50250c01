"""The journal of one process: it lasts as long as the object does.

It keeps encoded batches, as the other stores do: it takes what they take, gives back
what they give back, and holds no object of a caller's. After a fork the child has a
copy without claims: what the parent's streams had recorded can be read and claimed.
Each change of a stream is one assignment, so that an exception out of a signal handler
finds it done or not done.
"""

from __future__ import annotations

import bisect
import dataclasses
import heapq
import itertools
import operator
import os
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from holystream.clocks import check_seconds
from holystream.journal import codec, refusals
from holystream.journal.base import (
    LIST_LIMIT,
    READ_LIMIT,
    Claim,
    Gone,
    JournalState,
    Outcome,
    StreamInfo,
    StreamMeta,
    check_after,
    check_stream_id,
)
from holystream.journal.excerpt import Excerpt
from holystream.journal.forking import Hold, tell_of_forks
from holystream.journal.later import Grip, Later, carry_out_all, releasing
from holystream.journal.watching import Watchers

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from holystream.clocks import CancelToken
    from holystream.events import StreamEvent
    from holystream.journal.base import Reading

_SWEPT_AT_CREATE: Final = 8
"""Streams that are looked at, and taken away if their time is over, with a new one."""
_LONGEST_HOLD: Final = 5.0
"""Seconds after which a fork no longer waits for the lock: its own thread has it."""


class _Batch(NamedTuple):
    """Events that were stored together, and the cursor after them."""

    first: int
    next_seq: int
    data: bytes
    cursor: bytes | None


_NOTHING: Final = _Batch(1, 1, b"", None)


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class _Record:
    """One stream. Guarded by the journal's lock."""

    stream_id: str
    request: bytes
    ttl: float
    created: float
    updated: float
    owner: str | None
    fence: int
    ended: tuple[Outcome, bytes] | None = None
    stop_requested: str | None = None
    # Seconds since 1970 from which on it may be swept: `ttl` after the last change of
    # owner.
    expires: float
    # One without events is only ever the last, and replaced by the next.
    batches: list[_Batch] = dataclasses.field(default_factory=lambda: [_NOTHING])


_first = operator.attrgetter("first")


class MemoryJournal:
    """A journal in memory. Thread-safe and fork-safe.

    Args:
        now: Returns the seconds since 1970.
    """

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._fences = itertools.count(1)
        self._closed = False
        # In the order of their creation.
        self._records: dict[str, _Record] = {}
        # When to look at which record again: a heap. One that was deleted stays in it
        # until then, empty.
        self._times: list[tuple[float, int, _Record]] = []
        self._serials = itertools.count()
        self._begin()
        tell_of_forks(self)

    def _begin(self) -> None:
        """Be an owner of this process; in a forked child, a new one."""
        self._owner = f"{os.getpid()}-{os.urandom(8).hex()}"
        # Guards all records and _closed. Nothing is awaited, encoded or decoded while
        # it is held. Re-entrant for a signal handler in the midst of its thread's call.
        self._lock = threading.RLock()
        self._hold = Hold(self._lock, _LONGEST_HOLD)
        self._watchers = Watchers()
        self._later = Later(self)
        # Our claims, by their fences, of which no two are the same.
        self._owned: dict[int, Grip] = {}

    def create(self, stream_id: str, *, request: bytes, ttl: float) -> Claim:
        """Begin a stream, and own it; see `Journal.create`."""
        check_stream_id(stream_id)
        check_seconds(ttl, "ttl=")
        now = self._now()
        with self._lock:
            self._check_open()
            swept = self._sweep(now, _SWEPT_AT_CREATE)
            if stream_id in self._records:
                raise refusals.exists(stream_id)
            record = _Record(
                stream_id=stream_id,
                request=bytes(request),
                ttl=ttl,
                created=now,
                updated=now,
                owner=self._owner,
                fence=next(self._fences),
                expires=now + ttl,
            )
            # All that belongs to it first: it is there with the one assignment.
            claim = self._claim_of(record)
            self._look_again(record, record.expires)
            self._records[stream_id] = record
        self._watchers.wake(swept)
        return claim

    def append(
        self,
        claim: Claim,
        events: Sequence[StreamEvent],
        *,
        cursor: bytes | None = None,
    ) -> None:
        """Store events and what it takes to go on after them; see `Journal.append`."""
        if self._later.works:
            self._later.carry_out()
        data = codec.encode(events) if events else b""
        now = self._now()
        with self._lock:
            self._check_open()
            record = self._held(claim)
            last = record.batches[-1]
            if last.next_seq != claim.next_seq:
                stream_id = claim.stream_id
                raise refusals.out_of_step(stream_id, claim.next_seq, last.next_seq)
            record.updated = now
            saved = last.cursor if cursor is None else bytes(cursor)
            new = _Batch(last.next_seq, last.next_seq + len(events), data, saved)
            end = len(record.batches) - (last.first == last.next_seq)
            record.batches[end:] = [new]
            claim.next_seq = new.next_seq
            claim.stop_requested = record.stop_requested
        self._watchers.wake((claim.stream_id,))

    def finish(self, claim: Claim, outcome: Outcome, final: bytes) -> None:
        """End a stream, for good; see `Journal.finish`."""
        now = self._now()
        with self._lock:
            self._check_open()
            record = self._held(claim)
            self._changed_hands(record, now)
            record.ended = Outcome(outcome), bytes(final)
            self._owned.pop(claim.fence, None)
        self._watchers.wake((claim.stream_id,))

    def release(self, claim: Claim) -> None:
        """Let go of a stream that has not ended; see `Journal.release`."""
        now = self._now()
        with self._lock:
            record = self._records.get(claim.stream_id)
            if record is not None and self._holds(claim, record):
                self._changed_hands(record, now)
                record.owner = None
            self._owned.pop(claim.fence, None)

    def release_later(self, claim: Claim) -> None:
        """Let go of a stream soon; see `Journal.release_later`."""
        self._later.add(releasing(claim))

    def release_lost(self, grip: Grip) -> None:
        """Let go of a stream whose claim nobody has."""
        self.release(grip.claim)

    def claim(self, stream_id: str) -> Claim:
        """Take over a stream that nobody owns; see `Journal.claim`."""
        carry_out_all()
        now = self._now()
        with self._lock:
            self._check_open()
            record = self._known(stream_id)
            if record.ended is not None:
                raise refusals.finished(stream_id)
            if record.owner == self._owner:
                raise refusals.busy(stream_id, self._owner)
            self._changed_hands(record, now)
            record.fence = next(self._fences)
            claim = self._claim_of(record)
            # Now it is ours; what went before changed nothing of who has it.
            record.owner = self._owner
            return claim

    def read(
        self,
        stream_id: str,
        *,
        after: int = 0,
        limit: int = READ_LIMIT,
        wait: float = 0.0,
        cancel: CancelToken | None = None,
    ) -> Reading:
        """Read the events behind ``after``; see `Journal.read`."""
        check_stream_id(stream_id)
        check_after(after)
        return self._watchers.follow(
            lambda: self._look(stream_id, after, limit),
            stream_id,
            wait=wait,
            cancel=cancel,
        )

    def meta(self, stream_id: str) -> StreamMeta | None:
        """Return what is recorded of a stream; see `Journal.meta`."""
        check_stream_id(stream_id)
        carry_out_all()
        with self._lock:
            self._check_open()
            record = self._records.get(stream_id)
            if record is None:
                return None
            return StreamMeta(
                **self._standing(record),
                request=record.request,
                cursor=record.batches[-1].cursor,
                final=None if record.ended is None else record.ended[1],
            )

    def streams(
        self,
        *,
        states: Collection[JournalState] = tuple(JournalState),
        limit: int = LIST_LIMIT,
    ) -> list[StreamInfo]:
        """Return the streams of these states, the newest first."""
        carry_out_all()
        with self._lock:
            self._check_open()
            newest = reversed(self._records.values())
            infos = (StreamInfo(**self._standing(record)) for record in newest)
            chosen = (info for info in infos if info.state in states)
            return list(itertools.islice(chosen, limit))

    def request_stop(self, stream_id: str, by: str) -> None:
        """Ask the owner to stop; see `Journal.request_stop`."""
        with self._lock:
            self._check_open()
            record = self._known(stream_id)
            if record.ended is None:
                record.stop_requested = by

    def delete(self, stream_id: str) -> None:
        """Forget a stream; nothing happens if there is none."""
        check_stream_id(stream_id)
        with self._lock:
            self._check_open()
            if stream_id in self._records:
                self._forget(self._records[stream_id])
        self._watchers.wake((stream_id,))

    def sweep(self, now: float) -> int:
        """Forget the streams whose time is over; return how many."""
        with self._lock:
            self._check_open()
            swept = self._sweep(now, len(self._times))
        self._watchers.wake(swept)
        return len(swept)

    def close(self) -> None:
        """Forget everything. Closing twice is harmless."""
        with self._lock:
            self._closed = True
            self._later = Later(self)
            self._records.clear()
            self._times.clear()
        self._watchers.wake_all()

    def _check_open(self) -> None:
        if self._closed:
            raise refusals.closed()

    def _look(self, stream_id: str, after: int, limit: int) -> Reading:
        with self._lock:
            self._check_open()
            record = self._records.get(stream_id)
            if record is None:
                return Gone()
            next_seq, ended = record.batches[-1].next_seq, record.ended is not None
            excerpt = Excerpt.of(next_seq, ended=ended, after=after, limit=limit)
            if excerpt.is_empty:
                return excerpt.nothing()
            begin = bisect.bisect_right(record.batches, after + 1, key=_first) - 1
            end = bisect.bisect_right(record.batches, excerpt.last, key=_first)
            batches = record.batches[begin:end]
        # They are never changed, so they are decoded in peace.
        events = [event for batch in batches for event in codec.decode(batch.data)]
        return excerpt.out_of(events, batches[0].first)

    def _claim_of(self, record: _Record) -> Claim:
        claim = Claim(
            stream_id=record.stream_id,
            owner=self._owner,
            fence=record.fence,
            next_seq=record.batches[-1].next_seq,
            stop_requested=record.stop_requested,
        )
        self._owned[claim.fence] = self._later.grip(claim)
        return claim

    def _known(self, stream_id: str) -> _Record:
        check_stream_id(stream_id)
        try:
            return self._records[stream_id]
        except KeyError:
            raise refusals.unknown(stream_id) from None

    def _held(self, claim: Claim) -> _Record:
        """Return the stream of a claim that holds."""
        record = self._known(claim.stream_id)
        if not self._holds(claim, record):
            if record.fence == claim.fence and record.ended is not None:
                raise refusals.finished(claim.stream_id)
            raise refusals.fenced(claim.stream_id)
        return record

    def _holds(self, claim: Claim, record: _Record) -> bool:
        ours = record.owner == claim.owner == self._owner
        return ours and record.fence == claim.fence and record.ended is None

    def _standing(self, record: _Record) -> dict[str, Any]:
        """Return the fields of a StreamInfo."""
        if record.ended is not None:
            state = JournalState.FINISHED
        elif record.owner == self._owner:
            state = JournalState.LIVE
        else:
            state = JournalState.ABANDONED
        return {
            "stream_id": record.stream_id,
            "created": record.created,
            "updated": record.updated,
            "state": state,
            "owner": record.owner,
            "fence": record.fence,
            "next_seq": record.batches[-1].next_seq,
            "outcome": None if record.ended is None else record.ended[0],
            "stop_requested": record.stop_requested,
        }

    def _changed_hands(self, record: _Record, now: float) -> None:
        record.updated = now
        record.expires = now + record.ttl

    def _look_again(self, record: _Record, when: float) -> None:
        heapq.heappush(self._times, (when, next(self._serials), record))

    def _sweep(self, now: float, looks: int) -> list[str]:
        """Forget what is over, after so many looks at most; return their ids."""
        swept: list[str] = []
        for _ in range(looks):
            if not self._times or self._times[0][0] > now:
                break
            _, _, record = heapq.heappop(self._times)
            if self._records.get(record.stream_id) is not record:
                continue
            live = record.ended is None and record.owner == self._owner
            if live or record.expires > now:
                again = now + record.ttl if live else record.expires
                self._look_again(record, again)
            else:
                self._forget(record)
                swept.append(record.stream_id)
        return swept

    def _forget(self, record: _Record) -> None:
        del self._records[record.stream_id]
        # It may lie about for a while, until its time comes.
        record.request, record.batches, record.ended = b"", [_NOTHING], None

    def before_fork(self) -> None:
        """Let nothing move until the fork is over."""
        self._hold.take()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._hold.give_back()

    def after_fork_in_child(self) -> None:
        """Go on with a copy, as another owner: no claim of the parent's holds."""
        self._begin()
