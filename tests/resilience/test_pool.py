"""Permits: counted, queued for, handed on, and never lost."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time

import pytest
from conditions import in_child
from hypothesis import given, strategies as st
from pool_callers import FAR, SOON, Acquirer, Late, Queued, acquired_elsewhere, in_use
from strikes import interrupt, moments

from holystream.clocks import CancelToken
from holystream.errors import (
    ConfigurationError,
    InvalidRequest,
    QueueFull,
    QueueTimeout,
    StreamCancelled,
    Verdict,
)
from holystream.resilience import forks, waiting
from holystream.resilience.lanes import Lanes, Waiter
from holystream.resilience.pool import Permit, PrioritySemaphore

FILES = tuple(
    f"holystream/resilience/{name}.py"
    for name in ("pool", "permits", "granting", "waiting", "lanes", "seats", "pressure")
)


class TestCounting:
    """Without a queue."""

    def test_as_many_as_the_limit_and_not_one_more(self):
        pool = PrioritySemaphore(3)
        permits = [pool.acquire() for _ in range(3)]
        assert all(permit.held for permit in permits)
        with pytest.raises(QueueTimeout):
            pool.acquire(timeout=0)
        permits.pop().release()
        assert pool.acquire(timeout=0).held
        assert pool.limit == 3

    def test_a_permit_is_released_once_however_often(self):
        pool = PrioritySemaphore(2)
        first, second = pool.acquire(), pool.acquire()
        first.release()
        first.release()
        assert (in_use(pool), first.held, second.held) == (1, False, True)

    def test_any_thread_may_release(self):
        pool = PrioritySemaphore(1)
        permit = pool.acquire()
        thread = threading.Thread(target=permit.release)
        thread.start()
        thread.join(SOON)
        assert in_use(pool) == 0

    def test_a_context_manager_releases_whatever_happens(self):
        pool = PrioritySemaphore(1)
        with contextlib.suppress(ZeroDivisionError), pool.acquire() as permit:
            assert permit.held
            1 // 0  # noqa: B018
        assert in_use(pool) == 0
        with pool.acquire() as permit:
            permit.release()
        assert in_use(pool) == 0

    def test_a_lost_permit_comes_back(self):
        pool = PrioritySemaphore(1)
        pool.acquire()  # nobody keeps it
        assert in_use(pool) == 0
        ring = [pool.acquire()]
        ring.append(ring)
        del ring
        gc.collect()
        assert in_use(pool) == 0

    @pytest.mark.parametrize("priority", ["critical", "high", "normal", "low"])
    def test_a_permit_knows_its_priority(self, priority):
        permit = PrioritySemaphore(1).acquire(priority=priority)
        assert permit.priority == priority

    def test_both_show_what_they_are(self):
        pool = PrioritySemaphore(2)
        permit = pool.acquire()
        assert repr(permit) == "<Permit, normal, held>"
        assert repr(pool) == "<PrioritySemaphore 1 of 2 held, 0 waiting>"
        permit.release()
        assert repr(permit) == "<Permit, normal, not held>"

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"priority": "urgent"}, "priority must be one of"),
            ({"priority": None}, "priority must be one of"),
            ({"priority": ["high"]}, "priority must be one of"),
            ({"timeout": "5"}, "timeout must be 0 or more seconds"),
            ({"timeout": -1}, "timeout must be 0 or more"),
            ({"timeout": float("nan")}, "timeout must be 0 or more"),
        ],
    )
    def test_a_wrong_argument_is_named(self, options, complaint):
        pool = PrioritySemaphore(1)
        with pytest.raises(InvalidRequest, match=complaint):
            pool.acquire(**options)
        assert in_use(pool) == 0

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"limit": 0}, "limit must be a whole number, at least 1"),
            ({"limit": True}, "limit must be a whole number"),
            ({"limit": 2.0}, "limit must be a whole number"),
            ({"limit": 1, "max_queue": -1}, "max_queue must be a whole number"),
            ({"limit": 1, "timeout": 0}, "timeout must be a positive"),
            ({"limit": 1, "on_backpressure": "log"}, "str cannot be called"),
        ],
    )
    def test_a_wrong_setting_is_named(self, options, complaint):
        with pytest.raises(ConfigurationError, match=complaint):
            PrioritySemaphore(**options)


class TestQueue:
    """First in, first out, bounded in length and in time."""

    def test_first_in_first_out(self):
        pool = PrioritySemaphore(1)
        holder = pool.acquire()
        waiters = [Acquirer(pool) for _ in range(5)]
        for number, waiter in enumerate(waiters):
            assert pool.statistics().queued == 5 - number
            holder.release()
            holder = waiter.outcome()
            assert isinstance(holder, Permit)
            assert all(later.permit is None for later in waiters[number + 1 :])

    def test_a_release_wakes_one_waiter_and_no_other(self):
        pool = PrioritySemaphore(2)
        first, _second = pool.acquire(), pool.acquire()
        waiters = [Acquirer(pool) for _ in range(3)]
        first.release()
        assert waiters[0].outcome().held
        now = pool.statistics()
        assert (now.in_use, now.queued, now.waited) == (2, 2, 1)
        assert waiters[1].is_alive()
        assert waiters[2].is_alive()
        for waiter in waiters[1:]:
            waiter.token.cancel()
            assert isinstance(waiter.outcome(), StreamCancelled)

    def test_nobody_overtakes_one_who_was_granted_and_sleeps_still(self):
        pool = PrioritySemaphore(1)
        holder = pool.acquire()

        def overtake():
            holder.release()
            with pytest.raises(QueueTimeout):
                pool.acquire(timeout=0)

        permit = pool.acquire(timeout=FAR, cancel=Queued(overtake))
        assert permit.held
        assert in_use(pool) == 1

    def test_a_full_queue_turns_away_at_once(self):
        pool = PrioritySemaphore(1, max_queue=2)
        holder = pool.acquire()
        waiters = [Acquirer(pool) for _ in range(2)]
        with pytest.raises(QueueFull, match="1 of 1 permits are held") as caught:
            pool.acquire(timeout=FAR)
        assert "2 of at most 2 callers wait" in str(caught.value)
        assert caught.value.verdict is Verdict.FATAL
        holder.release()
        waiters[0].outcome().release()
        waiters[1].outcome().release()
        now = pool.statistics()
        assert (now.refused, now.in_use, now.queued) == (1, 0, 0)

    def test_a_queue_of_no_length(self):
        pool = PrioritySemaphore(1, max_queue=0)
        permit = pool.acquire()
        with pytest.raises(QueueFull):
            pool.acquire()
        permit.release()
        assert pool.acquire().held

    def test_the_queue_is_ten_times_the_limit_by_default(self):
        assert PrioritySemaphore(7).statistics().max_queue == 70

    def test_a_timeout_says_what_to_do(self):
        now = [100.0]
        pool = PrioritySemaphore(2, clock=lambda: now[0])
        first = pool.acquire()
        now[0] = 130.0
        _second = acquired_elsewhere(pool)
        now[0] = 412.5
        with pytest.raises(QueueTimeout) as caught:
            pool.acquire(timeout=0.001)
        assert str(caught.value) == (
            "no permit within 0.001 s: 2 of 2 permits are held (one unnamed for 312.5 "
            "s, acquired by this very thread; one unnamed for 282.5 s), and 0 of at "
            "most 20 callers wait. Close streams that are no longer read, or allow "
            "more connections."
        )
        assert isinstance(caught.value, TimeoutError)
        first.release()
        assert pool.statistics().oldest == 282.5

    def test_the_pools_own_timeout_is_the_default(self):
        pool = PrioritySemaphore(1, timeout=0.002)
        _permit = pool.acquire()
        with pytest.raises(QueueTimeout, match=r"no permit within 0\.002 s"):
            pool.acquire()
        assert pool.statistics().queued == 0

    def test_a_wait_without_end_is_possible(self):
        pool = PrioritySemaphore(1)
        holder = pool.acquire()
        permit = pool.acquire(timeout=float("inf"), cancel=Queued(holder.release))
        assert permit.held


class TestCancel:
    """Ending a wait from another thread."""

    def test_a_cancel_beats_a_long_wait(self):
        pool = PrioritySemaphore(1)
        holder = pool.acquire()
        waiter = Acquirer(pool)
        begun = time.monotonic()
        waiter.token.cancel()
        assert isinstance(waiter.outcome(), StreamCancelled)
        assert time.monotonic() - begun < FAR / 2
        now = pool.statistics()
        assert (now.queued, now.cancels, now.timeouts) == (0, 1, 0)
        holder.release()
        assert in_use(pool) == 0

    def test_what_is_cancelled_already_takes_no_permit(self):
        pool = PrioritySemaphore(1)
        token = CancelToken()
        token.cancel()
        with pytest.raises(StreamCancelled):
            pool.acquire(cancel=token)
        assert pool.statistics().granted == 0

    def test_a_cancel_between_queueing_and_listening_is_heard(self):
        pool = PrioritySemaphore(1)
        _holder = pool.acquire()

        class Late(CancelToken):
            def on_cancel(self, callback):
                self.cancel()
                return super().on_cancel(callback)

        with pytest.raises(StreamCancelled):
            pool.acquire(timeout=FAR, cancel=Late())
        assert pool.statistics().queued == 0

    def test_the_pool_stops_listening(self):
        pool = PrioritySemaphore(1)
        token = CancelToken()
        pool.acquire(cancel=token).release()
        permit = pool.acquire()
        with pytest.raises(QueueTimeout):
            pool.acquire(cancel=token, timeout=0)
        assert not token._callbacks
        token.cancel()
        assert permit.held

    def test_a_cancel_takes_no_lock_of_the_pool(self):
        pool = PrioritySemaphore(1)
        _holder = pool.acquire()
        waiter = Acquirer(pool)
        with pool._grants._mutex:  # as in a signal handler that struck in the middle
            waiter.token.cancel()
        assert isinstance(waiter.outcome(), StreamCancelled)


class TestRaces:
    """The two classical ones, and the ones that signal handlers make."""

    def test_a_waiter_that_is_granted_while_it_times_out_keeps_the_permit(self):
        pool = PrioritySemaphore(1)
        holder = pool.acquire()
        permit = pool.acquire(timeout=0, cancel=Late(holder.release))
        assert permit.held
        now = pool.statistics()
        assert (now.in_use, now.timeouts, now.waited) == (1, 0, 1)

    def test_a_waiter_that_is_granted_as_it_leaves_the_queue_keeps_the_permit(self):
        pool = PrioritySemaphore(1)
        holder = pool.acquire()

        class Leaving(Waiter):
            """Acts when it has looked for its permit, and is about to leave."""

            __slots__ = ()

            @property
            def aborted(self):
                holder.release()
                return False

            @aborted.setter
            def aborted(self, _):
                pass

        waiter = Leaving("normal")
        assert pool._grants.join(waiter, Lanes.add, 1)
        assert waiting.wait(pool._grants, waiter, None, 0)
        now = pool.statistics()
        assert (now.in_use, now.timeouts, now.cancels) == (1, 0, 0)

    def test_a_waiter_that_is_granted_and_cancelled_passes_the_permit_on(self):
        pool = PrioritySemaphore(1)
        holder = pool.acquire()
        behind = []

        def both():
            behind.append(Acquirer(pool))
            holder.release()
            assert pool.statistics().queued == 1  # ours was granted
            token.cancel()

        token = Queued(both)
        with pytest.raises(StreamCancelled):
            pool.acquire(timeout=FAR, cancel=token)
        assert behind[0].outcome().held
        assert in_use(pool) == 1

    def test_a_waiter_that_is_cancelled_before_it_is_granted_leaves_the_queue(self):
        pool = PrioritySemaphore(1)
        holder = pool.acquire()
        waiter, behind = Acquirer(pool), Acquirer(pool)
        waiter.token.cancel()
        assert isinstance(waiter.outcome(), StreamCancelled)
        holder.release()
        assert behind.outcome().held

    @pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="POSIX only")
    def test_an_interrupt_ends_a_wait_and_leaves_the_queue(self):
        pool = PrioritySemaphore(1)
        holder = pool.acquire()
        token = Queued()

        heard = threading.Event()

        def interrupt(*_):
            if not heard.is_set():
                heard.set()
                raise KeyboardInterrupt

        def strike():
            assert token.event.wait(SOON)
            # CPython does not hear a signal that comes after its last look and before
            # the sleep begins: whoever presses Ctrl-C presses it again.
            while not heard.is_set():
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
                heard.wait(0.01)

        before = signal.signal(signal.SIGUSR1, interrupt)
        striker = threading.Thread(target=strike)
        try:
            striker.start()
            with pytest.raises(KeyboardInterrupt):
                pool.acquire(timeout=FAR, cancel=token)
        finally:
            striker.join(SOON)
            signal.signal(signal.SIGUSR1, before)
        assert pool.statistics().queued == 0
        holder.release()
        assert pool.acquire(timeout=0).held

    @pytest.mark.parametrize("scene", ["free", "full", "in time", "too late", "lost"])
    def test_an_interrupt_at_any_moment_loses_no_permit(self, scene):
        """Interrupt one run after each call that the pool makes in it."""
        for strike in moments(FILES):
            pool = PrioritySemaphore(1, max_queue=0 if scene == "full" else 1)
            holder = None if scene == "free" else pool.acquire()
            token = Queued(holder.release if scene == "in time" else lambda: None)
            # Kept, for it holds the frames: nothing may hang on their collection.
            struck = None
            try:
                with (
                    contextlib.suppress(QueueFull, QueueTimeout),
                    strike.by(interrupt),
                ):
                    if scene == "lost":
                        holder.release()
                    else:
                        timeout = FAR if scene == "in time" else 0
                        pool.acquire(timeout=timeout, cancel=token).release()
            except KeyboardInterrupt as error:
                struck = error
            assert (struck is not None) == strike.struck
            assert not pool._grants._mutex.locked()
            assert pool.statistics().queued == 0
            if holder is not None:
                holder.release()
            with pool.acquire(timeout=0):
                assert in_use(pool) == 1
            assert in_use(pool) == 0

    def test_an_interrupt_in_a_release_leaves_no_waiter_asleep(self):
        for strike in moments(FILES):
            pool = PrioritySemaphore(1)
            holder = pool.acquire()
            waiter = Acquirer(pool)
            with contextlib.suppress(KeyboardInterrupt), strike.by(interrupt):
                holder.release()
            if strike.struck and holder.held:
                holder.release()  # it had not begun
            assert waiter.outcome().held

    def test_what_a_handler_releases_while_its_thread_queues_up_is_handed_on(
        self, monkeypatch
    ):
        # No look at the pool in the middle of the wait, which would set things right.
        monkeypatch.setattr(waiting, "PATIENCE", FAR)
        for strike in moments(FILES):
            pool = PrioritySemaphore(1)
            given = pool.acquire()
            waiter = Acquirer(pool, done=[])

            def unless_struck(strike=strike, given=given):
                if not strike.struck:
                    given.release()

            # The other one is served first, and then this thread.
            with strike.by(given.release):
                permit = pool.acquire(timeout=5.0, cancel=Queued(unless_struck))
            assert permit.held
            waiter.outcome()

    def test_an_interrupt_in_a_resize_loses_no_seat(self):
        for strike in moments(FILES):
            pool = PrioritySemaphore(3, reserve=0.4)
            permits = [pool.acquire(), pool.acquire()]
            with contextlib.suppress(KeyboardInterrupt), strike.by(interrupt):
                pool.resize(1)
                pool.resize(4)
            pool.resize(4)
            permits += [pool.acquire(timeout=0, priority="critical") for _ in range(2)]
            assert in_use(pool) == 4
            with pytest.raises(QueueTimeout):
                pool.acquire(timeout=0, priority="critical")


class TestFinalisers:
    """Garbage collection may run anywhere, in a thread that holds the mutex too."""

    def test_a_finaliser_under_the_mutex_does_not_wait_and_is_not_forgotten(self):
        pool = PrioritySemaphore(1)
        permit = pool.acquire()
        with pool._grants._mutex:
            permit.release()
        assert pool.acquire(timeout=0).held

    def test_a_waiter_gets_what_a_finaliser_returns(self):
        pool = PrioritySemaphore(1)
        ring = [pool.acquire()]
        ring.append(ring)
        waiter = Acquirer(pool)
        del ring
        gc.collect()
        assert waiter.outcome().held

    def test_whoever_held_the_mutex_hands_on_what_a_finaliser_left(self):
        """The clock is read under the mutex: there the finaliser strikes."""
        strikes = []

        def clock():
            if strikes:
                strikes.pop().release()
            return 0.0

        pool = PrioritySemaphore(3, clock=clock)
        abandoned, busy, other = pool.acquire(), pool.acquire(), pool.acquire()
        first, second = Acquirer(pool), Acquirer(pool)
        strikes.append(abandoned)
        busy.release()
        assert first.outcome().held
        assert second.outcome().held
        assert in_use(pool) == 3
        other.release()

    def test_an_acquirer_hands_on_what_a_finaliser_left(self):
        strikes = []

        def clock():
            if strikes:
                strikes.pop().release()
            return 0.0

        pool = PrioritySemaphore(3, clock=clock)
        abandoned = pool.acquire()
        strikes.append(abandoned)
        permit = pool.acquire()
        assert (permit.held, abandoned.held, in_use(pool)) == (True, False, 1)

    def test_returning_again_counts_once(self):
        pool = PrioritySemaphore(2)
        permit, _other = pool.acquire(), pool.acquire()
        with pool._grants._mutex:
            permit.release()
            permit.release()
        permit.release()
        assert in_use(pool) == 1

    def test_a_pool_can_be_collected(self):
        pool = PrioritySemaphore(1)
        permit = pool.acquire()
        known = len(forks._alive)
        del pool, permit
        gc.collect()
        assert len(forks._alive) < known


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12: threads and fork
class TestFork:
    """A child has none of its parent's threads, connections and locks."""

    def test_a_child_begins_with_a_fresh_pool(self):
        pool = PrioritySemaphore(2)
        held = [pool.acquire(), pool.acquire()]
        waiter = Acquirer(pool)

        def check():
            now = pool.statistics()
            fresh = (now.in_use, now.queued, now.granted) == (0, 0, 0)
            mine = pool.acquire(timeout=0)
            for permit in held:  # the parent's, of no effect here
                permit.release()
            return fresh and mine.held and in_use(pool) == 1 and pool.acquire(timeout=0)

        with pool._grants._mutex:  # as another thread might at that moment
            assert in_child(check) == 0
        assert in_use(pool) == 2
        held[0].release()
        assert waiter.outcome().held


