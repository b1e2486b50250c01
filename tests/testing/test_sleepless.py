"""The clock that does not sleep. The waits here are hours: a sleep would be noticed."""

from __future__ import annotations

import contextlib
import threading

import pytest

from holystream import (
    DeadlineExceeded,
    RetryPolicy,
    ServerError,
    StreamCancelled,
    TextDelta,
    Waiting,
)
from holystream.client import Client
from holystream.clocks import CancelToken, SystemTime
from holystream.simulator import Script
from holystream.testing import SleeplessClock

HOURS = RetryPolicy(base=3600, cap=4 * 3600, retry_after_cap=10_000)
FAILING = Script(status=503, times=0)


def test_no_wait_is_slept_and_each_is_noted(
    holystream_simulator, holystream_client, holystream_clock
):
    holystream_simulator.play(Script(status=503, times=4))
    begun = holystream_clock.now()
    holystream_client.stream("hello", retry=HOURS).until_done()
    assert holystream_clock.waits == [3600.0, 7200.0, 14400.0, 14400.0]
    assert 0 <= holystream_clock.now() - begun - sum(holystream_clock.waits) < 30


@pytest.mark.parametrize(
    ("jitter", "waits"), [(0.0, [0.0, 0.0]), (0.25, [900.0, 1800.0])]
)
def test_jitter_falls_where_it_is_told(
    holystream_simulator, holystream_client, jitter, waits
):
    holystream_simulator.play(Script(status=503, times=2))
    with SleeplessClock(jitter=jitter) as clock:
        holystream_client.stream("hello", retry=HOURS).until_done()
    assert clock.waits == waits


def test_a_server_hint_is_waited_for_with_its_spread(
    holystream_simulator, holystream_client, holystream_clock
):
    holystream_simulator.play(Script(status=429, headers={"Retry-After": "7000"}))
    holystream_client.stream("hello", retry=HOURS).until_done()
    assert holystream_clock.waits == [7700.0]


def test_a_deadline_counts_what_was_not_slept(
    holystream_simulator, holystream_client, holystream_clock
):
    holystream_simulator.play(FAILING)
    with pytest.raises(ServerError, match="after the deadline"):
        holystream_client.stream("hello", retry=HOURS, deadline=5000).until_done()
    assert holystream_clock.waits == [3600.0]


def test_time_can_be_let_pass(
    holystream_simulator, holystream_client, holystream_clock
):
    gate = threading.Semaphore(2)
    holystream_simulator.play(Script(gate=gate))
    with holystream_client.stream("hello", deadline=5000) as stream:
        for event in stream:
            if isinstance(event, TextDelta):
                break
        holystream_clock.advance(6000)
        with pytest.raises(DeadlineExceeded):
            stream.until_done()


def test_a_cancelled_wait_leads_to_no_attempt(
    holystream_simulator, holystream_client, holystream_clock
):
    holystream_simulator.play(FAILING)
    stream = holystream_client.stream("hello", retry=HOURS)

    def read():
        for event in stream:
            if isinstance(event, Waiting):
                stream.cancel()

    with pytest.raises(StreamCancelled):
        read()
    assert holystream_clock.waits == []
    assert len(holystream_simulator.requests) == 1


def test_a_wait_that_is_cancelled_already_is_none():
    clock, token = SleeplessClock(), CancelToken()
    token.cancel()
    begun = clock.now()
    clock.sleep(3600, begun, token)
    assert clock.waits == []
    assert clock.now() - begun < 30


def test_what_passed_since_the_failure_is_not_waited_again():
    clock = SleeplessClock()
    since = clock.now()
    clock.advance(3000)
    clock.sleep(3600, since, CancelToken())
    assert clock.waits == [3600.0]
    assert 0 <= clock.now() - since - 3600 < 30


def test_it_serves_clients_that_were_there_before_it_and_their_copies(
    holystream_simulator, holystream_client
):
    copy = holystream_client.with_options(model="other")
    holystream_simulator.play(Script(status=503))
    with SleeplessClock() as clock:
        copy.stream("hello", retry=HOURS).until_done()
    assert clock.waits == [3600.0]


def test_clocks_nest_and_the_real_one_comes_back():
    real = Client._time
    assert type(real) is SystemTime
    with SleeplessClock() as outer:
        with SleeplessClock() as inner:
            assert Client._time is inner
        assert Client._time is outer
    assert Client._time is real


def test_the_real_clock_waits_for_the_rest_of_the_time_alone():
    real, token = SystemTime(), CancelToken()
    # Seven hours of it have passed.
    real.sleep(7 * 3600, real.now() - 7 * 3600, token)
    token.cancel()
    # And a cancel ends it.
    real.sleep(7 * 3600, real.now(), token)


def test_it_takes_any_number_of_threads():
    clock, token = SleeplessClock(), CancelToken()
    barrier = threading.Barrier(8)
    begun = clock.now()

    def sleep():
        barrier.wait(20)
        for _ in range(200):
            clock.sleep(1.0, clock.now(), token)

    threads = [threading.Thread(target=sleep) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert clock.waits == [1.0] * 1600
    # Another thread's wait may have taken the clock past the end of ours already.
    assert clock.now() - begun >= 200


def test_waits_at_the_same_time_take_the_time_of_the_longest():
    clock, token = SleeplessClock(), CancelToken()
    since = clock.now()
    looked = threading.Barrier(8)

    class Slow(type(clock)):
        def now(self):
            moment = super().now()
            # Every thread has looked at the clock before one of them moves it.
            with contextlib.suppress(threading.BrokenBarrierError):
                looked.wait(0.5)
            return moment

    clock.__class__ = Slow
    threads = [
        threading.Thread(target=clock.sleep, args=(60.0, since, token))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.__class__ = SleeplessClock
    assert clock.waits == [60.0] * 8
    assert 60 <= clock.now() - since < 120


@pytest.mark.parametrize("jitter", [-0.1, 1.1, float("nan")])
def test_jitter_is_a_share(jitter):
    with pytest.raises(ValueError, match="jitter must be from 0 to 1"):
        SleeplessClock(jitter=jitter)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_time_goes_neither_back_nor_for_ever(seconds):
    clock = SleeplessClock()
    with pytest.raises(ValueError, match="seconds must be 0 or more, and finite"):
        clock.advance(seconds)
