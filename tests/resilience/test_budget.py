"""The retry budget: a share of the traffic and a floor, over a window that moves."""

from __future__ import annotations

import math
import os
import threading

import pytest
from conditions import SOON, Clock, crowd, in_child
from hypothesis import given, strategies as st

from holystream.client import DEFAULT_PERMITS
from holystream.errors import ConfigurationError
from holystream.resilience.budget import SPENT, RetryBudget
from holystream.resilience.retry import RetryPolicy


def made(clock=None, **options):
    return RetryBudget(clock=clock or Clock(), **options)


def spend_all(budget, most=10_000):
    """Spend until nothing is left; return how many retries that were."""
    return next((done for done in range(most) if not budget.try_spend()), most)


class TestBalance:
    """What there is to spend."""

    def test_the_defaults_are_a_fifth_and_25_per_second(self):
        assert spend_all(made()) == 250
        budget = made()
        for _ in range(1000):
            budget.record_request()
        assert budget.balance == 450.0
        assert spend_all(budget) == 450

    def test_the_streams_of_a_small_client_can_use_up_their_policy_at_once(self):
        retries = RetryPolicy().attempts - 1
        small, large = made(), made()
        for _ in range(DEFAULT_PERMITS):
            small.record_request()
        assert all(small.try_spend() for _ in range(DEFAULT_PERMITS * retries))
        for _ in range(5_000):
            large.record_request()
        assert spend_all(large, 5_000 * retries) < 0.06 * 5_000 * retries

    @pytest.mark.parametrize(("requests", "retries"), [(4, 0), (5, 1), (9, 1), (10, 2)])
    def test_without_a_floor_there_is_a_share_of_the_requests(self, requests, retries):
        budget = made(floor=0)
        for _ in range(requests):
            budget.record_request()
        assert spend_all(budget) == retries

    @pytest.mark.parametrize("ratio", [0.1, 0.2, 0.3, 0.7, 1.0, 2.5])
    def test_no_share_is_lost_in_the_sum(self, ratio):
        budget = made(ratio=ratio, floor=0)
        for _ in range(1000):
            budget.record_request()
        assert spend_all(budget) == round(1000 * ratio)

    def test_what_is_refused_costs_nothing(self):
        budget = made(floor=0)
        assert not any(budget.try_spend() for _ in range(50))
        for _ in range(5):
            budget.record_request()
        assert budget.try_spend()
        now = budget.statistics()
        assert (now.balance, now.requests, now.spent, now.refused) == (0.0, 5, 1, 50)

    def test_nothing_and_everything(self):
        assert spend_all(made(ratio=0, floor=0)) == 0
        assert spend_all(made(floor=math.inf)) == 10_000


