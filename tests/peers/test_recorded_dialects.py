"""Bodies that servers too large to install here send; written by us from their sources.

A few bytes of server send them as they are.
"""

from __future__ import annotations

import itertools

import pytest
from loopback import Peer, client_for, read_request

from holystream import (
    Guarantee,
    IncompleteAnswer,
    RetryPolicy,
    ServerError,
    StreamInterrupted,
    Usage,
)

RETRY = RetryPolicy(attempts=3, base=0.001, cap=0.002)
HEAD = (
    '{"id":"chatcmpl-1","created":1763000000,"model":"m",'
    '"object":"chat.completion.chunk",'
)


def lines(*chunks: str) -> list[bytes]:
    return [f"data: {chunk}\n\n".encode() for chunk in chunks]


# litellm's proxy leaves `finish_reason` out instead of sending null, and its usage
# comes beside a choice that is empty.
LITELLM_TEXT = lines(
    HEAD + '"choices":[{"index":0,"delta":{"content":"Hello","role":"assistant"}}]}',
    HEAD + '"choices":[{"index":0,"delta":{"content":", you"}}]}',
)
LITELLM = [
    *LITELLM_TEXT,
    *lines(
        HEAD + '"choices":[{"finish_reason":"stop","index":0,"delta":{}}]}',
        HEAD + '"choices":[{"index":0,"delta":{}}],"usage":{"completion_tokens":2,'
        '"prompt_tokens":3,"total_tokens":5,"cost":0.00001}}',
        "[DONE]",
    ),
]
# What it says when the host behind it fails half-way; the body then ends as if it were
# whole, without [DONE].
LITELLM_FAILS = [
    *LITELLM_TEXT,
    *lines(
        '{"error": {"message": "litellm.APIConnectionError: upstream", "type": null, '
        '"param": null, "code": "500"}}'
    ),
]
# transformers serve never sends [DONE], and its usage comes with the finish reason.
TRANSFORMERS_TEXT = lines(
    HEAD + '"choices":[{"delta":{"role":"assistant"},"index":0}],'
    '"system_fingerprint":""}',
    HEAD + '"choices":[{"delta":{"content":"Hello"},"index":0}]}',
    HEAD + '"choices":[{"delta":{"content":", you"},"index":0}]}',
)
TRANSFORMERS = [
    *TRANSFORMERS_TEXT,
    *lines(
        HEAD + '"choices":[{"delta":{},"finish_reason":"stop","index":0}],'
        '"usage":{"completion_tokens":2,"prompt_tokens":3,"total_tokens":5}}'
    ),
]
WHOLE = {"litellm": LITELLM, "transformers": TRANSFORMERS}
BROKEN = {
    "litellm reports an error": (LITELLM_FAILS, ServerError),
    "litellm ends": (LITELLM_TEXT, IncompleteAnswer),
    "transformers ends": (TRANSFORMERS_TEXT, IncompleteAnswer),
}


def chunked(events: list[bytes]) -> bytes:
    chunks = (b"%x\r\n%s\r\n" % (len(event), event) for event in events)
    return b"".join((*chunks, b"0\r\n\r\n"))


def serving(*answers: list[bytes]) -> Peer:
    """Answer with these in turn, whatever connection is used; the last one for ever."""
    bodies = itertools.chain(answers, itertools.repeat(answers[-1]))

    def serve(sock):
        while read_request(sock):
            sock.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Transfer-Encoding: chunked\r\nx-litellm-call-id: 7\r\n\r\n"
                + chunked(next(bodies))
            )

    return Peer(serve)


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_answer_is_known_as_such(name):
    with serving(WHOLE[name]) as peer, client_for(peer.url) as client:
        with client.stream("Hello") as stream:
            assert "".join(stream.text_stream) == "Hello, you"
        completion = stream.get_final_completion()
    assert completion.finish_reason == "stop"
    assert completion.guarantee is Guarantee.SINGLE
    assert completion.usage == Usage(
        prompt_tokens=3, completion_tokens=2, total_tokens=5
    )


@pytest.mark.parametrize("name", BROKEN)
def test_a_clean_end_of_half_an_answer_is_not_taken_for_it(name):
    body, error = BROKEN[name]
    with serving(body) as peer, client_for(peer.url, retry=RETRY) as client:
        said = []
        with (
            client.stream("Hello", temperature=1) as stream,
            pytest.raises(StreamInterrupted) as caught,
        ):
            said.extend(stream.text_stream)
    assert "".join(said) == caught.value.partial_text == "Hello, you"
    assert type(caught.value.cause) is error


@pytest.mark.parametrize("name", BROKEN)
def test_it_is_asked_for_again(name):
    whole = WHOLE[name.partition(" ")[0]]
    with (
        serving(BROKEN[name][0], whole) as peer,
        client_for(peer.url, retry=RETRY) as client,
    ):
        with client.stream("Hello", temperature=0) as stream:
            assert "".join(stream.text_stream) == "Hello, you"
        assert stream.get_final_completion().guarantee is Guarantee.REPLAYED
