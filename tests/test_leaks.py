"""A thousand streams that end in every possible way, and leave nothing behind."""

from __future__ import annotations

import collections
import contextlib
import gc
import random
import socket
import warnings

import pytest
from loopback import Reader, client_for, nothing_left_behind, open_files, until

from holystream import (
    AttemptRecord,
    DeadlineExceeded,
    FirstTokenTimeout,
    PrioritySemaphore,
    QueueTimeout,
    RetryPolicy,
    StreamCancelled,
    StreamClosed,
    StreamError,
    StreamInterrupted,
    StreamRecord,
    Timeouts,
)
from holystream.events import Connected, Finished, TextDelta, Waiting
from holystream.simulator import Script, Simulator
from holystream.stream import StreamState

TEXT = "A leak is a drop that nobody counts, until the boat is full. " * 5
FAST = RetryPolicy(attempts=2, base=0.0005, cap=0.001)


class Harbour:
    """A client and its server, and the scripts that the next streams meet."""

    def __init__(self, sim, client):
        self.sim = sim
        self.client = client

    def stream(self, *scripts, prompt="hello", **options):
        self.sim.play(*scripts)
        return self.client.stream(prompt, **options)


@pytest.fixture
def harbour():
    with (
        Simulator(text=TEXT) as sim,
        client_for(sim.base_url, retry=FAST, pool=PrioritySemaphore(4)) as client,
    ):
        yield Harbour(sim, client)


def first(stream, kind):
    return next(event for event in stream if isinstance(event, kind))


def fails(stream, kind=StreamError):
    with pytest.raises(kind), stream:
        stream.until_done()


def done(harbour):
    assert harbour.stream().get_final_text() == TEXT


def done_in_a_block(harbour):
    with harbour.stream() as stream:
        assert "".join(stream.text_stream) == TEXT


def done_after_a_retry(harbour):
    assert harbour.stream(Script(status=503)).get_final_text() == TEXT


def done_after_a_replay(harbour):
    stream = harbour.stream(Script(cut_at=900, cut="rst"), temperature=0)
    assert stream.get_final_text() == TEXT


def done_close_delimited(harbour):
    assert harbour.stream(Script(framing="close")).get_final_text() == TEXT


def left_at_finished(harbour):
    with harbour.stream() as stream:
        first(stream, Finished)


def cut_by_a_fin(harbour):
    fails(harbour.stream(Script(cut_at=900)), StreamInterrupted)


def cut_by_a_rst(harbour):
    fails(harbour.stream(Script(cut_at=900, cut="rst")), StreamInterrupted)


def cut_before_headers(harbour):
    fails(harbour.stream(Script(cut_before_headers="rst", times=2)))


def garbage(harbour):
    fails(harbour.stream(Script(garbage_status_line=True, times=2)))


def malformed(harbour):
    fails(harbour.stream(Script(malformed_at=2)))


def error_event(harbour):
    fails(harbour.stream(Script(error_event_at=3)), StreamInterrupted)


def redirected(harbour):
    fails(harbour.stream(Script(redirect="http://127.0.0.1:1/")))


def not_a_stream(harbour):
    fails(harbour.stream(Script(status=200, error=b"<html>")))


def refused_400(harbour):
    fails(harbour.stream(Script(status=400)))


def refused_401(harbour):
    fails(harbour.stream(Script(echo_key=True)))


def refused_429(harbour):
    fails(harbour.stream(Script(status=429, times=2)))


def asked_to_wait_too_long(harbour):
    fails(harbour.stream(Script(status=429, headers={"Retry-After": "9999"})))


def always(script):
    """Make a request bring its script: the server may read it when we have left."""
    return {"X-Simulator": str(script)}


def silence(harbour):
    headers = always(Script(stall_at=900))
    timeout = Timeouts(first_token=30, idle=0.02)
    fails(harbour.stream(extra_headers=headers, timeout=timeout), StreamInterrupted)


