"""Routing: who is picked, in which order, who is left out, and that nothing leaks."""

from __future__ import annotations

import collections
import gc
import math
import os
import random
import threading

import pytest
from conditions import SOON, Clock, crowd, in_child
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holystream.errors import (
    AuthenticationError,
    BadRequest,
    CertificateError,
    CircuitOpen,
    ConfigurationError,
    ConnectionFailed,
    ConnectionLost,
    InvalidRequest,
    ModelNotFound,
    NotAnEventStream,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    StreamCancelled,
    UnexpectedRedirect,
    Verdict,
)
from holystream.resilience.circuit import BreakerPolicy, BreakerState
from holystream.resilience.endpoints import Endpoint
from holystream.resilience.health import MEMORY
from holystream.resilience.routing import Router

STEADY = BreakerPolicy(jitter=0.0)


def at(name, **options):
    return Endpoint(f"https://{name}.example/v1", name=name, **options)


def made(*endpoints, policy=STEADY, seed=0):
    clock = Clock()
    router = Router(endpoints, breaker=policy, clock=clock, rng=random.Random(seed))
    return router, clock


def error(kind, **attributes):
    found = kind("it happened")
    for name, value in attributes.items():
        setattr(found, name, value)
    return found


def measured(router, **seconds):
    """Give each endpoint a time to first token."""
    for name, ttft in seconds.items():
        others = [each.name for each in router.endpoints if each.name != name]
        assignment = router.pick(avoid=others)
        assert assignment.endpoint.name == name
        assignment.first_content(ttft)
        assignment.finished()


def names(picks):
    return [assignment.endpoint.name for assignment in picks]


def statistics(router):
    return {each.name: each for each in router.statistics()}


def in_flight(router):
    return sum(each.in_flight for each in router.statistics())


def trip(router, *which):
    for name in which:
        for _ in range(5):
            router.breakers[name].acquire().failed(Verdict.NOT_SENT)


class TestOrder:
    """Among those that are willing."""

    def test_the_quickest_is_picked(self):
        router, _ = made(at("a"), at("b"), at("c"))
        measured(router, a=2.0, b=0.5, c=1.0)
        for _ in range(10):
            assignment = router.pick()
            assert assignment.endpoint.name == "b"
            assignment.first_content(0.5)
            assignment.finished()

    def test_load_is_shared_by_speed(self):
        router, _ = made(at("a"), at("b"), at("c"))
        measured(router, a=0.5, b=1.0, c=2.0)
        held = [router.pick() for _ in range(70)]
        assert collections.Counter(names(held)) == {"a": 40, "b": 20, "c": 10}

    def test_equals_take_turns(self):
        router, _ = made(at("a"), at("b"), at("c"))
        measured(router, a=1.0, b=1.0, c=1.0)
        picks = []
        for _ in range(9):
            assignment = router.pick()
            picks.append(assignment.endpoint.name)
            assignment.release()
        assert collections.Counter(picks) == {"a": 3, "b": 3, "c": 3}

    def test_not_every_process_begins_with_the_same_one(self):
        first = set()
        for seed in range(50):
            router, _ = made(at("a"), at("b"), at("c"), seed=seed)
            first.add(router.pick().endpoint.name)
        assert first == {"a", "b", "c"}

    def test_a_lower_tier_is_picked_only_if_no_higher_one_is_willing(self):
        router, clock = made(at("far", priority=1), at("near"), at("home"))
        measured(router, far=0.1, near=5.0, home=5.0)
        assert "far" not in names([router.pick() for _ in range(50)])
        trip(router, "near")
        assert set(names([router.pick() for _ in range(9)])) == {"home"}
        trip(router, "home")
        assert set(names([router.pick() for _ in range(9)])) == {"far"}
        clock.now += 60.0
        probe = router.pick()
        assert probe.endpoint.name in {"near", "home"}

    def test_where_this_stream_failed_goes_last(self):
        router, _ = made(at("a"), at("b"), at("c", priority=1))
        measured(router, a=0.1, b=9.0, c=9.0)
        assert router.pick(avoid={"a"}).endpoint.name == "b"
        assert router.pick(avoid={"a", "b"}).endpoint.name == "c"
        assert router.pick(avoid={"a", "b", "c"}).endpoint.name == "a"
        assert router.pick().endpoint.name == "a"

    def test_failover_goes_through_all_of_them(self):
        router, _ = made(at("a"), at("b"), at("c"))
        tried = []
        for _ in range(3):
            assignment = router.pick(avoid=tried, stream_id="s")
            tried.append(assignment.endpoint.name)
            assignment.failed(error(ConnectionFailed))
        assert sorted(tried) == ["a", "b", "c"]

    def test_only_those_that_have_the_model(self):
        router, _ = made(at("a", models=["gpt-*"]), at("b", models=["claude*"]))
        assert set(names([router.pick(model="gpt-4o") for _ in range(9)])) == {"a"}
        assert set(names([router.pick() for _ in range(9)])) == {"a", "b"}
        with pytest.raises(InvalidRequest, match="no endpoint has the model 'llama'"):
            router.pick(model="llama")
        with pytest.raises(InvalidRequest, match="no endpoint has the model"):
            router.candidates.retry_after(model="llama")
        trip(router, "a")
        assert router.candidates.retry_after(model="gpt-4o") == 60.0
        assert router.candidates.retry_after() == 0.0
        with pytest.raises(CircuitOpen):
            router.pick(model="gpt-4o")


