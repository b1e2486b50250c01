"""The seam of a text that goes on: what is new is held until its place is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from holystream.events import Logprobs, Resumed, TextDelta, ToolCall, ToolCallDelta

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holystream.events import Guarantee, StreamEvent


class Rule(Protocol):
    """Decides where the new text joins on to the delivered one."""

    def skip(self, new: str, *, ended: bool) -> int | None:
        """Return how many characters of the new text repeat what was delivered.

        None where more of it has to come first; never if it has ``ended``.

        Raises:
            SeamMismatch: It does not join on.
        """
        ...


class HeldSeam:
    """Lets new text through once its rule knows where it joins on.

    A text that a stop string ends, begun in what was delivered and ended in what is
    new, goes no further: the server cannot have seen it whole.

    Attributes:
        open: It is not known yet where the new text joins on.
        stopped: A stop string ends the answer at the seam.
    """

    def __init__(
        self,
        text: str,
        rule: Rule,
        *,
        strategy: str,
        guarantee: Guarantee,
        stops: Sequence[str] = (),
    ) -> None:
        self._length = len(text)
        self._rule = rule
        self._strategy = strategy
        self._guarantee = guarantee
        self._rests = [
            stop[size:]
            for stop in stops
            for size in range(1, len(stop))
            if text.endswith(stop[:size])
        ]
        self._held: list[TextDelta | Logprobs] = []
        self._new = ""
        self.open = True
        self.stopped = False

    def join(self, events: Sequence[StreamEvent]) -> list[StreamEvent]:
        """Return what of these events is new, with its offsets in the whole text."""
        joined: list[StreamEvent] = []
        for event in events:
            if self.stopped:
                break
            if isinstance(event, TextDelta) or (
                isinstance(event, Logprobs) and event.channel == "text"
            ):
                if self.open:
                    self._held.append(event)
                    if isinstance(event, TextDelta):
                        self._new += event.text
                        joined += self._decide(ended=False)
                else:
                    joined += self._placed([event])
            else:
                if isinstance(event, (ToolCall, ToolCallDelta)):
                    # No text will come before it.
                    joined += self.finish()
                joined.append(event)
        return joined

    def finish(self) -> list[StreamEvent]:
        """Take the end of the new text: what is held belongs to it or not."""
        return self._decide(ended=True) if self.open else []

    def _decide(self, *, ended: bool) -> list[StreamEvent]:
        skipped = self._rule.skip(self._new, ended=ended)
        if skipped is None:
            return []
        rest = self._new[skipped:]
        self.stopped = any(rest.startswith(end) for end in self._rests)
        if not (self.stopped or ended) and any(
            end.startswith(rest) for end in self._rests
        ):
            return []
        self.open = False
        self._skipped = skipped
        resumed = Resumed(
            strategy=self._strategy,
            guarantee=self._guarantee,
            offset=self._length,
            dropped=self._new[:skipped],
        )
        held, self._held = self._held, []
        return [resumed, *([] if self.stopped else self._placed(held))]

    def _placed(self, events: Sequence[TextDelta | Logprobs]) -> list[StreamEvent]:
        """Return events without what was skipped, at their places in the whole text."""
        placed: list[StreamEvent] = []
        for event in events:
            offset = self._length + event.offset - self._skipped
            if isinstance(event, Logprobs):
                if event.offset >= self._skipped:
                    placed.append(msgspec.structs.replace(event, offset=offset))
            elif rest := event.text[max(0, self._skipped - event.offset) :]:
                placed.append(
                    TextDelta(
                        rest,
                        max(offset, self._length),
                        event.index,
                        event.segment,
                        event.raw,
                    )
                )
        return placed
