"""Buffering: what collects an answer is told from what lets it through.

Time is the test's own: it passes when an event is let go, and when the test says so, so
that no verdict depends on how fast this machine is.
"""

import contextlib
import http.client
import math
import threading
from urllib.parse import urlsplit

import pytest
from hypothesis import given, strategies as st
from loopback import Peer, answer, read_request

from holystream.cli.doctor.buffering import (
    MAX_TOKENS,
    Arrivals,
    Flow,
    buffering,
    judge,
)
from holystream.cli.doctor.findings import Status
from holystream.simulator import Script, Simulator

JSON = "Content-Type: application/json"


class Time:
    """Passes by one step whenever it is asked for, which lets the next piece go."""

    def __init__(self, step=0.0):
        self.seconds = 0.0
        self.gate = threading.Semaphore(0)
        self._step = step

    def __call__(self):
        now = self.seconds
        self.seconds += self._step
        self.gate.release()
        return now


@pytest.fixture
def stream(case):
    """Stream from a base URL, by a time of our own; return what was found."""

    def run(base_url, time, **options):
        made = case(base_url, now=time, **options)
        made.base_url = base_url
        return buffering(made)

    return run


def test_events_that_come_one_by_one_are_live(stream):
    time = Time(0.05)
    with Simulator(script=Script(gate=time.gate)) as server:
        finding = stream(server.base_url, time)
        (asked,) = [each for each in server.requests if each.method == "POST"]
    assert finding.status is Status.OK, finding
    # The next one was not sent before the last had been read.
    assert finding.facts["reads"] == finding.facts["events"] > 100
    assert finding.facts["spread_seconds"] > 4
    assert asked.json["max_tokens"] == MAX_TOKENS


@contextlib.contextmanager
def collector(port, time, *headers, framing="length"):
    """A proxy that lets nothing through before it has everything."""

    def converse(sock):
        while request := read_request(sock):
            head, _, body = request.partition(b"\r\n\r\n")
            method, path, _ = head.split(b"\r\n")[0].decode().split(" ")
            far = http.client.HTTPConnection("127.0.0.1", port)
            with contextlib.closing(far):
                far.request(method, urlsplit(path).path, body)
                response = far.getresponse()
                data = response.read()
            kind = f"Content-Type: {response.headers['content-type']}"
            if method == "POST":
                time.seconds += 3
            if framing == "length":
                sock.sendall(answer(data, kind, *headers))
                continue
            rows = ["HTTP/1.1 200 OK", kind, "Connection: close", *headers, "", ""]
            sock.sendall("\r\n".join(rows).encode() + data)
            return

    with Peer(converse) as peer:
        yield f"{peer.url}/v1"


@pytest.mark.parametrize("framing", ["length", "close"])
def test_a_proxy_that_collects_is_found_out(stream, framing):
    time = Time()
    with (
        Simulator() as server,
        collector(server.port, time, "Via: 1.1 cellar", framing=framing) as url,
    ):
        finding = stream(url, time)
    assert finding.problem == "buffering.held", finding
    assert finding.facts["waited_seconds"] == 3
    assert finding.facts["spread_seconds"] == 0
    assert "via: 1.1 cellar" in finding.text
    assert "X-Accel-Buffering: no" in finding.advice


def test_an_environment_proxy_is_the_first_suspect(stream, environment):
    time = Time()
    with Simulator() as server, collector(server.port, time) as url:
        environment.setenv("HTTP_PROXY", url.removesuffix("/v1"))
        # Not this machine's by its name, so the proxy is asked.
        target = {"stream": True, "model": "m", "allow_http": True}
        finding = stream("http://api.example/v1", time, **target)
    assert finding.problem == "buffering.held", finding
    assert "the proxy of HTTP_PROXY" in finding.text


def test_a_proxy_that_sends_lumps_is_found_out(stream):
    time = Time(1.0)
    with Simulator(script=Script(gate=time.gate, rechunk=6000)) as server:
        finding = stream(server.base_url, time)
    assert finding.problem == "buffering.lumps", finding


def test_a_fast_server_is_not_accused(stream):
    with Simulator() as server:
        finding = stream(server.base_url, Time())
    assert finding.problem == "buffering.quick"
    assert finding.status is Status.WARN
    assert finding.advice.startswith("Cannot tell")


def test_a_short_answer_proves_nothing(stream):
    with Simulator(text="Hm.") as server:
        finding = stream(server.base_url, Time(1.0))
    assert finding.problem == "buffering.short"
    assert finding.advice.startswith("Cannot tell")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (Script(status=404), "answered 404"),
        (Script(echo_key=True), "answered 401"),
        (Script(cut_at=2000, cut="rst"), "broke"),
        (Script(error_event_at=3), "inside the stream"),
    ],
)
def test_a_stream_that_fails_is_told(stream, script, said):
    with Simulator(script=script) as server:
        finding = stream(server.base_url, Time())
        assert sum(each.method == "POST" for each in server.requests) == 1
    assert finding.problem == "buffering.failed"
    assert said in finding.text
    assert "4711" not in repr(finding)


