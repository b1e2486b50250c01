"""What each exception of the libraries means, in each phase."""

from __future__ import annotations

import http.client
import pickle
import socket
import ssl

import pytest
import requests.exceptions as rq
import urllib3.exceptions as u3

from holystream.errors import Phase
from holystream.wire import faults
from holystream.wire.faults import (
    LIBRARY_ERRORS,
    Fault,
    FaultKind,
    fault_of,
    forget_request,
    is_reset,
)
from holystream.wire.sse import LimitError

CONNECT, SENT, HEADERS, BODY = Phase
LATER = (SENT, HEADERS, BODY)


class _Pool:
    """What urllib3 hangs on its exceptions."""

    host, port, scheme = "api.test", 443, "https"

    def __repr__(self):
        return "<pool>"


def chained(outer, *inner):
    """Raise the innermost, each other one from it, and return the outer."""
    error = None
    for link in (*reversed(inner), outer):
        try:
            raise link from error  # noqa: TRY301 - for its traceback
        except Exception as caught:  # noqa: BLE001 - whatever was given
            error = caught
    return error


def max_retries(reason):
    """As requests reports what urllib3 gave up on: the reason is an attribute."""
    return u3.MaxRetryError(_Pool(), "/v1/chat/completions", reason)


def timeout():
    return TimeoutError("timed out")


def verification():
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "unable to get local issuer certificate"
    return error


def not_tls(reason):
    """What a server that answers a handshake in another language causes."""
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


CASES = [
    # What happened, the exception, and its kind while connecting and later.
    (
        "refused",
        lambda: rq.ConnectionError(
            max_retries(
                u3.NewConnectionError(None, "[Errno 111] Connection refused"),
            )
        ),
        FaultKind.REFUSED,
        FaultKind.LOST,
    ),
    (
        "reset",
        lambda: chained(
            rq.ConnectionError(
                u3.ProtocolError("Connection aborted.", ConnectionResetError(104, "R"))
            ),
            ConnectionResetError(104, "Connection reset by peer"),
        ),
        FaultKind.REFUSED,
        FaultKind.LOST,
    ),
    (
        "TLS handshake never answered",
        lambda: chained(
            rq.ReadTimeout(u3.ReadTimeoutError(_Pool(), "/", "Read timed out.")),
            timeout(),
        ),
        FaultKind.CONNECT_TIMEOUT,
        FaultKind.IDLE,
    ),
    (
        "connect timeout",
        lambda: chained(
            rq.ConnectTimeout(max_retries(u3.ConnectTimeoutError())), timeout()
        ),
        FaultKind.CONNECT_TIMEOUT,
        FaultKind.LOST,
    ),
    (
        "bad certificate",
        lambda: rq.SSLError(max_retries(u3.SSLError(verification()))),
        FaultKind.CERTIFICATE,
        FaultKind.LOST,
    ),
    (
        "bad certificate of a proxy",
        lambda: rq.ProxyError(max_retries(u3.ProxyError("x", verification()))),
        FaultKind.CERTIFICATE,
        FaultKind.LOST,
    ),
    (
        "TLS EOF",
        lambda: chained(
            rq.SSLError(max_retries(u3.SSLError(ssl.SSLEOFError(8, "EOF")))),
            ssl.SSLEOFError(8, "EOF occurred in violation of protocol"),
        ),
        FaultKind.TLS,
        FaultKind.LOST,
    ),
    (
        "TLS to a plain port",
        lambda: rq.SSLError(not_tls("WRONG_VERSION_NUMBER")),
        FaultKind.NOT_TLS,
        FaultKind.LOST,
    ),
    (
        "proxy refused",
        lambda: rq.ProxyError(
            max_retries(
                u3.ProxyError(
                    "Unable to connect to proxy",
                    OSError("Tunnel connection failed: 503 Service Unavailable"),
                )
            )
        ),
        FaultKind.PROXY,
        FaultKind.LOST,
    ),
    (
        "closed without an answer",
        lambda: rq.ConnectionError(
            u3.ProtocolError("aborted", http.client.RemoteDisconnected("no response"))
        ),
        FaultKind.REFUSED,
        FaultKind.LOST,
    ),
    (
        "garbage",
        lambda: rq.ConnectionError(
            u3.ProtocolError("aborted", http.client.BadStatusLine("SSH-2.0"))
        ),
        FaultKind.REFUSED,
        FaultKind.GARBAGE,
    ),
    (
        "cut in the body",
        lambda: rq.ChunkedEncodingError(
            u3.ProtocolError("broken", http.client.IncompleteRead(b"half", 100))
        ),
        FaultKind.REFUSED,
        FaultKind.LOST,
    ),
    (
        "cut in the body, below requests",
        lambda: u3.ProtocolError("broken", ConnectionResetError(104, "reset")),
        FaultKind.REFUSED,
        FaultKind.LOST,
    ),
    (
        "silence in the body",
        lambda: rq.ConnectionError(u3.ReadTimeoutError(_Pool(), "/", "timed out")),
        FaultKind.REFUSED,
        FaultKind.IDLE,
    ),
    ("an error of the system", lambda: OSError(113, "No route"), "REFUSED", "LOST"),
    (
        "a port without TLS, by OpenSSL 3.2",
        lambda: rq.SSLError(
            max_retries(u3.SSLError(not_tls("RECORD_LAYER_FAILURE"))),
        ),
        FaultKind.NOT_TLS,
        FaultKind.LOST,
    ),
    (
        "a handshake that was refused",
        lambda: rq.SSLError(not_tls("TLSV1_ALERT_INTERNAL_ERROR")),
        FaultKind.TLS,
        FaultKind.LOST,
    ),
    (
        "corrupt gzip",
        lambda: rq.ContentDecodingError(u3.DecodeError("incorrect header check")),
        FaultKind.ENCODING,
        FaultKind.ENCODING,
    ),
    (
        "too large",
        lambda: LimitError("a line exceeds 8 bytes"),
        FaultKind.TOO_LARGE,
        FaultKind.TOO_LARGE,
    ),
    *(
        (kind.__name__, lambda kind=kind: kind("no such URL"), "BAD_URL", "BAD_URL")
        for kind in (
            rq.InvalidURL,
            rq.InvalidSchema,
            rq.MissingSchema,
            rq.InvalidProxyURL,
        )
    ),
    ("a header", lambda: rq.InvalidHeader("two lengths"), "BAD_URL", "GARBAGE"),
    (
        "a header, by urllib3",
        lambda: u3.ProtocolError("x", u3.InvalidHeader("two lengths")),
        "REFUSED",
        "GARBAGE",
    ),
]


