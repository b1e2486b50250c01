"""What breakers, budgets and routers are put under: a clock, a crowd, a fork."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SOON = 20.0
"""Seconds within which whatever should happen has happened on any machine."""


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def crowd(run: Callable[[int], object], count: int) -> None:
    """Run in so many threads at once, that change as often as they can.

    Each is given its number, from 0.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [
            threading.Thread(target=run, args=(number,), daemon=True)
            for number in range(count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
            assert not thread.is_alive()
    finally:
        sys.setswitchinterval(before)


def in_child(check: Callable[[], bool]) -> int:
    """Fork, and return the exit code of the child: 0 if it found all as it should."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if check() else 2
        finally:
            os._exit(status)
    # One that hangs, be it in the hooks of the fork, ends, and says where.
    watchdog = threading.Timer(SOON, os.kill, (child, signal.SIGABRT))
    watchdog.start()
    try:
        _, status = os.waitpid(child, 0)
    finally:
        watchdog.cancel()
        watchdog.join()
    return os.waitstatus_to_exitcode(status)
