"""What is left of a stream that another process began and recorded in a journal."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

import msgspec

from holystream.errors import (
    InvalidRequest,
    JournalCorrupt,
    JournalError,
    StreamCancelled,
    StreamError,
    StreamExists,
    StreamFinished,
)
from holystream.events import Failed, Rewound, TextDelta
from holystream.journal import Entries, JournalState, Outcome, refusals
from holystream.journal.codec import decode
from holystream.recovered import (
    NONSENSE,
    Recovered,
    check_provider,
    check_state,
    check_text,
    guarantee_of,
)
from holystream.resume.checkpoint import Checkpoint, Recorded
from holystream.resume.retelling import Retelling

if TYPE_CHECKING:
    from holystream.events import StreamEvent
    from holystream.journal import Claim, Journal, StreamMeta
    from holystream.providers.base import Provider
    from holystream.settings import Recording
    from holystream.transcript import Transcript

_log = logging.getLogger("holystream")


def from_journal(
    journal: Journal,
    stream_id: str,
    provider: Provider,
    *,
    after: int,
    partial_text: str | None,
) -> Recovered:
    """Claim a recorded stream, unless it has ended, and return it.

    Args:
        journal: Where it was recorded.
        stream_id: Its id.
        provider: The one that it must have been begun with.
        after: Code points of its text that the caller has.
        partial_text: That text itself; it may be longer than the recorded one.

    Raises:
        JournalError: It cannot be claimed or read.
        ConfigurationError: It was begun with another provider.
        InvalidRequest: The caller has another text, or more of it than was recorded.
    """
    if partial_text is not None:
        check_text(partial_text)
        if after not in {0, len(partial_text)}:
            raise InvalidRequest(
                f"after={after} and a partial_text= of {len(partial_text)} characters "
                "do not say the same: pass one of them"
            )
    meta = _meta(journal, stream_id)
    # Before it is claimed: whoever can go on with it shall find it free.
    check_provider(Recorded.decode(meta.request).provider, provider)
    claim = None
    try:
        if meta.state is not JournalState.FINISHED:
            claim = journal.claim(stream_id)
    except StreamFinished:
        pass  # by another, meanwhile
    try:
        return _recovered(
            journal, stream_id, claim, provider, _Place(after, partial_text)
        )
    except BaseException:
        let_go(journal, claim)
        raise


def recorded(
    journal: Journal,
    found: Recovered,
    provider: Provider,
    *,
    partial_text: str,
    recording: Recording,
) -> Recovered:
    """Return the recording of a stream whose token was given; itself if there is none.

    Raises:
        StreamExists: The journal has another stream of this id.
        JournalError: It cannot be claimed or read, and the recording matters.
        InvalidRequest: The caller has another text.
    """
    try:
        meta = journal.meta(found.stream_id)
    except JournalError as error:
        if not recording.best_effort:
            raise
        _log.warning("the stream goes on without its journal: %s", error)
        return found
    if meta is None:
        return found
    there = Recorded.decode(meta.request)
    if not there.is_of(found.request, provider=found.provider):
        raise StreamExists(
            f"the journal holds another stream {found.stream_id!r} than the one of the "
            "token: go on with another journal"
        )
    return from_journal(
        journal, found.stream_id, provider, after=0, partial_text=partial_text
    )


def let_go(journal: Journal | None, claim: Claim | None) -> None:
    """Let another claim a stream; if that fails, the claim lapses with its journal."""
    if journal is None or claim is None:
        return
    try:
        journal.release(claim)
    except JournalError as error:
        _log.warning("stream %s stays claimed: %s", claim.stream_id, error)


@dataclasses.dataclass(slots=True, repr=False)
class _Place:
    """Where a caller stands.

    Attributes:
        after: Code points of the text that he has.
        partial_text: That text, if he gave it.
        rest: What of it is not recorded.
        withdrawn: He has yet to be told that his text was withdrawn.
    """

    after: int
    partial_text: str | None
    rest: str = ""
    withdrawn: bool = False

    def find(self, retold: Retelling) -> None:
        """Find it in what was recorded.

        Raises:
            InvalidRequest: It is not there.
        """
        text, length = self.partial_text, retold.transcript.length
        if text is None:
            if self.after and retold.rewound:
                # A length does not say which text it is the length of.
                raise InvalidRequest(
                    "the answer was begun anew while it was recorded: pass the text "
                    "that you have as partial_text=, not its length, or take the whole"
                )
            if self.after > length:
                raise InvalidRequest(
                    f"after={self.after} is beyond the {length} characters that "
                    "were recorded: pass the text that you have as partial_text="
                )
            return
        recorded = retold.transcript.text
        if recorded.startswith(text):
            self.after = len(text)
        elif retold.withdrawn:
            self.after, self.withdrawn = 0, True
        elif text.startswith(recorded):
            self.after, self.rest = len(text), text[length:]
        else:
            raise InvalidRequest(_OTHER_TEXT)


def _recovered(
    journal: Journal,
    stream_id: str,
    claim: Claim | None,
    provider: Provider,
    place: _Place,
) -> Recovered:
    # Again: until it was claimed, its owner could write.
    meta = _meta(journal, stream_id)
    retold = _retold(journal, stream_id, place.partial_text)
    transcript, completion = retold.transcript, retold.completion
    if completion is not None and claim is not None:
        # Its owner died between the last event and the end.
        journal.finish(claim, Outcome.DONE, b"")
        claim = None
    recorded = Recorded.decode(meta.request)
    checkpoint = Checkpoint() if meta.cursor is None else Checkpoint.decode(meta.cursor)
    try:
        check_state(checkpoint, recorded.request, provider)
    except NONSENSE as error:
        raise JournalCorrupt(
            f"where stream {stream_id!r} stood cannot be read: the journal is damaged. "
            "What it holds of the answer can be read with Journal.read()."
        ) from error
    place.find(retold)
    if place.rest:
        if claim is None:
            raise InvalidRequest(_OTHER_TEXT)
        # The recording lags behind what was delivered: the caller's text counts.
        more = TextDelta(place.rest, transcript.length, segment=checkpoint.segment)
        transcript.add([more])
        checkpoint = msgspec.structs.replace(
            checkpoint,
            decoder=b"",
            cursor=None,
            generated=(checkpoint.generated or 0) + 1,
            written=transcript.written,
        )
        journal.append(claim, [more], cursor=checkpoint.encode())
    told: list[StreamEvent] = []
    if place.withdrawn:
        told.append(Rewound(offset=0, discarded=place.partial_text or ""))
    return Recovered(
        stream_id=stream_id,
        provider=recorded.provider,
        request=recorded.request,
        resume=recorded.resume,
        min_guarantee=guarantee_of(recorded.min_guarantee),
        transcript=transcript,
        checkpoint=checkpoint,
        events=[*told, *retold.behind(place.after)],
        claim=claim,
        completion=completion,
        error=None if completion is not None else _error_of(meta, transcript),
    )


def _meta(journal: Journal, stream_id: str) -> StreamMeta:
    meta = journal.meta(stream_id)
    if meta is None:
        raise refusals.unknown(stream_id)
    return meta


def _retold(journal: Journal, stream_id: str, text: str | None) -> Retelling:
    retold = Retelling(text)
    after = 0
    while True:
        reading = journal.read(stream_id, after=after)
        if not isinstance(reading, Entries):
            raise refusals.unknown(stream_id)
        if not reading.events:
            return retold
        retold.add(reading.events)
        after = reading.last_seq


def _error_of(meta: StreamMeta, transcript: Transcript) -> StreamError | None:
    """Return why a stream that has ended without an answer did so."""
    if meta.outcome is None:
        return None
    error = StreamError("the stream failed, and what it failed with was not recorded")
    if meta.outcome is Outcome.CANCELLED:
        error = StreamCancelled("the stream was cancelled, for good")
    elif meta.final:
        for event in decode(meta.final):
            if isinstance(event, Failed):
                error = event.error
    error.partial_text = transcript.text
    error.stream_id = meta.stream_id
    return error


_OTHER_TEXT = (
    "partial_text= is not what was recorded of this stream: pass the text of this one"
)