def _kind(kind):
    return FaultKind[kind] if isinstance(kind, str) else kind


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize(
    ("make", "connecting", "later"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_the_kind_of_a_fault(make, connecting, later, phase):
    error = make()
    assert isinstance(error, LIBRARY_ERRORS)
    fault = fault_of(error, phase, reused=phase is BODY, stopped=False)
    assert fault.kind is _kind(connecting if phase is CONNECT else later)
    assert fault.phase is phase
    assert fault.reused is (phase is BODY)
    assert fault.answer is None
    assert fault.request_id is None


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("make", [case[1] for case in CASES])
def test_after_a_stop_everything_is_the_stops_doing(make, phase):
    fault = fault_of(make(), phase, reused=False, stopped=True)
    assert fault.kind is FaultKind.STOPPED
    assert fault.detail == ""


@pytest.mark.parametrize("phase", LATER)
def test_a_timeout_below_urllib3_after_sending_is_no_clock_of_ours(phase):
    """Our own clocks raise faults; a bare one came from the system: ETIMEDOUT."""
    error = u3.ProtocolError("broken", TimeoutError(110, "Connection timed out"))
    fault = fault_of(error, phase, reused=False, stopped=False)
    assert fault.kind is FaultKind.LOST
    assert "timed out" in fault.detail


class TestDetail:
    """The word of whoever knows best, and no word of the request."""

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
            (http.client.IncompleteRead(b"secret", 9), "the body is incomplete"),
            (http.client.RemoteDisconnected("end"), "closed without an answer"),
            (http.client.BadStatusLine("SSH-2.0"), "BadStatusLine: SSH-2.0"),
            (OSError("Tunnel connection failed: 503"), "OSError: Tunnel connection"),
            (socket.gaierror(-2, "Name not known"), "Name not known"),
            (http.client.LineTooLong("header line"), "LineTooLong"),
        ],
    )
    def test_is_the_innermost(self, error, words):
        outer = chained(rq.ConnectionError(u3.ProtocolError("aborted", error)), error)
        fault = fault_of(outer, SENT, reused=False, stopped=False)
        assert words in fault.detail
        assert "secret" not in fault.detail

    def test_without_one_is_the_name_of_the_exception(self):
        error = rq.InvalidURL("http://key@host")
        fault = fault_of(error, CONNECT, reused=False, stopped=False)
        assert fault.detail == "InvalidURL"

    def test_is_what_the_fault_says_else_its_kind(self):
        assert str(Fault(FaultKind.LOST, BODY, "reset")) == "reset"
        assert str(Fault(FaultKind.LOST, BODY)) == FaultKind.LOST.value


class TestForgetting:
    @staticmethod
    def prepared():
        import requests

        request = requests.Request(
            "POST", "http://api.test/", headers={"Authorization": "KEY"}, data="PROMPT"
        )
        return request.prepare()

    def test_takes_the_request_out_of_every_link(self):
        import requests

        response = requests.Response()
        response.request = self.prepared()
        inner = rq.ConnectionError("inner", request=self.prepared())
        outer = rq.ChunkedEncodingError(inner, response=response)
        outer = chained(outer, rq.SSLError("cause", request=self.prepared()))
        assert b"PROMPT" in pickle.dumps(outer)
        forget_request(outer)
        for link in (outer, inner, outer.__cause__):
            assert link.request is None
            assert link.response is None
            assert link.__traceback__ is None
            assert b"PROMPT" not in pickle.dumps(link)
            assert b"KEY" not in pickle.dumps(link)

    def test_takes_out_what_a_server_sent_for_a_status_line(self):
        inner = http.client.BadStatusLine("you said KEY")
        outer = rq.ConnectionError(u3.ProtocolError("aborted", inner))
        forget_request(outer)
        assert "KEY" not in repr(outer) + str(outer) + repr(vars(inner))

    def test_knows_chains_that_bite_their_tail(self):
        first, second = OSError("a"), OSError("b")
        first.__cause__, second.__cause__ = second, first
        assert list(faults.chain_of(first)) == [first, second]
        forget_request(first)

    def test_a_fault_forgets_by_itself(self):
        error = rq.ReadTimeout(request=self.prepared())
        fault_of(error, SENT, reused=False, stopped=False)
        assert error.request is None


def test_is_reset_looks_at_every_link():
    inner = ConnectionResetError(104, "reset")
    assert is_reset(rq.ConnectionError(u3.ProtocolError("aborted", inner)))
    assert not is_reset(rq.ConnectionError(u3.ProtocolError("aborted", OSError())))
