"""A circuit breaker as tables: states, transitions, votes; its policy and records.

`TRANSITIONS` is the whole state machine: a signal without a row changes nothing. Each
transition begins a new epoch. `VOTES` says what an attempt that failed has to say about
the health of its endpoint; one that finished votes for it. breaker.py carries this out.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import TYPE_CHECKING, Final

from holystream.clocks import check_seconds
from holystream.errors import ConfigurationError, Verdict
from holystream.resilience.doubling import doubled

if TYPE_CHECKING:
    from collections.abc import Mapping


class BreakerState(enum.Enum):
    """Whether a breaker lets attempts through."""

    CLOSED = "closed"
    """All of them."""
    OPEN = "open"
    """None, for a time, but for those of streams that are under way."""
    HALF_OPEN = "half-open"
    """A few probes, which decide."""
    FORCED_OPEN = "forced open"
    """None, until `CircuitBreaker.reset`."""
    DISABLED = "disabled"
    """All of them, and nobody's vote counts, until `CircuitBreaker.reset`."""


class Signal(enum.Enum):
    """What may change the state of a breaker."""

    TRIPPED = "too many streams in a row failed"
    DUE = "the open time is over"
    PROBE_FAILED = "a probe failed"
    PROBES_ANSWERED = "the probes were answered"
    FORCE_OPEN = "force_open() was called"
    DISABLE = "disable() was called"
    RESET = "reset() was called"


class Vote(enum.Enum):
    """What the end of an attempt says about the health of its endpoint."""

    SUCCESS = "success"
    FAILURE = "failure"
    NONE = "none"


TRANSITIONS: Final[Mapping[tuple[BreakerState, Signal], BreakerState]] = {
    (BreakerState.CLOSED, Signal.TRIPPED): BreakerState.OPEN,
    (BreakerState.OPEN, Signal.DUE): BreakerState.HALF_OPEN,
    (BreakerState.OPEN, Signal.PROBES_ANSWERED): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, Signal.PROBE_FAILED): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, Signal.PROBES_ANSWERED): BreakerState.CLOSED,
    (BreakerState.CLOSED, Signal.FORCE_OPEN): BreakerState.FORCED_OPEN,
    (BreakerState.OPEN, Signal.FORCE_OPEN): BreakerState.FORCED_OPEN,
    (BreakerState.HALF_OPEN, Signal.FORCE_OPEN): BreakerState.FORCED_OPEN,
    (BreakerState.DISABLED, Signal.FORCE_OPEN): BreakerState.FORCED_OPEN,
    (BreakerState.CLOSED, Signal.DISABLE): BreakerState.DISABLED,
    (BreakerState.OPEN, Signal.DISABLE): BreakerState.DISABLED,
    (BreakerState.HALF_OPEN, Signal.DISABLE): BreakerState.DISABLED,
    (BreakerState.FORCED_OPEN, Signal.DISABLE): BreakerState.DISABLED,
    (BreakerState.CLOSED, Signal.RESET): BreakerState.CLOSED,
    (BreakerState.OPEN, Signal.RESET): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, Signal.RESET): BreakerState.CLOSED,
    (BreakerState.FORCED_OPEN, Signal.RESET): BreakerState.CLOSED,
    (BreakerState.DISABLED, Signal.RESET): BreakerState.CLOSED,
}
"""State and signal -> the next state."""

VOTES: Final[Mapping[Verdict, Vote]] = {
    Verdict.NOT_SENT: Vote.FAILURE,
    Verdict.NO_ANSWER: Vote.FAILURE,
    Verdict.INTERRUPTED: Vote.FAILURE,
    Verdict.SERVER_ERROR: Vote.FAILURE,
    # Alive and well, but busy.
    Verdict.THROTTLED: Vote.NONE,
    # It answered: the request, the key or a setting is wrong.
    Verdict.FATAL: Vote.NONE,
    Verdict.CANCELLED: Vote.NONE,
}
"""What a failed attempt votes."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When to leave an endpoint alone, and when to ask it again.

    Attributes:
        failures: Streams that fail in a row, without one that finishes between them,
            until it opens.
        open_for: Seconds that it stays open; twice as long each time a probe fails or
            it opens again before a stream has finished.
        open_cap: Seconds that it stays open at most.
        jitter: Share by which the open time is shortened at random, so that many
            processes do not probe at once.
        probes: Attempts let through while it is half-open; so many answers close it.
        probe_lease: Seconds in which a probe should have been answered. Then another
            is let through; its answer counts all the same.

    Raises:
        ConfigurationError: A value cannot be used; the message names it.
    """

    failures: int = 5
    open_for: float = 60.0
    open_cap: float = 600.0
    jitter: float = 0.1
    probes: int = 1
    probe_lease: float = 60.0

    def __post_init__(self) -> None:
        for name in ("failures", "probes"):
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ConfigurationError(
                    f"BreakerPolicy.{name} must be a whole number, at least 1, not "
                    f"{count!r}"
                )
        for name in ("open_for", "open_cap", "probe_lease"):
            check_seconds(getattr(self, name), f"BreakerPolicy.{name}")
        if self.open_cap < self.open_for:
            raise ConfigurationError(
                f"BreakerPolicy.open_cap ({self.open_cap:g} s) must not be less than "
                f"open_for ({self.open_for:g} s)"
            )
        if isinstance(self.jitter, bool) or not 0.0 <= self.jitter <= 1.0:
            raise ConfigurationError(
                f"BreakerPolicy.jitter must be from 0 to 1, not {self.jitter!r}"
            )

    def seconds_open(self, openings: int) -> float:
        """Return the seconds of the n-th opening in a row, from 1, before jitter."""
        return doubled(self.open_for, openings - 1, cap=self.open_cap)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BreakerChange:
    """One transition of a breaker, as its listener is told.

    Attributes:
        name: The endpoint's name.
        before: The state before it.
        after: The state after it.
        signal: What caused it.
        epoch: Its number in the life of the breaker. Two threads may tell of two
            changes in either order; the numbers say which was first.
        retry_after: Seconds until the first probe, or None where none will follow.
    """

    name: str
    before: BreakerState
    after: BreakerState
    signal: Signal
    epoch: int
    retry_after: float | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BreakerStatistics:
    """What a breaker is doing and has done since it was made.

    Attributes:
        name: The endpoint's name.
        state: Its state.
        failures: Streams that failed in a row.
        probes: Probes that are under way.
        retry_after: Seconds until it lets a new stream through: 0 if it would now, None
            if it will not by itself.
        opened: Times that it opened by itself.
        granted: Tickets that it gave out.
        refused: Attempts that it refused.
        successes: Tickets that voted for the endpoint.
        failed: Tickets that voted against it.
        ignored: Tickets whose end said nothing, or that were lost.
        stale: Tickets that ended after the epoch they were given out in.
        lapsed: Probes whose lease ran out.
    """

    name: str
    state: BreakerState
    failures: int
    probes: int
    retry_after: float | None
    opened: int
    granted: int
    refused: int
    successes: int
    failed: int
    ignored: int
    stale: int
    lapsed: int
