"""What holds for every stream: batches do not matter, and nothing raises."""

import json

import msgspec
import pytest
from chat_chunks import (
    DONE,
    OPENAI,
    USAGE,
    choice,
    chunk,
    content,
    finish,
    messages,
    new_decoder,
    run,
    said,
    split,
    text,
    tool,
)
from hypothesis import example, given, settings, strategies as st

from holystream.events import (
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    UsageReport,
)
from holystream.providers import openai_decoder
from holystream.providers.base import ChatRequest
from holystream.providers.registry import PROFILES, provider
from holystream.wire.faults import FaultKind
from holystream.wire.sse import ServerSentEvent

B = '{"b":2}'
STREAM = [
    chunk(choice(role="assistant", content="")),
    chunk(choice(reasoning="hm")),
    text("a"),
    content("\\ud83d"),
    content("\\ude00"),
    text("x", 1),
    tool(0, id="1", name="f", arguments='{"a":'),
    tool(0, arguments="1}"),
    tool(1, id="2", name="g", arguments=B),
    text("y", 1, usage=USAGE),
    finish("tool_calls"),
    finish("length", 1),
    chunk(usage={**USAGE, "total_tokens": 13}),
    b'{"error":"late"}',
    text("never"),
    DONE,
]


@given(cuts=st.lists(st.integers(0, len(STREAM))), end=st.integers(0, len(STREAM)))
def test_batches_do_not_matter(cuts, end):
    data = messages(*STREAM[:end])
    whole = new_decoder(2)
    expected = whole.decode(data)
    parts = new_decoder(2)
    events = [event for batch in split(data, cuts) for event in parts.decode(batch)]
    assert events == expected
    for name in ("ended", "finished", "usage", "model", "finish_reasons"):
        assert getattr(parts, name) == getattr(whole, name)
    assert repr(parts.failure) == repr(whole.failure)


KEYS = st.sampled_from(
    [
        "choices",
        "delta",
        "message",
        "content",
        "text",
        "type",
        "thinking",
        "index",
        "finish_reason",
        "usage",
        "error",
        "tool_calls",
        "function",
        "function_call",
        "name",
        "arguments",
        "id",
        "model",
        "reasoning",
        "refusal",
        "reasoning_content",
        "detail",
        "object",
        "prompt_tokens",
        "prompt_tokens_details",
        "logprobs",
        "token",
        "logprob",
        "top_logprobs",
        "bytes",
        "prompt_filter_results",
        "moderation",
    ]
)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "stop", "error", "thinking", "{}", "\ud83d", "\ude00", "a"])
)


SHAPES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5)
    ),
    max_leaves=20,
)


DELTAS = st.dictionaries(KEYS, SHAPES, max_size=5)
CHUNKS = st.builds(
    lambda delta, choice, chunk: {**chunk, "choices": [{**choice, "delta": delta}]},
    DELTAS,
    DELTAS,
    DELTAS,
)


