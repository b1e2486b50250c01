"""Tool calls, from pieces to whole ones.

A call is delivered once: when the next call of its choice has begun or the choice has
ended, and its arguments are JSON. Nothing is repaired. Calls are delivered in order.

Servers disagree about how the pieces of a call are tied together:

- OpenAI gives every piece an index, and the first one an id and a name.
- Gemini's compatible API leaves the index out, or gives every call of a turn the
  index 0 and an id of its own.
- vLLM had releases in which every piece carries a new random id, and only the first
  a name.

So the index leads, then the id, then the last call; and what begins another call under
a known index is a name with another id.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Self

import msgspec

from holystream.events import ToolCall, ToolCallDelta
from holystream.providers.chunks import INDEX_LIMIT, Malformed
from holystream.providers.json_end import JSONEnd
from holystream.providers.surrogates import REPLACEMENT, mend, mend_whole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holystream.events import StreamEvent
    from holystream.providers.chunks import ToolCallPiece

__all__ = ["ToolCalls", "ToolCallsState"]


class CallState(msgspec.Struct, frozen=True, array_like=True):
    """What is known of one call."""

    id: str
    name: str
    arguments: str
    waiting: int


class ToolCallsState(msgspec.Struct, frozen=True, array_like=True):
    """What is known of the calls of one choice, for another process."""

    index: int
    segment: int
    calls: list[CallState]
    by_index: dict[int, int]
    closed: int


class _Call:
    """One call on its way."""

    __slots__ = ("_end", "_whole", "id", "name", "pieces", "place", "waiting")

    def __init__(self, place: int) -> None:
        self.place = place
        self.id = ""
        self.name = ""
        self.pieces: list[str] = []
        # A high surrogate whose partner is in the next piece.
        self.waiting = ""
        self._end = JSONEnd()
        # What the parser said of the arguments, which is asked once.
        self._whole: bool | None = None

    def append(self, piece: str) -> None:
        """Add to the arguments."""
        self.pieces.append(piece)
        self._end.feed(piece)

    @property
    def arguments(self) -> str:
        """All that has come of the arguments."""
        return "".join(self.pieces) + (REPLACEMENT if self.waiting else "")

    def is_whole(self) -> bool:
        """Whether the arguments, as they stand, are a JSON object or array."""
        if not self._end.reached or self.waiting:
            return False
        if self._whole is None:
            try:
                json.loads(self.arguments)
                self._whole = True
            except (ValueError, RecursionError):
                self._whole = False
        return self._whole


class ToolCalls:
    """The tool calls of one choice on one connection."""

    def __init__(self, index: int, segment: int) -> None:
        self._index = index
        self._segment = segment
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        # The first call with each id.
        self._by_id: dict[str, _Call] = {}
        # Calls before this place are delivered, or given up by a cut answer.
        self._closed = 0

    @property
    def open(self) -> bool:
        """Whether a call has begun and was not delivered."""
        return self._closed < len(self._calls)

    def state(self) -> ToolCallsState:
        """Return all that is known."""
        return ToolCallsState(
            index=self._index,
            segment=self._segment,
            calls=[
                CallState(
                    id=call.id,
                    name=call.name,
                    arguments="".join(call.pieces),
                    # Half a character is no text that could be encoded.
                    waiting=ord(call.waiting) if call.waiting else 0,
                )
                for call in self._calls
            ],
            by_index={index: call.place for index, call in self._by_index.items()},
            closed=self._closed,
        )

    @classmethod
    def restored(cls, state: ToolCallsState) -> Self:
        """Return the calls that had this state."""
        calls = cls(state.index, state.segment)
        for place, known in enumerate(state.calls):
            call = _Call(place)
            call.id, call.name = known.id, known.name
            if known.arguments:
                call.append(known.arguments)
            call.waiting = chr(known.waiting) if known.waiting else ""
            calls._calls.append(call)
            calls._by_id.setdefault(call.id, call)
        calls._by_index = {
            index: calls._calls[place] for index, place in state.by_index.items()
        }
        calls._closed = state.closed
        return calls

    def add(self, pieces: Iterable[ToolCallPiece], events: list[StreamEvent]) -> None:
        """Take the pieces of one chunk; append the events they make.

        Raises:
            Malformed: A piece belongs to a call that was delivered as whole, or to none
                that there can be.
        """
        for piece in pieces:
            function = piece.function
            name = (function.name if function else None) or ""
            arguments = (function.arguments if function else None) or ""
            known = len(self._calls)
            call = self._find(piece, name, arguments)
            if call.place < self._closed:
                if arguments:
                    raise Malformed(f"tool call {call.place} goes on after its end")
                continue
            call.id = call.id or piece.id or ""
            self._by_id.setdefault(call.id, call)
            call.name = call.name or name
            arguments, call.waiting = mend(call.waiting + arguments)
            begun = call.place == known
            if begun:
                self._deliver(known, events)
            if arguments:
                call.append(arguments)
            if arguments or begun:
                events.append(
                    ToolCallDelta(
                        call_index=call.place,
                        id=call.id,
                        name=call.name,
                        arguments=arguments,
                        index=self._index,
                        segment=self._segment,
                    )
                )

    def close(self, *, cut: bool, events: list[StreamEvent]) -> None:
        """End all calls: the choice has its finish reason.

        Args:
            cut: The reason says that the answer was cut short; then a half call is part
                of the answer's end and is left out.
            events: Where the whole calls are appended.

        Raises:
            Malformed: The arguments of a call are not JSON, or it has no name.
        """
        self._deliver(len(self._calls), events)
        while self.open:
            call = self._calls[self._closed]
            if cut:
                self._closed += 1
            elif not call.name:
                raise Malformed(f"tool call {self._closed} has no name")
            else:
                text = call.arguments
                self._append(call, text if text.strip() else "{}", events)
            self._deliver(len(self._calls), events)

    def _find(self, piece: ToolCallPiece, name: str, arguments: str) -> _Call:
        """Return the call that a piece belongs to, a new one if it begins one."""
        if piece.index is not None:
            if abs(piece.index) >= INDEX_LIMIT:
                raise Malformed("the index of a tool call is out of range")
            call = self._by_index.get(piece.index)
        else:
            call = self._by_id.get(piece.id) if piece.id else None
            call = call or (self._calls[-1] if self._calls else None)
        if call is None or _begins_another(call, piece.id or "", name, arguments):
            call = _Call(len(self._calls))
            self._calls.append(call)
            if piece.index is not None:
                self._by_index[piece.index] = call
        return call

    def _deliver(self, end: int, events: list[StreamEvent]) -> None:
        """Deliver the whole calls before place ``end``, up to the first half one.

        A call without arguments yet is none of them: servers exist that announce all
        calls first.
        """
        while self._closed < end:
            call = self._calls[self._closed]
            if not call.name or not call.is_whole():
                return
            self._append(call, call.arguments, events)

    def _append(self, call: _Call, text: str, events: list[StreamEvent]) -> None:
        try:
            arguments = json.loads(text)
            if "\\u" in text:
                arguments = _mend_all(arguments)
        except (ValueError, RecursionError):
            # Not chained: a JSONDecodeError holds the whole text.
            raise Malformed(
                f"the arguments of tool call {self._closed} are not JSON"
            ) from None
        events.append(
            ToolCall(
                call_index=self._closed,
                id=call.id,
                name=call.name,
                arguments=arguments,
                arguments_json=text,
                index=self._index,
            )
        )
        self._closed += 1


def _begins_another(call: _Call, new_id: str, name: str, arguments: str) -> bool:
    """Whether a piece for a known place is the first one of another call."""
    if not name or not call.name:
        return False
    if new_id and call.id:
        return new_id != call.id
    return name != call.name or (bool(arguments) and call.is_whole())


def _mend_all(value: Any) -> Any:
    """Mend every string of a parsed value: arguments escape on a level of their own."""
    if isinstance(value, str):
        return mend_whole(value)
    if isinstance(value, list):
        return [_mend_all(element) for element in value]
    if isinstance(value, dict):
        return {_mend_all(key): _mend_all(element) for key, element in value.items()}
    return value
