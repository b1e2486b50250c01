"""Where one stream stands in its attempts: what follows each failure.

`RetryPolicy.start` makes a `RetryProgress` for each stream; whichever thread drives the
stream calls it, one at a time. It decides and sleeps for nobody: the driver carries
out the `Wait`, so that a cancelled sleep never leads to one more attempt.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import random
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from holystream.errors import (
    CircuitOpen,
    ConnectionLost,
    FirstTokenTimeout,
    StreamError,
    Verdict,
)
from holystream.resilience.verdicts import hint_of, verdict_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from holystream.clocks import Deadline

HINT_SPREAD = 0.1
"""A server's hint is lengthened by up to this share of itself: a server that sends
away a thousand callers with ``Retry-After: 30`` should not meet them all again in the
same instant. Retrying earlier than asked would be rude, so it is only added to."""

LEAST_HINT_SPREAD = 3.0
"""Seconds by which a hint is lengthened if its share is less: half a second, for
``Retry-After: 5``, would gather the herd again. A hint is at most doubled by it."""


def hint_spread(hint: float, share: float = HINT_SPREAD) -> float:
    """Return the seconds by which a hint may be lengthened; none without a share."""
    return max(share * hint, min(LEAST_HINT_SPREAD, hint)) if share else 0.0


Reason: TypeAlias = Literal["immediate", "backoff", "server hint", "circuit open"]
"""What decided how long a stream waits."""


class _State(Protocol):
    """What is used here of `retry.StreamRetryState`, a tenacity state."""

    attempt_number: int
    idle_for: float
    upcoming_sleep: float
    outcome: Any

    def record(self, error: Exception, now: float) -> None: ...

    def prepare_for_next_attempt(self) -> None: ...


class _Policy(Protocol):
    """What is used here of `retry.RetryPolicy`, which is above this module."""

    @property
    def attempts(self) -> int: ...
    @property
    def total_attempts(self) -> int | None: ...
    @property
    def first_token_attempts(self) -> int: ...
    @property
    def retry_after_cap(self) -> float: ...
    @property
    def reset_after(self) -> float: ...
    @property
    def counts_attempts(self) -> bool: ...
    @property
    def wait(self) -> Callable[[Any], float]: ...
    @property
    def stop(self) -> Callable[[Any], bool]: ...
    @property
    def retry(self) -> Callable[[Any], bool]: ...
    def state(
        self, start: float, uniform: Callable[[float, float], float]
    ) -> _State: ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Try again in ``delay`` seconds.

    Attributes:
        delay: Seconds from the failure.
        reason: What decided it.
        attempts_left: Attempts that may follow it without progress, or None where a
            custom ``stop`` decides, or where it is not counted.
    """

    delay: float
    reason: Reason
    attempts_left: int | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """Do not try again.

    Attributes:
        reason: Why not, as a clause for a person: "6 attempts without progress".
    """

    reason: str


