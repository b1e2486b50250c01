"""The account of one stream: what its records say of it, and of each of its attempts.

It takes note of what happens when it happens, and tells the client's telemetry of each
attempt and of the stream when they end, once, on whichever path that is. Whoever tells
may be struck by a signal at any moment: what is due stays so until it was told, and the
next one goes on.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from holystream.telemetry import (
    AttemptRecord,
    StreamRecord,
    due_of_a_stream,
    due_of_an_attempt,
)

if TYPE_CHECKING:
    from holystream.exchange import Exchange
    from holystream.resilience.pool import Priority
    from holystream.telemetry import (
        AttemptOutcome,
        Due,
        StreamOutcome,
        Telemetry,
    )


class Account:
    """Keeps the account of one stream. One thread at a time; any may read ``open``.

    Args:
        exchange: The stream's, which says the rest.
        telemetry: Who is told.
        provider: The provider's name.
        priority: The stream's, in the pool's queue.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        telemetry: Telemetry,
        provider: str,
        priority: Priority,
    ) -> None:
        self._exchange = exchange
        self._telemetry = telemetry
        self._provider = provider
        self._priority = priority
        self._model = exchange.request.model
        # What was not told yet of the stream and of its attempt.
        self._due: Due = {}
        self._attempt_due: Due = {}
        # Of the stream.
        self._opened_at = 0.0
        self._started_at = 0.0
        self._strategies: list[str] = []
        self._recoveries: list[float] = []
        self._broken_at: float | None = None
        self._extent = 0
        self._in_vain = False
        self._queued = 0.0
        # Of the attempt.
        self._number = 0
        self._strategy: str | None = None
        self._began_at: float | None = None
        self._connected_at: float | None = None
        self._content_at: float | None = None
        self._waited: float | None = None
        self._queued_now = 0.0

    @property
    def open(self) -> bool:
        """Whether the stream was opened, and its end was not told yet."""
        return StreamRecord in self._due

    @property
    def content_came(self) -> bool:
        """Whether the last attempt that was chosen has brought content."""
        return self._content_at is not None

    def opened(self, now: float) -> None:
        """Take note that the stream begins, and tell of it."""
        self._opened_at = now
        self._started_at = time.time()
        self._due = due_of_a_stream()
        self._tell_opening()

    def waited(self, seconds: float) -> None:
        """Take note of a wait before the next attempt; there may be more than one."""
        self._waited = seconds + (self._waited or 0.0)

    def queued(self, seconds: float) -> None:
        """Take note of a wait for a permit, in vain or not."""
        self._queued += seconds
        self._queued_now += seconds

    def chosen(self) -> None:
        """Take note that an attempt may follow: if it does, its end is to be told."""
        self._number = self._exchange.attempts + 1
        self._began_at = self._connected_at = self._content_at = None
        # Only now: another endpoint may have been picked since this was decided on.
        self._strategy = self._exchange.strategy
        self._attempt_due = due_of_an_attempt()

    def began(self, now: float) -> None:
        """Take note that the attempt connects."""
        self._began_at = now
        self._in_vain = False
        if self._strategy is not None or self._exchange.attempts > 1:
            self._strategies.append(self._strategy or "retry")

    def connected(self, now: float) -> None:
        """Take note of the headers of the answer."""
        self._connected_at = now

    def first_content(self, now: float) -> float:
        """Take note of it; return the seconds since the attempt began."""
        self._content_at = now
        return _since(self._began_at, now) or 0.0

    def broke_off(self, now: float) -> None:
        """Take note that the text has to go on, or to begin."""
        self._in_vain = self._number > 0 and not self.content_came
        if self._broken_at is None:
            self._broken_at = now
            self._extent = self._exchange.transcript.extent

    def recovers(self, now: float) -> bool:
        """Whether it has yet to go on; if it does so now, take note of that."""
        if self._broken_at is None:
            return False
        if self._exchange.transcript.extent <= self._extent:
            return True
        self._recoveries.append(now - self._broken_at)
        self._broken_at = None
        return False

    def attempt_ended(
        self, outcome: AttemptOutcome, error: BaseException | None, now: float
    ) -> None:
        """Tell of the attempt, if that is due."""
        exchange, began = self._exchange, self._began_at
        if not self._attempt_due or exchange.attempts < self._number:
            # An endpoint was chosen at most: who chose left before it was tried.
            return
        verdict = getattr(error, "verdict", None)
        phase = getattr(error, "phase", None)
        self._telemetry.attempt(
            AttemptRecord(
                stream_id=exchange.stream_id,
                number=exchange.attempts,
                provider=self._provider,
                endpoint=exchange.endpoint,
                model=self._model,
                strategy=self._strategy,
                outcome=outcome,
                error_type=None if error is None else type(error).__name__,
                verdict=None if verdict is None else verdict.name,
                phase=None if phase is None else phase.name,
                queued=self._queued_now,
                connect=_since(began, self._connected_at),
                first_content=_since(began, self._content_at),
                duration=_since(began, now) or 0.0,
                delay=self._waited,
            ),
            self._attempt_due,
        )
        # What comes now is before the next one.
        self._waited, self._queued_now = None, 0.0

    def stream_ended(
        self, outcome: StreamOutcome, error: BaseException | None, now: float
    ) -> None:
        """Tell of the stream, if that is due."""
        if not self.open:
            return
        self._tell_opening()
        exchange = self._exchange
        completion = exchange.completion
        # What the stream ends with, and brought nothing, has interrupted nothing.
        refused = outcome == "error" and self._in_vain
        self._telemetry.stream(
            StreamRecord(
                stream_id=exchange.stream_id,
                provider=self._provider,
                model=self._model,
                response_model=completion.model if completion else None,
                endpoint=exchange.endpoint,
                priority=self._priority,
                outcome=outcome,
                error_type=None if error is None else type(error).__name__,
                attempts=exchange.attempts,
                interruptions=exchange.interruptions - refused,
                strategies=tuple(self._strategies),
                guarantee=completion.guarantee.name if completion else "PARTIAL",
                finish_reason=completion.finish_reason if completion else None,
                queued=self._queued,
                ttft=exchange.ttft,
                duration=max(0.0, now - self._opened_at),
                recoveries=tuple(self._recoveries),
                usage=completion.usage if completion else None,
                total_usage=completion.total_usage if completion else None,
                wasted_tokens=completion.wasted_tokens if completion else 0,
                saved_tokens=completion.saved_tokens if completion else 0,
                request_id=exchange.request_id,
                started_at=self._started_at,
            ),
            self._due,
        )

    def _tell_opening(self) -> None:
        self._telemetry.opened(
            self._provider, self._exchange.endpoint, self._model, self._due
        )


def _since(began: float | None, at: float | None) -> float | None:
    return None if began is None or at is None else max(0.0, at - began)
