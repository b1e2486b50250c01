"""Tells on stderr that items of a map are tried again, and not more often than helps.

The first retry of an item is told, unless another one was told within the last second:
where a server refuses all of them, one line says as much as a thousand. All are
counted. Its callbacks run in the threads of the streams.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from holystream.cli.answer import again, line_of
from holystream.cli.console import clear_line, say
from holystream.cli.exits import reworded

if TYPE_CHECKING:
    from collections.abc import Callable

_APART: Final = 1.0
"""Seconds between two lines."""

_HELD_BACK: Final = {
    "circuit open": "other requests failed",
    "server hint": "another item was told so",
}
"""Why an item waits of which no attempt has failed."""


class Retries:
    """Counts the retries of all items, and tells of some. Thread-safe.

    Args:
        verbose: Tell all that happens to each item.
    """

    def __init__(self, *, verbose: bool) -> None:
        # Attempts that failed and were made again.
        self._count = 0
        self._verbose = verbose
        self._next = 0.0
        self._lock = threading.Lock()  # guards _count and _next

    def of(self, number: int) -> Callable[[object], None]:
        """Return what is called with each event of the item on a line."""
        from holystream.events import Interrupted, Waiting  # noqa: PLC0415 - if it runs

        why = ""
        failed = told = False

        def tell(event: object) -> None:
            nonlocal why, failed, told
            line = line_of(event) if self._verbose else None
            if isinstance(event, Interrupted):
                why = reworded(event.error.message)
                failed = True
            elif isinstance(event, Waiting):
                if failed:
                    self._count_one()
                # It may wait again, for a breaker or for quiet, without an attempt.
                failed = False
                if not told and self._is_due():
                    told = True
                    line = line or again(event, why or _HELD_BACK.get(event.reason, ""))
            if line:
                clear_line()
                say(f"line {number}: {line}")

        return tell

    def _count_one(self) -> None:
        with self._lock:
            self._count += 1

    def _is_due(self) -> bool:
        """Whether there was no line of late; then this one is the last."""
        now = time.monotonic()
        with self._lock:
            due = now >= self._next
            if due:
                self._next = now + _APART
            return due

    def summary(self) -> str:
        """Say how many there were; nothing if none."""
        if not self._count:
            return ""
        attempts = "1 attempt" if self._count == 1 else f"{self._count} attempts"
        were = "was" if self._count == 1 else "were"
        return f"; {attempts} failed and {were} made again"
