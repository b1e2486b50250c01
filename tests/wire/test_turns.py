"""Readers that take turns: on real sockets, with the interpreter said to be late."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import ssl
import struct
import threading
import time
from types import SimpleNamespace

import pytest
from loopback import (
    PATIENT,
    Reader,
    certificates,
    client_for,
    ctrl_c,
    nothing_left_behind,
    until,
)
from strikes import interrupt, moments
from urllib3.util.ssltransport import SSLTransport

from holystream import StreamCancelled, StreamClosed
from holystream.clocks import Deadline, ReadClocks, Timeouts
from holystream.errors import Phase
from holystream.simulator import Script, Simulator
from holystream.wire import congestion as congestion_module, socketio
from holystream.wire.congestion import INTERPRETER, Congestion, Turn
from holystream.wire.faults import Fault, FaultKind
from holystream.wire.guard import SocketGuard
from holystream.wire.socketio import SPARED, GuardedSocketIO

TEXT = "".join(f"{number} bottles of beer on the wall, " for number in range(40))


class Watched(Congestion):
    """Counts turns, and who has the baton at the same time."""

    def __init__(self):
        self.turns = self.leading = self.most = 0
        self._counting = threading.Lock()
        super().__init__()

    def crowd(self, pause=1e-9):
        """Be late for good: nobody looks again, and a pause does not fall."""
        self.pause, self.look_at = pause, float("inf")

    def left(self):
        return self.pause

    def take_turn(self, turn, *arguments):
        super().take_turn(turn, *arguments)
        with self._counting:
            self.turns += 1
            if self.leader is turn:
                self.leading += 1
                self.most = max(self.most, self.leading)

    def pass_on(self, turn):
        with self._counting:
            if self.leader is turn:
                self.leading -= 1
        super().pass_on(turn)


@pytest.fixture(autouse=True)
def crowded(monkeypatch):
    congestion = Watched()
    congestion.crowd()
    monkeypatch.setattr(socketio, "INTERPRETER", congestion)
    with nothing_left_behind():
        yield congestion


@pytest.fixture
def endless_patience(monkeypatch):
    """Nobody takes a baton that another has."""
    monkeypatch.setattr(congestion_module, "PATIENCE", 1e6)


@pytest.fixture
def no_patience(monkeypatch):
    monkeypatch.setattr(congestion_module, "PATIENCE", 0.01)


@pytest.fixture
def held(crowded):
    """The turn of somebody who has the baton, and keeps it."""
    turn = Turn()
    crowded.leader = turn
    turn.began = time.monotonic()
    return turn


@contextlib.contextmanager
def connected(family=socket.AF_INET, timeouts=PATIENT, **options):
    """Yield what reads one end of a connection, and the other end."""
    if family == socket.AF_INET:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
    else:
        ours, theirs = socket.socketpair(family)
    with ours, theirs:
        guard = SocketGuard(ReadClocks(timeouts, Deadline()), **options)
        guard.phase = Phase.BODY
        guard.adopt(ours)
        try:
            with contextlib.closing(GuardedSocketIO(ours, guard)) as raw:
                yield SimpleNamespace(raw=raw, guard=guard, theirs=theirs, ours=ours)
        finally:
            guard.release()


def reset(sock):
    """Close with an RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Time:
    """A guard's clock that goes on by what is slept, and by what a test says."""

    def __init__(self):
        self.now = 1000.0
        self.sleeps = []

    def __call__(self):
        return self.now

    def sleep_for(self, guard):
        def sleep(lock, seconds):
            if lock.acquire(blocking=False):
                return True
            self.sleeps.append(seconds)
            self.now += seconds
            return guard.stopped

        guard.sleep_on = sleep


@contextlib.contextmanager
def in_own_time(**options):
    clock = Time()
    with connected(now=clock, **options) as end:
        clock.sleep_for(end.guard)
        end.time = clock
        yield end


