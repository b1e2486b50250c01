"""The general EventSource against servers that are scripted byte by byte."""

from __future__ import annotations

import json
import threading

import pytest
from scripted_feed import NO_MORE, QUICK, REFUSED, STREAM, Reset, Server

import holystream
from holystream import Comment, Connected, Interrupted, ServerSentEvent, Waiting


@pytest.fixture
def client():
    with holystream.Client("hs-events-4f9a1c", model="m") as client:
        yield client
        assert client.pool.statistics().in_use == 0


def _data(source):
    return [event.data for event in source]


def test_events_have_their_fields(client):
    body = b"retry: 7\nid: 1\nevent: hi\ndata: h\xc3\xa9\ndata: llo\n\ndata: x\n\n"
    with Server(STREAM + body, NO_MORE) as server:
        source = client.event_source(server.url, retry=QUICK)
        assert list(source) == [
            ServerSentEvent("hé\nllo".encode(), "hi", "1", 7),
            ServerSentEvent(b"x", "", "1", None),
        ]
        assert source.reconnection_time == 0.007
        assert source.last_event_id == "1"
    get, _ = server.requests
    assert (get.method, get.path, get.body) == ("GET", "/feed", b"")
    assert get.headers[b"accept"] == b"text/event-stream"
    assert get.last_event_id is None
    assert b"authorization" not in get.headers


def test_it_goes_on_from_the_last_id_and_ends_on_204(client):
    with Server(
        STREAM + b"id: a\ndata: 1\n\n",
        STREAM + b"data: 2\n\nid: \xe2\x82\xac\n\n",
        STREAM + b"id\ndata: 3\n\n",
        NO_MORE,
    ) as server:
        assert _data(client.event_source(server.url, retry=QUICK)) == ["1", "2", "3"]
    assert [each.last_event_id for each in server.requests] == [None, "a", "€", None]


def test_an_unfinished_event_is_dropped_with_its_id(client):
    with Server(STREAM + b"id: 1\ndata: a\n\nid: 2\ndata: {}\n", NO_MORE) as server:
        assert _data(client.event_source(server.url, retry=QUICK)) == ["a"]
    assert server.requests[1].last_event_id == "1"


def test_an_id_before_a_comment_waits_for_its_blank_line(client):
    with Server(STREAM + b"id: 1\ndata: a\n\nid: 2\n:c\n", NO_MORE) as server:
        assert _data(client.event_source(server.url, retry=QUICK)) == ["a"]
    assert server.requests[1].last_event_id == "1"


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        (b"\xef\xbb\xbf:a\ndata: 1\n\n", [Comment("a"), ServerSentEvent(b"1")]),
        (b":a\n\xef\xbb\xbfdata: 1\n\n", [Comment("a")]),
        (b"\xef\xbb\xbf\xef\xbb\xbf:a\ndata: 1\n\n", [ServerSentEvent(b"1")]),
    ],
)
def test_a_byte_order_mark_belongs_to_the_first_line_comment_or_not(client, body, seen):
    with Server(STREAM + body, NO_MORE) as server:
        notices = list(client.event_source(server.url, retry=QUICK).all)
    kinds = (Comment, ServerSentEvent)
    assert [each for each in notices if isinstance(each, kinds)] == seen


@pytest.mark.parametrize("seed", ["\u2003a\u00a0", "\x0ba\x0c", "\x1c", "\x85…"])
def test_an_id_is_sent_as_it_came(client, seed):
    body = f"id: {seed}\ndata: a\n\n".encode()
    with Server(STREAM + body, NO_MORE) as server:
        list(client.event_source(server.url, retry=QUICK))
        list(client.event_source(server.url, last_event_id=seed, retry=QUICK))
    assert [each.last_event_id for each in server.requests] == [None, seed, seed]


