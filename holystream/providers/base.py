"""What every API dialect must offer: requests out, events in, evidence of the end."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

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
        path: Where to send it, relative to the base URL, with a leading slash and
            the query, if there is one.
        body: The JSON body; never changed, copy it to vary it. Empty for none.
        model: The model's name.
        choices: How many answers were asked for (``n``).
        deterministic: The same request gives the same answer: temperature 0, a seed,
            or the caller's word.
        method: The HTTP method.
        headers: Headers that belong to it, beside those of every request.
        last_event_id: The event of an earlier answer behind which to go on, or empty.
        conversation: The name under which the server keeps the answer, or empty.
        begun: How it says that the answer begins; this may come back.
    """

    path: str
    body: Mapping[str, Any]
    model: str
    choices: int
    deterministic: bool
    method: str = "POST"
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    last_event_id: str = ""
    conversation: str = ""
    begun: str = ""

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


class Cursor(msgspec.Struct, frozen=True, kw_only=True):
    """A place in an answer that the server keeps, from which it can send the rest.

    It holds no text: what came behind the last id is known by its digests.

    Attributes:
        response_id: The id of the answer, which what follows must have too.
        last_event_id: The last id of a server-sent event, or empty.
        last: The digest of the event that had this id.
        behind: The digests of the events that came behind it and had none.
        consecutive: All ids so far ended in numbers that counted up by one.
        began: The number of the first of these; None where it is not known.
        check: The checksum of all events from that one to the last.
        conversation: The name under which the server keeps the answer, or empty.
        offset: Bytes of the decoded body up to the end of the last whole event.
        first: The digest of the first event of a body whose bytes are counted.
    """

    response_id: str
    last_event_id: str = ""
    last: bytes = b""
    behind: tuple[bytes, ...] = ()
    consecutive: bool = False
    began: int | None = None
    check: int = 0
    conversation: str = ""
    offset: int = 0
    first: bytes = b""


class Decoder(Protocol):
    """Turns the events of one connection into ours.

    One for each attempt, but for an attempt that goes on behind a cursor: it has the
    decoder of the one before it.

    Attributes:
        failure: Set once the stream reports an error or does not parse: everything
            before it was returned, nothing after it is.
        ended: The provider's own end mark was seen (``[DONE]``).
        usage: The last usage that the server reported.
        model: The model's name as the server gives it.
        response_id: The answer's id as the server gives it.
        taken: How many messages of the last `decode` were taken whole.
        torn: The message that failed had added events before it did.
    """

    failure: Fault | None
    ended: bool
    usage: Usage | None
    model: str | None
    response_id: str | None
    taken: int
    torn: bool

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

    @property
    def half_call(self) -> bool:
        """Whether a tool call has begun and was not delivered."""
        ...

    def go_on(self, *, segment: int) -> None:
        """Expect the rest of the same answer, on another connection."""
        ...

    def rebase(self, length: int) -> None:
        """Let what follows begin at this offset in the text of the first choice."""
        ...

    def state(self) -> bytes:
        """Return all that it knows, half tool calls included, for another process."""
        ...


class Provider(Protocol):
    """One API dialect."""

    profile: Profile

    def decoder(self, request: ChatRequest, *, segment: int) -> Decoder:
        """Return a fresh decoder for the answer to ``request``."""
        ...

    def restored(self, request: ChatRequest, state: bytes, *, segment: int) -> Decoder:
        """Return a decoder that knows what the one with this state knew."""
        ...

    def identity(self, message: ServerSentEvent) -> str | None:
        """Return the id of the answer that a message says it belongs to."""
        ...

    def conversing(self, request: ChatRequest, conversation: str) -> ChatRequest:
        """Return the request with a name to keep the answer under, if that helps."""
        ...

    def behind(self, request: ChatRequest, cursor: Cursor) -> ChatRequest:
        """Return the request for what lies behind a cursor."""
        ...

    def prefilled(
        self, request: ChatRequest, prefix: str, *, written: int
    ) -> ChatRequest | None:
        """Return the request to go on with a begun answer; None where that cannot be.

        Args:
            request: The request for the whole answer.
            prefix: How the answer begins.
            written: Tokens of the prefix, about.
        """
        ...

    def continued(
        self, request: ChatRequest, text: str, *, written: int
    ) -> ChatRequest | None:
        """Return the request that asks, as a turn of its own, to go on behind a text.

        None where that cannot be asked.
        """
        ...

    def refusal(self, answer: Answer) -> Refusal:
        """Read an error body or an error event, in any shape; never fails."""
        ...
