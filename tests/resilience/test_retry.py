"""When a stream tries again: the policy, its strategies, and one stream's count."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pickle
import random

import pytest
import tenacity
from hypothesis import given, strategies as st

from holystream.clocks import Deadline
from holystream.errors import (
    AuthenticationError,
    CircuitOpen,
    ConfigurationError,
    ConnectionFailed,
    ConnectionLost,
    FirstTokenTimeout,
    IdleTimeout,
    RateLimited,
    ServerError,
    StreamCancelled,
    Verdict,
)
from holystream.resilience.retry import (
    AdditiveJitter,
    AtLeastServerHint,
    DecorrelatedJitter,
    EqualJitter,
    FullJitter,
    GiveUp,
    NoJitter,
    PlusMinusJitter,
    RetryPolicy,
    Wait,
)

NEVER = Deadline()


def lost(*, verdict=Verdict.INTERRUPTED, retry_after=None, error=ConnectionLost):
    made = error("it broke")
    made.verdict = verdict
    made.retry_after = retry_after
    return made


def not_sent():
    return ConnectionFailed("refused")


def steady(**options):
    """A policy whose waits are exactly 1, 2, 4, ... seconds."""
    return RetryPolicy(base=1.0, cap=60.0, jitter=None, **options)


def fail(progress, count, error=None, now=0.0):
    return [progress.failed(error or lost(), now, NEVER) for _ in range(count)]


class Highest(random.Random):
    """Draws the end of each range."""

    def uniform(self, _start, end):
        return end


def state(attempt, *, previous=0.0, seed=0):
    made = RetryPolicy().state(0.0, random.Random(seed).uniform)
    made.attempt_number = attempt
    made.upcoming_sleep = previous
    return made


class TestJitters:
    """Each formula, at its bounds."""

    @given(
        now=st.builds(
            state,
            st.integers(1, 10_000),
            previous=st.floats(0, 1e6),
            seed=st.integers(0, 2**32),
        ),
        base=st.floats(0.001, 100),
        factor=st.floats(1, 1000),
        ratio=st.floats(0, 1),
    )
    def test_bounds(self, now, base, factor, ratio):
        attempt, previous = now.attempt_number, now.upcoming_sleep
        cap = base * factor
        capped = cap if attempt > 40 else min(cap, base * 2 ** (attempt - 1))

        def within(low, high, wait):
            seconds = wait(now)
            assert low < seconds or seconds == pytest.approx(low)
            assert seconds < high or seconds == pytest.approx(high)

        within(capped, capped, NoJitter(base=base, cap=cap))
        within(0, capped, FullJitter(base=base, cap=cap))
        within(capped / 2, capped, EqualJitter(base=base, cap=cap))
        within(
            min(base, cap),
            min(cap, 3 * max(base, previous)),
            DecorrelatedJitter(base=base, cap=cap),
        )
        within(
            capped * (1 - ratio),
            capped * (1 + ratio),
            PlusMinusJitter(base=base, cap=cap, ratio=ratio),
        )
        within(
            capped,
            capped * (1 + ratio),
            AdditiveJitter(base=base, cap=cap, ratio=ratio),
        )

    @pytest.mark.parametrize(
        ("wait", "low", "high"),
        [
            (FullJitter(base=4, cap=4), 0, 4),
            (EqualJitter(base=4, cap=4), 2, 4),
            (DecorrelatedJitter(base=1, cap=100), 1, 12),
            (PlusMinusJitter(base=4, cap=4, ratio=0.3), 2.8, 5.2),
            (AdditiveJitter(base=4, cap=4, ratio=0.5), 4, 6),
        ],
    )
    def test_each_reaches_both_its_bounds(self, wait, low, high):
        now = state(1, previous=4.0)
        seconds = [wait(now) for _ in range(2_000)]
        span = high - low
        assert low <= min(seconds) < low + 0.01 * span
        assert high >= max(seconds) > high - 0.01 * span

    def test_the_exponential_doubles_up_to_its_cap(self):
        wait = NoJitter(base=0.5, cap=30.0)
        seconds = [wait(state(attempt)) for attempt in (1, 2, 3, 6, 7, 8, 5_000)]
        assert seconds == [0.5, 1.0, 2.0, 16.0, 30.0, 30.0, 30.0]

    def test_decorrelated_waits_belong_to_a_stream_not_to_the_policy(self):
        policy = RetryPolicy(jitter="decorrelated", attempts=50)
        grown = policy.start(0.0, random.Random(1))
        fail(grown, 30)
        fresh = policy.start(0.0, random.Random(2))
        assert fail(fresh, 1)[0].delay <= 1.5

    def test_decorrelated_waits_begin_anew_after_progress(self):
        progress = RetryPolicy(jitter="decorrelated").start(0.0, random.Random(3))
        for _ in range(40):
            assert fail(progress, 1)[0].delay <= 1.5
            progress.progressed(0.0)

    def test_a_jitter_works_in_plain_tenacity(self):
        slept = []
        retrying = tenacity.Retrying(
            wait=FullJitter(base=1, cap=2) + tenacity.wait_fixed(5),
            stop=tenacity.stop_after_attempt(4),
            sleep=slept.append,
        )
        with pytest.raises(tenacity.RetryError):
            retrying(lambda: 1 // 0)
        assert len(slept) == 3
        assert all(5 <= seconds <= 7 for seconds in slept)

    @pytest.mark.parametrize(
        ("name", "made"),
        [
            ("full", FullJitter(base=1, cap=9)),
            ("equal", EqualJitter(base=1, cap=9)),
            ("decorrelated", DecorrelatedJitter(base=1, cap=9)),
            ("plusminus", PlusMinusJitter(base=1, cap=9, ratio=0.3)),
            ("additive", AdditiveJitter(base=1, cap=9, ratio=0.3)),
            (None, NoJitter(base=1, cap=9)),
        ],
    )
    def test_a_policy_finds_each_by_name(self, name, made):
        policy = RetryPolicy(jitter=name, base=1, cap=9, jitter_ratio=0.3)
        assert policy.wait.backoff == made


class TestServerHint:
    """Wait = max(backoff, hint + a little)."""

    @given(hint=st.floats(0, 60), seed=st.integers(0, 2**32))
    def test_a_wait_is_never_shorter_than_the_hint(self, hint, seed):
        progress = RetryPolicy().start(0.0, random.Random(seed))
        wait = progress.failed(lost(retry_after=hint), 0.0, NEVER)
        assert hint <= wait.delay <= max(0.5, 2 * hint, hint + 3, hint * 1.1)

    def test_the_longer_of_the_two_wins_and_gives_the_reason(self):
        short = steady().start(0.0).failed(lost(retry_after=0.2), 0.0, NEVER)
        assert (short.delay, short.reason) == (1.0, "backoff")
        long = steady().start(0.0).failed(lost(retry_after=7.0), 0.0, NEVER)
        assert (long.delay, long.reason) == (7.0, "server hint")

    def test_those_who_are_sent_away_together_do_not_come_back_together(self):
        policy = RetryPolicy()
        delays = {
            policy.start(0.0, random.Random(seed))
            .failed(lost(retry_after=30.0), 0.0, NEVER)
            .delay
            for seed in range(100)
        }
        assert len(delays) == 100

    @pytest.mark.parametrize(
        ("hint", "spread"),
        [(0.1, 0.1), (1.0, 1.0), (5.0, 3.0), (30.0, 3.0), (60.0, 6.0)],
    )
    def test_they_are_spread_over_seconds_whatever_the_hint(self, hint, spread):
        policy = RetryPolicy(base=0.001, cap=0.001)
        waits = [
            policy.start(0.0, random.Random(seed)).failed(
                lost(retry_after=hint), 0.0, NEVER
            )
            for seed in range(1_000)
        ]
        delays = [wait.delay for wait in waits]
        assert min(delays) == pytest.approx(hint, abs=0.01 * spread)
        assert max(delays) == pytest.approx(hint + spread, abs=0.01 * spread)
        assert {wait.reason for wait in waits} == {"server hint"}

    def test_a_custom_wait_is_raised_to_the_hint(self):
        policy = RetryPolicy(wait=tenacity.wait_fixed(2), jitter=None)
        assert fail(policy.start(0.0), 1)[0].delay == 2.0
        assert fail(policy.start(0.0), 1, lost(retry_after=9.0))[0].delay == 9.0

    @pytest.mark.parametrize("nonsense", [-1.0, math.nan, -math.inf])
    def test_a_nonsensical_custom_wait_counts_as_none(self, nonsense):
        policy = RetryPolicy(wait=lambda _: nonsense)
        assert fail(policy.start(0.0), 1)[0].delay == 0.0

    def test_a_hint_beyond_the_cap_ends_it(self):
        error = lost(retry_after=300.0)
        decision = RetryPolicy().start(0.0).failed(error, 0.0, NEVER)
        assert decision == GiveUp(
            reason="the server asks to wait 300 s, more than retry_after_cap=60"
        )
        assert error.retry_after == 300.0

    def test_a_hint_as_long_as_the_cap_is_followed(self):
        assert fail(RetryPolicy().start(0.0), 1, lost(retry_after=60.0))[0].delay >= 60

    def test_the_cap_may_be_lifted(self):
        policy = RetryPolicy(retry_after_cap=math.inf, jitter=None)
        assert fail(policy.start(0.0), 1, lost(retry_after=9e4))[0].delay == 9e4

    def test_the_cap_is_for_servers_not_for_a_breaker_of_ours(self):
        error = CircuitOpen("left alone", retry_after=300.0)
        wait = steady().start(0.0).failed(error, 0.0, NEVER)
        assert (wait.delay, wait.reason) == (300.0, "circuit open")
        decision = steady().start(0.0).failed(error, 0.0, Deadline(299.0))
        assert "after the deadline" in decision.reason

    def test_a_hint_beyond_the_deadline_ends_it(self):
        decision = (
            RetryPolicy()
            .start(0.0)
            .failed(lost(retry_after=20.0), 100.0, Deadline(110.0))
        )
        assert "after the deadline" in decision.reason


class TestBidden:
    """Who is patient comes back as often as it is asked to, and later each time."""

    @staticmethod
    def sent_back(progress, count):
        error = lost(retry_after=0.0)
        return [
            progress.failed(error, 0.0, NEVER, bidden=True).delay for _ in range(count)
        ]

    @pytest.mark.parametrize("jitter", [None, "full", "equal", "decorrelated"])
    def test_the_waits_grow_whatever_the_jitter(self, jitter):
        policy = RetryPolicy(base=1.0, cap=60.0, jitter=jitter)
        progress = policy.start(0.0, Highest())
        first, *_, last = self.sent_back(progress, 8)
        assert first <= 3.0
        assert last == 60.0
        assert fail(progress, 1)[0].attempts_left == policy.attempts - 2

    @pytest.mark.parametrize("jitter", [None, "decorrelated"])
    def test_they_leave_those_of_the_policy_as_they_are(self, jitter):
        policy = RetryPolicy(base=1.0, cap=60.0, jitter=jitter)
        alone, between = (policy.start(0.0, Highest()) for _ in range(2))
        expected = fail(alone, 2)
        (first,) = fail(between, 1)
        self.sent_back(between, 5)
        assert [first, *fail(between, 1)] == expected

    @pytest.mark.parametrize("jitter", [None, "decorrelated"])
    def test_new_text_begins_them_anew(self, jitter):
        policy = RetryPolicy(base=1.0, cap=60.0, jitter=jitter)
        progress = policy.start(0.0, Highest())
        before = self.sent_back(progress, 3)
        progress.progressed(0.0)
        assert self.sent_back(progress, 3) == before


class TestVerdicts:
    """What is tried again at all, and what at once."""

    @pytest.mark.parametrize(
        ("verdict", "delay", "reason"),
        [
            (Verdict.NOT_SENT, 0.0, "immediate"),
            (Verdict.NO_ANSWER, 1.0, "backoff"),
            (Verdict.INTERRUPTED, 1.0, "backoff"),
            (Verdict.THROTTLED, 1.0, "backoff"),
            (Verdict.SERVER_ERROR, 1.0, "backoff"),
        ],
    )
    def test_worth_trying(self, verdict, delay, reason):
        wait = fail(steady().start(0.0), 1, lost(verdict=verdict))[0]
        assert (wait.delay, wait.reason) == (delay, reason)

    @pytest.mark.parametrize(
        ("verdict", "reason"),
        [
            (Verdict.FATAL, "trying again cannot help"),
            (Verdict.CANCELLED, "it was cancelled"),
        ],
    )
    def test_not_worth_trying(self, verdict, reason):
        error = lost(verdict=verdict, retry_after=1.0)
        assert fail(steady().start(0.0), 1, error) == [GiveUp(reason=reason)]

    def test_what_is_fatal_is_not_blamed_on_its_hint(self):
        error = lost(verdict=Verdict.FATAL, retry_after=3_600.0)
        decision = fail(RetryPolicy().start(0.0), 1, error)[0]
        assert decision.reason == "trying again cannot help"

    def test_only_the_first_unsent_request_since_progress_is_repeated_at_once(self):
        progress = steady().start(0.0)
        first, second = fail(progress, 2, not_sent())
        assert (first.delay, first.reason) == (0.0, "immediate")
        assert (second.delay, second.reason) == (2.0, "backoff")
        progress.progressed(0.0)
        assert fail(progress, 1, not_sent())[0].delay == 0.0

    def test_an_unsent_request_waits_for_a_hint(self):
        error = lost(verdict=Verdict.NOT_SENT, retry_after=3.0)
        assert fail(steady().start(0.0), 1, error)[0].delay == 3.0

    def test_a_stale_connection_is_replaced_at_once_and_once(self):
        progress = steady().start(0.0)
        error = lost(verdict=Verdict.NO_ANSWER)
        first = progress.failed(error, 0.0, NEVER, reused=True)
        second = progress.failed(error, 0.0, NEVER, reused=True)
        assert (first.reason, second.reason) == ("immediate", "backoff")

    def test_silence_on_a_re_used_connection_is_no_stale_connection(self):
        error = lost(verdict=Verdict.NO_ANSWER, error=FirstTokenTimeout)
        wait = steady().start(0.0).failed(error, 0.0, NEVER, reused=True)
        assert wait.reason == "backoff"

    def test_a_re_used_connection_that_breaks_in_the_body_waits(self):
        wait = steady().start(0.0).failed(lost(), 0.0, NEVER, reused=True)
        assert wait.reason == "backoff"

    def test_the_two_immediate_tries_do_not_use_up_each_other(self):
        progress = steady().start(0.0)
        no_answer = lost(verdict=Verdict.NO_ANSWER)
        assert progress.failed(not_sent(), 0.0, NEVER).delay == 0.0
        assert progress.failed(no_answer, 0.0, NEVER, reused=True).delay == 0.0
        assert progress.failed(not_sent(), 0.0, NEVER).delay == 4.0


class TestCounts:
    """Attempts without progress, attempts in all, first tokens."""

    @pytest.mark.parametrize("error", [lost, not_sent])
    def test_twelve_attempts_outlive_an_outage_of_half_a_minute(self, error):
        outlived = waited = 0
        streams = 2_000
        for seed in range(streams):
            policy = RetryPolicy(attempts=12)
            progress = policy.start(0.0, random.Random(seed))
            now = 0.0
            while isinstance(wait := progress.failed(error(), now, NEVER), Wait):
                now += wait.delay
            outlived += now > 30.0
            waited += now
        assert outlived >= 0.99 * streams
        # And whoever waits for what will never come learns of it.
        assert waited / streams < 100.0

    def test_six_attempts_without_progress(self):
        decisions = fail(steady(attempts=6).start(0.0), 6)
        assert decisions[:5] == [
            Wait(
                delay=2.0**n,
                reason="backoff",
                attempts_left=4 - n,
            )
            for n in range(5)
        ]
        assert decisions[5] == GiveUp(reason="6 attempts without progress")

    def test_one_attempt_is_no_retry(self):
        decision = fail(RetryPolicy(attempts=1).start(0.0), 1, not_sent())[0]
        assert decision == GiveUp(reason="1 attempt without progress")

    def test_progress_sets_the_count_back_but_not_the_total(self):
        progress = steady(total_attempts=8).start(0.0)
        fail(progress, 5)
        progress.progressed(0.0)
        wait = fail(progress, 1)[0]
        assert (wait.delay, wait.attempts_left) == (1.0, 1)
        assert fail(progress, 1)[0].attempts_left == 0
        assert fail(progress, 1) == [GiveUp(reason="8 attempts in all")]

    def test_progress_before_any_failure_is_harmless(self):
        progress = steady().start(0.0)
        progress.progressed(0.0)
        assert fail(progress, 1)[0].delay == 1.0

    def test_the_total_may_be_lifted(self):
        progress = steady(total_attempts=None).start(0.0)
        for _ in range(200):
            assert isinstance(fail(progress, 1)[0], Wait)
            progress.progressed(0.0)

    def test_a_connection_must_have_lived_before_its_progress_counts(self):
        progress = steady(reset_after=10.0).start(0.0)
        fail(progress, 1)
        progress.progressed(50.0)  # nothing is known to be connected
        progress.connected(100.0)
        progress.progressed(109.0)
        assert fail(progress, 1)[0].delay == 2.0
        progress.progressed(500.0)  # that connection is gone
        assert fail(progress, 1)[0].delay == 4.0
        progress.connected(200.0)
        progress.progressed(210.0)
        assert fail(progress, 1)[0].delay == 1.0

    def test_a_first_token_is_waited_for_twice(self):
        progress = steady().start(0.0)
        first, second = fail(progress, 2, lost(error=FirstTokenTimeout))
        assert isinstance(first, Wait)
        assert second.reason == "no content in 2 attempts, each of which may be billed"

    def test_other_failures_between_do_not_forgive_a_first_token(self):
        progress = steady().start(0.0)
        fail(progress, 1, lost(error=FirstTokenTimeout))
        fail(progress, 1, lost(error=IdleTimeout))
        decision = fail(progress, 1, lost(error=FirstTokenTimeout))[0]
        assert isinstance(decision, GiveUp)

    def test_progress_forgives_a_first_token(self):
        progress = steady().start(0.0)
        fail(progress, 1, lost(error=FirstTokenTimeout))
        progress.progressed(0.0)
        assert isinstance(fail(progress, 1, lost(error=FirstTokenTimeout))[0], Wait)

    def test_no_attempt_begins_at_the_deadline_or_after_it(self):
        error = lost()
        assert isinstance(
            steady().start(0.0).failed(error, 10.0, Deadline(11.001)), Wait
        )
        for at in (11.0, 10.5, 9.0):
            decision = steady().start(0.0).failed(error, 10.0, Deadline(at))
            assert decision.reason == "the next attempt would begin after the deadline"

    def test_the_same_seed_gives_the_same_waits(self):
        policy = RetryPolicy()
        one, two, other = (
            [wait.delay for wait in fail(policy.start(0.0, random.Random(seed)), 5)]
            for seed in (7, 7, 8)
        )
        assert one == two != other

    @given(st.lists(st.sampled_from(["fail", "text", "refused"]), max_size=60))
    def test_never_more_attempts_without_text_than_allowed(self, steps):
        progress = RetryPolicy(attempts=6, total_attempts=None).start(0.0)
        since = 0
        for step in steps:
            if step == "text":
                progress.progressed(0.0)
                since = 0
                continue
            since += 1
            error = not_sent() if step == "refused" else lost()
            decision = progress.failed(error, 0.0, NEVER)
            assert isinstance(decision, GiveUp) == (since >= 6)
            if since >= 6:
                return
            assert decision.attempts_left == 5 - since


class TestTenacity:
    """Any tenacity object serves, and ours serve tenacity."""

    def drive(self, policy, errors):
        """Run a plain function in tenacity's own loop; return what it slept."""
        slept = []
        pending = iter(errors)

        def call():
            error = next(pending, None)
            if error is not None:
                raise error
            return "text"

        retrying = tenacity.Retrying(
            wait=policy.wait,
            stop=policy.stop,
            retry=policy.retry,
            sleep=slept.append,
            reraise=True,
        )
        return retrying(call), slept

    def test_a_policy_drives_a_plain_function(self):
        result, slept = self.drive(steady(), [lost(), lost(retry_after=5.0), lost()])
        assert result == "text"
        assert slept == [1.0, 5.0, 4.0]

    def test_a_policy_stops_a_plain_function(self):
        with pytest.raises(ConnectionLost):
            self.drive(steady(attempts=3), [lost()] * 3)

    @pytest.mark.parametrize(
        "error",
        [
            lost(verdict=Verdict.FATAL),
            StreamCancelled("stop"),
            AuthenticationError("401"),
            lost(retry_after=61.0),
            ValueError("not ours"),
            KeyboardInterrupt(),
            GeneratorExit(),
            SystemExit(),
        ],
    )
    def test_what_is_not_ours_or_hopeless_passes_at_once(self, error):
        with pytest.raises(type(error)):
            self.drive(steady(), [error, AssertionError("tried again")])

    def test_decorrelated_jitter_grows_in_a_plain_loop(self):
        policy = RetryPolicy(jitter="decorrelated", base=1, cap=1e9, attempts=20)
        _, slept = self.drive(policy, [lost() for _ in range(15)])
        assert slept[0] <= 3.0
        assert all(1 <= b <= 3 * max(1, a) for a, b in itertools.pairwise(slept))
        assert max(slept) > 3.0

    def test_custom_objects_replace_ours_and_compose(self):
        policy = RetryPolicy(
            wait=tenacity.wait_fixed(1) + tenacity.wait_fixed(2),
            stop=tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(100),
            retry=tenacity.retry_if_exception_type(ServerError),
        )
        progress = policy.start(0.0)
        wait = progress.failed(ServerError("500"), 0.0, NEVER)
        assert (wait.delay, wait.attempts_left) == (3.0, None)
        assert progress.failed(ServerError("500"), 100.0, NEVER).reason == (
            "the policy's stop= ends it after 2 attempts"
        )
        assert policy.start(0.0).failed(lost(), 0.0, NEVER).reason == (
            "the policy's retry= does not accept this error"
        )

    def test_ours_compose_with_custom_ones(self):
        plain = steady(attempts=3)
        policy = steady(
            attempts=3,
            stop=plain.stop | tenacity.stop_after_delay(10),
            retry=plain.retry | tenacity.retry_if_exception_type(AuthenticationError),
            wait=plain.wait + tenacity.wait_fixed(1),
        )
        progress = policy.start(0.0)
        assert progress.failed(AuthenticationError("401"), 0.0, NEVER).delay == 2.0
        assert progress.failed(lost(), 0.0, NEVER).delay == 3.0
        assert isinstance(progress.failed(lost(), 0.0, NEVER), GiveUp)

    def test_a_custom_stop_sees_the_coming_wait(self):
        policy = steady(stop=tenacity.stop_before_delay(10))
        progress = policy.start(100.0)
        assert isinstance(progress.failed(lost(), 108.0, NEVER), Wait)  # 8 + 1 < 10
        assert isinstance(progress.failed(lost(), 108.0, NEVER), GiveUp)  # 8 + 2

    def test_strategies_see_a_real_state(self):
        seen = []

        def look(retry_state):
            seen.append(
                (
                    type(retry_state.outcome.exception()),
                    retry_state.attempt_number,
                    retry_state.start_time,
                    retry_state.seconds_since_start,
                    retry_state.idle_for,
                    retry_state.upcoming_sleep,
                )
            )
            return 5.0

        policy = RetryPolicy(wait=look, jitter=None)
        progress = policy.start(10.0)
        progress.failed(ServerError("500"), 20.0, NEVER)
        progress.failed(lost(), 30.0, NEVER)
        progress.progressed(31.0)
        progress.failed(lost(), 40.0, NEVER)
        assert seen == [
            (ServerError, 1, 10.0, 10.0, 0.0, 0.0),
            (ConnectionLost, 2, 10.0, 20.0, 5.0, 5.0),
            (ConnectionLost, 1, 10.0, 30.0, 10.0, 0.0),
        ]

    def test_nothing_tries_again_what_was_cancelled(self):
        policy = RetryPolicy(retry=tenacity.retry_always, stop=tenacity.stop_never)
        decision = policy.start(0.0).failed(StreamCancelled("stop"), 0.0, NEVER)
        assert decision == GiveUp(reason="it was cancelled")

    def test_a_custom_stop_leaves_the_other_bounds_standing(self):
        policy = steady(stop=tenacity.stop_never, total_attempts=3)
        assert fail(policy.start(0.0), 3)[-1] == GiveUp(reason="3 attempts in all")
        hinted = lost(retry_after=61.0)
        assert isinstance(policy.start(0.0).failed(hinted, 0.0, NEVER), GiveUp)

    def test_what_a_custom_strategy_raises_is_raised(self):
        policy = RetryPolicy(wait=lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            policy.start(0.0).failed(lost(), 0.0, NEVER)

    def test_a_decided_error_is_let_go(self):
        progress = steady(attempts=2).start(0.0)
        for expected in (Wait, GiveUp):
            assert isinstance(fail(progress, 1)[0], expected)
            assert progress._state.outcome is None


class TestPolicy:
    """The value: validated, comparable, replaceable, picklable."""

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"attempts": 0}, "attempts must be a whole number"),
            ({"attempts": True}, "attempts must be a whole number"),
            ({"attempts": 2.5}, "attempts must be a whole number"),
            ({"total_attempts": 0}, "total_attempts must be a whole number"),
            ({"first_token_attempts": -1}, "first_token_attempts must be a whole"),
            ({"base": 0}, "base must be a positive"),
            ({"base": math.nan}, "base must be a positive"),
            ({"cap": math.inf}, "cap must be a positive, finite"),
            ({"base": 40.0}, "cap (30 s) must not be less than base (40 s)"),
            ({"jitter": "some"}, "jitter must be 'full'"),
            ({"jitter_ratio": 1.5}, "jitter_ratio must be from 0 to 1"),
            ({"jitter_ratio": math.nan}, "jitter_ratio must be from 0 to 1"),
            ({"retry_after_cap": 0}, "retry_after_cap must be a positive"),
            ({"reset_after": -1}, "reset_after must be a positive"),
            ({"wait": 3}, "wait must be a tenacity wait object"),
            ({"wait": tenacity.wait_fixed}, "such as tenacity.wait_fixed(1)"),
            ({"stop": None}, "stop must be a tenacity stop object"),
            ({"retry": ConnectionLost}, "retry must be a tenacity retry object"),
        ],
    )
    def test_what_cannot_be_used_is_named(self, options, complaint):
        with pytest.raises(ConfigurationError) as caught:
            RetryPolicy(**options)
        assert complaint in str(caught.value)

    def test_equal_numbers_make_equal_policies(self):
        assert RetryPolicy() == RetryPolicy()
        assert hash(RetryPolicy()) == hash(RetryPolicy())
        assert RetryPolicy() != RetryPolicy(attempts=3)

    def test_replacing_a_number_renews_the_strategies_made_from_it(self):
        policy = dataclasses.replace(
            RetryPolicy(), attempts=2, base=3.0, jitter=None, retry_after_cap=5.0
        )
        assert policy == RetryPolicy(
            attempts=2, base=3.0, jitter=None, retry_after_cap=5.0
        )
        first, second = fail(policy.start(0.0), 2)
        assert first.delay == 3.0
        assert second == GiveUp(reason="2 attempts without progress")

    def test_replacing_a_number_keeps_custom_strategies(self):
        wait, stop = tenacity.wait_fixed(7), tenacity.stop_after_attempt(2)
        retry = tenacity.retry_if_exception_type(RateLimited)
        policy = RetryPolicy(wait=wait, stop=stop, retry=retry)
        policy = dataclasses.replace(policy, base=3.0, jitter=None)
        assert policy.wait == AtLeastServerHint(wait, 0.0)
        assert (policy.stop, policy.retry) == (stop, retry)

    def test_it_pickles(self):
        policy = RetryPolicy(jitter="equal")
        assert pickle.loads(pickle.dumps(policy)) == policy

    def test_it_is_frozen(self):
        with pytest.raises(AttributeError):
            RetryPolicy().attempts = 3
