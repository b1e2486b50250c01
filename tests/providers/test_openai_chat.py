"""Chat completion streams as real servers send them: texts, choices, ends."""

import json

import pytest
from chat_chunks import (
    DONE,
    OPENAI,
    PROFILE,
    USAGE,
    calls,
    choice,
    chunk,
    finish,
    messages,
    new_decoder,
    run,
    said,
    text,
    tool,
)

from holystream.events import (
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    Usage,
    UsageReport,
)
from holystream.providers.base import ChatRequest
from holystream.providers.chunks import read_identity
from holystream.providers.openai_chat import OpenAIChat
from holystream.wire.faults import FaultKind
from holystream.wire.sse import ServerSentEvent


def test_an_answer_as_openai_documents_it():
    decoder, events = run(*OPENAI)
    usage = Usage(prompt_tokens=9, completion_tokens=3, total_tokens=12)
    assert events == [
        TextDelta("Hel", 0, 0, 0, OPENAI[1]),
        TextDelta("lo \U0001f600 ", 3, 0, 0, OPENAI[2]),
        TextDelta("you", 8, 0, 0, OPENAI[3]),
        UsageReport(usage=usage),
    ]
    assert decoder.failure is None
    assert decoder.ended
    assert decoder.finished
    assert decoder.complete(clean_end=False)
    assert decoder.finish_reasons == {0: "stop"}
    assert decoder.usage == usage
    assert (decoder.model, decoder.response_id) == ("m-2024", "chatcmpl-1")


@pytest.mark.parametrize("more", ["", ',"x":NaN'])
def test_text_where_older_servers_have_it_is_text(more):
    piece = f'{{"choices":[{{"index":0,"text":" you"{more}}}]}}'.encode()
    decoder, events = run(text("Hello"), piece, finish(), DONE)
    assert said(events) == "Hello you"
    assert decoder.complete(clean_end=True)


@pytest.mark.parametrize("cut", range(len(OPENAI)))
def test_it_is_complete_from_the_finish_reason_on(cut):
    decoder, _ = run(*OPENAI[:cut])
    assert decoder.finished is (cut > 4)
    assert decoder.complete(clean_end=True) is (cut > 4)
    assert decoder.complete(clean_end=False) is (cut > 4)


@pytest.mark.parametrize("cut", range(len(OPENAI) + 1))
def test_a_server_that_stops_early_needs_an_end_as_well(cut):
    decoder, _ = run(*OPENAI[:cut], early_stop=True)
    assert decoder.complete(clean_end=True) is (cut > 4)
    assert decoder.complete(clean_end=False) is (cut == len(OPENAI))


def test_an_end_mark_alone_proves_nothing():
    decoder, _ = run(text("Hel"), DONE)
    assert decoder.ended
    assert not decoder.finished
    assert not decoder.complete(clean_end=True)
    assert not run(DONE)[0].complete(clean_end=True)
    assert not run()[0].complete(clean_end=True)


def test_the_segment_is_on_every_delta():
    decoder = new_decoder(segment=3)
    events = decoder.decode(
        messages(
            text("a"),
            text("b"),
            chunk(choice(reasoning="r", refusal="no")),
            tool(id="1", name="f", arguments="{}"),
        )
    )
    assert [event.segment for event in events] == [3] * 5


def test_nothing_is_read_behind_the_end_mark():
    decoder, events = run(text("a"), finish(), b" [DONE] ", text("b"), b"garbage")
    assert said(events) == "a"
    assert decoder.failure is None
    assert decoder.decode(messages(text("c"))) == []


def test_reading_goes_on_behind_a_finish_reason():
    decoder, events = run(text("a"), finish("stop"), text("b"), finish("length"))
    assert said(events) == "ab"
    assert decoder.finish_reasons == {0: "length"}


@pytest.mark.parametrize("more", [text("b"), chunk(choice(reasoning="b"))])
def test_content_behind_a_finish_reason_needs_an_end_of_its_own(more):
    decoder, _ = run(text("a"), finish(), more)
    # A body that was cut where nobody can see it looks like that.
    assert not decoder.complete(clean_end=True)
    whole, _ = run(text("a"), finish(), more, DONE)
    assert whole.complete(clean_end=False)
    decoder.decode(messages(finish()))
    assert decoder.complete(clean_end=True)
    # Once it said so too early.
    assert not decoder.complete(clean_end=False)
    decoder.decode(messages(text("c")))
    assert not decoder.complete(clean_end=True)


