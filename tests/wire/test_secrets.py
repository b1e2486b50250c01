"""The key and the prompt stay where they belong: in the request, and nowhere else."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import logging
import pickle
import socket
import struct
import traceback
import warnings

import pytest
import requests
from loopback import (
    PATIENT,
    Peer,
    answer,
    read_request,
)

import holystream
from holystream import Client, RetryPolicy, StreamError, Timeouts, errors
from holystream.errors import Phase, Verdict
from holystream.providers.registry import provider
from holystream.resilience.redact import fit_for_a_message, one_line_each
from holystream.simulator import Script, Simulator
from holystream.wire.faults import Answer, Fault, FaultKind

KEY = "hs-live-4f9a71c2d8e35b60"
PROMPT = (
    "Summarise the merger of Halcyon Industries with Borealis Ltd.\n"
    'The board calls it "Project Nightjar" and wants it secret until 3 May.'
)
SHORT_PROMPT = "Nightjar?"
SECRETS = (KEY, KEY[3:], KEY[:14], "Halcyon", "Borealis", "Nightjar")
"""The key, its telling parts, and the names in the prompts."""
ONCE = RetryPolicy(attempts=1)
FAST = RetryPolicy(attempts=2, base=0.001, cap=0.001)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def log():
    """Everything that anybody logs, at any level."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s %(args)r"))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(before)


def client(base_url, **options):
    settings = {"timeout": PATIENT, "retry": FAST, "model": "sim", **options}
    return Client(KEY, provider="openai-compatible", base_url=base_url, **settings)


def links(error):
    """Yield an error and everything that hangs on it, however deep."""
    seen, todo = [], [error]
    while todo:
        link = todo.pop()
        if not isinstance(link, BaseException) or any(link is old for old in seen):
            continue
        seen.append(link)
        yield link
        todo += [link.__cause__, link.__context__, getattr(link, "cause", None)]
        todo += [getattr(link, "reason", None), *link.args]


def check_clean(what, text):
    found = [secret for secret in SECRETS if secret in text]
    assert not found, f"{found} in {what}: {text}"


def check_error(error):
    """Look for the secrets in whatever can be had of an error."""
    check_clean("traceback", "".join(traceback.format_exception(error)))
    for link in links(error):
        for what in (str, repr, lambda it: repr(it.args), lambda it: repr(vars(it))):
            check_clean(type(link).__name__, what(link))
        # What cannot be pickled cannot carry anything away, either.
        with contextlib.suppress(TypeError, AttributeError, pickle.PicklingError):
            check_clean("its pickle", pickle.dumps(link, 0).decode("latin-1"))
            check_clean("its pickle", pickle.dumps(link).decode("latin-1"))


def check_frames(error):
    """Look where those look who report an error with the variables of each frame."""
    for link in links(error):
        for frame, _ in traceback.walk_tb(link.__traceback__):
            if "/tests/" not in frame.f_code.co_filename:
                check_clean(f"a frame of {frame.f_code}", repr(frame.f_locals))


def failing(base_url, prompt=PROMPT, **options):
    """Read a stream that fails; look everywhere and return the error."""
    with client(base_url, **options) as asking:
        stream = asking.stream(prompt)
        shown = [repr(asking), repr(stream), repr(stream._driver), str(vars(stream))]
        events = []
        with pytest.raises(StreamError) as caught, stream:
            events.extend(stream)
        for event in events:
            shown.append(repr(event))
            if (error := getattr(event, "error", None)) is not None:
                check_error(error)
                check_frames(error)
        shown += [repr(stream), repr(stream._exchange)]
        shown += [repr(stream._exchange.request), str(vars(asking))]
    for text in shown:
        check_clean("a repr", text)
    check_error(caught.value)
    check_frames(caught.value)
    return caught.value


def feed(asking, base_url, body):
    url = f"{base_url}/chat/completions"
    with asking.event_source(url, method="POST", json=body) as source:
        list(source)