class TestManyStreams:
    # On a slow machine as well, nobody takes what is not lost.
    @pytest.mark.usefixtures("endless_patience")
    @pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
    def test_each_has_its_text_and_one_has_the_baton(
        self, crowded, tmp_path, secure, monkeypatch
    ):
        monkeypatch.setattr(socketio, "SPARED", 0)
        context, authority = certificates(tmp_path) if secure else (None, True)
        with (
            Simulator(text=TEXT, tls=context) as sim,
            client_for(sim.base_url, verify=authority) as client,
        ):
            sim.play(*[Script(pace=0.0005)] * 20)
            read = lambda: client.stream("x").get_final_text()  # noqa: E731
            readers = [Reader(read) for _ in range(20)]
            for reader in readers:
                assert reader.ended() is None
                assert reader.result == TEXT
            assert client.pool.statistics().in_use == 0
        assert crowded.turns > 20
        assert crowded.most == 1
        assert crowded.leader is None
        assert not crowded._line

    @pytest.mark.usefixtures("no_patience")
    def test_a_lost_baton_is_found_again(self, crowded, held):
        with Simulator(text=TEXT) as sim, client_for(sim.base_url) as client:
            read = lambda: client.stream("x").get_final_text()  # noqa: E731
            readers = [Reader(read) for _ in range(8)]
            for reader in readers:
                assert reader.ended() is None
                assert reader.result == TEXT
        # Whoever comes back has it no more.
        crowded.pass_on(held)
        assert crowded.leader is None
        assert not crowded._line

    def test_one_thread_may_read_them_in_turn(self, crowded):
        with Simulator(text=TEXT) as sim, client_for(sim.base_url) as client:
            streams = [client.stream("x") for _ in range(5)]
            for _ in itertools.zip_longest(*streams):
                pass
            assert [it.partial_text for it in streams] == [TEXT] * 5
        assert crowded.turns >= 5
        assert crowded.leader is None

    @pytest.mark.usefixtures("endless_patience", "held")
    @pytest.mark.parametrize("end", ["cancel", "close"])
    def test_one_in_line_is_ended_at_once(self, crowded, end):
        error = StreamCancelled if end == "cancel" else StreamClosed
        with Simulator(text=TEXT) as sim, client_for(sim.base_url) as client:
            stream = client.stream("x")
            reader = Reader(stream.until_done)
            until(lambda: crowded._line, "nobody stands in line")
            getattr(stream, end)()
            assert type(reader.ended()) is error
            assert client.pool.statistics().in_use == 0


