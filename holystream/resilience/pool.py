"""The right to hold a connection: a bounded semaphore with a bounded, fair queue.

A `Permit` is granted at once while fewer than ``limit`` are held; otherwise the caller
waits its turn. The thread that gives a permit back hands it to the next waiter itself,
while it holds the mutex, and wakes that one thread: nobody overtakes the queue, and
nobody is woken in vain.

Invariants, true whenever the mutex is free:

- at most ``limit`` permits are held;
- while anybody waits, all of them are held;
- a waiter is in the queue, or was granted its permit, or gave up: never two of these.

Lock order: the mutex is the only lock that is ever waited for. Each waiter sleeps on a
lock of its own, which is released, never awaited, by whoever wakes it. Nothing that
belongs to a caller runs under the mutex. A finaliser or a signal handler may run in a
thread that holds the mutex: what is returned is queued, and the mutex taken only if it
is free. Whoever has held it takes back what was queued meanwhile, before it leaves.

The four priorities are checked and kept, but served first in, first out for now: until
the weighted lanes arrive they make no difference.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from holystream.clocks import check_seconds
from holystream.errors import (
    ConfigurationError,
    InvalidRequest,
    QueueFull,
    QueueTimeout,
    StreamCancelled,
)
from holystream.gapless import unlock

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from holystream.clocks import CancelToken

Priority: TypeAlias = Literal["critical", "high", "normal", "low"]
"""What a request may claim of the queue."""

PRIORITIES: Final[frozenset[str]] = frozenset({"critical", "high", "normal", "low"})

QUEUE_PER_PERMIT: Final = 10
"""Waiters that the queue has room for, for each permit, unless told otherwise."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """What a pool is doing and has done since it was made, or since a fork.

    Attributes:
        limit: Permits in all.
        in_use: Permits that are held.
        queued: Callers that wait.
        max_queue: Callers that may wait.
        oldest: Seconds since the permit held longest was granted; None if none is.
        granted: Permits granted so far.
        waited: Of these, the ones that had to be waited for.
        refused: Callers turned away because the queue was full.
        timeouts: Callers that waited in vain.
        cancels: Callers that were cancelled in the queue.
    """

    limit: int
    in_use: int
    queued: int
    max_queue: int
    oldest: float | None
    granted: int
    waited: int
    refused: int
    timeouts: int
    cancels: int


class Permit:
    """The right to hold one connection, until `release`.

    A context manager. Any thread may release it, any number of times. One that is lost
    without being released goes back to the pool when it is collected.

    Attributes:
        serial: Its number, unique in the pool.
        priority: The priority it was acquired with.
    """

    __slots__ = ("_pool", "priority", "serial")

    def __init__(
        self, pool: PrioritySemaphore, serial: int, priority: Priority
    ) -> None:
        self._pool = pool
        self.serial = serial
        self.priority = priority

    @property
    def held(self) -> bool:
        """Whether it was granted, in this process, and not yet released."""
        return self._pool._is_held(self.serial)  # noqa: SLF001 - one unit

    def release(self) -> None:
        """Give the permit back; the second time, nothing happens.

        It never waits: a finaliser or a signal handler may do it as well.
        """
        self._pool._release(self.serial)  # noqa: SLF001 - one unit

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool._release(self.serial)  # noqa: SLF001 - one unit

    def __del__(self) -> None:
        # An exception out of a signal handler (Ctrl-C) may strike after the grant and
        # before the caller has stored the permit. No `try` can close that gap; the
        # reference count does.
        try:
            if self.serial in self._pool._held:  # noqa: SLF001 - one unit
                self._pool._release(self.serial)  # noqa: SLF001 - one unit
        except AttributeError:
            pass  # it struck in __init__: nothing was granted

    def __repr__(self) -> str:
        return f"<Permit {self.serial} {'held' if self.held else 'not held'}>"


class _Waiter:
    """A place in the queue. ``granted`` is written under the mutex, once."""

    __slots__ = ("granted", "permit", "turn")

    def __init__(self, permit: Permit) -> None:
        self.permit = permit
        self.granted = False
        # Released by whoever wakes this waiter; acquired by the waiter alone.
        self.turn = threading.Lock()
        self.turn.acquire()

    def wake(self) -> None:
        """End the waiter's sleep. May be called more than once, from any thread."""
        # A grant and a cancellation may both arrive, and the second finds the lock
        # open. That wake-up is not needed: the waiter looks at both in any case.
        unlock(self.turn)


