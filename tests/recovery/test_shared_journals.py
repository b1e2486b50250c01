"""A journal given as a path: one for each file, closed when it is not needed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from jobs import client_for

from holystream import TextDelta
from holystream.journal import JournalState, Outcome
from holystream.journal.sqlite import SQLiteJournal
from holystream.simulator import Script

QUESTION = "How does an answer arrive?"
GREEDY = {"temperature": 0}


def descriptors(folder):
    """The files in a folder that this process has open."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(each.readlink())
    return [file.name for file in found if folder in file.parents]


@pytest.fixture
def client(sim):
    with client_for(sim.base_url) as made:
        yield made


@pytest.fixture
def under_way(sim, gate):
    """Begin a stream that is in the midst of its answer."""

    def begin(client, **options):
        sim.play(Script(gate=gate))
        gate.release(5)
        stream = client.stream(QUESTION, **GREEDY, **options)
        next(event for event in stream if isinstance(event, TextDelta))
        return stream

    return begin


def test_streams_of_a_client_share_it(client, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.db").symlink_to(path)
    ways = [str(path), path, "streams.db", "./streams.db", "link.db"]
    streams = [client.stream(QUESTION, journal=way, **GREEDY) for way in ways]
    for stream in streams:
        stream.until_done()
    client.resume(streams[0].stream_id, journal=path).until_done()
    assert len(list(client.map(["a", "b"], journal=path, **GREEDY))) == 2
    assert descriptors(tmp_path).count("streams.db") == 1
    with client.with_options(model="sim") as other:
        other.stream(QUESTION, journal=path, **GREEDY).until_done()
        assert descriptors(tmp_path).count("streams.db") == 1


@pytest.mark.parametrize("where", ["client", "stream"])
def test_it_is_closed_with_the_client(sim, path, tmp_path, where):
    options = {"journal": path}
    with client_for(sim.base_url, **(options if where == "client" else {})) as client:
        stream = client.stream(
            QUESTION, **(options if where == "stream" else {}), **GREEDY
        )
        stream.until_done()
    assert descriptors(tmp_path) == []
    assert list(tmp_path.glob("streams.db.owners/*")) == []


def test_a_stream_that_is_open_goes_on(sim, path, tmp_path, gate, under_way):
    with client_for(sim.base_url, journal=path) as client:
        stream = under_way(client, stream_id="s")
    with SQLiteJournal(path) as other:
        assert other.meta("s").state is JournalState.LIVE
        gate.release(10**4)
        stream.until_done()
        assert other.meta("s").outcome is Outcome.DONE
    assert descriptors(tmp_path) == []


def test_a_client_that_was_closed_can_be_used(sim, path, tmp_path):
    with client_for(sim.base_url, journal=path) as client:
        pass
    completion = client.stream(QUESTION, stream_id="s", **GREEDY).get_final_completion()
    assert client.resume("s").get_final_text() == completion.text
    assert descriptors(tmp_path) == []


def test_a_journal_that_was_given_open_stays_so(sim, journal):
    with client_for(sim.base_url, journal=journal) as client:
        client.stream(QUESTION, stream_id="s", **GREEDY).until_done()
    assert descriptors(journal._database.path.parent)
    assert journal.meta("s").outcome is Outcome.DONE


def test_a_file_for_each_stream_leaves_few_open(client, tmp_path, under_way):
    stream = under_way(client, journal=tmp_path / "first.db")
    for number in range(20):
        options = {"journal": tmp_path / f"{number}.db", **GREEDY}
        client.stream(QUESTION, **options).until_done()
    opened = {name for name in descriptors(tmp_path) if name.endswith(".db")}
    assert "first.db" in opened, "its stream is under way"
    assert "19.db" in opened
    assert len(opened) < 12
    stream.close()
    assert "first.db" not in descriptors(tmp_path)


def test_a_retired_journal_keeps_what_is_claimed(path, tmp_path):
    with SQLiteJournal(path) as journal:
        claim = journal.create("s", request=b"x", ttl=60.0)
        second = journal.create("t", request=b"x", ttl=60.0)
        journal.release(second)
        journal.retire()
        journal.append(claim, [TextDelta("a", 0)])
        assert journal.meta("s").state is JournalState.LIVE
        assert descriptors(tmp_path)
        journal.finish(claim, Outcome.DONE, b"")
        assert descriptors(tmp_path) == []
        assert journal.meta("s").outcome is Outcome.DONE
        assert descriptors(tmp_path) == []
        claim = journal.claim("t")
        journal.append(claim, [TextDelta("a", 0)])
        journal.release(claim)
        assert descriptors(tmp_path) == []


def test_a_forked_child_of_a_retired_journal_has_its_own(path, tmp_path):
    with SQLiteJournal(path) as journal:
        claim = journal.create("s", request=b"x", ttl=60.0)
        journal.retire()
        child = os.fork()
        if child == 0:
            try:
                journal.release(journal.create("t", request=b"x", ttl=60.0))
                os._exit(len(descriptors(tmp_path)))
            finally:
                os._exit(99)
        assert os.waitpid(child, 0)[1] == 0
        journal.append(claim, [TextDelta("a", 0)])
        journal.release(claim)
    assert descriptors(tmp_path) == []
