"""Backpressure, another size, jitter, and the pools that have a name."""

from __future__ import annotations

import logging
import random
import threading

import pytest
from hypothesis import given, strategies as st
from pool_callers import Acquirer, in_use

from holystream.errors import ConfigurationError, QueueFull, QueueTimeout
from holystream.resilience.pool import PrioritySemaphore
from holystream.resilience.pressure import Pressure


class TestHysteresis:
    """It begins at four fifths, and ends at three fifths."""

    def test_as_the_use_rises_and_falls(self):
        told = []
        pool = PrioritySemaphore(10, on_backpressure=told.append)
        permits = [pool.acquire() for _ in range(7)]
        assert (pool.backpressure, told) == (False, [])
        permits.append(pool.acquire())
        assert (pool.backpressure, told) == (True, [True])
        permits += [pool.acquire(), pool.acquire()]
        while len(permits) > 7:
            permits.pop().release()
            assert (pool.backpressure, told) == (True, [True])
        permits.pop().release()
        assert (pool.backpressure, told) == (False, [True, False])
        permits.append(pool.acquire())
        assert (pool.backpressure, told) == (False, [True, False])
        assert not pool.statistics().backpressure
        permits.append(pool.acquire())
        assert pool.statistics().backpressure

    def test_with_a_reserve_all_permits_count(self):
        pool = PrioritySemaphore(10, reserve=0.3)
        permits = [pool.acquire() for _ in range(7)]
        assert not pool.backpressure
        permits.append(pool.acquire(priority="critical"))
        assert pool.backpressure

    def test_a_lost_permit_counts(self):
        told = []
        pool = PrioritySemaphore(1, on_backpressure=told.append)
        pool.acquire()  # and nobody keeps it
        assert not pool.backpressure
        pool.statistics()  # what finalisers leave is told by whoever comes next
        assert told == [True, False]

    @given(
        limit=st.integers(1, 30),
        uses=st.lists(st.integers(0, 30), max_size=50),
    )
    def test_any_use_agrees_with_the_definition(self, limit, uses):
        told, expected, on = [], [], False
        pressure = Pressure(told.append)
        pressure.fit(limit)
        for used in (min(use, limit) for use in uses):
            pressure.note(used)
            pressure.tell()
            if on and used <= 0.6 * limit + 1e-9:
                on = False
                expected.append(on)
            elif not on and used >= 0.8 * limit - 1e-9:
                on = True
                expected.append(on)
            assert pressure.on is on
        assert told == expected


class TestListener:
    """It is the caller's code."""

    def test_it_may_use_the_pool(self):
        told = []

        def listen(on):
            told.append((on, pool.statistics().in_use))
            if on:
                permits.pop().release()
                permits.pop().release()
                # What this changed is told when this has returned.
                assert told == [(True, 4)]

        pool = PrioritySemaphore(5, on_backpressure=listen)
        permits = [pool.acquire() for _ in range(3)]
        permits.append(pool.acquire())
        assert told == [(True, 4), (False, 2)]

    def test_what_it_raises_is_logged(self, caplog):
        def listen(_):
            raise ZeroDivisionError

        pool = PrioritySemaphore(1, on_backpressure=listen)
        with caplog.at_level(logging.ERROR, "holystream"):
            permit = pool.acquire()
            permit.release()
        assert len(caplog.records) == 2
        assert in_use(pool) == 0

    def test_changes_are_told_in_order_by_one_thread_at_a_time(self):
        told, inside, left = [], threading.Event(), threading.Event()

        def listen(on):
            told.append(on)
            if len(told) == 1:
                inside.set()
                assert left.wait(20)

        pool = PrioritySemaphore(1, on_backpressure=listen)
        waiter = threading.Thread(target=lambda: pool.acquire().release())
        waiter.start()
        assert inside.wait(20)
        # This thread finds the other one telling, and does not wait for it.
        pool.statistics()
        assert told == [True]
        left.set()
        waiter.join(20)
        pool.statistics()
        assert told == [True, False]


