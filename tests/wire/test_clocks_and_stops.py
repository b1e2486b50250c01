"""Every wait has a bound, and any other thread can end it at once."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import random
import select
import socket
import sys
import threading
import time

import pytest
from loopback import (
    PATIENT,
    SOON,
    Peer,
    Reader,
    answer,
    blackhole,
    certificates,
    client_for,
    is_connecting_to,
    is_stuck_sending_to,
    nothing_left_behind,
    read_request,
    until,
    wait_for_end,
)

from holystream import (
    ConnectTimeout,
    DeadlineExceeded,
    FirstTokenTimeout,
    IdleTimeout,
    Overloaded,
    PrioritySemaphore,
    QueueTimeout,
    RetryPolicy,
    StreamCancelled,
    StreamClosed,
    StreamInterrupted,
    StreamInUse,
    Timeouts,
    TokenIdleTimeout,
)
from holystream.clocks import Clock, Deadline, ReadClocks
from holystream.driven import StreamState
from holystream.errors import Phase
from holystream.events import Finished
from holystream.exchange import Exchange
from holystream.simulator import Script, Simulator
from holystream.testing.sleepless import SleeplessClock
from holystream.wire import (
    connecting as wire_connecting,
    http as wire_http,
    observing as wire_observing,
    refused,
)
from holystream.wire.connection import GuardedHTTPConnection, current_guard
from holystream.wire.faults import Fault, FaultKind
from holystream.wire.guard import SocketGuard
from holystream.wire.socketio import GuardedSocketIO

TEXT = "".join(f"{number} bottles of beer on the wall, " for number in range(40))
SHORT = 0.3


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(autouse=True)
def _clean():
    with nothing_left_behind():
        yield


@pytest.fixture
def sim():
    with Simulator(text=TEXT) as simulator:
        yield simulator


def outcome(client, **options):
    """Read a stream to its end and return the error that it ends with."""
    stream = client.stream("hello", **options)
    with pytest.raises(Exception) as caught, stream:  # noqa: PT011 - told by callers
        stream.until_done()
    assert client.pool.statistics().in_use == 0
    return caught.value


def collect(pieces):
    """Collect in a thread; return the list that grows, and the thread."""
    received = []
    return received, Reader(lambda: received.extend(pieces))


class Ticking:
    """A clock that only goes when it is told to."""

    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


class TestEveryWaitIsBounded:
    def test_pings_without_content_end_at_token_idle(self, sim):
        sim.play(Script(stall_at=900, pings=0.02))
        with client_for(
            sim.base_url, timeout=Timeouts(token_idle=SHORT, idle=30)
        ) as client:
            error = outcome(client)
        assert isinstance(error, StreamInterrupted)
        assert isinstance(error.cause, TokenIdleTimeout)
        assert TEXT.startswith(error.partial_text)
        assert error.partial_text

    def test_pings_before_any_content_end_at_first_token(self, sim):
        sim.play(Script(stall_at=0, pings=0.02))
        timeouts = Timeouts(first_token=SHORT, idle=30, token_idle=30)
        with client_for(sim.base_url, timeout=timeouts) as client:
            assert isinstance(outcome(client), FirstTokenTimeout)

    def test_silence_ends_at_idle(self, sim):
        sim.play(Script(stall_at=900))
        with client_for(
            sim.base_url, timeout=Timeouts(token_idle=30, idle=SHORT)
        ) as client:
            error = outcome(client)
        assert isinstance(error.cause, IdleTimeout)
        assert TEXT.startswith(error.partial_text)

    @pytest.mark.parametrize(
        "script",
        [
            Script(stall_headers=True),
            Script(stall_at=0),
            Script(drip_headers=(1, 0.02)),
            Script(drip_chunk_size=True, drip=(1, 0.02)),
            Script(drip=(1, 0.02), framing="close"),
        ],
        ids=str,
    )
    def test_no_content_ends_at_first_token_whatever_drips(self, sim, script):
        sim.play(script)
        timeouts = Timeouts(first_token=SHORT, idle=30, token_idle=30)
        with client_for(sim.base_url, timeout=timeouts) as client:
            assert isinstance(outcome(client), FirstTokenTimeout)

    def test_a_dripped_chunk_size_ends_at_token_idle_after_content(self, sim):
        sim.play(Script(stall_at=900, drip_chunk_size=True))
        timeouts = Timeouts(token_idle=SHORT, idle=30)
        with client_for(sim.base_url, timeout=timeouts) as client:
            assert isinstance(outcome(client).cause, TokenIdleTimeout)

    def test_a_finish_reason_without_an_end_is_not_waited_for_long(
        self, sim, monkeypatch
    ):
        """Usage and [DONE] may follow; the answer is whole without them."""
        monkeypatch.setattr("holystream.clocks.TAIL", SHORT)
        sim.play(Script(done=False, usage="none", linger=3600))
        with client_for(sim.base_url) as client, client.stream("hello") as stream:
            assert stream.get_final_text() == TEXT

    def test_a_handshake_that_is_never_answered_ends_at_connect(self):
        with Peer(wait_for_end) as peer:
            url = f"https://127.0.0.1:{peer.port}/v1"
            with client_for(url, timeout=Timeouts(connect=SHORT)) as client:
                error = outcome(client)
        assert isinstance(error, ConnectTimeout)
        assert error.phase is Phase.CONNECT
        assert "the TLS handshake did not finish" in error.message
        assert "write http:// instead of https://" in error.message

    def test_a_blackhole_ends_at_connect(self):
        with (
            blackhole() as port,
            client_for(
                f"http://127.0.0.1:{port}/v1", timeout=Timeouts(connect=SHORT)
            ) as client,
        ):
            assert isinstance(outcome(client), ConnectTimeout)

    def test_a_resolver_that_hangs_ends_at_connect(self, hanging_resolver):
        url = "http://nowhere.test/v1"
        with client_for(
            url, allow_http=True, timeout=Timeouts(connect=SHORT)
        ) as client:
            assert isinstance(outcome(client), ConnectTimeout)

    def test_a_proxy_that_never_answers_connect_ends_at_connect(self, monkeypatch):
        with Peer(wait_for_end) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            url = "https://elsewhere.test/v1"
            with client_for(url, timeout=Timeouts(connect=SHORT)) as client:
                assert isinstance(outcome(client), ConnectTimeout)

    def test_a_send_that_is_not_read_ends_at_first_token(self):
        with Peer(stuck) as peer:
            timeouts = Timeouts(first_token=SHORT, idle=30, token_idle=30)
            with client_for(f"{peer.url}/v1", timeout=timeouts) as client:
                stream = client.stream("x" * 32_000_000)
                with pytest.raises(FirstTokenTimeout), stream:
                    stream.until_done()

    @pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
    def test_a_send_that_is_read_in_drips_ends_at_first_token(self, tls, secure):
        """Each drip makes room for some bytes: that must not start the clock anew."""

        taken = []

        def drips(sock):
            while data := sock.recv(16384):
                taken.append(len(data))
                time.sleep(0.005)

        context, authority = tls
        with Peer(drips, tls=context if secure else None) as peer:
            timeouts = Timeouts(first_token=SHORT, idle=30, token_idle=30)
            with client_for(
                f"{peer.url}/v1", timeout=timeouts, verify=authority
            ) as client:
                stream = client.stream("x" * 32_000_000)
                with pytest.raises(FirstTokenTimeout), stream:
                    stream.until_done()
        assert sum(taken) < 32_000_000

    def test_waiting_for_the_queue_ends_at_queue(self, sim):
        pool = PrioritySemaphore(1)
        with (
            pool.acquire(),
            client_for(
                sim.base_url, pool=pool, timeout=Timeouts(queue=SHORT)
            ) as client,
        ):
            stream = client.stream("hello")
            with pytest.raises(QueueTimeout), stream:
                stream.until_done()
        assert not sim.requests

    def test_a_timeout_leaves_other_streams_alone(self, sim):
        gate = threading.Semaphore(0)
        sim.play(Script(gate=gate), Script(stall_headers=True))
        with (
            client_for(
                sim.base_url, timeout=Timeouts(first_token=30, idle=30)
            ) as client,
            client.stream("hello") as other,
        ):
            gate.release(3)
            next(event for event in other if str(event))
            timeouts = Timeouts(first_token=SHORT, idle=SHORT, token_idle=SHORT)
            with pytest.raises(FirstTokenTimeout):
                client.stream("hello", timeout=timeouts).until_done()
            gate.release(10_000)
            assert other.get_final_text() == TEXT


@pytest.fixture
def hanging_resolver(monkeypatch):
    """A name server that does not answer; yields the event of being asked."""
    asked, answered = threading.Event(), threading.Event()
    real = socket.getaddrinfo

    def getaddrinfo(host, *args, **options):
        if not host.endswith(".test"):
            return real(host, *args, **options)
        if options.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not an address")
        asked.set()
        answered.wait(60)
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked
    answered.set()


def stuck(sock):
    """Keep a connection without reading from it, until the peer is closed."""
    poll = select.poll()
    poll.register(sock, 0)
    poll.poll(60_000)


class TestTheDeadlineEndsEverything:
    @pytest.mark.parametrize(
        "script",
        [
            Script(stall_headers=True),
            Script(stall_at=0),
            Script(stall_at=900),
            Script(stall_at=900, pings=0.02),
            Script(pace=0.05),
        ],
        ids=str,
    )
    def test_of_the_server(self, sim, script):
        sim.play(script)
        with client_for(sim.base_url, retry=RetryPolicy()) as client:
            error = outcome(client, deadline=SHORT)
        assert isinstance(error, DeadlineExceeded)
        assert TEXT.startswith(error.partial_text)

    def test_the_body_of_an_error(self, sim):
        """What the status says is known all the same."""
        sim.play(Script(status=503, times=0, framing="close", stall_at=10))
        with client_for(sim.base_url, retry=RetryPolicy()) as client:
            began = time.monotonic()
            # So long that the status is there before it.
            assert isinstance(outcome(client, deadline=1.5), Overloaded)
            assert time.monotonic() - began < refused.ERROR_BODY_SECONDS

    def test_a_handshake(self):
        with Peer(wait_for_end) as peer:
            url = f"https://127.0.0.1:{peer.port}/v1"
            with client_for(url) as client:
                assert isinstance(outcome(client, deadline=SHORT), DeadlineExceeded)

    def test_a_connect(self):
        with (
            blackhole() as port,
            client_for(f"http://127.0.0.1:{port}/v1") as client,
        ):
            assert isinstance(outcome(client, deadline=SHORT), DeadlineExceeded)

    def test_a_name_resolution(self, hanging_resolver):
        with client_for("http://nowhere.test/v1", allow_http=True) as client:
            assert isinstance(outcome(client, deadline=SHORT), DeadlineExceeded)

    def test_a_place_in_the_queue(self, sim):
        pool = PrioritySemaphore(1)
        with pool.acquire(), client_for(sim.base_url, pool=pool) as client:
            stream = client.stream("hello", deadline=SHORT)
            with pytest.raises(DeadlineExceeded), stream:
                stream.until_done()
            assert stream.attempts == 0

    def test_a_server_that_is_never_right(self, sim):
        sim.play(Script(status=503, times=0))
        policy = RetryPolicy(attempts=1000, base=0.01, cap=0.01, total_attempts=None)
        with client_for(sim.base_url, retry=policy) as client:
            began = time.monotonic()
            outcome(client, deadline=SHORT)
            assert time.monotonic() - began < SOON

    def test_what_inflates_for_long_within_one_read(self):
        """By a clock that goes on by a second whenever it is asked: how often counts.

        The body is some 40 kB, and its 40 MB of comments are 600 blocks.
        """
        body = gzip.compress(b": ping\n\n" * 5_000_000)
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
        )

        def serve(sock):
            read_request(sock)
            sock.sendall(head.encode() + body)
            wait_for_end(sock)

        inflated = []
        observed = wire_observing.observer.set(Inflated(inflated))
        try:
            with Peer(serve) as peer, Asked(), client_for(peer.url) as client:
                assert isinstance(outcome(client, deadline=60.0), DeadlineExceeded)
        finally:
            wire_observing.observer.reset(observed)
        assert 0 < len(inflated) < 100


class Asked(SleeplessClock):
    """Goes on by a second whenever it is asked, and by itself not at all."""

    seconds = 0.0

    def now(self):
        self.seconds += 1.0
        return self.seconds


class Inflated:
    """Observes the sizes of what one request brings, block by block."""

    def __init__(self, sizes):
        self.sizes = sizes

    def sending(self, *_):
        return self

    def answered(self, *_):
        pass

    def received(self, data):
        self.sizes.append(len(data))

    def ended(self, _):
        pass


FLOODS = {
    "empty": b"data: {}\n\n",
    "ping": b'event: ping\ndata: {"type": "ping"}\n\n',
    "delta": b'data: {"choices":[{"index":0,"delta":{"content":""}}]}\n\n',
}


@pytest.mark.parametrize("flood", FLOODS)
@pytest.mark.parametrize("begun", [False, True], ids=["before", "behind"])
def test_a_flood_that_brings_the_caller_nothing_ends_by_the_clock(flood, begun):
    """No read waits for anything: what counts is the time that the flood takes."""
    text = b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n'

    def pour(connection):
        connection.recv(65536)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        )
        connection.sendall(text if begun else b"")
        while True:
            connection.sendall(FLOODS[flood] * 500)

    limits = Timeouts(first_token=0.3, idle=300, token_idle=0.3)
    with Peer(pour) as peer, client_for(peer.url, timeout=limits) as client:
        error = Reader(client.stream("hello").get_final_text).ended()
    if begun:
        assert error.partial_text == "Hello"
        error = error.__cause__
    assert type(error) is (TokenIdleTimeout if begun else FirstTokenTimeout)


class TestClocksRunOnlyInReads:
    def test_the_callers_time_is_the_callers_own(self, sim):
        sim.play(Script(rechunk=64, pace=0.0001))
        clock = Ticking()
        timeouts = Timeouts(connect=1, first_token=1, idle=1, token_idle=1)
        with client_for(sim.base_url, timeout=timeouts) as client:
            stream = client.stream("hello")
            stream._driver._now = clock
            with stream:
                for _ in stream:
                    clock.seconds += 3600
            assert stream.completion.text == TEXT

    def test_the_time_in_reads_counts(self):
        """Content comes never, something in every read: idle is reset, no other is.

        A read looks at the clock twice: it waits, it has waited.
        """
        ticks = itertools.count()
        clocks = ReadClocks(Timeouts(idle=2, token_idle=20), Deadline())
        clocks.content_came = True
        guard = SocketGuard(clocks, now=lambda: float(next(ticks)))
        guard.phase = Phase.BODY
        ours, theirs = socket.socketpair()
        with ours, theirs, GuardedSocketIO(ours, guard) as raw:
            theirs.sendall(b"x" * 100)
            for _ in range(10):
                raw.readinto(bytearray(1))
            with pytest.raises(Fault) as caught:
                raw.readinto(bytearray(1))
        assert caught.value.kind is FaultKind.TOKEN_IDLE

    def test_the_time_of_a_send_counts(self):
        ticks = itertools.count()
        clocks = ReadClocks(Timeouts(first_token=10), Deadline())
        guard = SocketGuard(clocks, now=lambda: float(next(ticks)))
        guard.phase = Phase.SENT
        connection = GuardedHTTPConnection("api.test")
        connection.sock, theirs = socket.socketpair()
        before = current_guard.set(guard)
        try:
            connection.send(b"hello")
            assert theirs.recv(10) == b"hello"
        finally:
            current_guard.reset(before)
            connection.close()
            theirs.close()
        assert clocks.left(0.0) == (9.0, Clock.FIRST_TOKEN)

    @pytest.mark.parametrize("clock", [Clock.FIRST_TOKEN, Clock.DEADLINE])
    def test_the_nearest_clock_is_the_one_that_ends_a_read(self, clock):
        left = {Clock.FIRST_TOKEN: 7.0, Clock.DEADLINE: 7.0, clock: 3.0}
        clocks = ReadClocks(
            Timeouts(first_token=left[Clock.FIRST_TOKEN]),
            Deadline(1000 + left[Clock.DEADLINE]),
        )
        guard = SocketGuard(clocks, now=Ticking())
        guard.phase = Phase.SENT
        assert guard.next_wait() == (3.0, clock)

    def test_connecting_and_the_handshake_share_one_bound(self):
        """Not a share of it for each address, once one has answered."""
        guard = SocketGuard(ReadClocks(Timeouts(connect=8), Deadline()), now=Ticking())
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = (
                socket.AF_INET,
                socket.SOCK_STREAM,
                0,
                "",
                listener.getsockname(),
            )
            sock = wire_connecting.connect(
                [address] * 4, guard, source=None, options=[]
            )
            with sock:
                assert sock.gettimeout() == 8
            guard.release()


class Situation:
    """Something that a reading thread waits for.

    Attributes:
        client: The client to read with.
        options: What its stream is asked for.
        ready: Whether the reading thread got there.
    """

    def __init__(self, client, ready, **options):
        self.client = client
        self.options = {"prompt": "hello", **options}
        self.ready = ready


@contextlib.contextmanager
def simulated(script, ready, *, certificate=None, **options):
    context, authority = certificate or (None, True)
    with (
        Simulator(text=TEXT, tls=context, script=script) as sim,
        client_for(sim.base_url, verify=authority, **options) as client,
    ):
        yield Situation(client, lambda stream: ready(sim, stream))


@contextlib.contextmanager
def served(serve, ready, *, certificate=None, scheme=None, **options):
    context, authority = certificate or (None, True)
    with Peer(serve, tls=context) as peer:
        url = f"{scheme or peer.url.partition(':')[0]}://127.0.0.1:{peer.port}/v1"
        with client_for(url, verify=authority) as client:
            yield Situation(client, lambda stream: ready(peer, stream), **options)


def headers(request):
    return simulated(Script(stall_headers=True), lambda sim, _: sim.requests)


def headers_tls(request):
    return simulated(
        Script(stall_headers=True),
        lambda sim, _: sim.requests,
        certificate=request.getfixturevalue("tls"),
    )


def body(request):
    return simulated(Script(stall_at=900), lambda _, stream: stream.partial_text)


def body_tls(request):
    return simulated(
        Script(stall_at=900),
        lambda _, stream: stream.partial_text,
        certificate=request.getfixturevalue("tls"),
    )


def body_pinged(request):
    return simulated(
        Script(stall_at=900, pings=0.001), lambda _, stream: stream.partial_text
    )


def handshake(request):
    hello = threading.Event()

    def silent(sock):
        sock.recv(1)
        hello.set()
        wait_for_end(sock)

    return served(silent, lambda *_: hello.is_set(), scheme="https")


@contextlib.contextmanager
def name_resolution(request):
    asked = request.getfixturevalue("hanging_resolver")
    with client_for("http://nowhere.test/v1", allow_http=True) as client:
        yield Situation(client, lambda _: asked.is_set())


@contextlib.contextmanager
def connecting(request):
    with blackhole() as port, client_for(f"http://127.0.0.1:{port}/v1") as client:
        yield Situation(client, lambda _: is_connecting_to(port))


@contextlib.contextmanager
def proxy(request):
    hello = threading.Event()

    def silent(sock):
        sock.recv(1)
        hello.set()
        wait_for_end(sock)

    with Peer(silent) as peer:
        request.getfixturevalue("monkeypatch").setenv("HTTPS_PROXY", peer.url)
        with client_for("https://elsewhere.test/v1") as client:
            yield Situation(client, lambda _: hello.is_set())


def sending(request):
    return served(
        stuck,
        lambda peer, _: is_stuck_sending_to(peer.port),
        prompt="x" * 32_000_000,
    )


def sending_tls(request):
    return served(
        stuck,
        lambda peer, _: is_stuck_sending_to(peer.port),
        prompt="x" * 32_000_000,
        certificate=request.getfixturevalue("tls"),
    )


def error_body(request):
    request.getfixturevalue("monkeypatch").setattr(refused, "ERROR_BODY_SECONDS", 30)
    sent = threading.Event()

    def half(sock):
        read_request(sock)
        sock.sendall(answer(b"x" * 100, status="400 Bad Request")[:-50])
        sent.set()
        wait_for_end(sock)

    return served(half, lambda *_: sent.is_set())


def backoff(request):
    return simulated(
        Script(status=503, times=0),
        lambda _, stream: stream.state is StreamState.WAITING,
        retry=RetryPolicy(base=30, jitter=None),
    )


def server_hint(request):
    return simulated(
        Script(status=429, headers={"Retry-After": "30"}, times=0),
        lambda _, stream: stream.state is StreamState.WAITING,
        retry=RetryPolicy(),
    )


@contextlib.contextmanager
def queue(request):
    pool = PrioritySemaphore(1)
    with (
        Simulator() as sim,
        client_for(sim.base_url, pool=pool) as client,
        pool.acquire(),
    ):
        yield Situation(client, lambda _: pool.statistics().queued == 1)


SITUATIONS = [
    headers,
    headers_tls,
    body,
    body_tls,
    body_pinged,
    handshake,
    name_resolution,
    connecting,
    proxy,
    sending,
    sending_tls,
    error_body,
    backoff,
    server_hint,
    queue,
]

ENDS = [("cancel", StreamCancelled), ("close", StreamClosed)]


@pytest.mark.parametrize(("end", "kind"), ENDS, ids=["cancel", "close"])
class TestASecondThreadEndsAnyWait:
    @pytest.mark.parametrize("situation", SITUATIONS)
    def test_at_once(self, request, situation, end, kind):
        with situation(request) as found:
            held = found.client.pool.statistics().in_use
            stream = found.client.stream(**found.options)
            attempts_before = 1 if situation in (backoff, server_hint) else None
            reader = Reader(stream.until_done)
            until(lambda: found.ready(stream), situation.__name__)
            getattr(stream, end)()
            error = reader.ended()
            assert type(error) is kind
            assert TEXT.startswith(stream.partial_text)
            assert stream.state is StreamState.CLOSED
            until(lambda: found.client.pool.statistics().in_use <= max(held, 0))
            if attempts_before is not None:
                assert stream.attempts == attempts_before
            with pytest.raises(kind):
                next(stream)

    @pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
    def test_a_busy_reader(self, tls, secure, end, kind):
        """The server sends as fast as it can; nothing but its text is received."""
        chunk = {"choices": [{"index": 0, "delta": {"content": "all work no play "}}]}
        block = f"data: {json.dumps(chunk)}\n\n".encode() * 50

        def flood(sock):
            read_request(sock)
            sock.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Connection: close\r\n\r\n"
            )
            while True:
                sock.sendall(block)

        context, authority = tls
        with (
            Peer(flood, tls=context if secure else None) as peer,
            client_for(f"{peer.url}/v1", verify=authority) as client,
        ):
            for _ in range(10):
                stream = client.stream("hello")
                received, reader = collect(stream.text_stream)
                while len(stream.partial_text) < 10_000:
                    pass
                getattr(stream, end)()
                assert type(reader.ended()) is kind
                text = "".join(received)
                assert text == ("all work no play " * len(received))[: len(text)]
                assert stream.partial_text.startswith(text)
                assert client.pool.statistics().in_use == 0

    def test_before_it_was_opened(self, sim, end, kind):
        with client_for(sim.base_url) as client:
            stream = client.stream("hello")
            getattr(stream, end)()
            with pytest.raises(kind):
                stream.open()
            assert not sim.connections

    def test_after_completion_it_changes_nothing(self, sim, end, kind):
        with client_for(sim.base_url) as client:
            stream = client.stream("hello").until_done()
            getattr(stream, end)()
            getattr(stream, end)()
            assert stream.state is StreamState.DONE
            assert stream.get_final_text() == TEXT
            assert list(stream) == []

    def test_at_the_finish_the_rest_of_the_events_still_comes(self, sim, end, kind):
        """What is complete is handed over whole, whoever wants to end it now."""
        with client_for(sim.base_url) as client:
            stream = client.stream("hello")
            text = ""
            for event in stream:
                text += str(event)
                if stream.completion is not None:
                    getattr(stream, end)()
            assert text == TEXT

    def test_the_drain(self, sim, monkeypatch, end, kind):
        """The answer is complete: whoever drains its connection may stop that."""
        monkeypatch.setattr(wire_http, "DRAIN_SECONDS", 30)
        sim.play(Script(linger=3600))
        with client_for(sim.base_url) as client:
            stream = client.stream("hello")
            finished = threading.Event()

            def read():
                for event in stream:
                    if isinstance(event, Finished):
                        finished.set()

            reader = Reader(read)
            assert finished.wait(SOON)
            until(stream._driver._reading.locked)
            getattr(stream, end)()
            assert reader.ended() is None
            assert stream.state is StreamState.DONE
            assert stream.get_final_text() == TEXT

    def test_in_the_callers_own_loop(self, sim, end, kind):
        with client_for(sim.base_url) as client:
            stream = client.stream("hello")
            next(event for event in stream if str(event))
            getattr(stream, end)()
            with pytest.raises(kind) as caught:
                next(stream)
            assert TEXT.startswith(caught.value.partial_text)

    def test_racing_with_completion(self, sim, end, kind):
        """Whole, or told otherwise: never silently short, never in use for ever."""
        jitter = random.Random(20261105)
        interval = sys.getswitchinterval()
        outcomes = set()
        # About as long as a stream takes, however fast this machine is at the moment.
        usual = 0.001
        with client_for(sim.base_url, pool=PrioritySemaphore(2)) as client:
            sys.setswitchinterval(1e-5)
            try:
                for _ in range(500):
                    stream = client.stream("hello")
                    received, reader = collect(map(str, stream))
                    moment = time.perf_counter() + jitter.uniform(0, 2 * usual)
                    while time.perf_counter() < moment:
                        pass
                    getattr(stream, end)()
                    error = reader.ended()
                    usual *= 0.95 if error is None else 1.05
                    text = "".join(received)
                    if error is None:
                        assert text == TEXT
                        assert stream.completion.text == TEXT
                        assert stream.state is StreamState.DONE
                    else:
                        assert type(error) is kind
                        assert TEXT.startswith(text)
                        assert stream.state is StreamState.CLOSED
                    outcomes.add(type(error))
                    assert client.pool.statistics().in_use == 0
            finally:
                sys.setswitchinterval(interval)
            assert outcomes == {type(None), kind}


class TestAStopThatMeetsTheEnd:
    """The moments that a race only finds now and then."""

    def test_the_last_batch_arrives_while_it_is_decided_what_to_take_back(self, sim):
        driver = checked = None
        receiving, deciding = threading.Event(), threading.Event()
        here = threading.current_thread()

        class Watched(Exchange):
            def receive(self, batch, now):
                if batch[-1].raw == b"[DONE]":
                    receiving.set()
                    assert deciding.wait(SOON)
                return super().receive(batch, now)

            @property
            def complete(self):
                found = self.completion is not None
                if threading.current_thread() is here and not deciding.is_set():
                    deciding.set()
                    assert not found
                    until(lambda: self.completion)
                    checked.ended()
                return found

            @complete.setter
            def complete(self, _):
                pass

        with Simulator(text="Short.") as short, client_for(short.base_url) as client:
            stream = client.stream("hello")
            driver = stream._driver
            stream._exchange.__class__ = Watched
            received = []

            def read():
                while stream.completion is None:
                    received.extend(driver.pending)
                    driver.advance()

            checked = Reader(read)
            assert receiving.wait(SOON)
            stream.cancel()
            assert checked.ended() is None
            received += stream
            assert "".join(map(str, received)) == "Short."
            assert stream.state is StreamState.DONE

    def test_the_last_event_is_taken_before_it_has_let_go(self, sim):
        with client_for(sim.base_url) as client, client.stream("hello") as stream:
            next(event for event in stream if isinstance(event, Finished))
            # The first thing that a cancel does.
            stream._driver._token.cancel()
            assert list(stream) == []
            assert stream.state is StreamState.DONE


class TestOneReader:
    def test_a_second_thread_may_not_iterate(self, sim):
        sim.play(Script(stall_headers=True))
        with client_for(sim.base_url) as client:
            stream = client.stream("hello")
            reader = Reader(stream.until_done)
            assert sim.wait_until(lambda: sim.requests)
            with pytest.raises(StreamInUse):
                next(stream)
            assert stream.state is StreamState.CONNECTING
            stream.cancel()
            assert type(reader.ended()) is StreamCancelled

    def test_threads_may_take_turns(self, sim):
        with client_for(sim.base_url) as client, client.stream("hello") as stream:
            pieces = []
            while stream.completion is None:
                reader = Reader(lambda: pieces.append(str(next(stream))))
                assert reader.ended() is None
            pieces += map(str, stream)
            assert "".join(pieces) == TEXT


REUSABLE = [
    Script(),
    Script(framing="one-chunk"),
    Script(framing="length"),
    Script(rechunk=7),
    Script(gzip=True),
    Script(gzip=True, framing="length"),
    Script(newline="\r\n"),
    Script(pace=0.0005),
    Script(done=False),
    Script(linger=0.05),
]


class TestConnectionsAreUsedAgain:
    @pytest.fixture
    def patient(self, monkeypatch):
        """Drain for as long as a busy machine takes to send what is drained."""
        assert wire_http.DRAIN_SECONDS >= 5 * 0.05, "the linger below is well within it"
        monkeypatch.setattr(wire_http, "DRAIN_SECONDS", SOON)

    @pytest.mark.usefixtures("patient")
    @pytest.mark.parametrize("script", REUSABLE, ids=str)
    def test_after_reading_to_the_end(self, sim, script):
        sim.play(*[script] * 5)
        with client_for(sim.base_url) as client:
            for _ in range(5):
                with client.stream("hello") as stream:
                    assert stream.get_final_text() == TEXT
        assert sim.connections == 1

    @pytest.mark.usefixtures("patient")
    @pytest.mark.parametrize("script", REUSABLE, ids=str)
    def test_after_leaving_at_finished(self, sim, script):
        sim.play(*[script] * 5)
        with client_for(sim.base_url) as client:
            for _ in range(5):
                with client.stream("hello") as stream:
                    for event in stream:
                        if isinstance(event, Finished):
                            break
                assert stream.completion.text == TEXT
        assert sim.connections == 1

    def test_not_where_the_server_lingers(self, sim):
        sim.play(Script(linger=3600))
        with client_for(sim.base_url) as client:
            began = time.monotonic()
            assert client.stream("hello").get_final_text() == TEXT
            assert time.monotonic() - began < SOON
            assert client.stream("hello").get_final_text() == TEXT
        assert sim.connections == 2

    def test_not_after_a_cancel(self, sim):
        sim.play(Script(stall_at=900))
        with client_for(sim.base_url) as client:
            stream = client.stream("hello")
            next(event for event in stream if str(event))
            stream.cancel()
            assert client.stream("hello").get_final_text() == TEXT
        assert sim.connections == 2

    def test_letting_go_late_leaves_the_next_user_of_the_connection_alone(self, sim):
        """The first stream's connection is the second one's before the first closes."""
        sim.play(Script(), Script(stall_at=900))
        with client_for(sim.base_url) as client:
            first = client.stream("hello")
            next(event for event in first if isinstance(event, Finished))
            # It was read to its end, but nobody has said so yet.
            first._driver._connection.drain()
            second = client.stream("hello")
            next(event for event in second if str(event))
            assert sim.connections == 1
            first.cancel()
            first.close()
            sim.play(Script())
            reader = Reader(second.until_done)
            until(second._driver._reading.locked)
            second.cancel()
            assert type(reader.ended()) is StreamCancelled

    def test_a_shared_connection_survives_the_first_users_close(self, sim):
        gate = threading.Semaphore(0)
        sim.play(Script(), Script(gate=gate))
        with client_for(sim.base_url) as client, client.stream("hello") as first:
            next(event for event in first if isinstance(event, Finished))
            first._driver._connection.drain()
            with client.stream("hello") as second:
                gate.release(3)
                next(event for event in second if str(event))
                first.close()
                gate.release(10_000)
                assert second.get_final_text() == TEXT
        assert sim.connections == 1


class TestStoppingIsNeverMissed:
    def test_between_the_last_look_and_the_connect(self):
        """A shutdown before the connect has begun does nothing: it must be seen."""
        clocks = ReadClocks(PATIENT, Deadline())

        def now():
            # Asked for the time of the wait, so just before the connect.
            guard.stop()
            return time.monotonic()

        guard = SocketGuard(clocks)
        guard.now = now
        with blackhole() as port:
            address = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))
            reader = Reader(
                lambda: wire_connecting.connect(
                    [address], guard, source=None, options=[]
                )
            )
            error = reader.ended()
            guard.release()
        assert error.kind is FaultKind.STOPPED

    def test_retries_are_not_made_after_it(self, sim):
        sim.play(Script(cut_before_headers="rst", times=0))
        policy = RetryPolicy(attempts=1000, base=0.001, cap=0.001)
        with client_for(sim.base_url, retry=policy) as client:
            stream = client.stream("hello")
            reader = Reader(stream.until_done)
            assert sim.wait_until(lambda: len(sim.requests) > 3)
            stream.cancel()
            assert type(reader.ended()) is StreamCancelled
            made = len(sim.requests)
            assert stream.attempts in (made, made + 1)


_OPENING = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


class TestAFloodIsNoAnswer:
    """Bytes that never let the reader wait run its clocks down all the same."""

    @pytest.mark.parametrize(
        ("head", "flood"),
        [
            (_OPENING + b"\r\n", b": ping\n\n" * 8000),
            (_OPENING + b"\r\n", b"\n" * 65536),
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000),
            (
                _OPENING + b"Transfer-Encoding: chunked\r\n\r\n0\r\n",
                b"X-Trailer: a\r\n" * 4000,
            ),
        ],
        ids=["pings", "blank lines", "interim answers", "trailers"],
    )
    def test_before_the_first_token(self, head, flood):
        def pour(sock):
            read_request(sock)
            sock.sendall(head)
            while True:
                sock.sendall(flood)

        with Peer(pour) as peer, client_for(peer.url) as client:
            stream = client.stream("x", timeout=Timeouts(first_token=SHORT))
            with pytest.raises(FirstTokenTimeout):
                stream.until_done()
