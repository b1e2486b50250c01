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
        told = False

        def tell(event: object) -> None:
            nonlocal why, told
            line = line_of(event) if self._verbose else None
            if isinstance(event, Interrupted):
                why = reworded(event.error.message)
            elif isinstance(event, Waiting) and self._counted(first=not told):
                told = True
                line = line or again(event, why)
            if line:
                clear_line()
                say(f"line {number}: {line}")

        return tell

    def _counted(self, *, first: bool) -> bool:
        """Count a retry; return whether it is one to tell of."""
        now = time.monotonic()
        with self._lock:
            self._count += 1
            due = first and now >= self._next
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
