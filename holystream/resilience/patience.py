"""How a patient stream waits: for a breaker, for quiet, and for the retry budget.

Nobody waits for such a stream alone, so it is not sent away, as far as its deadline
allows. What it waits for here is leave to send anything: that is no attempt, and counts
against no policy.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from holystream.errors import Phase, Verdict
from holystream.resilience.health import THROTTLED_REST
from holystream.resilience.progress import GiveUp, Wait, hint_spread

if TYPE_CHECKING:
    from holystream.errors import StreamError
    from holystream.resilience.progress import Reason

ASK_AGAIN: Final = 5.0
"""Seconds after which it looks whether somebody has closed the breaker meanwhile."""


def is_told_when(error: StreamError) -> bool:
    """Whether a server refused a request for now, and said for how long."""
    return (
        error.retry_after is not None
        and error.verdict in (Verdict.THROTTLED, Verdict.SERVER_ERROR)
        # What broke an answer off has cost something.
        and error.phase is not Phase.BODY
    )


def until_willing(seconds: float, left: float) -> Wait | GiveUp:
    """Wait for a breaker.

    Args:
        seconds: Until it lets an attempt through by itself.
        left: Seconds until the deadline.
    """
    return _within(left, min(seconds, ASK_AGAIN), "circuit open")


def until_wanted(
    seconds: float | None, left: float, *, share: float, rng: random.Random | None
) -> Wait | GiveUp:
    """Wait until an endpoint wants requests.

    Args:
        seconds: Until its quiet is over; None where it is the retry budget that is
            waited for.
        left: Seconds until the deadline.
        share: That of a hint by which it may be lengthened.
        rng: Where jitter comes from; the generator of `random` if None.
    """
    reason: Reason = "backoff" if seconds is None else "server hint"
    seconds = THROTTLED_REST if seconds is None else seconds
    # As with a hint: not all of them at the same instant.
    uniform = random.uniform if rng is None else rng.uniform
    return _within(left, seconds + uniform(0.0, hint_spread(seconds, share)), reason)


def _within(left: float, delay: float, reason: Reason) -> Wait | GiveUp:
    if left <= 0:
        return GiveUp(reason="the deadline passed")
    return Wait(delay=min(delay, left), reason=reason, attempts_left=None)
