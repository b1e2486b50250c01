"""Disks that are full, places that are read-only, files that are damaged or another's.

Each one ends in a typed error that says what to do, and what was acknowledged is kept.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from journal_events import DAY, REQUEST, numbers, text_events

from holystream.errors import (
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
    JournalVersion,
)
from holystream.events import TextDelta
from holystream.journal import JournalState, Outcome
from holystream.journal.database import WAL_LIMIT
from holystream.journal.sqlite import SQLiteJournal


@contextlib.contextmanager
def mounted(*options):
    """A folder of its own file system, where we may mount one."""
    folder = Path(tempfile.mkdtemp())
    command = ["mount", *options, str(folder)]
    if shutil.which("mount") is None:
        pytest.skip("there is no mount")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    try:
        if done.returncode != 0:
            pytest.skip(f"may not mount: {done.stderr.strip()}")
        yield folder
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def fill(journal, claim):
    """Append until it is refused; return the error."""
    try:
        while True:
            journal.append(claim, [TextDelta("x" * 1000, 0)] * 5, cursor=b"c")
    except JournalError as error:
        return error


def begin(path):
    """Open a journal, and write into it."""
    with SQLiteJournal(path) as journal:
        journal.create("t", request=REQUEST, ttl=DAY)


def check_the_full_one(path, error, claim):
    assert isinstance(error, JournalUnavailable)
    assert "its disk is full: make room; what was acknowledged" in str(error)
    assert str(path) in str(error)
    assert isinstance(error.__cause__, sqlite3.Error)
    with SQLiteJournal(path) as again:
        found = again.read("s", limit=10**6)
        assert len(found.events) == claim.next_seq - 1 > 0
        assert claim.next_seq % 5 == 1


def test_a_full_disk():
    with mounted("-t", "tmpfs", "-o", "size=1m", "journal") as folder:
        path = folder / "journal.db"
        with SQLiteJournal(path) as journal:
            claim = journal.create("s", request=REQUEST, ttl=DAY)
            ballast = folder / "ballast"
            ballast.write_bytes(bytes(200_000))
            error = fill(journal, claim)
            stored = claim.next_seq - 1
            assert len(journal.read("s", limit=10**6).events) == stored
            with pytest.raises(JournalUnavailable):
                journal.append(claim, [TextDelta("x" * 300_000, 0)])
            ballast.unlink()
            journal.append(claim, text_events(claim.next_seq, 5))
            assert claim.next_seq - 1 == stored + 5
            journal.release(claim)
        check_the_full_one(path, error, claim)


def test_a_quota_that_is_used_up(path, on_disk):
    """The same where nothing can be mounted: SQLite's own limit, and its own error."""
    claim = on_disk.create("s", request=REQUEST, ttl=DAY)
    connection = on_disk._database._connection
    connection.execute("PRAGMA max_page_count = 60")
    error = fill(on_disk, claim)
    assert len(on_disk.read("s", limit=10**6).events) == claim.next_seq - 1
    connection.execute(f"PRAGMA max_page_count = {2**30}")
    on_disk.append(claim, text_events(claim.next_seq, 5))
    on_disk.finish(claim, Outcome.DONE, b"")
    check_the_full_one(path, error, claim)


def test_a_disk_too_full_to_begin():
    with mounted("-t", "tmpfs", "-o", "size=40k", "journal") as folder:
        (folder / "ballast").write_bytes(bytes(40 * 1024))
        with pytest.raises(JournalUnavailable, match="opening the journal"):
            SQLiteJournal(folder / "journal.db")


