"""Who holds the permits: named, found, ended; and a thread that waits for itself."""

from __future__ import annotations

import gc
import sys
import warnings
import weakref

import pytest
from loopback import client_for
from pool_callers import FAR, Acquirer, Holder, Returner, acquired_elsewhere, in_use

from holystream import Timeouts
from holystream.errors import QueueTimeout, StreamCancelled
from holystream.resilience import waiting
from holystream.resilience.lanes import Lanes, Waiter
from holystream.resilience.pool import PrioritySemaphore


class Clock:
    """Stands still."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class TestNames:
    """What a timeout and `holders` say."""

    def test_a_timeout_names_the_idlest_first(self):
        clock = Clock()
        pool = PrioritySemaphore(3, clock=clock)
        notebook, busy = Holder("notebook", idle=400.0), Holder("busy", idle=0.25)
        permits = [pool.acquire(holder=notebook), pool.acquire(holder=busy)]
        clock.now += 412.5
        permits.append(pool.acquire())
        with pytest.raises(QueueTimeout) as caught:
            pool.acquire(timeout=0)
        assert (
            "3 of 3 permits are held (stream notebook for 412.5 s, idle for 400.0 s, "
            "acquired by this very thread; stream busy for 412.5 s, idle for 0.2 s, "
            "acquired by this very thread; one unnamed for 0.0 s, acquired by this "
            "very thread), and 0 of at most 30 callers wait"
        ) in str(caught.value)

    def test_a_message_names_five_of_them(self):
        pool = PrioritySemaphore(8)
        holders = [Holder(f"s{number}", idle=number) for number in range(8)]
        permits = [pool.acquire(holder=holder) for holder in holders]
        with pytest.raises(QueueTimeout, match=r"stream s7 .* s3 .*; and 3 more\)"):
            pool.acquire(timeout=0)
        del permits

    def test_holders_are_records(self):
        clock = Clock()
        pool = PrioritySemaphore(3, clock=clock, reserve=0.3)
        mine = Holder("mine", idle=2.0)
        first = pool.acquire(priority="critical", holder=mine)
        clock.now += 5.0
        second = acquired_elsewhere(pool)
        urgent, unknown = pool.holders()
        assert (urgent.stream_id, urgent.priority) == ("mine", "critical")
        assert (urgent.held, urgent.idle, urgent.ours) == (5.0, 2.0, True)
        assert (unknown.stream_id, unknown.priority) == (None, "normal")
        assert (unknown.held, unknown.idle, unknown.ours) == (0.0, None, False)
        first.release()
        second.release()
        assert pool.holders() == ()

    def test_one_that_waited_is_known_too(self):
        clock = Clock()
        pool = PrioritySemaphore(1, clock=clock)
        permit = pool.acquire()
        mine = Holder("mine")
        waiter = Acquirer(pool, holder=mine, priority="high")
        clock.now += 3.0
        permit.release()
        waiter.outcome()
        clock.now += 1.0
        (found,) = pool.holders()
        assert (found.stream_id, found.held, found.ours) == ("mine", 1.0, False)
        assert found.priority == "high"
        now = pool.statistics()
        assert (now.wait_total, now.wait_mean, now.wait_max) == (3.0, 3.0, 3.0)

    def test_the_pool_does_not_keep_a_holder_alive(self):
        pool = PrioritySemaphore(1)
        mine = Holder("mine")
        mine.permit = pool.acquire(holder=mine)
        known = weakref.ref(mine)
        del mine
        assert known() is None
        assert in_use(pool) == 0

    def test_a_holder_in_a_cycle_that_releases_in_its_finaliser(self):
        """The collector calls callbacks of weak references before finalisers."""

        class Careful(Holder):
            def __del__(self):
                self.permit.release()

        pool = PrioritySemaphore(2)
        gc.collect()
        for _ in range(3):
            mine = Careful("mine")
            mine.permit = pool.acquire(holder=mine)
            mine.itself = mine
            del mine
            gc.collect()
            assert in_use(pool) == 0
        permits = [pool.acquire(timeout=0) for _ in range(2)]
        with pytest.raises(QueueTimeout):
            pool.acquire(timeout=0)
        del permits


class TestAbort:
    """A stream is found by its id, wherever it is."""

    def test_one_that_holds(self):
        pool = PrioritySemaphore(2)
        mine, other = Holder("mine"), Holder("other")
        mine.permit = pool.acquire(holder=mine)
        other.permit = pool.acquire(holder=other)
        assert pool.abort("mine")
        assert (mine.cancels, other.cancels) == (1, 0)
        assert (mine.permit.held, other.permit.held) == (False, True)

    def test_one_that_waits(self):
        pool = PrioritySemaphore(1)
        permit = pool.acquire()
        mine = Holder("mine")
        waiter, behind = Acquirer(pool, holder=mine), Acquirer(pool)
        assert pool.abort("mine")
        assert mine.cancels == 1
        assert isinstance(waiter.outcome(), StreamCancelled)
        now = pool.statistics()
        assert (now.queued, now.cancels, now.timeouts) == (1, 1, 0)
        permit.release()
        assert behind.outcome().held

    def test_one_that_returns(self):
        pool = PrioritySemaphore(1)
        _permit = pool.acquire()
        mine = Holder("mine")
        waiter = Returner(pool, holder=mine)
        assert pool.abort("mine")
        assert isinstance(waiter.outcome(), StreamCancelled)

    def test_one_that_nobody_knows(self):
        pool = PrioritySemaphore(1)
        permit = pool.acquire(holder=(mine := Holder("mine")))
        assert not pool.abort("yours")
        permit.release()
        assert not pool.abort("mine")
        assert mine.cancels == 0

    def test_it_holds_no_lock_meanwhile(self):
        pool = PrioritySemaphore(1)

        class Curious(Holder):
            def cancel(self):
                assert in_use(pool) == 1  # this takes the mutex
                super().cancel()

        mine = Curious("mine")
        mine.permit = pool.acquire(holder=mine)
        assert pool.abort("mine")
        assert in_use(pool) == 0


def lines_run(function):
    """Return how many lines of Python it takes to call it."""
    lines, before = 0, sys.gettrace()

    def trace(_, event, __):
        nonlocal lines
        lines += event == "line"
        return trace

    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return lines


class TestSelfDeadlock:
    """A thread that waits for a permit while it holds one may wait for itself."""

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch):
        monkeypatch.setattr(waiting, "PATIENCE", 0.001)

    def test_it_is_warned_once(self):
        pool = PrioritySemaphore(2)
        permits = [pool.acquire(), pool.acquire()]
        with (
            pytest.warns(RuntimeWarning, match="acquired 2 of those that are") as all_,
            pytest.raises(QueueTimeout),
        ):
            pool.acquire(timeout=0.002)
        assert all_[0].filename == __file__
        with pytest.raises(QueueTimeout):
            pool.acquire(timeout=0.002)
        del permits

    def test_the_warning_points_at_the_line_of_the_caller(self):
        """However deep in holystream the permit was asked for."""
        with (
            client_for("http://127.0.0.1:1/v1", pool=PrioritySemaphore(1)) as client,
            client.pool.acquire(),
            pytest.warns(RuntimeWarning) as all_,
            pytest.raises(QueueTimeout),
        ):
            client.complete("x", timeout=Timeouts(queue=0.01))
        assert all_[0].filename == __file__

    def test_whoever_waits_for_others_is_not(self):
        pool = PrioritySemaphore(1)
        permit = acquired_elsewhere(pool)
        with pytest.raises(QueueTimeout):
            pool.acquire(timeout=0.002)
        permit.release()

    def test_the_wait_goes_on_after_it(self):
        pool = PrioritySemaphore(1)
        permit = pool.acquire()
        heard = []

        def released(*_):
            heard.append(True)
            permit.release()

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = released
            assert pool.acquire(timeout=FAR).held
        assert heard

    @pytest.mark.filterwarnings("error::RuntimeWarning")
    def test_whoever_is_granted_one_in_that_moment_is_not_warned(self):
        pool = PrioritySemaphore(1)
        permit = pool.acquire()
        grants = pool._grants
        waiter = Waiter("normal")
        assert grants.join(waiter, Lanes.add, 1)
        permit.release()
        assert pool.holders()[0].ours
        waiting._suspect(grants, waiter)
        assert not grants.suspected

    @pytest.mark.parametrize("elsewhere", [True, False])
    def test_only_whoever_holds_one_wakes_up_to_look(self, elsewhere):
        pool = PrioritySemaphore(1)
        permit = acquired_elsewhere(pool) if elsewhere else pool.acquire()
        waiter = Waiter("normal")
        assert pool._grants.join(waiter, Lanes.add, 1)
        sleeps = []

        class Turn:
            def acquire(self, timeout):
                sleeps.append(timeout)
                permit.release()
                return True

            def release(self):
                pass

        waiter.turn = Turn()
        assert waiting.wait(pool._grants, waiter, None, FAR)
        assert sleeps == [FAR if elsewhere else waiting.PATIENCE]

    def test_it_takes_no_longer_the_more_there_are_who_wait(self):
        pool = PrioritySemaphore(1)
        permit = acquired_elsewhere(pool)
        grants = pool._grants
        waiter = Waiter("normal")
        lines = []
        for _ in range(2):
            seen = lines_run(lambda: waiting._suspect(grants, waiter))
            lines.append(seen)
            for _ in range(500):
                grants.join(Waiter("normal"), Lanes.add, 500)
        assert lines[0] == lines[1] > 0
        permit.release()

    @pytest.mark.filterwarnings("error::RuntimeWarning")
    def test_a_warning_that_is_an_error_leaves_the_queue(self):
        pool = PrioritySemaphore(1)
        permit = pool.acquire()
        with pytest.raises(RuntimeWarning):
            pool.acquire(timeout=FAR)
        assert pool.statistics().queued == 0
        permit.release()
        assert pool.acquire(timeout=0).held
