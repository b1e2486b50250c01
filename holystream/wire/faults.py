"""What went wrong on a connection, said by phase and kind instead of exception type.

requests, urllib3 and ssl type their errors by where they were noticed, not by what
happened: a stall in the body is a ``ConnectionError``, a TLS handshake that is never
answered a ``ReadTimeout``. The phase that our own connection marks tells them apart.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holystream.errors import Phase


class FaultKind(enum.Enum):
    """Everything that can end an attempt early."""

    NAME_RESOLUTION = "the host name could not be resolved"
    REFUSED = "the connection could not be made"
    CONNECT_TIMEOUT = "connecting took too long"
    PROXY = "the proxy refused"
    CERTIFICATE = "the server's certificate is not trusted"
    TLS = "the TLS handshake failed"
    LOST = "the connection broke"
    GARBAGE = "the answer is not HTTP"
    ENDED = "the stream ended without evidence of completion"
    FIRST_TOKEN = "no content arrived in time"
    IDLE = "the connection fell silent"
    TOKEN_IDLE = "no content arrived, only signs of life"
    TAIL = "nothing followed the finish reason"
    DEADLINE = "the deadline passed"
    STATUS = "the server answered with an error status"
    NOT_EVENT_STREAM = "the answer is not an event stream"
    REDIRECT = "the server redirected elsewhere"
    TOO_LARGE = "a line or an event exceeds its limit"
    ENCODING = "the compressed body is corrupt"
    MALFORMED = "an event does not parse"
    ERROR_EVENT = "the server reported an error inside the stream"
    REPLAY_MISMATCH = "the regenerated answer is another one"
    BAD_URL = "the URL cannot be used"
    STOPPED = "the caller stopped it"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a server said in place of an answer: by status, or inside the stream.

    Attributes:
        status: The HTTP status; 200 for an error inside an event stream.
        headers: The response's headers, names in lower case.
        body: At most 64 KiB of the body, or the data of the error event.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """What an error body or an error event says, once its dialect has been read.

    Attributes:
        message: The API's own message, or the start of an unreadable body.
        status: The HTTP status, or the one an error event implies; None if none.
        code: The API's error code.
        type: The API's error type.
        retry_after: Seconds to wait that the body (not a header) asks for.
    """

    message: str
    status: int | None = None
    code: str | None = None
    type: str | None = None
    retry_after: float | None = None


class Fault(Exception):
    """The end of an attempt. Internal: callers meet the typed errors made from it.

    Attributes:
        kind: What happened.
        phase: How far the attempt got.
        detail: Particulars for a person, free of keys and prompts.
        reused: The connection had served a request before.
        answer: What the server said, if it said something.
    """

    def __init__(
        self,
        kind: FaultKind,
        phase: Phase,
        detail: str = "",
        *,
        reused: bool = False,
        answer: Answer | None = None,
    ) -> None:
        super().__init__(detail or kind.value)
        self.kind = kind
        self.phase = phase
        self.detail = detail
        self.reused = reused
        self.answer = answer
