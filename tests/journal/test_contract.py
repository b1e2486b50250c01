"""What every store promises, said once and held against each of them."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time

import pytest
from journal_events import DAY, REQUEST, numbers, text_events

from holystream.clocks import CancelToken
from holystream.errors import (
    ConfigurationError,
    Fenced,
    InvalidRequest,
    JournalError,
    JournalUnavailable,
    StreamBusy,
    StreamExists,
    StreamFinished,
    StreamUnknown,
)
from holystream.events import TextDelta
from holystream.journal import (
    Entries,
    Gone,
    JournalState,
    MemoryJournal,
    Outcome,
    open_journal,
)
from holystream.journal.sqlite import SQLiteJournal

LIVE, ABANDONED, FINISHED, _ = JournalState
FOREVER = 50.0
"""Seconds of waiting that no test that passes waits for."""


def begun(journal, stream_id="s", count=0):
    claim = journal.create(stream_id, request=REQUEST, ttl=DAY)
    if count:
        journal.append(claim, text_events(1, count))
    return claim


def everything(journal, stream_id="s"):
    return numbers(journal.read(stream_id, limit=10**6).events)


class TestCreate:
    def test_it_gives_a_claim_and_a_live_stream(self, journal, now):
        claim = journal.create("s", request=REQUEST, ttl=DAY)
        assert (claim.stream_id, claim.next_seq) == ("s", 1)
        meta = journal.meta("s")
        assert (meta.request, meta.cursor, meta.final) == (REQUEST, None, None)
        assert (meta.created, meta.updated) == (now(), now())
        assert (meta.state, meta.owner) == (LIVE, claim.owner)
        assert (meta.fence, meta.next_seq) == (claim.fence, 1)
        assert (meta.outcome, meta.stop_requested) == (None, None)

    def test_an_id_is_taken_once(self, journal):
        begun(journal)
        with pytest.raises(StreamExists, match="'s' already"):
            begun(journal)

    @pytest.mark.parametrize("stream_id", ["", "a\n", "a\0", "\ud800", "x" * 257])
    def test_what_cannot_be_an_id(self, journal, stream_id):
        for call in (
            begun,
            type(journal).read,
            type(journal).meta,
            type(journal).claim,
        ):
            with pytest.raises(InvalidRequest, match="stream_id="):
                call(journal, stream_id)

    @pytest.mark.parametrize("stream_id", ["é", "a b", "x" * 256, "'; DROP TABLE"])
    def test_what_can(self, journal, stream_id):
        begun(journal, stream_id, 2)
        assert everything(journal, stream_id) == [1, 2]

    @pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), "1"])
    def test_a_time_to_live_is_seconds(self, journal, ttl):
        with pytest.raises(ConfigurationError, match="ttl="):
            journal.create("s", request=REQUEST, ttl=ttl)


class TestAppendAndRead:
    def test_every_stretch_of_it(self, journal):
        claim = begun(journal)
        first = 1
        for count in (1, 3, 1, 5):
            journal.append(claim, text_events(first, count))
            first += count
        assert claim.next_seq == 11
        for after in range(13):
            for limit in range(1, 12):
                found = journal.read("s", after=after, limit=limit)
                wanted = list(range(after + 1, min(after + limit, 10) + 1))
                assert numbers(found.events) == wanted
                assert found.last_seq == (wanted[-1] if wanted else after)
                assert not found.finished

    @pytest.mark.parametrize("count", [0, 3])
    def test_not_from_before_its_first_event(self, journal, count):
        begun(journal, count=count)
        with pytest.raises(InvalidRequest, match=r"after= .* not -1"):
            journal.read("s", after=-1, limit=1)

    def test_nothing_yet(self, journal):
        begun(journal)
        assert journal.read("s") == Entries(events=(), next_seq=1, finished=False)

    def test_no_such_stream(self, journal):
        assert journal.read("s") == Gone()
        assert journal.meta("s") is None

    def test_events_and_cursor_go_together(self, journal):
        claim = begun(journal)
        assert journal.meta("s").cursor is None
        journal.append(claim, text_events(1, 2), cursor=b"two")
        assert journal.meta("s").cursor == b"two"
        journal.append(claim, text_events(3, 1))
        assert journal.meta("s").cursor == b"two"
        journal.append(claim, [], cursor=b"three")
        assert (journal.meta("s").cursor, journal.meta("s").next_seq) == (b"three", 4)
        journal.append(claim, text_events(4, 1), cursor=b"")
        assert journal.meta("s").cursor == b""
        assert everything(journal) == [1, 2, 3, 4]

    def test_nothing_at_all_can_be_appended(self, journal):
        claim = begun(journal)
        journal.append(claim, [])
        assert journal.read("s") == Entries(events=(), next_seq=1, finished=False)

    def test_texts_of_any_kind(self, journal):
        claim = begun(journal)
        texts = ["naïve 🚀", "\ud83d", "\0", "", "\u2028", "x" * 100_000]
        events = [TextDelta(text, 2**40, 1, 2, b"raw") for text in texts]
        journal.append(claim, events)
        wanted = [TextDelta(text, 2**40, 1, 2) for text in texts]
        assert list(journal.read("s").events) == wanted

    def test_what_is_no_event_stores_nothing(self, journal):
        claim = begun(journal)
        with pytest.raises(TypeError):
            journal.append(claim, [*text_events(1, 1), "text"], cursor=b"c")
        assert (journal.meta("s").cursor, claim.next_seq) == (None, 1)
        journal.append(claim, text_events(1, 1))
        assert everything(journal) == [1]

    def test_when_it_was_written(self, journal, now):
        claim = begun(journal)
        now.seconds += 5
        journal.append(claim, text_events(1, 1))
        meta = journal.meta("s")
        assert meta.updated - meta.created == 5


class TestFinish:
    def test_it_ends_the_stream(self, journal):
        claim = begun(journal, count=3)
        journal.finish(claim, Outcome.CANCELLED, b"the end")
        meta = journal.meta("s")
        assert (meta.state, meta.outcome) == (FINISHED, Outcome.CANCELLED)
        assert (meta.final, meta.next_seq) == (b"the end", 4)
        assert type(meta.outcome) is Outcome

    def test_a_reader_learns_it_with_the_last_event(self, journal):
        claim = begun(journal, count=3)
        journal.finish(claim, Outcome.DONE, b"")
        assert not journal.read("s", limit=2).finished
        assert journal.read("s", limit=3).finished
        assert journal.read("s", after=2).finished
        assert journal.read("s", after=3) == Entries(
            events=(), next_seq=4, finished=True
        )

    def test_nothing_follows(self, journal):
        claim = begun(journal, count=3)
        journal.finish(claim, Outcome.DONE, b"one")
        with pytest.raises(StreamFinished):
            journal.append(claim, text_events(4, 1), cursor=b"c")
        with pytest.raises(StreamFinished):
            journal.finish(claim, Outcome.FAILED, b"two")
        with pytest.raises(StreamFinished, match="can be read"):
            journal.claim("s")
        journal.release(claim)
        meta = journal.meta("s")
        assert (meta.outcome, meta.final) == (Outcome.DONE, b"one")
        assert everything(journal) == [1, 2, 3]

    def test_only_as_one_of_the_outcomes(self, journal):
        claim = begun(journal)
        with pytest.raises(ValueError, match="lost"):
            journal.finish(claim, "lost", b"")
        assert journal.meta("s").state is LIVE


class TestClaim:
    def test_a_live_stream_stays_with_its_owner(self, journal):
        claim = begun(journal)
        with pytest.raises(StreamBusy, match="is alive") as caught:
            journal.claim("s")
        assert caught.value.owner == claim.owner
        journal.append(claim, text_events(1, 1))

    def test_what_was_let_go_can_be_claimed_at_once(self, journal):
        first = begun(journal, count=3)
        journal.release(first)
        meta = journal.meta("s")
        assert (meta.state, meta.owner) == (ABANDONED, None)
        second = journal.claim("s")
        assert second.fence > first.fence
        assert second.next_seq == 4
        journal.append(second, text_events(4, 2))
        assert everything(journal) == [1, 2, 3, 4, 5]

    @pytest.mark.parametrize(
        "finds_it_free",
        [
            lambda journal: journal.claim("s").fence > 1,
            lambda journal: journal.meta("s").state is ABANDONED,
            lambda journal: journal.streams()[0].state is ABANDONED,
        ],
        ids=["claim", "meta", "streams"],
    )
    def test_what_a_finaliser_let_go_of_is_free(self, journal, finds_it_free):
        claim = begun(journal, count=3)
        # Twice, and what another has by then stays with that one.
        journal.release_later(claim)
        journal.release_later(claim)
        assert finds_it_free(journal)
        with pytest.raises(Fenced):
            journal.append(claim, text_events(4, 1))
        assert everything(journal) == [1, 2, 3]

    def test_a_writer_lets_go_of_what_was_dropped(self, journal):
        dropped, other = begun(journal), begun(journal, "other")
        journal.release_later(dropped)
        journal.append(other, text_events(1, 1))
        with pytest.raises(Fenced):
            journal.append(dropped, text_events(1, 1))

    def test_a_claim_that_nobody_has_any_more_is_let_go(self, journal):
        claim = begun(journal, count=2)
        copy = dataclasses.replace(claim)
        del claim
        assert journal.meta("s").state is ABANDONED
        with pytest.raises(Fenced):
            journal.append(copy, text_events(3, 1))
        claim = journal.claim("s")
        journal.append(claim, text_events(3, 1))
        del copy
        assert journal.meta("s").state is JournalState.LIVE
        journal.finish(claim, Outcome.DONE, b"")
        del claim
        assert journal.meta("s").outcome is Outcome.DONE

    def test_the_old_claim_is_fenced_off(self, journal):
        first = begun(journal, count=1)
        journal.release(first)
        for _ in range(2):
            with pytest.raises(Fenced, match="taken over or let go"):
                journal.append(first, text_events(2, 1), cursor=b"c")
            with pytest.raises(Fenced):
                journal.finish(first, Outcome.DONE, b"")
            if journal.meta("s").state is ABANDONED:
                second = journal.claim("s")
        journal.release(first)
        journal.append(second, text_events(2, 1))
        assert everything(journal) == [1, 2]
        assert journal.meta("s").cursor is None

    def test_a_claim_is_used_once_at_a_time(self, journal):
        claim = begun(journal, count=2)
        copy = dataclasses.replace(claim)
        journal.append(claim, text_events(3, 1))
        with pytest.raises(Fenced, match=r"would write event 3, .* waits for event 4"):
            journal.append(copy, text_events(3, 1))
        assert everything(journal) == [1, 2, 3]

    def test_of_what_is_not_there(self, journal):
        with pytest.raises(StreamUnknown, match="'s'"):
            journal.claim("s")


class TestDelete:
    def test_it_is_gone(self, journal):
        claim = begun(journal, count=3)
        journal.delete("s")
        assert journal.read("s") == Gone()
        assert journal.meta("s") is None
        assert journal.streams() == []
        with pytest.raises(StreamUnknown):
            journal.append(claim, text_events(4, 1))
        with pytest.raises(StreamUnknown):
            journal.finish(claim, Outcome.DONE, b"")
        journal.release(claim)
        journal.delete("s")

    def test_its_id_can_be_used_again(self, journal):
        old = begun(journal, count=3)
        journal.delete("s")
        new = begun(journal)
        assert new.fence > old.fence
        with pytest.raises(Fenced):
            journal.append(old, text_events(1, 1))
        assert everything(journal) == []
        journal.append(new, text_events(1, 1))
        assert everything(journal) == [1]


class TestStop:
    def test_the_owner_finds_it(self, journal):
        claim = begun(journal)
        journal.request_stop("s", "a viewer")
        assert journal.meta("s").stop_requested == "a viewer"
        journal.append(claim, text_events(1, 1))
        journal.request_stop("s", "another")
        assert journal.streams()[0].stop_requested == "another"

    def test_whoever_writes_is_told_by_the_append(self, journal):
        claim = begun(journal, count=1)
        assert claim.stop_requested is None
        journal.request_stop("s", "a viewer")
        journal.append(claim, text_events(2, 1), cursor=b"c")
        assert claim.stop_requested == "a viewer"
        journal.append(claim, text_events(3, 1))
        assert everything(journal) == [1, 2, 3]
        assert journal.meta("s").cursor == b"c"
        journal.release(claim)
        assert journal.claim("s").stop_requested == "a viewer"

    def test_a_claim_that_does_not_hold_is_refused_all_the_same(self, journal):
        claim = begun(journal)
        journal.request_stop("s", "a viewer")
        journal.release(claim)
        with pytest.raises(Fenced):
            journal.append(claim, text_events(1, 1))
        assert claim.stop_requested is None

    def test_too_late(self, journal):
        claim = begun(journal)
        journal.finish(claim, Outcome.DONE, b"")
        journal.request_stop("s", "a viewer")
        assert journal.meta("s").stop_requested is None

    def test_of_what_is_not_there(self, journal):
        with pytest.raises(StreamUnknown):
            journal.request_stop("s", "a viewer")


class TestStreams:
    def test_the_newest_first(self, journal):
        claims = [begun(journal, f"s{n}", n) for n in range(5)]
        journal.finish(claims[1], Outcome.DONE, b"")
        journal.release(claims[3])
        found = journal.streams()
        assert [info.stream_id for info in found] == ["s4", "s3", "s2", "s1", "s0"]
        assert [info.next_seq for info in found] == [5, 4, 3, 2, 1]
        states = [LIVE, ABANDONED, LIVE, FINISHED, LIVE]
        assert [info.state for info in found] == states

    def test_of_some_states(self, journal):
        claims = []
        for n in range(250):
            claim = begun(journal, f"s{n}")
            claims.append(claim)
            if n == 3:
                journal.release(claim)
            elif n > 5:
                journal.finish(claim, Outcome.DONE, b"")
        (found,) = journal.streams(states=[ABANDONED], limit=5)
        assert found.stream_id == "s3"
        found = journal.streams(states=[LIVE, ABANDONED], limit=4)
        assert [info.stream_id for info in found] == ["s5", "s4", "s3", "s2"]
        assert len(journal.streams(states=[FINISHED], limit=150)) == 150
        assert len(journal.streams()) == 100


class TestSweep:
    def test_what_is_over_goes(self, journal, now):
        claims = {name: begun(journal, name, 3) for name in ("done", "left", "live")}
        now.seconds += 10
        journal.finish(claims["done"], Outcome.DONE, b"")
        journal.release(claims["left"])
        assert journal.sweep(now() + DAY - 1) == 0
        assert journal.sweep(now() + DAY) == 2
        assert [info.stream_id for info in journal.streams()] == ["live"]
        assert journal.read("done") == journal.read("left") == Gone()
        journal.append(claims["live"], text_events(4, 1))
        assert journal.sweep(now() + 100 * DAY) == 0
        assert everything(journal, "live") == [1, 2, 3, 4]

    def test_a_claim_gives_it_its_time_once_more(self, journal, now):
        journal.release(begun(journal))
        now.seconds += DAY - 1
        journal.release(journal.claim("s"))
        assert journal.sweep(now() + DAY - 1) == 0
        assert journal.sweep(now() + DAY) == 1

    def test_a_new_stream_takes_old_ones_away(self, journal, now):
        for n in range(30):
            journal.release(begun(journal, f"old{n}", 3))
        now.seconds += DAY
        for n in range(30):
            begun(journal, f"new{n}")
        found = {info.stream_id for info in journal.streams()}
        assert found == {f"new{n}" for n in range(30)}

    def test_many_at_once(self, journal, now):
        for n in range(120):
            journal.release(begun(journal, f"s{n}", 1))
        assert journal.sweep(now() + 2 * DAY) == 120
        assert journal.streams() == []


class Reader(threading.Thread):
    """Reads with a wait that is too long to come to its end."""

    def __init__(self, journal, **arguments):
        super().__init__(daemon=True)
        self.journal, self.arguments = journal, arguments
        self.found = None
        self.start()

    def run(self):
        try:
            self.found = self.journal.read("s", wait=FOREVER, **self.arguments)
        except JournalError as error:
            self.found = error

    def waits(self):
        """Return once it sleeps."""
        end = time.monotonic() + 20
        while not self.journal._watchers._waiting.get("s"):
            assert time.monotonic() < end
            time.sleep(0.001)

    def ended(self):
        self.join(20)
        assert not self.is_alive(), "the reader still waits"
        return self.found


class TestWaiting:
    def test_for_an_event(self, journal):
        claim = begun(journal, count=2)
        reader = Reader(journal, after=2)
        reader.waits()
        journal.append(claim, text_events(3, 2))
        assert numbers(reader.ended().events) == [3, 4]

    def test_not_for_what_is_there(self, journal):
        begun(journal, count=2)
        assert numbers(journal.read("s", after=1, wait=FOREVER).events) == [2]

    def test_for_the_end(self, journal):
        claim = begun(journal, count=2)
        reader = Reader(journal, after=2)
        reader.waits()
        journal.finish(claim, Outcome.DONE, b"")
        assert reader.ended() == Entries(events=(), next_seq=3, finished=True)
        assert journal.read("s", after=2, wait=FOREVER).finished

    def test_until_it_is_deleted(self, journal):
        begun(journal)
        reader = Reader(journal)
        reader.waits()
        journal.delete("s")
        assert reader.ended() == Gone()
        assert journal.read("s", wait=FOREVER) == Gone()

    def test_until_it_is_swept(self, journal, now):
        journal.release(begun(journal))
        reader = Reader(journal)
        reader.waits()
        journal.sweep(now() + 2 * DAY)
        assert reader.ended() == Gone()

    def test_until_it_is_cancelled(self, journal):
        begun(journal)
        cancel = CancelToken()
        reader = Reader(journal, cancel=cancel)
        reader.waits()
        cancel.cancel()
        assert reader.ended() == Entries(events=(), next_seq=1, finished=False)
        assert journal.read("s", wait=FOREVER, cancel=cancel).events == ()

    def test_until_the_journal_is_closed(self, journal):
        begun(journal)
        reader = Reader(journal)
        reader.waits()
        journal.close()
        assert isinstance(reader.ended(), JournalUnavailable)

    def test_in_vain(self, journal):
        begun(journal)
        assert journal.read("s", wait=0.001).events == ()

    def test_many_readers_of_one_stream(self, journal):
        claim = begun(journal)
        seen = [[] for _ in range(5)]

        def follow(mine):
            after = 0
            while True:
                found = journal.read("s", after=after, limit=3, wait=FOREVER)
                mine += numbers(found.events)
                after = found.last_seq
                if found.finished:
                    return

        readers = [threading.Thread(target=follow, args=(mine,)) for mine in seen]
        for reader in readers:
            reader.start()
        for first in range(1, 200, 2):
            journal.append(claim, text_events(first, 2))
        journal.finish(claim, Outcome.DONE, b"")
        for reader in readers:
            reader.join(20)
        assert seen == [list(range(1, 201))] * 5
        assert not journal._watchers._waiting


def test_many_writers(journal):
    def write(name):
        claim = begun(journal, name)
        for first in range(1, 91, 3):
            journal.append(claim, text_events(first, 3), cursor=str(first).encode())
        journal.finish(claim, Outcome.DONE, b"")

    names = [f"s{n}" for n in range(8)]
    writers = [threading.Thread(target=write, args=(name,)) for name in names]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(40)
    for name in names:
        assert everything(journal, name) == list(range(1, 91))
        assert journal.meta(name).cursor == b"88"


def test_nothing_of_the_content_is_shown(journal):
    secret = "a secret"
    claim = journal.create("s", request=secret.encode(), ttl=DAY)
    journal.append(claim, [TextDelta(secret, 0)], cursor=secret.encode())
    shown = [claim, journal.meta("s"), journal.read("s"), journal.streams(), journal]
    copy = dataclasses.replace(claim)
    with pytest.raises(StreamBusy) as busy:
        journal.claim("s")
    journal.finish(claim, Outcome.DONE, secret.encode())
    with pytest.raises(StreamFinished) as ended:
        journal.append(copy, [TextDelta(secret, 0)])
    shown += [journal.meta("s"), busy.value, ended.value]
    assert secret not in repr(shown)
    assert secret not in "".join(str(each) for each in shown)


class TestClosed:
    def test_every_call_says_so(self, journal):
        claim = begun(journal, count=1)
        journal.close()
        journal.close()
        calls = [
            lambda: begun(journal, "t"),
            lambda: journal.append(claim, text_events(2, 1)),
            lambda: journal.finish(claim, Outcome.DONE, b""),
            lambda: journal.claim("s"),
            lambda: journal.read("s"),
            lambda: journal.meta("s"),
            journal.streams,
            lambda: journal.request_stop("s", "me"),
            lambda: journal.delete("s"),
            lambda: journal.sweep(0.0),
        ]
        for call in calls:
            with pytest.raises(JournalUnavailable, match="was closed"):
                call()
        journal.release(claim)


class TestOpenJournal:
    def test_a_path(self, tmp_path):
        for path in (tmp_path / "a.db", str(tmp_path / "b.db")):
            with open_journal(path) as journal:
                assert isinstance(journal, SQLiteJournal)
            assert (tmp_path / "a.db").exists()

    def test_memory(self):
        assert isinstance(open_journal(":memory:"), MemoryJournal)

    def test_a_journal(self, journal):
        assert open_journal(journal) is journal

    @pytest.mark.parametrize("value", [None, 5, b"path", ["path"], {}])
    def test_nothing_else(self, value):
        with pytest.raises(ConfigurationError, match="journal= must be a path"):
            open_journal(value)

    def test_a_system_without_the_locks_it_takes(self, tmp_path, monkeypatch):
        monkeypatch.delitem(sys.modules, "holystream.journal.sqlite")
        monkeypatch.delitem(sys.modules, "holystream.journal.owners")
        monkeypatch.setitem(sys.modules, "fcntl", None)
        with pytest.raises(ConfigurationError, match="needs Python's fcntl"):
            open_journal(tmp_path / "a.db")

    def test_a_durability_that_there_is_not(self, tmp_path):
        with pytest.raises(ConfigurationError, match="durability="):
            open_journal(tmp_path / "a.db", durability="always")
