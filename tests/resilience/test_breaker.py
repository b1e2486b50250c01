"""The circuit breaker: each transition, each vote, exactly K probes, no jam.

The clock stands still until a test moves it. The table of transitions is written here a
second time, by hand, so that a row that changes is noticed; the state machine below
knows nothing of the tables and keeps its own, simpler books.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import random
import sys
import threading

import pytest
from conditions import SOON, Clock, crowd, in_child
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holystream.errors import CircuitOpen, ConfigurationError, Verdict
from holystream.resilience import breaker as breaker_module
from holystream.resilience.breaker import CircuitBreaker
from holystream.resilience.circuit import (
    TRANSITIONS,
    VOTES,
    BreakerPolicy,
    BreakerState,
    Signal,
    Vote,
)

CLOSED, OPEN, HALF_OPEN = (
    BreakerState.CLOSED,
    BreakerState.OPEN,
    BreakerState.HALF_OPEN,
)
FORCED_OPEN, DISABLED = BreakerState.FORCED_OPEN, BreakerState.DISABLED

STEADY = BreakerPolicy(jitter=0.0)


def made(policy=STEADY, **options):
    clock = Clock()
    return CircuitBreaker("eu-1", policy, clock=clock, **options), clock


def trip(breaker, times=None):
    for _ in range(times or breaker.policy.failures):
        breaker.acquire().failed(Verdict.NO_ANSWER)


def in_state(state, policy=STEADY, **options):
    """A breaker that came into a state on the usual way."""
    breaker, clock = made(policy, **options)
    if state in {OPEN, HALF_OPEN}:
        trip(breaker)
    if state is HALF_OPEN:
        clock.now += 60.0
        breaker.acquire().release_later()
    elif state is FORCED_OPEN:
        breaker.force_open()
    elif state is DISABLED:
        breaker.disable()
    assert breaker.state is state
    return breaker, clock


EXPECTED = {
    CLOSED: {
        Signal.TRIPPED: OPEN,
        Signal.FORCE_OPEN: FORCED_OPEN,
        Signal.DISABLE: DISABLED,
        Signal.RESET: CLOSED,
    },
    OPEN: {
        Signal.DUE: HALF_OPEN,
        Signal.PROBES_ANSWERED: CLOSED,
        Signal.FORCE_OPEN: FORCED_OPEN,
        Signal.DISABLE: DISABLED,
        Signal.RESET: CLOSED,
    },
    HALF_OPEN: {
        Signal.PROBE_FAILED: OPEN,
        Signal.PROBES_ANSWERED: CLOSED,
        Signal.FORCE_OPEN: FORCED_OPEN,
        Signal.DISABLE: DISABLED,
        Signal.RESET: CLOSED,
    },
    FORCED_OPEN: {Signal.DISABLE: DISABLED, Signal.RESET: CLOSED},
    DISABLED: {Signal.FORCE_OPEN: FORCED_OPEN, Signal.RESET: CLOSED},
}


class TestStreamsUnderWay:
    """Attempts that are let through in spite of the state."""

    def test_an_answer_closes_it_early(self):
        breaker, _ = in_state(OPEN)
        assert breaker.try_acquire("new") is None
        ticket = breaker.try_acquire("old", under_way=True)
        ticket.answered()
        assert breaker.state is CLOSED

    def test_as_many_answers_are_needed_as_of_probes(self):
        policy = dataclasses.replace(STEADY, probes=2)
        breaker, _ = in_state(OPEN, policy)
        breaker.try_acquire("one", under_way=True).finished()
        assert breaker.state is OPEN
        breaker.try_acquire("two", under_way=True).finished()
        assert breaker.state is CLOSED

    def test_failures_lengthen_nothing(self):
        breaker, clock = in_state(OPEN)
        clock.now += 10.0
        for number in range(9):
            ticket = breaker.try_acquire(f"{number}", under_way=True)
            ticket.failed(Verdict.NOT_SENT)
        assert breaker.state is OPEN
        assert breaker.retry_after == 50.0
        assert breaker.statistics().opened == 1

    def test_they_take_no_place_of_a_probe_and_do_not_judge_as_one(self):
        breaker, _ = in_state(HALF_OPEN)
        probe = breaker.try_acquire("new")
        beside = breaker.try_acquire("old", under_way=True)
        assert breaker.statistics().probes == 1
        beside.failed(Verdict.NOT_SENT)
        assert breaker.state is HALF_OPEN
        assert breaker.try_acquire("newer") is None
        probe.failed(Verdict.NOT_SENT)
        assert breaker.state is OPEN

    def test_one_is_a_probe_where_a_probe_is_wanted(self):
        breaker, _ = in_state(HALF_OPEN)
        breaker.try_acquire("old", under_way=True).failed(Verdict.NOT_SENT)
        assert breaker.state is OPEN

    def test_what_is_forced_open_is_for_nobody(self):
        breaker, _ = in_state(FORCED_OPEN)
        assert breaker.try_acquire("old", under_way=True) is None

    def test_a_failure_that_is_tried_again_counts_only_of_a_probe(self):
        breaker, _ = in_state(CLOSED)
        for number in range(9):
            breaker.acquire(f"{number}").failed(Verdict.NOT_SENT, again=True)
        assert breaker.state is CLOSED
        breaker, _ = in_state(HALF_OPEN)
        breaker.acquire("probe").failed(Verdict.NOT_SENT, again=True)
        assert breaker.state is OPEN


class TestTable:
    """The state machine, cell by cell."""

    @pytest.mark.parametrize("state", BreakerState)
    @pytest.mark.parametrize("signal", Signal)
    def test_each_signal_in_each_state(self, state, signal):
        heard = []
        breaker, clock = in_state(state, listener=heard.append)
        old, before = breaker._epoch, len(heard)
        change = breaker._move(signal, clock.now)
        expected = EXPECTED[state].get(signal)
        assert TRANSITIONS.get((state, signal)) is expected
        if expected is None:
            assert (change, breaker.state, breaker._epoch) == (None, state, old)
        else:
            assert (breaker.state, breaker._epoch) == (expected, old + 1)
            assert (change.before, change.after) == (state, expected)
            assert (change.signal, change.epoch) == (signal, old + 1)
        assert len(heard) == before

    def test_every_verdict_has_a_vote(self):
        assert set(VOTES) == set(Verdict)
        assert {verdict for verdict in VOTES if VOTES[verdict] is Vote.FAILURE} == {
            Verdict.NOT_SENT,
            Verdict.NO_ANSWER,
            Verdict.INTERRUPTED,
            Verdict.SERVER_ERROR,
        }
        assert Vote.SUCCESS not in VOTES.values()

    @pytest.mark.parametrize("command", ["force_open", "disable", "reset"])
    @pytest.mark.parametrize("state", BreakerState)
    def test_the_commands(self, state, command):
        breaker, _ = in_state(state)
        getattr(breaker, command)()
        wanted = {"force_open": FORCED_OPEN, "disable": DISABLED, "reset": CLOSED}
        assert breaker.state is wanted[command]

    @pytest.mark.parametrize(
        ("state", "retry_after"),
        [
            (CLOSED, 0.0),
            (OPEN, 60.0),
            (HALF_OPEN, 0.0),
            (FORCED_OPEN, None),
            (DISABLED, 0.0),
        ],
    )
    def test_who_lets_an_attempt_through(self, state, retry_after):
        breaker, _ = in_state(state)
        assert breaker.retry_after == retry_after
        assert breaker.wants_probe is (state is HALF_OPEN)
        assert (breaker.try_acquire() is not None) is (retry_after == 0.0)


class TestClosed:
    """Failures in a row, by stream."""

    @pytest.mark.parametrize("verdict", Verdict)
    def test_what_counts_against_an_endpoint(self, verdict):
        breaker, _ = made()
        for _ in range(4):
            breaker.acquire().failed(verdict)
        counts = VOTES[verdict] is Vote.FAILURE
        assert breaker.statistics().failures == (4 if counts else 0)
        breaker.acquire().failed(verdict)
        assert breaker.state is (OPEN if counts else CLOSED)

    def test_a_cancelled_stream_never_trips_it(self):
        breaker, _ = made()
        for stream in range(100):
            breaker.acquire(f"s{stream}").failed(Verdict.CANCELLED)
            breaker.acquire(f"t{stream}").release_later()
        now = breaker.statistics()
        assert (now.state, now.failures, now.ignored) == (CLOSED, 0, 200)

    def test_what_says_nothing_does_not_end_the_row(self):
        breaker, _ = made()
        trip(breaker, 4)
        for verdict in (Verdict.CANCELLED, Verdict.THROTTLED, Verdict.FATAL):
            breaker.acquire().failed(verdict)
        trip(breaker, 1)
        assert breaker.state is OPEN

    def test_a_finished_stream_ends_the_row(self):
        breaker, _ = made()
        trip(breaker, 4)
        breaker.acquire().finished()
        trip(breaker, 4)
        assert breaker.state is CLOSED

    def test_a_first_event_is_no_vote_while_it_is_closed(self):
        breaker, _ = made()
        for _ in range(5):
            ticket = breaker.acquire()
            ticket.answered()
            ticket.failed(Verdict.INTERRUPTED)
        assert breaker.state is OPEN

    def test_one_stream_counts_once_in_a_row(self):
        breaker, _ = made()
        for _ in range(50):
            breaker.acquire("the same").failed(Verdict.INTERRUPTED)
        assert breaker.statistics().failures == 1
        for stream in ("a", "b", "c", "a", "b", "c"):
            breaker.acquire(stream).failed(Verdict.INTERRUPTED)
        assert (breaker.state, breaker.statistics().failures) == (CLOSED, 4)
        breaker.acquire("d").failed(Verdict.INTERRUPTED)
        assert breaker.state is OPEN

    def test_a_ticket_votes_once(self):
        breaker, _ = made()
        ticket = breaker.acquire()
        for _ in range(9):
            ticket.failed(Verdict.NOT_SENT)
        ticket.finished()
        ticket.release_later()
        now = breaker.statistics()
        assert (now.failures, now.failed, now.successes, now.ignored) == (1, 1, 0, 0)
        assert not ticket.valid

    def test_a_stale_ticket_does_not_vote(self):
        breaker, clock = made()
        stale = [breaker.acquire() for _ in range(4)]
        trip(breaker)
        stale[0].finished()
        assert breaker.state is OPEN
        clock.now += 60.0
        breaker.acquire().answered()
        assert breaker.state is CLOSED
        trip(breaker, 4)
        stale[1].finished()
        stale[2].failed(Verdict.NOT_SENT)
        stale[3].answered()
        now = breaker.statistics()
        assert (now.state, now.failures, now.stale) == (CLOSED, 4, 3)


class TestOpen:
    """How long, and what is said."""

    def test_nothing_passes_before_it_is_due(self):
        breaker, clock = in_state(OPEN)
        clock.now += 59.9
        with pytest.raises(CircuitOpen, match="eu-1: left alone") as caught:
            breaker.acquire()
        assert caught.value.retry_after == pytest.approx(0.1)
        assert caught.value.verdict is Verdict.NOT_SENT
        clock.now += 0.2
        assert (breaker.retry_after, breaker.wants_probe) == (0.0, True)
        assert breaker.acquire().valid
        assert breaker.state is HALF_OPEN

    def test_the_open_time_doubles_up_to_the_cap(self):
        breaker, clock = in_state(OPEN)
        seen = []
        for _ in range(6):
            seen.append(breaker.retry_after)
            clock.now += breaker.retry_after
            breaker.acquire().failed(Verdict.NOT_SENT)
        assert seen == [60.0, 120.0, 240.0, 480.0, 600.0, 600.0]

    def test_only_a_finished_stream_sets_the_open_time_back(self):
        breaker, clock = in_state(OPEN)
        clock.now += 60.0
        breaker.acquire().answered()
        trip(breaker)
        assert breaker.retry_after == 120.0
        clock.now += 120.0
        breaker.acquire().answered()
        breaker.acquire().finished()
        trip(breaker)
        assert breaker.retry_after == 60.0

    def test_a_reset_sets_the_open_time_back(self):
        breaker, _ = in_state(OPEN)
        breaker.reset()
        trip(breaker)
        assert breaker.retry_after == 60.0

    def test_jitter_shortens_it_and_differs(self):
        policy = BreakerPolicy(open_for=100.0, jitter=0.2)
        times = []
        for seed in range(50):
            breaker, _ = in_state(OPEN, policy, rng=random.Random(seed))
            times.append(breaker.retry_after)
        assert all(80.0 <= seconds <= 100.0 for seconds in times)
        assert max(times) - min(times) > 10.0

    def test_forced_open_says_that_nobody_knows_when(self):
        breaker, clock = in_state(FORCED_OPEN)
        clock.now += 1e9
        with pytest.raises(CircuitOpen) as caught:
            breaker.acquire()
        assert caught.value.retry_after is None

    def test_disabled_lets_everything_fail(self):
        breaker, _ = in_state(DISABLED)
        trip(breaker, 100)
        now = breaker.statistics()
        assert (now.state, now.failures, now.failed) == (DISABLED, 0, 100)
        breaker.reset()
        trip(breaker, 4)
        assert breaker.state is CLOSED


class TestHalfOpen:
    """Exactly K probes, which cannot be lost."""

    @pytest.mark.parametrize("probes", [1, 3, 10])
    def test_of_64_threads_exactly_so_many_pass(self, probes):
        breaker, clock = in_state(OPEN, BreakerPolicy(jitter=0.0, probes=probes))
        clock.now += 60.0
        barrier, tickets = threading.Barrier(64), []

        def run(_):
            barrier.wait(SOON)
            tickets.append(breaker.try_acquire())

        crowd(run, 64)
        granted = [ticket for ticket in tickets if ticket is not None]
        assert (len(tickets), len(granted)) == (64, probes)
        assert breaker.statistics().refused == 64 - probes
        for ticket in granted[1:]:
            ticket.answered()
            assert breaker.state is HALF_OPEN
            assert breaker.try_acquire() is None
        granted[0].answered()
        assert breaker.state is CLOSED

    @pytest.mark.parametrize("end", ["answered", "finished"])
    def test_a_probe_closes_it(self, end):
        breaker, _ = in_state(HALF_OPEN)
        getattr(breaker.acquire(), end)()
        assert breaker.state is CLOSED

    def test_an_answered_probe_has_voted(self):
        breaker, _ = in_state(HALF_OPEN)
        probe = breaker.acquire()
        probe.answered()
        probe.failed(Verdict.INTERRUPTED)
        now = breaker.statistics()
        assert (now.state, now.failures, now.failed - 5) == (CLOSED, 0, 0)

    def test_one_failed_probe_of_many_opens_it(self):
        breaker, clock = in_state(HALF_OPEN, BreakerPolicy(jitter=0.0, probes=3))
        probes = [breaker.acquire() for _ in range(3)]
        probes[0].answered()
        probes[1].failed(Verdict.SERVER_ERROR)
        probes[2].answered()
        assert (breaker.state, breaker.retry_after) == (OPEN, 120.0)
        clock.now += 120.0
        probes = [breaker.acquire() for _ in range(3)]
        probes[0].answered()
        probes[1].answered()
        assert breaker.state is HALF_OPEN

    @pytest.mark.parametrize(
        "verdict", [Verdict.CANCELLED, Verdict.THROTTLED, Verdict.FATAL]
    )
    def test_a_probe_that_says_nothing_makes_room_for_another(self, verdict):
        breaker, _ = in_state(HALF_OPEN)
        breaker.acquire().failed(verdict)
        assert breaker.state is HALF_OPEN
        probe = breaker.acquire()
        assert breaker.try_acquire() is None
        probe.answered()
        assert breaker.state is CLOSED

    def test_a_probe_whose_thread_dies_makes_room_for_another(self, monkeypatch):
        # pytest's would keep the exception, and with it the frame and the ticket.
        monkeypatch.setattr(threading, "excepthook", lambda args: None)
        breaker, _ = in_state(HALF_OPEN)
        granted = []

        def die(_):
            ticket = breaker.acquire()
            granted.append(ticket.serial)
            raise ZeroDivisionError

        crowd(die, 1)
        gc.collect()
        assert granted
        assert breaker.acquire().valid

    def test_a_probe_in_a_cycle_makes_room_when_it_is_collected(self):
        breaker, _ = in_state(HALF_OPEN)
        ring = [breaker.acquire()]
        ring.append(ring)
        assert breaker.try_acquire() is None
        del ring
        gc.collect()
        assert breaker.acquire().valid

    def test_a_probe_that_is_never_heard_of_again_has_a_lease(self):
        breaker, clock = in_state(HALF_OPEN)
        lost = breaker.acquire()
        clock.now += 59.9
        assert breaker.try_acquire() is None
        clock.now += 0.1
        second = breaker.acquire()
        assert breaker.statistics().lapsed == 1
        assert breaker.try_acquire() is None
        # Late is late, but an answer is an answer.
        lost.answered()
        assert breaker.state is CLOSED
        second.failed(Verdict.NOT_SENT)
        assert breaker.statistics().failures == 0

    def test_a_full_half_open_one_is_asked_again_soon(self):
        breaker, clock = in_state(HALF_OPEN)
        probe = breaker.acquire()
        assert breaker.retry_after == 1.0
        clock.now += 59.5
        assert breaker.retry_after == 0.5
        probe.release_later()
        assert breaker.retry_after == 0.0

    def test_a_finaliser_under_the_lock_does_not_wait(self):
        breaker, _ = in_state(HALF_OPEN)
        probe = breaker.acquire()
        with breaker._lock:
            probe.release_later()
            del probe
        assert breaker.acquire().valid


class TestListener:
    """Told of every change, outside the lock."""

    def test_it_is_told_what_happened_and_may_ask_and_act(self):
        heard = []

        def listen(change):
            heard.append((change, breaker.statistics().state))
            assert not breaker._lock.locked()

        breaker, clock = made(listener=listen)
        trip(breaker)
        clock.now += 60.0
        breaker.acquire().answered()
        breaker.disable()
        breaker.force_open()
        breaker.reset()
        assert [(change.before, change.after) for change, _ in heard] == [
            (CLOSED, OPEN),
            (OPEN, HALF_OPEN),
            (HALF_OPEN, CLOSED),
            (CLOSED, DISABLED),
            (DISABLED, FORCED_OPEN),
            (FORCED_OPEN, CLOSED),
        ]
        assert [change.after for change, _ in heard] == [state for _, state in heard]
        assert [change.epoch for change, _ in heard] == [1, 2, 3, 4, 5, 6]
        assert heard[0][0].retry_after == 60.0
        assert {change.name for change, _ in heard} == {"eu-1"}

    def test_what_it_raises_is_logged_and_nobody_elses_business(self, caplog):
        def listen(change):
            raise ZeroDivisionError

        breaker, _ = made(listener=listen)
        with caplog.at_level(logging.ERROR, logger="holystream"):
            trip(breaker)
        assert breaker.state is OPEN
        assert "listener of the breaker of eu-1" in caplog.text


class TestPolicy:
    """What can be set."""

    def test_the_defaults(self):
        policy = BreakerPolicy()
        assert (policy.failures, policy.open_for, policy.open_cap) == (5, 60.0, 600.0)
        assert (policy.probes, policy.probe_lease, policy.jitter) == (1, 60.0, 0.1)
        assert CircuitBreaker("x").policy == policy
        assert policy.seconds_open(10**6) == 600.0

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"failures": 0}, "failures must be a whole number"),
            ({"failures": True}, "failures must be a whole number"),
            ({"probes": 1.0}, "probes must be a whole number"),
            ({"open_for": 0}, "open_for must be a positive"),
            ({"open_cap": float("inf")}, "open_cap must be a positive"),
            ({"open_cap": 59.0}, r"open_cap \(59 s\) must not be less than"),
            ({"probe_lease": -1}, "probe_lease must be a positive"),
            ({"jitter": 1.1}, "jitter must be from 0 to 1"),
            ({"jitter": True}, "jitter must be from 0 to 1"),
            ({"jitter": float("nan")}, "jitter must be from 0 to 1"),
        ],
    )
    def test_a_wrong_setting_is_named(self, options, complaint):
        with pytest.raises(ConfigurationError, match=complaint):
            BreakerPolicy(**options)

    def test_all_show_what_they_are(self):
        breaker, _ = made()
        assert repr(breaker) == "<CircuitBreaker 'eu-1' closed>"
        assert repr(breaker.acquire()) == "<Ticket 0 of epoch 0>"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12: threads and fork
class TestFork:
    """A child knows what its parent knew, and none of its tickets."""

    def test_an_open_one_is_open_in_the_child_too(self):
        breaker, clock = in_state(OPEN)

        def check():
            refused = breaker.try_acquire() is None
            clock.now += 60.0
            breaker.acquire().answered()
            return refused and breaker.state is CLOSED

        assert in_child(check) == 0
        assert breaker.state is OPEN

    def test_the_parents_tickets_do_not_vote_in_the_child(self):
        breaker, _ = made()
        tickets = [breaker.acquire() for _ in range(5)]

        def check():
            for ticket in tickets:
                ticket.failed(Verdict.NOT_SENT)
            return breaker.state is CLOSED and breaker.statistics().stale == 5

        assert in_child(check) == 0
        for ticket in tickets:
            ticket.failed(Verdict.NOT_SENT)
        assert breaker.state is OPEN

    def test_the_parents_probe_does_not_jam_the_child(self):
        breaker, _ = in_state(HALF_OPEN)
        probe = breaker.acquire()
        assert in_child(lambda: breaker.acquire().valid) == 0
        assert probe.valid

    def test_a_lock_that_a_thread_held_is_free_in_the_child(self):
        breaker, _ = made()
        with breaker._lock:
            assert in_child(lambda: breaker.acquire().valid) == 0


class Strike:
    """Raise KeyboardInterrupt at the n-th line run in breaker.py, as Ctrl-C might.

    Not at a ``with`` itself, where the interpreter looks for no signals, nor in a
    finaliser, which it lets no exception out of.
    """

    def __init__(self, line):
        self.left = line
        self.struck = False
        with open(breaker_module.__file__, encoding="utf-8") as file:  # noqa: PTH123
            self.source = file.readlines()

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self.trace)

    def __exit__(self, *_):
        sys.settrace(self.before)

    def trace(self, frame, event, _):
        code = frame.f_code
        finaliser = "__del__" in (code.co_name, frame.f_back.f_code.co_name)
        if code.co_filename != breaker_module.__file__ or finaliser:
            return None
        if event == "line" and not self.struck:
            text = self.source[frame.f_lineno - 1].strip()
            if not text.startswith("with "):
                if self.left == 0:
                    self.struck = True
                    raise KeyboardInterrupt
                self.left -= 1
        return self.trace


@pytest.mark.parametrize("scene", ["acquire", "answered", "failed", "lost"])
def test_an_interrupt_at_any_line_jams_nothing(scene):
    """Interrupt one run after each line that the breaker executes in it."""
    line = 0
    while interrupted(scene, line):
        line += 1
    assert line > 8


def interrupted(scene, line):
    """Play a scene, interrupted at its n-th line; False if it is shorter."""
    breaker, clock = in_state(OPEN)
    clock.now += 60.0
    probe = None if scene == "acquire" else breaker.acquire()
    strike = Strike(line)
    try:
        with strike:
            if scene == "acquire":
                breaker.acquire().release_later()
            elif scene == "answered":
                probe.answered()
            elif scene == "failed":
                probe.failed(Verdict.NOT_SENT)
            else:
                probe.release_later()
                breaker.statistics()
    except KeyboardInterrupt:
        pass
    del probe
    assert not breaker._lock.locked()
    clock.now += breaker.retry_after
    assert breaker.acquire().valid
    return strike.struck


def test_a_crowd_adds_up():
    breaker, clock = made(BreakerPolicy(open_for=0.001, failures=3, probes=2))
    most, refused = [], []

    def run(seed):
        rng = random.Random(seed)
        for turn in range(200):
            clock.now += 0.0001
            ticket = breaker.try_acquire(f"s{rng.random()}")
            most.append(breaker.statistics().probes)
            if ticket is None:
                refused.append(turn)
                continue
            if rng.random() < 0.3:
                ticket.answered()
            end = rng.choice(["finished", "failed", "failed", "later", "lose"])
            if end == "finished":
                ticket.finished()
            elif end == "failed":
                ticket.failed(rng.choice(list(Verdict)))
            elif end == "later":
                ticket.release_later()
            del ticket

    crowd(run, 12)
    gc.collect()
    now = breaker.statistics()
    assert now.granted + now.refused == 12 * 200
    assert now.refused == len(refused)
    assert now.successes + now.failed + now.ignored + now.stale == now.granted
    assert now.opened > 0
    assert max(most) <= 2
    assert now.probes == 0


class BreakerMachine(RuleBasedStateMachine):
    """The breaker beside a model that keeps lists and looks at nothing twice."""

    def __init__(self):
        super().__init__()
        policy = BreakerPolicy(
            failures=3,
            open_for=10.0,
            open_cap=35.0,
            jitter=0.0,
            probes=2,
            probe_lease=8,
        )
        self.breaker, self.clock = made(policy)
        self.state, self.row, self.openings = CLOSED, [], 0
        self.due = self.answers = 0
        # Tickets that have not ended: [ticket, stream, valid in this state, slot until]
        self.tickets = []

    def enter(self, state):
        self.state, self.row, self.answers = state, [], 0
        for entry in self.tickets:
            entry[2], entry[3] = False, None
        if state is OPEN:
            self.openings += 1
            self.due = self.clock.now + [10, 20, 35][min(self.openings, 3) - 1]

    def slots(self):
        until = [entry[3] for entry in self.tickets if entry[3] is not None]
        return [each for each in until if each > self.clock.now]

    def willing(self):
        if self.state is OPEN:
            return self.clock.now >= self.due
        if self.state is HALF_OPEN:
            return len(self.slots()) + self.answers < 2
        return self.state is not FORCED_OPEN

    @rule(stream=st.sampled_from(["a", "b", "c", "d", "e", None]))
    def acquire(self, stream):
        willing = self.willing()
        if self.state is OPEN and willing:
            self.enter(HALF_OPEN)
        ticket = self.breaker.try_acquire(stream)
        assert (ticket is not None) is willing
        if willing:
            until = self.clock.now + 8 if self.state is HALF_OPEN else None
            self.tickets.append([ticket, stream or object(), True, until])

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), verdict=st.sampled_from(list(Verdict)))
    def fail(self, data, verdict):
        ticket, stream, counts, _ = self.take(data)
        ticket.failed(verdict)
        if counts and VOTES[verdict] is Vote.FAILURE:
            if self.state is HALF_OPEN:
                self.enter(OPEN)
            elif self.state is CLOSED:
                self.row += [stream] if stream not in self.row else []
                if len(self.row) == 3:
                    self.enter(OPEN)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def finish(self, data):
        ticket, _, counts, _ = self.take(data)
        ticket.finished()
        if counts and self.state is HALF_OPEN:
            self.answer()
        elif counts:
            self.row, self.openings = [], 0

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def first_event(self, data):
        entry = self.tickets[self.which(data)]
        entry[0].answered()
        if entry[2] and self.state is HALF_OPEN:
            entry[2] = False
            entry[3] = None
            self.answer()

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def lose(self, data):
        self.take(data)

    @rule(seconds=st.sampled_from([1, 5, 8, 10, 20, 35]))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule(command=st.sampled_from(["force_open", "disable", "reset"]))
    def command(self, command):
        getattr(self.breaker, command)()
        after = {"force_open": FORCED_OPEN, "disable": DISABLED, "reset": CLOSED}
        if self.state is not after[command] or command == "reset":
            self.enter(after[command])
        if command == "reset":
            self.openings = 0

    def take(self, data):
        return self.tickets.pop(self.which(data))

    def which(self, data):
        # A number: hypothesis would keep a ticket, which could not be lost.
        return data.draw(st.integers(0, len(self.tickets) - 1))

    def answer(self):
        self.answers += 1
        if self.answers == 2:
            self.enter(CLOSED)

    @invariant()
    def they_agree(self):
        now = self.breaker.statistics()
        assert now.state is self.state
        assert now.failures == len(self.row)
        assert now.probes == len(self.slots())
        if self.state is OPEN:
            assert now.retry_after == max(0.0, self.due - self.clock.now)
        elif self.state is FORCED_OPEN:
            assert now.retry_after is None
        else:
            assert (now.retry_after == 0.0) is self.willing()


TestAgainstAModel = BreakerMachine.TestCase
TestAgainstAModel.settings = settings(max_examples=150, stateful_step_count=50)
