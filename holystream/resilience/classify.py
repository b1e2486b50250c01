"""The one table: what went wrong on an attempt -> what it means and what to say.

`FAULTS` answers for every kind of fault in every phase. Where the server said itself
what is wrong, by status or by an event inside the stream, the tables of refusals.py do.

`error_from` builds the typed error. Its message says what happened and what to do, in
that order. Text from upstream is untrusted: it is cut, stripped of control characters
and of every secret that the caller names.
"""

from __future__ import annotations

import dataclasses
import re
import time
from typing import TYPE_CHECKING, Final, TypeAlias

from holystream.errors import (
    APIError,
    AuthenticationError,
    CertificateError,
    ConnectionFailed,
    ConnectionLost,
    ConnectTimeout,
    DeadlineExceeded,
    FirstTokenTimeout,
    IdleTimeout,
    IncompleteAnswer,
    LimitExceeded,
    MalformedEvent,
    NotAnEventStream,
    ProtocolError,
    ProxyFailed,
    ServerError,
    StreamCancelled,
    StreamError,
    StreamInterrupted,
    TokenIdleTimeout,
    UnexpectedRedirect,
    Verdict,
)
from holystream.resilience.hints import server_hint, should_retry
from holystream.resilience.redact import fit_for_a_message, one_line_each
from holystream.resilience.refusals import (
    OWN_KEY,
    PROXY_LOGIN,
    is_api_error,
    meaning_of,
    status_of,
)
from holystream.wire.faults import FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from holystream.clocks import Timeouts
    from holystream.wire.faults import Fault, Refusal


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One answer of the table.

    Attributes:
        verdict: What it means for the next attempt.
        error: The class of the typed error.
        happened: What happened; ``{connect:g}`` and the like are the `Timeouts`.
        advice: What to do about it, as whole sentences.
    """

    verdict: Verdict
    error: type[StreamError]
    happened: str
    advice: str = ""


_Phases: TypeAlias = tuple[Row, Row, Row, Row]


def _always(row: Row) -> _Phases:
    return row, row, row, row


def _split(error: type[StreamError], happened: str, advice: str = "") -> _Phases:
    """One happening, whose meaning depends on how far the attempt got."""
    before = error if issubclass(error, ProtocolError) else ConnectionFailed
    return (
        Row(Verdict.NOT_SENT, before, happened, advice),
        Row(Verdict.NO_ANSWER, error, happened, advice),
        Row(Verdict.INTERRUPTED, error, happened, advice),
        Row(Verdict.INTERRUPTED, error, happened, advice),
    )


_NETWORK = "Check the network, the base URL and any firewall or proxy."

FAULTS: Final[Mapping[FaultKind, _Phases]] = {
    FaultKind.NAME_RESOLUTION: _always(
        Row(
            Verdict.NOT_SENT,
            ConnectionFailed,
            "the host name could not be resolved",
            "Check base_url and the name server.",
        )
    ),
    FaultKind.REFUSED: _always(
        Row(
            Verdict.NOT_SENT,
            ConnectionFailed,
            "the connection could not be made",
            _NETWORK,
        )
    ),
    FaultKind.CONNECT_TIMEOUT: _always(
        Row(
            Verdict.NOT_SENT,
            ConnectTimeout,
            "no connection within Timeouts.connect={connect:g} s",
            _NETWORK,
        )
    ),
    FaultKind.HANDSHAKE_TIMEOUT: _always(
        Row(
            Verdict.NOT_SENT,
            ConnectTimeout,
            "the TLS handshake did not finish within Timeouts.connect={connect:g} s",
            "If the server speaks plain HTTP on this port, write http:// instead of "
            "https://; else check the network and any firewall or proxy.",
        )
    ),
    FaultKind.PROXY: _always(
        Row(
            Verdict.NOT_SENT,
            ProxyFailed,
            "the proxy refused or could not be reached",
            "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY.",
        )
    ),
    FaultKind.CERTIFICATE: _always(
        Row(
            Verdict.FATAL,
            CertificateError,
            "the server's certificate is not trusted",
            "Check the clock of this machine and its certificate authorities; behind "
            "a company proxy, point REQUESTS_CA_BUNDLE at its certificate.",
        )
    ),
    FaultKind.TLS: _split(
        ConnectionLost,
        "the TLS connection failed",
        "If it fails every time, check that base_url names an https port.",
    ),
    FaultKind.NOT_TLS: _always(
        Row(
            Verdict.FATAL,
            ConnectionFailed,
            "the server does not speak TLS on this port",
            "If it speaks plain HTTP, write http:// instead of https://; else name its "
            "https port.",
        )
    ),
    FaultKind.LOST: _split(ConnectionLost, "the connection broke"),
    FaultKind.GARBAGE: _split(
        ProtocolError,
        "the answer is not HTTP",
        "Check that base_url names the API and not another service.",
    ),
    FaultKind.ENDED: _split(
        IncompleteAnswer,
        "the stream ended without evidence that the answer is complete",
    ),
    FaultKind.FIRST_TOKEN: _split(
        FirstTokenTimeout,
        "no content within Timeouts.first_token={first_token:g} s",
        "Raise it for models that think or queue for long.",
    ),
    FaultKind.IDLE: _split(
        IdleTimeout,
        "not one byte within Timeouts.idle={idle:g} s",
        "Raise it for models that pause for longer without a sign of life.",
    ),
    FaultKind.TOKEN_IDLE: _split(
        TokenIdleTimeout,
        "no content, only signs of life, within Timeouts.token_idle={token_idle:g} s",
        "Raise it for models that pause for longer.",
    ),
    FaultKind.TAIL: _split(
        IncompleteAnswer, "nothing followed the finish reason, not even an end"
    ),
    FaultKind.DEADLINE: _always(
        Row(
            Verdict.FATAL,
            DeadlineExceeded,
            "the deadline of the stream passed",
            "Raise deadline= if the answer may take longer.",
        )
    ),
    FaultKind.STATUS: _always(
        Row(
            Verdict.FATAL,
            APIError,
            "the server answered with an error that could not be read",
        )
    ),
    FaultKind.NOT_EVENT_STREAM: _always(
        Row(
            Verdict.FATAL,
            NotAnEventStream,
            "the answer is not an event stream",
            "Check base_url: it usually ends in /v1.",
        )
    ),
    FaultKind.REDIRECT: _always(
        Row(
            Verdict.FATAL,
            UnexpectedRedirect,
            "the server redirected to where the key and the prompt must not follow",
            "If the target is right, make it the base_url.",
        )
    ),
    FaultKind.TOO_LARGE: _always(
        Row(
            Verdict.FATAL,
            LimitExceeded,
            "a line or an event exceeds its limit",
            "No answer has one that long: check what answers there.",
        )
    ),
    FaultKind.CODING: _always(
        Row(
            Verdict.FATAL,
            ProtocolError,
            "the body is compressed in a way that is not read here",
            "None was asked for; gzip or deflate is read, once.",
        )
    ),
    FaultKind.ENCODING: _always(
        Row(Verdict.FATAL, ProtocolError, "the compressed body is corrupt")
    ),
    FaultKind.MALFORMED: _always(
        Row(Verdict.INTERRUPTED, MalformedEvent, "an event could not be parsed")
    ),
    FaultKind.ERROR_EVENT: _always(
        Row(
            Verdict.INTERRUPTED,
            ServerError,
            "the server reported an error inside the stream",
        )
    ),
    FaultKind.SEAM_MISMATCH: _always(
        Row(
            Verdict.INTERRUPTED,
            StreamInterrupted,
            "what came over the new connection is not the answer that was delivered",
            'Allow resume=(..., "restart") if a new text is acceptable.',
        )
    ),
    FaultKind.NOT_CONTINUED: _always(
        Row(
            Verdict.INTERRUPTED,
            StreamInterrupted,
            "the server does not go on with an answer in the way it was asked to",
        )
    ),
    FaultKind.NO_DESCRIPTOR: _always(
        Row(
            Verdict.FATAL,
            ConnectionFailed,
            "nothing was sent, since this process has as many files and sockets open "
            "as it may",
            "Close what is left open, let fewer streams run at once, or raise the "
            "limit (ulimit -n).",
        )
    ),
    FaultKind.BAD_URL: _always(
        Row(
            Verdict.FATAL,
            ConnectionFailed,
            "the URL cannot be used",
            "Check base_url, and HTTPS_PROXY and HTTP_PROXY if they are set.",
        )
    ),
    FaultKind.STOPPED: _always(
        Row(Verdict.CANCELLED, StreamCancelled, "the stream was cancelled")
    ),
}
"""Kind of fault -> what it means in CONNECT, SENT, HEADERS and BODY."""

_UNSTREAMED: Final = Row(
    Verdict.FATAL,
    NotAnEventStream,
    "the answer is not an event stream",
    "This server did not stream, though it was asked to: check it, and any proxy in "
    "between.",
)
_PROXY_LOGIN: Final = dataclasses.replace(
    FAULTS[FaultKind.PROXY][0], advice=PROXY_LOGIN
)


def error_from(
    fault: Fault,
    refusal: Refusal | None,
    *,
    key_variable: str,
    timeouts: Timeouts,
    provider: str,
    own_key: bool = False,
    secrets: Collection[str] = (),
    reworded: Callable[[str], str] = str,
    wall_now: float | None = None,
) -> StreamError:
    """Build the typed error that a fault means, ready to be described and raised.

    ``verdict``, ``phase`` and ``retry_after`` are set; what only the stream knows is
    left to `StreamError.describe`.

    Args:
        fault: What ended the attempt.
        refusal: What the server said, read by the provider; None if it said nothing.
        key_variable: The environment variable that holds the API key.
        timeouts: The limits that the message may name.
        provider: The provider's name, for the message.
        own_key: The key is its `Endpoint`'s own.
        secrets: Configured keys, and whatever else must not be in a message.
        reworded: Puts an advice into words that suit the caller.
        wall_now: Seconds since 1970, for hints that are moments where the server sent
            no ``Date``; the machine's clock by default.
    """
    unsaid = one_line_each(secrets)
    if refusal is not None and _speaks_for_the_api(fault, refusal):
        now = time.time() if wall_now is None else wall_now
        return _api_error(
            fault,
            refusal,
            key_variable=key_variable,
            provider=provider,
            own_key=own_key,
            secrets=unsaid,
            reworded=reworded,
            wall_now=now,
        )
    row = _row(fault, refusal)
    happened = f"{provider}: " + reworded(row.happened).format(
        connect=timeouts.connect,
        first_token=timeouts.first_token,
        idle=timeouts.idle,
        token_idle=timeouts.token_idle,
    )
    detail = fault.detail
    if refusal is not None and fault.kind is FaultKind.NOT_EVENT_STREAM:
        # What it is, and what it says. The body of a redirect says nothing.
        said = "it holds a whole answer" if refusal.whole_answer else refusal.message
        detail = ": ".join(filter(None, (detail, said)))
    detail = fit_for_a_message(detail, unsaid)
    if detail and detail != fault.kind.value:
        happened = f"{happened}: {detail}"
    error = row.error(_sentences(happened, reworded(row.advice)))
    error.verdict = row.verdict
    error.phase = fault.phase
    return error


def _row(fault: Fault, refusal: Refusal | None) -> Row:
    """Return what the table says of a fault, or what its particulars say better."""
    if fault.kind is FaultKind.NOT_EVENT_STREAM and refusal and refusal.whole_answer:
        return _UNSTREAMED
    if fault.kind is FaultKind.PROXY and _PROXY_STATUS.search(fault.detail):
        return _PROXY_LOGIN
    return FAULTS[fault.kind][fault.phase]


_PROXY_STATUS: Final = re.compile(r"\b407\b")


def _speaks_for_the_api(fault: Fault, refusal: Refusal) -> bool:
    if fault.kind in {FaultKind.STATUS, FaultKind.ERROR_EVENT}:
        return True
    # Some gateways answer 200 with an error in JSON and the true status inside it.
    return fault.kind is FaultKind.NOT_EVENT_STREAM and is_api_error(refusal)


def _api_error(
    fault: Fault,
    refusal: Refusal,
    *,
    key_variable: str,
    provider: str,
    own_key: bool,
    secrets: list[str],
    reworded: Callable[[str], str],
    wall_now: float,
) -> APIError:
    status = status_of(refusal)
    in_stream = fault.kind is FaultKind.ERROR_EVENT
    headers = fault.answer.headers if fault.answer is not None else {}
    hint = None
    if not in_stream:
        # The headers of a 200 speak of the request that was accepted, not of an error.
        hint = server_hint(headers, wall_now, status=status)
    if hint is None:
        hint = refusal.retry_after
    meaning = meaning_of(refusal, hinted=hint is not None, in_stream=in_stream)
    verdict = meaning.verdict
    if in_stream and verdict is Verdict.SERVER_ERROR:
        verdict = Verdict.INTERRUPTED
    elif not in_stream and (word := should_retry(headers)) is not None:
        verdict = _overruled(verdict, retry=word)
    code = fit_for_a_message(refusal.code or "", secrets) or None
    kind = fit_for_a_message(refusal.type or "", secrets) or None
    named = code or kind
    if in_stream:
        happened = f"{provider} reported an error inside the stream"
        named = named or (str(status) if status is not None else None)
    else:
        happened = f"{provider} answered {'' if status is None else status}".rstrip()
    if named is not None and named != str(status):
        happened += f" ({named})"
    said = fit_for_a_message(refusal.message, secrets)
    if said:
        happened += f": {said}"
    advice = reworded(meaning.advice).format(key_variable=key_variable)
    if own_key and meaning.error is AuthenticationError:
        advice = OWN_KEY
    error = meaning.error(
        _sentences(happened, advice), status=status, code=code, type=kind
    )
    error.verdict = verdict
    error.phase = fault.phase
    error.retry_after = hint
    return error


def _overruled(verdict: Verdict, *, retry: bool) -> Verdict:
    if not retry:
        return Verdict.FATAL
    return Verdict.SERVER_ERROR if verdict is Verdict.FATAL else verdict


def _sentences(happened: str, advice: str) -> str:
    if not advice:
        return happened
    return f"{happened}{'' if happened.endswith(('.', '!', '?')) else '.'} {advice}"
