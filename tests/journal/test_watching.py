"""Readers that wait: what comes at the wrong moment is not missed."""

from __future__ import annotations

import itertools
import threading

from holystream.clocks import CancelToken
from holystream.journal import Entries
from holystream.journal.watching import Watcher, Watchers, growing_pauses

NOTHING = Entries(events=(), next_seq=1, finished=False)
SOMETHING = Entries(events=(), next_seq=1, finished=True)
FOREVER = 50.0


def follow(watchers, look, **named):
    """Follow in a thread that must come to its end soon; return what it found."""
    found = []
    thread = threading.Thread(
        target=lambda: found.append(
            watchers.follow(look, "s", wait=FOREVER, **{"cancel": None, **named})
        ),
        daemon=True,
    )
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits for what has come"
    return found[0]


def test_what_comes_between_the_look_and_the_wait():
    watchers, looks = Watchers(), []

    def look():
        looks.append(1)
        if len(looks) > 1:
            return SOMETHING
        watchers.wake(["s"])  # nobody is registered yet
        return NOTHING

    assert follow(watchers, look) == SOMETHING


def test_what_comes_between_the_second_look_and_the_wait():
    watchers, looks = Watchers(), []

    def look():
        looks.append(1)
        if len(looks) > 2:
            return SOMETHING
        watchers.wake(["s"])
        return NOTHING

    assert follow(watchers, look) == SOMETHING


def test_a_cancel_that_came_before():
    cancel = CancelToken()
    cancel.cancel()
    assert follow(Watchers(), lambda: NOTHING, cancel=cancel) == NOTHING


def test_others_are_asked_again_and_again():
    asked = []

    def changed():
        asked.append(1)
        return len(asked) == 5

    def look():
        return SOMETHING if len(asked) == 5 else NOTHING

    pauses = itertools.repeat(0.001)
    found = follow(Watchers(), look, pauses=pauses, changed=changed)
    assert (found, len(asked)) == (SOMETHING, 5)


def test_waking_another_stream_wakes_nobody():
    watchers = Watchers()
    watchers._waiting["s"] = [watcher := Watcher()]
    watchers.wake(["t"])
    assert not watcher.wait(0)
    watchers.wake(["t", "s", "s"])
    assert watcher.wait(0)
    assert not watcher.wait(0)


def test_pauses_grow_to_a_twentieth_of_a_second():
    pauses = list(itertools.islice(growing_pauses(), 1000))
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.001, 0.05)
    assert sum(pauses[:6]) < 0.025
