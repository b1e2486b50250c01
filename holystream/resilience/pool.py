"""A bounded semaphore for connections, with bounded, fair queues before it.

A `Permit` is granted at once while one is free and nobody waits; that takes no lock
(seats.py). Otherwise the caller sleeps (waiting.py) until it has its turn (lanes.py).
Whoever gives a permit back hands it to the next waiter itself and wakes that one thread
(granting.py): nobody overtakes the queue, and nobody is woken in vain.
"""

from __future__ import annotations

import math
import random
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, Self

from holystream.clocks import check_seconds
from holystream.errors import (
    ConfigurationError,
    InvalidRequest,
    QueueFull,
    QueueTimeout,
    StreamCancelled,
)
from holystream.resilience import forks, holders
from holystream.resilience.granting import PRIORITIES, Grants
from holystream.resilience.holders import PoolStatistics, Priority
from holystream.resilience.lanes import Lanes, Waiter, check_share, check_whole
from holystream.resilience.permits import Permit
from holystream.resilience.pressure import Pressure
from holystream.resilience.waiting import wait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holystream.clocks import CancelToken
    from holystream.resilience.holders import HeldPermit, PermitHolder
    from holystream.resilience.lanes import Order
    from holystream.resilience.seats import Token

__all__ = ["PRIORITIES", "Permit", "PoolStatistics", "Priority", "PrioritySemaphore"]

HERD: Final = 1.0
"""Seconds of a timeout from which on it has jitter."""
_NOTHING: Final[list[Token]] = []
"""What a permit has that was not granted yet. It stays empty."""
_thread: Final = threading.get_ident

QUEUE_PER_PERMIT: Final = 10
"""Waiters that the queue has room for, for each permit, unless told otherwise."""