def strings(value):
    """Every text that is somewhere in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, msgspec.Struct):
        yield from strings(msgspec.structs.asdict(value))
    elif isinstance(value, dict):
        for pair in value.items():
            yield from strings(pair)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from strings(each)


def check(decoder, events):
    names = [decoder.model, decoder.response_id, decoder.finish_reasons]
    for each in strings([events, *names]):
        each.encode()
    for event in events:
        assert isinstance(
            event,
            TextDelta
            | ReasoningDelta
            | RefusalDelta
            | ToolCallDelta
            | ToolCall
            | Logprobs
            | UsageReport,
        )
        if isinstance(event, TextDelta | ReasoningDelta | RefusalDelta):
            assert event.text
    assert decoder.failure is None or decoder.failure.kind in {
        FaultKind.MALFORMED,
        FaultKind.ERROR_EVENT,
    }
    assert decoder.complete(clean_end=True) is decoder.finished
    assert not (decoder.finished and decoder.failure)


@settings(max_examples=400)
@given(shapes=st.lists(SHAPES | CHUNKS, max_size=4), event=st.sampled_from(["", "x"]))
def test_no_shape_of_json_makes_it_raise(shapes, event):
    decoder = new_decoder()
    data = [ServerSentEvent(json.dumps(shape).encode(), event) for shape in shapes]
    check(decoder, decoder.decode(data))


HALVES = st.text(st.sampled_from("a\ud83d\ude00\U0001f600"), min_size=1, max_size=3)


@given(names=st.lists(HALVES, min_size=6, max_size=6), arguments=HALVES)
def test_every_name_can_be_encoded(names, arguments):
    model, response_id, name, id_, key, reason = names
    decoder = new_decoder()
    events = decoder.decode(
        messages(
            chunk(choice(role="assistant"), model=model, id=response_id),
            tool(id=id_, name=name, arguments=json.dumps({key: arguments})),
            finish(reason),
        )
    )
    check(decoder, events)
    (call,) = [event for event in events if type(event) is ToolCall]
    assert call.id
    assert decoder.finished
    if name.isascii():
        assert call.name == name


@given(
    data=st.lists(st.binary(), max_size=3), event=st.sampled_from(["", "error", "x"])
)
@example(data=[b"\xff"], event="")
@example(data=[b"\xef\xbb\xbf"], event="")
def test_no_bytes_make_it_raise(data, event):
    decoder = new_decoder()
    check(decoder, decoder.decode([ServerSentEvent(each, event) for each in data]))


@given(at=st.integers(0, 400), byte=st.binary(max_size=2))
def test_no_damaged_byte_makes_it_raise(at, byte):
    data = OPENAI[2][:at] + byte + OPENAI[2][at + 1 :]
    decoder, events = run(text("a"), data, finish())
    check(decoder, events)


@pytest.mark.parametrize("depth", [200, 900, 950, 980, 990, 995, 1000, 1010, 5000])
@pytest.mark.parametrize(
    ("start", "end"),
    [
        (
            '{"choices":[{"delta":{"tool_calls":[{"function":{"name":"f","arguments":%s}}]}}]}',
            "[]",
        ),
        ('{"choices":[{"delta":{"content":%s}}]}', ""),
        ('{"choices":[],"error":%s}', "[]"),
    ],
)
def test_no_depth_makes_it_raise(start, end, depth):
    inner = (
        "[" * depth + "]" * depth
        if end
        else '[{"type":"thinking","thinking":' * depth + '""' + "}]" * depth
    )
    decoder, events = run((start % inner).encode(), finish("tool_calls"))
    check(decoder, events)
    assert decoder.finished or decoder.failure


def test_a_reading_that_runs_out_of_stack_is_a_fault(monkeypatch):
    def read(data):
        raise RecursionError

    monkeypatch.setattr(openai_decoder, "read_leniently", read)
    decoder, events = run(text("a"), b"{}", text("b"))
    assert said(events) == "a"
    assert decoder.failure.kind is FaultKind.MALFORMED


_, OPENAI_EVENTS = run(*OPENAI)
HOLES = st.sampled_from([None, "", [], {}, False, 0, "absent"])


def dig(value, path, hole):
    """A copy of a chunk in which one place is null, empty, of another type or gone."""
    key, *rest = path
    if key not in value:
        return value
    value = dict(value)
    if rest and isinstance(value[key], list) and value[key]:
        value[key] = [dig(value[key][0], rest, hole)]
    elif rest and isinstance(value[key], dict):
        value[key] = dig(value[key], rest, hole)
    elif hole == "absent":
        del value[key]
    else:
        value[key] = hole
    return value


@settings(max_examples=300)
@given(
    at=st.integers(0, len(OPENAI) - 2),
    path=st.sampled_from(
        [
            ("choices",),
            ("choices", "delta"),
            ("choices", "delta", "content"),
            ("choices", "delta", "role"),
            ("choices", "finish_reason"),
            ("choices", "index"),
            ("choices", "logprobs"),
            ("usage",),
            ("usage", "prompt_tokens"),
            ("id",),
            ("model",),
        ]
    ),
    hole=HOLES,
    host=st.sampled_from(list(PROFILES)),
)
def test_a_hole_anywhere_is_survived_or_typed(at, path, hole, host):
    data = list(OPENAI)
    data[at] = json.dumps(dig(json.loads(data[at]), path, hole)).encode()
    request = ChatRequest(path="/", body={}, model="m", choices=1, deterministic=False)
    decoder = provider(host).decoder(request, segment=0)
    events = decoder.decode(messages(*data))
    check(decoder, events)
    if path[0] != "choices":
        assert said(events) == said(OPENAI_EVENTS)
        assert decoder.complete(clean_end=False)
