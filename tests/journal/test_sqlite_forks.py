"""A journal whose process is forked: both sides go on, and neither is the other."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import signal
import sqlite3
import sys
import threading
import weakref
from pathlib import Path

import pytest
from journal_events import DAY, REQUEST, Child, numbers, text_events
from strikes import Strike, interrupt, moments

from holystream.errors import Fenced, JournalUnavailable, StreamBusy
from holystream.journal import JournalState, MemoryJournal, Outcome, forking
from holystream.journal.forking import Hold, _Hooks
from holystream.journal.sqlite import SQLiteJournal

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
    # Python 3.12 warns of any fork with threads: which is what is tested here.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


def is_whole(path) -> bool:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        connection.close()


def open_here(path) -> list[str]:
    """Which files of the journal this process has open."""
    found = []
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        try:
            name = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115
        except FileNotFoundError:
            continue
        if name.startswith(str(path)):
            found.append(os.path.relpath(name, path.parent))
    return sorted(found)


def test_both_sides_go_on(path, on_disk):
    claim = on_disk.create("parent", request=REQUEST, ttl=DAY)
    on_disk.append(claim, text_events(1, 2))

    def work(say):
        assert numbers(on_disk.read("parent").events)[:2] == [1, 2]
        mine = on_disk.create("child", request=REQUEST, ttl=DAY)
        assert mine.owner != claim.owner
        assert mine.owner.startswith(f"{os.getpid()}-")
        for call in (
            lambda: on_disk.append(claim, text_events(3, 1)),
            lambda: on_disk.finish(claim, Outcome.FAILED, b""),
        ):
            with pytest.raises(Fenced):
                call()
        on_disk.release(claim)
        with pytest.raises(StreamBusy):
            on_disk.claim("parent")
        for first in range(1, 30):
            on_disk.append(mine, text_events(first, 1))
        on_disk.finish(mine, Outcome.DONE, b"")

    with Child(work) as child:
        for first in range(3, 30):
            on_disk.append(claim, text_events(first, 1))
        assert child.ended() == ""
    on_disk.append(claim, text_events(30, 1))
    assert numbers(on_disk.read("parent").events) == list(range(1, 31))
    assert numbers(on_disk.read("child").events) == list(range(1, 30))
    assert is_whole(path)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_a_child_inherits_no_open_file(path, on_disk):
    claim = on_disk.create("s", request=REQUEST, ttl=DAY)
    on_disk.append(claim, text_events(1, 1))
    assert "journal.db" in open_here(path)
    assert f"journal.db.owners/{claim.owner}.lock" in open_here(path)

    def work(say):
        assert open_here(path) == []

    with Child(work) as child:
        assert child.ended() == ""
    assert f"journal.db.owners/{claim.owner}.lock" in open_here(path)


def test_a_child_holds_no_lock_of_a_parent_that_is_killed(path, on_disk):
    """As under gunicorn --preload, whose workers outlive a killed master."""
    keep_reading, keep_writing = os.pipe()

    def parent(say):
        os.close(keep_writing)
        journal = SQLiteJournal(path)
        claim = journal.create("s", request=REQUEST, ttl=DAY)
        journal.append(claim, text_events(1, 2))
        child = os.fork()
        if child == 0:
            say("child")
            os.read(keep_reading, 1)
            os._exit(0)
        say("parent")
        os.read(os.pipe()[0], 1)

    with Child(parent) as process:
        said = {process.says.readline(), process.says.readline()}
        assert said == {"child\n", "parent\n"}
        with pytest.raises(StreamBusy):
            on_disk.claim("s")
        process.kill()
        claim = on_disk.claim("s")
    assert claim.next_seq == 3
    os.close(keep_writing)
    os.close(keep_reading)


def test_a_child_that_ends_lets_go_of_nothing_of_its_parent(path, on_disk):
    claim = on_disk.create("s", request=REQUEST, ttl=DAY)

    def work(say):
        on_disk.close()

    with Child(work) as child:
        child.ended()
    with SQLiteJournal(path) as other:
        with pytest.raises(StreamBusy):
            other.claim("s")
        assert other.meta("s").state is JournalState.LIVE
    on_disk.append(claim, text_events(1, 1))


def test_forks_beside_threads_that_write(path, on_disk):
    claims = [on_disk.create(f"s{n}", request=REQUEST, ttl=DAY) for n in range(4)]
    stop = threading.Event()

    def write(claim):
        while not stop.is_set():
            on_disk.append(claim, text_events(claim.next_seq, 1))

    writers = [threading.Thread(target=write, args=(claim,)) for claim in claims]
    for writer in writers:
        writer.start()

    def work(say):
        claim = on_disk.create(f"child{os.getpid()}", request=REQUEST, ttl=DAY)
        for first in range(1, 6):
            on_disk.append(claim, text_events(first, 1))
        on_disk.finish(claim, Outcome.DONE, b"")

    for _ in range(15):
        with Child(work) as child:
            assert child.ended() == ""
    stop.set()
    for writer in writers:
        writer.join(20)
        assert not writer.is_alive()
    for claim in claims:
        found = on_disk.read(claim.stream_id, limit=10**6)
        assert numbers(found.events) == list(range(1, claim.next_seq))
    ended = on_disk.streams(states=[JournalState.FINISHED])
    assert [info.next_seq for info in ended] == [6] * 15
    assert is_whole(path)


@pytest.mark.skipif(
    not Path("/proc/self").is_dir(), reason="needs the C library's own fork"
)
class TestForkBehindPythonsBack:
    """Some servers fork in C, and none of our hooks is called."""

    def child(self, work) -> bool:
        """Whether some work went well in such a child."""
        pid = ctypes.CDLL(None).fork()
        if pid == 0:
            status = 1
            try:
                work()
                status = 0
            finally:
                os._exit(status)
        return os.waitpid(pid, 0)[1] == 0

    def test_a_journal_that_was_not_used_yet(self, path, on_disk):
        def work():
            claim = on_disk.create("child", request=REQUEST, ttl=DAY)
            on_disk.append(claim, text_events(1, 2))

        assert self.child(work)
        assert numbers(on_disk.read("child").events) == [1, 2]

    def test_one_that_was(self, path, on_disk):
        claim = on_disk.create("s", request=REQUEST, ttl=DAY)

        def work():
            for call in (
                lambda: on_disk.append(claim, text_events(1, 1)),
                lambda: on_disk.create("child", request=REQUEST, ttl=DAY),
                lambda: on_disk.read("s"),
            ):
                with pytest.raises((JournalUnavailable, Fenced)):
                    call()

        assert self.child(work)
        on_disk.append(claim, text_events(1, 1))
        assert numbers(on_disk.read("s").events) == [1]


def test_a_signal_handler_that_forks_in_a_transaction(path, on_disk):
    """It cannot wait for its own thread; the child is told, the parent goes on."""
    claim = on_disk.create("s", request=REQUEST, ttl=DAY)
    said = []

    def work(say):
        with pytest.raises((JournalUnavailable, Fenced)):
            on_disk.append(claim, text_events(1, 1))
        with pytest.raises(JournalUnavailable, match="when this process was forked"):
            on_disk.read("s")

    def fork(*_):
        with Child(work) as child:
            said.append(child.ended())

    def strike(statement):
        if statement.startswith("INSERT"):
            signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, fork)
    try:
        on_disk._database._connection.set_trace_callback(strike)
        on_disk.append(claim, text_events(1, 1))
    finally:
        signal.signal(signal.SIGUSR1, before)
    on_disk._database._connection.set_trace_callback(None)
    on_disk.append(claim, text_events(2, 1))
    assert said == [""]
    assert numbers(on_disk.read("s").events) == [1, 2]


def test_one_in_memory_is_a_copy():
    journal = MemoryJournal()
    claim = journal.create("s", request=REQUEST, ttl=DAY)
    journal.append(claim, text_events(1, 2))

    def work(say):
        assert journal.meta("s").state is JournalState.ABANDONED
        with pytest.raises(Fenced):
            journal.append(claim, text_events(3, 1))
        mine = journal.claim("s")
        journal.append(mine, text_events(3, 5))
        assert numbers(journal.read("s").events) == list(range(1, 8))

    with Child(work) as child:
        assert child.ended() == ""
    journal.append(claim, text_events(3, 1))
    assert numbers(journal.read("s").events) == [1, 2, 3]


@pytest.fixture
def alone(monkeypatch):
    """No journal of another test hears of forks: each would add moments to strike."""
    monkeypatch.setattr(forking._hooks, "_known", weakref.WeakSet())


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_fork_that_is_struck_leaves_no_lock_held(path, kind, monkeypatch):
    """What Python makes of a Ctrl-C within the hooks of a fork: it goes on."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    files = ("forking.py", "holding.py", "database.py", "memory.py")
    for strike in moments(tuple(f"journal/{file}" for file in files)):
        journal = MemoryJournal() if kind == "memory" else SQLiteJournal(path)
        with contextlib.suppress(KeyboardInterrupt), strike.by(interrupt):
            child = os.fork()
            if child == 0:
                os._exit(0)
        os.waitpid(child, 0)
        other = threading.Thread(target=journal.streams, daemon=True)
        other.start()
        other.join(20.0)
        assert not other.is_alive()
        journal.close()


