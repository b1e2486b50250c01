"""Finds the stream that somebody wants to go on with.

A stream is named by its id in a journal, or by a resume token together with what the
token stands for: what goes with the one is refused with the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holystream.arguments import checked_offset, checked_stream_id
from holystream.detached import from_token
from holystream.errors import ConfigurationError, InvalidRequest
from holystream.recovery import from_journal, recorded
from holystream.resume.token import ResumeToken, looks_like_one

if TYPE_CHECKING:
    from holystream.detached import TokenArguments
    from holystream.journal import Journal
    from holystream.providers.base import Provider
    from holystream.providers.chat_request import Messages
    from holystream.recovered import Recovered
    from holystream.settings import Recording


def find_stream(
    stream: str,
    provider: Provider,
    *,
    journal: Journal | None,
    recording: Recording,
    after: int,
    partial_text: str | None,
    messages: Messages | None,
    arguments: TokenArguments,
) -> Recovered:
    """Return the stream, claimed if a journal has it and it has not ended.

    `holystream.Client.resume` says what the arguments are, and what is raised.
    """
    if messages is None:
        _check_unasked(arguments)
        if journal is None:
            raise ConfigurationError(
                "to resume a recorded stream, pass journal= here or to the Client; "
                "with a token, pass messages= and partial_text="
            )
        if looks_like_one(stream):
            raise InvalidRequest(
                "this is a resume token: pass messages= and partial_text= as well"
            )
        return from_journal(
            journal,
            checked_stream_id(stream),
            provider,
            after=checked_offset(after),
            partial_text=partial_text,
        )
    if after:
        raise InvalidRequest(
            "after= is for recorded streams: with a token pass partial_text="
        )
    text = "" if partial_text is None else partial_text
    token = ResumeToken.decode(stream)
    found = from_token(token, text, messages, provider, arguments)
    if journal is None:
        return found
    return recorded(journal, found, provider, partial_text=text, recording=recording)


def _check_unasked(arguments: TokenArguments) -> None:
    """Refuse what belongs to a token, where a recorded stream is meant.

    Raises:
        InvalidRequest: It was given.
    """
    given = [name for name, value in arguments.items() if value is not None]
    if given:
        raise InvalidRequest(
            f"{given[0]}= goes with a resume token and messages=: what a recorded "
            "stream was asked for is recorded"
        )
