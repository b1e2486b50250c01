"""Replay: the same request again; what equals the delivered answer is swallowed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from holystream.events import (
    Guarantee,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    TextDelta,
    ToolCall,
    ToolCallDelta,
)
from holystream.resume.asides import asides
from holystream.resume.base import Continuation, SeamMismatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holystream.events import StreamEvent
    from holystream.resume.asides import Key
    from holystream.resume.base import Trail
    from holystream.transcript import Transcript


class Replay:
    """The same request again; what equals the delivered text is swallowed.

    For requests that give the same answer each time. Every delivered character is
    compared before anything new is let through, tool calls by name and arguments:
    their ids differ from one generation to the next. Reasoning is not compared; where
    it differs, it is told anew once the text has come again.
    """

    name = "replay"
    guarantee = Guarantee.REPLAYED
    keeps = False
    extends = False

    def join(self, trail: Trail) -> Continuation | None:
        """Ask again, if the request gives the same answer each time."""
        if not trail.request.deterministic:
            return None
        return Continuation(request=trail.request, seam=ReplaySeam(trail.transcript))


class ReplaySeam:
    """Lets through what lies behind the delivered text, once all of it came again."""

    def __init__(self, transcript: Transcript) -> None:
        self._expected = dict(transcript.texts)
        self._lengths = {index: len(text) for index, text in self._expected.items()}
        self._calls = {
            (call.index, call.call_index): call for call in transcript.tool_calls
        }
        self._offset = len(transcript.text)
        # What is said beside the text, as delivered and as it comes again.
        self._shown = asides(transcript, delivered=True)
        self._again: dict[Key, list[str]] = {}
        self.open = True
        self.stopped = False

    def join(self, events: Sequence[StreamEvent]) -> list[StreamEvent]:
        """Return what of these events is new, after all that was delivered."""
        new: list[StreamEvent] = []
        for event in events:
            if not self.open or not isinstance(event, (TextDelta, ToolCall)):
                if not self._came_before(event):
                    new.append(event)
            elif isinstance(event, TextDelta):
                rest = self._swallow(event)
                new += self._said_anew(event)
                self._close_if_joined(new)
                if rest is not None:
                    self._check_order(event)
                    new.append(rest)
            else:
                known = self._calls.pop((event.index, event.call_index), None)
                if known is None:
                    self._check_order(event)
                    new.append(event)
                elif not _same_call(known, event):
                    raise SeamMismatch("a tool call differs")
                else:
                    self._close_if_joined(new)
        return new

    def finish(self) -> list[StreamEvent]:
        """Take the end of the answer: by now everything must have come again."""
        if self._expected or self._calls:
            raise SeamMismatch("it ends before the delivered text does")
        new: list[StreamEvent] = []
        self._close_if_joined(new)
        return new

    def _swallow(self, event: TextDelta) -> TextDelta | None:
        """Compare a delta with what was delivered, and return what goes beyond it."""
        expected = self._expected.get(event.index)
        if expected is None:
            return event
        known = expected[event.offset : event.offset + len(event.text)]
        if not event.text.startswith(known):
            raise SeamMismatch("the text differs")
        end = event.offset + len(event.text)
        if end < len(expected):
            return None
        del self._expected[event.index]
        if end == len(expected):
            return None
        return TextDelta(
            event.text[len(known) :],
            len(expected),
            event.index,
            event.segment,
            event.raw,
        )

    def _said_anew(self, event: TextDelta) -> list[StreamEvent]:
        """Return what was said beside a text that has come again, where it differs."""
        if event.index in self._expected:
            return []
        return [
            kind(said, 0, event.index, event.segment)
            for kind in (ReasoningDelta, RefusalDelta)
            if (pieces := self._again.pop((kind, event.index), None))
            and (said := "".join(pieces)) != self._shown.get((kind, event.index), "")
        ]

    def _check_order(self, event: TextDelta | ToolCall) -> None:
        """Refuse what is new in a choice before all that was delivered of it came."""
        if event.index in self._expected or any(
            index == event.index for index, _ in self._calls
        ):
            raise SeamMismatch("it goes on where the delivered answer did not")

    def _close_if_joined(self, new: list[StreamEvent]) -> None:
        if self.open and not self._expected and not self._calls:
            self.open = False
            new.append(
                Resumed(
                    strategy=Replay.name,
                    guarantee=Replay.guarantee,
                    offset=self._offset,
                )
            )

    def _came_before(self, event: StreamEvent) -> bool:
        """Whether the caller has seen the like of this event, before the seam."""
        if isinstance(event, Logprobs):
            # They come behind their delta, which may have closed the seam.
            begun = event.offset < self._lengths.get(event.index, 0)
            return event.index in self._expected or (event.channel == "text" and begun)
        if isinstance(event, (ReasoningDelta, RefusalDelta)):
            held = event.index in self._expected
            if held:
                key = type(event), event.index
                self._again.setdefault(key, []).append(event.text)
            return held
        if isinstance(event, ToolCallDelta):
            return (event.index, event.call_index) in self._calls
        return False


def _same_call(one: ToolCall, other: ToolCall) -> bool:
    """Compare as JSON: Python holds 1, 1.0 and True for equal."""
    return one.name == other.name and json.dumps(
        one.arguments, sort_keys=True
    ) == json.dumps(other.arguments, sort_keys=True)
