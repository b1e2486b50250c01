"""Restart: the answer is withdrawn and written anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holystream.events import CONTENT, Guarantee, Resumed, Rewound
from holystream.resume.base import Continuation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holystream.events import StreamEvent
    from holystream.resume.base import Trail
    from holystream.transcript import Transcript


class Restart:
    """The answer is withdrawn and written anew. Opt-in: not every reader can rewind.

    Never after a whole tool call was delivered: it may have been acted upon.
    """

    name = "restart"
    guarantee = Guarantee.RESTARTED
    keeps = False
    extends = False

    def join(self, trail: Trail) -> Continuation | None:
        """Ask again, if all that was delivered is text, which can be withdrawn."""
        if trail.transcript.tool_calls:
            return None
        return Continuation(request=trail.request, seam=RestartSeam(trail.transcript))


class RestartSeam:
    """Withdraws the delivered text when, and only when, the first new piece is here."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self.open = True
        self.stopped = False

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