def test_a_read_only_file_system(tmp_path):
    path = tmp_path / "journal.db"
    with SQLiteJournal(path) as journal:
        journal.append(journal.create("s", request=REQUEST, ttl=DAY), text_events(1, 1))
    with mounted("--bind", "-o", "ro", str(tmp_path)) as folder:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        with pytest.raises(
            JournalUnavailable, match=r"opening .*(read-only|Read-only)"
        ):
            SQLiteJournal(folder / "new.db")
        with pytest.raises(JournalUnavailable, match="opening the journal"):
            begin(folder / "journal.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_in_which_we_may_not_write(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(JournalUnavailable, match="Permission denied"):
        SQLiteJournal(tmp_path / "journal.db")
    tmp_path.chmod(0o700)


def test_a_database_that_turns_read_only(path, on_disk):
    claim = on_disk.create("s", request=REQUEST, ttl=DAY)
    on_disk.append(claim, text_events(1, 1))
    on_disk._database._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(JournalUnavailable, match="it is read-only"):
        on_disk.append(claim, text_events(2, 1))
    # It was looked at afresh, and can be written again.
    on_disk.append(claim, text_events(2, 1))
    assert numbers(on_disk.read("s").events) == [1, 2]


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: path.mkdir(), "it is no file: give another path"),
        (os.mkfifo, "it is no file: give another path"),
        (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
        (
            lambda path: path.with_name("journal.db.owners").write_text(""),
            "File exists: .*journal.db.owners",
        ),
        (
            lambda path: path.parent.rmdir(),
            "journal.db: No such file or directory: look at the path",
        ),
    ],
)
def test_a_path_where_no_journal_can_be(tmp_path, make, complaint):
    folder = tmp_path / "folder"
    folder.mkdir()
    make(folder / "journal.db")
    with pytest.raises(JournalUnavailable, match=complaint):
        SQLiteJournal(folder / "journal.db")


def test_a_path_through_a_file(path):
    path.write_text("")
    with pytest.raises(JournalUnavailable, match="Not a directory"):
        SQLiteJournal(path / "journal.db")


class TestFilesOfOthers:
    def test_a_newer_schema(self, path):
        SQLiteJournal(path).close()
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 2")
        before = path.read_bytes()
        with pytest.raises(
            JournalVersion, match=r"its version is 2, ours 1\): upgrade"
        ):
            SQLiteJournal(path)
        assert path.read_bytes() == before

    @pytest.mark.parametrize(
        "statement",
        [
            "CREATE TABLE recipes (name TEXT)",
            "PRAGMA user_version = 1",
            "PRAGMA application_id = 7",
        ],
    )
    def test_a_database_of_something_else(self, path, statement):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(statement)
            connection.commit()
        before = path.read_bytes()
        with pytest.raises(JournalCorrupt, match="is a database of something else"):
            SQLiteJournal(path)
        assert path.read_bytes() == before

    def test_no_database_at_all(self, path):
        path.write_text("Dear diary, " * 1000)
        before = path.read_bytes()
        with pytest.raises(
            JournalCorrupt, match="damaged, or no journal: move it away"
        ):
            SQLiteJournal(path)
        assert path.read_bytes() == before

    def test_an_empty_file_is_a_new_one(self, path):
        path.touch(0o644)
        SQLiteJournal(path).close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def filled(path):
    """Make a journal with ten batches of text; return the text of each."""
    texts = [f"<{n}>".encode() * 700 for n in range(10)]
    with SQLiteJournal(path) as journal:
        claim = journal.create("s", request=b"<request>" * 300, ttl=DAY)
        for text in texts:
            journal.append(claim, [TextDelta(text.decode(), 0)])
        journal.finish(claim, Outcome.DONE, b"<final>" * 300)
    return texts


def read_all(path):
    """Read one event after another, and the rest; every error must be a typed one."""
    with SQLiteJournal(path) as journal:
        events = []
        for after in range(10):
            events += journal.read("s", after=after, limit=1).events
        journal.meta("s")
        journal.streams()
        return events


def test_damage_anywhere_is_found(path):
    """No wrong text is ever read: it is right, or there is an error."""
    texts = filled(path)
    whole = path.read_bytes()
    found = 0
    for place in range(0, len(whole), 509):
        damaged = bytearray(whole)
        damaged[place : place + 16] = bytes(
            byte ^ 0x5A for byte in damaged[place : place + 16]
        )
        path.write_bytes(damaged)
        try:
            events = read_all(path)
        except JournalError:
            found += 1
        else:
            assert [event.text.encode() for event in events] == texts
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    assert found > 30


