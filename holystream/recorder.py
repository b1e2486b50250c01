"""Writes what a stream hands over into a journal, before it is handed over."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from holystream.errors import (
    Fenced,
    JournalError,
    StreamCancelled,
    StreamError,
    Verdict,
)
from holystream.events import Failed, TextDelta
from holystream.journal import Outcome
from holystream.journal.codec import encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holystream.events import StreamEvent
    from holystream.exchange import Exchange
    from holystream.journal import Claim, Journal
    from holystream.settings import Recording

_log = logging.getLogger("holystream")


class Recorder:
    """Records one stream. Not thread-safe: its driver's own.

    What `record` returned from is stored, unless its recording allows it to lag.

    Args:
        journal: Where.
        recording: How.
        exchange: What is recorded.
        request: The request as the journal keeps it.
        claim: The stream's, if it was recorded before; else it is created.
    """

    def __init__(
        self,
        journal: Journal,
        recording: Recording,
        exchange: Exchange,
        *,
        request: bytes,
        claim: Claim | None = None,
    ) -> None:
        self._journal: Journal | None = journal
        self._recording = recording
        self._exchange = exchange
        self._request = request
        self._claim = claim
        self._held: list[StreamEvent] = []
        self._characters = 0
        self._committed_at = 0.0

    def begin(self, now: float) -> None:
        """Create the stream, before anything is sent.

        Raises:
            JournalError: It cannot be recorded.
        """
        self._committed_at = now
        journal = self._journal
        if journal is None or self._claim is not None:
            return
        try:
            self._claim = journal.create(
                self._exchange.stream_id,
                request=self._request,
                ttl=self._recording.ttl,
            )
        except JournalError as error:
            self._give_up(error)

    def record(self, events: Sequence[StreamEvent], now: float) -> None:
        """Store events that are about to be handed over.

        Raises:
            JournalError: They cannot be stored, and shall not be handed over.
        """
        if self._journal is None or not events:
            return
        recording = self._recording
        self._held += events
        if recording.every or recording.interval:
            self._characters += sum(
                len(event.text) for event in events if isinstance(event, TextDelta)
            )
            if not (
                self._exchange.complete
                or (recording.every and self._characters >= recording.every)
                or (
                    recording.interval
                    and now - self._committed_at >= recording.interval
                )
            ):
                return
            self._committed_at = now
        self._commit()
        if self._exchange.complete:
            self._finish(Outcome.DONE, b"")

    def end(self, error: BaseException | None) -> None:
        """Take the end of the stream: for good, or so that another may go on with it.

        What cannot be stored by now is only logged: the stream ends for another reason.
        """
        if self._claim is None or self._journal is None:
            return
        try:
            self._end(error)
        except JournalError as failure:
            _log.warning("the end of a stream was not recorded: %s", failure)

    def _end(self, error: BaseException | None) -> None:
        if self._held:
            self._commit()
        if isinstance(error, StreamCancelled):
            self._finish(Outcome.CANCELLED, b"")
        elif (
            isinstance(error, StreamError)
            and error.verdict is Verdict.FATAL
            and not self._exchange.transcript.delivered
        ):
            self._finish(Outcome.FAILED, encode([Failed(error=error)]))
        else:
            self.close()

    def close(self) -> None:
        """Let go of the stream as it is: another may go on with it."""
        journal, claim = self._journal, self._claim
        self._journal = self._claim = None
        if journal is not None and claim is not None:
            try:
                journal.release(claim)
            except JournalError as error:
                # Its lock ends with the process at the latest.
                _log.warning("a stream stays claimed: %s", error)

    @property
    def owns(self) -> bool:
        """Whether the stream is claimed."""
        return self._claim is not None

    def _commit(self) -> None:
        journal, claim = self._journal, self._claim
        if journal is None or claim is None:
            return
        held, self._held = self._held, []
        self._characters = 0
        try:
            journal.append(claim, held, cursor=self._exchange.checkpoint().encode())
        except JournalError as error:
            self._give_up(error)

    def _finish(self, outcome: Outcome, final: bytes) -> None:
        journal, claim = self._journal, self._claim
        if journal is None or claim is None:
            return
        try:
            journal.finish(claim, outcome, final)
        except JournalError as error:
            self._give_up(error)
        self._journal = self._claim = None

    def _give_up(self, error: JournalError) -> None:
        """Record no more; without leave to go on so, the stream ends here."""
        self._held.clear()
        # Another process goes on with a stream that was taken over: two must not.
        if not self._recording.best_effort or isinstance(error, Fenced):
            self.close()
            raise error
        _log.warning("the stream goes on without its journal: %s", error)
        self.close()