@pytest.mark.parametrize(
    "kind",
    [
        b"application/json, text/event-stream; charset=utf-8",
        b'text/event-stream; a="b,c/d"',
    ],
)
def test_the_last_of_several_types_counts(client, kind):
    answer = STREAM.replace(b"text/event-stream", kind) + b"data: a\n\n"
    with Server(answer, NO_MORE) as server:
        assert _data(client.event_source(server.url, retry=QUICK)) == ["a"]
    refused = STREAM.replace(b"text/event-stream", b"text/event-stream, text/html")
    with Server(refused) as server, pytest.raises(holystream.NotAnEventStream):
        list(client.event_source(server.url, retry=QUICK))


def test_the_type_of_the_body_can_be_given(client):
    with Server(NO_MORE) as server:
        headers = {"content-type": "application/query+json"}
        list(client.event_source(server.url, method="QUERY", json=[1], headers=headers))
    (request,) = server.requests
    assert request.headers[b"content-type"] == b"application/query+json"


def test_it_can_start_from_an_id(client):
    with Server(NO_MORE) as server:
        source = client.event_source(server.url, last_event_id="42")
        assert source.last_event_id == "42"
        assert _data(source) == []
    assert server.requests[0].last_event_id == "42"


def test_the_id_is_that_of_the_event_in_hand(client):
    body = b"id: 1\ndata: a\n\nid: 2\ndata: b\n\nid: 3\n\n"
    with Server(STREAM + body, NO_MORE) as server:
        source = client.event_source(server.url, retry=QUICK)
        seen = [(event.data, source.last_event_id) for event in source]
        assert seen == [("a", "1"), ("b", "2")]
        assert source.last_event_id == "3"


def test_a_body_is_sent_again_or_made_anew(client):
    with Server(STREAM + b"id: 5\ndata: a\n\n", NO_MORE) as server:
        list(client.event_source(server.url, method="post", json={"q": 1}, retry=QUICK))
    assert [json.loads(each.body) for each in server.requests] == [{"q": 1}] * 2
    assert {each.method for each in server.requests} == {"POST"}
    with Server(STREAM + b"id: 5\ndata: a\n\n", NO_MORE) as server:
        source = client.event_source(
            server.url, method="POST", json=lambda last: {"after": last}, retry=QUICK
        )
        list(source)
    assert [json.loads(each.body)["after"] for each in server.requests] == ["", "5"]


def test_all_tells_of_comments_and_of_the_connection(client):
    body = b": hello\nid: 1\ndata: a\n\n:bye\n:\n\n"
    with Server(STREAM + body, NO_MORE) as server:
        notices = list(client.event_source(server.url, retry=QUICK).all)
    kinds = [type(notice) for notice in notices]
    assert kinds == [
        *(Connected, Comment, ServerSentEvent, Comment, Comment),
        *(Interrupted, Waiting),
    ]
    assert [each.text for each in notices if isinstance(each, Comment)] == [
        "hello",
        "bye",
        "",
    ]
    assert isinstance(notices[-2].error, holystream.ConnectionLost)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again(client, status):
    with Server(REFUSED % status, STREAM + b"data: a\n\n", NO_MORE) as server:
        assert _data(client.event_source(server.url, retry=QUICK)) == ["a"]
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (
            b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n",
            holystream.AuthenticationError,
        ),
        (b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", holystream.NotFound),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<p>",
            holystream.NotAnEventStream,
        ),
    ],
)
def test_what_does_not_pass_is_raised_and_raised_again(client, answer, error):
    with Server(answer) as server:
        source = client.event_source(server.url, retry=QUICK)
        for _ in range(2):
            with pytest.raises(error):
                list(source)
    assert len(server.requests) == 1


def test_it_gives_up_when_nothing_comes_of_it(client):
    with Server(STREAM) as server, pytest.raises(holystream.ConnectionLost) as caught:
        list(client.event_source(server.url, retry=QUICK))
    assert len(server.requests) == 3
    assert caught.value.exhausted
    assert "3 attempts" in str(caught.value)


def test_the_reason_to_give_up_is_a_sentence_of_its_own(client):
    with (
        Server(Reset(STREAM)) as server,
        pytest.raises(holystream.StreamError) as caught,
    ):
        list(client.event_source(server.url, retry=QUICK))
    assert ". Gave up: 3 attempts" in str(caught.value)


