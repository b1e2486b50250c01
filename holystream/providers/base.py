"""What every API dialect must offer: requests out, events in, evidence of the end."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holystream.events import StreamEvent, Usage
    from holystream.providers.profile import Profile
    from holystream.wire.faults import Answer, Fault, Refusal
    from holystream.wire.sse import ServerSentEvent


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ChatRequest:
    """A checked request, in the provider's own JSON shape.

    Attributes:
        path: Where to POST it, relative to the base URL, with a leading slash and
            the query, if there is one.
        body: The JSON body; never changed, copy it to vary it.
        model: The model's name.
        choices: How many answers were asked for (``n``).
        deterministic: The same request gives the same answer: temperature 0, a seed,
            or the caller's word.
    """

    path: str
    body: Mapping[str, Any]
    model: str
    choices: int
    deterministic: bool

    @property
    def prompts(self) -> tuple[str, ...]:
        """The texts of its messages, which no error may repeat."""
        texts: list[str] = []
        for message in self.body.get("messages", ()):
            content = message.get("content")
            parts = content if isinstance(content, (list, tuple)) else [content]
            for part in parts:
                text = part.get("text") if isinstance(part, dict) else part
                if isinstance(text, str):
                    texts.append(text)
        return tuple(texts)

    def __repr__(self) -> str:
        # The body is the prompt: it must not reach a log.
        return f"<ChatRequest model={self.model!r} choices={self.choices}>"


class Decoder(Protocol):
    """Turns the events of one connection into ours. One for each attempt.

    Attributes:
        failure: Set once the stream reports an error or does not parse: everything
            before it was returned, nothing after it is.
        ended: The provider's own end mark was seen (``[DONE]``).
        usage: The last usage that the server reported.
        model: The model's name as the server gives it.
        response_id: The answer's id as the server gives it.
    """

    failure: Fault | None
    ended: bool
    usage: Usage | None
    model: str | None
    response_id: str | None

    def decode(self, messages: Sequence[ServerSentEvent]) -> list[StreamEvent]:
        """Return the events that these messages bring, in order.

        Offsets are those of this connection's own text, from 0.
        """
        ...

    @property
    def finished(self) -> bool:
        """Every choice has an accepted finish reason, and nothing failed."""
        ...

    def complete(self, *, clean_end: bool) -> bool:
        """Whether the answer is whole if the body ends here, cleanly or cut."""
        ...

    @property
    def finish_reasons(self) -> Mapping[int, str]:
        """The finish reason of each choice that has one."""
        ...


class Provider(Protocol):
    """One API dialect."""

    profile: Profile

    def decoder(self, request: ChatRequest, *, segment: int) -> Decoder:
        """Return a fresh decoder for the answer to ``request``."""
        ...

    def refusal(self, answer: Answer) -> Refusal:
        """Read an error body or an error event, in any shape; never fails."""
        ...
