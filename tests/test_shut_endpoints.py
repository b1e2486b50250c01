"""Who waits for an endpoint that is shut goes on soon after it is not, and not before.

The waits are minutes long, the clock of the breakers moves when it is told to, and what
ends a wait is a breaker that another stream has closed.
"""

from __future__ import annotations

import threading

import pytest
from loopback import SOON, Reader, client_for, until

from holystream import (
    AttemptRecord,
    BreakerPolicy,
    Endpoint,
    Overloaded,
    PrioritySemaphore,
    RateLimited,
    RetryPolicy,
    StreamCancelled,
    StreamInterrupted,
    Verdict,
    Waiting,
    clocks,
)
from holystream.clocks import SystemTime
from holystream.resilience import patience
from holystream.simulator import Script, Simulator
from holystream.testing import SleeplessClock

OPEN = BreakerPolicy(failures=1, open_for=500.0, jitter=0.0)
THRICE = RetryPolicy(attempts=3, base=0.001, cap=0.002)
OFTEN = RetryPolicy(attempts=99, base=0.001, cap=0.002)
TEXT = "It goes on and on. " * 30
CUT = Script(cut_at=4000)
BUSY = Script(status=503)


class Clock(SleeplessClock):
    """Sleeps through no wait but those that may end early, and these in earnest."""

    def __init__(self):
        super().__init__()
        self.looks = 0

    def sleep(self, seconds, since, token, over=None):
        if over is None:
            return super().sleep(seconds, since, token)

        def look():
            self.looks += 1
            return over()

        return SystemTime.sleep(self, seconds, since, token, look)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(clocks, "LOOK", 0.002)
    with Clock() as made:
        yield made


@pytest.fixture
def one():
    with Simulator(text=lambda _: TEXT) as made:
        yield made


@pytest.fixture
def two():
    with Simulator(text=lambda _: TEXT) as made:
        yield made


def of_two(one, two, **options):
    """A client of "a", and of "b" for when "a" will not do."""
    endpoints = [
        Endpoint(one.base_url, name="a"),
        Endpoint(two.base_url, name="b", priority=1),
    ]
    return client_for(None, endpoints=endpoints, **{"breaker": OPEN, **options})


class Waiter:
    """A stream that has text, and waits for a breaker, in a thread of its own."""

    def __init__(self, client, **options):
        self.waits = []
        self.waiting = threading.Event()
        self.stream = client.stream(
            "hello", temperature=0, retry=THRICE, on_event=self._note, **options
        )
        while not self.waits:
            next(self.stream)

    def _note(self, event):
        if isinstance(event, Waiting):
            self.waits.append(event)
            if event.reason in {"circuit open", "server hint"}:
                self.waiting.set()

    def go_on(self):
        self.reader = Reader(self.stream.get_final_completion)
        return self

    def shut_out(self):
        """Wait until it waits."""
        assert self.waiting.wait(SOON)
        return self

    def done(self):
        assert self.reader.ended() is None
        assert self.reader.result.text == TEXT
        return self.reader.result


def shut(client, *names):
    """Open breakers, as by the failures of others."""
    for name in names:
        client.breakers[name].acquire().failed(Verdict.NOT_SENT)


def test_it_goes_on_once_another_stream_has_closed_it(one):
    one.play(BUSY, CUT, BUSY, Script(times=0))
    records = []
    with client_for(one.base_url, breaker=OPEN) as client:
        client.telemetry.add_hook(records.append)
        other = client.stream("hello", temperature=0, retry=OFTEN)
        while not isinstance(next(other), Waiting):
            pass
        waiter = Waiter(client)
        with pytest.raises(Overloaded):
            client.complete("hello")
        waiter.go_on().shut_out()
        other.until_done()
        waiter.done()
    assert [each.reason for each in waiter.waits[1:]] == ["circuit open"]
    assert waiter.waits[-1].delay >= 450
    waited = [each.delay for each in records if isinstance(each, AttemptRecord)]
    assert max(each or 0.0 for each in waited) < 450, "as long as it was"