@pytest.mark.slow
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_both_sides_of_a_fork_that_is_struck_can_go_on(tmp_path, kind, monkeypatch):
    """Whichever side's hook a Ctrl-C strikes, and whichever journal's turn it is."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    files = ("forking.py", "holding.py", "database.py", "memory.py")
    made = [
        MemoryJournal() if kind == "memory" else SQLiteJournal(tmp_path / f"{n}.db")
        for n in range(2)
    ]
    for moment in itertools.count():
        strike = Strike(moment, [f"journal/{file}" for file in files])
        name = f"s{moment}"
        claims = [each.create(name, request=REQUEST, ttl=DAY) for each in made]

        def work(say, strike=strike, name=name):
            sys.settrace(None)
            said = []

            def use():
                for journal in made:
                    mine = journal.create(f"child of {name}", request=REQUEST, ttl=DAY)
                    journal.append(mine, text_events(1, 1))
                    journal.release(mine)
                    said.append(journal.meta(name).state)

            # In another thread: it finds what the struck one may still hold.
            user = threading.Thread(target=use, daemon=True)
            user.start()
            user.join(20.0)
            assert len(said) == len(made)
            say(strike.struck)

        with contextlib.suppress(KeyboardInterrupt), strike.by(interrupt):
            child = Child(work)
        struck = "True" in child.ended()
        for journal, claim in zip(made, claims, strict=True):
            journal.append(claim, text_events(1, 1))
            journal.finish(claim, Outcome.DONE, b"")
        if not struck and not strike.struck:
            break
    for journal in made:
        journal.close()
    assert moment > 10


@pytest.mark.usefixtures("alone")
def test_a_signal_handler_that_forks_in_the_midst_of_a_fork(path, on_disk):
    claim = on_disk.create("s", request=REQUEST, ttl=DAY)
    said = []

    def work(say):
        on_disk.release(on_disk.create(f"{os.getpid()}", request=REQUEST, ttl=DAY))

    def fork():
        with Child(work) as child:
            said.append(child.ended())

    for strike in moments(("journal/forking.py",)):
        with strike.by(fork):
            child = Child(work)
            sys.settrace(None)
        said.append(child.ended())
        other = threading.Thread(
            target=on_disk.append, args=(claim, text_events(1, 1)), daemon=True
        )
        other.start()
        other.join(20.0)
        assert not other.is_alive()
    assert said
    assert set(said) == {""}


class Forked:
    """Something that notes what it is told of forks."""

    def __init__(self):
        self.told = []

    def before_fork(self):
        self.told.append("before")

    def after_fork_in_parent(self):
        self.told.append("parent")

    def after_fork_in_child(self):
        self.told.append("child")


def test_a_beginning_that_is_struck_begins_again():
    """In a process of its own, for hooks cannot be taken back."""

    def work(say):
        for strike in moments(("journal/forking.py",)):
            hooks, forked = _Hooks(), Forked()
            with contextlib.suppress(KeyboardInterrupt), strike.by(interrupt):
                hooks.add(forked)
            hooks.add(forked)
            with Child(lambda say, forked=forked: say(forked.told)) as child:
                assert "child" in child.ended()
            assert forked.told.count("before") == forked.told.count("parent") > 1

    with Child(work) as child:
        assert child.ended() == ""


def test_a_lock_that_is_not_to_be_had_is_waited_for_once():
    """Each fork asks for it twice."""
    waits = []

    class Taken:
        def acquire(self, blocking, timeout):
            waits.append(timeout)
            return False

    hold = Hold(Taken(), 30.0)
    assert (hold.take(), hold.take()) == (False, False)
    hold.give_back()
    hold.give_back()
    assert hold.take() is False
    assert waits == [30.0, 0.0, 30.0]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_no_ctrl_c_leaves_a_descriptor_open_as_the_file_is_made(tmp_path):
    for number, strike in enumerate(moments(("journal/database.py",))):
        path = tmp_path / f"{number}.db"
        with contextlib.suppress(KeyboardInterrupt), strike.by(interrupt):
            SQLiteJournal(path).close()
        assert open_here(path) == []
        SQLiteJournal(path).close()
