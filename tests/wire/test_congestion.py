"""Who reads next, and how long after its last read: in time that only a test moves."""

from __future__ import annotations

import collections
import itertools
import sys
import traceback

import pytest
from hypothesis import given, strategies as st
from strikes import interrupt, moments

from holystream.wire.congestion import (
    EACH,
    FALL,
    LATE,
    LONGEST_PAUSE,
    OFTEN,
    OVERDUE,
    PATIENCE,
    SELDOM,
    Congestion,
    Turn,
)

FOREVER = 1e6


class Time:
    """Goes on by what is slept, and by what a test says."""

    def __init__(self):
        self.now = 1000.0
        self.lateness = 0.0
        self.sleeps = []

    def __call__(self):
        return self.now

    def hand_over(self):
        self.now += self.lateness

    def sleep(self, lock, seconds):
        assert seconds >= 0
        if lock.acquire(blocking=False):
            return True
        self.sleeps.append(seconds)
        self.now += seconds
        return False


class Left(Exception):
    """What a waiter is struck by."""


def leave(_lock, _seconds):
    raise Left


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def congestion(time):
    return Congestion(time, time.hand_over)


def take(congestion, time, pause=0.0, longest=FOREVER):
    turn = Turn()
    congestion.take_turn(turn, pause, longest, time.sleep)
    return turn


def stand_in_line(congestion):
    """Return a turn whose thread sleeps: whoever passes the baton on counts on it."""
    turn = Turn()
    with pytest.raises(Left):
        congestion.take_turn(turn, 0.0, FOREVER, leave)
    assert turn.waits
    return turn


def line_of(count, congestion, time):
    """Return so many turns, the first of which leads."""
    followers = (stand_in_line(congestion) for _ in range(count - 1))
    return [take(congestion, time), *followers]


def moving(leaders, congestion, time):
    """Return a sleep at whose end the leader passes the baton on."""

    def sleep(lock, seconds):
        time.now += seconds
        congestion.pass_on(leaders.pop(0))
        return lock.acquire(blocking=False)

    return sleep


def is_awake(turn):
    return not turn.lock.locked()


def approx(seconds):
    return pytest.approx(seconds, abs=1e-9)


class TestThePause:
    def test_there_is_none_while_the_interpreter_comes_soon(self, congestion, time):
        time.lateness = LATE - 0.001
        congestion.look()
        assert congestion.pause == congestion.left() == 0.0
        assert congestion.look_at == time.now + SELDOM

    def test_a_late_interpreter_begins_one(self, congestion, time):
        time.lateness = LATE + 0.001
        congestion.look()
        assert congestion.pause == congestion.left() == approx(EACH)
        assert congestion.look_at == time.now + OFTEN

    @pytest.mark.parametrize("waiting", [1, 10, 100])
    def test_all_who_wait_can_be_served_in_it(self, congestion, time, waiting):
        take(congestion, time)
        for _ in range(waiting):
            stand_in_line(congestion)
        time.lateness = 1.0
        congestion.look()
        assert congestion.pause == approx(EACH * (1 + waiting))

    def test_it_has_a_longest(self, congestion, time):
        take(congestion, time)
        for _ in range(1000):
            stand_in_line(congestion)
        time.lateness = 1.0
        congestion.look()
        assert congestion.pause == congestion.left() == LONGEST_PAUSE

    def test_it_falls_by_time_to_nothing(self, congestion, time):
        congestion.pause = 0.05
        time.now += 1.0
        assert congestion.left() == approx(0.05 - FALL)
        congestion.look()
        assert congestion.pause == approx(0.05 - FALL)
        time.now += 1.0
        congestion.look()
        assert congestion.pause == approx(0.05 - 2 * FALL)
        time.now += 3600.0
        assert congestion.left() == 0.0
        congestion.look()
        assert congestion.pause == 0.0

    def test_few_do_not_make_it_shorter_than_it_was(self, congestion, time):
        congestion.pause = 0.03
        time.lateness = LATE + 0.001
        congestion.look()
        assert congestion.pause == approx(0.03 - FALL * time.lateness)

    @given(
        st.lists(
            st.tuples(st.floats(0.0, 0.2), st.floats(0.0, 10.0), st.integers(0, 40)),
            max_size=20,
        )
    )
    def test_it_is_as_long_as_was_seen(self, looks):
        time = Time()
        congestion = Congestion(time, time.hand_over)
        take(congestion, time)
        expected, waiting = 0.0, 0
        for time.lateness, idle, more in looks:
            time.now += idle
            for _ in range(more):
                stand_in_line(congestion)
            waiting += more
            began = time.now
            congestion.look()
            expected = max(0.0, expected - FALL * (idle + time.lateness))
            if time.now - began >= LATE:
                expected = max(expected, min(EACH * (1 + waiting), LONGEST_PAUSE))
            assert congestion.pause == approx(expected)
            assert congestion.left() == approx(expected)
            assert 0.0 <= congestion.pause <= LONGEST_PAUSE

    def test_a_late_turn_makes_it_longer(self, congestion, time):
        leader = take(congestion, time)
        congestion.pause = 0.001
        for _ in range(20):
            stand_in_line(congestion)

        def sleep_long(lock, _seconds):
            time.now = max(time.now, congestion.look_at) + OVERDUE
            congestion.pass_on(leader)
            return lock.acquire(blocking=False)

        last = Turn()
        congestion.take_turn(last, 0.0, FOREVER, sleep_long)
        assert congestion.pause == approx(EACH * (1 + 20))

    def test_a_turn_in_time_does_not(self, congestion, time):
        congestion.pause = 0.01
        time.now += 0.1
        congestion.pass_on(take(congestion, time, pause=0.005))
        assert congestion.pause == approx(0.01 - FALL * 0.105)
        assert congestion.look_at == time.now + OFTEN

    def test_nobody_looks_before_it_is_time(self, congestion, time):
        congestion.look()
        congestion.pause = 0.01
        before = congestion.look_at
        congestion.pass_on(take(congestion, time))
        assert (congestion.pause, congestion.look_at) == (0.01, before)

    def test_the_first_after_a_long_time_ends_it(self, congestion, time):
        congestion.pause = LONGEST_PAUSE
        time.now += 3600.0
        take(congestion, time, pause=congestion.left())
        assert time.sleeps == []
        assert congestion.pause == 0.0

    def test_it_begins_with_none(self, congestion, time):
        take(congestion, time)
        stand_in_line(congestion)
        congestion.pause = 0.01
        time.now += 5.0
        congestion.begin()
        assert (congestion.pause, congestion.leader) == (0.0, None)
        assert congestion.look_at == time.now
        turn = take(congestion, time)
        assert congestion.leader is turn
        congestion.pass_on(turn)
        # Whoever stood in line is not there any more.
        assert congestion.leader is None


