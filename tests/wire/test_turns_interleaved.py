"""Threads that take turns, in any order of their lines: none waits for a lost baton.

The threads are real, but only one runs at a time, and only until its next line in
congestion.py: then hypothesis says who is next.
"""

from __future__ import annotations

import sys
import threading

from hypothesis import given, settings, strategies as st
from loopback import SOON

from holystream.wire.congestion import PATIENCE, Congestion, Turn

LONG = 30.0


class Actor:
    """A thread that takes a turn, reads, and passes on; told when it may go a line.

    Args:
        stage: Who shares the congestion with it.
        turns: How many it takes.
        leaves: Its waits in line may end by themselves: it was stopped, or lost
            patience.
    """

    def __init__(self, stage, turns, leaves):
        self.stage = stage
        self.leaves = leaves
        self.asleep_on = None
        self.done = False
        self._turns = turns
        self._go = threading.Semaphore(0)
        self._waits = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        assert self._go.acquire(timeout=SOON)
        sys.settrace(self._trace)
        for _ in range(self._turns):
            turn = Turn()
            try:
                self.stage.congestion.take_turn(turn, 0.01, LONG, self._sleep)
            finally:
                self.stage.congestion.pass_on(turn)
        sys.settrace(None)
        self.done = True
        self._waits.release()

    def _trace(self, frame, event, _):
        if not frame.f_code.co_filename.endswith("congestion.py"):
            return None
        if event == "line":
            self._pause()
        return self._trace

    def _pause(self):
        self._waits.release()
        assert self._go.acquire(timeout=SOON)

    def _sleep(self, lock, seconds):
        if seconds < PATIENCE:
            return False
        self.asleep_on = lock
        self._pause()
        self.asleep_on = None
        if lock.acquire(blocking=False):
            return True
        # It was let go on though nobody woke it.
        self.stage.now += seconds
        return self.leaves == "stopped"

    def may_go_on(self):
        if self.done:
            return False
        return self.asleep_on is None or self.leaves or not self.asleep_on.locked()

    def go_on(self):
        self._go.release()
        assert self._waits.acquire(timeout=SOON)

    def end(self):
        self._thread.join(SOON)
        assert not self._thread.is_alive()


class Stage:
    """Where actors take turns, a line of code at a time.

    Args:
        actors: Of each, how many turns it takes, and how it leaves.
        order: Who of those that can is the next to go on, and for how many lines; then
            each to its end.
    """

    def __init__(self, actors, order):
        self.now = 0.0
        self.congestion = Congestion(lambda: self.now, lambda: None)
        self._actors = [Actor(self, *actor) for actor in actors]
        self._order = iter(order)

    def play(self):
        while ready := [it for it in self._actors if it.may_go_on()]:
            who, lines = next(self._order, (0, sys.maxsize))
            actor = ready[who % len(ready)]
            while lines and actor.may_go_on():
                actor.go_on()
                lines -= 1
        stuck = [it for it in self._actors if not it.done]
        for actor in stuck:
            # So that no thread is left behind.
            actor.leaves = "stopped"
            while not actor.done:
                actor.go_on()
        for actor in self._actors:
            actor.end()
        return len(stuck)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 3), st.sampled_from([None, None, "stopped", "impatient"])
        ),
        min_size=2,
        max_size=4,
    ),
    st.lists(st.tuples(st.integers(0, 11), st.integers(1, 20)), max_size=40),
)
@settings(max_examples=500)
def test_nobody_waits_for_a_lost_baton(actors, order):
    stage = Stage(actors, order)
    assert stage.play() == 0
    assert stage.congestion.leader is None
    # It is free, and those who left are forgotten with it.
    assert not stage.congestion._line
