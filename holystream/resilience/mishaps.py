"""The one table: what went wrong on an attempt -> what it means and what to say.

`FAULTS` answers for every kind of fault in every phase. Where the server said itself
what is wrong, by status or by an event inside the stream, the tables of refusals.py do.
classify.py builds errors by both.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, TypeAlias

from holystream.errors import (
    APIError,
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
from holystream.resilience.refusals import PROXY_LOGIN as LOG_IN
from holystream.wire.faults import FaultKind

if TYPE_CHECKING:
    from collections.abc import Mapping


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
            Verdict.NOT_SENT,
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

UNSTREAMED: Final = Row(
    Verdict.FATAL,
    NotAnEventStream,
    "the answer is not an event stream",
    "This server did not stream, though it was asked to: check it, and any proxy in "
    "between.",
)
PROXY_LOGIN: Final = dataclasses.replace(FAULTS[FaultKind.PROXY][0], advice=LOG_IN)
