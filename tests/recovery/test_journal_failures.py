"""A journal that fails while a stream runs: nothing is handed over that was not stored.

Unless the caller wants the stream more than its recording: then it goes on, and the log
says so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sqlite3
import threading

import pytest
from jobs import KEY, client_for
from nursery import PATIENCE
from strikes import moments

from holystream import (
    Client,
    Fenced,
    Finished,
    Guarantee,
    InvalidRequest,
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
    JournalVersion,
    StreamBusy,
    StreamCancelled,
    StreamState,
    StreamUnknown,
    TextDelta,
)
from holystream.journal import JournalState, MemoryJournal, Outcome
from holystream.journal.sqlite import SQLiteJournal
from holystream.simulator import Script
from holystream.telemetry import StreamRecord

QUESTION = "How does an answer arrive?"
GREEDY = {"temperature": 0}
FIRST = 9
"""Pieces of the text that the server sends before it waits."""


def answer(sim):
    messages = [{"role": "user", "content": QUESTION}]
    return sim.answer({"model": "sim", "messages": messages, **GREEDY})


def whole(sim):
    return answer(sim).text


def stored(journal, stream_id="s"):
    return "".join(map(str, journal.read(stream_id, limit=10**6).events))


def begin(client, **options):
    options = {"stream_id": "s", **GREEDY, **options}
    return client.stream(QUESTION, **options)


@pytest.fixture
def first(sim, gate):
    """Read the first pieces of a stream; the others wait at the gate."""

    def read(stream):
        sim.play(Script(gate=gate))
        gate.release(1 + FIRST)
        begun = "".join(answer(sim).deltas[:FIRST])
        text = ""
        while text != begun:
            text += str(next(stream))
        return text

    return read


@pytest.fixture
def rest(gate):
    """Let everything else come."""
    return lambda: gate.release(10**4)


def fill(journal):
    """Let its disk be full; return what makes room again."""
    connection = journal._database.connection()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    claim = None
    with contextlib.suppress(JournalUnavailable):
        for number in range(10**4):
            claim = journal.create(f"filler-{number}", request=b"x", ttl=60.0)
    with contextlib.suppress(JournalUnavailable):
        while claim is not None:
            journal.append(claim, [TextDelta("x", 0)])

    def make_room():
        connection.execute(f"PRAGMA max_page_count = {2**30}")

    return make_room


@contextlib.contextmanager
def locked(path):
    """Another program that does not let go of the database."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


def fail_full(journal, path, stack):
    return fill(journal)


def fail_locked(journal, path, stack):
    holder = contextlib.ExitStack()
    holder.enter_context(locked(path))
    stack.callback(holder.close)
    return holder.close


FAILURES = {"full": (fail_full, "disk is full"), "locked": (fail_locked, "its lock")}


@pytest.fixture
def journal(path):
    with SQLiteJournal(path, busy_timeout=0.05) as made:
        yield made


@pytest.fixture(params=FAILURES)
def failure(request, journal, path):
    """What lets the journal fail, and what it will say."""
    fail, words = FAILURES[request.param]
    with contextlib.ExitStack() as stack:
        yield lambda: fail(journal, path, stack), words


