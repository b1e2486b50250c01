"""The guard of a socket, and connecting, where no whole client is needed."""

from __future__ import annotations

import signal
import socket
import sys
import time

import pytest
from loopback import PATIENT, Reader, until

from holystream.clocks import Deadline, ReadClocks, Timeouts
from holystream.errors import Phase
from holystream.wire import connecting, socketio
from holystream.wire.faults import Fault, FaultKind
from holystream.wire.guard import SocketGuard
from holystream.wire.socketio import GuardedSocketIO


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

    monkeypatch.setattr(connecting.socket, "socket", refuse)


@pytest.mark.usefixtures("without_ipv6")
def test_an_address_family_that_is_missing_is_passed_over(guard):
    with socket.create_server(("127.0.0.1", 0)) as server:
        addresses = _addresses(server.getsockname()[1])
        with connecting.connect(addresses, guard, source=None, options=[]) as sock:
            assert sock.family == socket.AF_INET


@pytest.mark.usefixtures("without_ipv6")
def test_if_it_is_the_only_one_that_is_said(guard):
    with pytest.raises(Fault) as caught:
        connecting.connect(_addresses(9)[:1], guard, source=None, options=[])
    assert caught.value.kind is FaultKind.REFUSED
    assert "family" in caught.value.detail


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere poll waits")
class TestWaitsOfOtherThreads:
    """Not of the main thread: the kernel waits in recv, part by part."""

    IDLE = Timeouts(first_token=0.3, idle=0.3)

    @pytest.fixture(autouse=True)
    def short_parts(self, monkeypatch):
        monkeypatch.setattr(socketio, "_PART", 0.1)

    @pytest.fixture
    def pair(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            yield ours, theirs

    def raw(self, ours, timeouts=IDLE):
        guard = SocketGuard(ReadClocks(timeouts, Deadline()))
        guard.phase = Phase.BODY
        return GuardedSocketIO(ours, guard), guard

    def test_silence_is_as_long_as_it_may_be(self, pair):
        raw, _ = self.raw(pair[0])
        for read in (raw.receive, lambda size: raw.readinto(bytearray(size))):
            began = time.monotonic()
            error = Reader(lambda read=read: read(10)).ended()
            assert error.kind is FaultKind.FIRST_TOKEN
            assert time.monotonic() - began >= 0.3
            # There is no poll: it is the kernel's timeout that was waited for.
            assert pair[0].gettimeout() is None
        raw.close()

    def test_signals_do_not_make_it_longer(self, pair):
        """They go to the main thread; those that do not begin one part anew."""
        raw, _ = self.raw(pair[0])
        before = signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        try:
            assert Reader(lambda: raw.receive(10)).ended().kind is FaultKind.FIRST_TOKEN
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            raw.close()

    def test_what_comes_after_some_parts_is_received(self, pair):
        ours, theirs = pair
        raw, guard = self.raw(ours, PATIENT)
        reader = Reader(lambda: raw.receive(10))
        until(lambda: raw._left < PATIENT.first_token - 0.15, "no part has passed")
        theirs.sendall(b"at last")
        assert reader.ended() is None
        assert reader.result == b"at last"
        assert guard.clocks.waited >= 0.15
        raw.close()

    def test_a_stop_ends_it(self, pair):
        raw, guard = self.raw(pair[0], PATIENT)
        guard.adopt(pair[0])
        reader = Reader(lambda: raw.receive(10))
        until(lambda: raw._left, "it does not wait")
        guard.stop()
        assert reader.ended().kind is FaultKind.STOPPED
        guard.release()
        raw.close()

    def test_the_threads_may_take_turns(self, pair):
        ours, theirs = pair
        raw, _ = self.raw(ours)
        for part in (b"one", b"two", b"three", b"four"):
            theirs.sendall(part)
            reader = Reader(lambda: raw.receive(10))
            assert reader.ended() is None
            assert reader.result == part
            theirs.sendall(part)
            assert raw.receive(10) == part
            assert ours.gettimeout()
        with pytest.raises(Fault):
            raw.receive(10)
        raw.close()
