"""Events to bytes and back: all of them, whole, and nothing that must not be stored."""

from __future__ import annotations

import contextlib
import typing

import msgspec
import pytest
from hypothesis import given, strategies as st
from journal_events import BY_KIND, all_events, stream_errors, text_events

from holystream.errors import (
    ConnectionLost,
    JournalCorrupt,
    JournalVersion,
    RateLimited,
    StreamError,
    StreamInterrupted,
    Verdict,
)
from holystream.events import (
    Failed,
    Interrupted,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
)
from holystream.journal import codec


def round_trip(events):
    return codec.decode(codec.encode(events))


def comparable(event):
    """An event, with its error as what the error tells."""
    if isinstance(event, Interrupted | Failed):
        told = dict(vars(event.error))
        return type(event), type(event.error), event.error.args, told
    return event


@given(st.lists(all_events, max_size=6))
def test_every_event_comes_back_as_it_was(events):
    back = round_trip(events)
    assert [comparable(event) for event in back] == [comparable(e) for e in events]
    assert [type(event) for event in back] == [type(event) for event in events]


def test_there_is_a_strategy_for_every_event():
    assert set(BY_KIND) == set(typing.get_args(StreamEvent))


@given(stream_errors())
def test_the_error_that_ended_a_stream_comes_back_too(error):
    (failed,) = round_trip([Failed(error=error)])
    assert comparable(failed) == comparable(Failed(error=error))


@pytest.mark.parametrize("kind", [TextDelta, ReasoningDelta, RefusalDelta])
def test_the_raw_bytes_of_a_delta_are_not_stored(kind):
    event = kind("Hi", 3, 1, 2, b'{"secret": "raw"}')
    assert b"raw" not in codec.encode([event])
    assert round_trip([event]) == [kind("Hi", 3, 1, 2)]


def test_of_an_error_only_what_describes_it_is_stored():
    error = StreamInterrupted("it broke off", cause=RateLimited("slow", status=429))
    error.partial_text = "all the text"
    error.__cause__ = OSError("with a secret")
    data = codec.encode([Interrupted(error=error, attempt=1)])
    assert b"all the text" not in data
    assert b"secret" not in data
    (event,) = codec.decode(data)
    assert type(event.error) is StreamInterrupted
    assert event.error.partial_text == ""
    assert type(event.error.cause) is RateLimited
    assert event.error.cause.status == 429
    assert event.error.cause.verdict is Verdict.THROTTLED


def test_a_chain_of_causes_has_an_end():
    error = StreamInterrupted("round and round")
    error.cause = error
    (event,) = round_trip([Interrupted(error=error, attempt=1)])
    depth = 0
    while event.error.cause is not None:
        event, depth = Interrupted(error=event.error.cause, attempt=1), depth + 1
    assert 0 < depth < 10


def test_an_error_of_an_unknown_kind_is_a_stream_error():
    class ErrorOfTomorrow(ConnectionLost):
        pass

    (event,) = round_trip([Interrupted(error=ErrorOfTomorrow("it broke"), attempt=1)])
    assert type(event.error) is StreamError
    assert event.error.message == "it broke"
    assert event.error.verdict is Verdict.INTERRUPTED


def test_a_token_takes_few_bytes():
    events = text_events(1000, 250)
    spent = len(codec.encode(events)) - sum(len(event.text) for event in events)
    assert spent / len(events) < 11


@pytest.mark.parametrize("event", ["text", 5, None, object()])
def test_what_is_no_event_is_refused(event):
    with pytest.raises(TypeError, match="is not an event that a journal stores"):
        codec.encode([event])


def stored(value):
    return msgspec.msgpack.encode(value)


def test_a_newer_format_is_refused():
    with pytest.raises(JournalVersion, match=r"format 2, of which .* knows 1: upgrade"):
        codec.decode(stored((2, [])))


def test_an_event_of_a_newer_version_is_refused():
    with pytest.raises(JournalVersion, match=r"kind 99 .* newer holystream: upgrade"):
        codec.decode(stored((1, [(1, "a", 0, 0, 0), (99, "b")])))


def test_a_value_of_a_newer_version_is_refused():
    with pytest.raises(JournalVersion, match=r"kind 9 .* newer holystream: upgrade"):
        codec.decode(stored((1, [(1, msgspec.msgpack.Ext(9, b"x"), 0, 0, 0)])))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        stored("text"),
        stored([]),
        stored((1, 5)),
        stored((1, [5])),
        stored((1, [[]])),
        stored((1, [(1, "a")])),
        stored((1, [(4, "a")])),
        stored((1, [(6, {}, 1)])),
        stored((1, [(8, {"choices": 3})])),
        stored((1, [(10, {"stream_id": 3})])),
        stored((1, [({}, 3)])),
    ],
)
def test_what_nobody_wrote_is_refused(data):
    with pytest.raises(JournalCorrupt, match="damaged"):
        codec.decode(data)


@given(st.binary(max_size=60))
def test_any_bytes_give_events_or_a_typed_error(data):
    with contextlib.suppress(JournalCorrupt, JournalVersion):
        codec.decode(data)


@given(st.lists(all_events, min_size=1, max_size=3), st.data())
def test_any_cut_gives_a_typed_error(events, data):
    whole = codec.encode(events)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(JournalCorrupt):
        codec.decode(whole[:cut])
