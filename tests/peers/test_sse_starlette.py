"""An application on sse-starlette under uvicorn: its lines end in CRLF by default."""

from __future__ import annotations

import sys
import uuid

import pytest
import requests
from loopback import client_for, free_port
from peer_presence import need_packages
from peer_processes import Server

from holystream import (
    ConnectionLost,
    Guarantee,
    IncompleteAnswer,
    Interrupted,
    ModelNotFound,
    Overloaded,
    RateLimited,
    RetryPolicy,
    StreamInterrupted,
)

PROMPT = "A line\u2028separator, a next\x85line, “naïve” 日本 🦉 and the end"
RETRY = RetryPolicy(attempts=3, base=0.001, cap=0.002)
BREAKS = {
    "crashing": ConnectionLost,
    "ending": IncompleteAnswer,
    "failing": Overloaded,
}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    need_packages("uvicorn", "sse_starlette")
    port = free_port()
    log = tmp_path_factory.mktemp("uvicorn") / "log"
    command = [sys.executable, "-m", "uvicorn", "starlette_app:app", "--port", port]
    with Server(command, ("127.0.0.1", port), log):
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture
def client(url):
    with client_for(url, retry=RETRY) as made:
        yield made


def test_it_does_send_crlf(url):
    body = {"model": "healthy", "messages": [{"role": "user", "content": "Hello you"}]}
    response = requests.post(f"{url}/chat/completions", json=body, timeout=10)
    assert response.content.count(b"\r\n\r\n") == 4
    assert b"\n\n" not in response.content


@pytest.mark.parametrize("model", ["healthy", "named", "text", "cr"])
def test_the_text_is_exact(client, model):
    with client.stream(PROMPT, model=model) as stream:
        assert "".join(stream.text_stream) == PROMPT
    assert stream.get_final_completion().guarantee is Guarantee.SINGLE


@pytest.mark.parametrize(("model", "error"), BREAKS.items())
class TestItBreaksOff:
    def test_the_answer_is_replayed(self, client, model, error):
        once = {"X-Once": str(uuid.uuid4())}
        with client.stream(
            PROMPT, model=model, temperature=0, extra_headers=once
        ) as stream:
            events = list(stream)
        assert "".join(map(str, events)) == PROMPT
        assert stream.get_final_completion().guarantee is Guarantee.REPLAYED
        failures = [event.error for event in events if isinstance(event, Interrupted)]
        assert [type(each) for each in failures] == [error]

    def test_or_what_came_of_it_is_kept(self, client, model, error):
        said = []
        with (
            client.stream(PROMPT, model=model, temperature=1) as stream,
            pytest.raises(StreamInterrupted) as caught,
        ):
            said.extend(stream.text_stream)
        assert type(caught.value.cause) is error
        assert caught.value.partial_text == "".join(said)
        half = len(PROMPT.split(" ")) // 2
        assert "".join(said) == " ".join(PROMPT.split(" ")[:half])


def test_a_refusal_in_fastapis_shape_is_retried(client):
    once = {"X-Once": str(uuid.uuid4())}
    with client.stream(PROMPT, model="throttled", extra_headers=once) as stream:
        events = list(stream)
    assert "".join(map(str, events)) == PROMPT
    (failure,) = (event.error for event in events if isinstance(event, Interrupted))
    assert type(failure) is RateLimited
    assert failure.retry_after == 0.02
    assert "Slow down." in str(failure)


def test_a_refusal_in_fastapis_shape_is_typed(client):
    with (
        client.stream(PROMPT, model="unknown") as stream,
        pytest.raises(ModelNotFound, match="does not exist"),
    ):
        stream.open()


def test_it_is_uvicorn_that_answers(url):
    assert requests.get(url, timeout=10).headers["server"] == "uvicorn"