class RetryProgress:
    """The count of one stream's attempts. Not thread-safe: its driver's own."""

    __slots__ = (
        "_bidden",
        "_bidden_wait",
        "_connected_at",
        "_failures",
        "_first_token_timeouts",
        "_immediate",
        "_policy",
        "_start",
        "_state",
        "_uniform",
    )

    def __init__(
        self, policy: _Policy, start: float, rng: random.Random | None
    ) -> None:
        self._policy = policy
        self._start = start
        self._uniform = random.uniform if rng is None else rng.uniform
        # Made at the first failure: most streams never have one.
        self._state: _State | None = None
        # Attempts that failed in the stream's life, of those that count.
        self._failures = 0
        # Attempts in a row that were answered by when to come back, and not counted;
        # and how long the last of them was waited for.
        self._bidden = 0
        self._bidden_wait = 0.0
        self._first_token_timeouts = 0
        self._immediate: set[Verdict] = set()
        self._connected_at: float | None = None

    def connected(self, now: float) -> None:
        """Note that an attempt has its event stream, for ``reset_after``."""
        self._connected_at = now

    def progressed(self, now: float) -> None:
        """Note that new text arrived: the attempts count from the start again.

        Cheap enough to be called for every batch.
        """
        self._bidden = 0
        self._bidden_wait = 0.0
        state = self._state
        if state is None or state.attempt_number == 1:
            return
        reset_after = self._policy.reset_after
        if reset_after and (
            self._connected_at is None or now - self._connected_at < reset_after
        ):
            return
        state.attempt_number = 1
        state.upcoming_sleep = 0.0
        self._first_token_timeouts = 0
        self._immediate.clear()

    def failed(
        self,
        error: Exception,
        now: float,
        deadline: Deadline,
        *,
        reused: bool = False,
        elsewhere: float = math.inf,
        bidden: bool = False,
    ) -> Wait | GiveUp:
        """Decide what follows a failed attempt.

        Args:
            error: What ended the attempt: its verdict and hint decide.
            now: Monotonic seconds.
            deadline: The stream's deadline; no attempt begins after it.
            reused: The attempt's connection had served an earlier request.
            elsewhere: Seconds until another endpoint takes an attempt. The error's
                hint binds who gave it, and the stream for no longer than that.
            bidden: The server said when to come back, and the stream is patient: that
                is no attempt against the policy.

        Raises:
            Exception: Whatever a custom strategy raises.
        """
        state = self._state
        if state is None:
            state = self._state = self._policy.state(self._start, self._uniform)
        if bidden:
            self._bidden += 1
        else:
            self._failures += 1
        self._connected_at = None
        if isinstance(error, FirstTokenTimeout):
            self._first_token_timeouts += 1
        hint = hint_of(error)
        moves = hint is not None and elsewhere < hint
        if moves and isinstance(error, StreamError):
            error = copy.copy(error)
            error.retry_after = elsewhere or None
        at_once = moves and not elsewhere
        state.record(error, now)
        try:
            if bidden:
                decision = self._come_back(state, error, now, deadline, at_once=at_once)
            else:
                decision = self._decide(
                    state, error, now, deadline, reused=reused, at_once=at_once
                )
        finally:
            # The error's traceback holds the frames of the attempt: let go of it.
            state.outcome = None
        if isinstance(decision, Wait):
            state.idle_for += decision.delay
            if not bidden:
                state.prepare_for_next_attempt()
        return decision

    def _come_back(
        self,
        state: _State,
        error: Exception,
        now: float,
        deadline: Deadline,
        *,
        at_once: bool,
    ) -> Wait | GiveUp:
        """Wait as the server asked; longer each time, for the hint may be next to 0."""
        if refusal := self._refusal(state, error):
            return GiveUp(reason=refusal)
        counted = state.attempt_number, state.upcoming_sleep
        # The wait is to see this row of attempts, and the policy's own are to go on
        # as if there had been none.
        state.attempt_number, state.upcoming_sleep = self._bidden, self._bidden_wait
        try:
            first = at_once and self._bidden == 1
            delay = 0.0 if first else float(self._policy.wait(state))
        finally:
            state.attempt_number, state.upcoming_sleep = counted
        self._bidden_wait = delay
        if now + delay >= deadline.at:
            return GiveUp(reason=_TOO_LATE)
        return Wait(
            delay=delay,
            reason="immediate" if first else _reason(error, delay),
            attempts_left=None,
        )

    def _decide(
        self,
        state: _State,
        error: Exception,
        now: float,
        deadline: Deadline,
        *,
        reused: bool,
        at_once: bool,
    ) -> Wait | GiveUp:
        policy = self._policy
        if refusal := self._refusal(state, error):
            return GiveUp(reason=refusal)
        once = not at_once and self._may_be_immediate(error, reused=reused)
        immediate = at_once or once
        delay = 0.0 if immediate else float(policy.wait(state))
        # As in tenacity, `stop` sees the wait that would come: stop_before_delay.
        state.upcoming_sleep = delay
        if exhausted := self._exhausted(state):
            return GiveUp(reason=exhausted)
        if now + delay >= deadline.at:
            return GiveUp(reason=_TOO_LATE)
        if once:
            self._immediate.add(verdict_of(error))
        return Wait(
            delay=delay,
            reason="immediate" if immediate else _reason(error, delay),
            attempts_left=self._attempts_left(state),
        )

    def _refusal(self, state: _State, error: Exception) -> str | None:
        policy = self._policy
        verdict, hint = verdict_of(error), hint_of(error)
        if verdict is Verdict.CANCELLED:
            return "it was cancelled"
        if (
            hint is not None
            and hint > policy.retry_after_cap
            and verdict is not Verdict.FATAL
            # No server asks for that wait: it is ours, and ends by the deadline.
            and not isinstance(error, CircuitOpen)
        ):
            return (
                f"the server asks to wait {hint:g} s, "
                f"more than retry_after_cap={policy.retry_after_cap:g}"
            )
        if not policy.retry(state):
            if verdict is Verdict.FATAL:
                return "trying again cannot help"
            return "the policy's retry= does not accept this error"
        return None

    def _may_be_immediate(self, error: Exception, *, reused: bool) -> bool:
        verdict = verdict_of(error)
        if hint_of(error) is not None or verdict in self._immediate:
            return False
        if verdict is Verdict.NOT_SENT:
            return True
        # The server closed an idle connection while our request was on its way. It is
        # unlikely to happen twice, and a fresh connection cannot meet it. A timeout on
        # a re-used connection says nothing of the kind.
        return (
            reused
            and verdict is Verdict.NO_ANSWER
            and isinstance(error, ConnectionLost)
        )

    def _exhausted(self, state: _State) -> str | None:
        policy = self._policy
        if self._first_token_timeouts >= policy.first_token_attempts:
            return (
                f"no content in {_attempts(self._first_token_timeouts)}, "
                "each of which may be billed"
            )
        if policy.stop(state):
            if policy.counts_attempts:
                return f"{_attempts(state.attempt_number)} without progress"
            return f"the policy's stop= ends it after {_attempts(self._failures)}"
        total = policy.total_attempts
        if total is not None and self._failures >= total:
            return f"{_attempts(total)} in all"
        return None

    def _attempts_left(self, state: _State) -> int | None:
        policy = self._policy
        if not policy.counts_attempts:
            return None
        left = policy.attempts - state.attempt_number - 1
        if policy.total_attempts is not None:
            left = min(left, policy.total_attempts - self._failures - 1)
        return left


_TOO_LATE = "the next attempt would begin after the deadline"


def _attempts(count: int) -> str:
    return "1 attempt" if count == 1 else f"{count} attempts"


def _reason(error: Exception, delay: float) -> Reason:
    hint = hint_of(error)
    if hint is None or delay > hint + hint_spread(hint):
        return "backoff"
    return "circuit open" if isinstance(error, CircuitOpen) else "server hint"