class TestStrict:
    def test_it_ends_where_the_recording_does(  # noqa: PLR0917 - fixtures
        self, sim, client, journal, failure, first, rest
    ):
        fail, words = failure
        with begin(client) as stream:
            text = first(stream)
            mend = fail()
            rest()
            pieces = []
            with pytest.raises(JournalUnavailable, match=words) as caught:
                pieces.extend(map(str, stream))
        text += "".join(pieces)
        assert text == stored(journal), "what was handed over was stored"
        assert len(text) < len(whole(sim))
        kept = f"Of stream 's' {len(text)} characters are recorded"
        assert kept in str(caught.value)
        assert text[:20] not in repr(caught.value)
        assert client.pool.statistics().in_use == 0
        mend()
        # In this very process, whose claim could not be given back at the time.
        with client.resume("s", after=len(text)) as stream:
            assert text + "".join(stream.text_stream) == whole(sim)
        assert stored(journal) == whole(sim)
        assert journal.meta("s").outcome is Outcome.DONE

    def test_nothing_is_sent_that_cannot_be_recorded(self, sim, client, failure):
        fail, words = failure
        mend = fail()
        stream = begin(client)
        with pytest.raises(JournalUnavailable, match=rf"{words}.* Nothing was sent"):
            stream.open()
        assert sim.connections == 0
        mend()
        begin(client, stream_id="t").until_done()

    def test_reading_on_does_not_go_on(self, client, failure, first, rest):
        fail, _ = failure
        with begin(client) as stream:
            first(stream)
            fail()
            rest()
            for _ in range(3):
                with pytest.raises(JournalUnavailable, match="Of stream 's'"):
                    stream.until_done()

    def test_a_journal_that_was_closed(  # noqa: PLR0917 - fixtures
        self, sim, client, journal, path, first, rest
    ):
        with begin(client) as stream:
            text = first(stream)
            journal.close()
            rest()
            pieces = []
            with pytest.raises(JournalUnavailable, match="was closed"):
                pieces.extend(map(str, stream))
        text += "".join(pieces)
        with SQLiteJournal(path) as again:
            assert stored(again) == text
            with client.resume("s", after=len(text), journal=again) as stream:
                assert text + "".join(stream.text_stream) == whole(sim)

    def test_one_that_fails_at_the_very_end_hands_the_text_over(
        self, sim, client, journal, monkeypatch, caplog
    ):
        def fail(*_):
            raise JournalUnavailable("no")

        with monkeypatch.context() as patched:
            patched.setattr(journal, "finish", fail)
            assert begin(client).get_final_text() == whole(sim)
        assert "the end of a stream was not recorded: no" in caplog.text
        assert journal.meta("s").state is JournalState.ABANDONED
        assert client.resume("s").get_final_text() == whole(sim)
        assert journal.meta("s").outcome is Outcome.DONE

    def test_one_that_fails_with_the_last_events_has_failed_for_all(self, sim, connect):
        class Full(MemoryJournal):
            """One that has room for everything but the end."""

            def append(self, claim, events, *, cursor=None):
                if any(isinstance(event, Finished) for event in events):
                    raise JournalUnavailable("no room")
                super().append(claim, events, cursor=cursor)

        journal = Full()
        client = connect(journal=journal)
        records = []
        client.telemetry.add_hook(records.append)
        told = []
        with (
            begin(client) as stream,
            pytest.raises(JournalUnavailable, match=r"is in the stream's completion"),
        ):
            told.extend(stream)
        assert "".join(map(str, told)) == stored(journal)
        assert stream.state is StreamState.CLOSED
        assert stream.completion.text == whole(sim), "it was paid for"
        (record,) = [each for each in records if isinstance(each, StreamRecord)]
        assert (record.outcome, record.error_type) == ("error", "JournalUnavailable")
        streams = client.metrics().streams.streams
        assert (streams["done"], streams["error"]) == (0, 1)
        assert journal.meta("s").state is JournalState.ABANDONED

    def test_streams_that_fail_together_have_each_its_own_error(self, connect):
        class Failing(MemoryJournal):
            """As a transaction that many streams share: with one error for all."""

            error = JournalUnavailable("no room")

            def append(self, *_, **__):
                raise self.error

        client = connect(journal=Failing())
        told = []
        for stream_id in ("one", "other"):
            with pytest.raises(JournalUnavailable) as caught:
                begin(client, stream_id=stream_id).until_done()
            told.append(str(caught.value))
        for stream_id, words in zip(("one", "other"), told, strict=True):
            assert words.startswith(f"no room. Of stream '{stream_id}' 0 characters")
            assert words.count("Of stream") == 1

    def test_a_lock_is_not_waited_for_again_and_again(self, connect):
        class Locked(MemoryJournal):
            tries = 0

            def append(self, *_, **__):
                raise JournalUnavailable("locked")

            def release(self, claim):
                self.tries += 1
                raise JournalUnavailable("locked")

        journal = Locked()
        client = connect(journal=journal)
        with begin(client) as stream, pytest.raises(JournalUnavailable):
            stream.until_done()
        stream.close()
        assert journal.tries == 1
        client.close()
        assert journal.tries == 2


