"""The guard of a socket, and connecting, where no whole client is needed."""

from __future__ import annotations

import socket

import pytest

from holystream.clocks import Deadline, ReadClocks, Timeouts
from holystream.wire import socketio
from holystream.wire.faults import Fault, FaultKind
from holystream.wire.socketio import SocketGuard


@pytest.fixture
def guard():
    guard = SocketGuard(ReadClocks(Timeouts(), Deadline()))
    yield guard
    guard.release()


class Wrapped:
    """As urllib3's transport for TLS inside TLS: no socket, but it has one."""

    def __init__(self, sock):
        self.socket = sock


def test_a_socket_within_a_wrapper_is_stopped(guard):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        guard.adopt(Wrapped(ours))
        guard.stop()
        assert theirs.recv(1) == b""


def _addresses(port):
    return [
        (socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("::1", port, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)),
    ]


@pytest.fixture
def without_ipv6(monkeypatch):
    real = socket.socket

    def refuse(family=socket.AF_INET, *arguments, **options):
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *arguments, **options)

    monkeypatch.setattr(socketio.socket, "socket", refuse)


@pytest.mark.usefixtures("without_ipv6")
def test_an_address_family_that_is_missing_is_passed_over(guard):
    with socket.create_server(("127.0.0.1", 0)) as server:
        addresses = _addresses(server.getsockname()[1])
        with socketio.connect(addresses, guard, source=None, options=[]) as sock:
            assert sock.family == socket.AF_INET


@pytest.mark.usefixtures("without_ipv6")
def test_if_it_is_the_only_one_that_is_said(guard):
    with pytest.raises(Fault) as caught:
        socketio.connect(_addresses(9)[:1], guard, source=None, options=[])
    assert caught.value.kind is FaultKind.REFUSED
    assert "family" in caught.value.detail