class TestWindow:
    """What is remembered, and for how long."""

    def test_requests_are_forgotten_after_the_window(self):
        clock = Clock()
        budget = made(clock, floor=0)
        for _ in range(50):
            budget.record_request()
        clock.now += 9.0
        assert budget.balance == 10.0
        clock.now += 1.0
        assert budget.balance == 0.0
        assert budget.statistics().requests == 50

    def test_what_was_spent_comes_back_after_the_window(self):
        clock = Clock()
        budget = made(clock, floor=10)
        assert spend_all(budget) == 100
        clock.now += 9.0
        assert not budget.try_spend()
        clock.now += 1.0
        assert spend_all(budget) == 100
        assert budget.statistics().spent == 200

    def test_a_debt_is_told_where_the_earnings_have_gone(self):
        clock = Clock()
        budget = made(clock, floor=0)
        for _ in range(50):
            budget.record_request()
        clock.now += 5.0
        assert spend_all(budget) == 10
        clock.now += 5.0
        assert budget.balance == -10.0
        assert not budget.try_spend()
        clock.now += 5.0
        assert budget.balance == 0.0

    def test_a_long_silence_forgets_all(self):
        clock = Clock()
        budget = made(clock, floor=0)
        for _ in range(50):
            budget.record_request()
        clock.now += 1e9
        assert budget.balance == 0.0

    def test_a_clock_read_late_does_not_turn_the_window_back(self):
        clock = Clock()
        budget = made(clock, floor=0)
        clock.now += 3.0
        for _ in range(5):
            budget.record_request()
        clock.now -= 2.0
        for _ in range(5):
            budget.record_request()
        assert budget.balance == 2.0
        clock.now += 2.0
        assert budget.balance == 2.0

    def test_over_a_minute_the_rate_is_the_share_and_the_floor(self):
        clock = Clock()
        budget = made(clock, floor=2, window=5.0)
        granted = 0
        for _ in range(600):
            clock.now += 0.1
            for _ in range(10):
                budget.record_request()
            granted += spend_all(budget)
        # 6 000 requests, a fifth of them and 2/s for a minute.
        assert granted == pytest.approx(1320, rel=0.05)

    @given(
        ratio=st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]),
        floor=st.sampled_from([0.0, 0.3, 1.0]),
        window=st.sampled_from([1.0, 10.0, 7.0]),
        steps=st.lists(
            st.sampled_from(["request", "spend", "wait a little", "wait", "wait long"])
        ),
    )
    def test_it_agrees_with_a_model_that_keeps_everything(
        self, ratio, floor, window, steps
    ):
        clock = Clock(0.0)
        budget = made(clock, ratio=ratio, floor=floor, window=window)
        requests, spent = [], []

        def recent(moments):
            first = clock.now // (window / 10) - 9
            return sum(moment // (window / 10) >= first for moment in moments)

        def balance():
            return ratio * recent(requests) + floor * window - recent(spent)

        for step in steps:
            if step == "request":
                budget.record_request()
                requests.append(clock.now)
            elif step == "spend":
                may = balance() >= 1.0
                assert budget.try_spend() is may
                if may:
                    spent.append(clock.now)
            else:
                parts = {"wait a little": 0.03, "wait": 0.25, "wait long": 1.1}
                clock.now += window * parts[step]
            assert budget.balance == balance()


class TestThreads:
    """Shared by all streams of a client."""

    def test_a_crowd_spends_what_there_is_and_not_one_more(self):
        budget, granted = made(floor=10), []
        barrier = threading.Barrier(16)

        def run(_):
            barrier.wait(SOON)
            for _ in range(250):
                budget.record_request()
            granted.append(sum(budget.try_spend() for _ in range(200)))

        crowd(run, 16)
        now = budget.statistics()
        assert sum(granted) == now.spent == 900
        assert (now.requests, now.refused, now.balance) == (4000, 2300, 0.0)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12: threads and fork
    def test_a_child_has_what_its_parent_had_and_no_lock_of_its(self):
        budget = made(floor=10)
        assert spend_all(budget, 40) == 40
        with budget._lock:
            assert in_child(lambda: spend_all(budget) == 60) == 0
        assert budget.balance == 60.0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"ratio": -0.1}, "ratio must be 0 or more"),
        ({"ratio": True}, "ratio must be 0 or more"),
        ({"ratio": math.nan}, "ratio must be 0 or more"),
        ({"ratio": math.inf}, "ratio must be finite"),
        ({"floor": "10"}, "floor must be 0 or more"),
        ({"floor": -1}, "floor must be 0 or more"),
        ({"window": 0}, "window must be a positive"),
        ({"window": math.inf}, "window must be a positive"),
    ],
)
def test_a_wrong_setting_is_named(options, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        made(**options)


def test_it_shows_what_it_is():
    assert repr(made()) == "<RetryBudget 250 to spend>"


def test_why_a_stream_gives_up_names_what_to_change():
    assert SPENT.startswith("the retry budget is spent: ")
    assert "fewer streams at once" in SPENT
    assert "retry_budget=" in SPENT
