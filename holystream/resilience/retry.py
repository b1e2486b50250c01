"""How often and how soon a stream tries again, in tenacity's vocabulary.

A `RetryPolicy` is a value, shared by every stream of a client. Its ``wait``, ``stop``
and ``retry`` are tenacity objects: they work in ``tenacity.Retrying`` as they are, and
any other tenacity object may stand in their place. The loop is ours, because tenacity
keeps its own in thread-locals and cannot carry an answer over from one attempt to the
next: it asks the stream's own `RetryProgress` (progress.py) what follows a failure.

Invariants: what was cancelled is never tried again; progress, which is new text, sets
the count of attempts back, and nothing else does; no wait is shorter than the server
asked for, and none ends after the deadline.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from tenacity.retry import RetryBaseT, retry_base
from tenacity.stop import StopBaseT, stop_base
from tenacity.wait import WaitBaseT  # noqa: TC002 - the type of a field

from holystream.clocks import check_seconds
from holystream.errors import CircuitOpen, ConfigurationError, Verdict
from holystream.resilience.backoff import (
    AdditiveJitter,
    AtLeastServerHint,
    Backoff,
    DecorrelatedJitter,
    EqualJitter,
    FullJitter,
    NoJitter,
    PlusMinusJitter,
)
from holystream.resilience.progress import HINT_SPREAD, GiveUp, RetryProgress, Wait
from holystream.resilience.retry_state import StreamRetryState, error_of
from holystream.resilience.verdicts import hint_of, verdict_of

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tenacity import RetryCallState

__all__ = [
    "AdditiveJitter",
    "AtLeastServerHint",
    "Backoff",
    "DecorrelatedJitter",
    "EqualJitter",
    "FullJitter",
    "GiveUp",
    "JitterName",
    "NoJitter",
    "PlusMinusJitter",
    "RetryPolicy",
    "RetryProgress",
    "StreamRetryState",
    "Wait",
]

JitterName: TypeAlias = Literal[
    "full", "equal", "decorrelated", "plusminus", "additive"
]
"""The names that ``RetryPolicy(jitter=...)`` takes, besides None."""


# The three strategies that a policy makes from its own numbers. Their types tell them
# from custom ones, so that dataclasses.replace(policy, attempts=3) makes them anew.
@dataclasses.dataclass(frozen=True, slots=True)
class _PolicyWait(AtLeastServerHint):
    """The wait that a policy's ``jitter``, ``base`` and ``cap`` describe."""


@dataclasses.dataclass(frozen=True, slots=True)
class _PolicyStop(stop_base):
    """Stops once ``attempts`` failed."""

    attempts: int

    def __call__(self, retry_state: RetryCallState) -> bool:
        return retry_state.attempt_number >= self.attempts


@dataclasses.dataclass(frozen=True, slots=True)
class _PolicyRetry(retry_base):
    """Retries by verdict, unless the server wants us gone for long.

    A positive list: KeyboardInterrupt, GeneratorExit and every exception that is
    neither a `StreamError` nor an error of the network are let through.
    """

    retry_after_cap: float
    hopeless: ClassVar[frozenset[Verdict]] = frozenset(
        {Verdict.FATAL, Verdict.CANCELLED}
    )

    def __call__(self, retry_state: RetryCallState) -> bool:
        error = error_of(retry_state)
        return (
            error is not None
            and verdict_of(error) not in self.hopeless
            and (
                isinstance(error, CircuitOpen)
                or (hint_of(error) or 0.0) <= self.retry_after_cap
            )
        )