class TestExploring:
    """Endpoints of which nothing is known, or nothing new."""

    def test_each_fresh_one_is_tried_by_one_stream_first(self):
        router, _ = made(at("a"), at("b"), at("c"), at("d"))
        held = [router.pick() for _ in range(4)]
        assert sorted(names(held)) == ["a", "b", "c", "d"]
        # Nobody has answered: the rest is shared out.
        held += [router.pick() for _ in range(8)]
        assert set(collections.Counter(names(held)).values()) == {3}
        held[0].first_content(1.0)
        assert router.pick().endpoint.name == held[0].endpoint.name

    def test_among_unknown_ones_the_least_busy_is_picked(self):
        router, _ = made(at("a"), at("b"))
        held = [router.pick() for _ in range(4)]
        for assignment in held:
            if assignment.endpoint.name == "a":
                assignment.release()
        more = [router.pick(), router.pick()]
        assert names(more) == ["a", "a"]

    def test_a_new_one_beside_known_ones_gets_one_stream_until_it_answers(self):
        router, _ = made(at("known"), at("new"))
        known = router.pick(avoid=["new"])
        known.first_content(3.0)
        scout = router.pick()
        assert scout.endpoint.name == "new"
        assert set(names([router.pick() for _ in range(20)])) == {"known"}
        scout.first_content(0.1)
        assert router.pick().endpoint.name == "new"

    def test_a_fresh_one_that_failed_is_not_tried_by_everybody(self):
        router, clock = made(at("good"), at("bad"))
        measured(router, good=3.0)
        router.pick(avoid=["good"]).failed(error(BadRequest))
        for _ in range(20):
            assignment = router.pick()
            assert assignment.endpoint.name == "good"
            assignment.release()
        clock.now += MEMORY
        assert router.pick().endpoint.name == "bad"
        assert router.pick().endpoint.name == "good"

    def test_a_slow_one_is_tried_again_after_a_time_by_one(self):
        router, clock = made(at("quick"), at("slow"))
        measured(router, quick=1.0, slow=10.0)
        waited = 0.0
        while True:
            assignment = router.pick()
            if assignment.endpoint.name == "slow":
                break
            assignment.first_content(1.0)
            assignment.finished()
            clock.now += 1.0
            waited += 1.0
        # It was ten times slower: it must fade by that much.
        assert waited == pytest.approx(MEMORY * math.log(10), abs=2.0)
        assert set(names([router.pick() for _ in range(8)])) == {"quick"}
        # What is old has little weight.
        assignment.first_content(0.2)
        assert statistics(router)["slow"].ttft == pytest.approx(1.2, abs=0.1)

    def test_an_average_follows_what_is_measured(self):
        router, clock = made(at("a"))
        seen = []
        for seconds in [1.0] * 3 + [2.0] * 20:
            measured(router, a=seconds)
            seen.append(statistics(router)["a"].ttft)
        assert seen[:4] == [1.0, 1.0, 1.0, 1.2]
        assert 1.98 < seen[-1] < 2.0
        assert seen == sorted(seen)
        clock.now += 100 * MEMORY
        measured(router, a=9.0)
        assert statistics(router)["a"].ttft == pytest.approx(9.0)

    @pytest.mark.parametrize("end", ["failed", "release", "finished"])
    def test_what_was_waited_in_vain_counts_if_it_is_longer(self, end):
        router, clock = made(at("a"))
        measured(router, a=10.0)
        for seconds, ttft in [(5.0, 10.0), (20.0, 12.0)]:
            assignment = router.pick()
            clock.now += seconds
            arguments = [error(ConnectionLost)] if end == "failed" else []
            getattr(assignment, end)(*arguments)
            assert statistics(router)["a"].ttft == pytest.approx(ttft, rel=0.1)

    def test_a_first_token_is_measured_once_and_a_clock_that_errs_does_no_harm(self):
        router, _ = made(at("a"))
        assignment = router.pick()
        assignment.first_content(-1.0)
        assignment.first_content(50.0)
        assignment.finished()
        assignment.first_content(50.0)
        assert statistics(router)["a"].ttft == 0.0


