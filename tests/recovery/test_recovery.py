"""`Client.resume` with a journal: each way in which a stream can have been left."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json

import pytest
from jobs import KEY, client_for

import holystream
from holystream import (
    Client,
    ConfigurationError,
    Finished,
    Guarantee,
    Hooks,
    InvalidRequest,
    ReasoningDelta,
    Resumed,
    RetryPolicy,
    Rewound,
    Started,
    StreamBusy,
    StreamCancelled,
    StreamClosed,
    StreamError,
    StreamExists,
    StreamInterrupted,
    StreamUnknown,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    UsageReport,
)
from holystream.journal import JournalState, MemoryJournal, Outcome
from holystream.journal.sqlite import SQLiteJournal
from holystream.recovery import from_journal, let_go
from holystream.resume.checkpoint import Recorded
from holystream.simulator import Script

QUESTION = "How does an answer arrive?"
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
ARGUMENTS = json.dumps({"where": "Zürich \N{SNOW CAPPED MOUNTAIN}", "days": [1, 2]})


def body(prompt=QUESTION, **others):
    messages = [{"role": "user", "content": prompt}]
    return {"model": "sim", "messages": messages, **others}


def left(client, until, *, prompt=QUESTION, stream_id="s", **options):
    """Read until an event that is wanted, and let go; return the text so far."""
    text = ""
    with client.stream(prompt, stream_id=stream_id, **options) as stream:
        for event in stream:
            text += str(event)
            if until(event, text):
                break
    return text


def texts(size):
    """Read until the text has so many characters."""
    return lambda _, text: len(text) >= size


def kinds(kind):
    """Read until an event of a kind."""
    return lambda event, _: isinstance(event, kind)


GREEDY = {"temperature": 0}
NAMED = {"temperature": 1, "extra_headers": {"X-Simulator": str(Script(ids="named"))}}


def test_the_rest_behind_what_was_printed(sim, client):
    printed = left(client, texts(20), **GREEDY)
    with client.resume("s", after=len(printed)) as stream:
        rest = "".join(stream.text_stream)
    assert printed + rest == sim.answer(body(**GREEDY)).text
    assert stream.completion.guarantee is Guarantee.REPLAYED
    assert stream.completion.text == printed + rest
    assert stream.stream_id == "s"


def test_the_whole_by_default(sim, client):
    left(client, texts(20), **GREEDY)
    assert client.resume("s").get_final_text() == sim.answer(body(**GREEDY)).text


def test_every_length_that_a_caller_may_have(sim, client, journal):
    whole = sim.answer(body(**GREEDY)).text
    left(client, texts(30), **GREEDY)
    for after in range(31):
        with client.resume("s", after=after) as stream:
            first = next(event for event in stream if isinstance(event, TextDelta))
            assert whole.startswith(first.text, after)
            assert first.offset == after
        assert journal.meta("s").state is JournalState.ABANDONED


def test_a_stream_that_was_only_begun(sim, client, journal):
    request = Recorded(
        provider="openai-compatible",
        path="/chat/completions",
        body=body(stream=True, temperature=0),
        model="sim",
        choices=1,
        deterministic=True,
        resume=("replay",),
        min_guarantee=None,
    )
    journal.release(journal.create("s", request=request.encode(), ttl=60.0))
    completion = client.resume("s").get_final_completion()
    assert completion.text == sim.answer(body(**GREEDY)).text
    assert completion.guarantee is Guarantee.SINGLE


def test_before_the_first_word_it_is_asked_again(sim, client):
    assert left(client, kinds(holystream.Connected), temperature=1) == ""
    completion = client.resume("s").get_final_completion()
    assert completion.text == sim.generations[-1].text
    assert completion.guarantee is Guarantee.SINGLE


def test_what_was_only_thought_is_thought_anew(sim, connect, gate):
    client = connect(model="reasoner")
    sim.play(Script(gate=gate))
    gate.release(3)
    assert left(client, kinds(ReasoningDelta), temperature=1) == ""
    with client.resume("s") as stream:
        events = list(stream)
    assert stream.completion.text == sim.generations[-1].text
    assert stream.completion.guarantee is Guarantee.SINGLE
    thoughts = [event for event in events if isinstance(event, ReasoningDelta)]
    assert thoughts[0].offset == 0
    assert {event.segment for event in thoughts} == {0, 1}
    assert (
        stream.completion.choices[0].reasoning == sim.generations[-1].answer.reasoning
    )


@pytest.mark.parametrize("pieces", range(1, 8))
def test_a_tool_call_under_way_is_finished_by_the_cursor(sim, client, gate, pieces):
    prompt = f"call:look {ARGUMENTS}"
    seen = []

    def until(event, _):
        seen.append(isinstance(event, ToolCallDelta))
        return sum(seen) == pieces

    sim.play(Script(gate=gate, ids="named"))
    gate.release(1 + pieces)
    left(client, until, prompt=prompt, tools=TOOLS, temperature=1)
    with client.resume("s") as stream:
        events = list(stream)
    (call,) = [event for event in events if isinstance(event, ToolCall)]
    assert (call.name, call.arguments_json) == ("look", ARGUMENTS)
    assert stream.completion.guarantee is Guarantee.VERBATIM
    assert len(sim.generations) == 1


def test_half_a_call_that_nobody_kept_is_not_guessed(sim, client, gate):
    sim.play(Script(gate=gate))
    gate.release(4)
    prompt = f"call:look {ARGUMENTS}"
    left(client, kinds(ToolCallDelta), prompt=prompt, tools=TOOLS, temperature=1)
    with client.resume("s") as stream:
        (call,) = [event for event in stream if isinstance(event, ToolCall)]
    assert call.arguments_json == ARGUMENTS
    assert stream.completion.guarantee is Guarantee.SINGLE


HALVES = "\N{ROCKET}a\N{SNOW CAPPED MOUNTAIN}\N{ROCKET}b\N{ROCKET}cd"


@pytest.mark.parametrize("events", range(1, 11))
def test_half_a_character_waits_for_its_other_half(sim, client, events):
    script = Script(ids="named", split_surrogates=True)
    blocks = sim.body(body(f"echo:{HALVES}"), script).split(b"\n\n")
    end = sum(len(block) + 2 for block in blocks[:events])
    sim.play(dataclasses.replace(script, cut_at=end))
    printed = ""
    with (
        client.stream(
            f"echo:{HALVES}", stream_id="s", resume=(), retry=RetryPolicy(attempts=1)
        ) as stream,
        contextlib.suppress(StreamError),
    ):
        for event in stream:
            printed += str(event)
    assert HALVES.startswith(printed)
    with client.resume("s", after=len(printed), resume=("cursor",)) as stream:
        rest = "".join(stream.text_stream)
    assert printed + rest == stream.completion.text == HALVES
    earned = {Guarantee.VERBATIM} if printed else {Guarantee.VERBATIM, Guarantee.SINGLE}
    assert stream.completion.guarantee in earned


def test_a_finish_reason_without_an_end_is_the_end(sim, client):
    script = Script(usage="finish", stall_at=10**6)
    whole = sim.answer(body(**GREEDY)).text
    sim.play(script)
    printed = left(client, kinds(UsageReport), **GREEDY)
    assert printed == whole
    asked = len(sim.requests)
    with client.resume("s", after=len(printed)) as stream:
        assert "".join(stream.text_stream) == ""
    assert stream.completion.text == whole
    assert stream.completion.guarantee is Guarantee.SINGLE
    assert len(sim.requests) == asked, "nothing is asked for again"


def test_killed_between_the_last_event_and_the_end(sim, client, journal, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(journal, "finish", die)
        stream = client.stream(QUESTION, stream_id="s", **GREEDY)
        with pytest.raises(KeyboardInterrupt):
            stream.until_done()
    assert journal.meta("s").outcome is None
    asked = len(sim.requests)
    completion = client.resume("s").get_final_completion()
    assert completion.text == sim.answer(body(**GREEDY)).text
    assert journal.meta("s").outcome is Outcome.DONE
    assert len(sim.requests) == asked


def test_a_finished_stream_is_told_again_and_again(sim, client):
    whole = client.stream(QUESTION, stream_id="s", **GREEDY).get_final_text()
    for after in (0, 7, len(whole)):
        stream = client.resume("s", after=after)
        assert "".join(stream.text_stream) == whole[after:]
        assert stream.completion.text == whole
        assert stream.state is holystream.StreamState.DONE
    assert len(sim.requests) == 1
    with pytest.raises(InvalidRequest, match="beyond the"):
        client.resume("s", after=len(whole) + 1)
    with pytest.raises(InvalidRequest, match="not what was recorded"):
        client.resume("s", partial_text=whole + "x")


def test_a_cancelled_stream_stays_cancelled(client, journal):
    stream = client.stream(QUESTION, stream_id="s", **GREEDY)
    printed = ""
    for event in stream:
        printed += str(event)
        if len(printed) > 20:
            stream.cancel()
            break
    assert journal.meta("s").outcome is Outcome.CANCELLED
    again = client.resume("s")
    pieces = []
    with pytest.raises(StreamCancelled) as caught:
        pieces.extend(again.text_stream)
    told = "".join(pieces)
    assert told.startswith(printed)
    assert caught.value.partial_text == told
    assert caught.value.stream_id == "s"


def test_a_stream_that_was_closed_can_be_cancelled_by_the_next(client, journal):
    left(client, texts(20), **GREEDY)
    client.resume("s").close()
    assert journal.meta("s").state is JournalState.ABANDONED
    client.resume("s").cancel()
    assert journal.meta("s").outcome is Outcome.CANCELLED


def test_a_refused_request_is_refused_for_good(sim, client, journal):
    sim.play(Script(status=400))
    with pytest.raises(holystream.BadRequest) as caught:
        client.stream(QUESTION, stream_id="s").until_done()
    assert journal.meta("s").outcome is Outcome.FAILED
    with pytest.raises(holystream.BadRequest) as again:
        client.resume("s").until_done()
    assert again.value.message == caught.value.message
    assert len(sim.requests) == 1


def test_what_was_not_answered_can_be_asked_again(sim, client, journal):
    sim.play(Script(status=503, times=4))
    with pytest.raises(holystream.Overloaded):
        client.stream(QUESTION, stream_id="s", **GREEDY).until_done()
    assert journal.meta("s").state is JournalState.ABANDONED
    assert client.resume("s").get_final_text() == sim.answer(body(**GREEDY)).text


def test_a_stream_that_never_had_its_turn_can_be_resumed(connect, sim, journal):
    pool = holystream.PrioritySemaphore(1, max_queue=0)
    client = connect(pool=pool)
    with pool.acquire(), pytest.raises(holystream.QueueFull):
        client.stream(QUESTION, stream_id="s", **GREEDY).until_done()
    assert journal.meta("s").state is JournalState.ABANDONED
    assert client.resume("s").get_final_text() == sim.answer(body(**GREEDY)).text


def test_an_unknown_stream(client):
    with pytest.raises(StreamUnknown, match="'nobody'"):
        client.resume("nobody")


def test_another_provider_is_told_and_claims_nothing(connect, client, journal):
    left(client, texts(20), **GREEDY)
    fence = journal.meta("s").fence
    with pytest.raises(ConfigurationError, match="begun with provider='openai-com"):
        connect(provider="vllm").resume("s")
    assert journal.meta("s").fence == fence
    assert journal.meta("s").state is JournalState.ABANDONED


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"after": 10**9}, "beyond the"),
        ({"after": -1}, "after must be"),
        ({"partial_text": "another text"}, "not what was recorded"),
        ({"partial_text": 5}, "partial_text must be a str, not int"),
        ({"partial_text": "abc", "after": 2}, "do not say the same"),
        ({"stop": ["x"]}, "stop= goes with a resume token"),
        ({"priority": "some"}, "priority"),
        ({"extra_headers": {"a b": "c"}}, "extra_headers"),
        ({"on_event": 5}, "on_event"),
    ],
)
def test_a_wrong_argument_leaves_it_for_another(client, journal, options, complaint):
    left(client, texts(20), **GREEDY)
    with pytest.raises(InvalidRequest, match=complaint):
        client.resume("s", **options)
    assert journal.meta("s").state is JournalState.ABANDONED
    client.resume("s").until_done()


def test_without_a_journal_there_is_nothing_to_resume(sim):
    with (
        client_for(sim.base_url) as client,
        pytest.raises(ConfigurationError, match="journal="),
    ):
        client.resume("s")


def test_an_id_is_taken_once(client, journal):
    left(client, texts(20), **GREEDY)
    for best_effort in (False, True):
        with (
            Client(
                KEY,
                base_url="http://127.0.0.1:9/v1",
                model="sim",
                journal=journal,
                journal_best_effort=best_effort,
            ) as other,
            pytest.raises(StreamExists, match=r"resume that one\. Nothing was sent"),
        ):
            other.stream(QUESTION, stream_id="s").until_done()


class TestTwoAtOnce:
    def test_one_wins_and_the_other_is_told(self, client, journal, path):
        left(client, texts(20), **GREEDY)
        with SQLiteJournal(path) as other:
            winner = client.resume("s")
            for each in (journal, other):
                with pytest.raises(StreamBusy):
                    client.resume("s", journal=each)
            winner.until_done()
            assert client.resume("s", journal=other).get_final_text()

    def test_of_several_processes_one_writes(self, sim, nursery, client, journal, path):
        left(client, texts(20), **GREEDY)
        children = [
            nursery.start(
                "resume",
                client={"base_url": sim.base_url, "journal": str(path)},
                which="s",
                extra_headers={"X-Simulator": "pace=0.002"},
            )
            for _ in range(6)
        ]
        ended = [(child.wait(), child.text) for child in children]
        whole = sim.answer(body(**GREEDY)).text
        # Who comes behind the end has the whole as well, from the journal.
        assert set(ended) <= {(0, whole), (3, "\n!StreamBusy")}
        assert (0, whole) in ended
        events = journal.read("s", limit=10**6).events
        assert "".join(map(str, events)) == whole
        assert sum(isinstance(event, Finished) for event in events) == 1

    def test_one_that_ended_meanwhile_is_handed_over(self, sim, client, journal, path):
        left(client, texts(20), **GREEDY)
        whole = sim.answer(body(**GREEDY)).text

        class Slow(SQLiteJournal):
            def claim(self, stream_id):
                client.resume(stream_id).until_done()
                return super().claim(stream_id)

        with Slow(path) as slow:
            assert client.resume("s", journal=slow).get_final_text() == whole

    def test_an_unopened_one_that_is_forgotten_lets_go(self, client, journal):
        left(client, texts(20), **GREEDY)
        client.resume("s")
        gc.collect()
        assert client.resume("s").get_final_text()

    def test_an_open_one_that_is_forgotten_lets_go(self, sim, client):
        whole = sim.answer(body(**GREEDY)).text
        streams = [client.stream(QUESTION, stream_id="s", **GREEDY)]
        next(streams[0].text_stream)
        with pytest.warns(ResourceWarning, match="dropped before its end"):
            streams.clear()
        gc.collect()
        assert client.resume("s").get_final_text() == whole


class TestWithdrawn:
    """A text that was begun anew, and callers that have the one or the other."""

    @pytest.fixture
    def begun_anew(self, sim, client):
        """Return the text that was withdrawn, and what came of the next."""
        sim.play(Script(cut_at=6000))
        discarded = None
        with client.stream(QUESTION, stream_id="s", resume=("restart",)) as stream:
            for event in stream:
                if isinstance(event, Rewound):
                    discarded = event.discarded
                if discarded and len(stream.partial_text) > 30:
                    break
        assert discarded
        return discarded, stream.partial_text

    def test_the_whole_is_the_new_one(self, sim, client, begun_anew):
        stream = client.resume("s", resume=("restart",))
        with stream:
            text = ""
            for event in stream:
                text = "" if isinstance(event, Rewound) else text + str(event)
        assert text == stream.completion.text == sim.generations[-1].text
        assert stream.completion.guarantee is Guarantee.RESTARTED

    def test_a_length_is_refused(self, client, journal, begun_anew):
        with pytest.raises(InvalidRequest, match="begun anew"):
            client.resume("s", after=10)
        assert journal.meta("s").state is JournalState.ABANDONED

    def test_who_has_the_old_text_is_told(self, client, begun_anew):
        discarded, new = begun_anew
        for old in (discarded, discarded[:25]):
            with client.resume("s", partial_text=old) as stream:
                events = iter(stream)
                assert isinstance(next(events), Started)
                assert next(events) == Rewound(offset=0, discarded=old)
                text = ""
                while len(text) < len(new):
                    text += str(next(events))
                assert text == new

    def test_who_has_the_new_text_goes_on(self, client, begun_anew):
        _, new = begun_anew
        with client.resume("s", partial_text=new[:20]) as stream:
            first = next(event for event in stream if isinstance(event, TextDelta))
            assert new.startswith(first.text, 20)


class TestLag:
    """`checkpoint_every=` and `checkpoint_interval=`: fewer commits, a true prefix."""

    def stored(self, journal):
        return "".join(map(str, journal.read("s").events))

    @pytest.mark.parametrize("size", [1, 5, 40, 160])
    def test_no_more_is_missing_than_was_allowed(self, sim, client, journal, size):
        sim.play(Script(pace=0.0001))
        text = ""
        stream = client.stream(QUESTION, stream_id="s", checkpoint_every=50, **GREEDY)
        with stream:
            for event in stream:
                text += str(event)
                stored = self.stored(journal)
                assert stream.partial_text.startswith(stored)
                assert len(stream.partial_text) - len(stored) < 50
                if len(text) >= size:
                    break
        assert self.stored(journal) == stream.partial_text, "a close stores it"

    def lost(self, client, journal, size, **options):
        """Lose the process, and with it what was not stored; return its text."""
        text = ""
        stream = client.stream(
            QUESTION, stream_id="s", checkpoint_every=10**6, **GREEDY, **options
        )
        for event in stream:
            text += str(event)
            if len(text) >= size:
                break
        # As a kill does: nothing is stored behind this, and the claim lapses.
        stream._driver._recorder._held.clear()
        stream.close()
        assert self.stored(journal) == ""
        return text

    def test_the_text_that_the_caller_has_counts(self, sim, client, journal):
        text = self.lost(client, journal, 60)
        with pytest.raises(InvalidRequest, match=r"beyond the 0 .* partial_text="):
            client.resume("s", after=len(text))
        with client.resume("s", partial_text=text) as stream:
            assert text + "".join(stream.text_stream) == sim.answer(body(**GREEDY)).text
        assert stream.completion.guarantee is Guarantee.REPLAYED
        assert self.stored(journal) == stream.completion.text

    def test_it_is_stored_before_anything_else(self, client, journal):
        text = self.lost(client, journal, 60)
        client.resume("s", partial_text=text).close()
        assert self.stored(journal) == text

    def test_a_text_of_somebody_else_is_refused_at_the_seam(self, client, journal):
        text = self.lost(client, journal, 60)
        with (
            client.resume("s", partial_text=text[:-1] + "#") as stream,
            pytest.raises(StreamInterrupted, match="not the answer"),
        ):
            stream.until_done()

    def test_a_whole_tool_call_does_not_lag(self, client, journal):
        prompt = f"call:look {ARGUMENTS} call:look {{}}"
        stream = client.stream(
            prompt, stream_id="s", tools=TOOLS, checkpoint_every=10**6, **GREEDY
        )
        with stream:
            for event in stream:
                if isinstance(event, ToolCall):
                    assert event in journal.read("s").events
                    break
            else:
                pytest.fail("no call came")

    def test_nor_does_a_withdrawal(self, sim, client, journal):
        sim.play(Script(cut_at=6000))
        stream = client.stream(
            QUESTION, stream_id="s", checkpoint_every=10**6, resume=("restart",)
        )
        with stream:
            for event in stream:
                if isinstance(event, Rewound):
                    assert event in journal.read("s").events
                    break

    def test_nor_does_a_second_answer(self, client, journal):
        stream = client.stream(
            QUESTION, stream_id="s", n=2, checkpoint_every=10**6, **GREEDY
        )
        with stream:
            for event in stream:
                if isinstance(event, TextDelta) and event.index == 1:
                    assert any(
                        isinstance(stored, TextDelta) and stored.index == 1
                        for stored in journal.read("s").events
                    )
                    break


def test_callbacks_are_told_what_was_recorded(client, sim):
    left(client, texts(20), **GREEDY)
    told = []
    hooks = Hooks(content=told.append)
    stream = client.resume("s", on_event=hooks)
    assert stream.get_final_text() == "".join(told) == sim.answer(body(**GREEDY)).text


def test_an_opened_one_has_everything_still_to_come(sim, client):
    left(client, texts(20), **GREEDY)
    with client.resume("s").open() as stream:
        events = list(stream)
    assert isinstance(events[0], Started)
    assert sum(isinstance(event, Started) for event in events) == 1
    assert sum(isinstance(event, Resumed) for event in events) == 1
    assert "".join(map(str, events)) == sim.answer(body(**GREEDY)).text


def test_a_closed_one_hands_over_nothing(client):
    left(client, texts(20), **GREEDY)
    stream = client.resume("s")
    stream.close()
    with pytest.raises(StreamClosed):
        next(iter(stream))


def test_what_it_was_begun_with_holds_on(client):
    left(client, texts(20), resume=("restart",), min_guarantee=Guarantee.SINGLE)
    with client.resume("s") as stream, pytest.raises(holystream.GuaranteeNotMet):
        stream.until_done()
    with client.resume("s", min_guarantee=Guarantee.RESTARTED) as stream:
        stream.until_done()
    assert stream.completion.guarantee is Guarantee.RESTARTED


def test_no_way_to_go_on_keeps_it_for_another(client, journal):
    printed = left(client, texts(20), temperature=1)
    with client.resume("s") as stream, pytest.raises(StreamInterrupted) as caught:
        stream.until_done()
    assert caught.value.partial_text.startswith(printed)
    assert caught.value.resume_token
    assert journal.meta("s").state is JournalState.ABANDONED


def test_a_state_that_nobody_stood_in_is_damage(client, journal):
    left(client, texts(20), **GREEDY)
    claim = journal.claim("s")
    journal.append(claim, [], cursor=b"\x99garbage")
    journal.release(claim)
    with pytest.raises(holystream.JournalCorrupt, match=r"Journal\.read"):
        client.resume("s")
    assert journal.meta("s").state is JournalState.ABANDONED


def test_a_failure_that_was_not_recorded_is_one_all_the_same(client, journal):
    left(client, texts(20), **GREEDY)
    journal.finish(journal.claim("s"), Outcome.FAILED, b"")
    with client.resume("s") as stream, pytest.raises(StreamError, match="not recorded"):
        stream.until_done()


def test_neither_key_nor_header_is_stored(client, journal, path):
    headers = {"X-Secret": "headers-stay-home"}
    left(client, texts(20), prompt="a prompt", extra_headers=headers, **GREEDY)
    journal.close()
    stored = b"".join(
        file.read_bytes() for file in path.parent.glob("streams.db*") if file.is_file()
    )
    assert b"a prompt" in stored
    assert KEY.encode() not in stored
    assert b"headers-stay-home" not in stored


def test_no_record_shows_content(client, journal):
    printed = left(client, texts(20), prompt="a prompt", **GREEDY)
    meta = journal.meta("s")
    found = from_journal(journal, "s", client._provider, after=0, partial_text=None)
    let_go(journal, found.claim)
    for record in (
        meta,
        found,
        Recorded.decode(meta.request),
        found.checkpoint,
        client.resume("s"),
    ):
        assert "a prompt" not in repr(record)
        assert printed[:5] not in repr(record)


class TestDropped:
    """A stream that is forgotten without being closed is free for the next who asks."""

    @pytest.fixture
    def dropped(self, sim, connect, gate):
        """Forget a stream, of a client that is not heard of again."""
        client = connect()
        sim.play(Script(gate=gate))
        gate.release(5)
        streams = [client.stream(QUESTION, stream_id="s", **GREEDY)]
        next(streams[0].text_stream)
        with pytest.warns(ResourceWarning, match="was dropped"):
            streams.clear()
        return client

    def test_another_client_of_the_journal_gets_it(self, sim, connect, dropped):
        whole = sim.answer(body(**GREEDY)).text
        assert connect().resume("s").get_final_text() == whole

    def test_so_does_one_with_a_journal_of_its_own(self, sim, connect, dropped, path):
        with SQLiteJournal(path) as other:
            whole = sim.answer(body(**GREEDY)).text
            assert connect(journal=other).resume("s").get_final_text() == whole

    @pytest.mark.parametrize("own", [True, False])
    def test_it_is_not_shown_as_live(self, dropped, journal, path, own):
        with SQLiteJournal(path) as other:
            asked = journal if own else other
            assert asked.meta("s").state is JournalState.ABANDONED
            (info,) = asked.streams()
            assert info.owner is None

    def test_who_writes_on_lets_others_have_it(self, sim, journal, dropped, nursery):
        claim = journal.create("t", request=b"", ttl=60.0)
        journal.append(claim, [TextDelta("on", 0)])
        child = nursery.start(
            "resume",
            client={"base_url": sim.base_url, "journal": str(journal._database.path)},
            which="s",
        )
        assert (child.wait(), child.text) == (0, sim.answer(body(**GREEDY)).text)

    def test_with_its_client_and_journal_too(self, sim, path, gate, nursery):
        client = client_for(sim.base_url, journal=path)
        sim.play(Script(gate=gate))
        gate.release(5)
        streams = [client.stream(QUESTION, stream_id="s", **GREEDY)]
        next(streams[0].text_stream)
        del client
        with pytest.warns(ResourceWarning, match="was dropped"):
            streams.clear()
        gc.collect()
        child = nursery.start(
            "resume",
            client={"base_url": sim.base_url, "journal": str(path)},
            which="s",
        )
        assert (child.wait(), child.text) == (0, sim.answer(body(**GREEDY)).text)


class TestAskedToStop:
    """`Journal.request_stop` ends a stream, whoever runs it."""

    def test_by_another_process_with_the_next_commit(
        self, sim, connect, journal, path, gate
    ):
        client = connect()
        sim.play(Script(gate=gate))
        gate.release(5)
        with client.stream(QUESTION, stream_id="s", **GREEDY) as stream:
            next(stream.text_stream)
            with SQLiteJournal(path) as other:
                other.request_stop("s", "a viewer")
            gate.release(1)
            with pytest.raises(StreamCancelled, match="'a viewer' asked") as caught:
                stream.until_done()
        events = journal.read("s").events
        assert caught.value.partial_text == "".join(map(str, events))
        assert journal.meta("s").outcome is Outcome.CANCELLED
        assert client.metrics().streams.streams["cancelled"] == 1
        assert client.pool.statistics().in_use == 0
        with client.resume("s") as again, pytest.raises(StreamCancelled):
            again.until_done()

    def test_of_another_process(self, sim, journal, path, nursery):
        child = nursery.start(
            "stream",
            client={"base_url": sim.base_url, "journal": str(path)},
            prompt="echo:" + "word " * 5000,
            stream_id="s",
            extra_headers={"X-Simulator": "pace=0.002"},
        )
        assert child.printed(20)
        journal.request_stop("s", "a viewer")
        assert child.wait() == 3
        assert child.text.endswith("\n!StreamCancelled")
        assert journal.meta("s").outcome is Outcome.CANCELLED

    def test_while_nobody_had_it(self, sim, client, journal):
        printed = left(client, texts(20), **GREEDY)
        journal.request_stop("s", "a viewer")
        asked = len(sim.requests)
        told = []
        with client.resume("s") as stream, pytest.raises(StreamCancelled):
            told.extend(stream.text_stream)
        assert "".join(told).startswith(printed)
        assert len(sim.requests) == asked
        assert journal.meta("s").outcome is Outcome.CANCELLED

    def test_too_late_for_an_answer_that_is_whole(self, sim, connect):
        class Slow(MemoryJournal):
            def append(self, claim, events, *, cursor=None):
                if any(isinstance(event, Finished) for event in events):
                    self.request_stop("s", "a viewer")
                super().append(claim, events, cursor=cursor)

        journal = Slow()
        stream = connect(journal=journal).stream(QUESTION, stream_id="s", **GREEDY)
        assert stream.get_final_text() == sim.answer(body(**GREEDY)).text
        assert journal.meta("s").outcome is Outcome.DONE
