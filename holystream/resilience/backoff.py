"""How long to wait before another attempt: tenacity waits, each of use alone.

Those that grow differ in their jitter alone; docs/backoff.md compares them. They keep
nothing: what belongs to a stream or a call is in the retry state that they are given.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tenacity.wait import WaitBaseT, wait_base

from holystream.resilience.doubling import doubled
from holystream.resilience.progress import HINT_SPREAD, hint_spread
from holystream.resilience.retry_state import error_of, uniform_of
from holystream.resilience.verdicts import hint_of

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = [
    "AdditiveJitter",
    "AtLeastServerHint",
    "Backoff",
    "DecorrelatedJitter",
    "EqualJitter",
    "FullJitter",
    "NoJitter",
    "PlusMinusJitter",
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Backoff(wait_base):
    """Base of the waits that grow: ``capped = min(cap, base * 2 ** (attempt - 1))``.

    Each is a tenacity wait and can be used alone. ``attempt`` is the number of failed
    attempts, those since the last progress where a stream drives it.

    Attributes:
        base: Seconds that the first wait is made from.
        cap: Seconds that ``capped`` never exceeds.
    """

    base: float = 0.5
    cap: float = 30.0

    def capped(self, attempt: int) -> float:
        """Return the exponential of ``attempt`` in seconds, before any jitter."""
        return doubled(self.base, attempt - 1, cap=self.cap)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NoJitter(Backoff):
    """``capped``: every client waits equally long, and all come back together."""

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the wait in seconds."""
        return self.capped(retry_state.attempt_number)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FullJitter(Backoff):
    """``U(0, capped)``: spreads callers the most for the least total work."""

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the wait in seconds."""
        capped = self.capped(retry_state.attempt_number)
        return uniform_of(retry_state)(0.0, capped)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EqualJitter(Backoff):
    """``capped / 2 + U(0, capped / 2)``: never less than half."""

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the wait in seconds."""
        half = self.capped(retry_state.attempt_number) / 2
        return half + uniform_of(retry_state)(0.0, half)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecorrelatedJitter(Backoff):
    """``min(cap, U(base, 3 * previous wait))``, the first from ``previous = base``.

    The previous wait is read from the retry state, so that it belongs to one stream or
    one call and the object itself can be shared.
    """

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the wait in seconds."""
        previous = max(self.base, retry_state.upcoming_sleep)
        return min(self.cap, uniform_of(retry_state)(self.base, 3.0 * previous))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlusMinusJitter(Backoff):
    """``capped * (1 + U(-ratio, ratio))``; it may exceed ``cap`` by that share."""

    ratio: float = 0.25

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the wait in seconds."""
        factor = 1.0 + uniform_of(retry_state)(-self.ratio, self.ratio)
        return self.capped(retry_state.attempt_number) * factor


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AdditiveJitter(Backoff):
    """``capped * (1 + U(0, ratio))``; it may exceed ``cap`` by that share."""

    ratio: float = 0.25

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the wait in seconds."""
        factor = 1.0 + uniform_of(retry_state)(0.0, self.ratio)
        return self.capped(retry_state.attempt_number) * factor


@dataclasses.dataclass(frozen=True, slots=True)
class AtLeastServerHint(wait_base):
    """``max(backoff, hint + U(0, jitter))`` where the server gave a hint.

    ``jitter`` is ``spread`` of the hint, and 3 s where that is less, but never more
    than the hint. The hint is the ``retry_after`` of the error that ended the attempt,
    or what the headers of a ``requests.HTTPError`` say.

    Attributes:
        backoff: The wait that is raised to the hint.
        spread: The jitter of the hint, as a share of it; 0 for none.
    """

    backoff: WaitBaseT
    spread: float = HINT_SPREAD

    def __call__(self, retry_state: RetryCallState) -> float:
        """Return the wait in seconds."""
        seconds = float(self.backoff(retry_state))
        if not seconds > 0.0:  # a custom wait may return NaN, which compares as false
            seconds = 0.0
        hint = hint_of(error_of(retry_state))
        if hint is None:
            return seconds
        jitter = hint_spread(hint, self.spread)
        return max(seconds, hint + uniform_of(retry_state)(0.0, jitter))
