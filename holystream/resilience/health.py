"""How one endpoint has done, and what it would cost to ask it next.

The cost of an endpoint is its time to first token x (streams in flight + 1), the lowest
first. The time is an exponentially weighted moving average (EWMA) of what was measured,
and of what was waited in vain where that is more. An endpoint that is not asked is not
measured, so what is known of it fades: `MEMORY` seconds after the last sample it counts
for 1/e of itself, until the endpoint is cheap enough to be tried once more. One that
was never tried costs nothing. In both cases one stream goes ahead: while it waits for
its first token, the others go by the time as it was last measured, and where there is
none, to whatever has been measured.

Nothing here is thread-safe: the lock of routing.py guards it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Final

from holystream.errors import (
    APIError,
    AuthenticationError,
    CertificateError,
    ModelNotFound,
    NotAnEventStream,
    PermissionDenied,
    Phase,
    QuotaExceeded,
    UnexpectedRedirect,
    Verdict,
)
from holystream.resilience.doubling import doubled

if TYPE_CHECKING:
    from holystream.errors import StreamError
    from holystream.resilience.breaker import CircuitBreaker
    from holystream.resilience.circuit import BreakerStatistics
    from holystream.resilience.endpoints import Endpoint

WEIGHT: Final = 0.2
"""The least weight of a new sample in the average; more after a pause."""

MEMORY: Final = 120.0
"""Seconds in which a sample fades to 1/e."""

REST: Final = 60.0
"""Seconds for which an endpoint rests that cannot serve anybody as it is set up."""

THROTTLED_REST: Final = 1.0
"""Seconds for which one rests that asked for fewer requests, if it did not say."""

LONGEST_REST: Final = 600.0
"""Seconds for which one rests at most, whatever it asked for."""

EJECTED: Final = 60.0
"""Seconds for which a refused credential is not used; doubled each time in a row."""

LONGEST_EJECTED: Final = 3600.0
"""Seconds for which it is not used at most."""

CREDENTIAL_FAULTS: Final = (AuthenticationError, PermissionDenied, QuotaExceeded)
"""What an API says of a key, and not of the host."""

ENDPOINT_FAULTS: Final = (CertificateError, NotAnEventStream, UnexpectedRedirect)
"""Faults of an endpoint that the breaker, which goes by verdicts, does not see."""

WRONG_PATHS: Final = frozenset({404, 405, 501})
"""Statuses of a server that has no API where it was asked for one."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatistics:
    """How an endpoint does and has done since it was made.

    Attributes:
        name: The endpoint's name.
        region: Its region, or None.
        priority: Its tier.
        in_flight: Streams that it is answering.
        ttft: The average time to first token in seconds; None before the first.
        picked: Attempts that were sent its way.
        resting: Seconds for which it is asked only if no other can be.
        ejected: Seconds for which its credential is not used.
        breaker: What its breaker does.
    """

    name: str
    region: str | None
    priority: int
    in_flight: int
    ttft: float | None
    picked: int
    resting: float
    ejected: float
    breaker: BreakerStatistics


class Credential:
    """A key at one origin: refused, or not. Not thread-safe.

    Endpoints that have it in common share it.

    Attributes:
        refusals: Times in a row that it was refused.
        until: The monotonic moment until which it is not used.
    """

    __slots__ = ("refusals", "until")

    def __init__(self) -> None:
        self.refusals = 0
        self.until = -math.inf

    def refused(self, now: float) -> None:
        """Do not use it for a while."""
        if now < self.until:
            return  # by a stream that had been sent before
        self.refusals += 1
        self.until = now + doubled(EJECTED, self.refusals - 1, cap=LONGEST_EJECTED)

    def accepted(self) -> None:
        """Use it again."""
        self.refusals = 0
        self.until = -math.inf