class TestTheBaton:
    def test_it_is_free(self, congestion, time):
        turn = take(congestion, time)
        assert congestion.leader is turn
        assert time.sleeps == []
        congestion.pass_on(turn)
        assert congestion.leader is None

    def test_whoever_has_it_waits_until_his_pause_is_over(self, congestion, time):
        take(congestion, time, pause=0.02)
        assert time.sleeps == [approx(0.02)]

    def test_a_pause_that_is_over_is_none(self, congestion, time):
        take(congestion, time, pause=-5.0)
        assert time.sleeps == []

    def test_a_pause_goes_by_in_line(self, congestion, time):
        leader = take(congestion, time)
        turn = Turn()

        def sleep(lock, seconds):
            if congestion.leader is leader:
                time.now += 0.03
                congestion.pass_on(leader)
            return time.sleep(lock, seconds)

        congestion.take_turn(turn, 0.05, FOREVER, sleep)
        assert congestion.leader is turn
        assert time.sleeps == [approx(0.02)]

    def test_it_goes_to_those_in_line_in_their_order(self, congestion, time):
        turns = [take(congestion, time)]
        turns += [stand_in_line(congestion) for _ in range(5)]
        for turn, following in itertools.pairwise(turns):
            assert congestion.leader is turn
            assert not is_awake(following)
            congestion.pass_on(turn)
            assert congestion.leader is following
            assert is_awake(following)
        congestion.pass_on(turns[-1])
        assert congestion.leader is None

    def test_it_goes_to_who_came_as_it_was_put_down(self, congestion, time):
        """He saw it taken, and whoever had it saw nobody in line."""
        came = []

        class Line(collections.deque):
            def popleft(self):
                if self or came:
                    return super().popleft()
                came.append(stand_in_line(congestion))
                raise IndexError

        congestion._line = Line()
        congestion.pass_on(take(congestion, time))
        assert congestion.leader is came[0]
        assert is_awake(came[0])

    def test_it_does_not_go_to_those_who_left(self, congestion, time):
        leader = take(congestion, time)
        first, second, third = [stand_in_line(congestion) for _ in range(3)]
        for left in (first, third):
            congestion.pass_on(left)
        congestion.pass_on(leader)
        assert congestion.leader is second
        assert not is_awake(first)
        congestion.pass_on(second)
        assert congestion.leader is None
        assert not is_awake(third)

    def test_nobody_passes_on_what_he_does_not_have(self, congestion, time):
        leader = take(congestion, time)
        waiting = stand_in_line(congestion)
        congestion.pass_on(Turn())
        assert congestion.leader is leader
        assert not is_awake(waiting)

    def test_it_is_not_waited_for_longer_than_may_be(self, congestion, time):
        leader = take(congestion, time)
        turn = take(congestion, time, longest=0.2)
        assert time.sleeps == [0.2]
        # Others may have patience still.
        assert congestion.leader is leader
        congestion.pass_on(turn)
        congestion.pass_on(leader)
        assert congestion.leader is None

    def test_stopped_in_line_one_goes_without_it(self, congestion, time):
        leader = take(congestion, time)
        turn = Turn()
        congestion.take_turn(turn, 0.0, FOREVER, lambda *_: True)
        assert congestion.leader is leader
        congestion.pass_on(turn)
        congestion.pass_on(leader)
        assert congestion.leader is None

    def test_stopped_while_it_comes_one_passes_it_on(self, congestion, time):
        leader = take(congestion, time)
        turn = Turn()

        def stop(_lock, _seconds):
            congestion.pass_on(leader)
            return True

        congestion.take_turn(turn, 0.0, FOREVER, stop)
        assert congestion.leader is turn
        following = stand_in_line(congestion)
        congestion.pass_on(turn)
        assert congestion.leader is following


