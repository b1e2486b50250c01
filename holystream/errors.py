"""Every error holystream raises, what it means for a retry, and what it keeps.

The tree (each class is raised somewhere, documented in docs/errors.md and picklable)::

    HolystreamError
    |- ConfigurationError           a setting of the client is wrong      (ValueError)
    |  `- InvalidAPIKey             the key is missing or malformed
    |- InvalidRequest               a wrong request; nothing was sent     (ValueError)
    |- ResumeTokenInvalid           no token, or not that of this text    (ValueError)
    |- StreamInUse                  two threads iterate one stream        (RuntimeError)
    |- JournalError                 the journal did not do what it was asked
    |  |- JournalUnavailable        it cannot be opened, read or written now
    |  |- JournalCorrupt            it is damaged, or no journal at all
    |  |- JournalVersion            a newer version of holystream wrote it
    |  |- StreamExists              a stream of that id is in it already
    |  |- StreamUnknown             no stream of that id is in it
    |  |- StreamBusy                the stream's owner is alive
    |  |- StreamFinished            the stream has ended: it can only be read
    |  `- Fenced                    another owner took the stream over
    `- StreamError                  a stream ended without a complete answer
       |- ConnectionFailed          no connection: the request was not sent
       |  |- ConnectTimeout         not within ``Timeouts.connect``
       |  |- ProxyFailed            the proxy refused
       |  `- CertificateError       the server's certificate is not trusted
       |- ConnectionLost            the connection broke after the request was sent
       |  `- IncompleteAnswer       a clean end without evidence of completion
       |- StreamTimeout             a clock ran out                       (TimeoutError)
       |  |- FirstTokenTimeout      no content within ``Timeouts.first_token``
       |  |- IdleTimeout            not one byte within ``Timeouts.idle``
       |  |- TokenIdleTimeout       bytes, no content, within ``Timeouts.token_idle``
       |  `- DeadlineExceeded       the stream's own deadline passed
       |- ProtocolError             the server did not speak as it should
       |  |- NotAnEventStream       status 200, but HTML, JSON or nothing
       |  |- MalformedEvent         an event that does not parse
       |  |- LimitExceeded          a line or an event beyond its byte limit
       |  `- UnexpectedRedirect     a redirect we do not follow
       |- APIError                  the API said no, by status or by an error event
       |  |- AuthenticationError    401
       |  |- PermissionDenied       403
       |  |- NotFound               404
       |  |  `- ModelNotFound       the model, not the path
       |  |- BadRequest             400, 413, 422 and other 4xx
       |  |  |- ContextLengthExceeded
       |  |  `- ContentFiltered     the prompt was refused by a filter
       |  |- RateLimited            429: later it works
       |  |- QuotaExceeded          402 or 429: the account has no credit left
       |  `- ServerError            5xx
       |     `- Overloaded          503, 529
       |- StreamInterrupted         text was delivered and could not be continued
       |- RestartRequired           an append-only reader met a withdrawn text
       |- GuaranteeNotMet           weaker than ``min_guarantee=``
       |- StreamCancelled           ``cancel()`` was called
       |- StreamClosed              ``close()`` was called before the end
       |- CircuitOpen               every endpoint is left alone for now
       `- PoolError                 no permit to open a connection
          |- QueueFull              ``max_queue`` callers wait already
          `- QueueTimeout           none came free in time                (TimeoutError)

No error, nor its chained causes, holds an API key, a prompt or a request object.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class Phase(enum.IntEnum):
    """How far an attempt got, in order."""

    CONNECT = 0
    """Resolving, connecting, or in the TLS handshake: the request was not sent."""
    SENT = 1
    """The request, or part of it, is on the wire; no answer yet."""
    HEADERS = 2
    """The status line and headers arrived."""
    BODY = 3
    """Bytes of the body arrived."""


class Verdict(enum.Enum):
    """What a fault means for the next attempt."""

    NOT_SENT = "not sent"
    """Nothing reached the server: try again, and elsewhere, at no cost."""
    NO_ANSWER = "no answer"
    """Sent, but no answer: it may have been billed."""
    INTERRUPTED = "interrupted"
    """The answer broke off: resume."""
    THROTTLED = "throttled"
    """The server asks for fewer requests."""
    SERVER_ERROR = "server error"
    """The server failed and says so."""
    FATAL = "fatal"
    """Trying again cannot help."""
    CANCELLED = "cancelled"
    """The caller ended it."""


class HolystreamError(Exception):
    """Base of every error that holystream raises."""

    def __reduce__(
        self,
    ) -> tuple[Callable[..., HolystreamError], tuple[Any, ...]]:
        """Pickle by class, message and attributes; the traceback stays behind."""
        return _restore, (type(self), self.args, dict(self.__dict__))


def _restore(
    kind: type[HolystreamError], args: tuple[Any, ...], state: dict[str, Any]
) -> HolystreamError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class ConfigurationError(HolystreamError, ValueError):
    """A setting of the client is wrong. Nothing was sent."""


class InvalidAPIKey(ConfigurationError):
    """The API key is missing or cannot be one. Nothing was sent."""


class InvalidRequest(HolystreamError, ValueError):
    """An argument of the request is wrong. Nothing was sent."""


class ResumeTokenInvalid(HolystreamError, ValueError):
    """A resume token is damaged, or of another request or text. Nothing was sent."""


class StreamInUse(HolystreamError, RuntimeError):
    """A second thread tried to iterate a stream that another one is reading."""


class JournalError(HolystreamError):
    """The journal did not do what it was asked; what it had acknowledged is kept."""


class JournalUnavailable(JournalError):
    """The journal cannot be opened, read or written for now, or was closed."""


class JournalCorrupt(JournalError):
    """What is stored cannot be read: it is damaged, or no journal at all."""


class JournalVersion(JournalError):
    """The journal, or an event in it, was written by a newer version of holystream."""


class StreamExists(JournalError):
    """The journal holds a stream of that id already."""


class StreamUnknown(JournalError):
    """The journal holds no stream of that id: it never did, or it was swept."""


class StreamBusy(JournalError):
    """The stream cannot be taken over while its owner is alive.

    Attributes:
        owner: Who has it: process id and a random part.
    """

    def __init__(self, message: str, *, owner: str = "") -> None:
        super().__init__(message)
        self.owner = owner


class StreamFinished(JournalError):
    """The stream has ended: it can be read, but not claimed or written."""


class Fenced(JournalError):
    """The claim no longer holds: another owner took over, or it was let go."""


class StreamError(HolystreamError):
    """A stream ended without a complete answer.

    Attributes:
        partial_text: All text that was received: a true prefix of an answer.
        stream_id: The stream's own id.
        request_id: The server's id of the last request, else the one we sent.
        endpoint: The configured name of the endpoint (never its URL).
        phase: How far the last attempt got, or None before the first.
        attempts: Connections that were tried.
        retry_after: Seconds to wait before another try, as the server asked, or None.
        verdict: What the fault means for another try.
        exhausted: It would have been tried again, had the retry policy allowed it.
    """

    default_verdict: ClassVar[Verdict] = Verdict.FATAL

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.partial_text: str = ""
        self.stream_id: str | None = None
        self.request_id: str | None = None
        self.endpoint: str | None = None
        self.phase: Phase | None = None
        self.attempts: int = 0
        self.retry_after: float | None = None
        self.verdict: Verdict = self.default_verdict
        self.exhausted: bool = False

    @property
    def message(self) -> str:
        """What happened and what to do, without the particulars of this stream."""
        return str(self.args[0])

    def describe(
        self,
        *,
        partial_text: str,
        stream_id: str,
        request_id: str | None,
        endpoint: str | None,
        attempts: int,
    ) -> Self:
        """Tell the error which stream it ended and what was kept; return it."""
        self.partial_text = partial_text
        self.stream_id = stream_id
        self.request_id = request_id
        self.endpoint = endpoint
        self.attempts = attempts
        return self

    def __str__(self) -> str:
        facts = []
        if self.partial_text:
            facts.append(f"{len(self.partial_text)} characters kept in .partial_text")
        if self.retry_after is not None:
            facts.append(f"retry after {round(self.retry_after, 2):g} s")
        if self.attempts:
            facts.append(f"attempts: {self.attempts}")
        if self.phase is not None:
            facts.append(f"phase: {self.phase.name}")
        facts.extend(
            f"{name}: {value}"
            for name in ("endpoint", "request_id", "stream_id")
            if (value := getattr(self, name))
        )
        return f"{self.message} [{'; '.join(facts)}]" if facts else self.message


class ConnectionFailed(StreamError):
    """No connection could be made; the request was not sent."""

    default_verdict = Verdict.NOT_SENT


class ConnectTimeout(ConnectionFailed):
    """Name resolution, connection and TLS took longer than ``Timeouts.connect``."""


class ProxyFailed(ConnectionFailed):
    """The configured proxy refused or could not be reached."""


class CertificateError(ConnectionFailed):
    """The server's TLS certificate is not trusted."""

    default_verdict = Verdict.FATAL


