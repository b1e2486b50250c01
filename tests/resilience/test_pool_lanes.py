"""Whose turn it is: weights, strict order, those who return, the reserve."""

from __future__ import annotations

import collections
import threading
import weakref

import pytest
from hypothesis import given, strategies as st
from pool_callers import FAR, SOON, Acquirer, Returner, in_use

from holystream.errors import (
    ConfigurationError,
    InvalidRequest,
    QueueFull,
    QueueTimeout,
    StreamCancelled,
)
from holystream.resilience.lanes import WEIGHTS, Lanes, Waiter
from holystream.resilience.pool import PrioritySemaphore
from holystream.resilience.seats import Seats

PRIORITIES = list(WEIGHTS)


class Counter:
    """Serves waiters of made-up lanes, one token at a time, without a thread."""

    def __init__(self, **options):
        self.lanes = Lanes(**options)
        self.seats = Seats(lambda _: None, kept=False)
        self.seats.target = 1
        self.seats.tend()
        self.kept = collections.deque()

    def fill(self, priority, number=1):
        for _ in range(number):
            self.lanes.add(Waiter(priority))

    def serve(self):
        waiters = list(self.lanes)
        self.lanes.serve(self.seats.free, self.kept, float)
        (waiter,) = (it for it in waiters if it.tokens)
        self.seats.free.append(waiter.tokens.pop())
        return waiter.priority

    def overload(self, turns, *priorities):
        """Serve so many, with a new waiter for each that was served."""
        for priority in priorities:
            if not self.lanes.by_priority[priority].queued:
                self.fill(priority)
        served = collections.Counter()
        for _ in range(turns):
            priority = self.serve()
            self.fill(priority)
            served[priority] += 1
        return served

    def drain(self):
        return [self.serve() for _ in range(self.lanes.queued)]


class TestShares:
    """Stride scheduling, driven by hand."""

    def test_all_under_overload_share_by_weight(self):
        assert Counter().overload(1500, *PRIORITIES) == {
            "critical": 800,
            "high": 400,
            "normal": 200,
            "low": 100,
        }

    def test_every_round_of_fifteen_is_shared_already(self):
        counter = Counter()
        for _ in range(20):
            served = counter.overload(15, *PRIORITIES)
            assert all(
                abs(served[priority] - weight) <= 1
                for priority, weight in WEIGHTS.items()
            )

    @given(
        weights=st.fixed_dictionaries({}, optional={
            priority: st.integers(1, 50) for priority in PRIORITIES
        }),
        busy=st.sets(st.sampled_from(PRIORITIES), min_size=1),
    )  # fmt: skip
    def test_any_weights(self, weights, busy):
        counter = Counter(weights=weights)
        weights = WEIGHTS | weights
        total = sum(weights[priority] for priority in busy)
        served = counter.overload(total * 3, *busy)
        for priority in busy:
            assert abs(served[priority] - 3 * weights[priority]) <= 1

    def test_low_is_served_when_high_alone_overloads(self):
        served = Counter().overload(100, "high", "low")
        assert served == {"high": 80, "low": 20}

    def test_an_idle_lane_saves_nothing_up(self):
        counter = Counter()
        counter.overload(1000, "low", "normal")
        served = counter.overload(150, *PRIORITIES)
        assert all(
            abs(served[priority] - 10 * weight) <= 2
            for priority, weight in WEIGHTS.items()
        )

    def test_a_lane_that_was_served_alone_owes_nothing(self):
        counter = Counter()
        counter.overload(1000, "low")
        served = counter.overload(150, *PRIORITIES)
        assert abs(served["low"] - 10) <= 1

    def test_strict_order(self):
        counter = Counter(order="strict")
        for priority in ("low", "normal", "critical", "high", "critical"):
            counter.fill(priority)
        assert counter.drain() == ["critical", "critical", "high", "normal", "low"]

    def test_strict_order_starves(self):
        served = Counter(order="strict").overload(100, *PRIORITIES)
        assert served == {"critical": 100}

    def test_one_who_has_no_token_stays_where_it_was(self):
        counter, taken = Counter(), []
        counter.fill("high")

        def another_is_faster():
            taken.append(counter.seats.free.pop())
            return 0.0

        counter.lanes.serve(counter.seats.free, counter.kept, another_is_faster)
        counter.seats.free.append(taken.pop())
        assert counter.drain() == ["high"]

    def test_those_who_left_are_passed_over(self):
        lanes, seats = (counter := Counter()).lanes, counter.seats
        waiters = [Waiter("normal") for _ in range(6)]
        back, left, *fresh = waiters
        lanes.add_returning(back)
        for waiter in (left, *fresh):
            lanes.add(waiter)
        for waiter in (back, left, fresh[1]):
            assert lanes.remove(waiter)
            assert not lanes.remove(waiter)
        assert list(lanes) == [fresh[0], fresh[2], fresh[3]]
        served = []
        while lanes.queued:
            lanes.serve(seats.free, counter.kept, float)
            (waiter,) = (it for it in waiters if it.tokens)
            served.append(waiter)
            seats.free.append(waiter.tokens.pop())
        assert served == [fresh[0], fresh[2], fresh[3]]

    def test_those_who_left_are_forgotten_though_nobody_is_served(self):
        lanes, stays = Lanes(), Waiter("low")
        lanes.add(stays)
        gone = []
        for _ in range(1000):
            waiter = Waiter("low")
            lanes.add(waiter)
            gone.append(weakref.ref(waiter.turn))
            lanes.remove(waiter)
        del waiter
        assert sum(it() is not None for it in gone) < 20
        assert list(lanes) == [stays]

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"order": "fair"}, "order must be 'weighted' or 'strict'"),
            ({"weights": {"urgent": 1}}, "not for 'urgent'"),
            ({"weights": {"low": 0}}, "weight of 'low' must be a whole number"),
            ({"weights": {"low": 1.5}}, "weight of 'low' must be a whole number"),
            ({"reserve": 1}, "reserve must be a share"),
            ({"reserve": -0.1}, "reserve must be a share"),
            ({"reserve": True}, "reserve must be a share"),
            ({"jitter": "much"}, "jitter must be a share"),
        ],
    )
    def test_a_wrong_setting_is_named(self, options, complaint):
        with pytest.raises(ConfigurationError, match=complaint):
            PrioritySemaphore(5, **options)


