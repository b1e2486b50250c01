"""What the suites of others expect of a client's requests, and of answers to them.

From web-platform-tests' eventsource, LaunchDarkly's contract tests (ssetests) and the
suites of eventsource, eventsource-client, httpx-sse, requests-sse and
launchdarkly-eventsource. Each row names the case that it is.
"""

from __future__ import annotations

import itertools
import json

import pytest
from loopback import Peer, Reader, certificates, wait_for_end
from scripted_feed import NO_MORE, STREAM, Request, Server

import holystream
from holystream import Connected, Interrupted, StreamState, Waiting
from holystream.testing import SleeplessClock

FEW = holystream.RetryPolicy(attempts=3)
DATA = b"data: data\n\n"


@pytest.fixture
def clock():
    with SleeplessClock() as clock:
        yield clock


@pytest.fixture
def client(clock):
    with holystream.Client("hs-events-4f9a1c", model="m") as client:
        yield client
        assert client.pool.statistics().in_use == 0


def typed(kind):
    """Return an answer of this type with one event."""
    return STREAM.replace(b"text/event-stream", kind) + DATA


def status(number, *headers):
    """Return an answer with this status that looks like an event stream otherwise."""
    head = [b"HTTP/1.1 %d X" % number, b"Content-Type: text/event-stream", *headers]
    body = b"" if number in {204, 205} else DATA
    head += [b"Content-Length: %d" % len(body), b"", body]
    return b"\r\n".join(head)


def redirect(number, url):
    return status(number, b"Location: " + url.encode())


def texts(source):
    return [event.data for event in source]


OPENED = {
    "wpt request-accept": STREAM + DATA,
    "wpt format-mime-trailing-semicolon": typed(b"text/event-stream;"),
    "wpt format-utf-8": typed(b"text/event-stream;charset=windows-1252"),
    "upper case": typed(b"TEXT/Event-Stream"),
    "white space": typed(b" text/event-stream ; charset=utf-8"),
    "bogus parameter": typed(b"text/event-stream;bogus"),
    "httpx-sse contains": typed(b"application/json, text/event-stream; charset=utf-8"),
}


@pytest.mark.parametrize("answer", OPENED.values(), ids=OPENED)
def test_is_opened(client, answer):
    with Server(answer, NO_MORE) as server:
        assert texts(client.event_source(server.url)) == ["data"]
    assert len(server.requests) == 2


API, NO_STREAM = holystream.APIError, holystream.NotAnEventStream
REFUSED = {
    "wpt format-mime-bogus": (typed(b"x bogus"), NO_STREAM),
    "wpt format-mime-valid-bogus": (typed(b"text/x-bogus"), NO_STREAM),
    "launchdarkly-eventsource text/plain": (typed(b"text/plain"), NO_STREAM),
    "httpx-sse non event stream": (typed(b"text/plain; charset=utf-8"), NO_STREAM),
    "a longer name": (typed(b"text/event-stream2"), NO_STREAM),
    **{
        f"wpt request-status-error {number}": (status(number), NO_STREAM)
        for number in (205, 210, 299)
    },
    **{
        f"wpt request-status-error {number}": (status(number), API)
        for number in (404, 410)
    },
    **{f"eventsource {number}": (status(number), API) for number in (401, 403)},
    "launchdarkly-eventsource 400": (status(400), API),
    **{
        f"eventsource {number} without a location": (
            status(number),
            holystream.UnexpectedRedirect,
        )
        for number in (301, 307)
    },
    "304": (status(304), holystream.UnexpectedRedirect),
}


@pytest.mark.parametrize(("answer", "error"), REFUSED.values(), ids=REFUSED)
def test_is_refused_for_good(client, answer, error):
    with Server(answer) as server:
        source = client.event_source(server.url, retry=FEW)
        seen = []
        with pytest.raises(error):
            seen.extend(source.all)
    assert [type(each) for each in seen] == [Interrupted]
    assert len(server.requests) == 1
    assert source.state is StreamState.CLOSED


RETRIED = {
    **{
        f"eventsource {number}, wpt resources/status-error": [status(number)]
        for number in (500, 502, 503, 504, 429)
    },
    "launchdarkly-eventsource network error": [b""],
    "half a head": [b"HTTP/1.1 200 O"],
    "wpt eventsource-reconnect 200": [STREAM + b"retry: 2\n"],
}


@pytest.mark.parametrize("answers", RETRIED.values(), ids=RETRIED)
def test_is_tried_again(client, answers):
    with Server(*answers, STREAM + DATA, NO_MORE) as server:
        assert texts(client.event_source(server.url)) == ["data"]
    assert len(server.requests) == len(answers) + 2