def test_a_silence_is_told_in_words_that_fit(client):
    once = holystream.RetryPolicy(attempts=1)
    limits = holystream.Timeouts(idle=0.05)
    with (
        Server(STREAM + b": hold\n\n") as server,
        pytest.raises(holystream.IdleTimeout) as caught,
    ):
        list(client.event_source(server.url, timeout=limits, retry=once))
    message = str(caught.value)
    assert "not one byte within 0.05 s. Raise idle= of its timeout=Timeouts(...)" in (
        message
    )
    assert "Timeouts.idle" not in message


def test_events_are_progress(client):
    with Server(*[STREAM + b"data: %d\n\n" % n for n in range(20)], NO_MORE) as server:
        source = client.event_source(server.url, retry=QUICK)
        assert _data(source) == [str(n) for n in range(20)]


def test_the_time_the_server_asks_for_is_waited(client):
    with Server(STREAM + b"retry: 30\ndata: a\n\n", NO_MORE) as server:
        notices = list(client.event_source(server.url, retry=QUICK).all)
    (waiting,) = [each for each in notices if isinstance(each, Waiting)]
    assert 0.03 <= waiting.delay <= 0.06
    assert waiting.reason == "server hint"


def test_silence_reconnects(client):
    with Server(STREAM + b"data: a\n\ndata: hold\n\n", NO_MORE) as server:
        source = client.event_source(
            server.url, retry=QUICK, timeout=holystream.Timeouts(idle=0.05)
        )
        assert _data(source) == ["a", "hold"]
    assert len(server.requests) == 2


def _redirect(status, url):
    return b"HTTP/1.1 %d X\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (
        status,
        url.encode(),
    )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_a_get_is_followed_and_a_permanent_one_remembered(client, status):
    with (
        Server(STREAM + b"data: a\n\n", NO_MORE) as other,
        Server(_redirect(status, other.url)) as server,
    ):
        source = client.event_source(
            server.url, headers={"Authorization": "Bearer own", "X-A": "b"}, retry=QUICK
        )
        assert _data(source) == ["a"]
        assert len(other.requests) == 2
        assert len(server.requests) == (1 if status in (301, 308) else 2)
    assert server.requests[0].headers[b"authorization"] == b"Bearer own"
    for request in other.requests:
        assert b"authorization" not in request.headers
        assert b"x-a" not in request.headers


def test_a_post_follows_within_its_origin_alone(client):
    with Server(lambda request: _redirect(307, "/next"), NO_MORE) as server:
        list(client.event_source(server.url, method="POST", json=[1], retry=QUICK))
        assert [each.path for each in server.requests] == ["/feed", "/next"]
        assert server.requests[1].body == b"[1]"
    with Server(NO_MORE) as other, Server(_redirect(307, other.url)) as server:
        with pytest.raises(holystream.UnexpectedRedirect):
            list(client.event_source(server.url, method="POST", json=[1], retry=QUICK))
        assert not other.requests


def test_the_key_goes_to_its_own_origin_alone():
    with (
        Server(NO_MORE) as home,
        Server(NO_MORE) as other,
        holystream.Client("hs-events-4f9a1c", base_url=home.url) as client,
    ):
        list(client.event_source(home.url + "?a=b"))
        list(client.event_source(other.url))
    assert home.requests[0].headers[b"authorization"] == b"Bearer hs-events-4f9a1c"
    assert b"authorization" not in other.requests[0].headers


def test_close_from_another_thread_ends_the_loop(client):
    with Server(STREAM + b"data: hold\n\n") as server:
        source = client.event_source(server.url)
        closer = threading.Thread(target=source.close)
        for _ in source:
            closer.start()
        closer.join()
        assert list(source) == []
        assert server.gone.wait(20)


def test_restart_from_another_thread_connects_again(client):
    with Server(
        STREAM + b"id: 1\ndata: hold\n\n", STREAM + b"data: b\n\n", NO_MORE
    ) as server:
        source = client.event_source(server.url, retry=QUICK)
        seen = []
        for event in source:
            seen.append(event.data)
            if event.data == "hold":
                threading.Thread(target=source.restart).start()
        assert seen == ["hold", "b"]
    assert server.requests[1].last_event_id == "1"


