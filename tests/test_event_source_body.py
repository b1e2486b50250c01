"""The body, the id and the headers of an event source, wrong at the call or later."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import pickle
import types

import pytest
from scripted_feed import NO_MORE, QUICK, STREAM, Server

import holystream
from holystream import InvalidRequest, StreamError

ONE = STREAM + b"id: 1\ndata: a\n\n"


@pytest.fixture
def client():
    with holystream.Client("hs-events-4f9a1c", model="m") as client:
        yield client
        assert client.pool.statistics().in_use == 0


@dataclasses.dataclass
class Query:
    """A body that is no dict."""

    since: dt.date


def in_itself():
    around = []
    around.append(around)
    return around


NO_JSON = [
    float("nan"),
    {"a": [float("inf")]},
    object(),
    {"a": object()},
    {"a": "\ud83d"},
    {"\ud83d": 1},
    2**70,
    {object(): 1},
    {None: 1},
    in_itself(),
    iter([1]),
]


@pytest.mark.parametrize("body", NO_JSON, ids=lambda body: type(body).__name__)
def test_a_body_that_json_cannot_hold_is_refused_at_the_call(client, body):
    with pytest.raises(InvalidRequest, match="json") as caught:
        client.event_source("http://127.0.0.1:9/feed", method="POST", json=body)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


@pytest.mark.parametrize(
    "wrong",
    [
        {"last_event_id": "a\ud83d"},
        {"headers": {"X-A": "\ud83d"}},
        {"headers": {"X-\ud83d": "a"}},
        {"url": "http://127.0.0.1:9/\ud83d"},
        {"url": "http://\ud83d:9/"},
        {"method": "\ud83d"},
    ],
    ids=str,
)
def test_half_a_character_is_refused_at_the_call(client, wrong):
    with pytest.raises(InvalidRequest):
        client.event_source(**{"url": "http://127.0.0.1:9/feed", **wrong})


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (Query(dt.date(2026, 1, 2)), {"since": "2026-01-02"}),
        (types.MappingProxyType({"a": (1, None)}), {"a": [1, None]}),
        ({1: {"b"}}, {"1": ["b"]}),
        ("text", "text"),
        ([], []),
    ],
    ids=str,
)
def test_a_body_is_whatever_json_can_hold(client, body, sent):
    with Server(NO_MORE) as server:
        list(client.event_source(server.url, method="POST", json=body))
    (request,) = server.requests
    assert json.loads(request.body) == sent


def test_a_body_is_taken_at_the_call(client):
    body = {"a": [1]}
    with Server(NO_MORE) as server:
        source = client.event_source(server.url, method="POST", json=body)
        body["a"].append(float("nan"))
        list(source)
    assert server.requests[0].body == b'{"a":[1]}'


def fails(last_event_id):
    raise LookupError("a word of the caller's")


def ends(last_event_id):
    raise StopIteration


MAKERS = {
    "it raises": (fails, LookupError),
    "it stops": (ends, StopIteration),
    "no JSON": (lambda last: {"after": float("nan")}, InvalidRequest),
    "half a character": (lambda last: "\ud83d", InvalidRequest),
    "one of ours": (lambda last: 1 / 0, ZeroDivisionError),
}


@pytest.mark.parametrize(("make", "cause"), MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("first", [True, False], ids=["at once", "halfway"])
def test_a_body_that_cannot_be_made_ends_the_feed(client, make, cause, first):
    def body(last_event_id):
        if not first and not last_event_id:
            return {"after": None}
        return make(last_event_id)

    seen = []
    with Server(ONE) as server:
        source = client.event_source(server.url, method="POST", json=body, retry=QUICK)
        with pytest.raises(StreamError, match="no body") as caught:
            seen += (event.data for event in source)
        assert seen == ([] if first else ["a"])
        assert len(server.requests) == len(seen)
        assert type(caught.value.__cause__) is cause
        assert "word" not in str(caught.value)
        assert caught.value.attempts == 1 + len(seen)
        assert source.state is holystream.StreamState.CLOSED
        with pytest.raises(StreamError) as again:
            next(source)
        assert again.value is caught.value
    if not first:
        assert source.last_event_id == "1"


def test_a_ctrl_c_in_the_function_is_let_through(client):
    def body(last_event_id):
        raise KeyboardInterrupt

    source = client.event_source("http://127.0.0.1:9/", method="POST", json=body)
    with pytest.raises(KeyboardInterrupt):
        next(source)
