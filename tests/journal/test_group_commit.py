"""Many threads, few transactions; and nobody is left waiting, whoever is struck."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import sys
import threading
import time

import pytest
from journal_events import DAY, REQUEST, numbers, text_events

from holystream.errors import (
    Fenced,
    JournalError,
    JournalUnavailable,
    StreamUnknown,
)
from holystream.journal import JournalState
from holystream.journal.commits import Write
from holystream.journal.sqlite import SQLiteJournal

SOON = 20.0
STRIKES = 200


def until(condition):
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.001)


@contextlib.contextmanager
def locked_by_another(path):
    """Hold the database's write lock, as another process would."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield other
    finally:
        if other.in_transaction:
            other.execute("ROLLBACK")
        other.close()


class Writer(threading.Thread):
    """Appends in a thread; its error is kept."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work = work
        self.error = None
        self.start()

    def run(self):
        try:
            self.work()
        except BaseException as error:  # noqa: BLE001 - `ended` returns it
            self.error = error

    def ended(self):
        self.join(SOON)
        assert not self.is_alive(), "it still waits"
        return self.error


def queued(journal):
    return len(journal._commits._queue)


def commits_of(journal):
    """The transactions of a journal's connection from now on."""
    seen = []
    journal._database._connection.set_trace_callback(
        lambda statement: seen.append(statement) if statement == "COMMIT" else None
    )
    return seen


def test_those_who_wait_are_committed_together(path, on_disk):
    claims = [on_disk.create(f"s{n}", request=REQUEST, ttl=DAY) for n in range(30)]
    commits = commits_of(on_disk)
    with locked_by_another(path):
        writers = [
            Writer(lambda claim=claim: on_disk.append(claim, text_events(1, 3)))
            for claim in claims
        ]
        until(lambda: queued(on_disk) == 30)
    assert [writer.ended() for writer in writers] == [None] * 30
    assert len(commits) == 1
    for claim in claims:
        assert claim.next_seq == 4
        assert numbers(on_disk.read(claim.stream_id).events) == [1, 2, 3]


def test_one_alone_does_not_wait_for_others(on_disk):
    claim = on_disk.create("s", request=REQUEST, ttl=DAY)
    commits = commits_of(on_disk)
    for first in range(1, 11):
        on_disk.append(claim, text_events(first, 1))
    assert len(commits) == 10


def test_each_gets_the_answer_to_its_own(path, on_disk):
    """One of them is fenced off, one is of a deleted stream: the others are stored."""
    claims = [on_disk.create(f"s{n}", request=REQUEST, ttl=DAY) for n in range(9)]
    on_disk.release(claims[3])
    on_disk.claim("s3")
    on_disk.delete("s5")
    with locked_by_another(path):
        writers = [
            Writer(lambda claim=claim: on_disk.append(claim, text_events(1, 1)))
            for claim in claims
        ]
        until(lambda: queued(on_disk) == 9)
    errors = [type(writer.ended()) for writer in writers]
    wanted = [type(None)] * 9
    wanted[3], wanted[5] = Fenced, StreamUnknown
    assert errors == wanted
    stored = [info.stream_id for info in on_disk.streams() if info.next_seq == 2]
    assert len(stored) == 7


def test_a_lock_that_is_held_too_long(path, on_disk):
    """Each of those who wait is told, nothing is stored, and all can go on."""
    with SQLiteJournal(path, busy_timeout=0.05) as hasty:
        claims = [hasty.create(f"s{n}", request=REQUEST, ttl=DAY) for n in range(8)]
        with locked_by_another(path):
            writers = [
                Writer(lambda claim=claim: hasty.append(claim, text_events(1, 1)))
                for claim in claims
            ]
            errors = [writer.ended() for writer in writers]
            assert hasty.read("s0").events == ()
        assert [type(error) for error in errors] == [JournalUnavailable] * 8
        assert len({id(error) for error in errors}) == 8
        assert "another process held its lock for more than 0.05 s" in str(errors[0])
        for claim in claims:
            hasty.append(claim, text_events(1, 1))
            assert numbers(hasty.read(claim.stream_id).events) == [1]


