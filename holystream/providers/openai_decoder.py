"""Makes events of the chunks of an OpenAI-compatible chat stream.

`OpenAIChatDecoder.decode` is the hot path of the package: one call for each read. What
is nothing but text of the first choice, nearly every token, is recognised by msgspec as
it is read; everything else takes `_general`.

What counts as the end: an accepted finish reason for every choice, and no error.
Reading goes on after the first finish reason, because usage follows it and some proxies
send "stop" too early; what content follows needs another one, or ``[DONE]``, which
alone proves nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self

import msgspec

from holystream.errors import Phase
from holystream.events import (
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Usage,
    UsageReport,
)
from holystream.providers.chunks import (
    DONE,
    INDEX_LIMIT,
    UNREADABLE,
    Delta,
    Malformed,
    NamedChunk,
    NotJSON,
    ToolCallPiece,
    parts_of,
    read_leniently,
    read_named,
    read_plain,
    read_text,
)
from holystream.providers.logprobs import Channel, weigh
from holystream.providers.speaker import Speakers
from holystream.providers.surrogates import REPLACEMENT, mend
from holystream.providers.tool_calls import ToolCalls, ToolCallsState
from holystream.providers.usage import read_usage
from holystream.wire.faults import Answer, Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from holystream.events import StreamEvent
    from holystream.providers.chunks import Chunk, ChunkChoice, SpokenChunk
    from holystream.providers.profile import Profile
    from holystream.wire.sse import ServerSentEvent

__all__ = ["OpenAIChatDecoder"]

_CUT_REASONS: Final = frozenset(
    {"length", "max_tokens", "model_length", "content_filter"}
)
"""Finish reasons that say the answer was cut short; a half tool call is part of it."""


class _State(msgspec.Struct, frozen=True, array_like=True):
    """All that a decoder knows, for another process."""

    indexes: dict[str, int]
    lengths: list[dict[int, int]]
    waiting: list[tuple[int, int, int]]
    calls: list[ToolCallsState]
    reasons: dict[int, str]
    finished_at: dict[int, int]
    usage: Usage | None
    model: str | None
    response_id: str | None
    early: bool = False


# Made at the import: msgspec learns a type at its first use, and two threads that meet
# there crash the interpreter.
_read_state = msgspec.msgpack.Decoder(_State).decode


class OpenAIChatDecoder:
    """Decodes the chunks of one connection; see `holystream.providers.base.Decoder`."""

    def __init__(self, profile: Profile, *, choices: int, segment: int) -> None:
        self.failure: Fault | None = None
        self.ended = False
        self.usage: Usage | None = None
        self.model: str | None = None
        self.response_id: str | None = None
        self.taken = 0
        self.torn = False
        self._profile = profile
        self._choices = choices
        self._segment = segment
        self._speakers = Speakers(choices)
        self._read: Callable[[bytes], Chunk] = read_named
        self._only_text = False
        self._read_text: Callable[[bytes], SpokenChunk] = read_text
        # Where one answer was asked for: the index that each part of it came under.
        self._indexes: dict[str, int] = {}
        self._text_lengths: dict[int, int] = {}
        self._lengths: dict[Channel, dict[int, int]] = {
            TextDelta: self._text_lengths,
            ReasoningDelta: {},
            RefusalDelta: {},
        }
        # High surrogates that wait for their partner.
        self._waiting: dict[tuple[Channel, int], str] = {}
        self._calls: dict[int, ToolCalls] = {}
        # The last one that each choice was given.
        self.finish_reasons: dict[int, str] = {}
        # What each choice had said when it was given that.
        self._finished_at: dict[int, int] = {}
        # One was followed by content, and by another one.
        self._early = False

    @property
    def finished(self) -> bool:
        """Every choice has an accepted finish reason, and nothing failed.

        Every choice is as many as were asked for; after the server's own end mark, as
        many as there were.
        """
        reasons = self.finish_reasons
        if not reasons or self.failure is not None or self._waiting:
            return False
        if len(reasons) < self._choices and not self.ended:
            return False
        seen = set(self._calls).union(*self._lengths.values())
        return reasons.keys() >= seen and not any(
            calls.open for calls in self._calls.values()
        )

    def complete(self, *, clean_end: bool) -> bool:
        """Whether the answer is whole if the body ends here, cleanly or cut."""
        if not self.finished:
            return False
        if self._goes_on:
            return self.ended
        early_stop = self._profile.early_stop or self._early
        return self.ended or clean_end or not early_stop

    @property
    def half_call(self) -> bool:
        """Whether a tool call has begun and was not delivered."""
        return any(calls.open for calls in self._calls.values())

    def go_on(self, *, segment: int) -> None:
        """Expect the rest of the same answer, on another connection.

        A tool call that is under way stays in its segment: it does not begin anew.
        """
        self.failure = None
        self.ended = self.torn = False
        self.taken = 0
        self._segment = segment

    def rebase(self, length: int) -> None:
        """Let what follows begin at this offset in the text of the first choice."""
        shift = length - self._text_lengths.get(0, 0)
        if shift:
            self._text_lengths[0] = length
            if 0 in self._finished_at:
                self._finished_at[0] += shift

    def state(self) -> bytes:
        """Return all that it knows, half tool calls included, for another process."""
        channels = list(self._lengths)
        return msgspec.msgpack.encode(
            _State(
                indexes=self._indexes,
                lengths=list(self._lengths.values()),
                waiting=[
                    (channels.index(channel), index, ord(half))
                    for (channel, index), half in self._waiting.items()
                ],
                calls=[calls.state() for calls in self._calls.values()],
                reasons=self.finish_reasons,
                finished_at=self._finished_at,
                usage=self.usage,
                model=self.model,
                response_id=self.response_id,
                early=self._early,
            )
        )

    def restore(self, data: bytes) -> Self:
        """Know what the decoder with this state knew."""
        state = _read_state(data)
        channels = list(self._lengths)
        self._indexes = dict(state.indexes)
        for known, lengths in zip(self._lengths.values(), state.lengths, strict=True):
            known.update(lengths)
        self._waiting = {
            (channels[place], index): chr(half) for place, index, half in state.waiting
        }
        self._calls = {calls.index: ToolCalls.restored(calls) for calls in state.calls}
        self.finish_reasons = dict(state.reasons)
        self._finished_at = dict(state.finished_at)
        self.usage = state.usage
        self.model = state.model
        self.response_id = state.response_id
        self._early = state.early
        return self

    @property
    def _goes_on(self) -> bool:
        """Whether content has followed the last finish reason of a choice."""
        return any(
            self._said(index) > said for index, said in self._finished_at.items()
        )

    def _said(self, index: int) -> int:
        return sum(lengths.get(index, 0) for lengths in self._lengths.values())

    def decode(self, messages: Sequence[ServerSentEvent]) -> list[StreamEvent]:
        """Return the events that these messages bring, in order.

        Nothing is read behind ``[DONE]`` or a failure.
        """
        if self._only_text and len(messages) == 1:
            # The usual, and on its own path: a token waits for all that is done here.
            message = messages[0]
            try:
                text = self._read_text(message.raw).choices[0].delta.content
            except UNREADABLE:
                self._only_text = False
            else:
                if message.event != "error":
                    lengths = self._text_lengths
                    offset = lengths.get(0, 0)
                    lengths[0] = offset + len(text)
                    self.taken = 1
                    return [TextDelta(text, offset, 0, self._segment, message.raw)]
        events: list[StreamEvent] = []
        place = 0
        if self.ended or self.failure is not None:
            self.taken = place
            return events
        while place < len(messages):
            if self._only_text:
                place = self._take_texts(messages, place, events)
                if place == len(messages):
                    break
            before = len(events)
            if not self._general(messages[place], events):
                self.torn = len(events) > before and not self.ended
                place += self.ended
                self._only_text = False
                break
            # The strict reading costs more than the other where it fails: it is worth a
            # try only while text follows text.
            self._only_text = (
                self._read is read_plain
                and not self._waiting
                and len(events) == before + 1
                and type(events[-1]) is TextDelta
                and not self._indexes.get("text")
            )
            place += 1
        self.taken = place
        return events

    def _take_texts(
        self, messages: Sequence[ServerSentEvent], place: int, events: list[StreamEvent]
    ) -> int:
        """Take messages that are text of the first choice and nothing else.

        Returns:
            The place of the first one that is not.
        """
        append = events.append
        read, segment = self._read_text, self._segment
        offset = self._text_lengths.get(0, 0)
        for message in messages[place:]:
            if message.event == "error":
                break
            try:
                text = read(message.raw).choices[0].delta.content
            except UNREADABLE:
                break
            append(TextDelta(text, offset, 0, segment, message.raw))
            offset += len(text)
            place += 1
        if offset:
            self._text_lengths[0] = offset
        return place

    def _general(self, message: ServerSentEvent, events: list[StreamEvent]) -> bool:
        """Take any message, append its events, and return whether to read on."""
        data = message.raw
        chunk: Chunk | None
        try:
            chunk = self._read(data)
        except UNREADABLE:
            chunk = None
        if message.event == "error":
            self._fail_with(data)
            return False
        try:
            if chunk is None or not (chunk.choices or chunk.usage or chunk.error):
                stripped = data.strip()
                if stripped == DONE:
                    self._end(events)
                    return False
                chunk = read_leniently(data) if stripped else None
            if chunk is not None:
                self._take(chunk, data, events)
        except Malformed as error:
            # An event of a type we do not know may hold whatever it likes.
            if not isinstance(error, NotJSON) or message.event in ("", "message"):
                self.failure = Fault(FaultKind.MALFORMED, Phase.BODY, str(error))
        except RecursionError:
            self.failure = Fault(
                FaultKind.MALFORMED, Phase.BODY, "the data is nested too deeply"
            )
        return self.failure is None

    def _take(self, chunk: Chunk, data: bytes, events: list[StreamEvent]) -> None:
        """Take a chunk: first what it adds, then how it ends."""
        choices = chunk.choices or ()
        if isinstance(chunk, NamedChunk):
            self.response_id = self.response_id or chunk.id or None
            self.model = self.model or chunk.model or None
        speakers = self._speakers
        if speakers.wary or b'"role"' in data:
            speakers.meet(chunk, data, self._begun)
            self._read, self._read_text = speakers.read, speakers.read_text
        for choice in choices:
            delta = choice.delta
            if delta is None and choice.message is not None and self._is_new(choice):
                # A server that does not stream: the whole answer in one event.
                delta = choice.message
            elif delta is None and choice.text:
                delta = Delta(content=choice.text)
            index = choice.index = self._index_of(choice, delta)
            if delta is not None:
                # Before their text is: it begins where they do.
                weights = weigh(
                    choice.logprobs, delta, index, self._segment, self._lengths
                )
                self._add(index, delta, data, events)
                events += weights
            self._report(choice.usage, events)
        self._report(chunk.usage, events)
        if chunk.error or any(choice.error for choice in choices):
            self._fail_with(data)
            return
        for choice in choices:
            if choice.finish_reason and self.failure is None:
                self._finish(choice.index or 0, choice.finish_reason, data, events)

    def _begun(self, index: int) -> bool:
        """Whether anything of this answer has come."""
        return bool(
            self._said(index) or index in self._calls or index in self.finish_reasons
        )

    def _index_of(self, choice: ChunkChoice, delta: Delta | None) -> int:
        """Return the number of the answer that a choice adds to.

        Where one answer was asked for, that is 0. Some proxies number its parts: the
        reasoning is 0, the text 1, the calls 2. But two texts are two answers.

        Raises:
            Malformed: There are more answers than were asked for.
        """
        index = choice.index or 0
        many = self._choices > 1
        if not 0 <= index < (self._choices if many else INDEX_LIMIT):
            raise Malformed("the index of a choice is out of range")
        if many:
            return index
        for part in parts_of(choice, delta):
            if self._indexes.setdefault(part, index) != index:
                raise Malformed("two answers came where one was asked for")
        return 0

    def _add(
        self, index: int, delta: Delta, data: bytes, events: list[StreamEvent]
    ) -> None:
        if reasoning := delta.reasoning_content or delta.reasoning:
            self._say(ReasoningDelta, index, reasoning, data, events)
        if delta.content:
            self._say(TextDelta, index, delta.content, data, events)
        if delta.refusal:
            self._say(RefusalDelta, index, delta.refusal, data, events)
        pieces = delta.tool_calls or []
        if delta.function_call is not None:
            pieces = [*pieces, ToolCallPiece(index=0, function=delta.function_call)]
        if pieces:
            calls = self._calls.get(index)
            if calls is None:
                calls = self._calls[index] = ToolCalls(index, self._segment)
            calls.add(pieces, events)

    def _say(
        self,
        channel: Channel,
        index: int,
        text: str,
        data: bytes,
        events: list[StreamEvent],
    ) -> None:
        """Append a delta, holding back half a character at its end."""
        if self._waiting or not text.isascii():
            key = (channel, index)
            text, waiting = mend(self._waiting.pop(key, "") + text)
            if waiting:
                self._waiting[key] = waiting
        if text:
            lengths = self._lengths[channel]
            offset = lengths.get(index, 0)
            events.append(channel(text, offset, index, self._segment, data))
            lengths[index] = offset + len(text)

    def _report(self, report: Any, events: list[StreamEvent]) -> None:
        """Note the usage; counts are cumulative, so a repeated report says nothing."""
        if report is None:
            return
        usage = read_usage(report)
        if usage is not None and usage != self.usage:
            self.usage = usage
            events.append(UsageReport(usage=usage))

    def _finish(
        self, index: int, reason: str, data: bytes, events: list[StreamEvent]
    ) -> None:
        if reason in self._profile.failed_finish_reasons:
            self._fail_with(data, f"finish_reason {reason!r}")
            return
        self._flush([key for key in self._waiting if key[1] == index], data, events)
        if index in self._calls:
            self._calls[index].close(cut=reason in _CUT_REASONS, events=events)
        self.finish_reasons[index] = reason
        said = self._said(index)
        self._early = self._early or said > self._finished_at.get(index, said)
        self._finished_at[index] = said

    def _end(self, events: list[StreamEvent]) -> None:
        self._flush(list(self._waiting), DONE, events)
        self.ended = True

    def _flush(
        self,
        keys: list[tuple[Channel, int]],
        data: bytes,
        events: list[StreamEvent],
    ) -> None:
        """Replace the halves of characters whose partners will not come."""
        for key in keys:
            del self._waiting[key]
            channel, index = key
            self._say(channel, index, REPLACEMENT, data, events)

    def _fail_with(self, data: bytes, detail: str = "") -> None:
        """End with what the server said, for `read_refusal` to read."""
        self.failure = Fault(
            FaultKind.ERROR_EVENT,
            Phase.BODY,
            detail,
            answer=Answer(status=200, headers={}, body=data),
        )

    def _is_new(self, choice: ChunkChoice) -> bool:
        index = 0 if self._choices == 1 else choice.index or 0
        return index not in self._calls and not any(
            index in lengths for lengths in self._lengths.values()
        )
