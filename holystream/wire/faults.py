"""What went wrong on a connection, said by phase and kind instead of exception type.

requests, urllib3 and ssl type their errors by where they were noticed, not by what
happened: a stall in the body is a ``ConnectionError``, a TLS handshake that is never
answered a ``ReadTimeout``. The phase that our own connection marks tells them apart.
"""

from __future__ import annotations

import enum
import errno
import http.client
import ssl
from typing import TYPE_CHECKING

import msgspec
import requests
import urllib3.exceptions

from holystream.errors import Phase
from holystream.wire.sse import LimitError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class FaultKind(enum.Enum):
    """Everything that can end an attempt early."""

    NAME_RESOLUTION = "the host name could not be resolved"
    REFUSED = "the connection could not be made"
    CONNECT_TIMEOUT = "connecting took too long"
    HANDSHAKE_TIMEOUT = "the TLS handshake took too long"
    PROXY = "the proxy refused"
    CERTIFICATE = "the server's certificate is not trusted"
    TLS = "the TLS handshake failed"
    NOT_TLS = "what answered the TLS handshake is not TLS"
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
    CODING = "the body is compressed in a way that is not read here"
    ENCODING = "the compressed body is corrupt"
    MALFORMED = "an event does not parse"
    ERROR_EVENT = "the server reported an error inside the stream"
    SEAM_MISMATCH = "what came does not join on to what was delivered"
    NOT_CONTINUED = "the server does not go on with an answer in this way"
    NO_DESCRIPTOR = "this process may open nothing more"
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
        whole_answer: It is no refusal, but an answer that was not streamed.
    """

    message: str
    status: int | None = None
    code: str | None = None
    type: str | None = None
    retry_after: float | None = None
    whole_answer: bool = False


class Fault(Exception):
    """The end of an attempt. Internal: callers meet the typed errors made from it.

    Attributes:
        kind: What happened.
        phase: How far the attempt got.
        detail: Particulars for a person, free of keys and prompts.
        reused: The connection had served a request before.
        answer: What the server said, if it said something.
        request_id: The id of the request: the server's, else the one we sent.
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
        self.request_id: str | None = None


LIBRARY_ERRORS: tuple[type[Exception], ...] = (
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    LimitError,
)
"""What a connection may raise; anything else is a bug and must not be retried."""

_SAID = (FaultKind.STOPPED, FaultKind.HANDSHAKE_TIMEOUT, FaultKind.NO_DESCRIPTOR)
"""The kinds of which the library has nothing more to say."""

_Types = type[BaseException] | tuple[type[BaseException], ...]

# Told by the exception itself, whatever the phase.
_BY_TYPE: tuple[tuple[_Types, FaultKind], ...] = (
    (LimitError, FaultKind.TOO_LARGE),
    (requests.exceptions.ContentDecodingError, FaultKind.ENCODING),
    (
        (
            requests.exceptions.InvalidURL,
            requests.exceptions.InvalidSchema,
            requests.exceptions.MissingSchema,
        ),
        FaultKind.BAD_URL,
    ),
)
# Told by any link of the chain of causes; the first row that matches counts.
_WHILE_CONNECTING: tuple[tuple[_Types, FaultKind], ...] = (
    (ssl.SSLCertVerificationError, FaultKind.CERTIFICATE),
    (requests.exceptions.ProxyError, FaultKind.PROXY),
    (requests.exceptions.InvalidHeader, FaultKind.BAD_URL),
    (TimeoutError, FaultKind.CONNECT_TIMEOUT),
    (ssl.SSLError, FaultKind.TLS),
)
# How OpenSSL, old and new, calls a first record that is none.
_NOT_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL")
_AFTER_SENDING: tuple[tuple[_Types, FaultKind], ...] = (
    # RemoteDisconnected is a BadStatusLine too.
    (http.client.RemoteDisconnected, FaultKind.LOST),
    (http.client.BadStatusLine, FaultKind.GARBAGE),
    # The server's, not ours: two lengths that contradict each other.
    (
        (requests.exceptions.InvalidHeader, urllib3.exceptions.InvalidHeader),
        FaultKind.GARBAGE,
    ),
    # Our own reads say which clock ran out; on a connection that is not ours, such as
    # a mocked one, urllib3 says only this.
    (urllib3.exceptions.ReadTimeoutError, FaultKind.IDLE),
)


