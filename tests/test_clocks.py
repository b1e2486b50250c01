"""Time and cancellation: timeouts as they are given, the clocks, the token's races."""

import math
import threading

import pytest
from hypothesis import given, strategies as st

from holystream.clocks import (
    TAIL,
    CancelToken,
    Clock,
    Deadline,
    ReadClocks,
    SystemTime,
    Timeouts,
    check_seconds,
)
from holystream.errors import ConfigurationError

SOON = 25.0
"""Seconds within which a thread that was woken has come back."""
NEVER = 300.0
TIMEOUTS = Timeouts(connect=1, first_token=50, idle=20, token_idle=30)

NO_SECONDS = [0, -1, -0.0, math.inf, -math.inf, math.nan, "5", None, True, [1], b"1"]


class TestTimeouts:
    def test_the_defaults(self):
        assert Timeouts.of(None) == Timeouts(
            connect=5, first_token=300, idle=60, token_idle=120, queue=60
        )

    def test_they_are_taken_as_they_are(self):
        assert Timeouts.of(TIMEOUTS) is TIMEOUTS

    @pytest.mark.parametrize("seconds", [0.5, 7, 500])
    def test_a_number_is_seconds_of_silence(self, seconds):
        timeouts = Timeouts.of(seconds)
        assert timeouts.connect == timeouts.first_token == timeouts.idle == seconds
        assert timeouts.token_idle == max(seconds, 120)
        assert timeouts.queue == 60

    def test_a_pair_is_connecting_and_silence(self):
        timeouts = Timeouts.of((3.05, 27))
        assert (timeouts.connect, timeouts.first_token, timeouts.idle) == (3.05, 27, 27)

    @pytest.mark.parametrize("value", [*NO_SECONDS, (1, 2, 3), (), (1, 0), ("1", 1)])
    def test_anything_else_is_refused(self, value):
        if value is None:
            return
        with pytest.raises(ConfigurationError, match=r"timeout"):
            Timeouts.of(value)

    @pytest.mark.parametrize("value", NO_SECONDS)
    @pytest.mark.parametrize(
        "name", ["connect", "first_token", "idle", "token_idle", "queue"]
    )
    def test_each_of_them_is_checked_and_named(self, name, value):
        with pytest.raises(ConfigurationError, match=rf"Timeouts\.{name} must be a"):
            Timeouts(**{name: value})

    def test_they_cannot_be_changed(self):
        with pytest.raises(AttributeError):
            TIMEOUTS.idle = 5

    @given(st.floats(min_value=1e-9, max_value=1e9) | st.integers(1, 10**9))
    def test_any_positive_number_is_seconds(self, seconds):
        if math.isfinite(seconds):
            check_seconds(seconds, "it")


class TestDeadline:
    def test_none_never_comes(self):
        assert Deadline.after(None, 5.0).left(1e300) == math.inf

    def test_it_is_absolute_and_never_negative(self):
        deadline = Deadline.after(10.0, 5.0)
        assert [deadline.left(now) for now in (5.0, 14.0, 15.0, 99.0)] == [10, 1, 0, 0]


class TestReadClocks:
    def clocks(self, deadline=None):
        return ReadClocks(TIMEOUTS, Deadline.after(deadline, 0.0))

    def test_it_knows_the_limit_of_connecting(self):
        assert self.clocks().connect == 1

    def test_before_content_only_first_token_runs(self):
        clocks = self.clocks()
        assert clocks.left(0.0) == (50, Clock.FIRST_TOKEN)
        clocks.waited += 20.0
        clocks.waited += 20.0
        assert clocks.left(0.0) == (10, Clock.FIRST_TOKEN), "bytes do not reset it"

    def test_after_content_any_byte_resets_idle_and_only_content_the_other(self):
        clocks = self.clocks()
        clocks.content_came = True
        assert clocks.left(0.0) == (20, Clock.IDLE)
        clocks.waited += 15.0
        assert clocks.left(0.0) == (15, Clock.TOKEN_IDLE)
        clocks.waited += 15.0
        assert clocks.left(0.0) == (0, Clock.TOKEN_IDLE)
        clocks.content_came = True
        assert clocks.left(0.0) == (20, Clock.IDLE)

    def test_they_never_go_below_zero(self):
        clocks = self.clocks()
        clocks.waited += 1000.0
        assert clocks.left(0.0) == (0.0, Clock.FIRST_TOKEN)

    def test_only_waiting_counts(self):
        clocks = self.clocks()
        assert clocks.left(1e6) == (50, Clock.FIRST_TOKEN), "the caller's own time"

    def test_the_deadline_runs_always(self):
        clocks = self.clocks(deadline=60.0)
        assert clocks.left(45.0) == (15.0, Clock.DEADLINE)
        clocks.content_came = True
        assert clocks.left(40.0) == (20.0, Clock.IDLE), "the clock, if they tie"
        assert clocks.left(99.0) == (0.0, Clock.DEADLINE)

    def test_the_tail_is_short_and_does_not_begin_again(self):
        clocks = self.clocks()
        clocks.content_came = True
        clocks.tail()
        assert clocks.left(0.0) == (TAIL, Clock.TAIL)
        clocks.waited += 3.0
        clocks.tail()
        assert clocks.left(0.0) == (TAIL - 3.0, Clock.TAIL)

    def test_the_tail_is_no_longer_than_silence_may_be(self):
        clocks = ReadClocks(Timeouts(idle=2), Deadline())
        clocks.tail()
        assert clocks.left(0.0) == (2, Clock.TAIL)

    def test_content_ends_the_tail(self):
        clocks = self.clocks()
        clocks.tail()
        clocks.content_came = True
        assert clocks.left(0.0) == (20, Clock.IDLE)

    def test_draining_has_a_clock_of_its_own(self):
        clocks = self.clocks()
        clocks.content_came = True
        clocks.drain(0.25)
        assert clocks.left(0.0) == (0.25, Clock.DRAIN)