ECHOES = {
    "whole": lambda prompt: prompt,
    "on one line": lambda prompt: prompt.replace("\n", " "),
    "escaped": lambda prompt: json.dumps(prompt)[1:-1],
    "escaped twice": lambda prompt: json.dumps(json.dumps(prompt))[1:-1],
    "as Python": repr,
    "cut short": lambda prompt: prompt[:40] + "...",
    "from the middle": lambda prompt: prompt[len(prompt) // 8 : len(prompt) // 2],
}
KEYS = {
    "whole": lambda key: key,
    "with its scheme": lambda key: f"Bearer {key}",
    "masked": lambda key: f"{key[:10]}{'*' * 8}{key[-4:]}",
    "dotted": lambda key: f"{key[:14]}...{key[-4:]}",
    "cut short": lambda key: key[:20],
    "without its prefix": lambda key: key[3:],
}


class TestWhatAServerEchoes:
    @pytest.mark.parametrize("status", [400, 401, 429, 500])
    @pytest.mark.parametrize("prompt", [PROMPT, SHORT_PROMPT], ids=["long", "short"])
    @pytest.mark.parametrize("how", ECHOES)
    def test_the_prompt(self, log, status, prompt, how):
        body = {"error": {"message": f"Refused: '{ECHOES[how](prompt)}', try another"}}
        with Simulator(script=Script(status=status, error=body, times=0)) as sim:
            error = failing(sim.base_url, prompt)
        assert "Refused" in str(error)
        check_clean("the log", log.getvalue())

    @pytest.mark.parametrize("how", KEYS)
    @pytest.mark.parametrize("status", [400, 401, 503])
    def test_the_key(self, log, status, how):
        body = {"error": {"message": f"Incorrect API key provided: {KEYS[how](KEY)}."}}
        with Simulator(script=Script(status=status, error=body, times=0)) as sim:
            error = failing(sim.base_url)
        assert "Incorrect API key provided" in str(error)
        check_clean("the log", log.getvalue())

    def test_the_key_by_the_simulator(self):
        with Simulator(script=Script(echo_key=True)) as sim:
            error = failing(sim.base_url)
        assert type(error) is errors.AuthenticationError
        assert "HOLYSTREAM_API_KEY" in str(error)

    @pytest.mark.parametrize("where", ["code", "type", "param"])
    def test_in_another_field(self, where):
        body = {"error": {"message": "No.", where: f"{KEY} {PROMPT}"}}
        with Simulator(script=Script(status=400, error=body)) as sim:
            failing(sim.base_url)

    def test_in_a_plain_body(self):
        body = f"<html><title>{KEY}</title><p>{PROMPT}".encode()
        for status in (200, 400, 502):
            with Simulator(script=Script(status=status, error=body, times=0)) as sim:
                failing(sim.base_url)

    def test_in_an_error_event(self):
        event = {"error": {"message": f"{KEY}: {PROMPT}", "code": "server_error"}}
        script = Script(error_event_at=2, error_event=event, times=0)
        with Simulator(script=script, text="some text to begin with") as sim:
            failing(sim.base_url)

    def test_in_an_event_that_does_not_parse(self):
        event = f"data: {{broken {KEY} {json.dumps(PROMPT)}\n\n".encode()
        script = Script(error_event_at=2, error_event=event, times=0)
        with Simulator(script=script, text="some text to begin with") as sim:
            failing(sim.base_url)

    @pytest.mark.parametrize("status", [200, 400])
    @pytest.mark.parametrize("said", [KEY, KEY[3:], f"req/{KEY}", SHORT_PROMPT[:8]])
    def test_in_the_id_of_the_request(self, log, status, said):
        script = Script(status=status, cut_at=900, headers={"X-Request-Id": said})
        with Simulator(script=script, text="some text " * 40) as sim:
            error = failing(sim.base_url, SHORT_PROMPT[:8], retry=ONCE)
        assert "***" in error.request_id
        check_clean("the log", log.getvalue())

    def test_an_id_that_holds_nothing_is_shown(self):
        script = Script(status=400, headers={"X-Request-Id": "hs-req-0123456789"})
        with Simulator(script=script) as sim:
            error = failing(sim.base_url)
        assert error.request_id == "hs-req-0123456789"
        assert "request_id: hs-req-0123456789" in str(error)

    @pytest.mark.parametrize("how", ECHOES)
    @pytest.mark.parametrize(
        "body",
        [
            {"messages": [{"role": "user", "content": PROMPT}]},
            {"model": "m", "prompt": PROMPT},
            {"inputs": {"rows": [["a", PROMPT]]}},
            {"anything": PROMPT},
            PROMPT,
        ],
    )
    def test_the_body_of_a_feed(self, log, body, how):
        refused = {"error": {"message": f"Refused: '{ECHOES[how](PROMPT)}'"}}
        script = Script(status=400, error=refused)
        with (
            Simulator(script=script) as sim,
            client(sim.base_url) as asking,
            pytest.raises(errors.BadRequest, match="Refused") as caught,
        ):
            feed(asking, sim.base_url, body)
        check_error(caught.value)
        check_clean("the log", log.getvalue())

    def test_a_short_prompt_and_a_token_in_the_body_of_a_feed(self, log):
        told = {"model": "gpt-4o", "question": SHORT_PROMPT, "api_key": KEY}
        refused = {"error": {"message": f"gpt-4o has no {SHORT_PROMPT} for {KEY}"}}
        script = Script(status=400, error=refused, headers={"X-Request-Id": KEY})
        with (
            Simulator(script=script) as sim,
            client(sim.base_url) as asking,
            pytest.raises(errors.BadRequest, match="gpt-4o has no") as caught,
        ):
            feed(asking, sim.base_url, lambda _: told)
        check_error(caught.value)
        check_clean("the log", log.getvalue())

    def test_in_headers(self):
        headers = {"X-Request-ID": "req_1", "X-Echo": KEY, "Server": "Halcyon"}
        script = Script(status=400, headers=headers)
        with Simulator(script=script) as sim:
            failing(sim.base_url)

    def test_in_a_status_line(self):
        def serve(sock):
            read_request(sock)
            sock.sendall(f"HTTP/1.1 4x0 {KEY} {PROMPT[:50]}\r\n\r\n".encode())

        with Peer(serve) as peer:
            failing(f"{peer.url}/v1")

    def test_in_a_chunk_size(self):
        def serve(sock):
            read_request(sock)
            sock.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n%s Halcyon\r\n" % KEY.encode()
            )

        with Peer(serve) as peer:
            failing(f"{peer.url}/v1")

    def test_in_the_location_of_a_redirect(self):
        for target in (
            f"http://127.0.0.1:1/?key={KEY}&q=Halcyon",
            f"http://{KEY}:Halcyon@127.0.0.1:1/",
            f"http://127.0.0.1:1/#{KEY}",
            f"http://127.0.0.1:1/{KEY}",
        ):
            with Simulator(script=Script(redirect=target)) as sim:
                error = failing(sim.base_url)
            assert type(error) is errors.UnexpectedRedirect