class TestTurns:
    """The same with threads."""

    def test_weights_decide(self):
        pool = PrioritySemaphore(1, max_queue=12)
        holder = pool.acquire()
        done = []
        waiters = [
            Acquirer(pool, priority=priority, done=done)
            for priority in ("low", "low", "normal", "normal", "high", "high")
            for _ in range(2)
        ]
        holder.release()
        for waiter in waiters:
            waiter.outcome()
        # All begin level; then 4 : 2 : 1.
        assert [waiter.options["priority"] for waiter in done[:7]] == [
            *("high", "normal", "low", "high", "high", "normal", "high")
        ]
        assert in_use(pool) == 0

    def test_first_in_first_out_within_a_lane(self):
        pool = PrioritySemaphore(1)
        holder = pool.acquire()
        done = []
        waiters = [Acquirer(pool, done=done) for _ in range(6)]
        holder.release()
        for waiter in waiters:
            waiter.outcome()
        assert done == waiters

    def test_those_who_return_go_first_in_their_lane_and_keep_their_order(self):
        pool = PrioritySemaphore(1, max_queue=2)
        holder = pool.acquire()
        done = []
        fresh = [Acquirer(pool, done=done) for _ in range(2)]
        back = [Returner(pool, done=done) for _ in range(3)]  # the queue is full
        assert pool.statistics().queued == 5
        holder.release()
        for waiter in (*back, *fresh):
            waiter.outcome()
        assert done == [*back, *fresh]

    def test_in_a_full_queue_the_more_urgent_takes_the_place_of_the_newest(self):
        pool = PrioritySemaphore(1, max_queue=3)
        holder = pool.acquire()
        normal = Acquirer(pool, priority="normal")
        first, second = [Acquirer(pool, priority="low") for _ in range(2)]
        urgent = Acquirer(pool, priority="critical")
        assert isinstance(second.outcome(), QueueFull)
        assert "place in the full queue went to a more urgent" in str(second.outcome())
        high = Acquirer(pool, priority="high")
        assert isinstance(first.outcome(), QueueFull)
        another = Acquirer(pool, priority="high")
        assert isinstance(normal.outcome(), QueueFull)
        with pytest.raises(QueueFull, match="the queue for a permit is full"):
            pool.acquire(priority="high")
        assert pool.statistics().queued == 3
        assert pool.statistics().refused == 4
        holder.release()
        for waiter in (urgent, high, another):
            waiter.outcome().release()
        assert in_use(pool) == 0

    def test_nobody_who_had_a_permit_loses_the_place(self):
        pool = PrioritySemaphore(1, max_queue=1)
        holder = pool.acquire()
        back = Returner(pool, priority="low")
        with pytest.raises(QueueFull):
            pool.acquire(priority="critical")
        holder.release()
        back.outcome()

    def test_who_does_not_wait_takes_no_place(self):
        pool = PrioritySemaphore(1, max_queue=1)
        holder = pool.acquire()
        waiter = Acquirer(pool, priority="low")
        with pytest.raises(QueueFull):
            pool.acquire(priority="critical", timeout=0)
        holder.release()
        waiter.outcome()
        assert waiter.permit is not None

    def test_they_do_not_go_before_more_urgent_ones(self):
        pool = PrioritySemaphore(1, order="strict")
        holder = pool.acquire()
        done = []
        back = Returner(pool, done=done, priority="low")
        high = Acquirer(pool, done=done, priority="high")
        holder.release()
        back.outcome()
        assert done == [high, back]

    def test_a_return_ends_at_its_deadline_and_by_its_token(self):
        pool = PrioritySemaphore(1, timeout=0.001)
        _holder = pool.acquire()
        with pytest.raises(QueueTimeout, match=r"no permit within 0\.002 s"):
            pool.reacquire(deadline=0.002)
        waiter = Returner(pool)  # far longer than the pool's timeout
        waiter.token.cancel()
        assert isinstance(waiter.outcome(), StreamCancelled)
        with pytest.raises(StreamCancelled):
            pool.reacquire(cancel=waiter.token)
        with pytest.raises(InvalidRequest, match="deadline must be 0 or more"):
            pool.reacquire(deadline=-1)
        with pytest.raises(InvalidRequest, match="priority must be one of"):
            pool.reacquire(priority="urgent")
        assert (in_use(pool), pool.statistics().queued) == (1, 0)

    def test_a_return_to_a_pool_that_has_room_does_not_wait(self):
        pool = PrioritySemaphore(1)
        with pool.reacquire(priority="high") as permit:
            assert (permit.held, permit.priority) == (True, "high")
        assert pool.statistics().waited == 0

    @pytest.mark.slow
    def test_threads_that_never_stop_asking_share_by_weight(self):
        pool = PrioritySemaphore(1, max_queue=100)
        holder = pool.acquire()
        served, enough = collections.Counter(), threading.Event()

        def run(priority):
            while not enough.is_set():
                permit = pool.acquire(priority=priority, timeout=FAR)
                # One at a time is in here.
                served[priority] += 1
                if served.total() == 6000:
                    enough.set()
                permit.release()

        # As many as keep a lane from ever being empty.
        threads = [
            threading.Thread(target=run, args=[priority])
            for priority in PRIORITIES
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        while pool.statistics().queued < len(threads):
            pass
        holder.release()
        assert enough.wait(SOON)
        for thread in threads:
            thread.join(SOON)
        for priority, weight in WEIGHTS.items():
            share = served[priority] / served.total()
            assert share == pytest.approx(weight / 15, rel=0.05)
        assert in_use(pool) == 0


class TestReserve:
    """What only those who are critical may have."""

    def test_the_last_fifth_is_for_critical_ones(self):
        pool = PrioritySemaphore(10, reserve=0.2)
        others = [pool.acquire() for _ in range(8)]
        with pytest.raises(QueueTimeout, match="other 2 are reserved for 'critical'"):
            pool.acquire(priority="high", timeout=0)
        urgent = [pool.acquire(priority="critical", timeout=0) for _ in range(2)]
        with pytest.raises(QueueTimeout) as caught:
            pool.acquire(priority="critical", timeout=0)
        assert "reserved" not in str(caught.value)
        assert in_use(pool) == 10
        del others, urgent

    def test_one_that_comes_free_stays_reserved(self):
        pool = PrioritySemaphore(5, reserve=0.2)
        others = [pool.acquire() for _ in range(4)]
        urgent = pool.acquire(priority="critical")
        waiter = Acquirer(pool)
        urgent.release()
        assert pool.statistics().queued == 1
        assert pool.acquire(priority="critical", timeout=0).held
        others.pop().release()
        assert waiter.outcome().held

    def test_critical_ones_share_the_rest_too(self):
        pool = PrioritySemaphore(5, reserve=0.2)
        permits = [pool.acquire(priority="critical") for _ in range(5)]
        waiters = [Acquirer(pool, priority=p) for p in ("low", "critical")]
        for permit in permits:
            permit.release()
        for waiter in waiters:
            assert waiter.outcome().held

    def test_a_reserved_one_wakes_the_critical_one_behind_others(self):
        pool = PrioritySemaphore(5, reserve=0.2)
        urgent = pool.acquire(priority="critical")
        others = [pool.acquire() for _ in range(4)]
        low, critical = Acquirer(pool), Acquirer(pool, priority="critical")
        urgent.release()
        assert critical.outcome().held
        assert pool.statistics().queued == 1
        others.pop().release()
        assert low.outcome().held

    @pytest.mark.parametrize(
        ("limit", "reserve", "others"),
        [(1, 0.9, 1), (2, 0.2, 2), (3, 0.2, 2), (4, 0.2, 3), (10, 0.99, 1)],
    )
    def test_it_is_whole_and_leaves_one(self, limit, reserve, others):
        pool = PrioritySemaphore(limit, reserve=reserve, max_queue=0)
        permits = [pool.acquire(priority="low") for _ in range(others)]
        with pytest.raises(QueueFull):
            pool.acquire(priority="low")
        permits += [pool.acquire(priority="critical") for _ in range(limit - others)]
        with pytest.raises(QueueFull):
            pool.acquire(priority="critical")
