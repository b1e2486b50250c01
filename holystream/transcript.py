"""What an answer amounts to so far: the fold over its events.

One thread adds events; any thread may read the text while it does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holystream.events import (
    Choice,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holystream.events import StreamEvent

_PIECES = 1280
_RECENT = 256
"""The pieces at the end of a text that are known: more than a few words."""


class TextBuffer:
    """A text that grows by small pieces, in little more memory than its characters."""

    __slots__ = ("_merged", "_pieces", "length")

    def __init__(self) -> None:
        self._pieces: list[str] = []
        # How many at the beginning are not as they came.
        self._merged = 0
        self.length = 0

    def append(self, piece: str) -> None:
        """Add a piece."""
        self._pieces.append(piece)
        self.length += len(piece)
        if len(self._pieces) - self._merged > _PIECES:
            self._merge()

    def extend(self, pieces: Sequence[str]) -> None:
        """Add pieces that came together."""
        self._pieces += pieces
        self.length += sum(map(len, pieces))
        if len(self._pieces) - self._merged > _PIECES:
            self._merge()

    def _merge(self) -> None:
        # A Python string costs some 50 bytes beside its characters. One slice
        # assignment, so that a reader in another thread sees the old or the new.
        merged = "".join(self._pieces[self._merged : -_RECENT])
        self._pieces[self._merged : -_RECENT] = [merged]
        self._merged += 1

    def truncate(self, length: int) -> None:
        """Keep only the first ``length`` characters, if there are more."""
        if length < self.length:
            self._pieces = [self.text[:length]]
            self._merged = 1
            self.length = length

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self._pieces)

    def pieces_behind(self, offset: int) -> int:
        """Return how many of the pieces end behind ``offset``, as far as is known."""
        count, end = 0, self.length
        for piece in reversed(self._pieces[self._merged :]):
            if end <= offset:
                break
            end -= len(piece)
            count += 1
        return count


class _Draft:
    """One choice so far."""

    __slots__ = ("reasoning", "refusal", "text")

    def __init__(self) -> None:
        self.text = TextBuffer()
        self.reasoning = TextBuffer()
        self.refusal = TextBuffer()


class Transcript:
    """The answer so far, all choices of it.

    Attributes:
        extent: How much a caller holds that a second answer could contradict.
        content_events: Deltas of any channel: an estimate of the tokens generated.
    """

    def __init__(self) -> None:
        self._drafts: dict[int, _Draft] = {}
        self._tool_calls: list[ToolCall] = []
        self.content_events = 0
        self._withdrawn = 0
        self.extent = 0

    @property
    def written(self) -> int:
        """Deltas that stand, about as many as the tokens they took."""
        return self.content_events - self._withdrawn

    def add(self, events: Sequence[StreamEvent]) -> bool:
        """Fold events in; return whether any of them brought content."""
        # Nearly always: nothing but text of the only choice.
        pieces = [
            event.text
            for event in events
            if type(event) is TextDelta and event.index == 0
        ]
        if pieces:
            self.add_pieces(pieces)
            if len(pieces) == len(events):
                return True
        return self._add_others(events) or bool(pieces)

    def add_text(self, text: str) -> int:
        """Fold in one piece of text of the first choice; return the new extent."""
        (self._drafts.get(0) or self._draft(0)).text.append(text)
        self.extent += len(text)
        self.content_events += 1
        return self.extent

    def add_pieces(self, pieces: Sequence[str]) -> str:
        """Fold in pieces of text of the first choice; return them joined."""
        text = "".join(pieces)
        self._draft(0).text.extend(pieces)
        self.extent += len(text)
        self.content_events += len(pieces)
        return text

    def _add_others(self, events: Sequence[StreamEvent]) -> bool:
        """Fold in all but the text of the first choice."""
        before = self.content_events
        for event in events:
            if isinstance(event, TextDelta):
                if event.index == 0:
                    continue
                self._draft(event.index).text.append(event.text)
                self.extent += len(event.text)
            elif isinstance(event, ReasoningDelta):
                draft = self._draft(event.index)
                # It cannot be continued: a later segment thinks anew, from its start
                # or from where it had not been shown before.
                draft.reasoning.truncate(event.offset)
                draft.reasoning.append(event.text)
            elif isinstance(event, RefusalDelta):
                draft = self._draft(event.index)
                draft.refusal.truncate(event.offset)
                draft.refusal.append(event.text)
            elif isinstance(event, ToolCall):
                self._tool_calls.append(event)
                self.extent += 1
            elif not isinstance(event, ToolCallDelta):
                continue
            self.content_events += 1
        return self.content_events > before

    def _draft(self, index: int) -> _Draft:
        draft = self._drafts.get(index)
        if draft is None:
            draft = self._drafts[index] = _Draft()
        return draft

    def forget_undelivered(self) -> None:
        """Forget the choices without text: what they thought or refused comes again."""
        self._drafts = {
            index: draft for index, draft in self._drafts.items() if draft.text.length
        }

    def clear(self) -> None:
        """Withdraw everything: the answer is written anew."""
        self._withdrawn = self.content_events
        self._drafts = {}
        self._tool_calls = []
        self.extent = 0

    @property
    def text(self) -> str:
        """The text of the first choice."""
        draft = self._drafts.get(0)
        return draft.text.text if draft else ""

    @property
    def length(self) -> int:
        """Code points in the text of the first choice."""
        draft = self._drafts.get(0)
        return draft.text.length if draft else 0

    def pieces_behind(self, offset: int) -> int:
        """Return how many pieces of the first choice's text end behind ``offset``."""
        draft = self._drafts.get(0)
        return draft.text.pieces_behind(offset) if draft else 0

    @property
    def texts(self) -> Mapping[int, str]:
        """The text of each choice that has any."""
        return {
            index: draft.text.text
            for index, draft in self._drafts.items()
            if draft.text.length
        }

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The whole tool calls of all choices, in the order of their delivery."""
        return tuple(self._tool_calls)

    @property
    def delivered(self) -> bool:
        """Whether a caller holds something that a second answer could contradict."""
        return self.extent > 0

    def choices(self, count: int, finish_reasons: Mapping[int, str]) -> list[Choice]:
        """Return the answers, at least ``count`` of them."""
        indexes = {*range(count), *self._drafts, *finish_reasons}
        return [
            Choice(
                index=index,
                text=draft.text.text,
                reasoning=draft.reasoning.text,
                refusal=draft.refusal.text,
                tool_calls=tuple(
                    call for call in self._tool_calls if call.index == index
                ),
                finish_reason=finish_reasons.get(index),
            )
            for index in sorted(indexes)
            for draft in (self._drafts.get(index) or _Draft(),)
        ]