def rst(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def after(*parts):
    """Serve these bytes, then end: with a RST where the last part is None."""

    def serve(sock):
        read_request(sock)
        for part in parts:
            if part is None:
                rst(sock)
            else:
                sock.sendall(part)

    return serve


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"Some text"}}]}\n\n'


class TestWhatBreaks:
    """The request hangs on the exceptions of requests: it must not come along."""

    @pytest.mark.parametrize(
        "serve",
        [
            after(),
            after(None),
            after(b"garbage\r\n\r\n"),
            after(HEAD + b"Content-Length: 1000\r\n\r\n" + DELTA),
            after(HEAD + b"Content-Length: 1000\r\n\r\n" + DELTA, None),
            after(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\ndata:"),
            after(HEAD + b"Transfer-Encoding: chunked\r\n\r\nxx\r\n"),
            after(HEAD + b"Content-Encoding: gzip\r\n\r\n" + DELTA),
            after(HEAD + b"\r\n" + DELTA),
            after(answer(b"{}", "Content-Type: text/event-stream")),
            after(answer(b"<html>", "Content-Type: text/html")),
            after(answer(b"", "Location: http://127.0.0.1:1/", status="302 Found")),
        ],
    )
    def test_by_the_server(self, log, serve):
        with Peer(serve) as peer:
            failing(f"{peer.url}/v1")
        check_clean("the log", log.getvalue())

    def test_by_a_clock(self, log):
        script = Script(stall_headers=True)
        with Simulator(script=script) as sim:
            timeouts = Timeouts(first_token=0.1)
            failing(sim.base_url, timeout=timeouts, retry=RetryPolicy(attempts=1))
        check_clean("the log", log.getvalue())

    def test_before_it_was_sent(self, log, monkeypatch):
        # Bound, and not listened on: nobody else begins to.
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            port = taken.getsockname()[1]
            failing(f"http://127.0.0.1:{port}/v1")
            failing(f"https://127.0.0.1:{port}/v1")
            monkeypatch.setenv("HTTPS_PROXY", f"http://user:{KEY}@127.0.0.1:{port}")
            failing("https://elsewhere.test/v1")
        with Peer(after(answer(b"", status="503 No"))) as proxy:
            url = proxy.url.replace("//", f"//user:{KEY}@")
            monkeypatch.setenv("HTTPS_PROXY", url)
            failing("https://elsewhere.test/v1")
        check_clean("the log", log.getvalue())

    def test_by_the_caller(self):
        with (
            Simulator(script=Script(stall_at=0)) as sim,
            client(sim.base_url) as asking,
        ):
            stream = asking.stream(PROMPT)
            next(stream)
            stream.cancel()
            with pytest.raises(errors.StreamCancelled) as caught:
                next(stream)
            check_error(caught.value)

    def test_by_the_caller_just_when_the_server_refuses(self):
        body = {"error": {"message": f"{KEY} {PROMPT}"}}
        script = Script(status=400, error=body)
        with Simulator(script=script) as sim, client(sim.base_url) as asking:
            stream = asking.stream(PROMPT)
            attempts = stream._driver._attempts
            connect = attempts.connect

            def refused(guard):
                try:
                    connect(guard)
                except Fault:
                    stream.cancel()
                    raise

            attempts.connect = refused
            with pytest.raises(errors.StreamCancelled) as caught:
                stream.until_done()
            check_error(caught.value)
            check_frames(caught.value)

    def test_with_a_header_of_the_callers(self):
        with (
            Simulator(script=Script(status=400)) as sim,
            client(sim.base_url) as asking,
        ):
            stream = asking.stream("hello", extra_headers={"X-Api-Key": KEY})
            with pytest.raises(errors.BadRequest) as caught, stream:
                stream.until_done()
            check_clean("a repr", repr(stream))
            check_error(caught.value)


class TestNothingIsWritten:
    def test_to_a_log_when_all_is_well(self, log):
        with Simulator() as sim, client(sim.base_url) as asking:
            for _ in range(2):
                asking.stream(PROMPT).until_done()
        assert "urllib3" in log.getvalue()
        check_clean("the log", log.getvalue())

    def test_to_the_output_by_http_client(self, monkeypatch, capfd):
        """Its debug level is a popular switch, and prints whole requests."""
        monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
        with Simulator() as sim, client(sim.base_url) as asking:
            asking.stream(PROMPT).until_done()
        captured = capfd.readouterr()
        check_clean("the output", captured.out + captured.err)

    def test_by_a_stream_that_is_dropped(self, log):
        with (
            Simulator(script=Script(stall_at=0)) as sim,
            client(sim.base_url) as asking,
        ):
            stream = asking.stream(PROMPT)
            next(event for event in stream if type(event).__name__ == "Connected")
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                del stream
            assert caught
            for warning in caught:
                check_clean("the warning", str(warning.message))
            assert asking.stream("Hello").get_final_text()

    def test_by_a_key_that_is_none(self):
        for key in (f"{KEY}\n", f"Bearer {KEY}", f'"{KEY}"', f"{KEY} {KEY}"):
            with pytest.raises(holystream.InvalidAPIKey) as caught:
                Client(key)
            check_error(caught.value)

    def test_by_an_invalid_request(self):
        with client("http://127.0.0.1:1/v1") as asking:
            for bad in (
                [{"role": "Halcyon", "content": PROMPT}],
                [{"role": "user", "content": {"Halcyon": 1}}],
                [PROMPT],
            ):
                with pytest.raises(holystream.InvalidRequest) as caught:
                    asking.stream(bad)
                check_error(caught.value)


QUERY = f"?token={KEY}&a[b]=%C3%BCber%20%zz&c=d/e?f;g"


class TestAQueryIsNotShown:
    """A key may be in the URL of an event source: only the server is told."""

    def answering(self, lines, tail=b""):
        """Return what notes the request line and sends one event."""

        def serve(sock):
            lines.append(read_request(sock).split(b"\r\n")[0])
            sock.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                + tail
                + b"Connection: close\r\n\r\ndata: 1\n\n"
            )

        return serve

    @pytest.mark.parametrize("tail", [b"", b"Bad Header\r\n", b": none\r\n"])
    def test_in_a_log(self, log, tail):
        lines = []
        with (
            Peer(self.answering(lines, tail)) as peer,
            client(peer.url) as asking,
            asking.event_source(f"{peer.url}/feed{QUERY}") as source,
        ):
            assert next(source).data == "1"
            logged = log.getvalue()
            # What requests itself sends for this URL.
            requests.get(f"{peer.url}/feed{QUERY}", timeout=10)
        assert "/feed" in logged
        check_clean("the log", logged)
        assert lines[0] == lines[1]
        assert KEY.encode() in lines[0]

    def test_in_an_error(self, log):
        """urllib3 puts the URL into the error of a handshake that failed."""

        def refuse(sock):
            sock.recv(65536)
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        with Peer(refuse) as peer:
            for scheme in ("https", "http"):
                url = f"{scheme}://127.0.0.1:{peer.port}/feed{QUERY}"
                with client(peer.url) as asking:
                    source = asking.event_source(url, retry=FAST)
                    with pytest.raises(StreamError) as caught, source:
                        next(source)
                    check_error(caught.value)
        check_clean("the log", log.getvalue())

    def test_by_way_of_a_proxy(self, log, monkeypatch):
        lines = []
        with Peer(self.answering(lines)) as peer:
            monkeypatch.setenv("http_proxy", peer.url)
            url = f"http://feeds.test/feed{QUERY}"
            with client(peer.url) as asking, asking.event_source(url) as source:
                assert next(source).data == "1"
            check_clean("the log", log.getvalue())
            requests.get(url, timeout=10)
        assert lines[0] == lines[1]
        assert lines[0].startswith(b"GET http://feeds.test/feed?token=")


