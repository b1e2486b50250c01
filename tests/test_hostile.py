"""What a hostile or broken server must not be able to do: one test for each attempt."""

from __future__ import annotations

import json

import pytest
from loopback import ONCE, Peer, answer, client_for, read_request, wait_for_end

from holystream import (
    AuthenticationError,
    FirstTokenTimeout,
    MalformedEvent,
    RetryPolicy,
    StreamInterrupted,
    Timeouts,
)

STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n%s\r\n"
)


def event(**choice):
    finish = choice.pop("finish_reason", None)
    index = choice.pop("index", 0)
    chunk = {"choices": [{"index": index, "delta": choice, "finish_reason": finish}]}
    return b"data: %s\n\n" % json.dumps(chunk).encode()


def call(arguments):
    function = {"name": "act", "arguments": json.dumps(arguments)}
    return event(tool_calls=[{"index": 0, "id": "c", "function": function}])


END = event(finish_reason="stop") + b"data: [DONE]\n\n"


@pytest.mark.parametrize("other", [True, 1.0, "1"])
def test_a_tool_call_that_differs_in_type_is_another_answer(other):
    """Python holds 1, 1.0 and True for equal."""
    bodies = [
        call({"confirm": 1}) + event(content="a"),
        call({"confirm": other}) + event(content="a"),
    ]
    second = event(tool_calls=[{"index": 1, "id": "d", "function": {"name": "b"}}])
    cut = bodies[0].replace(event(content="a"), second)

    def serve(sock):
        read_request(sock)
        sock.sendall(STREAM % b"" + (cut if first.pop() else bodies[1] + END))

    first = [False, True]
    retry = RetryPolicy(attempts=3, base=0.001)
    with (
        Peer(serve) as peer,
        client_for(peer.url, retry=retry) as client,
        pytest.raises(StreamInterrupted, match="not the answer"),
    ):
        client.stream("x", temperature=0).until_done()


def test_usage_alone_is_no_content():
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":%d}}\n\n'

    def serve(sock):
        read_request(sock)
        sock.sendall(STREAM % b"" + usage % 1)
        wait_for_end(sock)

    timeouts = Timeouts(first_token=0.3, idle=30, token_idle=30)
    with (
        Peer(serve) as peer,
        client_for(peer.url, timeout=timeouts) as client,
        pytest.raises(FirstTokenTimeout),
    ):
        client.stream("x").until_done()


def test_a_choice_below_the_first_is_malformed():
    def serve(sock):
        read_request(sock)
        sock.sendall(STREAM % b"" + event(content="wrong", index=-1) + END)

    with (
        Peer(serve) as peer,
        client_for(peer.url, retry=ONCE) as client,
        pytest.raises(MalformedEvent),
    ):
        client.stream("x").until_done()


def test_echoed_secrets_are_in_no_error():
    token = "tok-5f1b7c9e2d"

    def serve(sock):
        head = read_request(sock)
        key = head.partition(b"Bearer ")[2].split(b"\r\n")[0].decode()
        sock.sendall(
            answer(
                f"bad token {token}".encode(),
                f"X-Request-Id: {key} {token}",
                status="401 Unauthorized",
            )
        )

    with (
        Peer(serve) as peer,
        client_for(peer.url) as client,
        pytest.raises(AuthenticationError) as caught,
    ):
        client.stream("x", extra_headers={"X-Token": token}).until_done()
    assert token not in str(caught.value)
    assert "Bearer" not in str(caught.value)