def test_a_damaged_text(path):
    """SQLite would hand it out; what comes before it can be read."""
    filled(path)
    data = path.read_bytes()
    place = data.index(b"<5>" * 10)
    path.write_bytes(data[:place] + b"<X>" + data[place + 3 :])
    with SQLiteJournal(path) as journal:
        assert len(journal.read("s", limit=5).events) == 5
        with pytest.raises(JournalCorrupt, match="event 6 in the journal is damaged"):
            journal.read("s")
        assert len(journal.read("s", after=6).events) == 4


@pytest.mark.parametrize("what", ["request", "final"])
def test_damage_beside_the_text(path, what):
    filled(path)
    data = path.read_bytes()
    place = data.index(f"<{what}>".encode())
    path.write_bytes(data[:place] + b"?" + data[place + 1 :])
    with SQLiteJournal(path) as journal:
        assert len(journal.read("s").events) == 10
        with pytest.raises(JournalCorrupt, match=f"the {what} in the journal is damag"):
            journal.meta("s")


CALLS = {
    "append": lambda journal, claim: journal.append(claim, text_events(3, 1)),
    "finish": lambda journal, claim: journal.finish(claim, Outcome.DONE, b"<final>"),
    "release": lambda journal, claim: journal.release(claim),
    "claim": lambda journal, _: journal.claim("s"),
    "create": lambda journal, _: journal.create("new", request=REQUEST, ttl=DAY),
    "read": lambda journal, _: journal.read("s"),
    "read on": lambda journal, _: journal.read("s", after=1),
    "meta": lambda journal, _: journal.meta("s"),
    "streams": lambda journal, _: journal.streams(),
    "request_stop": lambda journal, _: journal.request_stop("s", "me"),
    "sweep": lambda journal, _: journal.sweep(2e12),
    "delete": lambda journal, _: journal.delete("s"),
}
COLUMNS = {
    "streams": "stream_id created updated ttl expires owner fence next_seq outcome "
    "stop_requested cursor number",
    "contents": "number kind checksum data",
    "batches": "place count checksum events",
    "fences": "last",
    "garbage": "number",
}
# Of every type, beyond every range, and a text that is none.
VALUES = [
    *("7", "-1", "0", "1", "9223372036854775807", "-9223372036854775808"),
    *("1.5", "9e999", "'12'", "'x'", "''", "x'616263'", "x''", "NULL"),
    "CAST(x'FF80FE' AS TEXT)",
]


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_a_value_that_no_holystream_wrote(path, call):
    """Whatever a damaged row holds: an error is a typed one, and shows nothing."""
    damages = [
        (table, column, value)
        for table, columns in COLUMNS.items()
        for column in columns.split()
        for value in VALUES
    ]
    shown = []
    wrong = contextlib.closing(sqlite3.connect(path))
    with SQLiteJournal(path) as journal, wrong as connection:
        for table, column, value in damages:
            claim = journal.create("s", request=b"<request>", ttl=DAY)
            journal.append(claim, text_events(1, 2), cursor=b"<cursor>")
            if call in ("claim", "sweep"):
                journal.release(claim)
            connection.execute("INSERT OR IGNORE INTO garbage VALUES (77)")
            try:
                connection.execute(f"UPDATE {table} SET {column} = {value}")
            except sqlite3.IntegrityError:
                connection.rollback()
            connection.commit()
            try:
                CALLS[call](journal, claim)
            except JournalError as error:
                shown.append(str(error))
            del claim
            for each in COLUMNS:
                connection.execute(f"DELETE FROM {each}")
            connection.execute("INSERT INTO fences VALUES (1000)")
            connection.commit()
    # It reads nothing, and these pass over what is damaged of a stream.
    assert bool(shown) == (call not in ("release", "streams", "sweep", "delete"))
    assert "<" not in "".join(shown)


