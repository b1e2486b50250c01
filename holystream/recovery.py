"""What is left of a stream that another process began: by its journal or a token."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import msgspec

from holystream.errors import (
    InvalidRequest,
    StreamCancelled,
    StreamError,
    StreamUnknown,
)
from holystream.events import (
    CONTENT,
    Failed,
    Finished,
    Guarantee,
    Logprobs,
    Resumed,
    TextDelta,
    UsageReport,
)
from holystream.journal import Entries, JournalState, Outcome
from holystream.journal.codec import decode
from holystream.providers.chat_request import chat_request
from holystream.resume.checkpoint import Checkpoint, Recorded, folded
from holystream.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holystream.events import Completion, StreamEvent
    from holystream.journal import Claim, Journal, StreamMeta
    from holystream.providers.base import ChatRequest, Provider
    from holystream.providers.chat_request import Messages
    from holystream.resume.token import ResumeToken

_NUMBERS = ("temperature", "top_p", "max_tokens", "seed")
_TOLD = (*CONTENT, Logprobs, Resumed, UsageReport)
"""What is told again of a stream that was recorded."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """A stream as it was left.

    Attributes:
        stream_id: Its id.
        provider: The name of the profile that it was begun with.
        request: What was asked for.
        resume: The names of the ways in which it may go on.
        min_guarantee: The least that it must be worth, or None.
        transcript: What was delivered.
        checkpoint: Where the exchange stood.
        events: What the caller is still to be told of that.
        claim: The right to go on with the recorded stream.
        completion: The answer, if it is complete.
        error: Why no answer will come, if that is so.
    """

    stream_id: str
    provider: str
    request: ChatRequest
    resume: tuple[str, ...]
    min_guarantee: Guarantee | None
    transcript: Transcript
    checkpoint: Checkpoint
    events: list[StreamEvent] = dataclasses.field(default_factory=list)
    claim: Claim | None = None
    completion: Completion | None = None
    error: StreamError | None = None


def from_token(
    token: ResumeToken,
    partial_text: str,
    messages: Messages,
    provider: Provider,
    *,
    stop: str | Sequence[str] | None,
    tools: Sequence[Mapping[str, Any]] | None,
    tool_choice: str | Mapping[str, Any] | None,
    response_format: Mapping[str, Any] | None,
    extra_body: Mapping[str, Any] | None,
) -> Recovered:
    """Return the stream of which this text was delivered.

    Raises:
        ResumeTokenInvalid: The token was made for another request or text.
        InvalidRequest: An argument is wrong.
    """
    profile = provider.profile
    spellings = profile.for_model(token.model).spellings
    spelled = {said: name for name, said in spellings.items()}
    numbers: dict[str, Any] = {
        spelled.get(name, name): value for name, value in token.numbers.items()
    }
    request = chat_request(
        messages,
        profile=profile,
        model=token.model,
        stop=stop,
        tools=tools,
        tool_choice=tool_choice,
        response_format=response_format,
        extra_body=extra_body,
        deterministic=token.deterministic,
        **{name: numbers.get(name) for name in _NUMBERS},
    )
    token.check(request, partial_text)
    transcript = Transcript()
    if partial_text:
        transcript.add([TextDelta(partial_text, 0)])
    return Recovered(
        stream_id=token.stream_id,
        provider=token.provider,
        request=request,
        resume=token.resume,
        min_guarantee=_guarantee(token.min_guarantee),
        transcript=transcript,
        checkpoint=Checkpoint.decode(token.checkpoint),
    )


def from_journal(
    journal: Journal, stream_id: str, *, after: int, partial_text: str | None
) -> Recovered:
    """Claim a recorded stream, unless it has ended, and return it.

    Args:
        journal: Where it was recorded.
        stream_id: Its id.
        after: Code points of its text that the caller has.
        partial_text: That text itself; it may be longer than the recorded one.

    Raises:
        JournalError: It cannot be claimed or read.
        InvalidRequest: The caller has another text, or more of it than was recorded.
    """
    meta = journal.meta(stream_id)
    if meta is None:
        raise _unknown(stream_id)
    claim = None if meta.state is JournalState.FINISHED else journal.claim(stream_id)
    try:
        return _recovered(journal, stream_id, claim, after, partial_text)
    except BaseException:
        if claim is not None:
            journal.release(claim)
        raise


def _recovered(
    journal: Journal,
    stream_id: str,
    claim: Claim | None,
    after: int,
    partial_text: str | None,
) -> Recovered:
    # Again: until it was claimed, its owner could write.
    meta = journal.meta(stream_id)
    if meta is None:
        raise _unknown(stream_id)
    transcript, standing = folded(_read(journal, stream_id))
    last = standing[-1] if standing else None
    completion = last.completion if isinstance(last, Finished) else None
    if completion is not None and claim is not None:
        # Its owner died between the last event and the end.
        journal.finish(claim, Outcome.DONE, b"")
        claim = None
    checkpoint = Checkpoint() if meta.cursor is None else Checkpoint.decode(meta.cursor)
    if partial_text is not None:
        after = len(partial_text)
        rest = _beyond(partial_text, transcript.text)
        if rest:
            if claim is None:
                raise InvalidRequest(_OTHER_TEXT)
            # The recording lags behind what was delivered: the caller's text counts.
            more = TextDelta(rest, transcript.length, segment=checkpoint.segment)
            transcript.add([more])
            checkpoint = msgspec.structs.replace(checkpoint, decoder=b"", cursor=None)
            journal.append(claim, [more], cursor=checkpoint.encode())
    elif after > transcript.length:
        raise InvalidRequest(
            f"after={after} is beyond the {transcript.length} characters that were "
            "recorded: pass the text that you have as partial_text="
        )
    recorded = Recorded.decode(meta.request)
    return Recovered(
        stream_id=stream_id,
        provider=recorded.provider,
        request=recorded.request,
        resume=recorded.resume,
        min_guarantee=_guarantee(recorded.min_guarantee),
        transcript=transcript,
        checkpoint=checkpoint,
        events=_told(standing, after),
        claim=claim,
        completion=completion,
        error=None if completion is not None else _error_of(meta),
    )


def _read(journal: Journal, stream_id: str) -> list[StreamEvent]:
    events: list[StreamEvent] = []
    after = 0
    while True:
        reading = journal.read(stream_id, after=after)
        if not isinstance(reading, Entries):
            raise _unknown(stream_id)
        if not reading.events:
            return events
        events += reading.events
        after = reading.last_seq


def _beyond(partial_text: str, recorded: str) -> str:
    """Return what the caller has beyond what was recorded."""
    if partial_text.startswith(recorded):
        return partial_text[len(recorded) :]
    if recorded.startswith(partial_text):
        return ""
    raise InvalidRequest(_OTHER_TEXT)


def _told(events: Sequence[StreamEvent], after: int) -> list[StreamEvent]:
    """Return what is behind the caller's text."""
    told: list[StreamEvent] = []
    for event in events:
        if isinstance(event, TextDelta) and event.index == 0:
            if event.offset + len(event.text) > after:
                known = max(0, after - event.offset)
                told.append(
                    TextDelta(
                        event.text[known:],
                        event.offset + known,
                        event.index,
                        event.segment,
                        event.raw,
                    )
                )
        elif isinstance(event, (*_TOLD, Finished)):
            told.append(event)
    return told


def _error_of(meta: StreamMeta) -> StreamError | None:
    if meta.outcome is Outcome.CANCELLED:
        return StreamCancelled("the stream was cancelled, for good")
    if meta.outcome is Outcome.FAILED and meta.final:
        for event in decode(meta.final):
            if isinstance(event, Failed):
                return event.error
    return None


def _guarantee(level: int | None) -> Guarantee | None:
    return None if level is None else Guarantee(level)


def _unknown(stream_id: str) -> StreamUnknown:
    return StreamUnknown(
        f"the journal has no stream {stream_id!r}: it was never recorded there, or its "
        "time was over"
    )


_OTHER_TEXT = (
    "partial_text= is not what was recorded of this stream: pass the text of this one"
)