def test_one_that_cannot_be_stored_does_not_spoil_the_others(path, on_disk):
    """The disk has room for the small ones only."""
    claims = [on_disk.create(f"s{n}", request=REQUEST, ttl=DAY) for n in range(5)]
    connection = on_disk._database._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 8}")
    with locked_by_another(path):
        writers = [
            Writer(
                lambda claim=claim, n=n: on_disk.append(
                    claim, text_events(1, 50_000 if n == 2 else 1)
                )
            )
            for n, claim in enumerate(claims)
        ]
        until(lambda: queued(on_disk) == 5)
    errors = [writer.ended() for writer in writers]
    assert [error is None for error in errors] == [True, True, False, True, True]
    assert isinstance(errors[2], JournalUnavailable)
    assert "its disk is full: make room" in str(errors[2])
    assert claims[2].next_seq == 1
    connection.execute(f"PRAGMA max_page_count = {2**30}")
    on_disk.append(claims[2], text_events(1, 1))
    for claim in claims:
        assert numbers(on_disk.read(claim.stream_id).events) == [1]


class Struck(BaseException):
    """A Ctrl-C at a moment of our choice."""


def striking_at(moment):
    """Return a profile function that strikes where a signal handler could run.

    Python runs signal handlers when a function is entered, and after calls.
    """
    met = 0

    def profile(frame, event, argument):
        nonlocal met
        if "/holystream/journal/" not in frame.f_code.co_filename:
            return
        if event in ("call", "c_return"):
            met += 1
            if met == moment:
                sys.setprofile(None)
                raise Struck

    return profile


def strike_a_leader(journal, moment) -> bool:
    """Append while another waits behind us; return whether we were struck."""
    ours = journal.create("ours", request=REQUEST, ttl=DAY)
    theirs = journal.create("theirs", request=REQUEST, ttl=DAY)
    struck = False
    go = threading.Event()

    def follow():
        # Behind us, or alone where we were struck before we came into the queue.
        until(lambda: queued(journal) == 1 or go.is_set())
        journal.append(theirs, text_events(1, 2))

    def unlock():
        until(lambda: queued(journal) == 2 or go.is_set())
        other.execute("ROLLBACK")

    with locked_by_another(journal._database.path) as other:
        follower, opener = Writer(follow), Writer(unlock)
        sys.setprofile(striking_at(moment))
        try:
            journal.append(ours, text_events(1, 2))
        except Struck:
            struck = True
        finally:
            sys.setprofile(None)
            go.set()
        assert follower.ended() is None
        assert opener.ended() is None
    assert numbers(journal.read("theirs").events) == [1, 2]
    assert theirs.next_seq == 3
    found = numbers(journal.read("ours").events)
    assert found in ([], [1, 2])
    # The claim is in step with what is stored, so its owner may go on.
    assert ours.next_seq == len(found) + 1
    journal.append(ours, text_events(ours.next_seq, 1))
    journal.delete("ours")
    journal.delete("theirs")
    return struck


def test_one_who_is_struck_anywhere_locks_nobody_out(path, on_disk):
    """No transaction is left open: others can write, at once."""
    claim = on_disk.create("s", request=REQUEST, ttl=DAY)
    moment, struck = 0, True
    other = sqlite3.connect(path, isolation_level=None, timeout=0)
    while struck:
        moment += 1
        sys.setprofile(striking_at(moment))
        try:
            on_disk.append(claim, text_events(claim.next_seq, 1))
            struck = False
        except Struck:
            pass
        finally:
            sys.setprofile(None)
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    other.close()
    assert moment > 20, "hardly any place was struck: this test saw nothing"
    found = numbers(on_disk.read("s").events)
    assert found == list(range(1, claim.next_seq))


@pytest.mark.slow
def test_a_leader_that_is_struck_anywhere_leaves_nobody_waiting(on_disk):
    """At every call within it, while another thread's events are queued behind it."""
    moment = 1
    while strike_a_leader(on_disk, moment):
        moment += 1
    assert moment > 20, "hardly any place was struck: this test saw nothing"