class TestBestEffort:
    @pytest.fixture
    def client(self, connect):
        return connect(journal_best_effort=True)

    def test_it_goes_on_and_says_so(  # noqa: PLR0917 - fixtures
        self, sim, client, journal, failure, caplog, first, rest
    ):
        fail, words = failure
        with begin(client) as stream:
            text = first(stream)
            mend = fail()
            rest()
            for event in stream:
                text += str(event)
            assert text == stream.completion.text == whole(sim)
            (warning,) = [
                record for record in caplog.records if "without its" in record.message
            ]
            assert words in warning.message
            assert (warning.name, warning.levelno) == ("holystream", logging.WARNING)
            for record in caplog.records:
                assert text[:20] not in record.getMessage()
        mend()
        kept = stored(journal)
        assert whole(sim).startswith(kept)
        assert len(kept) < len(text)
        # What the caller has is more than the journal: his text counts.
        with pytest.raises(InvalidRequest, match="partial_text="):
            client.resume("s", after=len(text))
        with client.resume("s", partial_text=text) as stream:
            assert "".join(stream.text_stream) == ""
        assert stream.completion.guarantee is Guarantee.REPLAYED
        assert stored(journal) == whole(sim)

    def test_nobody_else_goes_on_with_it_meanwhile(
        self, client, journal, gate, first, caplog
    ):
        with begin(client) as stream:
            first(stream)
            mend = fill(journal)
            gate.release(5)
            while "without its journal" not in caplog.text:
                next(stream)
            mend()
            with pytest.raises(StreamBusy):
                client.resume("s")
        client.resume("s").close()

    def test_one_that_was_never_recorded(self, sim, client, journal, failure, caplog):
        fail, words = failure
        mend = fail()
        assert begin(client).get_final_text() == whole(sim)
        assert words in caplog.text
        mend()
        assert journal.meta("s") is None

    def test_a_stream_that_was_deleted(  # noqa: PLR0917 - fixtures
        self, sim, client, journal, first, rest, caplog
    ):
        with begin(client) as stream:
            first(stream)
            journal.delete("s")
            rest()
            assert stream.until_done().completion.text == whole(sim)
        assert "without its journal" in caplog.text
        with pytest.raises(StreamUnknown):
            client.resume("s")

    def test_a_cancel_is_for_good_all_the_same(
        self, client, journal, gate, first, caplog
    ):
        with begin(client) as stream:
            first(stream)
            mend = fill(journal)
            gate.release(5)
            while "without its journal" not in caplog.text:
                next(stream)
            mend()
            stream.cancel()
        assert journal.meta("s").outcome is Outcome.CANCELLED
        with pytest.raises(StreamCancelled):
            client.resume("s").until_done()


class TestOpening:
    """What is wrong with a file is told when the client is made, before any stream."""

    def refused(self, path, kind, words, **options):
        for best_effort in (False, True):
            with pytest.raises(kind, match=words):
                Client(
                    KEY,
                    base_url="http://127.0.0.1:9/v1",
                    journal=path,
                    journal_best_effort=best_effort,
                )

    def test_a_place_where_nothing_can_be_written(self, tmp_path):
        self.refused("/proc/self/streams.db", JournalUnavailable, "look at the path")
        nowhere = tmp_path / "no" / "streams.db"
        self.refused(nowhere, JournalUnavailable, "look at the path")

    def test_a_newer_version(self, path):
        SQLiteJournal(path).close()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
        self.refused(path, JournalVersion, "newer holystream")

    def test_another_programs_database(self, path):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE bookmarks (url TEXT)")
            connection.commit()
        self.refused(path, JournalCorrupt, "something else")

    def test_another_programs_file(self, path):
        path.write_bytes(b"%PDF-1.4 " + b"x" * 8192)
        self.refused(path, JournalCorrupt, "damaged, or no journal")


def test_damage_is_told_before_anything_is_sent(sim, client, journal, path, first):
    with begin(client) as stream:
        first(stream)
    journal.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("UPDATE batches SET events = x'00112233'")
        connection.commit()
    asked = len(sim.requests)
    with SQLiteJournal(path) as damaged:
        with pytest.raises(JournalCorrupt):
            client.resume("s", journal=damaged)
        assert damaged.meta("s").state is JournalState.ABANDONED
    assert len(sim.requests) == asked


def test_torn_pages_are_told(client, journal, path):
    with begin(client) as stream:
        stream.until_done()
    journal.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    data = bytearray(path.read_bytes())
    for start in range(size, len(data), size):
        data[start : start + 64] = b"\xa5" * 64
    path.write_bytes(data)
    with pytest.raises(JournalError), client_for("http://127.0.0.1:9/v1") as other:
        other.resume("s", journal=path)


