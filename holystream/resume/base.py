"""What a strategy is given, and what it makes of it: the words of this package."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holystream.events import Guarantee, Resumed, StreamEvent
    from holystream.providers.base import ChatRequest, Cursor, Decoder, Provider
    from holystream.providers.profile import Profile
    from holystream.transcript import Transcript
    from holystream.wire.sse import ServerSentEvent


class SeamMismatch(Exception):
    """What the new connection brings does not join on to what was delivered."""


class BegunAnew(SeamMismatch):
    """The answer was begun anew: the server does not go on with what it is given."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """What a broken attempt left behind.

    Attributes:
        request: The request for the whole answer.
        provider: The dialect that it is in.
        transcript: What has been delivered.
        decoder: What read the last connection; None where another process did.
        cursor: Where the server could go on; None where it could not.
        asked: The request that the last connection answered; None where that was
            another process's.
        half_call: A tool call had begun behind what was delivered.
    """

    request: ChatRequest
    provider: Provider
    transcript: Transcript
    decoder: Decoder | None = None
    cursor: Cursor | None = None
    asked: ChatRequest | None = None
    half_call: bool = False

    @property
    def profile(self) -> Profile:
        """What the host can do with this model."""
        return self.provider.profile.for_model(self.request.model)


class Gate(Protocol):
    """Stands before the decoder: which messages of a connection are new.

    Attributes:
        proven: It is certain that they belong to the answer that was delivered.
        passed_over: The id of the last message that was not new; empty if none was.
    """

    proven: bool
    passed_over: str

    def admit(self, messages: Sequence[ServerSentEvent]) -> list[ServerSentEvent]:
        """Return what of these messages is new, in order.

        Raises:
            SeamMismatch: They belong to another answer, or some between are missing.
        """
        ...

    @property
    def whole(self) -> bool:
        """Whether something was proven, and nothing is missing between what came."""
        ...

    def resumed(self, offset: int) -> Resumed:
        """Return the event that says how the answer went on."""
        ...


class Seam(Protocol):
    """Stands behind the decoder: which events are new to the caller.

    Attributes:
        open: The seam is not closed yet: events must still pass through it.
        stopped: The answer ends at the seam, whatever else the server sends.
    """

    open: bool
    stopped: bool

    def join(self, events: Sequence[StreamEvent]) -> list[StreamEvent]:
        """Return what of these events is new to the caller.

        Raises:
            SeamMismatch: They belong to another answer.
        """
        ...

    def finish(self) -> list[StreamEvent]:
        """Take the end of the answer, and return the events that it adds.

        Raises:
            SeamMismatch: It ends before all that was delivered came again.
        """
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """How one attempt joins on.

    Attributes:
        request: What to ask for.
        seam: What the events must pass, if they must.
        gate: What the messages must pass, if they must.
        decoder: The decoder to go on with; a fresh one where None.
        asked: Tokens of instruction that the request has beside prompt and answer,
            about.
        rewound: Tokens that were delivered and are asked for again, about.
    """

    request: ChatRequest
    seam: Seam | None = None
    gate: Gate | None = None
    decoder: Decoder | None = None
    asked: int = 0
    rewound: int = 0


class ResumeStrategy(Protocol):
    """One way to go on. Holds no state: one instance serves all streams.

    Attributes:
        name: As in ``resume=``.
        guarantee: What a text joined so is worth.
        keeps: The server keeps what it wrote: nothing is generated a second time.
        extends: What was delivered is sent as the answer's beginning, not compared.
    """

    name: str
    guarantee: Guarantee
    keeps: bool
    extends: bool

    def join(self, trail: Trail) -> Continuation | None:
        """Return how to join on; None where this way is not open."""
        ...