class TestStops:
    @pytest.mark.usefixtures("endless_patience")
    def test_in_line(self, crowded, held):
        with connected() as end:
            reader = Reader(lambda: end.raw.receive(10))
            until(lambda: end.guard._waiting, "it does not wait")
            end.guard.stop()
            assert reader.ended().kind is FaultKind.STOPPED
            assert crowded.leader is held
        crowded.pass_on(held)
        assert crowded.leader is None

    def test_while_it_pauses(self, crowded):
        with connected() as end:
            end.theirs.sendall(b"token")
            assert end.raw.receive(10) == b"token"
            end.theirs.sendall(b"another")
            crowded.crowd(pause=1e6)
            reader = Reader(lambda: end.raw.receive(10))
            until(lambda: end.guard._waiting, "it does not wait")
            assert crowded.leader
            end.guard.stop()
            assert reader.ended().kind is FaultKind.STOPPED
        assert crowded.leader is None

    @pytest.mark.usefixtures("endless_patience")
    def test_it_takes_no_baton_with_it(self, crowded, held):
        """One that comes at the same moment is passed on."""
        with connected() as end, connected() as other:
            first = Reader(lambda: end.raw.receive(10))
            until(lambda: end.guard._waiting)
            second = Reader(lambda: other.raw.receive(10))
            until(lambda: other.guard._waiting)
            end.guard.stopped = True
            other.theirs.sendall(b"token")
            crowded.pass_on(held)
            assert first.ended().kind is FaultKind.STOPPED
            assert second.ended() is None
            assert second.result == b"token"
        assert crowded.leader is None

    def test_without_a_handle_nothing_is_waited_for(self):
        """Where the shutdown has nothing to shut down."""
        with in_own_time(timeouts=Timeouts(first_token=1e4)) as end:
            end.guard.release()
            end.guard.sleep_on = lambda *_: end.guard.stop()
            end.raw._ended = end.time.now
            socketio.INTERPRETER.crowd(pause=0.05)
            with pytest.raises(Fault) as caught:
                end.raw.receive(10)
            assert caught.value.kind is FaultKind.STOPPED

    def test_before_it_sleeps(self):
        with connected() as end:
            end.guard.stop()
            assert end.guard.sleep_on(Turn().lock, 1e6)

    def test_an_error_of_the_socket_passes_on(self, crowded):
        with connected() as end:
            reset(end.theirs)
            with pytest.raises(ConnectionResetError):
                end.raw.receive(10)
        assert crowded.leader is None

    def test_an_error_after_a_stop_is_a_stop(self, crowded):
        with in_own_time() as end:
            reset(end.theirs)
            end.guard.sleep_on = lambda *_: end.guard.stop()
            end.raw._ended = end.time.now
            crowded.crowd(pause=0.05)
            with pytest.raises(Fault) as caught:
                end.raw.receive(10)
            assert caught.value.kind is FaultKind.STOPPED
        assert crowded.leader is None

    @pytest.mark.usefixtures("no_patience")
    def test_struck_anywhere_others_go_on(self, crowded):
        count = 0
        with connected() as other:
            for strike in moments(["congestion.py", "socketio.py", "guard.py"]):
                with connected() as end:
                    end.theirs.sendall(b"token")
                    end.raw._ended = time.monotonic()
                    crowded.crowd(pause=0.005)
                    with (
                        contextlib.suppress(KeyboardInterrupt),
                        strike.by(interrupt),
                    ):
                        end.raw.receive(10)
                    assert end.guard._waiting is None
                for _ in range(2):
                    other.theirs.sendall(b"another")
                    assert other.raw.receive(10) == b"another"
                assert crowded.leader is None
                count += 1
        assert count > 15

    @pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="POSIX")
    @pytest.mark.parametrize("where", ["in line", "pausing"])
    def test_a_ctrl_c(self, crowded, held, where, monkeypatch):
        monkeypatch.setattr(congestion_module, "PATIENCE", 1e6)
        if where == "pausing":
            crowded.pass_on(held)
            crowded.crowd(pause=1e6)
        with connected() as end:
            end.raw._ended = time.monotonic()
            with (
                ctrl_c(lambda: end.guard._waiting, "it does not wait"),
                pytest.raises(KeyboardInterrupt),
            ):
                end.raw.receive(10)
            assert end.guard._waiting is None
        crowded.pass_on(held)
        assert crowded.leader is None


def another_is_read(crowded):
    """As is possible if nobody has the baton."""
    with connected() as other:
        other.theirs.sendall(b"fast")
        reader = Reader(lambda: other.raw.receive(10))
        assert reader.ended() is None
        assert reader.result == b"fast"
    assert crowded.leader is None


class TestSlowStreams:
    """None waits for its server with the baton."""

    @pytest.mark.usefixtures("endless_patience")
    @pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
    @pytest.mark.parametrize("before", [0, 1, 2])
    def test_a_silent_one(self, crowded, family, before):
        """Even one that something came from a moment ago."""
        with connected(family) as end:

            def work():
                for _ in range(before):
                    end.theirs.sendall(b"soon")
                    assert end.raw.receive(10) == b"soon"
                return end.raw.receive(10)

            reader = Reader(work)
            until(lambda: end.raw._spared == SPARED, "it found something")
            another_is_read(crowded)
            end.theirs.sendall(b"at last")
            assert reader.ended() is None
            assert reader.result == b"at last"

    @pytest.mark.usefixtures("endless_patience")
    def test_where_the_kernel_waits(self, crowded, monkeypatch):
        """Its timeout was set before they took turns."""
        monkeypatch.setattr(socketio, "_PART", 1e3)
        with connected() as end:
            crowded.pause = 0.0
            waiting = Reader(lambda: end.raw.receive(10))
            until(lambda: end.raw._left)
            end.theirs.sendall(b"token")
            assert waiting.ended() is None
            crowded.crowd()
            reader = Reader(lambda: end.raw.receive(10))
            until(lambda: end.raw._spared == SPARED, "it found something")
            another_is_read(crowded)
            end.theirs.sendall(b"at last")
            assert reader.ended() is None
            assert reader.result == b"at last"
            for _ in range(SPARED + 1):
                end.theirs.sendall(b"more")
                assert end.raw.receive(10) == b"more"

    def test_it_takes_no_turn_for_some_time(self, crowded):
        with connected() as end:
            reader = Reader(lambda: end.raw.receive(10))
            until(lambda: end.raw._spared == SPARED)
            end.theirs.sendall(b"token")
            assert reader.ended() is None
            assert crowded.turns == 1
            for turns in [1] * SPARED + [2, 3]:
                end.theirs.sendall(b"token")
                assert end.raw.receive(10) == b"token"
                assert crowded.turns == turns

    def test_who_reads_much_at_once_does_not_pause(self, crowded):
        """There is more than it could take the last time."""
        with connected() as end:
            end.theirs.sendall(b"much")
            assert end.raw.receive(10) == b"much"
            crowded.crowd(pause=1e6)
            end.theirs.sendall(b"more")
            assert end.raw.receive(65536) == b"more"
        assert crowded.turns == 2

    def test_the_end_is_there(self, crowded):
        with connected() as end:
            end.theirs.shutdown(socket.SHUT_WR)
            assert end.raw.receive(10) == b""
        assert crowded.leader is None


