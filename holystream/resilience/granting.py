"""Who is granted a permit, and when: the heart of the pool, with its one mutex.

True whenever the mutex is free and nothing is left to settle:

- at most ``limit`` permits are held, or as many as when the limit was lowered;
- while anybody waits, no permit is free that it may have;
- a waiter is in the queue, or was granted its token, or gave up: never two of these.

The *gate* lets callers take a free token without the mutex. Whoever has the mutex
closes the gate first, and opens it last, if nobody waits and nothing needs watching.
Whoever gives a token back looks at the gate afterwards; whoever is about to wait has
closed it before it looks for a token: one of the two sees the other.

Lock order: the mutex is the only lock that is ever waited for. Each waiter sleeps on a
lock of its own, which is released, never awaited, by whoever wakes it. Nothing that
belongs to a caller runs under the mutex. A finaliser or a signal handler may run in a
thread that holds the mutex: what it gives back is free at once, and the mutex is taken
only if it is free. Whoever has held it looks what came meanwhile, before it leaves.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Final

from holystream.resilience.holders import PoolStatistics
from holystream.resilience.lanes import WEIGHTS, Lanes
from holystream.resilience.seats import Seats

if TYPE_CHECKING:
    from collections.abc import Callable

    from holystream.resilience.lanes import Waiter
    from holystream.resilience.pressure import Pressure
    from holystream.resilience.seats import Seat

PRIORITIES: Final[frozenset[str]] = frozenset(WEIGHTS)
_NOBODY: Final[frozenset[str]] = frozenset()


class Grants:
    """The tokens of a pool, and those who wait for them. Thread-safe.

    A child of a fork makes a new one, and leaves the permits of the parent with this.

    Args:
        limit: Permits in all.
        reserve: The share of them that only "critical" may have.
        lanes: Where callers wait.
        pressure: What follows the use.
        clock: Monotonic seconds.

    Attributes:
        limit: Permits in all.
        gate: The priorities that may take a token of ``free`` without the mutex, now.
        free: The tokens that all priorities share, and nobody has.
        kept: The same, of those that are reserved.
        ample: With no more tokens than this in ``free``, `settle` wants to know.
        pressure: What follows the use.
        stale: It belongs to the parent of a fork.
        suspected: A thread was warned that it may be waiting for itself.
    """

    __slots__ = (
        "__weakref__",
        "_cancels",
        "_clock",
        "_common",
        "_lanes",
        "_lost",
        "_mutex",
        "_nudged",
        "_open",
        "_refused",
        "_reserve",
        "_reserved",
        "_reserved_lost",
        "_resized",
        "_timeouts",
        "ample",
        "free",
        "gate",
        "kept",
        "limit",
        "pressure",
        "stale",
        "suspected",
    )

    def __init__(
        self,
        limit: int,
        *,
        reserve: float,
        lanes: Lanes,
        pressure: Pressure,
        clock: Callable[[], float],
    ) -> None:
        # Guards all that is below. Who has no mutex may take from the deques of free
        # tokens and append to them, look at the gate, and nudge.
        self._mutex = threading.Lock()
        # Somebody came while the mutex was held: its owner has to look again.
        self._nudged = False
        self._reserve = reserve
        self._resized = True
        self._lanes = lanes
        self.pressure = pressure
        self._clock = clock
        self.stale = False
        self.suspected = False
        nudge = _nudging(weakref.ref(self))
        self._common = Seats(nudge, kept=False)
        self._reserved = Seats(nudge, kept=True)
        # The tokens that nobody has, and those that died.
        self.free = self._common.free
        self.kept = self._reserved.free
        self._lost = self._common.lost
        self._reserved_lost = self._reserved.lost
        self._refused = 0
        self._timeouts = 0
        self._cancels = 0
        self.gate = _NOBODY
        self._fit(limit)
        self._sort_out()

    @property
    def queued(self) -> int:
        """How many wait."""
        return self._lanes.queued

    @property
    def in_use(self) -> int:
        """How many permits are held."""
        return self._common.in_use + self._reserved.in_use

    def join(
        self,
        waiter: Waiter,
        add: Callable[[Lanes, Waiter], None],
        room: float,
        *,
        sheds: bool = False,
    ) -> bool:
        """Let ``waiter`` wait, if no token is free for it.

        Args:
            waiter: A new one.
            add: `Lanes.add` or `Lanes.add_returning`.
            room: How many may wait.
            sheds: It takes the place of one that is less urgent, if there is no room.

        Returns:
            Whether it waits, or was served at once; else there was no room.
        """
        joined = True
        with self._mutex:
            add(self._lanes, waiter)
            # Closes the gate before it looks for a token: whoever gives one back from
            # then on sees us.
            self._sort_out()
            if not waiter.tokens:
                full = self._lanes.queued > room
                less = self._lanes.newest_below(waiter.priority) if full else None
                if less is not None and sheds:
                    # In this order: should a signal handler's exception come between,
                    # it leaves by itself.
                    less.shed = True
                    less.wake()
                    self._lanes.remove(less)
                    self._refused += 1
                    full = False
                if full:
                    joined = False
                    self._lanes.remove(waiter)
                    self._refused += 1
                    self._open_gate()
                else:
                    waiter.since = self._clock()
        if self._nudged:
            self.settle()
        return joined

    def leave(self, waiter: Waiter) -> bool:
        """Leave the queue, out of time; return False if it was out of it already."""
        with self._mutex:
            left = self._lanes.remove(waiter)
            if left:
                self._timeouts += 1
        self.settle()
        return left

    def cancelled(self, waiter: Waiter) -> None:
        """Take ``waiter`` out of the queue, and count that it was cancelled."""
        with self._mutex:
            self._lanes.remove(waiter)
            self._cancels += 1
        self.settle()

    def abort(self, waiter: Waiter) -> None:
        """End the wait of ``waiter``, unless it is over."""
        with self._mutex:
            if self._lanes.remove(waiter):
                waiter.aborted = True
        waiter.wake()
        self.settle()

    def forget(self, waiter: Waiter) -> None:
        """Take ``waiter`` out of the queue, if it is there."""
        with self._mutex:
            self._lanes.remove(waiter)
        self.settle()

    def resize(self, limit: int) -> None:
        """Allow another number of permits."""
        with self._mutex:
            self._fit(limit)
            self._sort_out()
        if self._nudged:
            self.settle()

    def seats(self) -> list[Seat]:
        """Return the seats that are taken."""
        with self._mutex:
            found = [*self._common.taken(), *self._reserved.taken()]
        if self._nudged:
            self.settle()
        return found

    def serves(self, thread: int) -> bool:
        """Whether that thread acquired a permit that is held. For the thread itself."""
        return self._common.serves(thread) or self._reserved.serves(thread)

    def places(self) -> tuple[list[Waiter], list[Seat]]:
        """Return all who wait, and the seats that are taken."""
        with self._mutex:
            found = list(self._lanes), [*self._common.taken(), *self._reserved.taken()]
        if self._nudged:
            self.settle()
        return found

    def statistics(self, max_queue: int) -> PoolStatistics:
        """Return how things stand."""
        now = self._clock()
        try:
            with self._mutex:
                self._sort_out()
                seats = [*self._common.taken(), *self._reserved.taken()]
                # Read once: it is given back without the mutex.
                starts = [at for seat in seats if (at := seat.since) is not None]
                lanes = self._lanes
                return PoolStatistics(
                    limit=self.limit,
                    in_use=self.in_use,
                    queued=lanes.queued,
                    queued_by_priority=lanes.lengths(),
                    max_queue=max_queue,
                    oldest=max(0.0, now - min(starts)) if starts else None,
                    granted=self._common.uses + self._reserved.uses,
                    waited=lanes.waited,
                    wait_total=lanes.wait_total,
                    wait_mean=lanes.wait_total / lanes.waited if lanes.waited else 0.0,
                    wait_max=lanes.wait_max,
                    refused=self._refused,
                    timeouts=self._timeouts,
                    cancels=self._cancels,
                    backpressure=self.pressure.on,
                )
        finally:
            if self._nudged:
                self.settle()

    def settle(self) -> None:
        """Grant what is free to those who wait; never waits for its own thread."""
        self._nudged = True
        # A mutex that is free is not held by this thread, so that `with` cannot block
        # on ourselves. (`acquire(blocking=False)` would be no safer: an exception out
        # of a signal handler between it and its `try` would leave it locked for good.)
        # A mutex that is held will be let go by somebody who then looks. Looking after
        # unlocking leaves no gap: either we find the mutex free, or its holder, who is
        # still to look, finds that it was nudged.
        while self._nudged and not self._mutex.locked():
            with self._mutex:
                self._sort_out()

    def _sort_out(self) -> None:
        """Make everything as the invariants have it; with the mutex held."""
        self.gate = _NOBODY
        self._nudged = False
        if self._lost or self._reserved_lost or self._resized:
            self._common.tend()
            self._reserved.tend()
            self._resized = self._common.untidy or self._reserved.untidy
        lanes = self._lanes
        if lanes.queued:
            lanes.serve(self.free, self.kept, self._clock)
        if not (lanes.queued and self.pressure.on):
            # While anybody waits, pressure stays on.
            self._open_gate()

    def _open_gate(self) -> None:
        """Let callers pass, if nothing speaks against it; with the mutex held."""
        self.pressure.note(self.in_use)
        if not (self._lanes.queued or self.pressure.on or self._resized):
            self.gate = self._open

    def _fit(self, limit: int) -> None:
        """Follow the limit; with the mutex held."""
        self.limit = limit
        self._resized = True
        # One at least is for everybody.
        kept = min(limit - 1, round(limit * self._reserve))
        self._common.target = limit - kept
        self._reserved.target = kept
        # Those who pass the gate when it is open have no reserve to look at first.
        self._open = PRIORITIES - {"critical"} if kept else PRIORITIES
        self.pressure.fit(limit)
        # With more common ones free there is no pressure, wherever the rest are.
        self.ample = limit - self.pressure.rises_at


def _nudging(grants: weakref.ref[Grants]) -> Callable[[object], None]:
    """Return what the weak reference of a dead token calls."""

    def nudge(_: object) -> None:
        found = grants()
        if found is not None:
            found.settle()

    return nudge
