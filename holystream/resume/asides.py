"""What is said beside the text: shown reasoning, and refusals that come apart.

It is never compared or continued. A later generation says it anew, and a delta at
offset 0 takes the place of all that its channel had; an empty one withdraws it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holystream.events import CONTENT, ReasoningDelta, RefusalDelta

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holystream.events import StreamEvent
    from holystream.transcript import Transcript

Aside = ReasoningDelta | RefusalDelta
"""A piece of it."""
Key = tuple[type[Aside], int]
"""Its channel, and the number of the choice."""


def asides(transcript: Transcript, *, delivered: bool) -> dict[Key, str]:
    """Return what was said beside the choices with a text, or beside those without."""
    return {
        (kind, choice.index): said
        for choice in transcript.choices(0, {})
        if bool(choice.text) is delivered
        for kind, said in (
            (ReasoningDelta, choice.reasoning),
            (RefusalDelta, choice.refusal),
        )
        if said
    }


class Void:
    """What was said for an answer that did not come, until a reader is told so."""

    def __init__(self) -> None:
        self._keys: set[Key] = set()

    def __bool__(self) -> bool:
        return bool(self._keys)

    def note(self, transcript: Transcript) -> None:
        """Take what no text came of for void."""
        self._keys |= asides(transcript, delivered=False).keys()

    def withdraw(
        self, events: Sequence[StreamEvent], *, segment: int, ended: bool = False
    ) -> list[StreamEvent]:
        """Return what tells a reader, once there is other content or none will come."""
        if not (ended or any(isinstance(event, CONTENT) for event in events)):
            return []
        said_anew = {
            (type(event), event.index)
            for event in events
            if isinstance(event, Aside) and not event.offset
        }
        void, self._keys = self._keys - said_anew, set()
        return [
            kind("", 0, index, segment)
            for kind in (ReasoningDelta, RefusalDelta)
            for index in sorted(index for each, index in void if each is kind)
        ]