class ByHand:
    """The server's side of TLS over something that sends and receives."""

    def __init__(self, transport, context):
        self.transport = transport
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._secure = context.wrap_bio(
            self._incoming, self._outgoing, server_side=True
        )
        self._when_it_can(self._secure.do_handshake)
        self.transport.sendall(self._outgoing.read())

    def _when_it_can(self, work, *arguments):
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                return work(*arguments)
            self.transport.sendall(self._outgoing.read())
            self._incoming.write(self.transport.recv(65536))

    def record(self, data):
        self._secure.write(data)
        return self._outgoing.read()

    def sendall(self, data):
        self.transport.sendall(self.record(data))

    def recv(self, size):
        return self._when_it_can(self._secure.read, size)


@pytest.mark.usefixtures("endless_patience")
@pytest.mark.parametrize("layers", [1, 2], ids=["TLS", "TLS in TLS"])
def test_the_rest_of_a_record_is_not_waited_for(crowded, tls_server, ca_file, layers):
    context = ssl.create_default_context(cafile=ca_file)
    with connected() as end, contextlib.ExitStack() as stack:
        server = Reader(lambda: ByHand(end.theirs, tls_server))
        ours = stack.enter_context(
            context.wrap_socket(end.ours, server_hostname="127.0.0.1")
        )
        assert server.ended() is None
        theirs = server.result
        if layers == 2:
            server = Reader(lambda below=theirs: ByHand(below, tls_server))
            ours = SSLTransport(ours, context, "127.0.0.1")
            assert server.ended() is None
            theirs = server.result
        raw = stack.enter_context(contextlib.closing(GuardedSocketIO(ours, end.guard)))
        for part in (b"one", b"two"):
            theirs.sendall(part)
            assert raw.receive(10) == part
            raw._spared = 0
        record = theirs.record(b"three")
        theirs.transport.sendall(record[:9])
        reader = Reader(lambda: raw.receive(10))
        until(lambda: raw._spared == SPARED, "it waits with the baton")
        another_is_read(crowded)
        theirs.transport.sendall(record[9:])
        assert reader.ended() is None
        assert reader.result == b"three"
    assert crowded.leader is None


@pytest.fixture
def secured(tls_server, ca_file, monkeypatch):
    """What reads one end of a TLS connection, and the other end."""
    monkeypatch.setattr(socketio, "SPARED", 0)
    context = ssl.create_default_context(cafile=ca_file)
    with connected() as end, contextlib.ExitStack() as stack:
        server = Reader(lambda: ByHand(end.theirs, tls_server))
        ours = context.wrap_socket(end.ours, server_hostname="127.0.0.1")
        stack.enter_context(ours)
        assert server.ended() is None
        raw = stack.enter_context(contextlib.closing(GuardedSocketIO(ours, end.guard)))
        yield SimpleNamespace(raw=raw, theirs=server.result, plain=end.theirs)


