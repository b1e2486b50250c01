"""A feed that reconnects: an event stream that is never complete, without I/O.

It decides for its driver what `holystream.exchange.Exchange` decides for an answer:
when to connect again, from where, and when to stop. What was received is not asked for
again; whether the server honours ``Last-Event-ID``, the ids that follow tell.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from holystream.clocks import Deadline, ReadClocks, Timeouts
from holystream.errors import ConnectionLost, StreamError, Verdict
from holystream.events import Connected, Interrupted, Waiting
from holystream.resilience.classify import error_from
from holystream.resilience.progress import GiveUp, Wait
from holystream.resilience.redact import fit_for_an_id, secrets_in_body
from holystream.resilience.retry import RetryPolicy
from holystream.resume.endings import sentence
from holystream.wire.faults import FaultKind
from holystream.wire.sse import ServerSentEvent

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from holystream.wire.faults import Answer, Fault, Refusal

FEED_TIMEOUTS = Timeouts(first_token=60.0, idle=300.0)
"""What a feed waits for, unless it is told otherwise."""
FEED_RETRY = RetryPolicy(attempts=10, total_attempts=None, retry_after_cap=math.inf)
"""When a feed tries again, unless it is told otherwise."""
SETTLED = 5.0
"""Seconds after which a connection that brought nothing counts as progress as well."""

_NO_CONTENT = 204
_REWORDED = (
    (
        "API key: the environment variable {key_variable}, or the argument api_key=",
        "key in headers=: the client's own goes to the origin of its base URL alone",
    ),
    ("Check base_url: it usually ends in /v1.", "Check the URL."),
    ("names the API and not another service", "names an event stream"),
    (" for models that think or queue for long", ""),
    (
        "Raise it for models that pause for longer without a sign of life.",
        "Raise idle= of its timeout=Timeouts(...) where a longer silence is usual.",
    ),
    ("Timeouts.idle={idle:g} s", "{idle:g} s"),
    ("make it the base_url", "ask for it"),
    ("the base URL and", "the URL and"),
    ("base_url", "the URL"),
)
"""Advice for those who ask a model, and what it is for those who follow a feed."""


class Comment(msgspec.Struct, frozen=True):
    """A comment line of the event stream: often a sign of life."""

    text: str


Notice = ServerSentEvent | Comment | Connected | Interrupted | Waiting
"""What a feed tells: its events, its comments, and what happens to its connection."""


class Feed:
    """The state of one reconnecting event stream. Not thread-safe.

    Attributes:
        complete: The server said that there is no more (204).
        error: Why it will not go on, once that is so.
        wait: What to wait for before the next attempt.
        last_event_id: The id to go on from; empty for none.
        reconnection_time: Seconds that the server asked to wait before reconnecting.
        body: What was sent last; a server that repeats it is not quoted.
    """

    failure: Fault | None = None

    def __init__(
        self,
        *,
        stream_id: str,
        endpoint: str,
        timeouts: Timeouts,
        retry: RetryPolicy,
        refusal: Callable[[Answer], Refusal],
        secrets: tuple[str, ...],
        last_event_id: str,
        rng: random.Random | None = None,
    ) -> None:
        self.stream_id = stream_id
        self.deadline = Deadline()
        self.complete = False
        self.error: StreamError | None = None
        self.wait: Wait | None = None
        self.last_event_id = last_event_id
        self.reconnection_time: float | None = None
        self.attempts = 0
        self.body: bytes | None = None
        self._endpoint = endpoint
        self._timeouts = timeouts
        self._policy = retry
        self._refusal = refusal
        self._secrets = secrets
        self._rng = rng
        self._request_id: str | None = None
        self._connected_at: float | None = None

    def start(self, now: float) -> list[Notice]:
        """Begin."""
        self._progress = self._policy.start(now, self._rng)
        return []

    def attempt(self) -> ReadClocks:
        """Begin the next attempt; return its clocks."""
        self.attempts += 1
        self.wait = None
        self._clocks = ReadClocks(self._timeouts, self.deadline)
        return self._clocks

    def connected(
        self,
        request_id: str,
        now: float,
        taken: Callable[[], int | None] | None = None,  # noqa: ARG002 - of the protocol
    ) -> list[Notice]:
        """Take note of an event stream: from now on only silence is bounded."""
        self._clocks.open()
        self._connected_at = now
        self._request_id = request_id = fit_for_an_id(request_id, self._unsaid)
        self._progress.connected(now)
        return [
            Connected(
                endpoint=self._endpoint, attempt=self.attempts, request_id=request_id
            )
        ]

    def receive(self, batch: Sequence[Notice], now: float) -> list[Notice]:
        """Take what one read brought."""
        if any(isinstance(notice, ServerSentEvent) for notice in batch):
            self._progress.progressed(now)
        return list(batch)

    def shut_out(self, error: StreamError, now: float) -> list[Notice]:  # noqa: ARG002 - of the protocol
        """End: a feed has one endpoint, and no breaker."""
        self.error = error
        return []

    def fault(self, fault: Fault, now: float) -> list[Notice]:
        """End the attempt; decide on the next."""
        if self._connected_at is not None and now - self._connected_at >= SETTLED:
            self._progress.progressed(now)
        self._connected_at = None
        if fault.request_id:
            self._request_id = fit_for_an_id(fault.request_id, self._unsaid)
        if fault.kind is FaultKind.STOPPED:
            # Not by cancellation, which the driver sees first: a restart was asked for.
            self.wait = Wait(
                delay=0.0,
                reason="immediate",
                attempts_left=None,
            )
            return []
        if fault.answer is not None and fault.answer.status == _NO_CONTENT:
            self.complete = True
            return []
        error = self._error_of(fault)
        if error.retry_after is None and error.verdict is not Verdict.FATAL:
            error.retry_after = self.reconnection_time
        notices: list[Notice] = [Interrupted(error=error, attempt=self.attempts)]
        decision = self._progress.failed(error, now, self.deadline, reused=fault.reused)
        if isinstance(decision, GiveUp):
            if error.verdict is not Verdict.FATAL:
                error.args = (f"{sentence(error.message)} Gave up: {decision.reason}.",)
                error.exhausted = True
            self.error = error
            return notices
        self.wait = decision
        return [
            *notices,
            Waiting(
                delay=decision.delay,
                reason=decision.reason,
                attempt=self.attempts + 1,
                attempts_left=decision.attempts_left,
            ),
        ]

    def describe(self, error: StreamError) -> StreamError:
        """Tell an error which feed it ended."""
        return error.describe(
            partial_text="",
            stream_id=self.stream_id,
            request_id=self._request_id,
            endpoint=self._endpoint,
            attempts=self.attempts,
        )

    @property
    def _unsaid(self) -> tuple[str, ...]:
        return (*self._secrets, *secrets_in_body(self.body))

    def _error_of(self, fault: Fault) -> StreamError:
        if fault.kind is FaultKind.ENDED:
            error: StreamError = ConnectionLost("the server ended the event stream.")
            error.phase = fault.phase
        else:
            error = error_from(
                fault,
                self._refusal(fault.answer) if fault.answer else None,
                key_variable="",
                timeouts=self._timeouts,
                provider=self._endpoint,
                secrets=self._unsaid,
                reworded=_reworded,
            )
        error.__cause__ = fault.__cause__
        return self.describe(error)


def _reworded(advice: str) -> str:
    for ours, theirs in _REWORDED:
        advice = advice.replace(ours, theirs)
    return advice
