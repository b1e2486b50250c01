"""How an answer goes on over a new connection, and the seam between the two.

A strategy decides whether it may join; its `Seam` then stands between the events of
the new connection and the caller, and lets through only what is new. Nothing here
guesses: text is joined where it is proven to be the same answer, or it is withdrawn.

An answer of which nothing was delivered needs no strategy: it is simply asked again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Protocol

from holystream.errors import ConfigurationError
from holystream.events import (
    CONTENT,
    Guarantee,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    Rewound,
    TextDelta,
    ToolCall,
    ToolCallDelta,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holystream.events import StreamEvent
    from holystream.providers.base import ChatRequest
    from holystream.transcript import Transcript

DEFAULT_STRATEGIES: Final = ("replay",)
"""What a stream may do, unless it is told otherwise: nothing that withdraws text."""


class ReplayMismatch(Exception):
    """The regenerated answer is not the one that was delivered."""


class Seam(Protocol):
    """Joins the events of a new connection on to the delivered text.

    Attributes:
        open: The seam is not closed yet: events must still pass through it.
    """

    open: bool

    def join(self, events: Sequence[StreamEvent]) -> list[StreamEvent]:
        """Return what of these events is new to the caller.

        Raises:
            ReplayMismatch: They belong to another answer.
        """
        ...

    def finish(self) -> list[StreamEvent]:
        """Take the end of the answer, and return the events that it adds.

        Raises:
            ReplayMismatch: It ends before all that was delivered came again.
        """
        ...


class ResumeStrategy(Protocol):
    """One way to go on.

    Attributes:
        name: As in ``resume=``.
        guarantee: What a text joined so is worth.
    """

    name: str
    guarantee: Guarantee

    def applies(self, request: ChatRequest, transcript: Transcript) -> bool:
        """Whether this strategy may be used for what was asked and delivered."""
        ...

    def seam(self, transcript: Transcript) -> Seam:
        """Return the seam for the next connection."""
        ...


class Replay:
    """The same request again; what equals the delivered text is swallowed.

    For requests that give the same answer each time. Every delivered character is
    compared before anything new is let through, tool calls by name and arguments:
    their ids differ from one generation to the next.
    """

    name = "replay"
    guarantee = Guarantee.REPLAYED

    def applies(self, request: ChatRequest, transcript: Transcript) -> bool:  # noqa: ARG002 - of the protocol
        """Whether the request gives the same answer each time."""
        return request.deterministic

    def seam(self, transcript: Transcript) -> ReplaySeam:
        """Return a seam that compares with all that was delivered."""
        return ReplaySeam(transcript)


class Restart:
    """The answer is withdrawn and written anew. Opt-in: not every reader can rewind.

    Never after a whole tool call was delivered: it may have been acted upon.
    """

    name = "restart"
    guarantee = Guarantee.RESTARTED

    def applies(self, request: ChatRequest, transcript: Transcript) -> bool:  # noqa: ARG002 - of the protocol
        """Whether all that was delivered is text, which can be withdrawn."""
        return not transcript.tool_calls

    def seam(self, transcript: Transcript) -> RestartSeam:
        """Return a seam that withdraws the text before the first new piece."""
        return RestartSeam(transcript)


STRATEGIES: Final = {strategy.name: strategy for strategy in (Replay(), Restart())}
"""The strategies by the names that ``resume=`` takes."""


def strategies(names: Sequence[str]) -> tuple[ResumeStrategy, ...]:
    """Return the strategies of these names, in order.

    Raises:
        ConfigurationError: A name is unknown, or ``names`` are not several.
    """
    if not isinstance(names, (list, tuple)):
        raise ConfigurationError(
            "resume= takes a tuple of names, such as ('replay',), not "
            f"{type(names).__name__}"
        )
    chosen: list[ResumeStrategy] = []
    for name in names:
        if not isinstance(name, str) or name not in STRATEGIES:
            known = ", ".join(map(repr, STRATEGIES))
            raise ConfigurationError(f"resume={name!r} is unknown: use {known}")
        chosen.append(STRATEGIES[name])
    return tuple(chosen)


class ReplaySeam:
    """Lets through what lies behind the delivered text, once all of it came again."""

    def __init__(self, transcript: Transcript) -> None:
        self._expected = dict(transcript.texts)
        self._lengths = {index: len(text) for index, text in self._expected.items()}
        self._calls = {
            (call.index, call.call_index): call for call in transcript.tool_calls
        }
        self._offset = len(transcript.text)
        self.open = True

    def join(self, events: Sequence[StreamEvent]) -> list[StreamEvent]:
        """Return what of these events is new, after all that was delivered."""
        new: list[StreamEvent] = []
        for event in events:
            if not self.open or not isinstance(event, (TextDelta, ToolCall)):
                if not self._came_before(event):
                    new.append(event)
            elif isinstance(event, TextDelta):
                rest = self._swallow(event)
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
                    raise ReplayMismatch("a tool call differs")
                else:
                    self._close_if_joined(new)
        return new

    def finish(self) -> list[StreamEvent]:
        """Take the end of the answer: by now everything must have come again."""
        if self._expected or self._calls:
            raise ReplayMismatch("it ends before the delivered text does")
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
            raise ReplayMismatch("the text differs")
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

    def _check_order(self, event: TextDelta | ToolCall) -> None:
        """Refuse what is new in a choice before all that was delivered of it came."""
        if event.index in self._expected or any(
            index == event.index for index, _ in self._calls
        ):
            raise ReplayMismatch("it goes on where the delivered answer did not")

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
            return event.index in self._expected
        if isinstance(event, ToolCallDelta):
            return (event.index, event.call_index) in self._calls
        return False


def _same_call(one: ToolCall, other: ToolCall) -> bool:
    """Compare as JSON: Python holds 1, 1.0 and True for equal."""
    return one.name == other.name and json.dumps(
        one.arguments, sort_keys=True
    ) == json.dumps(other.arguments, sort_keys=True)


class RestartSeam:
    """Withdraws the delivered text when, and only when, the first new piece is here."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self.open = True

    def join(self, events: Sequence[StreamEvent]) -> list[StreamEvent]:
        """Return the events, with the withdrawal before the first piece of content."""
        new: list[StreamEvent] = []
        for event in events:
            if self.open and isinstance(event, CONTENT):
                new += self._withdraw()
            new.append(event)
        return new

    def finish(self) -> list[StreamEvent]:
        """Take the end of the answer, which may be one without any content."""
        return self._withdraw() if self.open else []

    def _withdraw(self) -> list[StreamEvent]:
        self.open = False
        discarded = self._transcript.text
        self._transcript.clear()
        return [
            Rewound(offset=0, discarded=discarded),
            Resumed(strategy=Restart.name, guarantee=Restart.guarantee, offset=0),
        ]