class EndpointHealth:
    """What is known of one endpoint. Not thread-safe.

    Attributes:
        endpoint: The endpoint.
        breaker: Its breaker.
        credential: Its credential.
        in_flight: The serials of assignments that have not ended.
        waiting: Of these, the ones without content so far.
        picked: Assignments in all.
        tried_at: The monotonic moment at which an attempt last ended without content.
        turn: When it was picked last, in the order of all picks.
        resting_until: The monotonic moment until which it goes last.
        quiet_until: The one until which it asked for fewer requests.
        last_failure: How the last attempt that failed did, in a few words.
    """

    __slots__ = (
        "_measured_at",
        "_ttft",
        "breaker",
        "credential",
        "endpoint",
        "in_flight",
        "last_failure",
        "picked",
        "quiet_until",
        "resting_until",
        "tried_at",
        "turn",
        "waiting",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        breaker: CircuitBreaker,
        credential: Credential,
        turn: float,
    ) -> None:
        self.endpoint = endpoint
        self.breaker = breaker
        self.credential = credential
        self.in_flight: set[int] = set()
        self.waiting: set[int] = set()
        self.picked = 0
        self.turn = turn
        self.tried_at = -math.inf
        self.resting_until = -math.inf
        self.quiet_until = -math.inf
        self.last_failure = ""
        self._ttft: float | None = None
        self._measured_at = 0.0

    def cost(self, now: float) -> tuple[float, int, float]:
        """Return a key to sort by, the cheapest first."""
        if self._ttft is None:
            # The next one goes ahead, unless the last one did so in vain.
            ahead = not self.waiting and now - self.tried_at >= MEMORY
            seconds = 0.0 if ahead else math.inf
        else:
            seconds = self._ttft
            if not self.waiting:
                seconds *= math.exp(-max(0.0, now - self._measured_at) / MEMORY)
        in_flight = len(self.in_flight)
        return seconds * (in_flight + 1), in_flight, self.turn

    def took(self, seconds: float, now: float) -> None:
        """Take note of a time to first token."""
        if self._ttft is None:
            self._ttft = seconds
        else:
            pause = max(0.0, now - self._measured_at)
            weight = max(WEIGHT, 1.0 - math.exp(-pause / MEMORY))
            self._ttft += weight * (seconds - self._ttft)
        self._measured_at = now

    def took_in_vain(self, seconds: float, now: float) -> None:
        """Take note of an attempt that ended before its first token.

        It would have taken longer still: that is news if it is more than is known.
        """
        if self._ttft is not None and seconds > self._ttft:
            self.took(seconds, now)

    def failed(self, error: StreamError, now: float) -> None:
        """Draw the conclusions that are not the breaker's."""
        self.last_failure = _in_brief(error, self.endpoint.name)
        if isinstance(error, CREDENTIAL_FAULTS):
            self.credential.refused(now)
        elif serves_nobody(error):
            self._rest(REST, now)
        elif asks_to_wait(error):
            hint = error.retry_after
            until = self._rest(THROTTLED_REST if hint is None else hint, now)
            self.quiet_until = max(self.quiet_until, until)

    def _rest(self, seconds: float, now: float) -> float:
        until = now + min(seconds, LONGEST_REST)
        self.resting_until = max(self.resting_until, until)
        return until

    @property
    def standing(self) -> str:
        """What it is called, the state of its breaker, and what last went wrong."""
        last = f"; last failure: {self.last_failure}" if self.last_failure else ""
        return f"{self.endpoint.name} ({self.breaker.state.value}{last})"

    def statistics(self, breaker: BreakerStatistics, now: float) -> EndpointStatistics:
        """Return what is known, beside the breaker's."""
        return EndpointStatistics(
            name=self.endpoint.name,
            region=self.endpoint.region,
            priority=self.endpoint.priority,
            in_flight=len(self.in_flight),
            ttft=self._ttft,
            picked=self.picked,
            resting=max(0.0, self.resting_until - now),
            ejected=max(0.0, self.credential.until - now),
            breaker=breaker,
        )


def serves_nobody(error: StreamError) -> bool:
    """Whether an endpoint would have said the same to any request."""
    if isinstance(error, ENDPOINT_FAULTS):
        return True
    return (
        isinstance(error, APIError)
        and not isinstance(error, ModelNotFound)
        and error.verdict is Verdict.FATAL
        and error.status in WRONG_PATHS
        # An event of a stream is said by an API.
        and error.phase is not Phase.BODY
    )


def asks_to_wait(error: StreamError) -> bool:
    """Whether an endpoint serves again when it has had its rest."""
    if isinstance(error, CREDENTIAL_FAULTS) or serves_nobody(error):
        return False
    return error.retry_after is not None or error.verdict is Verdict.THROTTLED


def _in_brief(error: StreamError, name: str) -> str:
    """Return what happened, without what to do and without what the server wrote.

    It is told to other streams than the one that met it.
    """
    if isinstance(error, APIError):
        said = "reported an error" if error.status is None else f"status {error.status}"
        return f"{type(error).__name__}, {said}"
    return error.message.removeprefix(f"{name}: ").partition(". ")[0].rstrip(".")
