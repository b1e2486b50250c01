"""A token and a journal: the stream is recorded from where the token stands."""

from __future__ import annotations

import pytest
from jobs import client_for

from holystream import (
    Finished,
    Guarantee,
    InvalidRequest,
    JournalUnavailable,
    StreamBusy,
    StreamExists,
    TextDelta,
)
from holystream.journal import JournalState, MemoryJournal, Outcome
from holystream.journal.sqlite import SQLiteJournal
from holystream.simulator import Script

QUESTION = "How does an answer arrive?"
GREEDY = {"temperature": 0}


@pytest.fixture
def whole(sim):
    messages = [{"role": "user", "content": QUESTION}]
    return sim.answer({"model": "sim", "messages": messages, **GREEDY}).text


@pytest.fixture
def elsewhere(sim):
    """A client without a journal."""
    with client_for(sim.base_url) as made:
        yield made


def broken_off(client, size=20):
    """Begin the stream "s"; return its token and text."""
    with client.stream(QUESTION, stream_id="s", **GREEDY) as stream:
        for _ in stream.text_stream:
            if len(stream.partial_text) > size:
                break
    return stream.resume_token, stream.partial_text


def stored(journal):
    return "".join(map(str, journal.read("s").events))


def go_on(client, token, text, **options):
    return client.resume(token, messages=QUESTION, partial_text=text, **options)


def test_it_is_recorded_text_and_all(client, journal, elsewhere, whole):
    token, text = broken_off(elsewhere)
    stream = go_on(client, token, text)
    assert journal.meta("s") is None, "not before it is opened"
    with stream:
        assert text + "".join(stream.text_stream) == whole
    assert stored(journal) == whole
    meta = journal.meta("s")
    assert meta.outcome is Outcome.DONE
    again = client.resume("s")
    assert again.get_final_text() == whole
    assert again.completion.guarantee is Guarantee.REPLAYED


def test_it_can_be_gone_on_with_by_its_id(sim, client, journal, elsewhere, whole):
    token, text = broken_off(elsewhere)
    sim.play(Script(pace=0.002))
    with go_on(client, token, text) as stream:
        text += next(stream.text_stream)
    assert journal.meta("s").state is JournalState.ABANDONED
    with client.resume("s", after=len(text)) as stream:
        assert text + "".join(stream.text_stream) == whole
    assert sum(isinstance(e, Finished) for e in journal.read("s").events) == 1


def test_before_the_first_word(client, journal, elsewhere, whole):
    with elsewhere.stream(QUESTION, stream_id="s", **GREEDY) as stream:
        token = stream.resume_token
    assert go_on(client, token, "").get_final_text() == whole
    assert stored(journal) == whole


def test_what_is_recorded_already_goes_on_as_it_was(
    sim, client, journal, elsewhere, whole
):
    token, text = broken_off(client)
    before = journal.meta("s").fence
    with go_on(client, token, text) as stream:
        assert text + "".join(stream.text_stream) == whole
    assert journal.meta("s").fence == before + 1
    assert stored(journal) == whole
    asked = len(sim.requests)
    with go_on(client, token, text) as stream:
        assert text + "".join(stream.text_stream) == whole
    assert len(sim.requests) == asked, "it had ended, and is told again"


def test_another_owner_is_not_passed_by(client, journal, path, whole):
    token, text = broken_off(client)
    with SQLiteJournal(path) as other:
        claim = other.claim("s")
        with pytest.raises(StreamBusy):
            go_on(client, token, text)
        other.release(claim)
    go_on(client, token, text).close()


def test_another_stream_of_this_id_is_not_written_over(sim, client, journal, elsewhere):
    client.stream("Another question", stream_id="s", **GREEDY).until_done()
    token, text = broken_off(elsewhere)
    asked = len(sim.requests)
    with pytest.raises(StreamExists, match="another stream 's'"):
        go_on(client, token, text)
    assert len(sim.requests) == asked


def test_another_text_is_refused(sim, client, journal, elsewhere, gate):
    sim.play(Script(gate=gate))
    gate.release(5)
    broken_off(client, 1)
    claim = journal.claim("s")
    journal.append(claim, [TextDelta("something else", 0)])
    journal.release(claim)
    token, text = broken_off(elsewhere, 80)
    with pytest.raises(InvalidRequest, match="not what was recorded"):
        go_on(client, token, text)
    assert journal.meta("s").state is JournalState.ABANDONED


def test_the_journal_may_be_the_call_s_own(elsewhere, whole):
    token, text = broken_off(elsewhere)
    journal = MemoryJournal()
    go_on(elsewhere, token, text, journal=journal).until_done()
    assert stored(journal) == whole


@pytest.mark.parametrize("best_effort", [True, False])
def test_a_journal_that_cannot_be_used(sim, elsewhere, whole, caplog, best_effort):
    token, text = broken_off(elsewhere)
    journal = MemoryJournal()
    options = {"journal": journal, "journal_best_effort": best_effort}
    with client_for(sim.base_url, **options) as client:
        journal.close()
        if best_effort:
            with go_on(client, token, text) as stream:
                assert text + "".join(stream.text_stream) == whole
            assert "without its journal" in caplog.text
        else:
            with pytest.raises(JournalUnavailable):
                go_on(client, token, text)