class TestRecords:
    """A turn takes all records that are there, or many tokens would need many."""

    def test_as_many_as_fit(self, secured):
        secured.theirs.sendall(b"one")
        assert secured.raw.receive(10) == b"one"
        secured.plain.sendall(b"".join(map(secured.theirs.record, [b"two", b"three"])))
        assert secured.raw.receive(10) == b"twothree"
        secured.plain.sendall(b"".join(map(secured.theirs.record, [b"four", b"five"])))
        assert secured.raw.receive(6) == b"fourfi"
        assert secured.raw.receive(6) == b"ve"

    def test_the_end_behind_them(self, secured):
        secured.theirs.sendall(b"all")
        secured.plain.shutdown(socket.SHUT_WR)
        until(lambda: secured.raw.receive(10) == b"all")
        assert secured.raw.receive(10) == b""
        assert secured.raw.receive(10) == b""

    def test_an_error_behind_them(self, secured):
        """It is told by the next read: the text before it is text."""
        secured.theirs.sendall(b"one")
        assert secured.raw.receive(10) == b"one"
        secured.plain.sendall(secured.theirs.record(b"text") + b"no record of TLS")
        assert secured.raw.receive(10) == b"text"
        for _ in range(2):
            with pytest.raises(ssl.SSLError):
                secured.raw.receive(10)


@pytest.mark.usefixtures("endless_patience")
class TestClocks:
    SHORT = Timeouts(first_token=0.2, idle=0.2, token_idle=30)

    def open(self, end):
        """Let some text have come."""
        end.guard.clocks.content_came = True

    @pytest.mark.parametrize("kind", [FaultKind.FIRST_TOKEN, FaultKind.IDLE])
    def test_one_that_runs_out_in_line(self, crowded, held, kind):
        with connected(timeouts=self.SHORT) as end:
            if kind is FaultKind.IDLE:
                self.open(end)
            assert Reader(lambda: end.raw.receive(10)).ended().kind is kind
            assert crowded.leader is held

    def test_the_deadline(self, crowded, held):
        with connected() as end:
            end.guard.clocks._deadline = Deadline(end.guard.now() + 0.2)
            error = Reader(lambda: end.raw.receive(10)).ended()
            assert error.kind is FaultKind.DEADLINE
            assert crowded.leader is held

    @pytest.mark.usefixtures("held")
    def test_what_is_waited_in_line_is_waited(self):
        """In silence: it does not begin anew."""
        with in_own_time(timeouts=Timeouts(idle=1e4, token_idle=1e5)) as end:
            self.open(end)
            with pytest.raises(Fault) as caught:
                end.raw.receive(10)
            assert caught.value.kind is FaultKind.IDLE
            assert end.time.sleeps == [1e4]

    @pytest.mark.usefixtures("held")
    def test_what_came_while_it_stood_in_line_is_no_silence(self):
        with in_own_time(timeouts=self.SHORT) as end:
            self.open(end)
            for _ in range(3):
                end.theirs.sendall(b"ping")
                assert end.raw.receive(10) == b"ping"
            assert end.time.sleeps == [0.2] * 3
            assert end.guard.clocks.waited == pytest.approx(0.2)

    @pytest.mark.usefixtures("held")
    def test_pings_in_line_run_out_of_time(self):
        timeouts = Timeouts(idle=0.2, token_idle=1.0)
        with in_own_time(timeouts=timeouts) as end:
            self.open(end)
            with pytest.raises(Fault) as caught:  # noqa: PT012 - which read, is told
                for _ in range(100):
                    end.theirs.sendall(b"ping")
                    end.raw.receive(10)
            assert caught.value.kind is FaultKind.TOKEN_IDLE
            assert end.time.now == pytest.approx(1001.0)

    def test_a_flood_of_pings_does(self, crowded):
        """It never lets us wait: it is what is done with it that takes the time."""
        with in_own_time(timeouts=Timeouts(token_idle=1.0)) as end:
            self.open(end)
            crowded.crowd(pause=0.01)
            with pytest.raises(Fault) as caught:  # noqa: PT012 - as above
                for _ in range(100):
                    end.theirs.sendall(b"ping")
                    end.raw.receive(10)
                    end.time.now += 0.1
            assert caught.value.kind is FaultKind.TOKEN_IDLE
            assert end.time.now == pytest.approx(1001.0)
            assert end.time.sleeps == []

    def test_a_pause_is_not_the_callers_time(self, crowded):
        with in_own_time() as end:
            end.theirs.sendall(b"one")
            end.raw.receive(10)
            crowded.crowd(pause=0.05)
            # The caller takes his time, a part of the pause.
            end.time.now += 0.02
            end.guard.resume()
            end.guard.clocks.waited = 0.0
            end.theirs.sendall(b"two")
            end.raw.receive(10)
            assert end.time.sleeps == [pytest.approx(0.03, abs=1e-3)]
            assert end.guard.clocks.waited == pytest.approx(0.03, abs=1e-3)

    def test_a_slow_consumer_is_not_paused(self, crowded):
        crowded.crowd(pause=0.05)
        with in_own_time() as end:
            for _ in range(5):
                end.time.now += 0.06
                end.theirs.sendall(b"token")
                assert end.raw.receive(10) == b"token"
            assert end.time.sleeps == []

    def test_a_pause_is_no_longer_than_a_clock(self, crowded):
        crowded.crowd(pause=1e6)
        with in_own_time(timeouts=self.SHORT) as end:
            end.raw._ended = end.time.now
            with pytest.raises(Fault):
                end.raw.receive(10)
            assert end.time.now == pytest.approx(1000.2, abs=1e-3)

    def test_while_all_is_well_somebody_looks(self, crowded):
        crowded.begin()
        looks = []
        crowded._hand_over = lambda: looks.append(None)
        with connected() as end:
            for _ in range(2):
                end.theirs.sendall(b"token")
                assert end.raw.receive(10) == b"token"
                crowded.look_at = float("inf")
        assert len(looks) == 1
        assert crowded.turns == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
