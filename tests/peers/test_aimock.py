"""aimock, a mock of the providers' APIs in JavaScript that others wrote.

Each test has an ``X-Test-Id`` of its own: aimock counts the requests of each, and a
fixture with ``sequenceIndex`` 0 is only for the first.
"""

from __future__ import annotations

import json
import uuid

import pytest
from loopback import client_for, free_port
from peer_presence import need
from peer_processes import AIMOCK, Server, program

from holystream import (
    AuthenticationError,
    ConnectionLost,
    Guarantee,
    Interrupted,
    Overloaded,
    RateLimited,
    ReasoningDelta,
    RetryPolicy,
    StreamInterrupted,
    Waiting,
)

TEXT = "Hello wide world, “naïve” 日本, this is all of the text."
RETRY = RetryPolicy(attempts=3, base=0.001, cap=0.002)
CALLS = [
    {"name": "weather", "arguments": '{"city":"Paris","days":3}'},
    {"name": "time", "arguments": '{"zone":"Europe/Zürich"}'},
]
CUTS = range(1, 10)
RETRY_AFTER = 1


def fixture(prompt: str, response: object, *, only_first: bool = False, **others):
    match = {"userMessage": prompt} | ({"sequenceIndex": 0} if only_first else {})
    return {"match": match, "response": response, **others}


def error(status: int, **others):
    return {"error": {"message": "As told.", "type": "mock"}, "status": status} | others


FIXTURES = [
    fixture("plain", {"content": TEXT}),
    fixture("thinking", {"content": TEXT, "reasoning": "Hmm, let me think."}),
    fixture("calling", {"toolCalls": CALLS}),
    fixture("saying", {"content": TEXT, "toolCalls": CALLS}),
    *(
        # A pause before each chunk, or all of them would wait in one buffer, which is
        # thrown away with the connection.
        fixture(
            f"cut after {count}",
            {"content": TEXT},
            only_first=True,
            latency=5,
            truncateAfterChunks=count,
        )
        for count in CUTS
    ),
    fixture("cut after", {"content": TEXT}),
    fixture("always cut", {"content": TEXT}, latency=5, truncateAfterChunks=4),
    fixture(
        "dropped", {"content": TEXT}, only_first=True, latency=20, disconnectAfterMs=75
    ),
    fixture("dropped", {"content": TEXT}),
    fixture("throttled", error(429, retryAfter=RETRY_AFTER), only_first=True),
    fixture("throttled", {"content": TEXT}),
    fixture("throttled for long", error(429, retryAfter=120)),
    fixture("overloaded", error(503), only_first=True),
    fixture("overloaded", {"content": TEXT}),
    fixture("unknown key", error(401)),
]


@pytest.fixture(scope="module")
def aimock(tmp_path_factory):
    node = program("node")
    need(node, "node")
    need(AIMOCK.is_dir(), "aimock")
    folder, port = tmp_path_factory.mktemp("aimock"), free_port()
    fixtures = folder / "fixtures.json"
    # The first that fits is served: the longest prompts come first.
    ordered = sorted(FIXTURES, key=lambda each: -len(each["match"]["userMessage"]))
    fixtures.write_text(json.dumps({"fixtures": ordered}), encoding="utf-8")
    command = [node, AIMOCK / "dist" / "cli.js", "--strict", "--validate-on-load"]
    command += ["-p", str(port), "-f", fixtures, "-c", "8"]
    with Server(command, ("127.0.0.1", port), folder / "log"):
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture
def stream(aimock):
    """Open a stream of a client that tries again soon."""
    own = {"X-Test-Id": str(uuid.uuid4())}
    with client_for(aimock, retry=RETRY, model="gpt-4o") as client:

        def make(prompt, *, temperature=0.0, **options):
            return client.stream(
                prompt, temperature=temperature, extra_headers=own, **options
            )

        yield make


