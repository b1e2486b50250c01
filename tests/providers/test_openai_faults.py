"""Chat completion streams that fail, by what the server says or cannot say."""

import pytest
from chat_chunks import (
    COUNTED,
    DONE,
    OPENAI,
    PROFILE,
    SECRET,
    USAGE,
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

from holystream.errors import Phase
from holystream.events import UsageReport
from holystream.providers.openai_chat import OpenAIChat
from holystream.wire.faults import FaultKind
from holystream.wire.sse import ServerSentEvent


def test_nothing_is_read_behind_a_failure():
    decoder, events = run(text("a"), b'{"error":"e"}', text("b"), DONE)
    assert said(events) == "a"
    assert not decoder.ended
    failure = decoder.failure
    assert decoder.decode(messages(text("c"), b'{"error":"f"}')) == []
    assert decoder.failure is failure


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource"])
def test_a_finish_reason_that_means_failure(reason):
    data = chunk(choice(content="b", finish=reason))
    decoder, events = run(text("a"), data, DONE)
    assert said(events) == "ab"
    assert decoder.failure.kind is FaultKind.ERROR_EVENT
    assert decoder.failure.detail == f"finish_reason {reason!r}"
    assert decoder.failure.answer.body == data
    assert not decoder.complete(clean_end=True)


def test_a_failure_behind_a_finish_reason_undoes_it():
    decoder, _ = run(text("a"), finish(), b'{"error":{"message":"m"}}')
    assert not decoder.finished
    assert not decoder.complete(clean_end=True)


def other(content=None, *, finish=None, role="assistant", **fields):
    delta = {"content": content} if content is not None else {}
    if role is not None:
        delta["role"] = role
    return chunk(choice(finish=finish, **delta), id="chatcmpl-2", **fields)


OTHERS = {
    "introduced apart": [other(""), other("c", role=None)],
    "introduced without content": [other(), other("c", role=None)],
    "introduced by its text": [other("c"), other("d", role=None)],
    "with something between": [other(""), text(""), other("c", role=None)],
}


@pytest.mark.parametrize("sent", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("before", [OPENAI[:4], OPENAI[1:4]])
def test_another_answer_within_this_one_is_not_its_rest(sent, together, before):
    decoder = new_decoder()
    batches = [[*before, *sent, finish(), DONE]]
    if not together:
        batches = [[each] for each in batches[0]]
    events = [event for each in batches for event in decoder.decode(messages(*each))]
    assert said(events) == "Hello \U0001f600 you"
    assert decoder.failure.kind is FaultKind.MALFORMED
    assert "another answer" in decoder.failure.detail
    assert not decoder.complete(clean_end=True)


def named(*data, name="chatcmpl-2"):
    return [each.replace(b"chatcmpl-1", name.encode()) for each in data]


PAID = tool(name="pay", id="call_1", arguments='{"eur": 100}')
"""A whole call, which would be made twice."""
START = chunk(choice(role="assistant"))
SWITCHED = {
    "behind a finish reason": ([*OPENAI[:4], finish()], named(START, text("c"))),
    "with its end at once": (
        OPENAI[:4],
        named(chunk(choice(role="assistant", content="c", finish="stop"))),
    ),
    "by a tool call": ([START, PAID], named(START, PAID, finish("tool_calls"))),
    "behind a tool call": (
        [START, PAID, finish("tool_calls")],
        named(START, PAID, finish("tool_calls")),
    ),
    "in its reasoning": (
        [START, *[chunk(choice(reasoning_content=each)) for each in "ab"]],
        named(START, chunk(choice(reasoning_content="c")), text("d"), finish()),
    ),
    "by a refusal": ([START, text("a")], named(START, chunk(choice(refusal="No")))),
    "from the second chunk on": (
        [chunk(choice(role="assistant", content="a"))],
        named(START, text("b"), finish()),
    ),
    "where a role is in each": (
        [chunk(choice(role="assistant", content=each)) for each in "abcd"],
        named(*[chunk(choice(role="assistant", content=each)) for each in "ef"]),
    ),
}


@pytest.mark.parametrize(("first", "second"), SWITCHED.values(), ids=SWITCHED)
@pytest.mark.parametrize("together", [True, False])
def test_nor_is_one_that_goes_on_in_another_way(first, second, together):
    alone, expected = run(*first)
    assert alone.failure is None
    decoder = new_decoder()
    sent = [*first, *second, DONE]
    batches = [sent] if together else [[each] for each in sent]
    events = [event for each in batches for event in decoder.decode(messages(*each))]
    assert decoder.failure is not None
    assert "another answer" in decoder.failure.detail
    assert not decoder.complete(clean_end=True)
    kept = [each for each in events if type(each) is not UsageReport]
    assert len(kept) == len(expected), "nothing of the second one was told"


@pytest.mark.parametrize("index", [0, 1])
def test_nor_is_one_of_several(index):
    both = [chunk(choice(index=each, role="assistant")) for each in (0, 1)]
    begun = [text("a", each) for each in (0, 1)]
    decoder, events = run(
        *both, *begun, *named(both[index], text("b", index)), finish(), DONE, n=2
    )
    assert "another answer" in decoder.failure.detail
    assert said(events, index=index) == "a"


def numbered(*data):
    """What a server sends that gives each chunk an id of its own."""
    return [
        each.replace(b"chatcmpl-1", f"chunk-{number}".encode())
        for number, each in enumerate(data)
    ]


def spoken(content):
    return chunk(choice(role="assistant", content=content))


LEGITIMATE = {
    "an id for each chunk": numbered(*OPENAI[:-1]),
    "with a role each": numbered(spoken(""), spoken("a"), spoken("b"), finish()),
    "a role each": [spoken(""), spoken("a"), spoken("b"), text("c"), finish()],
    "an id and several parts each": numbered(
        *[
            chunk(
                choice(role="assistant", reasoning_content=each),
                choice(index=1, role="assistant", content=each),
            )
            for each in "abc"
        ],
        chunk(choice(index=1, finish="stop")),
    ),
    "no ids": [each.replace(b"chatcmpl-1", b"") for each in OPENAI[:-1]],
    "an id for the end": [*OPENAI[:4], other(finish="stop"), other(role=None)],
    "another id, no role": [*OPENAI[:4], other("c", role=None), finish()],
    "another id without text": [*OPENAI[:4], other(""), text("c"), finish()],
    "a role that comes late": [*OPENAI[:4], spoken(""), text("c"), finish()],
    "words of its own": [*OPENAI[:4], text('{"role": "x"}'), finish()],
}


@pytest.mark.parametrize("sent", LEGITIMATE.values(), ids=LEGITIMATE)
def test_ids_and_roles_that_mean_nothing_of_the_kind(sent):
    decoder, events = run(*sent)
    assert decoder.failure is None
    assert decoder.complete(clean_end=True)
    one_by_one = new_decoder()
    again = [event for each in sent for event in one_by_one.decode(messages(each))]
    assert said(again) == said(events)


def test_of_several_answers_each_may_have_its_own_id():
    decoder, events = run(
        text("a", id="c0"),
        text("b", id="c0"),
        chunk(choice(index=1, role="assistant", content=""), id="c1"),
        text("x", 1, id="c1"),
        finish(id="c0"),
        finish(index=1, id="c1"),
        n=2,
    )
    assert (said(events), said(events, index=1)) == ("ab", "x")
    assert decoder.complete(clean_end=False)


ERRORS = {
    "vLLM": b'{"error":{"message":"m","type":"InternalServerError","code":500}}',
    "litellm": b'{"error":{"message":"m","type":null,"param":null,"code":"500"}}',
    "a text": b'{"error":"CUDA out of memory"}',
    "Anthropic": b'{"type":"error","error":{"type":"overloaded_error","message":"m"}}',
    "a type without error": b'{"type":"error","message":"m"}',
    "an object of errors": b'{"object":"error","message":"m","code":400}',
    "FastAPI": b'{"detail":"Internal error"}',
    "FastAPI with a list": b'{"detail":[{"loc":["body"],"msg":"m"}],"choices":[]}',
    "without a name": b'{"message":"upstream died","code":500}',
    "with a code in words": b'{"code":"upstream_error","msg":"m"}',
    "with a status": b'{"status":503,"message":"m","choices":[]}',
    "with a number of its own": b'{"code":"1301","message":"m"}',
    "in a choice": (
        b'{"choices":[{"index":0,"delta":{},"error":{"message":"m","code":502},'
        b'"finish_reason":"stop"}]}'
    ),
    "in a choice, with NaN": b'{"choices":[{"error":"m","x":NaN,"delta":{}}]}',
    "with choices null": b'{"error":{"message":"m"},"choices":null}',
    "of another type": b'{"error":["m"]}',
    "with NaN": b'{"error":{"message":"m","code":NaN}}',
}


@pytest.mark.parametrize("data", ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("event", ["", "message", "failure"])
def test_an_error_inside_the_stream(data, event):
    decoder, events = run(text("a"), ServerSentEvent(data, event), DONE)
    assert said(events) == "a"
    failure = decoder.failure
    assert (failure.kind, failure.phase) == (FaultKind.ERROR_EVENT, Phase.BODY)
    assert (failure.answer.status, failure.answer.body) == (200, data)
    assert not decoder.ended
    assert not decoder.complete(clean_end=True)


@pytest.mark.parametrize(
    "data",
    [
        b'{"code":0,"message":"success"}',
        b'{"code":"200","msg":"OK"}',
        b'{"code":200,"message":"m"}',
        b'{"code":true,"message":"m"}',
        b'{"code":"ok","message":"m"}',
        b'{"status":"processing","message":"m"}',
        b'{"code":500}',
        b'{"message":"m"}',
    ],
)
def test_a_word_from_the_server_that_is_no_error(data):
    decoder, events = run(text("a"), data, text("b"), finish())
    assert said(events) == "ab"
    assert decoder.complete(clean_end=True)


@pytest.mark.parametrize("data", [b"{}", b"gone", b"[DONE]", text("x"), b"3"])
def test_an_event_named_error_is_one_whatever_it_holds(data):
    decoder, events = run(text("a"), text("b"), ServerSentEvent(data, "error"))
    assert said(events) == "ab"
    assert decoder.failure.kind is FaultKind.ERROR_EVENT
    assert decoder.failure.answer.body == data


def test_openrouter_ends_with_a_chunk_that_is_also_an_error():
    data = chunk(
        choice(content="last words", finish="error"),
        provider="openai",
        error={"code": "server_error", "message": "Provider disconnected"},
        usage=USAGE,
    )
    decoder, events = run(text("a "), data)
    assert said(events) == "a last words"
    assert decoder.failure.kind is FaultKind.ERROR_EVENT
    assert decoder.failure.answer.body == data
    assert decoder.usage == COUNTED
    assert decoder.finish_reasons == {}


BROKEN = {
    "cut JSON": b'{"choices":[{"delta":{"content":"s3cret',
    "no JSON": b"s3cret",
    "two values": b'{"choices":[]} {"s3cret":1}',
    "a string": b'"s3cret"',
    "a number": b"42",
    "null": b"null",
    "true": b"true",
    "an array": b'["s3cret"]',
    "choices as an object": b'{"choices":{"s3cret":1}}',
    "a choice that is a string": b'{"choices":["s3cret"]}',
    "a delta that is a string": b'{"choices":[{"delta":"s3cret"}]}',
    "content that is a number": b'{"choices":[{"delta":{"content":5}}]}',
    "content that is an object": b'{"choices":[{"delta":{"content":{"s3cret":1}}}]}',
    "a part without text": b'{"choices":[{"delta":{"content":[{"type":"s3cret"}]}}]}',
    "tool calls as an object": b'{"choices":[{"delta":{"tool_calls":{"s3cret":1}}}]}',
    "a tool call as a string": b'{"choices":[{"delta":{"tool_calls":["s3cret"]}}]}',
    "a function as a string": b'{"choices":[{"delta":{"function_call":"s3cret"}}]}',
    "nested without end": b'{"choices":' * 100_000,
    "a number with too many digits": b'{"choices":' + b"1" * 5000 + b"}",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_read_is_a_fault_without_content(data):
    decoder, events = run(text("a"), text("b"), data, text("c"))
    assert said(events) == "ab"
    failure = decoder.failure
    assert (failure.kind, failure.phase) == (FaultKind.MALFORMED, Phase.BODY)
    assert failure.detail
    assert SECRET.decode() not in failure.detail
    assert failure.answer is None


def test_the_provider_reads_refusals():
    provider = OpenAIChat(PROFILE)
    decoder, _ = run(b'{"error":{"message":"Overloaded","code":529}}')
    refusal = provider.refusal(decoder.failure.answer)
    assert (refusal.message, refusal.status) == ("Overloaded", 529)


def test_an_error_beside_text_is_one_without_a_finish_reason():
    data = text("b", error={"message": "m"})
    decoder, events = run(text("a"), data, text("c"))
    assert said(events) == "ab"
    assert decoder.failure.kind is FaultKind.ERROR_EVENT


def test_the_choice_that_fails_is_the_last_one_read():
    data = chunk(choice(finish="abort"), choice(index=1, content="b", finish="stop"))
    decoder, events = run(text("a"), data, n=2)
    assert (said(events), said(events, index=1)) == ("a", "b")
    assert decoder.failure.detail == "finish_reason 'abort'"
    assert decoder.finish_reasons == {}


def test_broken_choices_are_a_fault_under_any_name():
    broken = ServerSentEvent(b'{"choices":[{"delta":{"content":5}}]}', "delta")
    decoder, _ = run(text("a"), broken)
    assert decoder.failure.kind is FaultKind.MALFORMED


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"null", "null"),
        (b"true", "boolean"),
        (b'"a"', "string"),
        (b"1.5", "number"),
        (b"[]", "array"),
    ],
)
def test_the_detail_names_what_came(data, kind):
    decoder, _ = run(data)
    assert decoder.failure.detail == f"the data is a JSON {kind}, not an object"
