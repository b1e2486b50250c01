"""The circuit breaker of one endpoint: leaves it alone while it fails, then asks again.

`CircuitBreaker.acquire` gives out a `Ticket` for each attempt; the ticket votes once.
The tables of circuit.py say what a vote is and where it leads; this module counts.

Invariants:

- every transition begins an epoch, and a ticket of an earlier one changes nothing;
- a stream counts once among the failures in a row, however often it failed;
- while half-open, probes under way and probes answered are together at most ``probes``
  of the policy, but for those whose lease ran out;
- an attempt of a stream that is under way, let through in spite of the state, is no
  such probe: its answer counts as theirs do, also while open, and its failure does not.

Lock order: each breaker has one lock, held for arithmetic alone, never over an attempt
or a listener. A finaliser may run in a thread that holds it: a ticket that is lost is
queued without it, and counted by whoever comes next.
"""

from __future__ import annotations

import collections
import itertools
import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Final

from holystream.errors import CircuitOpen
from holystream.resilience.circuit import (
    TRANSITIONS,
    VOTES,
    BreakerChange,
    BreakerPolicy,
    BreakerState,
    BreakerStatistics,
    Signal,
    Vote,
)
from holystream.resilience.forks import register

if TYPE_CHECKING:
    from collections.abc import Callable

    from holystream.errors import Verdict

_LOG = logging.getLogger("holystream")

_ASK_AGAIN: Final = 1.0
"""Seconds after which to ask again while all probes are under way: their answer may
come at any moment, and their lease is only the latest one."""


class Ticket:
    """The right to one attempt, which votes on its endpoint once. Thread-safe.

    Only the first of `finished`, `failed` and `release_later` counts, and nothing else
    once `answered` has voted. One that is lost is as good as cancelled.

    Attributes:
        serial: Its number, unique in the breaker.
        epoch: The epoch of the breaker in which it was given out.
        stream_id: The stream it was given to, if it said so.
        early: It was given out in spite of the state.
    """

    __slots__ = ("_breaker", "_valid", "early", "epoch", "serial", "stream_id")

    def __init__(
        self, breaker: CircuitBreaker, serial: int, stream_id: str | None
    ) -> None:
        self._valid = False
        self._breaker = breaker
        self.serial = serial
        self.epoch = -1
        self.early = False
        self.stream_id = stream_id

    @property
    def valid(self) -> bool:
        """Whether it has not voted yet."""
        return self._valid

    def answered(self) -> None:
        """Tell that the first event has come: the vote of a probe, else nothing."""
        self._breaker._answered(self)  # noqa: SLF001 - one unit

    def finished(self) -> None:
        """Vote for the endpoint: the answer is complete."""
        self._breaker._vote(self, Vote.SUCCESS)  # noqa: SLF001 - one unit

    def failed(self, verdict: Verdict, *, again: bool = False) -> None:
        """Vote as `VOTES` has it: against the endpoint, or not at all.

        Args:
            verdict: What the failure means.
            again: The stream tries again, at this endpoint: so far nothing is lost, and
                only a probe has something to say.
        """
        vote = VOTES[verdict]
        self._breaker._vote(self, vote, again=again)  # noqa: SLF001 - one unit

    def release_later(self) -> None:
        """Give it back from a finaliser or a signal handler: never waits."""
        if self._valid:
            # In this order: an exception out of a signal handler loses nothing.
            self._breaker._returned.append(self.serial)  # noqa: SLF001 - one unit
            self._valid = False

    def __del__(self) -> None:
        # Lost: its thread died, its stream was dropped, or a Ctrl-C struck before the
        # caller had it in hand.
        if getattr(self, "_valid", False):  # no such: it struck __init__
            self.release_later()

    def __repr__(self) -> str:
        return f"<Ticket {self.serial} of epoch {self.epoch}>"