def failures(events):
    return [event.error for event in events if isinstance(event, Interrupted)]


def test_plain_text_with_usage(stream):
    with stream("plain") as answer:
        assert "".join(answer.text_stream) == TEXT
    completion = answer.get_final_completion()
    assert completion.guarantee is Guarantee.SINGLE
    assert completion.finish_reason == "stop"
    assert not completion.usage.estimated
    assert completion.usage.completion_tokens > 0


def test_reasoning_is_a_channel_of_its_own(stream):
    with stream("thinking", model="o3") as answer:
        events = list(answer)
    thought = [event.text for event in events if isinstance(event, ReasoningDelta)]
    assert "".join(thought) == "Hmm, let me think."
    assert answer.get_final_text() == TEXT


@pytest.mark.parametrize(("prompt", "text"), [("calling", ""), ("saying", TEXT)])
def test_tool_calls_are_whole(stream, prompt, text):
    with stream(prompt) as answer:
        completion = answer.get_final_completion()
    assert completion.text == text
    assert completion.finish_reason == "tool_calls"
    assert [(call.name, call.arguments) for call in completion.tool_calls] == [
        (call["name"], json.loads(call["arguments"])) for call in CALLS
    ]


@pytest.mark.parametrize("count", CUTS)
def test_a_truncated_answer_is_replayed(stream, count):
    with stream(f"cut after {count}") as answer:
        events = list(answer)
    assert "".join(map(str, events)) == TEXT
    completion = answer.get_final_completion()
    # The chunk that is cut off may have held the finish reason.
    assert completion.attempts <= 2
    assert all(type(each) is ConnectionLost for each in failures(events))
    if count < 8:
        assert completion.attempts == 2


def test_what_came_of_a_truncated_answer_is_kept(stream):
    said = []
    with (
        stream("always cut", temperature=1) as answer,
        pytest.raises(StreamInterrupted) as caught,
    ):
        said.extend(answer.text_stream)
    assert 0 < len("".join(said)) < len(TEXT)
    assert TEXT.startswith("".join(said))
    assert caught.value.partial_text == "".join(said)
    assert type(caught.value.cause) is ConnectionLost


def test_an_answer_that_is_always_truncated_is_an_error(stream):
    with (
        stream("always cut") as answer,
        pytest.raises(StreamInterrupted) as caught,
    ):
        answer.until_done()
    assert caught.value.attempts >= 3
    assert TEXT.startswith(caught.value.partial_text)


def test_a_connection_that_is_dropped_is_made_up_for(stream):
    with stream("dropped") as answer:
        events = list(answer)
    assert "".join(map(str, events)) == TEXT
    assert [type(each) for each in failures(events)] == [ConnectionLost]


def test_the_server_says_when_to_come_back(stream, holystream_clock):
    with stream("throttled") as answer:
        events = list(answer)
    assert "".join(map(str, events)) == TEXT
    (failure,) = failures(events)
    assert type(failure) is RateLimited
    assert failure.retry_after == RETRY_AFTER
    (waiting,) = (event for event in events if isinstance(event, Waiting))
    assert waiting.reason == "server hint"
    assert waiting.delay >= RETRY_AFTER
    assert holystream_clock.waits == [waiting.delay]


def test_or_that_it_will_take_long(stream):
    with stream("throttled for long") as answer, pytest.raises(RateLimited) as caught:
        answer.until_done()
    assert caught.value.retry_after == 120
    assert caught.value.attempts == 1


def test_a_server_without_capacity_is_asked_again(stream):
    with stream("overloaded") as answer:
        events = list(answer)
    assert "".join(map(str, events)) == TEXT
    assert [type(each) for each in failures(events)] == [Overloaded]


def test_a_key_that_is_refused(stream):
    with stream("unknown key") as answer, pytest.raises(AuthenticationError) as caught:
        answer.until_done()
    assert caught.value.attempts == 1
    assert "As told." in str(caught.value)