class TestStatistics:
    """What is told, and that it adds up."""

    def test_everything_is_counted(self):
        pool = PrioritySemaphore(1, max_queue=1, clock=lambda: 5.0)
        empty = pool.statistics()
        assert (empty.limit, empty.in_use, empty.oldest) == (1, 0, None)
        holder = pool.acquire()
        waiter = Acquirer(pool)
        with pytest.raises(QueueFull):
            pool.acquire()
        holder.release()
        waiter.outcome()
        with pytest.raises(QueueTimeout):
            pool.acquire(timeout=0)
        other = Acquirer(pool)
        other.token.cancel()
        other.outcome()
        now = pool.statistics()
        assert (now.granted, now.waited) == (2, 1)
        assert (now.refused, now.timeouts, now.cancels) == (1, 1, 1)
        with pytest.raises(AttributeError):
            now.granted = 0

    @given(
        limit=st.integers(1, 4),
        steps=st.lists(
            st.tuples(
                st.sampled_from(["acquire", "release", "lose"]),
                st.integers(0, 10),
            ),
            max_size=60,
        ),
    )
    def test_the_count_is_right_after_any_steps(self, limit, steps):
        pool = PrioritySemaphore(limit, max_queue=0)
        held, done = [], []
        for step, which in steps:
            if step == "acquire":
                if len(held) < limit:
                    held.append(pool.acquire())
                else:
                    with pytest.raises(QueueFull):
                        pool.acquire()
            elif step == "lose" and held:
                held.pop(which % len(held))
            elif step == "release" and (held or done):
                permit = (held + done)[which % len(held + done)]
                permit.release()
                if permit in held:
                    held.remove(permit)
                    done.append(permit)
            assert in_use(pool) == len(held)
            assert all(permit.held for permit in held)