class TestCancelToken:
    def test_it_happens_once_and_for_good(self):
        token, calls = CancelToken(), []
        token.on_cancel(lambda: calls.append("a"))
        token.on_cancel(lambda: calls.append("b"))
        assert not token.cancelled
        token.cancel()
        token.cancel()
        assert token.cancelled
        assert calls == ["a", "b"]

    def test_a_callback_that_comes_late_is_called_at_once(self):
        token, calls = CancelToken(), []
        token.cancel()
        take_back = token.on_cancel(lambda: calls.append("late"))
        assert calls == ["late"]
        take_back()
        token.cancel()
        assert calls == ["late"]

    def test_a_callback_can_be_taken_back(self):
        token, calls = CancelToken(), []
        kept = token.on_cancel(lambda: calls.append("kept"))
        take_back = token.on_cancel(lambda: calls.append("taken back"))
        take_back()
        take_back()
        token.cancel()
        assert calls == ["kept"]
        kept()

    def test_it_outlives_its_callbacks_without_holding_them(self):
        token = CancelToken()
        for _ in range(100):
            token.on_cancel(lambda: None)()
        assert token._callbacks == {}

    def test_a_callback_may_use_the_token(self):
        token, calls = CancelToken(), []

        def callback():
            token.cancel()
            calls.append(token.wait(NEVER))
            token.on_cancel(lambda: calls.append("inner"))

        token.on_cancel(callback)
        token.cancel()
        assert calls == [True, "inner"]

    def test_a_wait_ends_by_itself_or_by_cancelling(self):
        token = CancelToken()
        assert token.wait(0.0) is False
        woken = []
        waiting = threading.Thread(target=lambda: woken.append(token.wait(NEVER)))
        waiting.start()
        token.cancel()
        waiting.join(SOON)
        assert woken == [True]

    def test_everyone_who_waits_is_woken(self):
        token, woken = CancelToken(), []
        barrier = threading.Barrier(9)

        def wait():
            barrier.wait()
            woken.append(token.wait(NEVER))

        threads = [threading.Thread(target=wait) for _ in range(8)]
        for thread in threads:
            thread.start()
        barrier.wait()
        token.cancel()
        for thread in threads:
            thread.join(SOON)
        assert woken == [True] * 8

    def test_each_callback_runs_once_whoever_is_first(self):
        """Registering, taking back and cancelling at the same moment, many times."""
        for _ in range(300):
            token, barrier = CancelToken(), threading.Barrier(4)
            calls, kept = [], []

            def register(token=token, barrier=barrier, calls=calls, kept=kept):
                barrier.wait()
                for number in range(5):
                    name = threading.get_ident(), number
                    take_back = token.on_cancel(lambda name=name: calls.append(name))
                    if number % 2:
                        take_back()
                    else:
                        kept.append(name)

            def cancel(token=token, barrier=barrier):
                barrier.wait()
                token.cancel()

            works = (register, register, cancel, cancel)
            threads = [threading.Thread(target=work) for work in works]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(SOON)
            assert len(calls) == len(set(calls)), "none runs twice"
            assert set(kept) <= set(calls), "none is forgotten"


class TestSystemTime:
    def test_it_sleeps_from_the_moment_it_is_told(self):
        time, token = SystemTime(), CancelToken()
        begun = time.now()
        time.sleep(NEVER, begun - NEVER, token)
        assert time.now() - begun < SOON

    def test_it_does_not_sleep_when_cancelled(self):
        time, token = SystemTime(), CancelToken()
        token.cancel()
        begun = time.now()
        time.sleep(NEVER, begun, token)
        assert time.now() - begun < SOON


class Naps(CancelToken):
    """Notes the seconds that are slept, and moves the clock on by them."""

    def __init__(self, time):
        super().__init__()
        self.naps = []
        self._time = time

    def wait(self, seconds):
        self.naps.append(seconds)
        self._time.at += seconds
        return self.cancelled


class Watch(SystemTime):
    at = 1000.0

    def now(self):
        return self.at


class TestSleepThatMayEndEarly:
    def test_it_ends_when_it_is_over(self):
        time = Watch()
        token, answers = Naps(time), iter([False, False, True])
        assert time.sleep(60, time.at, token, lambda: next(answers)) is True
        assert len(token.naps) == 3
        assert time.at <= 1000 + 3 * 1.5

    def test_it_looks_once_a_second_and_each_at_moments_of_its_own(self):
        time = Watch()
        token = Naps(time)
        assert time.sleep(1000, time.at, token, lambda: False) is False
        naps = token.naps[:-1]
        assert all(0.5 <= nap <= 1.5 for nap in naps)
        assert 900 < len(naps) < 1100
        assert len(set(naps)) > len(naps) / 2
        assert time.at == pytest.approx(2000)

    def test_nobody_is_asked_when_the_time_is_up(self):
        time = Watch()
        assert time.sleep(0.4, time.at, Naps(time), pytest.fail) is False
        assert time.sleep(0.4, time.at - 1, Naps(time), pytest.fail) is False

    def test_a_cancelled_token_ends_it_without_a_look(self):
        time = Watch()
        token = Naps(time)
        token.cancel()
        assert time.sleep(60, time.at, token, pytest.fail) is False
        assert len(token.naps) == 1