class ConnectionLost(StreamError):
    """The connection broke after the request was sent."""

    default_verdict = Verdict.INTERRUPTED


class IncompleteAnswer(ConnectionLost):
    """The stream ended cleanly, but nothing proves that the answer is complete."""


class StreamTimeout(StreamError, TimeoutError):
    """One of the stream's clocks ran out."""

    default_verdict = Verdict.INTERRUPTED


class FirstTokenTimeout(StreamTimeout):
    """No content arrived within ``Timeouts.first_token`` seconds."""


class IdleTimeout(StreamTimeout):
    """Not one byte arrived within ``Timeouts.idle`` seconds."""


class TokenIdleTimeout(StreamTimeout):
    """Bytes arrived, but no content within ``Timeouts.token_idle`` seconds."""


class DeadlineExceeded(StreamTimeout):
    """The deadline for the whole stream passed."""

    default_verdict = Verdict.FATAL


class ProtocolError(StreamError):
    """The server did not speak the protocol."""


class NotAnEventStream(ProtocolError):
    """The server answered 200 with something that is not an event stream."""


class MalformedEvent(ProtocolError):
    """An event could not be parsed."""

    default_verdict = Verdict.INTERRUPTED


class LimitExceeded(ProtocolError):
    """A line or an event is larger than its limit in bytes."""