def test_503_and_then_400(client):
    """launchdarkly-eventsource: a retry during the first connect that then fails."""
    with (
        Server(status(503), status(400)) as server,
        pytest.raises(holystream.BadRequest),
    ):
        list(client.event_source(server.url))
    assert len(server.requests) == 2


@pytest.mark.parametrize("number", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_redirects(client, number, elsewhere):
    """Wpt request-redirect and cross-origin-redirect-origin, eventsource's redirects.

    A reconnect goes through the first URL again, but after a permanent redirect.
    """
    permanent = number in {301, 308}
    with Server(STREAM + DATA, NO_MORE) as other:
        place = other.url if elsewhere else "/next"

        def answer(request):
            if request.path == "/feed":
                return redirect(number, place)
            return STREAM + DATA if len(server.requests) == 2 else NO_MORE

        with Server(answer) as server:
            headers = {"Authorization": "Bearer foo"}
            source = client.event_source(server.url, headers=headers)
            assert texts(source) == ["data"]
    own = [request.path for request in server.requests]
    there = ["/feed"] * 2 if elsewhere else ["/next"] * 2
    firsts = ["/feed"] if permanent else ["/feed"] * 2
    assert sorted(own) == sorted(firsts + ([] if elsewhere else there))
    assert [request.path for request in other.requests] == (there if elsewhere else [])
    for request in server.requests:
        assert request.headers[b"authorization"] == b"Bearer foo"
    for request in other.requests:
        assert b"authorization" not in request.headers


def test_the_default_request(client):
    """Contract: default method and headers; wpt request-accept, -cache-control."""
    with Server(STREAM + DATA, NO_MORE) as server:
        list(client.event_source(server.url))
    for request in server.requests:
        assert (request.method, request.body) == ("GET", b"")
        assert request.headers[b"accept"] == b"text/event-stream"
        assert request.headers[b"cache-control"] == b"no-cache"
        assert request.last_event_id is None
        assert b"content-type" not in request.headers


def test_own_headers(client):
    """Contract: custom headers; eventsource: sets request headers."""
    own = {
        "header-name-1": "value-1",
        "header-name-2": "value-2",
        "User-Agent": "test",
        "Cookie": "test=test",
    }
    with Server(STREAM + DATA, NO_MORE) as server:
        list(client.event_source(server.url, headers=own))
    for request in server.requests:
        for name, value in own.items():
            assert request.headers[name.lower().encode()] == value.encode()


@pytest.mark.parametrize("method", ["POST", "REPORT"])
def test_a_body_that_is_sent_again(client, method):
    """Contract: POST and REPORT request, resends request body when reconnecting."""
    kind = "application/json; charset=utf-8"
    with Server(STREAM + DATA, NO_MORE) as server:
        source = client.event_source(
            server.url,
            method=method,
            json={"hello": "world"},
            headers={"content-type": kind},
        )
        assert texts(source) == ["data"]
    for request in server.requests:
        assert request.method == method
        assert request.headers[b"content-type"] == kind.encode()
        assert json.loads(request.body) == {"hello": "world"}


@pytest.mark.parametrize("how", ["argument", "header"])
def test_an_id_to_begin_with(client, how):
    """Contract: Last-Event-Id in initial request; eventsource: in its headers."""
    first = STREAM + DATA
    with Server(first, STREAM + b"id: 10\n" + DATA, NO_MORE) as server:
        given = (
            {"last_event_id": "9"}
            if how == "argument"
            else {"headers": {"Last-Event-ID": "9"}}
        )
        list(client.event_source(server.url, **given))
    assert [each.last_event_id for each in server.requests] == ["9", "9", "10"]


IDS = {
    "contract: sends ID of last received event": [b"id: abc\ndata: Hello\n\n", "abc"],
    "contract: if later events did not have one": [
        b"id: abc\ndata: Hello\n\ndata: World\n\n",
        "abc",
    ],
    "eventsource: none if none was sent": [b"data: Hello\n\n", None],
    "wpt format-field-id": ["id: …\ndata: hello\n\n".encode(), "…"],
    "wpt cross-origin-preflight unsafe": [b"id: e5p3n<3k0k0s\n" + DATA, "e5p3n<3k0k0s"],
    "wpt cross-origin-preflight long": [b"id: %s\n" % (b"a" * 255) + DATA, "a" * 255],
    "wpt format-field-id-null": [b"id: \0\0\n" + DATA, None],
}


@pytest.mark.parametrize(("body", "sent"), IDS.values(), ids=IDS)
def test_the_id_outlives_connections_that_send_none(client, body, sent):
    """Wpt format-field-id-2, from-readable-stream: lastEventId persists."""
    with Server(STREAM + body, STREAM + DATA, STREAM + DATA, NO_MORE) as server:
        events = list(client.event_source(server.url))
    assert [each.last_event_id for each in server.requests] == [None, *[sent] * 3]
    assert [event.id for event in events[-2:]] == [sent or ""] * 2


def test_the_time_to_wait_outlives_a_connection(client, clock):
    """Wpt from-readable-stream: reconnectionTime persists."""
    with Server(STREAM + b"retry: 3000\n" + DATA, STREAM + DATA, NO_MORE) as server:
        source = client.event_source(server.url)
        list(source)
    assert source.reconnection_time == 3.0
    assert [wait >= 3.0 for wait in clock.waits] == [True, True]


def test_the_states(client):
    """Wpt eventsource-close, eventsource-onopen; eventsource: ready state."""
    with Server(STREAM + DATA, STREAM + b"data: again\n\n", NO_MORE) as server:
        source = client.event_source(server.url)
        assert source.state is StreamState.IDLE
        seen = [(type(each), source.state) for each in source.all]
        assert source.state is StreamState.DONE
    kinds = [kind for kind, _ in seen]
    once = [Connected, holystream.ServerSentEvent, Interrupted, Waiting]
    assert kinds == once * 2
    assert {state for kind, state in seen if kind is Connected} == {
        StreamState.STREAMING
    }


def test_close_while_it_connects(client):
    """Wpt eventsource-request-cancellation."""

    def answer(request):
        closer = Reader(source.close)
        assert closer.ended() is None
        return STREAM + DATA

    with Server(answer) as server:
        source = client.event_source(server.url)
        assert list(source.all) == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("moment", [Connected, Interrupted, Waiting])
def test_close_is_the_end(client, moment):
    """Eventsource: no reconnect after close, in onerror neither; requests-sse."""
    with Server(STREAM + DATA) as server:
        source = client.event_source(server.url)
        for notice in source.all:
            if isinstance(notice, moment):
                source.close()
        assert list(source.all) == []
    assert len(server.requests) == 1


def test_restart(client):
    """Contract: caller can trigger a restart."""
    with Server(
        STREAM + b"data: hold\n\n", STREAM + b"data: Thanks\n\n", NO_MORE
    ) as server:
        source = client.event_source(server.url)
        events = iter(source)
        assert next(events).data == "hold"
        source.restart()
        assert next(events).data == "Thanks"
        assert server.gone.wait(20)
        assert list(events) == []


def test_silence(client):
    """Contract: can set read timeout."""
    with Server(STREAM + b"data: hold\n\n", NO_MORE) as server:
        timeout = holystream.Timeouts(idle=0.05)
        notices = list(client.event_source(server.url, timeout=timeout).all)
    (interrupted,) = [each for each in notices if isinstance(each, Interrupted)]
    assert isinstance(interrupted.error, holystream.IdleTimeout)
    assert len(server.requests) == 2


def test_a_server_that_is_not_there_yet(client):
    """Eventsource: reconnection is attempted when the server is down."""
    with Server(NO_MORE) as server:
        url = server.url
    source = client.event_source(url)
    notices = source.all
    kinds = [type(notice) for notice in itertools.islice(notices, 4)]
    assert kinds == [Interrupted, Waiting] * 2
    source.close()
    assert list(source) == []


def test_over_tls(clock, tmp_path):
    """Eventsource: uses https for https urls."""
    context, authority = certificates(tmp_path)

    def serve(sock):
        Request(sock)
        sock.sendall(STREAM + DATA)
        wait_for_end(sock)

    with (
        Peer(serve, tls=context) as peer,
        holystream.Client("k" * 20, model="m", verify=authority) as client,
        client.event_source(peer.url) as source,
    ):
        assert next(source).data == "data"


def test_what_is_no_url_is_refused(client):
    """Wpt eventsource-constructor-url-bogus, non-same-origin; eventsource-client."""
    for url in (
        *("http://this is invalid/", "ftp://example.not/", "about:blank", ""),
        *("mailto:whatwg@awesome.example", "javascript:alert('FAIL')", 123),
    ):
        with pytest.raises(holystream.InvalidRequest, match="url"):
            client.event_source(url)
