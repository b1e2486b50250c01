"""A stream as another process left it, and what such a one can be refused for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holystream.errors import ConfigurationError, InvalidRequest
from holystream.events import Guarantee

if TYPE_CHECKING:
    from holystream.errors import StreamError
    from holystream.events import Completion, StreamEvent
    from holystream.journal import Claim
    from holystream.providers.base import ChatRequest, Provider
    from holystream.resume.checkpoint import Checkpoint
    from holystream.transcript import Transcript

NONSENSE: Final = (
    *(ArithmeticError, LookupError, TypeError, ValueError),
    msgspec.MsgspecError,
)
"""What comes of a state that nobody stood in."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """A stream as it was left.

    Attributes:
        stream_id: Its id.
        provider: The name of the profile that it was begun with.
        request: What was asked for.
        resume: The names of the ways in which it may go on.
        min_guarantee: The least that it must be worth, or None.
        transcript: What was delivered.
        checkpoint: Where the exchange stood.
        events: What the caller is still to be told of that.
        claim: The right to go on with the recorded stream.
        completion: The answer, if it is complete.
        error: Why no answer will come, if that is so.
    """

    stream_id: str
    provider: str
    request: ChatRequest = dataclasses.field(repr=False)
    resume: tuple[str, ...]
    min_guarantee: Guarantee | None
    transcript: Transcript = dataclasses.field(repr=False)
    checkpoint: Checkpoint = dataclasses.field(repr=False)
    events: list[StreamEvent] = dataclasses.field(default_factory=list, repr=False)
    claim: Claim | None = None
    completion: Completion | None = dataclasses.field(default=None, repr=False)
    error: StreamError | None = None

    @property
    def ended(self) -> bool:
        """Whether there is nothing to go on with."""
        return self.completion is not None or self.error is not None


def check_state(
    checkpoint: Checkpoint, request: ChatRequest, provider: Provider
) -> None:
    """Find out whether an exchange can stand there, by any error that says no."""
    Guarantee(checkpoint.guarantee)
    if checkpoint.decoder:
        provider.restored(request, checkpoint.decoder, segment=0)
    cursor = checkpoint.cursor
    # They become headers.
    if cursor is not None and set("\0\r\n") & {
        *cursor.last_event_id,
        *cursor.conversation,
    }:
        raise ValueError("a cursor of more than one line")


def check_provider(name: str, provider: Provider) -> None:
    """Refuse to go on with a stream of another provider.

    Raises:
        ConfigurationError: It is another one.
    """
    own = provider.profile.name
    if name != own:
        raise ConfigurationError(
            f"the stream was begun with provider={name!r}, and this client has "
            f"{own!r}: resume it with a client for that one"
        )


def check_text(partial_text: Any) -> None:
    """Refuse what is no text.

    Raises:
        InvalidRequest: It is something else.
    """
    if not isinstance(partial_text, str):
        kind = type(partial_text).__name__
        raise InvalidRequest(f"partial_text must be a str, not {kind}")


def guarantee_of(level: int | None) -> Guarantee | None:
    """Return the guarantee of a level."""
    return None if level is None else Guarantee(level)
