"""What is left of a stream of which no journal knows: by its resume token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from holystream.errors import JournalError, ResumeTokenInvalid
from holystream.events import TextDelta
from holystream.providers.chat_request import chat_request
from holystream.recovered import (
    NONSENSE,
    Recovered,
    check_provider,
    check_state,
    check_text,
    guarantee_of,
)
from holystream.resume.checkpoint import Checkpoint
from holystream.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holystream.providers.base import Provider
    from holystream.providers.chat_request import Messages
    from holystream.resume.token import ResumeToken


class TokenArguments(TypedDict):
    """What a request had beside its messages of which a resume token has a digest."""

    stop: str | Sequence[str] | None
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    response_format: Mapping[str, Any] | None
    extra_body: Mapping[str, Any] | None


def from_token(
    token: ResumeToken,
    partial_text: str,
    messages: Messages,
    provider: Provider,
    arguments: TokenArguments,
) -> Recovered:
    """Return the stream of which this text was delivered.

    Raises:
        ResumeTokenInvalid: The token was made for another request or text.
        ConfigurationError: It was made with another provider.
        InvalidRequest: An argument is wrong.
    """
    check_provider(token.provider, provider)
    check_text(partial_text)
    profile = provider.profile
    numbers = token.arguments(profile.for_model(token.model).spellings)
    request = chat_request(
        messages,
        profile=profile,
        model=token.model,
        deterministic=token.deterministic,
        **arguments,
        **numbers,
    )
    token.check(request, partial_text)
    transcript = Transcript()
    if partial_text:
        transcript.add([TextDelta(partial_text, 0)])
    try:
        checkpoint = Checkpoint.decode(token.checkpoint)
        check_state(checkpoint, request, provider)
        min_guarantee = guarantee_of(token.min_guarantee)
        # As many tokens as it came in, not the one piece that it is here.
        transcript.content_events = max(transcript.content_events, checkpoint.written)
    except (*NONSENSE, JournalError) as error:
        # Its sum is right, so it was a token, of another version or of somebody's make.
        raise ResumeTokenInvalid(
            "the token says what this holystream does not understand: it was made by "
            "another version; begin the stream anew"
        ) from error
    return Recovered(
        stream_id=token.stream_id,
        provider=token.provider,
        request=request,
        resume=token.resume,
        min_guarantee=min_guarantee,
        transcript=transcript,
        checkpoint=checkpoint,
    )