class Striker:
    """Sends the main thread a signal, a little after it was armed, time and again.

    Without a lock: the signal may come while the main thread arms it.
    """

    def __init__(self):
        self.armed = self.stopped = False

    def handle(self, *_):
        if self.armed:
            self.armed = False
            raise Struck

    def run(self):
        draw = random.Random(4711)
        while not self.stopped:
            # Not to wait for something: to strike at another place each time.
            time.sleep(draw.random() * 0.001)
            if self.armed:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR2)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals")
def test_signals_at_random_moments(path, on_disk):
    """The main thread is struck again and again, beside others that write."""
    striker = Striker()
    claims = [on_disk.create(f"s{n}", request=REQUEST, ttl=DAY) for n in range(3)]

    def write(claim):
        while not striker.stopped:
            on_disk.append(claim, text_events(claim.next_seq, 1))

    threads = [Writer(lambda claim=claim: write(claim)) for claim in claims]
    mine = on_disk.create("mine", request=REQUEST, ttl=DAY)
    before = signal.signal(signal.SIGUSR2, striker.handle)
    threads.append(Writer(striker.run))
    try:
        for _ in range(STRIKES):
            with contextlib.suppress(Struck):
                striker.armed = True
                while True:
                    on_disk.append(mine, text_events(mine.next_seq, 1))
    finally:
        striker.armed, striker.stopped = False, True
        threads[-1].join(SOON)
        signal.signal(signal.SIGUSR2, before)
    assert [thread.ended() for thread in threads] == [None] * 4
    for claim in [*claims, mine]:
        found = numbers(on_disk.read(claim.stream_id, limit=10**6).events)
        assert found == list(range(1, claim.next_seq))
    on_disk.append(mine, text_events(mine.next_seq, 1))


def test_a_follower_that_is_struck_leaves_the_queue(path, on_disk):
    """It is in the main thread, and a real signal ends its wait."""
    claims = [on_disk.create(f"s{n}", request=REQUEST, ttl=DAY) for n in range(2)]
    heard = threading.Event()

    def handler(*_):
        if not heard.is_set():
            heard.set()
            raise Struck

    def strike():
        until(lambda: queued(on_disk) == 2)
        # One that comes just before the wait begins is not heard.
        while not heard.is_set():
            os.kill(os.getpid(), signal.SIGUSR2)
            heard.wait(0.01)

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        with locked_by_another(path):
            leader = Writer(lambda: on_disk.append(claims[0], text_events(1, 1)))
            until(lambda: queued(on_disk) == 1)
            striker = Writer(strike)
            with pytest.raises(Struck):
                on_disk.append(claims[1], text_events(1, 1))
            assert striker.ended() is None
            assert queued(on_disk) == 1
        assert leader.ended() is None
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert on_disk.read("s1").events == ()
    on_disk.append(claims[1], text_events(1, 1))
    assert numbers(on_disk.read("s1").events) == [1]


def test_closing_answers_those_who_wait(path, on_disk):
    claims = [on_disk.create(f"s{n}", request=REQUEST, ttl=DAY) for n in range(5)]
    with locked_by_another(path):
        writers = [
            Writer(lambda claim=claim: on_disk.append(claim, text_events(1, 1)))
            for claim in claims
        ]
        until(lambda: queued(on_disk) == 5)
        closer = Writer(on_disk.close)
    assert closer.ended() is None
    with SQLiteJournal(path) as again:
        for claim, writer in zip(claims, writers, strict=True):
            error = writer.ended()
            assert error is None or isinstance(error, JournalError)
            stored = numbers(again.read(claim.stream_id).events)
            assert stored == ([1] if error is None else [])
            assert again.meta(claim.stream_id).state is JournalState.ABANDONED


def test_only_its_own_call_makes_a_thread_a_handler(on_disk):
    commits = on_disk._commits
    followed, led = Write(lambda _: None), Write(lambda _: None)
    led.thread += 1
    commits._queue, commits._leader = [led, followed], led
    assert commits.struck
    # Its thread is gone on, and its leader has yet to take it out of the queue.
    followed.settle(None)
    assert not commits.struck
    led.thread -= 1
    assert commits.struck
    commits._queue, commits._leader = [], None
    assert not commits.struck