class PrioritySemaphore:
    """Permits for at most ``limit`` connections, and a queue for those who wait.

    Thread-safe; a forked child begins with all permits free and nobody waiting.

    Args:
        limit: Permits in all.
        max_queue: Callers that may wait; ten times ``limit`` by default.
        timeout: Seconds that a caller waits unless it says otherwise; 60, as
            ``Timeouts.queue``.
        clock: Monotonic seconds.

    Raises:
        ConfigurationError: One of them cannot be used.
    """

    __slots__ = (
        "__weakref__",
        "_cancels",
        "_clock",
        "_granted",
        "_held",
        "_limit",
        "_max_queue",
        "_mutex",
        "_refused",
        "_returned",
        "_serials",
        "_timeout",
        "_timeouts",
        "_waited",
        "_waiting",
    )

    def __init__(
        self,
        limit: int,
        *,
        max_queue: int | None = None,
        timeout: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _check_whole(limit, "limit", 1)
        if max_queue is None:
            max_queue = QUEUE_PER_PERMIT * limit
        _check_whole(max_queue, "max_queue", 0)
        check_seconds(timeout, "the pool's timeout")
        self._limit = limit
        self._max_queue = max_queue
        self._timeout = timeout
        self._clock = clock
        # Never starts anew: a permit that a fork left behind stays unknown for good.
        self._serials = itertools.count()
        self._reset()
        _pools.add(self)

    def _reset(self) -> None:
        # Guards everything below but _returned.
        self._mutex = threading.Lock()
        # Serial of each permit held -> when it was granted; the oldest comes first.
        # Not the permits themselves, which must be free to be collected.
        self._held: dict[int, float] = {}
        # Ordered, with removal from the middle in constant time.
        self._waiting: collections.OrderedDict[_Waiter, None] = (
            collections.OrderedDict()
        )
        # Serials that were given back and not taken back yet. Appending takes no lock.
        self._returned: collections.deque[int] = collections.deque()
        self._granted = 0
        self._waited = 0
        self._refused = 0
        self._timeouts = 0
        self._cancels = 0

    @property
    def limit(self) -> int:
        """Permits in all."""
        return self._limit

    def acquire(
        self,
        *,
        priority: Priority = "normal",
        timeout: float | None = None,
        cancel: CancelToken | None = None,
    ) -> Permit:
        """Return a permit, waiting for one if none is free.

        Args:
            priority: "critical", "high", "normal" or "low".
            timeout: Seconds to wait at most, 0 for not at all; the pool's by default.
            cancel: Ends the wait, from any thread.

        Raises:
            QueueFull: None is free and ``max_queue`` callers wait already.
            QueueTimeout: None came free in time.
            StreamCancelled: ``cancel`` was cancelled. A permit granted in the same
                moment has been passed on.
            InvalidRequest: No such priority, or ``timeout`` is negative.
        """
        if priority not in PRIORITIES:
            raise InvalidRequest(
                f"priority must be one of 'critical', 'high', 'normal' and 'low', "
                f"not {priority!r}"
            )
        if timeout is not None and not timeout >= 0.0:
            raise InvalidRequest(
                f"timeout must be 0 or more seconds to wait, not {timeout!r}"
            )
        if cancel is not None and cancel.cancelled:
            raise StreamCancelled("the stream was cancelled before it had a permit")
        serial = next(self._serials)
        permit = Permit(self, serial, priority)
        waiter = None
        full = False
        try:
            with self._mutex:
                self._take_back()
                if len(self._held) < self._limit:
                    # Free permits mean that nobody waits, so nobody is overtaken.
                    self._held[serial] = self._clock()
                    self._granted += 1
                elif len(self._waiting) < self._max_queue:
                    waiter = _Waiter(permit)
                    self._waiting[waiter] = None
                else:
                    self._refused += 1
                    full = True
            if self._returned:
                self._settle()
            if waiter is not None:
                seconds = self._timeout if timeout is None else timeout
                self._wait(waiter, seconds, cancel)
        except BaseException:
            # An error of ours, or whatever a signal handler raised in the midst of
            # this. Pretend we never came: leave the queue, and if we were granted a
            # permit while we made up our mind, pass it on.
            self._forget(serial, waiter)
            raise
        if full:
            raise QueueFull(self._situation("the queue for a permit is full"))
        return permit

    def statistics(self) -> PoolStatistics:
        """Return what the pool is doing and has done, as of one moment."""
        now = self._clock()
        with self._mutex:
            self._take_back()
            since = next(iter(self._held.values()), None)
            found = PoolStatistics(
                limit=self._limit,
                in_use=len(self._held),
                queued=len(self._waiting),
                max_queue=self._max_queue,
                oldest=None if since is None else max(0.0, now - since),
                granted=self._granted,
                waited=self._waited,
                refused=self._refused,
                timeouts=self._timeouts,
                cancels=self._cancels,
            )
        if self._returned:
            self._settle()
        return found

    def _wait(
        self, waiter: _Waiter, timeout: float, cancel: CancelToken | None
    ) -> None:
        """Sleep until granted; raise if cancelled or out of time."""
        # The callback only opens the waiter's own lock. It must not take the mutex: it
        # may run in a signal handler, in the very thread that holds it. If the token
        # is cancelled already, it runs at once and the sleep ends before it begins.
        ignore = None if cancel is None else cancel.on_cancel(waiter.wake)
        try:
            waiter.turn.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))
        finally:
            if ignore is not None:
                ignore()
        if cancel is not None and cancel.cancelled:
            # Granted or not: whoever cancelled us does not want the connection, and
            # the caller's `except` passes the permit on.
            with self._mutex:
                self._cancels += 1
            raise StreamCancelled("the stream was cancelled in the queue for a permit")
        # Written before we were woken, and never taken back: no need for the mutex.
        if waiter.granted:
            return
        if not self._leave(waiter):
            raise QueueTimeout(self._situation(f"no permit within {timeout:g} s"))

    def _leave(self, waiter: _Waiter) -> bool:
        """Leave the queue, out of time; return True if the grant was faster."""
        with self._mutex:
            # Granted between the end of our sleep and now. The permit is ours: a
            # little late is better than a timeout and a permit sent around in vain.
            if not waiter.granted:
                self._waiting.pop(waiter, None)
                self._timeouts += 1
        if self._returned:
            self._settle()
        return waiter.granted

    def _is_held(self, serial: int) -> bool:
        return serial in self._held and serial not in self._returned

    def _release(self, serial: int) -> None:
        self._returned.append(serial)
        self._settle()

    def _settle(self) -> None:
        """Take back what was given back; never waits for its own thread."""
        # A mutex that is free is not held by this thread, so that `with` cannot block
        # on ourselves. (`acquire(blocking=False)` would be no safer: an exception out
        # of a signal handler between it and its `try` would leave it locked for good.)
        # A mutex that is held will be let go by somebody who then looks. Looking after
        # unlocking leaves no gap: either we find the mutex free, or its holder, who is
        # still to look, finds the permit.
        while self._returned and not self._mutex.locked():
            with self._mutex:
                self._take_back()

    def _take_back(self) -> None:
        """Make free what was given back, and hand it on; with the mutex held."""
        while self._returned:
            # In this order: an exception in between loses no permit.
            self._held.pop(self._returned[0], None)
            self._returned.popleft()
        self._hand_on()

    def _forget(self, serial: int, waiter: _Waiter | None) -> None:
        if waiter is not None:
            with self._mutex:
                self._waiting.pop(waiter, None)
        self._release(serial)

    def _hand_on(self) -> None:
        """Grant what is free to those who wait, and wake them; with the mutex held."""
        # One permit, one waiter, as a rule. A loop, because an exception out of a
        # signal handler may once have stopped us between the two.
        while self._waiting and len(self._held) < self._limit:
            waiter = next(iter(self._waiting))
            self._held[waiter.permit.serial] = self._clock()
            waiter.granted = True
            del self._waiting[waiter]
            self._granted += 1
            self._waited += 1
            # No call of Python's stands between the grant and the waking, where a
            # signal handler could raise. Whoever wakes up does not need the mutex.
            try:  # noqa: SIM105 - as said
                waiter.turn.release()
            except RuntimeError:
                pass  # awake already: cancelled in the same moment

    def _situation(self, what: str) -> str:
        """Say what happened, who is to blame and what to do."""
        now = self.statistics()
        oldest = "" if now.oldest is None else f", the longest for {now.oldest:.1f} s"
        return (
            f"{what}: {now.in_use} of {now.limit} permits are held{oldest}, and "
            f"{now.queued} of at most {now.max_queue} callers wait. Close streams that "
            "are no longer read, or allow more connections."
        )

    def __repr__(self) -> str:
        return (
            f"<PrioritySemaphore {len(self._held)} of {self._limit} held, "
            f"{len(self._waiting)} waiting>"
        )


def _check_whole(value: object, name: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(
            f"the pool's {name} must be a whole number, at least {least}, not {value!r}"
        )


_pools: weakref.WeakSet[PrioritySemaphore] = weakref.WeakSet()
"""Every live pool, for the child of a fork."""


def _after_fork_in_child() -> None:
    # The threads that held permits or the mutex do not exist in the child, and the
    # connections are the parent's. Only this thread is left, and it is in os.fork().
    for pool in list(_pools):
        pool._reset()  # noqa: SLF001 - one unit


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
