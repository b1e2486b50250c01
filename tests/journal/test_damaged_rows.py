"""One damaged row among others: it is named, and the others are as they were."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest
from journal_events import DAY, REQUEST, numbers, text_events

from holystream.errors import JournalCorrupt
from holystream.journal import JournalState, Outcome
from holystream.journal.sqlite import SQLiteJournal

NO_TEXT = "CAST(x'FF80FE' AS TEXT)"
DAMAGES = [
    *(("created", "'x'"), ("created", "-9e999"), ("updated", "9e999")),
    *(("updated", "x'61'"), ("owner", "x'616263'"), ("owner", NO_TEXT)),
    *(("fence", "'x'"), ("next_seq", "0"), ("next_seq", "'x'")),
    *(("outcome", "'x'"), ("outcome", NO_TEXT), ("stop_requested", "x'00'")),
]
NAMELESS = ["x'616263'", NO_TEXT, "''", "'a' || char(27) || 'b'"]


@pytest.fixture
def journal(path, now):
    with SQLiteJournal(path, now=now) as made:
        yield made


@pytest.fixture
def trio(journal):
    """Three streams without owners; that in the middle is for damaging."""
    for stream_id in ("first", "s", "last"):
        claim = journal.create(stream_id, request=REQUEST, ttl=DAY)
        journal.append(claim, text_events(1, 3))
        journal.release(claim)
    return journal


def damage(path, column, value):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(
            f"UPDATE streams SET {column} = {value} WHERE stream_id = 's'"
        )
        connection.commit()


def ids(infos):
    return [info.stream_id for info in infos]


@pytest.mark.parametrize(("column", "value"), DAMAGES)
class TestOneOfThree:
    def test_it_is_listed_as_damaged(self, path, trio, column, value):
        whole = trio.streams()
        damage(path, column, value)
        found = trio.streams()
        assert ids(found) == ["last", "s", "first"]
        assert [found[0], found[2]] == [whole[0], whole[2]]
        assert found[1].state is JournalState.DAMAGED
        assert ids(trio.streams(states=[JournalState.DAMAGED])) == ["s"]
        assert "s" not in ids(trio.streams(states=[JournalState.ABANDONED]))

    def test_it_is_named_to_who_asks_for_it(self, path, trio, column, value):
        damage(path, column, value)
        for call in (trio.meta, trio.claim):
            with pytest.raises(JournalCorrupt, match=r"stream 's'.*delete\(\) forgets"):
                call("s")
        assert trio.claim("last").next_seq == 4

    def test_its_time_ends_as_that_of_the_others(self, path, trio, now, column, value):
        damage(path, column, value)
        assert trio.sweep(now() + DAY - 1) == 0
        assert trio.sweep(now() + DAY) == 3
        assert trio.streams() == []

    def test_it_keeps_nobody_from_beginning_a_stream(
        self, path, trio, now, column, value
    ):
        damage(path, column, value)
        now.seconds += DAY
        claim = trio.create("new", request=REQUEST, ttl=DAY)
        assert claim.next_seq == 1
        assert ids(trio.streams(states=[JournalState.LIVE])) == ["new"]

    def test_it_can_be_deleted(self, path, trio, column, value):
        damage(path, column, value)
        trio.delete("s")
        assert ids(trio.streams()) == ["last", "first"]
        claim = trio.create("s", request=REQUEST, ttl=DAY)
        trio.append(claim, text_events(1, 1))
        assert numbers(trio.read("s").events) == [1]


@pytest.mark.parametrize("value", NAMELESS)
def test_one_whose_id_is_damaged(path, trio, now, value):
    damage(path, "stream_id", value)
    found = trio.streams()
    assert ids(found) == ["last", "damaged stream 2", "first"]
    assert found[1].state is JournalState.DAMAGED
    assert found[1].next_seq == 4
    assert trio.meta("s") is None
    assert trio.sweep(now() + DAY) == 3


def test_one_of_a_number_beyond_all_numbers(path, trio):
    damage(path, "number", 2**63 - 1)
    assert ids(trio.streams()) == ["s", "last", "first"]


def test_what_can_be_read_of_its_row_is_told(path, trio):
    whole = trio.streams()[1]
    damage(path, "fence", "'x'")
    found = trio.streams()[1]
    assert (found.created, found.next_seq) == (whole.created, 4)
    assert (found.fence, found.owner, found.outcome) == (0, None, None)


def test_one_whose_owner_is_alive_is_not_swept(path, journal, now):
    claim = journal.create("s", request=REQUEST, ttl=DAY)
    damage(path, "updated", "'x'")
    assert journal.sweep(now() + DAY) == 0
    assert ids(journal.streams()) == ["s"]
    # What it writes next mends the row.
    journal.append(claim, text_events(1, 1))
    journal.finish(claim, Outcome.DONE, b"")
    assert journal.meta("s").state is JournalState.FINISHED


def test_more_of_them_than_a_sweep_takes_at_once(path, journal, now):
    for n in range(120):
        journal.release(journal.create(f"s{n}", request=REQUEST, ttl=DAY))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE streams SET next_seq = 'x'")
        connection.commit()
    assert {info.state for info in journal.streams()} == {JournalState.DAMAGED}
    assert journal.sweep(now() + DAY) == 120