class TestResting:
    """Asked last for a time, without a vote."""

    @pytest.mark.parametrize(
        ("found", "seconds"),
        [
            (error(RateLimited), 1.0),
            (error(RateLimited, retry_after=7.0), 7.0),
            (error(RateLimited, retry_after=1e9), 600.0),
            (error(Overloaded, retry_after=30.0), 30.0),
            (error(Overloaded), 0.0),
            (error(CertificateError), 60.0),
            (error(NotAnEventStream), 60.0),
            (error(UnexpectedRedirect), 60.0),
            (error(BadRequest), 0.0),
            (error(ModelNotFound), 0.0),
            (error(ConnectionLost), 0.0),
            (error(StreamCancelled), 0.0),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_for_how_long(self, found, seconds):
        router, clock = made(at("a"), at("b", priority=1))
        measured(router, a=1.0, b=1.0)
        router.pick().failed(found)
        assert statistics(router)["a"].resting == pytest.approx(seconds)
        assert router.pick().endpoint.name == ("b" if seconds else "a")
        clock.now += seconds
        assert router.pick().endpoint.name == "a"

    def test_one_that_rests_is_better_than_none(self):
        router, _ = made(at("a"), at("b"))
        router.pick(avoid="b").failed(error(RateLimited, retry_after=30.0))
        trip(router, "b")
        assert router.pick().endpoint.name == "a"

    def test_one_that_was_waited_for_goes_before_those_that_rest(self):
        router, clock = made(at("new"), at("waited"), at("broke", priority=-1))
        for name, hint in (("new", 30.0), ("waited", 5.0)):
            others = {"new", "waited", "broke"} - {name}
            router.pick(avoid=others).failed(error(RateLimited, retry_after=hint))

        def taken():
            had = {"avoid": {"waited", "broke"}, "waited_for": {"waited"}}
            return router.pick(**had).endpoint.name

        assert taken() == "new"  # both rest
        clock.now += 5.0
        assert taken() == "waited"
        clock.now += 25.0
        assert taken() == "new"


class TestCredentials:
    """401 and 403 say something of a key, and nothing of a host."""

    @pytest.mark.parametrize(
        "kind", [AuthenticationError, PermissionDenied, QuotaExceeded]
    )
    def test_a_refused_key_is_ejected_and_its_host_is_not(self, kind):
        host = "https://api.example/v1"
        router, clock = made(
            Endpoint(host, name="bad", key="sk-0123456789-bad"),
            Endpoint(f"{host}/more", name="also bad", key="sk-0123456789-bad"),
            Endpoint(host, name="good", key="sk-0123456789-good"),
            Endpoint("https://b.example", name="elsewhere", key="sk-0123456789-bad"),
        )
        others = {"also bad", "good", "elsewhere"}
        router.pick(avoid=others).failed(error(kind))
        ejected = {each.name for each in router.statistics() if each.ejected}
        assert ejected == {"bad", "also bad"}
        assert set(names([router.pick() for _ in range(20)])) == {"good", "elsewhere"}
        assert set(names([router.pick(avoid=others) for _ in range(5)])) <= others
        clock.now += 60.0
        assert set(names([router.pick() for _ in range(20)])) >= {"bad", "also bad"}

    def test_it_does_not_trip_the_breaker(self):
        router, _ = made(at("a", key="sk-0123456789"))
        for _ in range(20):
            router.pick().failed(error(AuthenticationError))
        assert router.breakers["a"].state is BreakerState.CLOSED

    def test_if_all_are_refused_the_api_says_so_itself(self):
        router, _ = made(at("a", key="sk-0123456789"), at("b", key="sk-9876543210"))
        for _ in range(2):
            router.pick().failed(error(AuthenticationError))
        assert all(each.ejected for each in router.statistics())
        assert {router.pick().endpoint.name, router.pick().endpoint.name} == {"a", "b"}

    def test_one_that_fails_is_not_replaced_by_one_that_is_refused(self):
        router, _ = made(at("a", key="sk-0123456789"), at("b"))
        router.pick(avoid="b").failed(error(AuthenticationError))
        trip(router, "b")
        with pytest.raises(CircuitOpen, match=r": b \(open\) \[") as caught:
            router.pick()
        assert caught.value.retry_after == 60.0

    def test_the_time_doubles_until_it_is_accepted(self):
        router, clock = made(at("a"), at("b"))
        seen = []
        for _ in range(8):
            assignment = router.pick(avoid="b")
            late = router.pick(avoid="b")
            assignment.failed(error(AuthenticationError))
            late.failed(error(AuthenticationError))
            seen.append(statistics(router)["a"].ejected)
            clock.now += seen[-1]
        assert seen == [60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0]
        router.pick(avoid="b").connected()
        router.pick(avoid="b").failed(error(AuthenticationError))
        assert statistics(router)["a"].ejected == 60.0

    def test_a_request_that_is_accepted_brings_it_back_at_once(self):
        router, _ = made(at("a"), at("b"))
        other = router.pick(avoid="b")
        router.pick(avoid="b").failed(error(PermissionDenied))
        assert statistics(router)["a"].ejected == 60.0
        other.connected()
        assert statistics(router)["a"].ejected == 0.0

    def test_whether_another_would_be_picked(self):
        router, _ = made(at("a"), at("b"), at("c", models=["m"]))
        assert router.candidates.has_other("a")
        router.pick(avoid={"a", "c"}).failed(error(AuthenticationError))
        assert router.candidates.has_other("a", model="m")
        trip(router, "c")
        assert not router.candidates.has_other("a")
        assert router.candidates.has_other("b")
        single, _ = made(at("a"))
        assert not single.candidates.has_other("a")
        twins, _ = made(
            Endpoint("https://a.example/v1", name="one"),
            Endpoint("https://a.example/v2", name="two"),
        )
        assert not twins.candidates.has_other("one")


class TestCircuits:
    """All of them open."""

    def test_the_soonest_is_told(self):
        router, clock = made(at("a"), at("b"), at("c"))
        trip(router, "a")
        clock.now += 20.0
        trip(router, "b")
        assert router.pick().endpoint.name == "c"
        assert router.candidates.retry_after() == 0.0
        router.breakers["c"].force_open()
        assert router.candidates.retry_after() == 40.0
        with pytest.raises(CircuitOpen) as caught:
            router.pick()
        assert caught.value.retry_after == 40.0
        assert caught.value.message.endswith(": a (open), b (open), c (forced open)")
        assert in_flight(router) == 0
        clock.now += 40.0
        assert router.pick().endpoint.name == "a"

    def test_if_all_are_forced_open_nobody_knows(self):
        router, _ = made(at("a"))
        router.breakers["a"].force_open()
        assert router.candidates.retry_after() is None
        with pytest.raises(CircuitOpen) as caught:
            router.pick()
        assert caught.value.retry_after is None

    def test_a_refused_pick_is_none(self):
        router, _ = made(at("a"), at("b"))
        trip(router, "a", "b")
        for _ in range(5):
            with pytest.raises(CircuitOpen):
                router.pick()
        assert [each.picked for each in router.statistics()] == [0, 0]

    def test_a_refused_pick_does_not_make_an_endpoint_new_again(self):
        router, _ = made(at("good"), at("bad"))
        measured(router, good=3.0)
        router.pick(avoid=["good"]).failed(error(BadRequest))
        router.breakers["bad"].force_open()
        assert router.pick(avoid=["good"]).endpoint.name == "good"
        router.breakers["bad"].reset()
        assert router.pick().endpoint.name == "good"

    def test_five_streams_leave_a_bad_one_and_a_probe_brings_it_back(self):
        router, clock = made(at("bad"), at("good"))
        measured(router, bad=0.1, good=1.0)
        for stream in range(20):
            assignment = router.pick(stream_id=f"s{stream}")
            if assignment.endpoint.name == "bad":
                assignment.failed(error(ConnectionFailed))
                assignment = router.pick(stream_id=f"s{stream}", avoid=["bad"])
            assert assignment.endpoint.name == "good"
            assignment.first_content(1.0)
            assignment.finished()
        now = statistics(router)
        assert (now["bad"].picked - 1, now["good"].picked - 1) == (5, 20)
        assert now["bad"].breaker.state is BreakerState.OPEN
        clock.now += 60.0
        probe = router.pick()
        assert probe.endpoint.name == "bad"
        assert router.pick().endpoint.name == "good"
        probe.connected()
        assert router.breakers["bad"].state is BreakerState.HALF_OPEN
        probe.first_content(0.1)
        assert router.breakers["bad"].state is BreakerState.CLOSED

    def test_one_that_wants_a_probe_gets_it_though_others_are_quicker(self):
        router, clock = made(at("slow"), at("quick"), at("never"))
        measured(router, slow=50.0, quick=0.1)
        trip(router, "slow", "never")
        clock.now += 60.0
        probes = [router.pick(), router.pick()]
        assert sorted(names(probes)) == ["never", "slow"]
        assert set(names([router.pick() for _ in range(9)])) == {"quick"}
        assert statistics(router)["slow"].breaker.refused == 0

    def test_a_finished_stream_ends_the_row(self):
        router, _ = made(at("a"))
        for _ in range(4):
            router.pick().failed(error(ConnectionLost))
        router.pick().finished()
        router.pick().failed(error(ConnectionLost))
        assert statistics(router)["a"].breaker.failures == 1

    def test_one_stream_alone_trips_nothing(self):
        router, _ = made(at("a"))
        for _ in range(50):
            router.pick(stream_id="s").failed(error(ConnectionLost))
        assert router.breakers["a"].state is BreakerState.CLOSED

    def test_the_listener_hears_of_all_and_may_pick(self):
        heard = []

        def listen(change):
            heard.append((change.name, change.after, router.pick().endpoint.name))

        router = Router([at("a"), at("b")], breaker=STEADY, listener=listen)
        trip(router, "a")
        assert heard == [("a", BreakerState.OPEN, "b")]


class TestAssignment:
    """From the pick to its end, once."""

    @pytest.mark.parametrize("second", ["finished", "failed", "release", "later"])
    @pytest.mark.parametrize("first", ["finished", "failed", "release", "later"])
    def test_the_first_end_counts(self, first, second):
        router, _ = made(at("a"))
        assignment = router.pick()
        ends = {
            "finished": assignment.finished,
            "failed": lambda: assignment.failed(error(AuthenticationError)),
            "release": assignment.release,
            "later": assignment.release_later,
        }
        ends[first]()
        assert in_flight(router) == 0
        before = router.statistics()
        ends[second]()
        after = router.statistics()
        assert [each.ejected for each in before] == [each.ejected for each in after]
        assert before[0].breaker == after[0].breaker

    def test_a_lost_one_comes_back(self):
        router, clock = made(at("a"))
        router.pick()
        assert in_flight(router) == 0
        trip(router, "a")
        clock.now += 60.0
        ring = [router.pick()]
        ring.append(ring)
        with pytest.raises(CircuitOpen):
            router.pick()
        del ring
        gc.collect()
        assert in_flight(router) == 0
        assert router.pick().endpoint.name == "a"

    def test_a_finaliser_under_the_lock_does_not_wait(self):
        router, _ = made(at("a"))
        assignment = router.pick()
        with router._lock, router.breakers["a"]._lock:
            del assignment
        assert in_flight(router) == 0

    def test_a_router_can_be_collected(self):
        router, _ = made(at("a"))
        assignment = router.pick()
        assignment.finished()
        breakers = [gc.get_referrers(router)]
        del router, assignment, breakers
        gc.collect()
        assert not [each for each in gc.get_objects() if type(each) is Router]

    def test_all_show_what_they_are(self):
        router, _ = made(at("a"), at("b", key="sk-0123456789"))
        assert repr(router) == "<Router a, b>"
        assert repr(router.pick(avoid="a")) == "<Assignment 0 to 'b'>"

    def test_statistics_are_in_the_order_given_and_frozen(self):
        router, _ = made(at("z", region="eu", priority=2), at("a"))
        first, second = router.statistics()
        assert (first.name, first.region, first.priority) == ("z", "eu", 2)
        assert (second.name, second.ttft, second.picked) == ("a", None, 0)
        with pytest.raises(AttributeError):
            first.picked = 1

    @pytest.mark.parametrize("endpoints", [[], [at("a"), at("a")]])
    def test_endpoints_need_names_of_their_own(self, endpoints):
        with pytest.raises(ConfigurationError, match="each with a name= of its own"):
            Router(endpoints)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12: threads and fork
def test_a_child_knows_what_its_parent_knew_and_has_nothing_in_flight():
    router, _ = made(at("a"), at("b"))
    measured(router, a=1.0, b=2.0)
    held = [router.pick() for _ in range(5)]

    def check():
        fresh = in_flight(router) == 0
        for assignment in held:
            assignment.failed(error(ConnectionFailed))
        known = [each.ttft for each in router.statistics()] == [1.0, 2.0]
        closed = all(each.breaker.failures == 0 for each in router.statistics())
        return fresh and known and closed and router.pick().endpoint.name == "a"

    with router._lock:
        assert in_child(check) == 0
    assert in_flight(router) == 5


def test_a_crowd_that_arrives_at_once_is_shared_out():
    router, _ = made(at("a"), at("b"), at("c"), at("d"))
    measured(router, a=1.0, b=1.0, c=1.0, d=1.0)
    barrier, held = threading.Barrier(64), []

    def run(_):
        barrier.wait(SOON)
        held.append(router.pick())

    crowd(run, 64)
    assert collections.Counter(names(held)) == dict.fromkeys("abcd", 16)


def live(assignment, rng):
    """Do with an assignment what a stream might do."""
    kinds = [ConnectionLost, RateLimited, AuthenticationError, BadRequest, Overloaded]
    if rng.random() < 0.7:
        assignment.connected()
        assignment.first_content(rng.random())
    match rng.randrange(5):
        case 0:
            assignment.finished()
        case 1 | 2:
            assignment.failed(error(rng.choice(kinds)))
        case 3:
            closing = threading.Thread(target=assignment.release)
            closing.start()
            assignment.finished()
            closing.join(SOON)


def test_a_crowd_leaks_nothing():
    router, clock = made(at("a"), at("b", priority=1), at("c"), policy=None)
    failures, done = [], collections.Counter()

    def run(seed):
        rng = random.Random(seed)
        try:
            for turn in range(150):
                clock.now += 0.5
                try:
                    assignment = router.pick(stream_id=f"{seed}-{turn}", avoid=["a"])
                except CircuitOpen:
                    done["refused"] += 1
                    continue
                live(assignment, rng)
        except BaseException as found:  # noqa: BLE001 - shown below
            failures.append(found)

    crowd(run, 12)
    gc.collect()
    assert not failures
    now = router.statistics()
    assert [each.in_flight for each in now] == [0, 0, 0]
    assert [each.breaker.probes for each in now] == [0, 0, 0]
    assert sum(each.picked for each in now) <= 12 * 150
    assert not router._in_flight
    for health in router._healths.values():
        assert not health.in_flight
        assert not health.waiting


class RouterMachine(RuleBasedStateMachine):
    """Whatever happens: what is in flight adds up, and the first of the order goes."""

    def __init__(self):
        super().__init__()
        self.router, self.clock = made(at("a"), at("b"), at("c", priority=1))
        self.held = []

    @rule(
        avoid=st.sets(st.sampled_from("abc")),
        waited_for=st.sets(st.sampled_from("abc")),
    )
    def pick(self, avoid, waited_for):
        now = statistics(self.router)
        fit = [each for each in now.values() if not each.ejected] or list(now.values())
        willing = [each for each in fit if each.breaker.retry_after == 0.0]
        if not willing:
            waits = [each.breaker.retry_after for each in fit]
            with pytest.raises(CircuitOpen) as caught:
                self.router.pick(avoid=avoid)
            known = [wait for wait in waits if wait is not None]
            assert caught.value.retry_after == min(known, default=None)
            return
        assignment = self.router.pick(avoid=avoid, waited_for=waited_for)
        self.held.append(assignment)

        def order(each):
            probe = each.breaker.state in {BreakerState.OPEN, BreakerState.HALF_OPEN}
            fit = each.resting == 0 and each.name not in avoid - waited_for
            asked = each.resting > 0, each.priority, not probe
            return not fit, each.name in avoid, *asked

        picked = now[assignment.endpoint.name]
        assert picked in willing
        assert order(picked) == min(map(order, willing))

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        kind=st.sampled_from(
            [ConnectionLost, RateLimited, AuthenticationError, BadRequest, None, "lose"]
        ),
    )
    def end(self, data, kind):
        # A number: hypothesis would keep the assignment, which could not be lost.
        which = data.draw(st.integers(0, len(self.held) - 1))
        assignment = self.held.pop(which)
        if kind is None:
            assignment.finished()
        elif kind != "lose":
            assignment.failed(error(kind))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), seconds=st.sampled_from([0.0, 0.3, 2.0]))
    def answer(self, data, seconds):
        which = data.draw(st.integers(0, len(self.held) - 1))
        self.held[which].connected()
        self.held[which].first_content(seconds)

    @rule(seconds=st.sampled_from([1.0, 30.0, 60.0, 500.0]))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule(name=st.sampled_from("abc"), command=st.sampled_from(["force_open", "reset"]))
    def command(self, name, command):
        getattr(self.router.breakers[name], command)()

    @invariant()
    def it_adds_up(self):
        held = collections.Counter(names(self.held))
        for each in self.router.statistics():
            assert each.in_flight == held[each.name]


TestInvariants = RouterMachine.TestCase
TestInvariants.settings = settings(max_examples=100, stateful_step_count=40)
