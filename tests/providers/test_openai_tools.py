"""Tool calls in pieces, in every server's way of cutting them."""

import json
import sys
import types

import pytest
from chat_chunks import (
    DONE,
    SECRET,
    calls,
    choice,
    chunk,
    finish,
    messages,
    run,
    said,
    text,
    tool,
)

from holystream.events import ToolCall, ToolCallDelta
from holystream.providers import tool_calls
from holystream.providers.chunks import FunctionPiece, ToolCallPiece
from holystream.wire.faults import FaultKind

ONE_CALL = [("call_1", "f", {"a": 1})]
TWO_CALLS = [("1", "f", {"a": 1}), ("2", "g", {"b": 2})]
A = '{"a":1}'
B = '{"b":2}'
TOOLS = {
    "OpenAI": (
        [
            tool(id="call_1", name="f", arguments=""),
            tool(arguments='{"a'),
            tool(arguments='":'),
            tool(arguments="1}"),
            finish("tool_calls"),
        ],
        ONE_CALL,
    ),
    "in one piece": (
        [tool(id="call_1", name="f", arguments=A), finish("tool_calls")],
        ONE_CALL,
    ),
    "with the finish reason": (
        [
            tool(id="call_1", name="f", arguments='{"a"'),
            tool(arguments=":1}").replace(
                b'"finish_reason": null', b'"finish_reason": "tool_calls"'
            ),
        ],
        ONE_CALL,
    ),
    "two calls": (
        [
            tool(0, id="1", name="f", arguments='{"a"'),
            tool(0, arguments=":1}"),
            tool(1, id="2", name="g", arguments='{"b":'),
            tool(1, arguments="2}"),
            finish("tool_calls"),
        ],
        TWO_CALLS,
    ),
    "two calls in one chunk": (
        [
            chunk(
                choice(
                    tool_calls=[
                        {"index": 0, "id": "1", "function": {"name": "f"}},
                        {"index": 0, "function": {"arguments": A}},
                        {"index": 1, "id": "2", "function": {"name": "g"}},
                        {"index": 1, "function": {"arguments": B}},
                    ]
                )
            ),
            finish("tool_calls"),
        ],
        TWO_CALLS,
    ),
    "all announced first": (
        [
            tool(0, id="1", name="f", arguments=""),
            tool(1, id="2", name="g", arguments=""),
            tool(1, arguments='{"b"'),
            tool(0, arguments='{"a"'),
            tool(1, arguments=":2}"),
            tool(0, arguments=":1}"),
            finish("tool_calls"),
        ],
        TWO_CALLS,
    ),
    "Gemini: finish reason stop": (
        [tool(id="call_1", name="f", arguments=A), finish("stop")],
        ONE_CALL,
    ),
    "Gemini: no index, ids": (
        [
            tool("absent", id="1", name="f", arguments=A),
            tool("absent", id="2", name="g", arguments=B),
            finish(),
        ],
        TWO_CALLS,
    ),
    "index null, ids, pieces by id": (
        [
            tool(None, id="1", name="f", arguments='{"a"'),
            tool(None, id="1", arguments=":1}"),
            tool(None, id="2", name="g", arguments='{"b"'),
            tool(None, arguments=":2}"),
            finish(),
        ],
        TWO_CALLS,
    ),
    "Gemini: every call has index 0": (
        [
            tool(0, id="1", name="f", arguments=A),
            tool(0, id="2", name="g", arguments=B),
            finish(),
        ],
        TWO_CALLS,
    ),
    "no ids, every call whole, same name": (
        [
            tool(0, name="f", arguments=A),
            tool(0, name="f", arguments=B),
            finish(),
        ],
        [("", "f", {"a": 1}), ("", "f", {"b": 2})],
    ),
    "no ids, other names": (
        [
            tool("absent", name="f", arguments=""),
            tool("absent", name="g", arguments=B),
            finish(),
        ],
        [("", "f", {}), ("", "g", {"b": 2})],
    ),
    "vLLM: a new id in every piece": (
        [
            tool(0, id="call_1", name="f", arguments=""),
            tool(0, id="random-2", arguments='{"a":'),
            tool(0, id="random-3", arguments="1}"),
            finish("tool_calls"),
        ],
        ONE_CALL,
    ),
    "a new id in every piece, no index": (
        [
            tool(None, id="call_1", name="f", arguments='{"a":'),
            tool(None, id="random-2", arguments="1}"),
            finish("tool_calls"),
        ],
        ONE_CALL,
    ),
    "the name in every piece": (
        [
            tool(0, id="call_1", name="f", arguments='{"a":'),
            tool(0, id="call_1", name="f", arguments="1}"),
            tool(0, id="call_1", name="f", arguments=""),
            finish("tool_calls"),
        ],
        ONE_CALL,
    ),
    "the name in every piece, no ids": (
        [
            tool(0, name="f", arguments='{"a":'),
            tool(0, name="f", arguments="1}"),
            tool(0, name="f", arguments=""),
            finish("tool_calls"),
        ],
        [("", "f", {"a": 1})],
    ),
    "the name in every piece, the id in the first": (
        [
            tool(0, id="call_1", name="f", arguments='{"a":'),
            tool(0, name="f", arguments="1}"),
            finish("tool_calls"),
        ],
        ONE_CALL,
    ),
    "the name in every piece, the id in the last": (
        [
            tool(0, name="f", arguments='{"a":'),
            tool(0, id="call_1", name="f", arguments="1}"),
            finish("tool_calls"),
        ],
        ONE_CALL,
    ),
    "no index, pieces by id, in turns": (
        [
            tool("absent", id="1", name="f", arguments='{"a"'),
            tool("absent", id="2", name="g", arguments='{"b"'),
            tool("absent", id="1", arguments=":1}"),
            tool("absent", id="2", arguments=":2}"),
            finish(),
        ],
        TWO_CALLS,
    ),
    "arguments that were JSON before their end": (
        [
            tool(0, id="1", name="f", arguments="1"),
            tool(1, id="2", name="g", arguments=B),
            tool(0, arguments="2"),
            finish("tool_calls"),
        ],
        [("1", "f", 12), ("2", "g", {"b": 2})],
    ),
    "arguments null, where nothing else is as documented": (
        [
            chunk(
                choice(
                    tool_calls=[
                        {
                            "index": "x",
                            "id": "1",
                            "function": {"name": "f", "arguments": None},
                        }
                    ]
                )
            ),
            finish("tool_calls"),
        ],
        [("1", "f", {})],
    ),
    "the name after the id": (
        [
            tool(0, id="call_1"),
            tool(0, name="f"),
            tool(0, arguments=A),
            finish("tool_calls"),
        ],
        ONE_CALL,
    ),
    "index from 1": (
        [tool(1, id="call_1", name="f", arguments=A), finish("tool_calls")],
        ONE_CALL,
    ),
    "an empty piece behind its end": (
        [
            tool(0, id="1", name="f", arguments=A),
            tool(1, id="2", name="g", arguments=B),
            tool(0, arguments=""),
            finish("tool_calls"),
        ],
        TWO_CALLS,
    ),
    "no arguments": (
        [tool(id="1", name="f", arguments=""), finish("tool_calls")],
        [("1", "f", {})],
    ),
    "arguments null": (
        [
            chunk(
                choice(
                    tool_calls=[
                        {
                            "index": 0,
                            "id": "1",
                            "function": {"name": "f", "arguments": None},
                        }
                    ]
                )
            ),
            tool(arguments=" "),
            finish("tool_calls"),
        ],
        [("1", "f", {})],
    ),
    "arguments as an object": (
        [
            chunk(
                choice(
                    tool_calls=[
                        {
                            "index": 0,
                            "id": "call_1",
                            "function": {"name": "f", "arguments": {"a": 1}},
                        }
                    ]
                )
            ),
            finish("tool_calls"),
        ],
        ONE_CALL,
    ),
    "the old function_call": (
        [
            chunk(choice(content=None, function_call={"name": "f", "arguments": ""})),
            chunk(choice(function_call={"arguments": '{"a":'})),
            chunk(choice(function_call={"arguments": "1}"})),
            finish("function_call"),
        ],
        [("", "f", {"a": 1})],
    ),
    "function null": (
        [
            tool(id="call_1", name="f", arguments=A),
            chunk(choice(tool_calls=[{"index": 0, "function": None}, None])),
            finish("tool_calls"),
        ],
        ONE_CALL,
    ),
    "behind an early stop": (
        [
            finish("stop"),
            tool(id="call_1", name="f", arguments=A),
            finish("tool_calls"),
        ],
        ONE_CALL,
    ),
    "cut by its length behind a whole call": (
        [
            tool(0, id="call_1", name="f", arguments=A),
            tool(1, id="2", name="g", arguments='{"b'),
            finish("length"),
        ],
        ONE_CALL,
    ),
    "cut by its length before its arguments": (
        [tool(0, id="1", name="f", arguments=""), finish("length")],
        [],
    ),
    "whole in spite of its length": (
        [tool(0, id="call_1", name="f", arguments=A), finish("length")],
        ONE_CALL,
    ),
}