class CircuitBreaker:
    """Lets attempts at one endpoint through, or not. Thread-safe.

    A forked child goes on in the same state, without its parent's tickets.

    Args:
        name: The endpoint's name, for messages and records.
        policy: When to open and for how long.
        clock: Monotonic seconds.
        rng: Where the jitter comes from; the generator of `random` by default.
        listener: Is called with each `BreakerChange`, outside the lock, in the thread
            that caused it. What it raises is logged.

    Attributes:
        name: The endpoint's name.
        policy: When to open and for how long.
    """

    def __init__(
        self,
        name: str,
        policy: BreakerPolicy | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        listener: Callable[[BreakerChange], object] | None = None,
    ) -> None:
        self.name = name
        self.policy = BreakerPolicy() if policy is None else policy
        self._clock = clock
        self._uniform = random.uniform if rng is None else rng.uniform
        self._listener = listener
        # Never starts anew: what was given out before a fork stays unknown after it.
        self._serials = itertools.count()
        # Serials of lost tickets. Appending takes no lock.
        self._returned: collections.deque[int] = collections.deque()
        self._epoch = 0
        self._begin()
        register(self)

    def _begin(self) -> None:
        # Guards everything below and _epoch, but not _returned.
        self._lock = threading.Lock()
        self._state = BreakerState.CLOSED
        # When the next probe may go, while open.
        self._due = 0.0
        # Openings since the last stream that finished: they lengthen the open time. An
        # answered probe does not set them back: it proves less than a whole answer.
        self._openings = 0
        # The streams that failed in a row, while closed; tickets without one by serial.
        self._failing: set[str | int] = set()
        # Serial of each probe under way -> when its lease ends, while half-open.
        self._probes: dict[int, float] = {}
        self._answers = 0
        self._counts: collections.Counter[str] = collections.Counter()

    @property
    def state(self) -> BreakerState:
        """The state. One that is open becomes half-open by the next attempt."""
        return self._state

    @property
    def retry_after(self) -> float | None:
        """Seconds until it lets an attempt through: 0 for now, None for never."""
        now = self._clock()
        with self._lock:
            self._settle(now)
            return self._retry_after(now)

    @property
    def wants_probe(self) -> bool:
        """Whether the next attempt it lets through would be a probe."""
        # Of most breakers the state alone says no, and is read without the lock.
        probing = self._state in {BreakerState.OPEN, BreakerState.HALF_OPEN}
        return probing and self.retry_after == 0.0

    def acquire(self, stream_id: str | None = None) -> Ticket:
        """Return a ticket for an attempt of this stream.

        Raises:
            CircuitOpen: None is to be had now; ``retry_after`` says when.
        """
        ticket = self.try_acquire(stream_id)
        if ticket is None:
            raise CircuitOpen(
                f"{self.name}: left alone after it failed again and again; nothing was "
                "sent",
                retry_after=self.retry_after,
            )
        return ticket

    def try_acquire(
        self, stream_id: str | None = None, *, under_way: bool = False
    ) -> Ticket | None:
        """Return a ticket for an attempt of this stream; None if there is none now.

        Args:
            stream_id: The stream, which counts once among the failures in a row.
            under_way: The stream has begun, and its retries are its own policy's
                business: only `force_open` keeps it away.
        """
        now = self._clock()
        ticket = Ticket(self, next(self._serials), stream_id)
        change = None
        with self._lock:
            self._settle(now)
            if self._state is BreakerState.OPEN and now >= self._due:
                change = self._move(Signal.DUE, now)
            willing = self._retry_after(now) == 0.0  # exactly, where it lets one go
            forced = self._state is BreakerState.FORCED_OPEN
            granted = willing or (under_way and not forced)
            if granted:
                ticket.early = not willing
                self._counts["granted"] += 1
                ticket.epoch = self._epoch
                # From here on its finaliser gives back what is taken below.
                ticket._valid = True  # noqa: SLF001 - one unit
                if self._state is BreakerState.HALF_OPEN and willing:
                    self._probes[ticket.serial] = now + self.policy.probe_lease
            else:
                self._counts["refused"] += 1
        self._tell(change)
        return ticket if granted else None

    def force_open(self) -> None:
        """Let nothing through until `reset`."""
        self._command(Signal.FORCE_OPEN)

    def disable(self) -> None:
        """Let everything through, whatever fails, until `reset`."""
        self._command(Signal.DISABLE)

    def reset(self) -> None:
        """Close it, and forget all failures."""
        self._command(Signal.RESET)

    def statistics(self) -> BreakerStatistics:
        """Return what it is doing and has done, as of one moment."""
        now = self._clock()
        with self._lock:
            self._settle(now)
            counts = self._counts
            return BreakerStatistics(
                name=self.name,
                state=self._state,
                failures=len(self._failing),
                probes=len(self._probes),
                retry_after=self._retry_after(now),
                opened=counts["opened"],
                granted=counts["granted"],
                refused=counts["refused"],
                successes=counts["successes"],
                failed=counts["failed"],
                ignored=counts["ignored"],
                stale=counts["stale"],
                lapsed=counts["lapsed"],
            )

    def _answered(self, ticket: Ticket) -> None:
        # Read without the lock: most tickets are no probes, and this is called for
        # every stream. A probe is given out half-open or open, and its vote counts only
        # as long as the state has not changed since.
        state = self._state
        probing = state is BreakerState.HALF_OPEN or state is BreakerState.OPEN
        if probing and ticket.epoch == self._epoch:
            self._vote(ticket, Vote.SUCCESS)

    def _vote(self, ticket: Ticket, vote: Vote, *, again: bool = False) -> None:
        now = self._clock()
        change = None
        with self._lock:
            if ticket._valid:  # noqa: SLF001 - one unit
                self._probes.pop(ticket.serial, None)
                ticket._valid = False  # noqa: SLF001 - one unit
                change = self._count(ticket, vote, now, again=again)
        self._tell(change)

    def _count(
        self, ticket: Ticket, vote: Vote, now: float, *, again: bool
    ) -> BreakerChange | None:
        """Count a vote; with the lock held."""
        half_open = self._state is BreakerState.HALF_OPEN
        if ticket.epoch != self._epoch:
            self._counts["stale"] += 1
        elif vote is Vote.NONE or (again and not half_open):
            self._counts["ignored"] += 1
        elif vote is Vote.SUCCESS:
            self._counts["successes"] += 1
            if half_open or self._state is BreakerState.OPEN:
                self._answers += 1
                if self._answers >= self.policy.probes:
                    return self._move(Signal.PROBES_ANSWERED, now)
            else:
                self._failing.clear()
                self._openings = 0
        else:
            self._counts["failed"] += 1
            if half_open and not ticket.early:
                return self._move(Signal.PROBE_FAILED, now)
            key = ticket.serial if ticket.stream_id is None else ticket.stream_id
            if self._state is BreakerState.CLOSED:
                self._failing.add(key)
                if len(self._failing) >= self.policy.failures:
                    return self._move(Signal.TRIPPED, now)
        return None

    def _command(self, signal: Signal) -> None:
        now = self._clock()
        with self._lock:
            change = self._move(signal, now)
        self._tell(change)

    def _move(self, signal: Signal, now: float) -> BreakerChange | None:
        """Change the state as the table has it; with the lock held."""
        before = self._state
        after = TRANSITIONS.get((before, signal))
        if after is None:
            return None
        self._epoch += 1
        self._failing.clear()
        self._probes.clear()
        self._answers = 0
        if after is BreakerState.OPEN:
            self._counts["opened"] += 1
            self._openings += 1
            seconds = self.policy.seconds_open(self._openings)
            self._due = now + seconds * (1.0 - self._uniform(0.0, self.policy.jitter))
        elif signal is Signal.RESET:
            self._openings = 0
        self._state = after
        return BreakerChange(
            name=self.name,
            before=before,
            after=after,
            signal=signal,
            epoch=self._epoch,
            retry_after=self._retry_after(now),
        )

    def _retry_after(self, now: float) -> float | None:
        """Return the seconds until an attempt may go; with the lock held."""
        match self._state:
            case BreakerState.OPEN:
                return max(0.0, self._due - now)
            case BreakerState.FORCED_OPEN:
                return None
            case BreakerState.HALF_OPEN:
                if len(self._probes) + self._answers < self.policy.probes:
                    return 0.0
                lease = min(self._probes.values(), default=now) - now
                return min(_ASK_AGAIN, max(0.0, lease))
        return 0.0

    def _settle(self, now: float) -> None:
        """Take back what was lost or has lapsed; with the lock held."""
        while self._returned:
            # In this order: an exception out of a signal handler loses none.
            self._probes.pop(self._returned[0], None)
            self._returned.popleft()
            self._counts["ignored"] += 1
        for serial, ends in list(self._probes.items()):
            if ends <= now:
                del self._probes[serial]
                self._counts["lapsed"] += 1

    def _tell(self, change: BreakerChange | None) -> None:
        if change is None or self._listener is None:
            return
        try:
            self._listener(change)
        except Exception:  # noqa: BLE001 - it is the caller's code, and it is logged
            # The attempt that caused it is none of the listener's business.
            _LOG.exception("the listener of the breaker of %s failed", self.name)

    def after_fork_in_child(self) -> None:
        """Go on without the tickets of the parent's threads."""
        if self._lock.locked():
            # Another thread was in the midst of a change, and is no more.
            self._begin()
        # Whose holders are the parent's threads: none may vote here.
        self._epoch += 1
        self._probes.clear()
        self._answers = 0
        self._returned.clear()

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r} {self._state.value}>"