class TestResize:
    """More at once, fewer as they come back."""

    def test_more_are_granted_at_once(self):
        pool = PrioritySemaphore(1)
        _holder = pool.acquire()
        waiters = [Acquirer(pool) for _ in range(3)]
        pool.resize(3)
        assert waiters[0].outcome().held
        assert waiters[1].outcome().held
        now = pool.statistics()
        assert (now.limit, now.in_use, now.queued, now.max_queue) == (3, 3, 1, 30)
        waiters[2].token.cancel()

    def test_fewer_as_they_come_back(self):
        pool = PrioritySemaphore(4)
        permits = [pool.acquire() for _ in range(4)]
        pool.resize(2)
        waiter = Acquirer(pool)
        for left in (3, 2):
            permits.pop().release()
            assert (in_use(pool), pool.statistics().queued) == (left, 1)
        permits.pop().release()
        assert waiter.outcome().held
        assert in_use(pool) == 2
        with pytest.raises(QueueTimeout):
            pool.acquire(timeout=0)

    def test_free_ones_go_at_once(self):
        pool = PrioritySemaphore(4)
        permit = pool.acquire()
        pool.resize(2)
        other = pool.acquire()
        with pytest.raises(QueueTimeout):
            pool.acquire(timeout=0)
        del permit, other
        assert (in_use(pool), pool.statistics().granted) == (0, 2)

    def test_a_queue_of_its_own_length_keeps_it(self):
        pool = PrioritySemaphore(1, max_queue=5)
        pool.resize(7)
        assert (pool.limit, pool.max_queue) == (7, 5)

    def test_a_wrong_size(self):
        with pytest.raises(ConfigurationError, match="limit must be a whole number"):
            PrioritySemaphore(1).resize(0)


class TestJitter:
    """Who came together does not give up together."""

    def patience(self, pool, *arguments):
        return [pool._patience(*arguments) for _ in range(200)]

    def test_a_wait_ends_up_to_a_tenth_early(self):
        waits = self.patience(PrioritySemaphore(1, rng=random.Random(7)), 60.0, None)
        assert min(waits) >= 54.0
        assert max(waits) <= 60.0
        assert max(waits) - min(waits) > 5.0

    @pytest.mark.parametrize(
        ("options", "arguments", "seconds"),
        [
            ({"jitter": 0.0}, (60.0, None), 60.0),
            ({}, (0.5, None), 0.5),  # no herd
            ({}, (60.0, 30.0), 30.0),  # the deadline
            ({}, (float("inf"), None), float("inf")),
            ({"timeout": 0.25}, (None, None), 0.25),
        ],
    )
    def test_these_are_exact(self, options, arguments, seconds):
        pool = PrioritySemaphore(1, **options)
        assert set(self.patience(pool, *arguments)) == {seconds}

    def test_a_deadline_ends_a_wait(self):
        pool = PrioritySemaphore(1)
        _holder = pool.acquire()
        with pytest.raises(QueueTimeout, match=r"no permit within 0\.003 s"):
            pool.acquire(deadline=0.003)


class TestNamed:
    """The defaults of others."""

    def test_a_browser(self):
        pool = PrioritySemaphore.browser()
        assert (pool.limit, pool.max_queue) == (6, 100)

    def test_a_server(self):
        pool = PrioritySemaphore.server()
        assert (pool.limit, pool.max_queue) == (50, 500)


def test_statistics_agree_with_a_script():
    now = [0.0]
    pool = PrioritySemaphore(1, max_queue=2, clock=lambda: now[0])
    holder = pool.acquire()
    first, second = Acquirer(pool, priority="high"), Acquirer(pool, priority="low")
    with pytest.raises(QueueFull):
        pool.acquire(priority="low")
    counted = pool.statistics()
    queued = {"critical": 0, "high": 1, "normal": 0, "low": 1}
    assert counted.queued_by_priority == queued
    now[0] = 2.0
    holder.release()
    holder = first.outcome()
    now[0] = 5.0
    holder.release()
    holder = second.outcome()
    third = Acquirer(pool)
    third.token.cancel()
    third.outcome()
    with pytest.raises(QueueTimeout):
        pool.acquire(timeout=0)
    holder.release()
    pool.acquire()  # lost
    counted = pool.statistics()
    assert (counted.granted, counted.waited) == (4, 2)
    assert (counted.wait_total, counted.wait_mean, counted.wait_max) == (7.0, 3.5, 5.0)
    assert (counted.refused, counted.timeouts, counted.cancels) == (1, 1, 1)
    assert (counted.in_use, counted.queued, counted.backpressure) == (0, 0, False)