def no_answer(harbour):
    headers = always(Script(stall_headers=True))
    timeout = Timeouts(first_token=0.02)
    fails(harbour.stream(extra_headers=headers, timeout=timeout), FirstTokenTimeout)


def deadline(harbour):
    headers = always(Script(stall_at=900))
    fails(harbour.stream(extra_headers=headers, deadline=0.02), DeadlineExceeded)


def queue_timeout(harbour):
    pool = harbour.client.pool
    with contextlib.ExitStack() as stack:
        for _ in range(pool.limit):
            stack.enter_context(pool.acquire())
        fails(harbour.stream(timeout=Timeouts(queue=0.02)), QueueTimeout)


def cancelled_in_a_read(harbour):
    stream = harbour.stream(Script(stall_at=900))
    reader = Reader(stream.until_done)
    until(lambda: stream.partial_text)
    stream.cancel()
    assert isinstance(reader.ended(), StreamCancelled)


def cancelled_in_the_queue(harbour):
    pool = harbour.client.pool
    with contextlib.ExitStack() as stack:
        for _ in range(pool.limit):
            stack.enter_context(pool.acquire())
        stream = harbour.stream()
        reader = Reader(stream.until_done)
        until(lambda: pool.statistics().queued)
        stream.cancel()
        assert isinstance(reader.ended(), StreamCancelled)


def cancelled_in_the_backoff(harbour):
    script = Script(status=429, headers={"Retry-After": "30"})
    stream = harbour.stream(script)
    reader = Reader(stream.until_done)
    until(lambda: stream.state is StreamState.WAITING)
    stream.cancel()
    assert isinstance(reader.ended(), StreamCancelled)


def closed_unopened(harbour):
    harbour.stream().close()
    harbour.sim.play()


def closed_once_started(harbour):
    with harbour.stream() as stream:
        next(stream)


def closed_once_connected(harbour):
    with harbour.stream() as stream:
        first(stream, Connected)


def closed_in_the_text(harbour):
    with harbour.stream() as stream:
        first(stream, TextDelta)


def closed_before_a_retry(harbour):
    with harbour.stream(Script(status=503)) as stream:
        first(stream, Waiting)


def closed_while_it_is_read(harbour):
    stream = harbour.stream(Script(stall_headers=True))
    before = len(harbour.sim.requests)
    reader = Reader(stream.until_done)
    assert harbour.sim.wait_until(lambda: len(harbour.sim.requests) > before)
    stream.close()
    assert isinstance(reader.ended(), StreamClosed)


class Oops(Exception):
    pass


def raised_by_the_caller(harbour):
    with pytest.raises(Oops), harbour.stream() as stream:
        _raise_at(stream, TextDelta)


def _raise_at(stream, kind):
    first(stream, kind)
    raise Oops


def interrupted_in_a_read(harbour):
    """Ctrl-C: a signal's exception comes out of the recv."""
    stream = harbour.stream(Script(stall_at=900))
    first(stream, TextDelta)
    connection = stream._driver._connection
    fp = connection._body._fp.fp.raw

    def interrupted(_buffer):
        raise KeyboardInterrupt

    fp._recv = interrupted
    # Two names for the same socket keep it open otherwise.
    del connection, fp
    with pytest.raises(KeyboardInterrupt):
        stream.until_done()
    with pytest.raises(StreamClosed):
        next(stream)