@pytest.mark.parametrize(("data", "expected"), TOOLS.values(), ids=TOOLS)
def test_tool_calls_come_once_and_whole(data, expected):
    decoder, events = run(*data)
    assert decoder.failure is None
    assert calls(events) == expected
    assert decoder.complete(clean_end=True)


def test_a_tool_call_is_delivered_when_the_next_one_begins():
    decoder, events = run(
        tool(0, id="1", name="f", arguments='{"a"'), tool(0, arguments=":1}")
    )
    assert calls(events) == []
    assert not decoder.finished
    events = decoder.decode(messages(tool(1, id="2", name="g", arguments='{"b')))
    assert [type(event) for event in events] == [ToolCall, ToolCallDelta]
    assert calls(events) == [("1", "f", {"a": 1})]


def test_the_pieces_of_a_call_are_shown_as_they_come():
    _, events = run(
        tool(0, id="1", name="f", arguments=""),
        tool(0, arguments='{"a"'),
        tool(0, arguments=":1}"),
    )
    assert events == [
        ToolCallDelta(call_index=0, id="1", name="f", arguments=piece)
        for piece in ("", '{"a"', ":1}")
    ]


def test_calls_belong_to_their_choice():
    _, events = run(
        tool(id="1", name="f", arguments='{"a":'),
        tool(id="2", name="g", arguments=B, choice_index=1),
        tool(arguments="1}"),
        finish("tool_calls", 1),
        finish("tool_calls"),
        n=2,
    )
    assert calls(events) == [("1", "f", {"a": 1})]
    assert calls(events, index=1) == [("2", "g", {"b": 2})]