def fault_of(error: Exception, phase: Phase, *, reused: bool, stopped: bool) -> Fault:
    """Say what an exception of requests, urllib3 or ssl means in this phase.

    The exception's type is trusted only where the phase leaves a doubt. What it holds
    of the request (key and prompt) is taken out of it, for it will be chained.
    """
    kind = FaultKind.STOPPED if stopped else _kind_of(error, phase)
    detail = "" if kind in _SAID else _innermost(error)
    forget_request(error)
    return Fault(kind, phase, detail, reused=reused)


def is_reset(error: BaseException) -> bool:
    """Tell whether the peer reset the connection."""
    return any(
        isinstance(link, ConnectionResetError)
        # Http.client's name for an end without an answer.
        and not isinstance(link, http.client.RemoteDisconnected)
        for link in chain_of(error)
    )


def forget_request(error: BaseException) -> None:
    """Take the request and the response out of an exception and all its causes.

    So are tracebacks, whose frames hold them too and keep a socket alive, and a line
    that the server sent: it may repeat what it was told.
    """
    for link in chain_of(error):
        link.__traceback__ = None
        for name in ("request", "response"):
            if getattr(link, name, None) is not None:
                setattr(link, name, None)
        if isinstance(link, http.client.BadStatusLine):
            link.line = ""  # type: ignore[attr-defined]  # unknown to typeshed
            link.args = ()


def _kind_of(error: Exception, phase: Phase) -> FaultKind:
    for kinds, kind in _BY_TYPE:
        if isinstance(error, kinds):
            return kind
    links = list(chain_of(error))
    if any(map(is_exhausted, links)):
        return FaultKind.NO_DESCRIPTOR
    table = _WHILE_CONNECTING if phase is Phase.CONNECT else _AFTER_SENDING
    for kinds, kind in table:
        if any(isinstance(link, kinds) for link in links):
            if kind is FaultKind.CONNECT_TIMEOUT and any(map(in_handshake, links)):
                return FaultKind.HANDSHAKE_TIMEOUT
            return _tls_kind_of(links) if kind is FaultKind.TLS else kind
    return FaultKind.REFUSED if phase is Phase.CONNECT else FaultKind.LOST


def is_exhausted(error: BaseException) -> bool:
    """Tell whether it was a lack of file descriptors, which is no server's fault."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)


def in_handshake(error: BaseException) -> bool:
    """Tell whether it was a TLS handshake that took too long."""
    # The ssl module says so, and has no type for it.
    return isinstance(error, TimeoutError) and "handshake" in str(error)


def _tls_kind_of(links: list[BaseException]) -> FaultKind:
    if any(
        isinstance(link, ssl.SSLError) and getattr(link, "reason", None) in _NOT_TLS
        for link in links
    ):
        return FaultKind.NOT_TLS
    return FaultKind.TLS


def chain_of(
    error: BaseException, without: BaseException | None = None
) -> Iterator[BaseException]:
    """Yield the exception and everything it was raised from, once each.

    urllib3 keeps the reason of a failure in an attribute or an argument as well.
    ``without`` leaves out one link, and whatever only that one leads to.
    """
    seen: set[int] = {id(without)}
    todo: list[object] = [error]
    while todo:
        link = todo.pop(0)
        if not isinstance(link, BaseException) or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        todo += (link.__cause__, link.__context__, getattr(link, "reason", None))
        todo += link.args


def _innermost(error: BaseException) -> str:
    """Describe the operating system's or http.client's word on the matter."""
    for link in reversed(list(chain_of(error))):
        if isinstance(link, http.client.IncompleteRead):
            return "the body is incomplete"
        if isinstance(link, http.client.RemoteDisconnected):
            return "closed without an answer"
        if isinstance(link, requests.exceptions.RequestException):
            continue
        if isinstance(link, OSError) and link.strerror:
            return str(link.strerror)
        if isinstance(link, (OSError, http.client.HTTPException)):
            name = type(link).__name__
            return f"{name}: {link}" if str(link) else name
    return type(error).__name__