def test_a_slow_server_is_judged_by_what_came_in_time(stream, monkeypatch):
    monkeypatch.setattr("holystream.cli.doctor.buffering.SECONDS", 0.5)
    with Simulator(script=Script(stall_at=9000, times=0)) as server:
        finding = stream(server.base_url, Time(0.05))
    assert finding.problem != "buffering.failed"
    assert finding.facts["events"] > 16


def test_a_server_that_sends_no_event_fails(stream, monkeypatch):
    monkeypatch.setattr("holystream.cli.doctor.buffering.SECONDS", 0.2)
    with Simulator(script=Script(stall_at=0, times=0)) as server:
        finding = stream(server.base_url, Time())
    assert finding.problem == "buffering.failed"
    assert finding.text == "no event came within 0.2 s"


def test_a_request_that_cannot_be_made_is_told(stream, environment):
    environment.delenv("HOLYSTREAM_API_KEY")
    made = stream(
        "https://api.example/v1", Time(), provider="openai", stream=True, model="m"
    )
    assert made.problem == "buffering.failed"


def test_a_model_is_asked_for_only_if_that_was_asked_for(diagnose, serve, sim):
    def respond(request):
        assert request.startswith(b"GET ")
        return answer(b'{"data": [{"id": "m", "owned_by": "you"}]}', JSON)

    finding = diagnose(serve(respond), model="m")["buffering"]
    assert finding.status is Status.SKIPPED
    assert "--stream --model NAME" in finding.text
    assert str(MAX_TOKENS) in finding.text
    # But our own simulator costs nothing.
    assert "events" in diagnose(sim.base_url)["buffering"].facts


def test_the_model_that_was_named_is_asked(diagnose, sim):
    diagnose(sim.base_url, stream=True, model="some-model")
    (asked,) = [each for each in sim.requests if each.method == "POST"]
    assert asked.json["model"] == "some-model"


def arrivals(*reads, **headers):
    seen = Arrivals(lambda: math.nan)
    seen.reads = list(reads)
    seen.headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return seen


def every(seconds, count, events=1, start=0.5):
    return [(start + number * seconds, events) for number in range(count)]


@pytest.mark.parametrize(
    ("flow", "seen"),
    [
        (Flow.SHORT, arrivals()),
        (Flow.SHORT, arrivals(*every(1.0, 15))),
        (Flow.LIVE, arrivals(*every(1.0, 16))),
        (Flow.LIVE, arrivals(*every(0.02, 200))),
        # A thousand tokens a second: many in each read, and in no time to be seen.
        (Flow.LIVE, arrivals(*every(0.01, 40, events=10))),
        (Flow.QUICK, arrivals(*every(0.001, 200))),
        # Minutes of hidden thought before a fast answer are not a buffer's doing.
        (Flow.LIVE, arrivals(*every(0.005, 200, start=60.0))),
        (Flow.QUICK, arrivals(*every(0.001, 200, start=60.0))),
        # All at once, after long: collected. So it is if the role came before it,
        # or the usage after it.
        (Flow.HELD, arrivals((3.0, 200))),
        (Flow.HELD, arrivals(*every(0.05, 5, events=40, start=3.0))),
        (Flow.HELD, arrivals((0.3, 1), (3.0, 180), (3.0, 9))),
        (Flow.HELD, arrivals((3.0, 180), (3.01, 9), (9.0, 1))),
        # ... but not if it came soon: any fast server does that.
        (Flow.QUICK, arrivals((0.9, 200))),
        (Flow.HELD, arrivals((0.9, 200), content_length="41000")),
        # A length alone proves nothing: some know it who let everything through.
        (Flow.LIVE, arrivals(*every(0.02, 200), content_length="41000")),
        (Flow.LUMPS, arrivals(*every(1.0, 5, events=40))),
        (Flow.LUMPS, arrivals(*every(0.5, 20, events=8))),
        (Flow.LIVE, arrivals(*every(0.5, 20, events=4))),
        # One long pause amid the rest is the model's, or the network's; and the one
        # between a role and the text is no pause of the text.
        (Flow.LIVE, arrivals(*every(0.02, 100), *every(0.02, 100, start=3.5))),
        (Flow.LIVE, arrivals((0.3, 1), *every(0.005, 200, start=20.0))),
    ],
)
def test_the_verdict_follows_from_the_spread(flow, seen):
    assert judge(seen) is flow


@given(
    st.lists(st.sampled_from(["data: x", "data:", ": ping", "event: data:", "id: 7"])),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.data(),
)
def test_events_are_counted_however_they_are_cut(lines, newline, data):
    body = "".join(f"{line}{newline}{newline}" for line in lines).encode()
    seen = Arrivals(lambda: 0.0)
    seen.sending("POST", "", None, {})
    while body:
        size = data.draw(st.integers(1, len(body)))
        seen.received(body[:size])
        body = body[size:]
    assert seen.events == sum(line.startswith("data:") for line in lines)