class TestTakenOver:
    """An owner that lives and was taken for dead, as by a cleaner of lock files."""

    def bury(self, path):
        for lock in path.with_name(path.name + ".owners").iterdir():
            lock.unlink()

    def test_the_old_one_is_stopped_and_doubles_nothing(  # noqa: PLR0917 - fixtures
        self, sim, nursery, client, journal, path, gate, rest
    ):
        sim.play(Script(gate=gate))
        gate.release(1 + FIRST)
        child = nursery.start(
            "stream",
            client={
                "base_url": sim.base_url,
                "journal": str(path),
                "journal_best_effort": True,
            },
            prompt=QUESTION,
            stream_id="s",
            **GREEDY,
        )
        # It is stopped while it waits for more: amid a commit it would keep the lock.
        assert child.printed(len("".join(answer(sim).deltas[:FIRST]).encode()))
        child.signal(signal.SIGSTOP)
        with pytest.raises(StreamBusy):
            client.resume("s")
        self.bury(path)
        with client.resume("s") as stream:
            ours = stream.get_final_text()
        child.signal(signal.SIGCONT)
        rest()
        status = child.wait()
        assert ours == whole(sim)
        assert (status, child.text.rpartition("\n!")[2]) in {
            (3, "Fenced"),
            (3, "StreamFinished"),
        }
        assert whole(sim).startswith(child.text.rpartition("\n!")[0])
        assert stored(journal) == whole(sim)
        offset = 0
        for event in journal.read("s").events:
            if isinstance(event, TextDelta):
                assert event.offset == offset
                offset += len(event.text)

    @pytest.mark.parametrize("best_effort", [False, True])
    def test_in_the_midst_of_both(self, connect, path, best_effort, first, rest):
        old = connect(journal_best_effort=best_effort)
        with begin(old) as one:
            first(one)
            self.bury(path)
            with SQLiteJournal(path) as other, old.resume("s", journal=other) as two:
                next(two.text_stream)
                rest()
                with pytest.raises(Fenced):
                    one.until_done()
                two.until_done()
                assert stored(other) == two.completion.text


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_does_not_write_its_parents_stream(
    sim, client, journal, first, rest
):
    with begin(client) as stream:
        text = first(stream)
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            said = "nothing"
            try:
                # Not the parent's connection: it is one socket, and reads are divided.
                stream._driver._recorder.record([TextDelta("x", len(text))], 0.0)
            except BaseException as error:  # noqa: BLE001 - it must not get out
                said = type(error).__name__
            finally:
                os.write(writing, said.encode())
                os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        assert os.read(reading, 999) == b"Fenced"
        os.close(reading)
        rest()
        for event in stream:
            text += str(event)
    assert text == stored(journal) == whole(sim)


def test_ctrl_c_leaves_it_for_another(sim, nursery, client, path):
    for delay in range(12):
        child = nursery.start(
            "stream",
            client={"base_url": sim.base_url, "journal": str(path)},
            prompt=QUESTION,
            stream_id=f"s{delay}",
            extra_headers={"X-Simulator": str(Script(pace=0.001))},
            **GREEDY,
        )
        assert child.printed(1 + 15 * delay)
        child.signal(signal.SIGINT)
        assert child.wait() in {0, -signal.SIGINT % 256}
        printed = child.text
        with client.resume(f"s{delay}", after=len(printed)) as stream:
            assert printed + "".join(stream.text_stream) == whole(sim)


class Blocking(MemoryJournal):
    """A journal whose commits take as long as the test wants."""

    def __init__(self, gate):
        super().__init__()
        self.gate = gate
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.after = 6

    def append(self, claim, events, *, cursor=None):
        self.after -= 1
        if self.after == 0:
            self.entered.set()
            assert self.go_on.wait(PATIENCE)
        # One event, one commit.
        self.gate.release()
        super().append(claim, events, cursor=cursor)


@pytest.mark.parametrize("ending", ["cancel", "close"])
def test_an_end_from_another_thread_while_a_commit_runs(sim, connect, gate, ending):
    journal = Blocking(gate)
    sim.play(Script(gate=gate))
    client = connect(journal=journal)
    stream = begin(client)
    got, ended = [], []

    def read():
        try:
            got.extend(stream.text_stream)
        except BaseException as error:  # noqa: BLE001 - looked at below
            ended.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert journal.entered.wait(PATIENCE)
    getattr(stream, ending)()
    assert stream.state.value != "done"
    journal.go_on.set()
    reader.join(PATIENCE)
    assert (
        type(ended[0]).__name__
        == {
            "cancel": "StreamCancelled",
            "close": "StreamClosed",
        }[ending]
    )
    text = "".join(got)
    assert stored(journal).startswith(text)
    meta = journal.meta("s")
    if ending == "cancel":
        assert meta.outcome is Outcome.CANCELLED
    else:
        assert meta.state is JournalState.ABANDONED
        with client.resume("s", after=len(text)) as again:
            assert text + "".join(again.text_stream) == whole(sim)
    assert client.pool.statistics().in_use == 0


@pytest.mark.slow
def test_a_signal_handler_cancels_an_idle_stream_amid_a_commit(sim, client, journal):
    for number, strike in enumerate(moments(["journal/commits.py"])):
        idle = begin(client, stream_id=f"idle{number}")
        other = begin(client, stream_id=f"other{number}")
        for stream in (idle, other):
            sim.play(Script(stall_at=3000))
            next(stream.text_stream)
        with strike.by(idle.cancel):
            other.close()
        idle.cancel()
        with pytest.raises(StreamCancelled):
            idle.until_done()
        assert journal.meta(idle.stream_id).outcome is Outcome.CANCELLED
        assert journal.meta(other.stream_id).state is JournalState.ABANDONED