def test_or_at_another_endpoint_that_is_willing(one, two, clock):
    one.play(CUT)
    with of_two(one, two) as client:
        waiter = Waiter(client)
        shut(client, "b")
        waiter.go_on().shut_out()
        client.breakers["b"].reset()
        assert waiter.done().endpoint == "b"
    assert len(one.requests) == 1
    assert max(clock.waits) < 1


def test_one_that_rests_is_not_hurried(one, two, clock):
    one.play(CUT, Script(times=0))
    two.play(Script(status=429, headers={"Retry-After": "600"}), Script(times=0))
    with of_two(one, two) as client:
        waiter = Waiter(client)
        with pytest.raises(RateLimited):
            client.complete("hello")
        shut(client, "b")
        waiter.go_on().shut_out()
        client.breakers["b"].reset()
        looks = clock.looks
        until(lambda: clock.looks > looks + 5)
        assert len(two.requests) == 1
        client.breakers["a"].reset()
        assert waiter.done().endpoint == "a"


def test_a_half_open_breaker_gets_one_probe_and_all_go_on_by_its_answer(one, clock):
    gate, many = threading.Semaphore(0), 5
    one.play(*[CUT] * many, Script(gate=gate, times=0))
    with client_for(one.base_url, breaker=OPEN) as client:
        waiters = [Waiter(client) for _ in range(many)]
        (name,) = client.breakers
        shut(client, name)
        for waiter in waiters:
            waiter.go_on().shut_out()
        # The jitter of a hint makes the waits longer than that.
        clock.advance(510)
        until(lambda: len(one.requests) == many + 1)
        looks = clock.looks
        until(lambda: clock.looks > looks + 10 * many)
        assert len(one.requests) == many + 1
        gate.release(1_000_000)
        for waiter in waiters:
            waiter.done()
        assert client.breakers[name].statistics().opened == 1
    assert [len(waiter.waits) for waiter in waiters] == [2] * many


def test_who_comes_too_late_for_the_probe_waits_on(one, clock):
    gate, pool = threading.Semaphore(0), PrioritySemaphore(2)
    one.play(CUT, CUT, Script(gate=gate, times=0))
    with client_for(one.base_url, breaker=OPEN, pool=pool) as client:
        waiters = [Waiter(client), Waiter(client)]
        (name,) = client.breakers
        shut(client, name)
        for waiter in waiters:
            waiter.go_on().shut_out()
        with pool.acquire(), pool.acquire():
            clock.advance(510)
            # Both have seen that a probe is wanted.
            until(lambda: pool.statistics().queued == 2)
        until(lambda: len(one.requests) == 3)
        until(lambda: pool.statistics().in_use == 1)
        assert len(one.requests) == 3
        gate.release(1_000_000)
        for waiter in waiters:
            waiter.done()
    assert [len(waiter.waits) for waiter in waiters] == [2, 2]


def test_after_a_probe_that_failed_they_wait_for_as_long_as_was_said(one, clock):
    many = 3
    one.play(*[CUT] * many, BUSY, Script(times=0))
    with client_for(one.base_url, breaker=OPEN) as client:
        waiters = [Waiter(client) for _ in range(many)]
        (name,) = client.breakers
        shut(client, name)
        for waiter in waiters:
            waiter.go_on().shut_out()
        clock.advance(510)
        until(lambda: client.breakers[name].statistics().opened == 2)
        # It was the last attempt of whoever made it.
        until(lambda: any(waiter.reader.error for waiter in waiters))
        looks = clock.looks
        until(lambda: clock.looks > looks + 10)
        assert len(one.requests) == many + 1
        clock.advance(45)
        errors = [waiter.reader.ended() for waiter in waiters]
    assert sorted(type(each) for each in errors if each) == [StreamInterrupted]
    assert len(one.requests) == many + 1 + (many - 1)


def test_it_ends_at_once_when_it_is_cancelled(one, monkeypatch):
    monkeypatch.setattr(clocks, "LOOK", 500.0)
    one.play(CUT)
    with client_for(one.base_url, breaker=OPEN) as client:
        waiter = Waiter(client)
        (name,) = client.breakers
        shut(client, name)
        waiter.go_on().shut_out()
        waiter.stream.cancel()
        assert isinstance(waiter.reader.ended(), StreamCancelled)


