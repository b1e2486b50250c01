"""The tenacity state of one stream: what waits, stops and predicates are given."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tenacity import Future, RetryCallState, Retrying

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from tenacity.retry import RetryBaseT
    from tenacity.stop import StopBaseT
    from tenacity.wait import WaitBaseT

    class _Strategies(Protocol):
        """What is used here of `retry.RetryPolicy`, which is above this module."""

        @property
        def wait(self) -> WaitBaseT: ...
        @property
        def stop(self) -> StopBaseT: ...
        @property
        def retry(self) -> RetryBaseT: ...


class StreamRetryState(RetryCallState):
    """The tenacity state of one stream, which every strategy is called with.

    ``attempt_number`` counts the attempts since progress, ``start_time`` is when the
    stream started, ``outcome`` holds the typed error of the attempt that just failed,
    ``upcoming_sleep`` the wait before it, and ``idle_for`` the seconds waited so far.

    Attributes:
        uniform: The stream's own source of randomness.
    """

    def __init__(
        self,
        policy: _Strategies,
        start: float,
        uniform: Callable[[float, float], float],
    ) -> None:
        retrying = Retrying(wait=policy.wait, stop=policy.stop, retry=policy.retry)
        super().__init__(retrying, None, (), {})
        self.start_time = start
        self.uniform = uniform

    def record(self, error: Exception, now: float) -> None:
        """Make ``error`` the outcome of the attempt that ended at ``now``."""
        outcome = Future(self.attempt_number)
        outcome.set_exception(error)
        self.outcome, self.outcome_timestamp = outcome, now


def error_of(retry_state: RetryCallState) -> BaseException | None:
    """Return what the last attempt failed with, if it did."""
    outcome = retry_state.outcome
    return outcome.exception() if outcome is not None and outcome.failed else None


def uniform_of(retry_state: RetryCallState) -> Callable[[float, float], float]:
    """Return where the jitter of this state comes from."""
    if isinstance(retry_state, StreamRetryState):
        return retry_state.uniform
    return random.uniform