def test_nothing_but_content_does():
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    for more in (
        text(""),
        chunk(choice(role="assistant", content="")),
        chunk(usage=usage),
        chunk(choice(), usage=usage),
        chunk(choice(content=None)),
        b"",
    ):
        decoder, _ = run(text("a"), finish(), more)
        assert decoder.complete(clean_end=True)
        assert decoder.complete(clean_end=False)


def test_several_choices_have_their_own_offsets_and_ends():
    decoder, events = run(
        text("a", 0),
        text("xy", 1),
        chunk(choice(index=0, content="b"), choice(index=1, content="z")),
        finish("stop", 1),
        text("c", 0),
        n=2,
    )
    assert (said(events), said(events, index=1)) == ("abc", "xyz")
    assert not decoder.finished, "choice 0 goes on"
    decoder.decode(messages(finish("length", 0)))
    assert decoder.finished
    assert decoder.finish_reasons == {0: "length", 1: "stop"}


def test_a_choice_that_never_came_is_missed_unless_the_server_ended_itself():
    decoder, _ = run(text("a"), finish(), n=2)
    assert not decoder.complete(clean_end=True)
    decoder.decode(messages(DONE))
    assert decoder.complete(clean_end=True)


@pytest.mark.parametrize("index", [1, 2, 127, 10**9])
def test_the_only_answer_is_the_first_whatever_its_index(index):
    decoder, events = run(
        text("a", index), text("b", index), text("c", index), finish(index=index), DONE
    )
    assert said(events) == "abc"
    assert {event.index for event in events} == {0}
    assert decoder.finished
    assert decoder.finish_reasons == {0: "stop"}


@pytest.mark.parametrize("end", [0, 1, 2])
def test_an_answer_whose_parts_are_numbered_is_one(end):
    """As litellm gave those of Anthropic and Bedrock: the block's number as index."""
    decoder, events = run(
        chunk(choice(index=0, reasoning="hm")),
        text("a", 1),
        text("b", 1),
        tool(0, id="1", name="f", arguments="{}", choice_index=2),
        finish("tool_calls", index=end),
        DONE,
    )
    assert said(events, ReasoningDelta) == "hm"
    assert said(events) == "ab"
    assert calls(events) == [("1", "f", {})]
    assert decoder.finished
    assert decoder.finish_reasons == {0: "tool_calls"}


TWO_ANSWERS = {
    "side by side": [text("a"), text("b", 1), finish(), finish(index=1)],
    "the second is cut": [text("a"), text("b", 1), finish()],
    "the second begins": [text("b", 1), text("a"), finish()],
    "in one chunk": [chunk(choice(content="a"), choice(index=1, content="b"))],
    "one after the other": [text("a"), finish(), text("b", 1), finish(index=1)],
    "in fast text": [text("b", 7), *[text("a")] * 5],
    "two ends": [text("a"), finish(), finish("length", index=1)],
    "two calls": [
        tool(id="1", name="f", arguments="{}"),
        tool(id="2", name="g", arguments="{}", choice_index=1),
    ],
}


@pytest.mark.parametrize("data", TWO_ANSWERS.values(), ids=TWO_ANSWERS)
def test_two_answers_where_one_was_asked_for_are_never_taken_for_one(data):
    decoder, events = run(*data, DONE)
    assert said(events) in {"", "a", "b"}
    assert len(calls(events)) < 2
    assert decoder.failure.kind is FaultKind.MALFORMED
    assert "two answers" in decoder.failure.detail
    assert not decoder.complete(clean_end=True)


def test_another_process_knows_the_index_of_the_only_answer():
    decoder = new_decoder()
    decoder.decode(messages(text("a", 1)))
    request = ChatRequest(path="", body={}, model="m", choices=1, deterministic=False)
    heir = OpenAIChat(PROFILE).restored(request, decoder.state(), segment=1)
    assert heir.decode(messages(text("b", 1)))[0].text == "b"
    assert heir.decode(messages(text("c", 0))) == []
    assert "two answers" in heir.failure.detail


@pytest.mark.parametrize("index", [2, 10**9, -1, 10**50])
def test_an_index_beyond_the_answers_asked_for_is_malformed(index):
    decoder, events = run(text("a"), text("b", index), n=2)
    assert said(events) == "a"
    assert decoder.failure.kind is FaultKind.MALFORMED