def test_no_permit_is_held_meanwhile_nor_by_looking(one, clock):
    one.play(CUT)
    with client_for(one.base_url, breaker=OPEN) as client:
        waiter = Waiter(client)
        (name,) = client.breakers
        shut(client, name)
        waiter.go_on().shut_out()
        until(lambda: clock.looks > 5)
        assert client.pool.statistics().in_use == 0
        client.breakers[name].reset()
        waiter.done()


class TestQuiet:
    """It is kept to its end, but for an endpoint that comes free meanwhile."""

    ASKS = Script(status=503, headers={"Retry-After": "50"})

    def test_one_that_was_shut_is_asked_once_it_is_not(self, one, two):
        one.play(CUT, self.ASKS)
        with of_two(one, two, breaker=BreakerPolicy()) as client:
            client.breakers["b"].force_open()
            waiter = Waiter(client).go_on().shut_out()
            assert waiter.waits[-1].reason == "server hint"
            client.breakers["b"].reset()
            assert waiter.done().endpoint == "b"

    def test_nobody_is_asked_before_because_its_own_quiet_is_over(
        self, one, two, clock
    ):
        one.play(CUT, self.ASKS, Script(times=0))
        with of_two(one, two, breaker=BreakerPolicy()) as client:
            client.breakers["b"].force_open()
            waiter = Waiter(client).go_on().shut_out()
            # What is added to a hint keeps a herd apart.
            clock.advance(51)
            looks = clock.looks
            until(lambda: clock.looks > looks + 5)
            assert len(one.requests) == 2
            clock.advance(10)
            assert waiter.done().endpoint == "a"

    def test_with_one_endpoint_there_is_nothing_to_look_for(self, one, clock):
        one.play(CUT, self.ASKS, Script(times=0))
        with client_for(one.base_url, breaker=OPEN) as client:
            Waiter(client).go_on().shut_out().done()
        assert clock.looks == 0
        assert max(clock.waits) >= 50

    def test_who_keeps_the_rest_of_the_answer_is_waited_for(self, one, two, clock):
        keeps = Script(ids="named", cut_at=4000)
        one.play(keeps, self.ASKS, Script(ids="named", times=0))
        with of_two(one, two, breaker=BreakerPolicy()) as client:
            client.breakers["b"].force_open()
            assert Waiter(client).go_on().shut_out().done().endpoint == "a"
        assert clock.looks == 0


class TestMaps:
    def test_the_items_go_on_once_another_stream_has_closed_it(self, one, monkeypatch):
        monkeypatch.setattr(patience, "ASK_AGAIN", 400.0)
        many, waiting = 8, threading.Semaphore(0)
        one.play(BUSY, BUSY, Script(times=0))

        def note(event):
            if isinstance(event, Waiting):
                waiting.release()

        with client_for(one.base_url, breaker=OPEN) as client:
            other = client.stream("hello", temperature=0, retry=OFTEN)
            while not isinstance(next(other), Waiting):
                pass
            with pytest.raises(Overloaded):
                client.complete("hello")
            with client.map(["hello"] * many, on_event=note) as results:
                reader = Reader(lambda: [result.text for result in results])
                for _ in range(many):
                    assert waiting.acquire(timeout=SOON)
                other.until_done()
                assert reader.ended() is None
                assert reader.result == [TEXT] * many
        assert not waiting.acquire(blocking=False), "each was told to wait once"

    def test_quiet_ends_early_where_a_breaker_closes(self, one, two):
        one.play(Script(status=429, headers={"Retry-After": "90"}), Script(times=0))
        waiting = threading.Event()

        def note(event):
            if isinstance(event, Waiting) and event.reason == "server hint":
                waiting.set()

        with of_two(one, two) as client:
            shut(client, "b")
            with client.map(["hello"], on_event=note) as results:
                reader = Reader(lambda: [each.completion for each in results])
                assert waiting.wait(SOON)
                client.breakers["b"].reset()
                assert reader.ended() is None
                assert [each.endpoint for each in reader.result] == ["b"]