class UnexpectedRedirect(ProtocolError):
    """The server redirected to where the key and the prompt must not follow."""


class APIError(StreamError):
    """The API refused the request or ended the answer with an error.

    Attributes:
        status: The HTTP status, or None when the error came as an event.
        code: The API's own error code, if it gave one.
        type: The API's own error type, if it gave one.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        type: str | None = None,  # noqa: A002 - the name that the APIs use
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.type = type


class AuthenticationError(APIError):
    """401: the API key was not accepted."""


class PermissionDenied(APIError):
    """403: the key may not do this."""


class NotFound(APIError):
    """404: no such resource."""


class ModelNotFound(NotFound):
    """The model does not exist or is not available to this key."""


class BadRequest(APIError):
    """The API found the request wrong."""


class ContextLengthExceeded(BadRequest):
    """The prompt and the answer do not fit into the model's context."""


class ContentFiltered(BadRequest):
    """A content filter refused the prompt."""


class RateLimited(APIError):
    """429: too many requests or tokens for now."""

    default_verdict = Verdict.THROTTLED


class QuotaExceeded(APIError):
    """The account's credit or quota is used up; waiting does not help."""


class ServerError(APIError):
    """The server failed."""

    default_verdict = Verdict.SERVER_ERROR


class Overloaded(ServerError):
    """The server or the model has no capacity for now."""


class StreamInterrupted(StreamError):
    """Text was delivered, the connection broke, and it could not be continued.

    Attributes:
        cause: The typed error of the last fault.
        resume_token: What `Client.resume` takes to try again, or None.
    """

    def __init__(self, message: str, *, cause: StreamError | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.resume_token: str | None = None
        if cause is not None:
            self.verdict = cause.verdict
            self.phase = cause.phase
            self.retry_after = cause.retry_after


class RestartRequired(StreamError):
    """The answer was begun anew, which a reader that only appends cannot show."""


class GuaranteeNotMet(StreamError):
    """The answer can only be had with a weaker guarantee than was asked for."""


class StreamCancelled(StreamError):
    """The stream was cancelled."""

    default_verdict = Verdict.CANCELLED


class StreamClosed(StreamError):
    """The stream was closed before its answer was complete."""

    default_verdict = Verdict.CANCELLED


class CircuitOpen(StreamError):
    """Whatever could take the request fails for now and is left alone.

    ``retry_after`` is in how many seconds one of them is tried again, or None where
    that is not known.
    """

    default_verdict = Verdict.NOT_SENT

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PoolError(StreamError):
    """No permit to open a connection could be had."""


class QueueFull(PoolError):
    """As many callers as may wait for a permit wait already."""


class QueueTimeout(PoolError, TimeoutError):
    """No permit came free in time."""