@pytest.mark.parametrize("lost", [1, 4, 10])
def test_a_batch_that_is_missing(path, lost):
    filled(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM batches WHERE place & 0xFFFF = ?", (lost,))
        connection.commit()
    with SQLiteJournal(path) as journal:
        with pytest.raises(JournalCorrupt, match=f"event {lost} is missing"):
            journal.read("s")
        with pytest.raises(JournalCorrupt, match=f"event {lost} is missing"):
            journal.read("s", after=lost - 1)
        if lost > 1:
            assert len(journal.read("s", limit=lost - 1).events) == lost - 1


def test_a_corrupt_page_in_use(path, on_disk):
    """Found while writing: a typed error, and nothing is made worse."""
    filled(path)
    data = bytearray(path.read_bytes())
    for page in range(1, len(data) // 4096):
        data[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    path.write_bytes(data)
    on_disk.close()
    with pytest.raises(JournalCorrupt, match="move it away, with its -wal and -shm"):
        begin(path)


def test_a_journal_whose_folder_went_away(path, on_disk):
    """What was stored went with it; the caller is told."""
    claim = on_disk.create("s", request=REQUEST, ttl=DAY)
    shutil.rmtree(path.parent / "journal.db.owners")
    on_disk.close()
    with SQLiteJournal(path) as again:
        assert again.claim("s").fence > claim.fence


def test_nobody_else_may_read_it(path):
    before = os.umask(0)
    try:
        with SQLiteJournal(path) as journal:
            journal.create("s", request=REQUEST, ttl=DAY)
            modes = {
                str(file.relative_to(path.parent)): stat.S_IMODE(file.stat().st_mode)
                for file in path.parent.rglob("*")
            }
    finally:
        os.umask(before)
    owner = next(name for name in modes if name.endswith(".lock"))
    assert modes == {
        "journal.db": 0o600,
        "journal.db-wal": 0o600,
        "journal.db-shm": 0o600,
        "journal.db.owners": 0o700,
        owner: 0o600,
    }


def test_what_is_swept_is_overwritten(path):
    texts = filled(path)
    with SQLiteJournal(path) as journal:
        assert texts[3][:500] in path.read_bytes()
        journal.delete("s")
    for place in (path, path.with_name(path.name + "-wal")):
        data = place.read_bytes() if place.exists() else b""
        assert all(word not in data for word in (b"<3><3>", b"<request>", b"<final>"))


@pytest.mark.parametrize(("durability", "level"), [("process", 1), ("power", 2)])
def test_durability(path, durability, level):
    with SQLiteJournal(path, durability=durability) as journal:
        claim = journal.create("s", request=REQUEST, ttl=DAY)
        journal.append(claim, text_events(1, 1))
        connection = journal._database._connection
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_what_was_dropped_is_let_go_of_when_it_can_be(path, caplog):
    holder = sqlite3.connect(path, isolation_level=None)
    with (
        contextlib.closing(holder),
        SQLiteJournal(path, busy_timeout=0.01) as journal,
    ):
        claim = journal.create("s", request=REQUEST, ttl=DAY)
        holder.execute("BEGIN IMMEDIATE")
        journal.release_later(claim)
        assert journal.meta("s").state is JournalState.LIVE
        assert "stays claimed for now" in caplog.text
        holder.execute("COMMIT")
        assert journal.meta("s").state is JournalState.ABANDONED


def test_a_file_keeps_the_pages_it_was_made_with(path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("holystream.journal.database._PAGE", 4096)
        with SQLiteJournal(path) as journal:
            journal.release(journal.create("s", request=REQUEST, ttl=DAY))
    with SQLiteJournal(path) as journal:
        journal.append(journal.claim("s"), text_events(1, 100), cursor=b"c")
        connection = journal._database.connection()
        assert connection.execute("PRAGMA page_size").fetchone() == (4096,)
        (pages,) = connection.execute("PRAGMA wal_autocheckpoint").fetchone()
        assert pages * 4096 == WAL_LIMIT
    with SQLiteJournal(path.with_name("new.db")) as journal:
        connection = journal._database.connection()
        assert connection.execute("PRAGMA page_size").fetchone() == (2048,)
