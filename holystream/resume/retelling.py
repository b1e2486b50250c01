"""What was recorded of a stream, page by page: what it amounts to, and how it is told.

An answer of a million tokens is a million events, which weigh fifty times what its text
does. So no more than a page of them is held at a time: pieces of one kind that follow
on each other are told as one piece, whose text is the transcript's own.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Final

from holystream.events import (
    CONTENT,
    Finished,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    Rewound,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from holystream.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holystream.events import Completion, StreamEvent

_TEXTS: Final = (TextDelta, ReasoningDelta, RefusalDelta)
_TOLD: Final = (*CONTENT, Logprobs, Resumed, UsageReport, Finished)
"""What is told again of a stream that was recorded."""


class Retelling:
    """Folds the pages of a recorded stream.

    Args:
        text: What a caller has of the answer; it may have been withdrawn since.

    Attributes:
        transcript: What they amount to.
        rewound: The answer was begun anew at least once.
        withdrawn: The caller's text was of a beginning that is void.
        completion: The answer, if its end was recorded.
    """

    def __init__(self, text: str | None = None) -> None:
        self.transcript = Transcript()
        self.rewound = False
        self.withdrawn = False
        self.completion: Completion | None = None
        self._text = text
        self._told: list[Any] = []

    def add(self, page: Sequence[StreamEvent]) -> None:
        """Fold in the events that come next."""
        for alike, events in itertools.groupby(page, _kind):
            run: list[Any] = list(events)
            self.completion = None
            if alike is Rewound:
                for event in run:
                    self._withdraw(event)
            elif alike is Finished:
                self._told += run
                self.completion = run[-1].completion
            else:
                self._fold(run)

    def _withdraw(self, rewound: Any) -> None:
        self.rewound = True
        if self._text is not None and rewound.discarded.startswith(self._text):
            self.withdrawn = True
        self.transcript.clear()
        self._told.clear()

    def _fold(self, run: Sequence[Any]) -> None:
        first = run[0]
        if isinstance(first, TextDelta) and first.index == 0:
            text = self.transcript.add_pieces([event.text for event in run])
            self._told += _one_text(run, text)
            return
        self.transcript.add(run)
        if isinstance(first, _TEXTS):
            self._told += _one_text(run, "".join([event.text for event in run]))
        elif isinstance(first, ToolCallDelta):
            self._told.append(_one_call(run))
        elif isinstance(first, _TOLD):
            self._told += run

    def behind(self, after: int) -> Iterator[StreamEvent]:
        """Return what is to be told to one who has so many characters of the text."""
        for event in self._told:
            if isinstance(event, TextDelta) and event.index == 0:
                known = max(0, after - event.offset)
                if known < len(event.text):
                    text = event.text[known:]
                    yield _renewed(event, text, event.offset + known)
            else:
                yield event


def _kind(event: Any) -> object:
    """Return what is the same for events that can be told as one."""
    kind = type(event)
    if kind in _TEXTS:
        return kind, event.index, event.segment
    if kind is ToolCallDelta:
        return kind, event.index, event.segment, event.call_index
    return kind


def _one_text(run: Sequence[Any], text: str) -> Sequence[Any]:
    """Return a run as one piece, unless its pieces do not follow on each other."""
    first, last = run[0], run[-1]
    if last.offset + len(last.text) != first.offset + len(text):
        return run
    return [_renewed(first, text, first.offset)]


def _one_call(run: Sequence[ToolCallDelta]) -> ToolCallDelta:
    first = run[0]
    return ToolCallDelta(
        call_index=first.call_index,
        id=first.id,
        name=first.name,
        arguments="".join([event.arguments for event in run]),
        index=first.index,
        segment=first.segment,
    )


def _renewed(event: Any, text: str, offset: int) -> Any:
    return type(event)(text, offset, event.index, event.segment)