class PrioritySemaphore:
    """Permits for at most ``limit`` connections, and queues for those who wait.

    Four priorities share the permits by their weights while all of them have waiters,
    so that none starves; within one it is first in, first out. Thread-safe; clients may
    share one. A forked child begins with all permits free and nobody waiting.

    Args:
        limit: Permits in all.
        max_queue: Callers that may wait; ten times ``limit`` by default.
        timeout: Seconds that a caller waits unless it says otherwise; 60, as
            ``Timeouts.queue``.
        jitter: A wait may end early, by at most this share of its timeout, at random:
            callers that came together do not give up, and come back, together. Waits
            of less than a second are exact.
        order: "weighted", or "strict": the most urgent first, always, even if others
            never get a turn.
        weights: Shares by priority; ``{"critical": 8, "high": 4, "normal": 2,
            "low": 1}``, and those not given stay so.
        reserve: The share of the permits, rounded to whole ones, that only "critical"
            may have. All priorities share the rest.
        on_backpressure: Is called with True when four fifths of the permits have come
            into use, and with False when no more than three fifths are. It runs outside
            of all locks, in whatever acquires or releases: it must be quick. What it
            raises is logged.
        clock: Monotonic seconds.
        rng: Where jitter comes from; the generator of `random` by default.

    Raises:
        ConfigurationError: One of them cannot be used.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_grants",
        "_jitter",
        "_limit",
        "_max_queue",
        "_on_backpressure",
        "_order",
        "_random",
        "_reserve",
        "_timeout",
        "_weights",
    )

    def __init__(
        self,
        limit: int,
        *,
        max_queue: int | None = None,
        timeout: float = 60.0,
        jitter: float = 0.1,
        order: Order = "weighted",
        weights: Mapping[Priority, int] | None = None,
        reserve: float = 0.0,
        on_backpressure: Callable[[bool], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        check_whole(limit, "the pool's limit", 1)
        if max_queue is not None:
            check_whole(max_queue, "the pool's max_queue", 0)
        check_seconds(timeout, "the pool's timeout")
        check_share(jitter, "the pool's jitter")
        check_share(reserve, "the pool's reserve")
        if on_backpressure is not None and not callable(on_backpressure):
            raise ConfigurationError(
                "the pool's on_backpressure must be called with True or False, and "
                f"{type(on_backpressure).__name__} cannot be called"
            )
        self._limit = limit
        self._max_queue = max_queue
        self._timeout = timeout
        self._jitter = jitter
        self._order: Order = order
        self._weights = dict(weights or {})
        self._reserve = reserve
        self._on_backpressure = on_backpressure
        self._clock = clock
        self._random = random.random if rng is None else rng.random
        self._begin()
        forks.register(self)

    @classmethod
    def browser(cls) -> Self:
        """Return a pool with a browser's bounds: 6 connections, 100 in the queue."""
        return cls(6, max_queue=100)

    @classmethod
    def server(cls) -> Self:
        """Return a pool for a server process: 50 connections, 500 in the queue."""
        return cls(50)

    def _begin(self) -> None:
        self._grants = Grants(
            self._limit,
            reserve=self._reserve,
            lanes=Lanes(self._order, self._weights),
            pressure=Pressure(self._on_backpressure),
            clock=self._clock,
        )

    def after_fork_in_child(self) -> None:
        """Begin anew: threads, permits and connections are the parent's."""
        self._grants.stale = True
        self._grants.pressure.mute()
        self._begin()

    @property
    def limit(self) -> int:
        """Permits in all."""
        return self._limit

    @property
    def max_queue(self) -> int:
        """Callers that may wait."""
        if self._max_queue is None:
            return QUEUE_PER_PERMIT * self._limit
        return self._max_queue

    @property
    def backpressure(self) -> bool:
        """Whether the pool is nearly full, and new work had better wait.

        It begins with four fifths of the permits in use, and ends with three fifths.
        """
        return self._grants.pressure.on

    def acquire(
        self,
        *,
        priority: Priority = "normal",
        timeout: float | None = None,
        deadline: float | None = None,
        cancel: CancelToken | None = None,
        holder: PermitHolder | None = None,
    ) -> Permit:
        """Return a permit, waiting for one if none is free.

        Args:
            priority: "critical", "high", "normal" or "low".
            timeout: Seconds to wait at most, 0 for not at all; the pool's by default.
                The pool's jitter makes it shorter.
            deadline: Seconds until the permit would be of no use; no jitter.
            cancel: Ends the wait, from any thread.
            holder: Whoever will hold it: named in messages, and found by `abort`.

        Raises:
            QueueFull: None is free and ``max_queue`` callers wait already, or so many
                came later that are more urgent.
            QueueTimeout: None came free in time. The message says who holds them.
            StreamCancelled: ``cancel`` was cancelled, or `abort` called. A permit
                granted in the same moment has been passed on.
            InvalidRequest: No such priority, or seconds are negative.
        """
        if timeout is not None or deadline is not None:
            _check_wait(timeout, deadline)
        if cancel is not None and cancel.cancelled:
            raise StreamCancelled("the stream was cancelled before it had a permit")
        grants = self._grants
        permit = Permit()
        permit._grants = grants  # noqa: SLF001 - one unit
        permit._tokens = _NOTHING  # noqa: SLF001 - one unit
        permit.priority = priority
        try:
            if priority in grants.gate:
                # A token that a signal handler's exception catches half-way is one that
                # died: no local variable, which a traceback would keep, holds it.
                try:  # noqa: SIM105 - costs nothing, where nothing is raised
                    permit._tokens = [grants.free.pop()]  # noqa: SLF001 - one unit
                except IndexError:
                    pass  # the last one went this moment: wait for another
            if permit._tokens:  # noqa: SLF001 - one unit
                seat = permit._tokens[0].seat  # noqa: SLF001 - one unit
                seat.uses += 1
                seat.priority = priority
                seat.thread = _thread()
                if holder is not None:
                    seat.holder = weakref.ref(holder)
                seat.since = self._clock()
                if len(grants.free) <= grants.ample:
                    grants.settle()
                    grants.pressure.tell()
            else:
                seconds = self._patience(timeout, deadline)
                waiter = _waiter(priority, holder)
                self._queue(permit, waiter, cancel, seconds, self.max_queue, Lanes.add)
        except BaseException as error:
            # Whoever struck, the caller will not have the permit.
            permit.release()
            if isinstance(error, TypeError):
                _check_priority(priority)  # it cannot be looked for, if it is a list
            raise
        return permit

    def reacquire(
        self,
        *,
        priority: Priority = "normal",
        deadline: float | None = None,
        cancel: CancelToken | None = None,
        holder: PermitHolder | None = None,
    ) -> Permit:
        """Return a permit to one who had one, and gave it back to wait for its retry.

        It waits before all of its priority that are new, however full the queue is, and
        as long as it takes: only ``deadline`` bounds it. The arguments are those of
        `acquire`.

        Raises:
            QueueTimeout: The deadline came first. The message is as for `acquire`.
            StreamCancelled: As for `acquire`.
            InvalidRequest: As for `acquire`.
        """
        _check_wait(None, deadline)
        if cancel is not None and cancel.cancelled:
            raise StreamCancelled("the stream was cancelled before it had a permit")
        grants = self._grants
        permit = Permit()
        permit._grants = grants  # noqa: SLF001 - one unit
        permit._tokens = _NOTHING  # noqa: SLF001 - one unit
        permit.priority = priority
        seconds = math.inf if deadline is None else deadline
        try:
            waiter = _waiter(priority, holder)
            self._queue(permit, waiter, cancel, seconds, math.inf, Lanes.add_returning)
        except BaseException:
            permit.release()
            raise
        return permit

    def abort(self, stream_id: str) -> bool:
        """End the stream of that id, whether it waits for a permit or holds one.

        `PermitHolder.cancel` of the holder that was given to `acquire` is called, in
        this thread; a wait ends with `StreamCancelled`.

        Returns:
            Whether there was one.
        """
        waiters, seats = self._grants.places()
        queued = holders.held_by(stream_id, waiters)
        found = {id(holder): holder for _, holder in queued}
        found |= {id(it): it for _, it in holders.held_by(stream_id, seats)}
        # First, so that a stream whose wait ends knows why.
        for holder in found.values():
            holder.cancel()
        for waiter, _ in queued:
            self._grants.abort(waiter)
        return bool(found)

    def resize(self, limit: int) -> None:
        """Allow another number of permits.

        More are granted at once to those who wait. With fewer, nobody loses a permit:
        what is given back is not granted anew until no more than ``limit`` are held.

        Raises:
            ConfigurationError: ``limit`` is not a whole number, at least 1.
        """
        check_whole(limit, "the pool's limit", 1)
        self._limit = limit
        self._grants.resize(limit)
        self._grants.pressure.tell()

    def holders(self) -> tuple[HeldPermit, ...]:
        """Return who holds the permits, the one that has been idle longest first."""
        _, seats = self._grants.places()
        return holders.describe(seats, self._clock())

    def statistics(self) -> PoolStatistics:
        """Return what the pool is doing and has done, as of one moment."""
        found = self._grants.statistics(self.max_queue)
        self._grants.pressure.tell()
        return found

    def _patience(self, timeout: float | None, deadline: float | None) -> float:
        """Return the seconds that a caller waits."""
        seconds = self._timeout if timeout is None else timeout
        if HERD <= seconds < math.inf:
            seconds -= seconds * self._jitter * self._random()
        return seconds if deadline is None else min(seconds, deadline)

    def _queue(  # noqa: PLR0917 - private
        self,
        permit: Permit,
        waiter: Waiter,
        cancel: CancelToken | None,
        seconds: float,
        room: float,
        add: Callable[[Lanes, Waiter], None],
    ) -> None:
        """Have ``permit`` granted, in its turn; raise if that cannot be."""
        grants = permit._grants  # noqa: SLF001 - one unit
        in_time = True
        try:
            # Who would not wait takes no place from those who do.
            joined = grants.join(waiter, add, room, sheds=seconds > 0)
            if joined and not waiter.tokens:
                in_time = wait(grants, waiter, cancel, seconds)
            permit._tokens = waiter.tokens  # noqa: SLF001 - one unit
            if grants.pressure.untold:
                grants.pressure.tell()
        except BaseException:
            # An error of ours, or whatever a signal handler raised in the midst of
            # this. Pretend we never came: leave the queue, and if we were granted a
            # permit while we made up our mind, our caller passes it on.
            grants.forget(waiter)
            permit._tokens = waiter.tokens  # noqa: SLF001 - one unit
            raise
        if not joined:
            raise QueueFull(self._situation("the queue for a permit is full"))
        if waiter.shed and not in_time:
            what = "the place in the full queue went to a more urgent caller"
            raise QueueFull(self._situation(what))
        if not in_time:
            raise QueueTimeout(self._situation(f"no permit within {seconds:.3g} s"))

    def _situation(self, what: str) -> str:
        """Say what happened, who is to blame and what to do."""
        now = self.statistics()
        kept = len(self._grants.kept)
        reserved = f" (the other {kept} are reserved for 'critical')" if kept else ""
        return (
            f"{what}: {now.in_use} of {now.limit} permits are held"
            f"{holders.name(self.holders())}{reserved}, and {now.queued} of at most "
            f"{now.max_queue} callers wait. Close streams that are no longer read, or "
            "allow more connections."
        )

    def __repr__(self) -> str:
        return (
            f"<PrioritySemaphore {self._grants.in_use} of {self._limit} held, "
            f"{self._grants.queued} waiting>"
        )


def _waiter(priority: Priority, holder: PermitHolder | None) -> Waiter:
    _check_priority(priority)
    return Waiter(priority, None if holder is None else weakref.ref(holder))


def _check_priority(priority: object) -> None:
    if not isinstance(priority, str) or priority not in PRIORITIES:
        raise InvalidRequest(
            "priority must be one of 'critical', 'high', 'normal' and 'low', not "
            f"{priority!r}"
        )


def _check_wait(timeout: object, deadline: object) -> None:
    for name, seconds in (("timeout", timeout), ("deadline", deadline)):
        if seconds is not None and not (
            isinstance(seconds, (int, float)) and seconds >= 0.0
        ):
            raise InvalidRequest(
                f"{name} must be 0 or more seconds to wait, not {seconds!r}"
            )
