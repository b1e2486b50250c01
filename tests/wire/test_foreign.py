"""What other libraries' exceptions say of the network."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl

import pytest
import requests
import urllib3.exceptions
from loopback import Peer, answer, certificates, read_request

from holystream.wire.foreign import answer_of, is_network_error

POOL = urllib3.connectionpool.HTTPConnectionPool("localhost")


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        ConnectionRefusedError(),
        BrokenPipeError(),
        TimeoutError(),
        socket.gaierror(socket.EAI_AGAIN, "later"),
        OSError(errno.EHOSTUNREACH, "no route"),
        ssl.SSLEOFError(),
        http.client.IncompleteRead(b"half"),
        http.client.RemoteDisconnected(),
        urllib3.exceptions.ProtocolError("cut"),
        urllib3.exceptions.ReadTimeoutError(POOL, "/", "silence"),
        urllib3.exceptions.MaxRetryError(
            POOL, "/", urllib3.exceptions.ProtocolError("cut")
        ),
        requests.exceptions.ConnectionError(),
        requests.exceptions.ReadTimeout(),
        requests.exceptions.ChunkedEncodingError(),
    ],
    ids=repr,
)
def test_of_the_network(error):
    assert is_network_error(error)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        FileNotFoundError(errno.ENOENT, "no such file"),
        PermissionError(errno.EACCES, "no"),
        OSError(errno.ENOSPC, "the disk is full"),
        ssl.SSLCertVerificationError(),
        http.client.CannotSendRequest(),
        urllib3.exceptions.LocationParseError("nowhere"),
        urllib3.exceptions.MaxRetryError(POOL, "/"),
        requests.exceptions.InvalidURL(),
        requests.exceptions.TooManyRedirects(),
        requests.exceptions.ContentDecodingError(),
        requests.exceptions.HTTPError(),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_not_of_the_network(error):
    assert not is_network_error(error)


def test_a_refused_connection_is_and_an_untrusted_certificate_is_not(tmp_path):
    context, _ = certificates(tmp_path)
    with Peer(read_request, tls=context) as peer:
        with pytest.raises(requests.exceptions.SSLError) as untrusted:
            requests.get(peer.url, timeout=10)
        assert not is_network_error(untrusted.value)
    with pytest.raises(requests.exceptions.ConnectionError) as refused:
        requests.get(peer.url, timeout=10)
    assert is_network_error(refused.value)


def test_the_answer_behind_an_http_error():
    def refuse(sock):
        read_request(sock)
        sock.sendall(answer(b"busy", "Retry-After: 7", status="503 Busy"))

    with Peer(refuse) as peer:
        response = requests.get(peer.url, timeout=10)
    with pytest.raises(requests.HTTPError) as caught:
        response.raise_for_status()
    found = answer_of(caught.value)
    assert (found.status, found.headers["retry-after"]) == (503, "7")
    assert answer_of(requests.HTTPError("without an answer")) is None
    assert answer_of(ValueError()) is None