class TestTheKeyStaysHome:
    def test_netrc_does_not_replace_it(self, tmp_path, monkeypatch):
        netrc = tmp_path / "netrc"
        netrc.write_text("default login somebody password else\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        with Simulator() as sim, client(sim.base_url) as asking:
            asking.stream(PROMPT).until_done()
            assert sim.requests[0].headers["authorization"] == f"Bearer {KEY}"

    def test_netrc_adds_none_where_there_is_none(self, tmp_path, monkeypatch):
        netrc = tmp_path / "netrc"
        netrc.write_text("default login somebody password else\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.delenv("HOLYSTREAM_API_KEY", raising=False)
        with (
            Simulator() as sim,
            Client(
                provider="openai-compatible", base_url=sim.base_url, model="sim"
            ) as asking,
        ):
            asking.stream(PROMPT).until_done()
            assert "authorization" not in sim.requests[0].headers

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_another_origin_gets_neither_key_nor_prompt(self, status):
        with Simulator() as other, Simulator() as sim:
            target = other.base_url + "/chat/completions"
            sim.play(Script(redirect=target, status=status))
            failing(sim.base_url)
            assert not other.connections


class TestRedaction:
    """The words of a server, without the secrets and otherwise as they are."""

    @pytest.mark.parametrize("how", KEYS)
    @pytest.mark.parametrize(
        "key", [KEY, "AIzaSyD4f9a71c2d8e35b60xyzw", "0123456789ab"]
    )
    def test_of_a_key(self, key, how):
        said = f"Invalid key {KEYS[how](key)} for this project"
        shown = fit_for_a_message(said, one_line_each([key]))
        assert shown.startswith("Invalid key ")
        assert shown.endswith(" for this project")
        assert not any(key[at : at + 8] in shown for at in range(len(key) - 7))

    @pytest.mark.parametrize(
        "said",
        [
            "Rate limit reached for gpt-4o in organization org-abc on tokens per min",
            "The model `deepseek-v3.2` does not exist or you do not have access to it.",
            "Wait 3... 2... 1... and try again",
            "**Bold** advice: use max_tokens <= 4096",
        ],
    )
    def test_of_nothing(self, said):
        assert fit_for_a_message(said, one_line_each([KEY, PROMPT])) == said


def all_errors(base=errors.HolystreamError):
    yield base
    for kind in base.__subclasses__():
        yield from all_errors(kind)


class TestEveryErrorPickles:
    @pytest.mark.parametrize("kind", sorted(set(all_errors()), key=str))
    def test_with_its_attributes(self, kind):
        error = kind("It did not work. Try again.")
        if isinstance(error, StreamError):
            error.describe(
                partial_text="Once upon",
                stream_id="s1",
                request_id="r1",
                endpoint="holysheep",
                attempts=3,
            )
            error.phase = Phase.BODY
            error.retry_after = 2.5
            error.verdict = Verdict.THROTTLED
        if isinstance(error, errors.APIError):
            error.status, error.code, error.type = 429, "slow_down", "requests"
        if isinstance(error, errors.StreamInterrupted):
            error.cause = errors.ConnectionLost("The connection broke.")
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            copy = pickle.loads(pickle.dumps(error, protocol))
            assert type(copy) is type(error)
            assert copy.args == error.args
            assert str(copy) == str(error)
            assert repr(copy) == repr(error)
            mine, its = dict(vars(error)), dict(vars(copy))
            assert str(mine.pop("cause", None)) == str(its.pop("cause", None))
            assert its == mine

    def test_from_a_live_stream(self):
        with Simulator(script=Script(cut_at=900, cut="rst")) as sim:
            error = failing(sim.base_url, retry=RetryPolicy(attempts=1))
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is errors.StreamInterrupted
        assert type(copy.cause) is errors.ConnectionLost
        assert copy.partial_text == error.partial_text != ""
        assert str(copy) == str(error)


class TestNothingShowsARequest:
    def test_the_reprs_of_what_holds_it(self):
        body = json.dumps({"error": {"message": PROMPT}}).encode()
        answered = Answer(status=400, headers={}, body=body)
        fault = Fault(FaultKind.STATUS, Phase.HEADERS, "400", answer=answered)
        check_clean("the fault", str(fault) + repr(fault))
        with client("http://127.0.0.1:1/v1") as asking:
            stream = asking.stream(PROMPT, extra_headers={"X-Api-Key": KEY})
            exchange = stream._exchange
            for thing in (asking, stream, exchange, exchange.request, vars(asking)):
                check_clean("a repr", f"{thing!r} {thing!s} {thing}")
            check_clean("the provider", repr(provider("holysheep")))
