"""Processes that are killed, and processes that want the same: real ones."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time

import pytest
from journal_events import DAY, REQUEST, Child, numbers, text_events

from holystream.errors import Fenced, StreamBusy
from holystream.journal import JournalState, Outcome
from holystream.journal.sqlite import SQLiteJournal

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]

KILLS = 60


def is_whole(path) -> bool:
    """Whether SQLite finds nothing wrong with its file."""
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        connection.close()


def write_until_killed(path, seed):
    """Return what a child does: take over, write, and tell of each acknowledgement."""

    def work(say):
        draw = random.Random(seed)
        journal = SQLiteJournal(path)
        claim = journal.claim("s")
        say(claim.fence)
        while True:
            events = text_events(claim.next_seq, draw.choice([1, 1, 2, 7, 250]))
            journal.append(claim, events, cursor=str(claim.next_seq).encode())
            say(claim.next_seq - 1)

    return work


@pytest.mark.slow
def test_what_was_acknowledged_survives_a_kill_at_any_moment(path):
    draw = random.Random(20261121)
    journal = SQLiteJournal(path)
    journal.release(journal.create("s", request=REQUEST, ttl=DAY))
    fence = 0
    stored = 0
    for kill in range(KILLS):
        with Child(write_until_killed(path, kill)) as child:
            its_fence = int(child.says.readline())
            assert its_fence > fence
            for _ in range(draw.randrange(8)):
                assert int(child.says.readline()) > stored
            # Not to wait for something: to strike at another place each time.
            end = time.perf_counter() + draw.random() * 0.003
            while time.perf_counter() < end:
                pass
            child.kill()
            acknowledged = max(
                [stored, *(int(line) for line in child.says.read().splitlines())]
            )
        claim = journal.claim("s")
        assert claim.fence > its_fence
        fence = claim.fence
        found = journal.read("s", limit=10**7)
        assert numbers(found.events) == list(range(1, claim.next_seq))
        assert claim.next_seq - 1 >= acknowledged
        saved = journal.meta("s").cursor
        assert saved is None or int(saved) < claim.next_seq
        journal.append(claim, text_events(claim.next_seq, 1))
        stored = claim.next_seq - 1
        journal.release(claim)
    assert stored > 10 * KILLS, "the children hardly wrote: this test saw nothing"
    assert journal._database.path == path
    journal.close()
    assert is_whole(path)
    assert list((path.parent / "journal.db.owners").iterdir()) == []


def test_a_killed_owner_is_dead_at_once(path, on_disk):
    def work(say):
        journal = SQLiteJournal(path)
        claim = journal.create("s", request=REQUEST, ttl=DAY)
        journal.append(claim, text_events(1, 3))
        say(claim.owner)
        os.read(os.pipe()[0], 1)

    with Child(work) as child:
        owner = child.says.readline().strip()
        with pytest.raises(StreamBusy) as caught:
            on_disk.claim("s")
        assert caught.value.owner == owner
        assert on_disk.meta("s").state is JournalState.LIVE
        child.kill()
        assert on_disk.meta("s").state is JournalState.ABANDONED
        claim = on_disk.claim("s")
    on_disk.append(claim, text_events(4, 1))
    assert numbers(on_disk.read("s").events) == [1, 2, 3, 4]


@pytest.mark.parametrize("rivals", [2, 8])
def test_of_those_who_claim_at_once_one_wins(path, on_disk, rivals):
    on_disk.release(on_disk.create("s", request=REQUEST, ttl=DAY))
    fence = 0
    for race in range(6):
        ready, go = os.pipe()

        def compete(say, ready=ready, go=go):
            os.close(go)
            journal = SQLiteJournal(path)
            journal.streams()
            say("ready")
            os.read(ready, 1)
            try:
                claim = journal.claim("s")
            except StreamBusy:
                say("busy")
                return
            journal.append(claim, text_events(claim.next_seq, 2))
            say(claim.fence)
            os.read(os.pipe()[0], 1)

        children = [Child(compete) for _ in range(rivals)]
        for child in children:
            assert child.says.readline() == "ready\n"
        os.close(go)
        os.close(ready)
        results = [child.says.readline().strip() for child in children]
        fences = [int(result) for result in results if result != "busy"]
        assert len(fences) == 1, results
        assert fences[0] > fence
        fence = fences[0]
        stored = 2 * race + 2
        found = on_disk.read("s")
        assert numbers(found.events) == list(range(1, stored + 1))
        for child in children:
            with child:
                pass


def test_an_owner_that_was_taken_for_dead_is_fenced_off(path, on_disk):
    """Its lock file was deleted: by somebody who cleaned up, say."""
    claim = on_disk.create("s", request=REQUEST, ttl=DAY)
    on_disk.append(claim, text_events(1, 2))
    (path.parent / "journal.db.owners" / f"{claim.owner}.lock").unlink()
    with SQLiteJournal(path) as other:
        taken = other.claim("s")
        other.append(taken, text_events(3, 1))
        for count in (0, 1, 5):
            with pytest.raises(Fenced, match="taken over"):
                on_disk.append(claim, text_events(3, count), cursor=b"old")
        with pytest.raises(Fenced):
            on_disk.finish(claim, Outcome.DONE, b"")
        on_disk.release(claim)
        other.append(taken, text_events(4, 1))
        assert numbers(other.read("s").events) == [1, 2, 3, 4]
        assert other.meta("s").cursor is None


def test_two_journals_of_one_process_are_two_owners(path, on_disk):
    with SQLiteJournal(path) as other:
        claim = other.create("s", request=REQUEST, ttl=DAY)
        with pytest.raises(StreamBusy):
            on_disk.claim("s")
        with pytest.raises(Fenced):
            on_disk.append(claim, text_events(1, 1))
    assert on_disk.claim("s").fence > claim.fence


def test_a_journal_that_is_collected_lets_go(path, on_disk):
    other = SQLiteJournal(path)
    claim = other.create("s", request=REQUEST, ttl=DAY)
    with pytest.raises(StreamBusy):
        on_disk.claim("s")
    del other
    assert claim.stream_id == "s"
    on_disk.claim("s")


def test_a_reader_follows_a_writer_of_another_process(path, on_disk):
    def work(say):
        with SQLiteJournal(path) as journal:
            claim = journal.create("s", request=REQUEST, ttl=DAY)
            say("begun")
            for first in range(1, 60, 2):
                journal.append(claim, text_events(first, 2))
            journal.finish(claim, Outcome.DONE, b"")

    with Child(work) as child:
        assert child.says.readline() == "begun\n"
        seen, found = [], None
        while found is None or not found.finished:
            found = on_disk.read("s", after=len(seen), limit=7, wait=50)
            seen += numbers(found.events)
        child.ended()
    assert seen == list(range(1, 61))


@pytest.mark.slow
def test_many_processes_make_one_journal_at_once(path):
    go_reading, go_writing = os.pipe()

    def work(say):
        os.close(go_writing)
        os.read(go_reading, 1)
        with SQLiteJournal(path) as journal:
            claim = journal.create(f"s{os.getpid()}", request=REQUEST, ttl=DAY)
            for first in range(1, 21):
                journal.append(claim, text_events(first, 1))
            journal.finish(claim, Outcome.DONE, b"")

    with contextlib.ExitStack() as family:
        children = [family.enter_context(Child(work)) for _ in range(10)]
        os.close(go_writing)
        os.close(go_reading)
        for child in children:
            assert child.ended() == ""
    with SQLiteJournal(path) as journal:
        assert [info.next_seq for info in journal.streams()] == [21] * 10
    assert is_whole(path)


def test_the_lock_files_of_the_dead_are_swept(path, on_disk):
    def work(say):
        journal = SQLiteJournal(path)
        say(journal.create("s", request=REQUEST, ttl=DAY).fence)
        os.read(os.pipe()[0], 1)

    folder = path.parent / "journal.db.owners"
    ours = on_disk.create("ours", request=REQUEST, ttl=DAY).owner
    with Child(work) as child:
        child.says.readline()
        on_disk.sweep(0.0)
        assert len(list(folder.iterdir())) == 2
        child.kill()
    on_disk.sweep(0.0)
    assert [file.name for file in folder.iterdir()] == [f"{ours}.lock"]
    on_disk.close()
    assert list(folder.iterdir()) == []
