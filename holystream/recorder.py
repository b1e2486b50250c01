"""Writes what a stream hands over into a journal, before it is handed over."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Final

from holystream.errors import (
    APIError,
    Fenced,
    JournalError,
    StreamCancelled,
    StreamExists,
    StreamFinished,
    Verdict,
)
from holystream.events import (
    Failed,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from holystream.journal import Outcome
from holystream.journal.codec import encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holystream.events import StreamEvent
    from holystream.exchange import Exchange
    from holystream.journal import Claim, Journal
    from holystream.settings import Recording

_log = logging.getLogger("holystream")

_PIECES: Final = (TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta, Logprobs)
_NEVER_ALONE: Final = (Fenced, StreamExists, StreamFinished)
"""What says that the stream of this id is another's: two must not go on with it."""


class Recorder:
    """Records one stream. Not thread-safe: its driver's own.

    What `record` returned from is stored, unless its recording allows it to lag. Only
    pieces of the first answer lag: the caller can bring them along, as a text. A whole
    tool call, or that a text was withdrawn, he cannot.

    Args:
        journal: Where.
        recording: How.
        exchange: What is recorded.
        request: The request as the journal keeps it.
        claim: The stream's, if it was recorded before; else it is created.
        before: The text that was delivered before it is recorded, and where the
            exchange stood then, if there was any.
    """

    def __init__(
        self,
        journal: Journal,
        recording: Recording,
        exchange: Exchange,
        *,
        request: bytes,
        claim: Claim | None = None,
        before: tuple[str, bytes] | None = None,
    ) -> None:
        self._journal = journal
        self._recording = recording
        self._exchange = exchange
        self._request = request
        self._claim = claim
        self._before = before
        self._records = True
        # The claim could not be given back: the client's next call tries again.
        self._kept = False
        self._held: list[StreamEvent] = []
        # The reads of the exchange whose events were brought here.
        self._folds = exchange.folds
        # Characters of the first answer that are held, and that are stored.
        self._characters = 0
        self._stored = 0
        self._committed_at = 0.0

    def begin(self, now: float) -> None:
        """Create the stream, before anything is sent.

        Raises:
            JournalError: It cannot be recorded.
            StreamCancelled: It was asked to stop while nobody had it.
        """
        self._committed_at = now
        if self._claim is not None:
            self._stored = self._exchange.transcript.length
            self._heed(self._claim)
            return
        try:
            self._claim = self._journal.create(
                self._exchange.stream_id,
                request=self._request,
                ttl=self._recording.ttl,
            )
            if self._before is not None:
                text, cursor = self._before
                events = [TextDelta(text, 0)] if text else []
                self._journal.append(self._claim, events, cursor=cursor)
                self._stored = len(text)
        except JournalError as error:
            self._give_up(error, "Nothing was sent.")

    def record(self, events: Sequence[StreamEvent], now: float) -> None:
        """Store events that are about to be handed over.

        Raises:
            JournalError: They cannot be stored, and shall not be handed over.
            StreamCancelled: They are stored, and somebody asked the stream to stop.
        """
        if not self._records:
            return
        self._held += events
        self._folds = self._exchange.folds
        if not events:
            return
        recording = self._recording
        if recording.every or recording.interval:
            if self._may_lag(events, now):
                return
            self._committed_at = now
        if self._commit() and self._claim is not None:
            if self._exchange.complete:
                self._finish(Outcome.DONE, b"")
            else:
                self._heed(self._claim)

    def end(self, error: BaseException | None) -> None:
        """Take the end of the stream: for good, or so that another may go on with it.

        What cannot be stored by now is only logged: the stream ends for another reason.
        """
        if self._claim is None or self._kept:
            return
        try:
            if self._held:
                self._commit()
        except JournalError as failure:
            _log.warning("the end of a stream was not recorded: %s", failure)
        if isinstance(error, StreamCancelled):
            self._finish(Outcome.CANCELLED, b"")
        elif (
            isinstance(error, APIError)
            and error.verdict is Verdict.FATAL
            and not self._exchange.transcript.delivered
        ):
            self._finish(Outcome.FAILED, encode([Failed(error=error)]))
        else:
            self.close()

    def close(self) -> None:
        """Let go of the stream as it is: another may go on with it.

        A claim that cannot be given back now is kept, for a later call.
        """
        self._records = False
        if self._claim is None:
            return
        try:
            self._journal.release(self._claim)
        except JournalError as error:
            # Each try may take as long as another process holds the lock: not at once.
            self._kept = True
            _log.warning("a stream stays claimed for now: %s", error)
        else:
            self._claim = None

    def drop(self) -> None:
        """Let go of the stream soon; for a finaliser: it takes no lock."""
        claim, self._claim = self._claim, None
        self._records = False
        if claim is not None:
            self._journal.release_later(claim)

    @property
    def owns(self) -> bool:
        """Whether the stream is claimed."""
        return self._claim is not None

    def _heed(self, claim: Claim) -> None:
        """End the stream if it was asked to stop."""
        if claim.stop_requested is not None:
            raise self._exchange.describe(
                StreamCancelled(
                    f"{claim.stop_requested!r} asked the stream to stop: it is "
                    "cancelled, for good. What came is in partial_text and the journal."
                )
            )

    def _may_lag(self, events: Sequence[StreamEvent], now: float) -> bool:
        """Whether what is held may be stored later."""
        for event in events:
            if isinstance(event, TextDelta):
                self._characters += len(event.text)
            if isinstance(event, _PIECES):
                if event.index:
                    return False
            elif not isinstance(event, UsageReport):
                return False
        recording = self._recording
        return not (
            (recording.every and self._characters >= recording.every)
            or (recording.interval and now - self._committed_at >= recording.interval)
        )

    def _commit(self) -> bool:
        """Store what is held; return whether it is stored."""
        if self._claim is None or not self._records:
            return False
        held, self._held = self._held, []
        self._characters = 0
        checkpoint = self._exchange.checkpoint()
        if self._folds != self._exchange.folds:
            # A Ctrl-C has taken the events of a read before they came here.
            checkpoint = checkpoint.without_place()
        try:
            self._journal.append(self._claim, held, cursor=checkpoint.encode())
        except JournalError as error:
            stream_id = self._exchange.stream_id
            kept = (
                f"Of stream {stream_id!r} {self._stored} characters are recorded, and "
                "client.resume() can go on behind them."
            )
            if self._exchange.complete:
                kept += " The whole answer is in the stream's completion."
            self._give_up(error, kept)
            return False
        self._stored = self._exchange.transcript.length
        return True

    def _finish(self, outcome: Outcome, final: bytes) -> None:
        """End it for good; or, if that fails, leave that to whoever resumes it."""
        if self._claim is None:
            return
        try:
            self._journal.finish(self._claim, outcome, final)
        except JournalError as error:
            _log.warning("the end of a stream was not recorded: %s", error)
            self.close()
        else:
            self._claim = None
            self._records = False

    def _give_up(self, error: JournalError, kept: str) -> None:
        """Record no more; without leave to go on so, the stream ends here."""
        self._records = False
        self._held.clear()
        if not self._recording.best_effort or isinstance(error, _NEVER_ALONE):
            self.close()
            # A copy: those who were in one transaction share the error.
            told = copy.copy(error)
            told.args = (f"{str(error).rstrip('.')}. {kept}",)
            raise told from error
        # Still claimed: nobody else shall go on with it while this stream does.
        _log.warning("the stream goes on without its journal: %s", error)
