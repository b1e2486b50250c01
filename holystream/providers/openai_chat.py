"""The chat completions API of OpenAI, and of everything compatible with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holystream.providers import continuation
from holystream.providers.chunks import read_identity
from holystream.providers.openai_decoder import OpenAIChatDecoder
from holystream.providers.refusals import read_refusal

if TYPE_CHECKING:
    from holystream.providers.base import ChatRequest, Cursor
    from holystream.providers.profile import Profile
    from holystream.wire.faults import Answer, Refusal
    from holystream.wire.sse import ServerSentEvent

__all__ = ["OpenAIChat"]


class OpenAIChat:
    """The provider for one profile of OpenAI-compatible servers."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def decoder(self, request: ChatRequest, *, segment: int) -> OpenAIChatDecoder:
        """Return a fresh decoder for the answer to ``request``."""
        return OpenAIChatDecoder(
            self.profile.for_model(request.model),
            choices=request.choices,
            segment=segment,
        )

    def restored(
        self, request: ChatRequest, state: bytes, *, segment: int
    ) -> OpenAIChatDecoder:
        """Return a decoder that knows what the one with this state knew."""
        return self.decoder(request, segment=segment).restore(state)

    def identity(self, message: ServerSentEvent) -> str | None:
        """Return the id of the answer that a chunk says it belongs to."""
        return read_identity(message.raw)

    def conversing(self, request: ChatRequest, conversation: str) -> ChatRequest:
        """Return the request with a name to keep the answer under, if that helps."""
        return continuation.conversing(
            request, self.profile.for_model(request.model), conversation
        )

    def behind(self, request: ChatRequest, cursor: Cursor) -> ChatRequest:
        """Return the request for what lies behind a cursor."""
        return continuation.behind(request, cursor)

    def prefilled(
        self, request: ChatRequest, prefix: str, *, written: int
    ) -> ChatRequest | None:
        """Return the request to go on with a begun answer, if that can be asked."""
        return continuation.prefilled(
            request, self.profile.for_model(request.model), prefix, written=written
        )

    def continued(
        self, request: ChatRequest, text: str, *, written: int
    ) -> ChatRequest | None:
        """Return the request that asks in a turn of its own to go on behind a text."""
        return continuation.continued(request, text, written=written)

    def refusal(self, answer: Answer) -> Refusal:
        """Read an error body or an error event, in any shape; never fails."""
        return read_refusal(answer)

    def __repr__(self) -> str:
        return f"<OpenAIChat profile={self.profile.name!r}>"