BROKEN_CALLS = {
    "half the arguments": [tool(id="1", name="f", arguments='{"s3cret"'), finish()],
    "two values": [tool(id="1", name="f", arguments='{"s3cret":1}{}'), finish()],
    "half a call before a whole one": [
        tool(0, id="1", name="f", arguments='{"s3cret'),
        tool(1, id="2", name="g", arguments=B),
        finish("tool_calls"),
    ],
    "no name": [tool(id="1", arguments='{"s3cret":1}'), finish("tool_calls")],
    "more after its end": [
        tool(0, id="1", name="f", arguments='{"s3cret":1}'),
        tool(1, id="2", name="g", arguments=B),
        tool(0, arguments=" }"),
    ],
    "nested without end": [tool(id="1", name="f", arguments="[" * 9999), finish()],
}


@pytest.mark.parametrize("data", BROKEN_CALLS.values(), ids=BROKEN_CALLS)
def test_a_call_is_never_repaired(data):
    decoder, events = run(text("a"), *data)
    assert said(events) == "a"
    assert all(call[1:] == ("f", {"s3cret": 1}) for call in calls(events))
    assert decoder.failure.kind is FaultKind.MALFORMED
    assert SECRET.decode() not in decoder.failure.detail
    assert not decoder.complete(clean_end=True)


