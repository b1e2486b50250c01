"""What it takes to go on with an answer in another process, beside its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from holystream.errors import JournalCorrupt, JournalVersion
from holystream.events import Guarantee
from holystream.providers.base import ChatRequest, Cursor
from holystream.resume.ledger import Spent  # noqa: TC001 - for msgspec, when it runs

if TYPE_CHECKING:
    from holystream.errors import StreamError
    from holystream.events import Completion
    from holystream.transcript import Transcript

_VERSION = 1


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Where an exchange stands. It may hold half a tool call, and no other text.

    Attributes:
        version: The format's.
        segment: The number of the present segment.
        guarantee: What the text so far is worth.
        attempts: Connections that were tried.
        interruptions: Attempts that failed.
        model: The model as the server names it.
        half_call: A tool call had begun behind what was delivered.
        decoder: What the decoder knows, if it knows all that was delivered; else empty.
        cursor: Where the server could go on, if it could.
        endpoint: The configured name of that server; empty if it was not noted.
        spent: What the attempts before the present one cost, if there were any.
        generated: Tokens that the present attempt brought; None if it was not noted.
        written: Tokens that were delivered and stand, about.
    """

    version: int = _VERSION
    segment: int = 0
    guarantee: int = Guarantee.SINGLE
    attempts: int = 0
    interruptions: int = 0
    model: str | None = None
    half_call: bool = False
    decoder: bytes = b""
    cursor: Cursor | None = None
    endpoint: str = ""
    spent: Spent | None = None
    generated: int | None = None
    written: int = 0

    def __repr__(self) -> str:
        return f"<Checkpoint of segment {self.segment}>"

    def without_place(self) -> Checkpoint:
        """Return it without a place in the answer: that is to be found by the text."""
        return msgspec.structs.replace(self, decoder=b"", cursor=None)

    def encode(self) -> bytes:
        """Return it as bytes."""
        return _encoder.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Checkpoint:
        """Return the checkpoint that these bytes are.

        Raises:
            JournalVersion: A newer holystream wrote them.
            JournalCorrupt: They are none.
        """
        return _checked(data, cls, "where a stream stands")


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """A request as a journal keeps it: all that was asked for, no key and no header.

    Attributes:
        provider: The name of the profile.
        path: Where it was sent.
        body: The JSON body, the prompt included.
        model: The model.
        choices: How many answers were asked for.
        deterministic: The same request gives the same answer.
        resume: The names of the ways in which it may go on.
        min_guarantee: The least that the answer must be worth, or None.
        version: The format's.
    """

    provider: str
    path: str
    body: dict[str, Any]
    model: str
    choices: int
    deterministic: bool
    resume: tuple[str, ...]
    min_guarantee: int | None
    version: int = _VERSION

    @classmethod
    def of(
        cls,
        request: ChatRequest,
        *,
        provider: str,
        resume: tuple[str, ...],
        min_guarantee: int | None,
    ) -> Recorded:
        """Return what a journal keeps of a request."""
        return cls(
            provider=provider,
            path=request.path,
            body=dict(request.body),
            model=request.model,
            choices=request.choices,
            deterministic=request.deterministic,
            resume=resume,
            min_guarantee=min_guarantee,
        )

    def __repr__(self) -> str:
        return f"<Recorded provider={self.provider!r} model={self.model!r}>"

    @property
    def request(self) -> ChatRequest:
        """The request."""
        return ChatRequest(
            path=self.path,
            body=self.body,
            model=self.model,
            choices=self.choices,
            deterministic=self.deterministic,
        )

    def is_of(self, request: ChatRequest, *, provider: str) -> bool:
        """Whether it is what is kept of a request, whatever may become of that."""
        other = Recorded.of(
            request,
            provider=provider,
            resume=self.resume,
            min_guarantee=self.min_guarantee,
        )
        # Bytes do not tell a tuple from a list.
        return Recorded.decode(other.encode()) == self

    def encode(self) -> bytes:
        """Return it as bytes."""
        return _encoder.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Recorded:
        """Return the request that these bytes are.

        Raises:
            JournalVersion: A newer holystream wrote them.
            JournalCorrupt: They are none.
        """
        return _checked(data, cls, "the request of a stream")


_encoder = msgspec.msgpack.Encoder()
_Record = TypeVar("_Record", Checkpoint, Recorded)
# Made at the import: msgspec learns a type at its first use, and two threads that meet
# there crash the interpreter.
_decoders: dict[type[Any], msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in (Checkpoint, Recorded)
}


def _checked(data: bytes, kind: type[_Record], what: str) -> _Record:
    try:
        found: _Record = _decoders[kind].decode(data)
    except (ValueError, msgspec.MsgspecError):
        raise JournalCorrupt(
            f"{what} cannot be read: the journal is damaged. What it holds of the "
            "answer can be read with Journal.read()."
        ) from None
    if found.version != _VERSION:
        raise JournalVersion(
            f"{what} was written in format {found.version}, of which this holystream "
            f"knows {_VERSION}: upgrade holystream to go on with it"
        )
    return found


class Left(Protocol):
    """What is left of a stream that another process began.

    Attributes:
        transcript: What was delivered; all of it counts as told.
        checkpoint: Where the exchange stood.
        completion: The answer, if it is complete.
        error: Why no answer will come, if that is so.
    """

    @property
    def transcript(self) -> Transcript: ...  # noqa: D102 - described above
    @property
    def checkpoint(self) -> Checkpoint: ...  # noqa: D102
    @property
    def completion(self) -> Completion | None: ...  # noqa: D102
    @property
    def error(self) -> StreamError | None: ...  # noqa: D102