def test_nothing_is_sent_before_it_is_iterated(client):
    with Server(NO_MORE) as server:
        with client.event_source(server.url) as source:
            assert source.state is holystream.StreamState.IDLE
            assert "idle" in repr(source)
        assert not server.requests
        assert list(source) == []


def test_a_server_that_ignores_the_id_can_be_told(client):
    with Server(
        STREAM + b"id: 1\ndata: a\n\n", STREAM + b"id: 1\ndata: a\n\n", NO_MORE
    ) as server:
        events = list(client.event_source(server.url, retry=QUICK))
    assert [(event.id, event.data) for event in events] == [("1", "a")] * 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"url": "example.com/feed"}, "url"),
        ({"url": "ftp://example.com"}, "url"),
        ({"url": "http://user:word@example.com"}, "url"),
        ({"url": "http://exa mple.com"}, "url"),
        ({"url": 5}, "url"),
        ({"method": "G T"}, "method"),
        ({"headers": {"A": "b\nC: d"}}, "headers"),
        ({"headers": {"Host": "b"}}, "headers"),
        ({"last_event_id": "a\nb"}, "last_event_id"),
        ({"last_event_id": 7}, "last_event_id"),
        ({"timeout": -1}, "timeout"),
        ({"retry": 3}, "retry"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(client, arguments, named):
    with pytest.raises(
        (holystream.InvalidRequest, holystream.ConfigurationError), match=named
    ) as caught:
        client.event_source(**{"url": "http://127.0.0.1:9/feed", **arguments})
    assert "word@" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        (REFUSED % 401, "Check the key in headers=: the client's own goes to"),
        (REFUSED % 404, "Check the URL."),
        (
            b"HTTP/1.1 302 X\r\nContent-Length: 0\r\nLocation: x:y\r\n\r\n",
            "ask for it.",
        ),
        (b"HTTP/1.1 200 X\r\nContent-Type: a/b\r\n\r\n", "Check the URL."),
        (b"SSH-2.0\r\n", "Check that the URL names an event stream."),
        (STREAM + b"x" * 9_000_000, "check what answers there."),
    ],
)
def test_what_ends_it_gives_advice_for_a_feed(client, answer, advice):
    once = holystream.RetryPolicy(attempts=1)
    with Server(answer) as server, pytest.raises(holystream.StreamError) as caught:
        next(client.event_source(server.url, retry=once))
    assert advice in str(caught.value)
    for word in ("base_url", "max_", "api_key", "{"):
        assert word not in str(caught.value)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("key=AIzaSecret", "AIzaSecret"),
        ("a=b&api%5Fkey=AIza%2FSecret&c", "AIza/Secret"),
        ("q=a-long-value-of-any-name", "a-long-value-of-any-name"),
    ],
)
def test_a_key_in_the_url_is_in_no_error(client, query, said):
    body = f"no such page: /feed?{query} ({said})".encode()
    refusal = b"HTTP/1.1 404 X\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with Server(refusal) as server:
        source = client.event_source(f"{server.url}?{query}")
        with pytest.raises(holystream.NotFound) as caught:
            next(source)
    assert "no such page: /feed?" in str(caught.value)
    assert "AIza" not in repr(caught.value)
    assert said not in repr(caught.value)


def test_a_word_in_the_url_may_be_said(client):
    body = b"no such topic: payments"
    refusal = b"HTTP/1.1 404 X\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with Server(refusal) as server:
        source = client.event_source(f"{server.url}?topic=payments&key=")
        with pytest.raises(holystream.NotFound, match="topic: payments"):
            next(source)


def test_its_timeout_bounds_the_queue_as_well():
    pool = holystream.PrioritySemaphore(1)
    limits = holystream.Timeouts(queue=0.05)
    with holystream.Client("hs-events-4f9a1c", pool=pool) as client, pool.acquire():
        source = client.event_source("http://127.0.0.1:9/", timeout=limits)
        with pytest.raises(holystream.QueueTimeout):
            next(source)
