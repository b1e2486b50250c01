"""Ways to hand a permit from thread to thread, all with the same two verbs."""

from __future__ import annotations

import collections
import threading
from typing import TYPE_CHECKING

from holystream import PrioritySemaphore

if TYPE_CHECKING:
    from collections.abc import Callable

FOR_EVER = 600.0
"""Seconds; no wait of a benchmark is longer."""


class BareLocks:
    """The floor: a lock for each thread, and each releases the next one's. No queue."""

    def __init__(self, threads: int) -> None:
        self._locks = [threading.Lock() for _ in range(threads + 1)]
        for lock in self._locks[:-1]:
            lock.acquire()

    def take(self, number: int) -> Callable[[], None]:
        """Wait for one's turn; return what passes it on."""
        self._locks[number].acquire()
        following = self._locks[(number + 1) % len(self._locks)]
        return following.release


class LeastQueue:
    """The least that is fair: a mutex, and a deque of locks. No timeout, no cancel."""

    def __init__(self, _: int, permits: int = 1) -> None:
        self._mutex = threading.Lock()
        self._waiters: collections.deque[threading.Lock] = collections.deque()
        self._free = permits

    def take(self, _: int) -> Callable[[], None]:
        """Wait for one's turn; return what passes it on."""
        with self._mutex:
            if self._free:
                self._free -= 1
                return self._release
            turn = threading.Lock()
            turn.acquire()
            self._waiters.append(turn)
        turn.acquire()
        return self._release

    def _release(self) -> None:
        with self._mutex:
            if self._waiters:
                self._waiters.popleft().release()
            else:
                self._free += 1


class LeastPool:
    """The least that has permits: objects for them and for waiters, and a timeout."""

    def __init__(self, _: int, permits: int = 1) -> None:
        self._mutex = threading.Lock()
        self._waiters: collections.deque[LeastWaiter] = collections.deque()
        self.free = collections.deque(range(permits))

    def take(self, _: int) -> Callable[[], None]:
        """Wait for one's turn; return what passes it on."""
        return self._acquire().release

    def _acquire(self) -> LeastPermit:
        permit = LeastPermit()
        permit.pool = self
        with self._mutex:
            if self.free:
                permit.tokens = [self.free.pop()]
                return permit
            waiter = LeastWaiter()
            self._waiters.append(waiter)
        self._wait(permit, waiter)
        return permit

    @staticmethod
    def _wait(permit: LeastPermit, waiter: LeastWaiter) -> None:
        waiter.turn.acquire(timeout=FOR_EVER)
        permit.tokens = waiter.tokens

    def settle(self) -> None:
        """Grant what is free."""
        with self._mutex:
            if self._waiters and self.free:
                waiter = self._waiters.popleft()
                waiter.tokens = [self.free.pop()]
                waiter.turn.release()


class LeastPermit:
    """Has the token while it is held."""

    __slots__ = ("pool", "tokens")

    pool: LeastPool
    tokens: list[int]

    def release(self) -> None:
        """Give the permit back."""
        self.pool.free.append(self.tokens.pop())
        self.pool.settle()


class LeastWaiter:
    """Is given the token."""

    __slots__ = ("tokens", "turn")

    tokens: list[int]

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.turn.acquire()


class Pool:
    """Ours."""

    def __init__(self, threads: int, permits: int = 1) -> None:
        self._pool = PrioritySemaphore(permits, max_queue=threads + 1, timeout=FOR_EVER)

    def take(self, _: int) -> Callable[[], None]:
        """Wait for one's turn; return what passes it on."""
        return self._pool.acquire().release


class StandardSemaphore:
    """`threading.Semaphore`: a condition and its deque of waiters."""

    def __init__(self, _: int, permits: int = 1) -> None:
        self._semaphore = threading.Semaphore(permits)

    def take(self, _: int) -> Callable[[], None]:
        """Wait for one's turn; return what passes it on."""
        self._semaphore.acquire()
        return self._semaphore.release


class NotifyAll:
    """What many pools do: wake everybody, and let them fight for it."""

    def __init__(self, _: int, permits: int = 1) -> None:
        self._condition = threading.Condition()
        self._free = permits

    def take(self, _: int) -> Callable[[], None]:
        """Wait for one's turn; return what passes it on."""
        with self._condition:
            while not self._free:
                self._condition.wait()
            self._free -= 1
        return self._release

    def _release(self) -> None:
        with self._condition:
            self._free += 1
            self._condition.notify_all()


RIVALS = {
    "bare": ("a bare lock for each thread", BareLocks),
    "queue": ("a mutex and a deque of locks", LeastQueue),
    "least": ("the same, with permits and a timeout", LeastPool),
    "pool": ("PrioritySemaphore", Pool),
    "semaphore": ("threading.Semaphore", StandardSemaphore),
    "notify_all": ("Condition.notify_all", NotifyAll),
}
