"""The retry budget: how many retries all streams of a client may make together.

When a provider fails, every stream tries again, and the load on it multiplies just
then. The budget bounds the sum: a share of the requests of the last seconds, and beyond
that a floor per second for clients with few. It is the token bucket of Finagle: each
request puts ``ratio`` of a retry in, a retry takes one out, and both are forgotten
after ``window`` seconds, of which ten slices are kept. The floor is higher than
Finagle's, for streams are long and few: as many as a client has at once by default may
use up all of their attempts, however fast they fail.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
from typing import TYPE_CHECKING, Final

from holystream.clocks import check_seconds
from holystream.errors import ConfigurationError
from holystream.resilience.forks import register

if TYPE_CHECKING:
    from collections.abc import Callable

SPENT: Final = (
    "the retry budget is spent: run fewer streams at once, or give "
    "Client(retry_budget=) a higher floor"
)
"""Why a stream gives up that may not spend, as a clause for a person."""

SLICES: Final = 10
"""Parts of the window: it moves on by one of them at a time."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStatistics:
    """What a budget has granted.

    Attributes:
        balance: Retries that may be made now.
        requests: Requests recorded since it was made.
        spent: Retries granted since it was made.
        refused: Retries refused since it was made.
    """

    balance: float
    requests: int
    spent: int
    refused: int


class RetryBudget:
    """Bounds the retries of all streams that share it. Thread-safe, in constant time.

    A forked child begins with what its parent had, and spends its own.

    Args:
        ratio: Retries for each request: 0.2 allows one for every five.
        floor: Retries per second beyond these, for clients with few requests; the
            default lets 50 streams use up their 5 retries at once. ``inf`` bounds
            nothing.
        window: Seconds after which a request, or a retry, is forgotten.
        clock: Monotonic seconds.

    Raises:
        ConfigurationError: One of them cannot be used.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_lock",
        "_ratio",
        "_refused",
        "_requests",
        "_requests_before",
        "_reserve",
        "_slice",
        "_slice_requests",
        "_slice_spent",
        "_spent",
        "_spent_before",
        "_width",
    )

    def __init__(
        self,
        *,
        ratio: float = 0.2,
        floor: float = 25.0,
        window: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        _check_amount(ratio, "ratio")
        _check_amount(floor, "floor")
        if ratio == math.inf:
            raise ConfigurationError(
                "RetryBudget's ratio must be finite: floor=inf bounds nothing"
            )
        check_seconds(window, "RetryBudget's window")
        self._clock = clock
        self._ratio = float(ratio)
        self._reserve = float(floor) * window
        self._width = window / SLICES
        # Guards everything below.
        self._lock = threading.Lock()
        # The number of the current slice; slice n is kept at n % SLICES.
        self._slice = int(clock() // self._width)
        self._slice_requests = [0] * SLICES
        self._slice_spent = [0] * SLICES
        # Sums over the window. Whole numbers: a sum of tenths would drift.
        self._requests = 0
        self._spent = 0
        # What has left the window.
        self._requests_before = 0
        self._spent_before = 0
        self._refused = 0
        register(self)

    @property
    def balance(self) -> float:
        """Retries that may be made now, if it is 1 or more; less than 0 is a debt."""
        now = self._clock()
        with self._lock:
            self._advance(now)
            return self._balance()

    @property
    def refills(self) -> bool:
        """Whether there will be a retry to spend by itself, be it spent as it may."""
        return self._reserve >= 1.0

    def record_request(self) -> None:
        """Put in what one request earns: the first attempt of a stream."""
        now = self._clock()
        with self._lock:
            self._advance(now)
            self._slice_requests[self._slice % SLICES] += 1
            self._requests += 1

    def try_spend(self) -> bool:
        """Take out one retry; False if there is none, which costs nothing.

        To be called when a retry is scheduled, before the wait for it.
        """
        now = self._clock()
        with self._lock:
            self._advance(now)
            if self._balance() < 1.0:
                self._refused += 1
                return False
            self._slice_spent[self._slice % SLICES] += 1
            self._spent += 1
            return True

    def statistics(self) -> BudgetStatistics:
        """Return what it has granted, as of one moment."""
        now = self._clock()
        with self._lock:
            self._advance(now)
            return BudgetStatistics(
                balance=self._balance(),
                requests=self._requests_before + self._requests,
                spent=self._spent_before + self._spent,
                refused=self._refused,
            )

    def _balance(self) -> float:
        return self._ratio * self._requests + self._reserve - self._spent

    def _advance(self, now: float) -> None:
        """Let the window move on; with the lock held."""
        current = int(now // self._width)
        # Another thread may have read the clock after us and been here before.
        for number in range(max(self._slice, current - SLICES) + 1, current + 1):
            place = number % SLICES
            self._requests -= self._slice_requests[place]
            self._requests_before += self._slice_requests[place]
            self._spent -= self._slice_spent[place]
            self._spent_before += self._slice_spent[place]
            self._slice_requests[place] = self._slice_spent[place] = 0
        self._slice = max(self._slice, current)

    def after_fork_in_child(self) -> None:
        """Take a lock that no thread of the parent holds."""
        if self._lock.locked():
            # A thread that is no more was counting: make the sums agree again.
            self._requests = sum(self._slice_requests)
            self._spent = sum(self._slice_spent)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<RetryBudget {self._balance():g} to spend>"


def _check_amount(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise ConfigurationError(
            f"RetryBudget's {name} must be 0 or more, not {value!r}"
        )
