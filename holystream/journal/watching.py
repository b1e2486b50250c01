"""Readers that wait for a stream, and how a writer of the same process wakes them.

A reader sleeps on a lock of its own, which stays locked until somebody wakes it. Waking
takes no lock, so that a cancel may come from a signal handler.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from typing import TYPE_CHECKING, Final

from holystream.journal.base import Entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from holystream.clocks import CancelToken
    from holystream.journal.base import Reading


_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.05
_PAUSE_GROWTH: Final = 1.5


def growing_pauses() -> Iterator[float]:
    """Return the seconds to wait, time and again, before asking what others wrote."""
    growing = itertools.accumulate(
        itertools.repeat(_FIRST_PAUSE), lambda pause, _: pause * _PAUSE_GROWTH
    )
    # Not for ever: it would grow beyond all numbers.
    return itertools.chain(
        itertools.takewhile(lambda pause: pause < _LONGEST_PAUSE, growing),
        itertools.repeat(_LONGEST_PAUSE),
    )


def is_nothing_yet(found: Reading) -> bool:
    """Whether there is something to wait for."""
    return isinstance(found, Entries) and not found.events and not found.finished


class Watcher:
    """One reader's sleep, which any thread may end, any number of times."""

    __slots__ = ("_turn",)

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._turn.acquire()

    def wait(self, seconds: float) -> bool:
        """Sleep for ``seconds`` or until woken, if it was not yet; was it woken?"""
        return self._turn.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))

    def wake(self) -> None:
        """End the sleep, or the next one."""
        # Not locked: it was woken already, and will look.
        with contextlib.suppress(RuntimeError):
            self._turn.release()


class Watchers:
    """Who waits for which stream. Thread-safe."""

    __slots__ = ("_lock", "_waiting")

    def __init__(self) -> None:
        # Guards _waiting: a reader that is in it is woken by every later writer. Re-
        # entrant for a signal handler that writes in the midst of its thread's call.
        self._lock = threading.RLock()
        self._waiting: dict[str, list[Watcher]] = {}

    def follow(
        self,
        look: Callable[[], Reading],
        stream_id: str,
        *,
        wait: float,
        cancel: CancelToken | None,
        pauses: Iterable[float] = itertools.repeat(math.inf),
        changed: Callable[[], bool] = lambda: True,
    ) -> Reading:
        """Look for events until there are some, or for ``wait`` seconds.

        Args:
            look: Reads what is there.
            stream_id: The stream to be woken for.
            wait: Seconds; 0 looks once.
            cancel: Ends the wait.
            pauses: Seconds after which to look without being woken, one after another.
            changed: Whether it is worth looking when nobody woke us.
        """
        found = look()
        if wait <= 0 or not is_nothing_yet(found):
            return found
        end = time.monotonic() + wait
        watcher = Watcher()
        take_back = cancel.on_cancel(watcher.wake) if cancel is not None else None
        try:
            with self._lock:
                self._waiting.setdefault(stream_id, []).append(watcher)
            # Once more: something may have come before we were to be woken for it.
            found = look()
            for pause in pauses:
                left = end - time.monotonic()
                if not is_nothing_yet(found) or left <= 0:
                    break
                if cancel is not None and cancel.cancelled:
                    break
                if watcher.wait(min(left, pause)) or changed():
                    found = look()
        finally:
            self._forget(stream_id, watcher)
            if take_back is not None:
                take_back()
        return found

    def _forget(self, stream_id: str, watcher: Watcher) -> None:
        with self._lock:
            others = self._waiting.get(stream_id, [])
            if watcher in others:
                others.remove(watcher)
            if not others:
                self._waiting.pop(stream_id, None)

    def wake(self, stream_ids: Iterable[str]) -> None:
        """Wake those that wait for these streams, after it was written."""
        # Who is not in it yet looks at the stream after it is: it misses nothing.
        if not self._waiting:
            return
        with self._lock:
            woken = [
                watcher
                for stream_id in stream_ids
                for watcher in self._waiting.get(stream_id, ())
            ]
        for watcher in woken:
            watcher.wake()

    def wake_all(self) -> None:
        """Wake everybody: the journal closes."""
        with self._lock:
            woken = [each for waiting in self._waiting.values() for each in waiting]
        for watcher in woken:
            watcher.wake()
