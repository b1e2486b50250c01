"""A clock that does not sleep: retries without the wait, jitter without the dice."""

from __future__ import annotations

import math
import random
import threading
import time
from typing import TYPE_CHECKING, Self

from holystream.client import Client
from holystream.clocks import SystemTime
from holystream.decorators.retried import RetriedStream

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from holystream.clocks import CancelToken


class SleeplessClock(SystemTime):
    """Lets every stream of the process try again at once, while it is entered.

    A wait between attempts returns at once and moves the clock on by its length, so
    that deadlines count it; jitter always falls on the same share of its range. Waits
    for bytes, for a permit and for a connection are real, and take real time.

        with SleeplessClock() as clock:
            ...
        assert clock.waits == [0.5, 1.0]

    So is it with the generators under ``@retry_stream``. Streams keep the clock that
    they were made under. Thread-safe.

    Args:
        jitter: Where in its range jitter falls: 0 is the shortest wait, 1 the longest.

    Attributes:
        waits: Seconds of each wait between attempts, in order.

    Raises:
        ValueError: ``jitter`` is not from 0 to 1.
    """

    def __init__(self, *, jitter: float = 1.0) -> None:
        if not 0 <= jitter <= 1:
            raise ValueError(f"jitter must be from 0 to 1, not {jitter!r}")
        self.waits: list[float] = []
        self.rng = _Share(jitter)
        self._lock = threading.Lock()  # guards _skipped
        self._skipped = 0.0
        self._before: list[SystemTime] = []

    def now(self) -> float:
        """Return monotonic seconds, those that were not slept included."""
        return time.monotonic() + self._skipped

    def advance(self, seconds: float) -> None:
        """Move the clock on.

        Raises:
            ValueError: A clock goes neither back nor for ever.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"seconds must be 0 or more, and finite, not {seconds!r}")
        with self._lock:
            self._skipped += seconds

    def sleep(
        self,
        seconds: float,
        since: float,
        token: CancelToken,
        over: Callable[[], bool] | None = None,  # noqa: ARG002 - no time passes
    ) -> bool:
        """Note the wait, and do not sleep."""
        if not token.cancelled:
            # A microsecond is less than anybody means; binary fractions are more.
            self.waits.append(round(seconds, 6))
            with self._lock:
                # Waits at the same time take the time of the longest.
                self._skipped += max(0.0, since + seconds - self.now())
        return False

    def __enter__(self) -> Self:
        self._before.append(Client._time)  # noqa: SLF001 - made for this
        self._set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._set(self._before.pop())

    def _set(self, time: SystemTime) -> None:
        Client._time = RetriedStream._default_time = time  # noqa: SLF001


class _Share(random.Random):
    """A source of randomness that always draws the same share of the range."""

    def __init__(self, share: float) -> None:
        super().__init__(0)
        self._share = share

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self._share
