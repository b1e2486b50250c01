"""Callbacks: every event is told once, in order, and failures are told too."""

from __future__ import annotations

import pytest

import holystream
from holystream import Failed, Hooks
from holystream.simulator import Script, Simulator

QUICK = holystream.RetryPolicy(attempts=3, base=0.001, cap=0.001)


@pytest.fixture
def simulator():
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def client(simulator):
    with holystream.Client(
        "hs-hooks-4f9a1c", base_url=simulator.base_url, model="m", retry=QUICK
    ) as client:
        yield client


def _named(calls):
    """Hooks that note their names and what they were called with."""

    def note(name):
        return lambda *arguments: calls.append((name, *arguments))

    return Hooks(**{name: note(name) for name in Hooks.__dataclass_fields__})


def test_each_event_is_told_once_before_it_is_handed_over(client):
    told = []
    with client.stream("hello", temperature=0, on_event=told.append) as stream:
        for count, event in enumerate(stream, 1):
            assert told[count - 1] is event
    assert len(told) == count


def test_an_answer_that_goes_on(client, simulator):
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    cut = len(simulator.body({**body, "temperature": 0})) // 2
    simulator.play(Script(cut_at=cut))
    calls = []
    with client.stream("hello", temperature=0, on_event=_named(calls)) as stream:
        text = stream.get_final_text()
    assert "".join(call[1] for call in calls if call[0] == "content") == text
    names = [call[0] for call in calls if call[0] != "content"]
    assert names == ["connected", "retry", "connected", "reconnect", "done"]
    assert ("retry", 2, 3) in calls
    assert calls[-1] == ("done", stream.completion)


def test_a_parse_error_and_the_last_retry(client, simulator):
    simulator.play(Script(malformed_at=0, times=3))
    calls = []
    stream = client.stream("hello", on_event=_named(calls))
    with pytest.raises(holystream.MalformedEvent) as caught:
        stream.until_done()
    assert [name for name, *_ in calls] == [
        *("connected", "parse_error", "retry"),
        *("connected", "parse_error", "retry"),
        *("connected", "parse_error"),
        *("max_retries_reached", "error"),
    ]
    assert calls[-1] == ("error", caught.value)
    assert caught.value.exhausted


def test_a_refusal_is_an_error_but_no_exhaustion(client, simulator):
    simulator.play(Script(status=401))
    calls = []
    with pytest.raises(holystream.AuthenticationError) as caught:
        client.stream("hello", on_event=_named(calls)).open()
    assert calls == [("error", caught.value)]
    assert not caught.value.exhausted


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_a_stop_is_told_once(client, end):
    calls = []
    stream = client.stream("hello", on_event=_named(calls)).open()
    getattr(stream, end)()
    for _ in range(2):
        with pytest.raises((holystream.StreamCancelled, holystream.StreamClosed)):
            stream.until_done()
    assert [name for name, *_ in calls if name != "content"] == ["connected", "stopped"]


def test_what_a_callback_raises_ends_the_step_and_nothing_else(client):
    def refuse_once(event, seen=[]):  # noqa: B006 - remembers on purpose
        if not seen and isinstance(event, holystream.TextDelta):
            seen.append(event)
            raise ZeroDivisionError

    with client.stream("hello", temperature=0, on_event=refuse_once) as stream:
        with pytest.raises(ZeroDivisionError):
            stream.until_done()
        text = "".join(stream.text_stream)
    assert text == stream.completion.text


def test_hooks_that_are_not_given_are_not_called(client):
    client.stream("hello", on_event=Hooks()).until_done()
    Hooks()(Failed(error=holystream.StreamCancelled("x")))


@pytest.mark.parametrize("name", Hooks.__dataclass_fields__)
def test_what_cannot_be_called_is_refused_before_an_answer_is(name):
    with pytest.raises(holystream.InvalidRequest, match=rf"Hooks\.{name} must be"):
        Hooks(**{name: "print"})