_WAIT = _PolicyWait(FullJitter())
_STOP = _PolicyStop(6)
_RETRY = _PolicyRetry(60.0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to try again, and when to give up.

    Attributes:
        attempts: Attempts in a row that may fail without new text. With the default a
            stream gives up after 8 s of an outage, on average; with twelve, 999 of 1000
            outlive 30 s. docs/backoff.md has the numbers.
        total_attempts: Attempts in the life of one stream, whatever progress they
            made; None for any number.
        base: Seconds that the first wait is made from.
        cap: Seconds that the exponential never exceeds, before its jitter.
        jitter: "full", "equal", "decorrelated", "plusminus", "additive" or None; the
            formulas are those of `FullJitter`, `EqualJitter`, `DecorrelatedJitter`,
            `PlusMinusJitter`, `AdditiveJitter` and `NoJitter`.
        jitter_ratio: The share for "plusminus" and "additive"; 0.25 and 0.3 are in
            common use.
        retry_after_cap: Seconds. A server that asks for a longer wait ends the stream
            at once, with the hint in the error's ``retry_after``; ``inf`` for never.
            For an open breaker a stream with text waits longer than that, too.
        reset_after: Seconds that a connection must have lived before its progress
            sets the count of attempts back.
        first_token_attempts: Attempts that may end with `FirstTokenTimeout` without
            new text. Few, because each of them is billed.
        wait: A tenacity wait in place of ``jitter``, ``base`` and ``cap``. It is
            raised to the server's hint all the same.
        stop: A tenacity stop in place of ``attempts``. ``total_attempts``,
            ``first_token_attempts`` and the deadline hold all the same, for a stop
            sees only the attempts since progress.
        retry: A tenacity predicate in place of ours, which is: a `StreamError` whose
            verdict is neither FATAL nor CANCELLED, or an error of the network that
            another library raised. A cancelled stream is not tried again whatever it
            says.

    The first attempt after one that sent nothing is made at once, and so is the first
    after a re-used connection broke without an answer; ``wait`` rules the others.

    Raises:
        ConfigurationError: A value cannot be used; the message names it.
    """

    attempts: int = 6
    total_attempts: int | None = 50
    base: float = 0.5
    cap: float = 30.0
    jitter: JitterName | None = "full"
    jitter_ratio: float = 0.25
    retry_after_cap: float = 60.0
    reset_after: float = 0.0
    first_token_attempts: int = 2
    wait: WaitBaseT = _WAIT
    stop: StopBaseT = _STOP
    retry: RetryBaseT = _RETRY

    def __post_init__(self) -> None:
        _check_count(self.attempts, "attempts")
        if self.total_attempts is not None:
            _check_count(self.total_attempts, "total_attempts")
        _check_count(self.first_token_attempts, "first_token_attempts")
        check_seconds(self.base, "RetryPolicy.base")
        check_seconds(self.cap, "RetryPolicy.cap")
        if self.cap < self.base:
            raise ConfigurationError(
                f"RetryPolicy.cap ({self.cap:g} s) must not be less than "
                f"base ({self.base:g} s)"
            )
        if self.retry_after_cap != math.inf:
            check_seconds(self.retry_after_cap, "RetryPolicy.retry_after_cap")
        if self.reset_after != 0.0:
            check_seconds(self.reset_after, "RetryPolicy.reset_after")
        if not 0.0 <= self.jitter_ratio <= 1.0:
            raise ConfigurationError(
                f"RetryPolicy.jitter_ratio must be from 0 to 1, not "
                f"{self.jitter_ratio!r}"
            )
        for name in ("wait", "stop", "retry"):
            strategy = getattr(self, name)
            if not callable(strategy) or isinstance(strategy, type):
                raise ConfigurationError(
                    f"RetryPolicy.{name} must be a tenacity {name} object, such as "
                    f"tenacity.{_EXAMPLES[name]}, not {strategy!r}"
                )
        self._make_strategies()

    def _make_strategies(self) -> None:
        backoff = _backoff(self)
        spread = self.hint_share
        wait: AtLeastServerHint
        if isinstance(self.wait, _PolicyWait):
            wait = _PolicyWait(backoff, spread)
        elif isinstance(self.wait, AtLeastServerHint):
            wait = AtLeastServerHint(self.wait.backoff, spread)
        else:
            wait = AtLeastServerHint(self.wait, spread)
        object.__setattr__(self, "wait", wait)
        if isinstance(self.stop, _PolicyStop):
            object.__setattr__(self, "stop", _PolicyStop(self.attempts))
        if isinstance(self.retry, _PolicyRetry):
            object.__setattr__(self, "retry", _PolicyRetry(self.retry_after_cap))

    def start(self, now: float, rng: random.Random | None = None) -> RetryProgress:
        """Begin to count for a stream that starts at ``now``, in monotonic seconds.

        ``rng`` makes its jitter repeatable; without one the module's generator of
        `random` serves, which is seeded anew in a forked child.
        """
        return RetryProgress(self, now, rng)

    def state(
        self, start: float, uniform: Callable[[float, float], float]
    ) -> StreamRetryState:
        """Return a fresh tenacity state, which the three strategies can be given."""
        return StreamRetryState(self, start, uniform)

    @property
    def hint_share(self) -> float:
        """The share of a server's hint by which it is lengthened; 0 for not at all."""
        return 0.0 if self.jitter is None else HINT_SPREAD

    @property
    def counts_attempts(self) -> bool:
        """Whether ``stop`` is ours, so that the attempts left are known."""
        return isinstance(self.stop, _PolicyStop)


_EXAMPLES = {
    "wait": "wait_fixed(1)",
    "stop": "stop_after_delay(60)",
    "retry": "retry_if_exception_type(RateLimited)",
}


def _backoff(policy: RetryPolicy) -> Backoff:
    base, cap, ratio = policy.base, policy.cap, policy.jitter_ratio
    match policy.jitter:
        case "full":
            return FullJitter(base=base, cap=cap)
        case "equal":
            return EqualJitter(base=base, cap=cap)
        case "decorrelated":
            return DecorrelatedJitter(base=base, cap=cap)
        case "plusminus":
            return PlusMinusJitter(base=base, cap=cap, ratio=ratio)
        case "additive":
            return AdditiveJitter(base=base, cap=cap, ratio=ratio)
        case None:
            return NoJitter(base=base, cap=cap)
    raise ConfigurationError(
        "RetryPolicy.jitter must be 'full', 'equal', 'decorrelated', 'plusminus', "
        f"'additive' or None, not {policy.jitter!r}"
    )


def _check_count(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(
            f"RetryPolicy.{name} must be a whole number, at least 1, not {value!r}"
        )