def test_an_open_call_keeps_the_answer_open():
    decoder, _ = run(finish("stop"), tool(id="1", name="f", arguments=A), DONE)
    assert not decoder.complete(clean_end=True)


def test_halves_of_a_character_in_arguments():
    begin = tool(id="1", name="f", arguments="@").replace(
        b'"@"', b'"{\\"a\\":\\"\\ud83d"'
    )
    end = tool(arguments="@").replace(b'"@"', b'"\\ude00\\"}"')
    _, events = run(begin, end, finish())
    assert calls(events) == [("1", "f", {"a": "\U0001f600"})]
    for event in events:
        if type(event) is ToolCallDelta:
            event.arguments.encode()


def test_halves_of_a_character_escaped_within_the_arguments():
    arguments = r'{"\ude00": ["\ud83d", "a\ud83d\ude00", 1]}'
    decoder, events = run(tool(id="1", name="f", arguments=arguments), finish())
    assert decoder.failure is None
    assert events[-1].arguments == {"\ufffd": ["\ufffd", "a\U0001f600", 1]}


def test_half_a_character_at_the_end_of_the_arguments_is_no_json():
    begin = tool(id="1", name="f", arguments="@").replace(b'"@"', b'"{}\\ud83d"')
    decoder, _ = run(begin, finish())
    assert decoder.failure.kind is FaultKind.MALFORMED


def nameless(count):
    """A server that repeats the name, in a text that seems to end at each piece."""
    return [
        tool(id="1", name="f", arguments='["' + "-" * count),
        *[tool(name="f", arguments="x}")] * count,
    ]


def announced(count):
    """Calls that follow one which seems whole and is not."""
    return [
        tool(0, id="0", name="f", arguments='{"a":"' + "}" * count),
        *(tool(place, id=str(place), name="f") for place in range(1, count)),
    ]


def closed_again(count):
    """Brackets that close the first one over and over."""
    return [tool(0, id="1", name="f"), *[tool(name="f", arguments="[]")] * count]


@pytest.mark.parametrize("stream", [nameless, announced, closed_again])
def test_the_work_grows_with_the_stream(stream, monkeypatch):
    parsed = 0

    def loads(text):
        nonlocal parsed
        parsed += len(text)
        return json.loads(text)

    monkeypatch.setattr(
        tool_calls, "json", types.SimpleNamespace(loads=loads, dumps=json.dumps)
    )

    def work(count):
        """Count Python's calls, steps of generators included, and characters parsed."""
        nonlocal parsed
        parsed = steps = 0

        def step(_frame, event, _arg):
            nonlocal steps
            steps += event == "call"

        data = stream(count)
        before = sys.getprofile()
        sys.setprofile(step)
        try:
            run(*data)
        finally:
            sys.setprofile(before)
        return steps + parsed

    assert work(2_000) < 3 * work(1_000)


def test_calls_that_only_their_ids_tell_apart_are_not_searched():
    compared = 0

    class Id(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    found = tool_calls.ToolCalls(0, 0)
    events = []
    for place in range(100):
        begin = FunctionPiece(name="f", arguments="[")
        found.add([ToolCallPiece(id=Id(place), function=begin)], events)
    for place in range(100):
        end = FunctionPiece(arguments=f"{place}]")
        found.add([ToolCallPiece(id=Id(place), function=end)], events)
    found.close(cut=False, events=events)
    whole = [event for event in events if type(event) is ToolCall]
    assert [(call.id, call.arguments) for call in whole] == [
        (str(place), [place]) for place in range(100)
    ]
    # In a search it would be thousands.
    assert compared < 1_000


def test_an_index_that_no_call_has_is_malformed():
    decoder, _ = run(tool(2**31, id="1", name="f", arguments=A))
    assert decoder.failure.kind is FaultKind.MALFORMED