def interrupted_in_a_connect(harbour):
    stream = harbour.stream()

    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect_ex", interrupted)
        patch.setattr(socket.socket, "sendall", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.until_done()


def text_stream_closed(harbour):
    texts = harbour.stream().text_stream
    next(texts)
    texts.close()


def generator_closed(harbour):
    with harbour.stream() as stream:
        generator = iter(stream.text_stream)
        next(generator)
        generator.close()


def generator_dropped(harbour):
    with harbour.stream() as stream:
        next(iter(stream.text_stream))


def exhausted_and_asked_again(harbour):
    stream = harbour.stream()
    stream.until_done()
    with pytest.raises(StopIteration):
        next(stream)
    stream.close()


WAYS = [
    done,
    done_in_a_block,
    done_after_a_retry,
    done_after_a_replay,
    done_close_delimited,
    left_at_finished,
    cut_by_a_fin,
    cut_by_a_rst,
    cut_before_headers,
    garbage,
    malformed,
    error_event,
    redirected,
    not_a_stream,
    refused_400,
    refused_401,
    refused_429,
    asked_to_wait_too_long,
    silence,
    no_answer,
    deadline,
    queue_timeout,
    cancelled_in_a_read,
    cancelled_in_the_queue,
    cancelled_in_the_backoff,
    closed_unopened,
    closed_once_started,
    closed_once_connected,
    closed_in_the_text,
    closed_before_a_retry,
    closed_while_it_is_read,
    raised_by_the_caller,
    interrupted_in_a_read,
    interrupted_in_a_connect,
    text_stream_closed,
    generator_closed,
    generator_dropped,
    exhausted_and_asked_again,
]


PARALLEL = [
    done,
    done_close_delimited,
    left_at_finished,
    closed_once_started,
    closed_once_connected,
    closed_in_the_text,
    text_stream_closed,
    raised_by_the_caller,
] * 2


def all_is_told(client, records):
    """Each stream and each of its attempts has one record, however it ended."""
    attempts = collections.Counter(
        each.stream_id for each in records if isinstance(each, AttemptRecord)
    )
    streams = [each for each in records if isinstance(each, StreamRecord)]
    made = {each.stream_id: each.attempts for each in streams}
    assert len(made) == len(streams)
    assert attempts == collections.Counter(made)
    found = client.metrics().streams
    assert (found.opened, found.active) == (len(streams), 0)
    assert (
        found.streams.items()
        >= collections.Counter(each.outcome for each in streams).items()
    )


@pytest.mark.parametrize("way", WAYS)
def test_each_way(harbour, way):
    """Nothing is held once it is over, no socket but one that is kept, all is told."""
    records = []
    harbour.client.telemetry.add_hook(records.append)
    for _ in range(3):
        way(harbour)
        statistics = harbour.client.pool.statistics()
        assert (statistics.in_use, statistics.queued) == (0, 0)
        # Whatever scripts it left for a request that it did not make.
        harbour.sim._scripts.clear()
    with nothing_left_behind():
        for _ in range(3):
            way(harbour)
            harbour.sim._scripts.clear()
        harbour.client.close()
        assert harbour.sim.wait_until(lambda: not harbour.sim.open_connections)
    all_is_told(harbour.client, records)


@pytest.mark.slow
def test_a_thousand_streams(harbour):
    """All ways, shuffled, so that each one meets what another left in the pool."""
    order = random.Random(7)
    with nothing_left_behind():
        for _ in range(1000 // len(WAYS) + 1):
            for way in order.sample(WAYS, len(WAYS)):
                way(harbour)
                harbour.sim._scripts.clear()
            statistics = harbour.client.pool.statistics()
            assert (statistics.in_use, statistics.queued) == (0, 0)
        harbour.client.close()
        assert harbour.sim.wait_until(lambda: not harbour.sim.open_connections)
    done(harbour)


def test_many_at_once(harbour):
    """Threads that get in each other's way: more than there are permits."""
    with nothing_left_behind():
        for _ in range(10):
            readers = [Reader(lambda way=way: way(harbour)) for way in PARALLEL]
            for reader in readers:
                assert reader.ended() is None
        statistics = harbour.client.pool.statistics()
        assert (statistics.in_use, statistics.queued) == (0, 0)
        harbour.client.close()
        assert harbour.sim.wait_until(lambda: not harbour.sim.open_connections)


def test_closing_a_client_closes_what_is_idle_and_leaves_the_rest_alone(harbour):
    with harbour.stream(Script(stall_at=900)) as busy:
        first(busy, TextDelta)
        done(harbour)
        assert harbour.sim.open_connections == 2
        harbour.client.close()
        assert harbour.sim.wait_until(lambda: harbour.sim.open_connections == 1)
        assert busy.state is StreamState.STREAMING
        done(harbour)


class TestDropped:
    """A stream that is let go of without a word gives everything back all the same."""

    @staticmethod
    def drop(harbour, until_event, *scripts):
        stream = harbour.stream(*scripts)
        first(stream, until_event)
        assert harbour.client.pool.statistics().in_use == 1
        return stream

    @pytest.mark.parametrize("at", [Connected, TextDelta])
    def test_its_permit_comes_back_and_the_server_knows_at_once(self, harbour, at):
        stream = self.drop(harbour, at, Script(stall_at=900))
        with pytest.warns(ResourceWarning, match="was dropped"):
            del stream
        assert harbour.client.pool.statistics().in_use == 0
        assert harbour.sim.wait_until(lambda: not harbour.sim.open_connections)

    def test_its_socket_comes_back_with_the_next_stream(self, harbour):
        done(harbour)
        before = len(open_files())
        for _ in range(20):
            stream = self.drop(harbour, TextDelta, Script(stall_at=900))
            with warnings.catch_warnings(record=True):
                warnings.simplefilter("always")
                del stream
        done(harbour)
        done(harbour)
        until(lambda: len(open_files()) <= before)

    def test_its_socket_comes_back_with_the_client(self, harbour):
        with nothing_left_behind():
            stream = self.drop(harbour, TextDelta, Script(stall_at=900))
            with pytest.warns(ResourceWarning, match="was dropped"):
                del stream
            harbour.client.close()
            assert harbour.sim.wait_until(lambda: not harbour.sim.open_connections)

    def test_in_a_cycle_it_waits_for_the_collector(self, harbour):
        gc.collect()
        gc.disable()
        try:
            with nothing_left_behind():
                for number in range(1, 4):
                    stream = self.drop_in(harbour, number)
                    cycle = [stream]
                    cycle.append(cycle)
                    del stream, cycle
                assert harbour.client.pool.statistics().in_use == 3
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    # Python complains of the sockets in the cycle as well.
                    gc.collect()
                dropped = [each for each in caught if "dropped" in str(each.message)]
                assert len(dropped) == 3
                assert harbour.client.pool.statistics().in_use == 0
                harbour.client.close()
                assert harbour.sim.wait_until(lambda: not harbour.sim.open_connections)
        finally:
            gc.enable()

    def test_what_ended_needs_no_collector(self, harbour):
        """Neither a whole stream nor a failed one keeps a socket in a cycle."""
        gc.collect()
        gc.disable()
        try:
            done(harbour)
            before = len(open_files())
            for way in (done, cut_by_a_rst, refused_400, closed_in_the_text, silence):
                way(harbour)
                harbour.sim._scripts.clear()
            done(harbour)
            until(lambda: len(open_files()) <= before, "needs the collector")
        finally:
            gc.enable()

    def test_unopened_it_has_nothing_to_give_back(self, harbour):
        for _ in range(10):
            harbour.stream()
        assert harbour.client.pool.statistics().in_use == 0
        assert not harbour.sim.connections

    def test_whole_it_is_silent(self, harbour):
        stream = harbour.stream()
        stream.until_done()
        del stream
        assert harbour.client.pool.statistics().in_use == 0

    def test_by_another_thread_while_many_wait_for_its_permit(self, harbour):
        """The finaliser may run where the pool's mutex is held."""
        pool = harbour.client.pool
        streams = [self.drop_in(harbour, number) for number in range(1, pool.limit + 1)]
        readers = [
            Reader(harbour.stream().get_final_text) for _ in range(3 * pool.limit)
        ]
        until(lambda: pool.statistics().queued == 3 * pool.limit)
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            streams.clear()
        for reader in readers:
            assert reader.ended() is None
            assert reader.result == TEXT
        assert pool.statistics().in_use == 0

    @staticmethod
    def drop_in(harbour, number):
        stream = harbour.stream(Script(stall_at=900))
        first(stream, TextDelta)
        assert harbour.client.pool.statistics().in_use == number
        return stream