class TestALostBaton:
    """It was had by a thread that will not pass it on."""

    def test_it_is_taken_after_some_patience(self, congestion, time):
        take(congestion, time)
        turn = take(congestion, time)
        assert time.sleeps == [PATIENCE]
        assert congestion.leader is turn

    def test_whoever_took_it_passes_it_on(self, congestion, time):
        """Not to the place in line that he had himself."""
        take(congestion, time)
        turn = take(congestion, time)
        following = stand_in_line(congestion)
        congestion.pass_on(turn)
        assert congestion.leader is following
        congestion.pass_on(following)
        assert congestion.leader is None
        time.sleeps.clear()
        take(congestion, time)
        assert time.sleeps == []

    def test_whoever_had_it_has_it_no_more(self, congestion, time):
        slow = take(congestion, time)
        turn = take(congestion, time)
        waiting = stand_in_line(congestion)
        congestion.pass_on(slow)
        assert congestion.leader is turn
        assert not is_awake(waiting)

    def test_those_with_little_time_take_it_in_the_end(self, congestion, time):
        lost = take(congestion, time)
        rounds = 0
        while congestion.leader is lost:
            turn = take(congestion, time, longest=0.3)
            rounds += 1
        assert congestion.leader is turn
        assert time.now - lost.began == approx(rounds * 0.3)
        assert rounds == 4

    def test_a_line_that_moves_is_waited_in(self, congestion, time):
        """However long it is, and nobody goes on without the baton."""
        leaders, begun = line_of(6, congestion, time), time.now
        turn = Turn()
        congestion.take_turn(turn, 0.0, FOREVER, moving(leaders, congestion, time))
        assert congestion.leader is turn
        assert time.now - begun == approx(6 * PATIENCE)

    def test_who_has_no_time_left_leaves_the_line(self, congestion, time):
        leaders, begun = line_of(6, congestion, time), time.now
        sleep = moving(leaders, congestion, time)
        congestion.take_turn(Turn(), 0.0, 2.5 * PATIENCE, sleep)
        assert congestion.leader is leaders[0]
        assert time.now - begun == approx(2.5 * PATIENCE)

    def test_one_of_those_who_wait_takes_it(self, congestion, time):
        take(congestion, time)
        taken = []

        def sleep(lock, seconds):
            # Meanwhile another one comes, and has the same patience.
            if not taken:
                taken.append(take(congestion, time))
            elif congestion.leader is taken[0]:
                congestion.pass_on(taken[0])
            time.now += seconds
            return lock.acquire(blocking=False)

        turn = Turn()
        congestion.take_turn(turn, 0.0, FOREVER, sleep)
        assert congestion.leader is turn


def pass_all_on(congestion):
    """Let each who has the baton pass it on; return them."""
    led = []
    while congestion.leader is not None:
        led.append(congestion.leader)
        congestion.pass_on(led[-1])
    return led


def test_struck_anywhere_the_baton_is_passed_on_or_taken():
    """Struck while it passes it on a thread can do no more; others lose patience."""
    passed_on = taken = 0
    for strike in moments(["congestion.py"]):
        time = Time()
        congestion = Congestion(time, time.hand_over)
        leader = take(congestion, time)
        turn, others = Turn(), []

        def sleep(lock, seconds, line=(congestion, leader, others), time=time):
            congestion, leader, others = line
            # What others do is done by other threads: nothing strikes there.
            trace = sys.gettrace()
            sys.settrace(None)
            if congestion.leader is leader:
                others += [stand_in_line(congestion), stand_in_line(congestion)]
                congestion.pass_on(leader)
            sys.settrace(trace)
            return time.sleep(lock, seconds)

        where = []
        try:
            with strike.by(interrupt):
                try:
                    congestion.take_turn(turn, 0.01, FOREVER, sleep)
                finally:
                    congestion.pass_on(turn)
        except KeyboardInterrupt as error:
            where = [it.name for it in traceback.extract_tb(error.__traceback__)]
        time.sleeps.clear()
        if "pass_on" not in where:
            passed_on += 1
            assert pass_all_on(congestion) in ([leader], others)
            assert all(is_awake(it) for it in others)
        else:
            taken += 1
        last = take(congestion, time)
        assert sum(time.sleeps) <= (PATIENCE if "pass_on" in where else 0.0)
        congestion.pass_on(last)
        assert turn not in pass_all_on(congestion)
        time.sleeps.clear()
        congestion.pass_on(take(congestion, time))
        assert not time.sleeps
    assert passed_on > 10
    assert taken