@pytest.mark.parametrize("index", [-1, 2**31, 10**50])
def test_an_index_that_is_none_is_malformed(index):
    decoder, events = run(text("a", index), DONE)
    assert events == []
    assert decoder.failure.kind is FaultKind.MALFORMED


# Every way a healthy stream may differ: the same text must come out, complete.
AZURE_FIRST = {
    "id": "",
    "model": "",
    "object": "",
    "choices": [],
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}],
}


AZURE_NO_DELTA = {
    "index": 0,
    "finish_reason": None,
    "content_filter_results": {"hate": {"filtered": False}},
    "content_filter_offsets": {"check_offset": 5},
}


HEALTHY = {
    "finish_reason absent": [
        b'{"choices":[{"index":0,"delta":{"content":"Hi"}}]}',
        b'{"choices":[{"index":0,"delta":{"content":"!"},"finish_reason":"stop"}]}',
    ],
    "finish_reason empty (Ollama, sglang)": [
        chunk(choice(content="Hi", finish="")),
        chunk(choice(content="!", finish="")),
        chunk(choice(content="", finish="stop")),
    ],
    "content null on the role chunk (llama-server)": [
        chunk(choice(role="assistant", content=None)),
        text("Hi!"),
        finish(timings={"predicted_ms": 1.5}),
    ],
    "text on the finish chunk": [text("Hi"), chunk(choice(content="!", finish="stop"))],
    "index missing": [b'{"choices":[{"delta":{"content":"Hi!"}}]}', finish()],
    "index null": [text("Hi!", index=None), finish(index=None)],
    "an index of another type": [
        text("H", index="x"),
        text("i", index=1.5),
        text("!", index="9" * 5000),
        finish(index=False),
    ],
    "index as a string or a float": [text("Hi", index="0"), text("!", 0.0), finish()],
    "Azure": [
        json.dumps(AZURE_FIRST).encode(),
        chunk(choice(role="assistant", content="")),
        text("Hi!"),
        chunk(AZURE_NO_DELTA),
        finish(),
        chunk({**AZURE_NO_DELTA, "finish_reason": ""}),
        DONE,
    ],
    "delta null": [
        text("Hi!"),
        chunk({"index": 0, "delta": None, "finish_reason": None}),
        chunk({"index": 0, "delta": None, "finish_reason": "stop"}),
    ],
    "choices null, and null within it": [
        chunk(choices=None),
        chunk(None, choice(content="Hi!")),
        finish(),
    ],
    "error null": [text("Hi!", error=None), finish(error=None)],
    "an empty error": [text("Hi!", error={}), finish(error="")],
    "empty lists and strings where nothing is said": [
        chunk(
            choice(
                content="Hi!",
                tool_calls=[],
                reasoning_content="",
                refusal="",
                reasoning=None,
                function_call=None,
            )
        ),
        finish(),
    ],
    "NaN in logprobs": [
        b'{"choices":[{"delta":{"content":"Hi!"},"logprobs":{"content":[NaN]}}]}',
        finish(),
    ],
    "invalid UTF-8 elsewhere": [
        b'{"id":"\xff","choices":[{"delta":{"content":"Hi!"}}]}',
        finish(),
    ],
    "a byte order mark": [b"\xef\xbb\xbf" + text("Hi!"), finish()],
    "a line break inside a string": [
        text("Hi!", comment="a").replace(b'"a"', b'"\n"'),
        finish(),
    ],
    "names of other types": [text("Hi!", id=7, model=["m"]), finish(id=7)],
    "a finish reason of another type is none": [
        chunk(choice(content="Hi!", finish=False)),
        finish(),
    ],
    "content in parts (Mistral)": [
        chunk(choice(content=[{"type": "text", "text": "Hi"}])),
        chunk(choice(content=[{"type": "text", "text": "!"}, None])),
        finish(),
    ],
    "events with names": [
        ServerSentEvent(b'{"choices":[{"delta":{"content":"Hi"}}]}', "message"),
        ServerSentEvent(b'{"choices":[{"delta":{"content":"!"}}]}', "delta"),
        ServerSentEvent(b'{"choices":[{"delta":{},"finish_reason":"stop"}]}', "end"),
    ],
    "events of other kinds": [
        ServerSentEvent(b'{"type":"ping"}', "ping"),
        ServerSentEvent(b"not json", "comment"),
        ServerSentEvent(b"3", "progress"),
        text("Hi!"),
        b'{"moderation":{"flagged":false}}',
        b'{"type":"ping"}',
        b"{}",
        b"",
        b"  ",
        finish(),
    ],
    "a whole message in one event": [
        (
            b'{"choices":[{"index":0,"message":{"role":"assistant","content":"Hi!"},'
            b'"finish_reason":"stop"}]}'
        ),
    ],
    "a delta and a message": [
        chunk({**choice(content="Hi!"), "message": {"content": "Oh"}}),
        finish(),
    ],
    "a detail beside the choices": [
        text("Hi", detail="x").replace(b"null", b"NaN", 1),
        text("!", object="error"),
        finish(),
    ],
    "a summary at the end": [
        text("Hi!"),
        b'{"choices":[{"message":{"content":"Hi!"},"finish_reason":"stop"}]}',
    ],
    "the last event in another order": [
        text("Hi!"),
        b'{"usage":null,"choices":[{"finish_reason":"stop","delta":{},"index":0}]}',
    ],
}