class TestForks:
    @pytest.fixture
    def interpreter(self, monkeypatch):
        """That of this process, which is told of a fork."""
        monkeypatch.setattr(socketio, "INTERPRETER", INTERPRETER)
        INTERPRETER.pause, INTERPRETER.look_at = 0.05, float("inf")
        yield INTERPRETER
        INTERPRETER.begin()

    @pytest.mark.usefixtures("endless_patience")
    def test_a_child_begins_anew_and_the_parent_goes_on(self, interpreter):
        held = Turn()
        interpreter.leader = held
        with connected() as end:
            reader = Reader(lambda: end.raw.receive(10))
            until(lambda: end.guard._waiting, "it does not wait")
            child = os.fork()
            if child == 0:
                code = 1
                with contextlib.suppress(BaseException):
                    begun = (interpreter.pause, interpreter.leader)
                    interpreter.pause = 0.05
                    # The one in line is no thread of ours.
                    with connected() as own:
                        own.theirs.sendall(b"token")
                        text = own.raw.receive(10)
                    ended = (text, interpreter.leader, len(interpreter._line))
                    code = (*begun, *ended) != (0.0, None, b"token", None, 0)
                os._exit(code)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            assert interpreter.leader is held
            assert len(interpreter._line) == 1
            end.theirs.sendall(b"token")
            interpreter.pass_on(held)
            assert reader.ended() is None
            assert reader.result == b"token"
        assert interpreter.leader is None

    def test_in_the_midst_of_a_turn(self, interpreter):
        """A signal handler may fork."""
        reading, writing = os.pipe()
        with connected() as end:
            # One for each.
            end.theirs.sendall(b"tokentoken")
            sleep = end.guard.sleep_on

            def fork_and_sleep(lock, seconds):
                forked.append(os.fork())
                return sleep(lock, seconds)

            forked = []
            end.guard.sleep_on = fork_and_sleep
            end.raw._ended = time.monotonic()
            try:
                assert end.raw.receive(5) == b"token"
            finally:
                if forked == [0]:
                    os.write(writing, repr(interpreter.leader).encode())
                    os._exit(0)
        os.waitpid(*forked, 0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            assert pipe.read() == "None"
        assert interpreter.leader is None