@pytest.mark.parametrize("data", HEALTHY.values(), ids=HEALTHY)
def test_a_healthy_stream_of_another_shape(data):
    decoder, events = run(*data)
    assert said(events) == "Hi!"
    assert {type(event) for event in events} == {TextDelta}
    assert decoder.failure is None
    assert decoder.complete(clean_end=True)
    assert decoder.finish_reasons == {0: "stop"}


def test_the_names_come_from_the_first_chunk_that_has_choices():
    decoder, _ = run(
        json.dumps(AZURE_FIRST).encode(),
        text("a", id="first", model="one"),
        text("b", id="second", model="two"),
        b'{"id":"third","choices":[{"delta":{"content":"\\ud83d"}}]}',
    )
    assert (decoder.model, decoder.response_id) == ("one", "first")


@pytest.mark.parametrize("reason", ["length", "content_filter", "eos", "STOP", "end"])
def test_any_other_finish_reason_is_an_answer(reason):
    decoder, _ = run(text("a"), finish(reason))
    assert decoder.complete(clean_end=False)
    assert decoder.finish_reasons == {0: reason}


def test_names_that_are_empty_are_none():
    decoder, _ = run(text("a", id="", model=""))
    assert (decoder.model, decoder.response_id) == (None, None)


def test_whatever_else_a_chunk_of_text_holds_is_read_too():
    piece = {"index": 0, "id": "1", "function": {"name": "f", "arguments": "{}"}}
    _, events = run(
        text("."),
        chunk(choice(content="a", tool_calls=[piece])),
        chunk(choice(content="b", reasoning="r")),
        chunk(choice(content="c", reasoning_content="s")),
        chunk(choice(content="d", refusal="t")),
        chunk(choice(content="e", function_call={"arguments": " "})),
        chunk({**choice(content="f"), "usage": USAGE}),
        text("g", usage={**USAGE, "total_tokens": 13}),
        chunk(choice(content="h", finish="stop")),
    )
    assert said(events) == ".abcdefgh"
    assert said(events, ReasoningDelta) == "rs"
    assert said(events, RefusalDelta) == "t"
    assert [e.usage.total_tokens for e in events if type(e) is UsageReport] == [12, 13]
    assert calls(events) == [("1", "f", {})]
    assert events[-1].arguments_json == "{} "


def test_a_summary_does_not_repeat_a_tool_call():
    call = {"id": "1", "function": {"name": "f", "arguments": "{}"}}
    _, events = run(
        tool(0, id="1", name="f", arguments="{}"),
        chunk({"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}),
    )
    assert calls(events) == [("1", "f", {})]
    assert len(events) == 2


@pytest.mark.parametrize(
    "data",
    [
        b'{"id":"a","choices":[{"delta":{"content":"x"}}]}',
        rb'{"id":"a","choices":[{"delta":{"content":"\ud83d"}}]}',
        b'{"id":"a","choices":[{"delta":{"content":"\xff"}}]}',
        b'{"id":"a","choices":[],"x":NaN}',
    ],
)
def test_a_chunk_names_its_answer_whatever_else_it_holds(data):
    assert read_identity(data) == "a"


@pytest.mark.parametrize("data", [b"[DONE]", b"{", b"{}", b'{"id":4}', b'{"id":null}'])
def test_what_has_no_name_names_none(data):
    assert read_identity(data) is None
