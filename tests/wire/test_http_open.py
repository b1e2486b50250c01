"""Opening a stream: what each thing that can go wrong on the way is told as.

The verdicts are those of the classifier's table, met on live sockets.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import ssl
import struct
import threading
import traceback

import pytest
import trustme
from loopback import (
    KEY,
    Peer,
    answer,
    certificates,
    client_for,
    nothing_left_behind,
    read_request,
    wait_for_end,
)

from holystream import (
    APIError,
    BadRequest,
    CertificateError,
    ConnectionFailed,
    ConnectionLost,
    InvalidRequest,
    NotAnEventStream,
    Overloaded,
    Phase,
    ProtocolError,
    ProxyFailed,
    RetryPolicy,
    StreamInterrupted,
    UnexpectedRedirect,
    Verdict,
)
from holystream.simulator import Script, Simulator
from holystream.wire import http as wire_http, refused

TEXT = "The sky is blue because of Rayleigh scattering."
PROMPT = "Why is the sky of this planet blue, and not violet?"
EVENTS = (
    b'data: {"choices":[{"index":0,"delta":{"content":"%s"},"finish_reason":null}]}'
    b'\n\ndata: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n" % TEXT.encode()
)
STREAM = answer(EVENTS, "Content-Type: text/event-stream")


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with nothing_left_behind():
        yield


@pytest.fixture
def sim():
    with Simulator(text=TEXT) as simulator:
        yield simulator


def outcome(url, **options):
    """Ask once and return the error that it ends with."""
    with client_for(url, **options) as client:
        stream = client.stream(PROMPT)
        with pytest.raises(Exception) as caught, stream:  # noqa: PT011 - told by callers
            stream.until_done()
        assert client.pool.statistics().in_use == 0
    return caught.value


def ask(url, **options):
    """Ask once and return the text."""
    with client_for(url, **options) as client, client.stream(PROMPT) as stream:
        return stream.get_final_text()


def always(response):
    """Serve the same response to every request of a connection."""

    def serve(sock):
        while read_request(sock):
            sock.sendall(response)

    return serve


def once(response):
    """Serve one response, then end the connection with a FIN."""

    def serve(sock):
        read_request(sock)
        sock.sendall(response)

    return serve


def reset(sock):
    """End the connection with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.fixture
def closed_port():
    """A port that nobody listens on; bound, so that nobody begins to."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


class TestPhasesAndVerdicts:
    """The error, the phase it came in, and what that means for another try."""

    @staticmethod
    def check(error, kind, phase, verdict):
        assert type(error) is kind
        assert (error.phase, error.verdict) == (phase, verdict)
        assert error.attempts == 1
        assert error.partial_text == ""

    def test_refused(self, closed_port):
        error = outcome(f"http://127.0.0.1:{closed_port}/v1")
        self.check(error, ConnectionFailed, Phase.CONNECT, Verdict.NOT_SENT)
        assert "refused" in str(error)

    def test_a_name_that_does_not_resolve(self, monkeypatch):
        real = socket.getaddrinfo

        def getaddrinfo(host, *args, **options):
            if host == "nowhere.test":
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return real(host, *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        error = outcome("http://nowhere.test/v1", allow_http=True)
        self.check(error, ConnectionFailed, Phase.CONNECT, Verdict.NOT_SENT)
        assert "nowhere.test" in str(error)

    def test_the_second_address_is_tried(self, sim, monkeypatch, closed_port):
        real = socket.getaddrinfo

        def getaddrinfo(host, port, *args, **options):
            if host != "two.localhost":
                return real(host, port, *args, **options)
            if options.get("flags"):
                raise socket.gaierror(socket.EAI_NONAME, "not an address")
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", number))
                for number in (closed_port, port)
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        assert ask(f"http://two.localhost:{sim.port}/v1") == TEXT

    def test_tls_to_a_plain_port(self):
        def serve(sock):
            sock.recv(65536)
            sock.sendall(answer(b"", status="400 Bad Request"))

        with Peer(serve) as peer:
            url = f"https://127.0.0.1:{peer.port}/v1"
            error = outcome(url, retry=RetryPolicy())
            assert peer.accepted == 1, "it cannot work a second time"
        self.check(error, ConnectionFailed, Phase.CONNECT, Verdict.FATAL)
        assert "write http://" in str(error)

    def test_plain_to_a_tls_port(self, tls):
        context, _ = tls
        with Simulator(tls=context) as sim:
            error = outcome(f"http://127.0.0.1:{sim.port}/v1")
        assert isinstance(error, (ConnectionLost, ProtocolError))
        assert error.phase is Phase.SENT

    def test_a_certificate_of_a_stranger(self, tls):
        context, _ = tls
        with Simulator(tls=context) as sim:
            error = outcome(sim.base_url)
            assert not sim.requests
        self.check(error, CertificateError, Phase.CONNECT, Verdict.FATAL)
        assert "REQUESTS_CA_BUNDLE" in str(error)

    def test_a_certificate_of_another_host(self, tmp_path):
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("elsewhere.test").configure_cert(context)
        path = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(str(path))
        with Simulator(tls=context) as sim:
            error = outcome(sim.base_url, verify=str(path))
            assert not sim.requests
        self.check(error, CertificateError, Phase.CONNECT, Verdict.FATAL)

    def test_the_bundle_that_the_environment_names(self, tls, monkeypatch):
        context, authority = tls
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority)
        with Simulator(tls=context, text=TEXT) as sim:
            assert ask(sim.base_url) == TEXT

    @pytest.mark.parametrize("end", [socket.socket.close, reset])
    def test_tls_that_ends_in_the_handshake(self, end):
        def serve(sock):
            sock.recv(65536)
            end(sock)

        with Peer(serve) as peer:
            error = outcome(f"https://127.0.0.1:{peer.port}/v1")
        self.check(error, ConnectionFailed, Phase.CONNECT, Verdict.NOT_SENT)

    @pytest.mark.parametrize("end", ["rst", "fin"])
    def test_the_end_instead_of_an_answer(self, sim, end):
        sim.play(Script(cut_before_headers=end))
        error = outcome(sim.base_url)
        self.check(error, ConnectionLost, Phase.SENT, Verdict.NO_ANSWER)

    def test_what_is_not_http(self, sim):
        sim.play(Script(garbage_status_line=True))
        error = outcome(sim.base_url)
        self.check(error, ProtocolError, Phase.SENT, Verdict.NO_ANSWER)
        assert "not HTTP" in str(error)

    @pytest.mark.parametrize(
        "head",
        [
            b"HTTP/1.1 2",
            b"HTTP/1.1 200 O",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Type: text/eve",
        ],
    )
    def test_half_a_header_block_is_no_answer(self, head):
        with Peer(once(head)) as peer:
            error = outcome(f"{peer.url}/v1")
        self.check(error, ConnectionLost, Phase.SENT, Verdict.NO_ANSWER)
        assert error.partial_text == ""

    def test_a_header_line_without_end(self):
        def serve(sock):
            read_request(sock)
            sock.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n")
            wait_for_end(sock)

        with Peer(serve) as peer:
            error = outcome(f"{peer.url}/v1")
        assert isinstance(error, (ProtocolError, ConnectionLost))

    def test_two_lengths_that_differ(self):
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        lengths = b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n"
        with Peer(once(head + lengths + b"data: ")) as peer:
            error = outcome(f"{peer.url}/v1")
        assert isinstance(error, ProtocolError)
        assert error.phase > Phase.CONNECT
        assert error.verdict is not Verdict.FATAL
        assert "URL" not in error.message

    def test_a_cut_body(self, sim):
        sim.play(Script(cut_at=900, cut="rst"))
        error = outcome(sim.base_url)
        assert type(error) is StreamInterrupted
        assert type(error.cause) is ConnectionLost
        assert (error.phase, error.verdict) == (Phase.BODY, Verdict.INTERRUPTED)

    @pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 529])
    def test_a_status_that_may_pass(self, sim, status):
        sim.play(Script(status=status))
        policy = RetryPolicy(base=0.001, cap=0.001)
        assert ask(sim.base_url, retry=policy) == TEXT
        assert len(sim.requests) == 2

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
    def test_a_status_that_will_not(self, sim, status):
        sim.play(Script(status=status))
        error = outcome(sim.base_url, retry=RetryPolicy())
        assert isinstance(error, APIError)
        assert (error.status, error.verdict) == (status, Verdict.FATAL)
        assert error.phase is Phase.HEADERS
        assert error.request_id == "req_00000001"
        assert len(sim.requests) == 1

    def test_our_own_id_where_the_server_has_none(self):
        with Peer(always(answer(b"{}", status="400 Bad Request"))) as peer:
            error = outcome(f"{peer.url}/v1")
        assert len(error.request_id) == 36


class TestADeadConnectionThatIsReused:
    def serve(self, sock, end):
        """Answer once; end the connection when the next request has come."""
        read_request(sock)
        sock.sendall(STREAM)
        if read_request(sock):
            end(sock)

    @pytest.mark.parametrize("end", [socket.socket.close, reset])
    def test_is_replaced_at_once_by_a_fresh_one(self, end):
        with (
            Peer(lambda sock: self.serve(sock, end)) as peer,
            client_for(f"{peer.url}/v1", retry=RetryPolicy(base=30)) as client,
        ):
            assert client.stream(PROMPT).get_final_text() == TEXT
            second = client.stream(PROMPT)
            assert second.get_final_text() == TEXT
            assert second.attempts == 2
            assert peer.accepted == 2

    def test_is_not_even_noticed_when_its_end_has_come(self):
        """The end is seen before the request is sent: that is no attempt."""
        with (
            Peer(once(STREAM)) as peer,
            client_for(f"{peer.url}/v1") as client,
        ):
            assert client.stream(PROMPT).get_final_text() == TEXT
            peer.idle.wait(10)
            second = client.stream(PROMPT)
            assert second.get_final_text() == TEXT
            assert second.attempts == 1

    def test_a_fresh_one_gets_no_immediate_retry(self, sim):
        sim.play(Script(cut_before_headers="fin"))
        with client_for(
            sim.base_url, retry=RetryPolicy(base=30, jitter=None)
        ) as client:
            waits = []
            with client.stream(PROMPT) as stream:
                for event in stream:
                    if type(event).__name__ == "Waiting":
                        waits.append(event)
                        break
        assert [(wait.delay, wait.reason) for wait in waits] == [(30, "backoff")]


class Proxy(Peer):
    """A proxy in one screenful: tunnels, forwards, and remembers what was asked."""

    def __init__(self, *, refusal: bytes = b""):
        self.asked: list[bytes] = []
        self.refusal = refusal
        super().__init__(self.relay)

    def relay(self, sock):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1) or pytest.fail("the client left")
        self.asked.append(head)
        method, target = head.split(b" ")[:2]
        if self.refusal:
            sock.sendall(self.refusal)
            return
        if method == b"CONNECT":
            port = int(target.rpartition(b":")[2])
            first = b""
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            origin = b"/".join(target.split(b"/")[:3])
            port = int(origin.rpartition(b":")[2])
            first = head.replace(origin, b"", 1)
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            upstream.sendall(first)
            back = threading.Thread(target=self.copy, args=[upstream, sock])
            back.start()
            self.copy(sock, upstream)
            back.join()

    @staticmethod
    def copy(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for sock in (source, sink):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class TestProxies:
    def test_a_tunnel(self, tls, monkeypatch):
        context, authority = tls
        with Proxy() as proxy, Simulator(tls=context, text=TEXT) as sim:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            with client_for(sim.base_url, verify=authority) as client:
                for _ in range(3):
                    assert client.stream(PROMPT).get_final_text() == TEXT
            assert sim.connections == 1
        assert len(proxy.asked) == 1
        assert proxy.asked[0].startswith(b"CONNECT 127.0.0.1:")
        assert KEY.encode() not in proxy.asked[0]

    def test_forwarding(self, sim, monkeypatch):
        with Proxy() as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            url = f"http://elsewhere.test:{sim.port}/v1"
            assert ask(url, allow_http=True) == TEXT
        assert proxy.asked[0].startswith(b"POST http://elsewhere.test:")

    def test_no_proxy(self, tls, monkeypatch):
        context, authority = tls
        with Proxy() as proxy, Simulator(tls=context, text=TEXT) as sim:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            assert ask(sim.base_url, verify=authority) == TEXT
        assert not proxy.asked

    @pytest.mark.parametrize(
        "refusal",
        [
            b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        ],
        ids=["503", "407", "no proxy at all"],
    )
    def test_a_tunnel_that_is_refused(self, monkeypatch, refusal):
        with Proxy(refusal=refusal) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            error = outcome("https://elsewhere.test/v1")
        assert isinstance(error, ConnectionFailed)
        assert (error.phase, error.verdict) == (Phase.CONNECT, Verdict.NOT_SENT)
        if refusal.startswith(b"HTTP"):
            assert type(error) is ProxyFailed
            assert "HTTPS_PROXY" in str(error)

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_a_proxy_that_is_not_there(self, monkeypatch, scheme, closed_port):
        proxy = f"http://user:secret-word@127.0.0.1:{closed_port}"
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", proxy)
        error = outcome(f"{scheme}://elsewhere.test/v1", allow_http=True)
        assert type(error) is ProxyFailed
        assert (error.phase, error.verdict) == (Phase.CONNECT, Verdict.NOT_SENT)
        assert "secret-word" not in str(error)

    def test_a_socks_proxy_is_refused_clearly(self, monkeypatch):
        monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
        error = outcome("https://elsewhere.test/v1", retry=RetryPolicy())
        assert isinstance(error, ConnectionFailed)
        assert error.attempts == 1
        assert "a proxy must be an http://" in str(error)

    @pytest.mark.parametrize("scheme", ["http", "https"])
    @pytest.mark.parametrize(
        "proxy",
        [
            "http://",
            "http://:8080",
            "http://user:secret-word@",
            "http://\N{EURO SIGN}:secret-word@127.0.0.1:9",
        ],
    )
    def test_a_proxy_that_cannot_be_one_is_named(self, monkeypatch, scheme, proxy):
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", proxy)
        error = outcome(
            f"{scheme}://elsewhere.test/v1", allow_http=True, retry=RetryPolicy()
        )
        assert type(error) is ConnectionFailed
        assert (error.phase, error.verdict) == (Phase.CONNECT, Verdict.FATAL)
        assert error.attempts == 1
        assert "HTTPS_PROXY" in str(error)
        assert "secret-word" not in "".join(traceback.format_exception(error))


class TestRedirects:
    @pytest.mark.parametrize("status", [307, 308])
    @pytest.mark.parametrize("relative", [False, True])
    def test_within_the_origin_it_is_followed_with_body_and_key(
        self, sim, status, relative
    ):
        base = "" if relative else f"http://127.0.0.1:{sim.port}"
        target = f"{base}/v1/chat/completions?moved=1"
        sim.play(Script(redirect=target, status=status))
        assert ask(sim.base_url) == TEXT
        first, second = sim.requests
        assert second.path == "/v1/chat/completions?moved=1"
        assert second.body == first.body
        assert second.method == "POST"
        assert second.headers["authorization"] == f"Bearer {KEY}"
        assert second.headers["x-request-id"] == first.headers["x-request-id"]

    @pytest.mark.parametrize("status", [300, 301, 302, 303, 304])
    def test_others_are_not(self, sim, status):
        sim.play(Script(redirect="/v1/other?token=xyzzy", status=status))
        error = outcome(sim.base_url, retry=RetryPolicy())
        assert type(error) is UnexpectedRedirect
        assert error.verdict is Verdict.FATAL
        assert f"http://127.0.0.1:{sim.port}/v1/other" in str(error)
        assert "xyzzy" not in str(error)
        assert len(sim.requests) == 1

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_another_origin_is_never_asked(self, sim, status):
        with Simulator() as other:
            target = f"http://127.0.0.1:{other.port}/v1/chat/completions?q=secret"
            sim.play(Script(redirect=target, status=status))
            error = outcome(sim.base_url)
            assert other.connections == 0
        assert type(error) is UnexpectedRedirect
        assert f"http://127.0.0.1:{other.port}/v1/chat/completions" in str(error)
        assert "secret" not in str(error)

    @pytest.mark.parametrize(
        "target",
        [
            "https://127.0.0.1:{port}/v1",
            "http://localhost:{port}/v1",
            "//localhost:{port}/v1",
            "http://user:word@localhost:{port}/v1",
            "ftp://127.0.0.1:{port}/v1",
            "file:///etc/passwd",
        ],
    )
    def test_what_only_looks_like_the_origin_is_another(self, sim, target):
        sim.play(Script(redirect=target.format(port=sim.port)))
        error = outcome(sim.base_url)
        assert type(error) is UnexpectedRedirect
        assert "word" not in str(error)
        assert sim.connections == 1

    def test_a_loop_ends(self, sim):
        sim.play(Script(redirect="/v1/chat/completions", times=0))
        error = outcome(sim.base_url, retry=RetryPolicy())
        assert type(error) is UnexpectedRedirect
        assert len(sim.requests) == wire_http.MAX_REDIRECTS + 1

    @pytest.mark.parametrize("location", ["", "http://[", "http://127.0.0.1:99999999/"])
    def test_a_location_that_is_none(self, sim, location):
        sim.play(Script(redirect=location, times=0))
        error = outcome(sim.base_url, retry=RetryPolicy())
        assert type(error) is UnexpectedRedirect


class TestWhatIsNoEventStream:
    @pytest.mark.parametrize(
        ("script", "words"),
        [
            (
                Script(error=b"<html><title>Welcome to nginx!</title></html>"),
                "Welcome to nginx!",
            ),
            (Script(error={"hello": "world"}), "hello"),
            (Script(content_type="application/json"), "application/json"),
            (Script(error=b"plain words"), "plain words"),
        ],
    )
    def test_a_200_says_what_it_is_instead(self, sim, script, words):
        sim.play(Script(**{**_set(script), "status": 200}))
        error = outcome(sim.base_url, retry=RetryPolicy())
        assert type(error) is NotAnEventStream
        assert (error.phase, error.verdict) == (Phase.HEADERS, Verdict.FATAL)
        assert words in str(error)

    def test_an_error_of_the_api_inside_a_200(self, sim):
        body = {"error": {"message": "Too busy", "code": "server_overloaded"}}
        sim.play(Script(status=200, error=body))
        error = outcome(sim.base_url)
        assert type(error) is Overloaded
        assert "Too busy" in str(error)

    def test_204(self, sim):
        sim.play(Script(status=204))
        error = outcome(sim.base_url)
        assert type(error) is NotAnEventStream
        assert "204" in str(error)

    @pytest.mark.parametrize(
        "kind",
        [
            "",
            "Content-Type: text/event-stream;charset=utf-8",
            "Content-Type: Text/Event-Stream ; x=y",
        ],
    )
    def test_what_is_one(self, kind):
        with Peer(once(answer(EVENTS, *filter(None, [kind])))) as peer:
            assert ask(f"{peer.url}/v1") == TEXT

    def test_an_error_body_is_read_up_to_64_kib(self):
        """What follows is not waited for, and its connection is not used again."""
        sent = []

        def serve(sock):
            read_request(sock)
            head = answer(b"", status="400 Bad Request").replace(b": 0", b": 99999999")
            sock.sendall(head + b"no such model: " + b"x" * 200_000)
            sent.append(True)
            wait_for_end(sock)

        with Peer(serve) as peer:
            error = outcome(f"{peer.url}/v1")
        assert type(error) is BadRequest
        assert "no such model" in str(error)
        assert len(str(error)) < 1000
        assert sent

    def test_an_error_body_is_waited_for_5_seconds(self, monkeypatch):
        assert refused.ERROR_BODY_SECONDS == 5.0
        monkeypatch.setattr(refused, "ERROR_BODY_SECONDS", 0.2)

        def serve(sock):
            read_request(sock)
            head = answer(b"", status="400 Bad Request").replace(b": 0", b": 100")
            sock.sendall(head + b"no such model")
            wait_for_end(sock)

        with Peer(serve) as peer:
            error = outcome(f"{peer.url}/v1")
        assert type(error) is BadRequest
        assert "no such model" in str(error)

    def test_an_error_leaves_its_connection_for_the_next(self, sim):
        sim.play(Script(status=429), Script(status=503))
        policy = RetryPolicy(base=0.001, cap=0.001)
        assert ask(sim.base_url, retry=policy) == TEXT
        assert len(sim.requests) == 3
        assert sim.connections == 1

    def test_corrupt_gzip(self):
        packed = gzip.compress(EVENTS * 50)
        broken = packed[:60] + bytes(byte ^ 255 for byte in packed[60:])
        response = answer(
            broken, "Content-Type: text/event-stream", "Content-Encoding: gzip"
        )
        with Peer(once(response)) as peer:
            error = outcome(f"{peer.url}/v1", retry=RetryPolicy())
        found = getattr(error, "cause", error)
        assert type(found) is ProtocolError
        assert found.verdict is Verdict.FATAL
        assert "compressed" in str(found)

    def test_gzip_that_is_not_gzip(self):
        response = answer(
            EVENTS, "Content-Type: text/event-stream", "Content-Encoding: gzip"
        )
        with Peer(once(response)) as peer:
            assert type(outcome(f"{peer.url}/v1")) is ProtocolError

    @pytest.mark.parametrize(
        "coding", ["gzip, gzip", "gzip,gzip", "br", "zstd", "deflate, identity", "no"]
    )
    @pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
    def test_a_coding_that_is_not_read_is_not_inflated(self, coding, status):
        """Twice compressed, a thousandth of a thousandth of it came over the wire."""
        body = gzip.compress(gzip.compress(EVENTS + b": " + b" " * 10**6))
        response = answer(
            body,
            "Content-Type: text/event-stream",
            f"Content-Encoding: {coding}",
            status=status,
        )
        with Peer(always(response)) as peer:
            error = outcome(f"{peer.url}/v1", retry=RetryPolicy())
            assert peer.accepted == 1
        if status == "200 OK":
            assert type(error) is ProtocolError
            assert error.verdict is Verdict.FATAL
            assert f"Content-Encoding {coding}" in str(error)
        else:
            assert type(error) is BadRequest

    @pytest.mark.parametrize("coding", ["", "identity", "GZIP", "x-gzip"])
    def test_the_ones_that_are_read(self, coding):
        body = gzip.compress(EVENTS) if "gzip" in coding.lower() else EVENTS
        response = answer(
            body, "Content-Type: text/event-stream", f"Content-Encoding: {coding}"
        )
        with Peer(once(response)) as peer:
            assert ask(f"{peer.url}/v1")


def _set(script):
    """Return the fields of a script that are not the default's."""
    return {
        name: getattr(script, name)
        for name in script.__slots__
        if getattr(script, name) != getattr(Script(), name)
    }


class TestTheRequest:
    def test_its_headers(self, sim):
        ask(sim.base_url)
        headers = dict(sim.requests[0].headers)
        assert len(headers.pop("x-request-id")) == 36
        assert headers.pop("user-agent").startswith("holystream/")
        assert headers.pop("content-length") == str(len(sim.requests[0].body))
        assert headers == {
            "host": f"127.0.0.1:{sim.port}",
            "accept": "text/event-stream",
            "accept-encoding": "identity",
            "cache-control": "no-cache",
            "content-type": "application/json",
            "authorization": f"Bearer {KEY}",
        }

    def test_an_id_for_each_attempt(self, sim):
        sim.play(Script(status=503), Script(cut_before_headers="rst"))
        ask(sim.base_url, retry=RetryPolicy(base=0.001, cap=0.001))
        ids = {request.headers["x-request-id"] for request in sim.requests}
        assert len(ids) == 3

    def test_extra_headers_join_them(self, sim):
        extra = {"X-Team": "grün", "User-Agent": "mine/1"}
        with client_for(sim.base_url) as client:
            client.stream(PROMPT, extra_headers=extra).until_done()
        headers = sim.requests[0].headers
        assert headers["x-team"] == "grün"
        assert headers["user-agent"] == "mine/1"

    @pytest.mark.parametrize(
        "extra",
        [
            {"X-Team": "a\r\nAuthorization: Bearer other"},
            {"authorization": "Bearer other"},
            {"X Team": "a"},
            {"X-Team": " a"},
        ],
    )
    def test_extra_headers_replace_none_of_ours(self, sim, extra):
        with client_for(sim.base_url) as client, pytest.raises(InvalidRequest):
            client.stream(PROMPT, extra_headers=extra)
        assert not sim.connections

    def test_no_cookie_is_kept(self, sim):
        jar = {"Set-Cookie": "session=abc; Path=/"}
        sim.play(Script(headers=jar), Script(status=503, headers=jar))
        with client_for(sim.base_url, retry=RetryPolicy(base=0.001)) as client:
            for _ in range(3):
                client.stream(PROMPT).until_done()
        assert len(sim.requests) == 4
        assert not any("cookie" in request.headers for request in sim.requests)

    def test_its_body_is_the_same_in_every_attempt(self, sim):
        sim.play(Script(status=503))
        ask(sim.base_url, retry=RetryPolicy(base=0.001))
        first, second = sim.requests
        assert first.body == second.body
        assert json.loads(first.body)["messages"][0]["content"] == PROMPT

    def test_without_a_key_there_is_no_authorization(self, sim, monkeypatch):
        monkeypatch.delenv("HOLYSTREAM_API_KEY", raising=False)
        from holystream import Client

        with Client(
            provider="openai-compatible", base_url=sim.base_url, model="sim"
        ) as client:
            assert client.stream(PROMPT).get_final_text() == TEXT
        assert "authorization" not in sim.requests[0].headers


def _has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback")
class TestIPv6:
    def test_an_address(self):
        with Simulator(host="::1", text=TEXT) as sim:
            assert ask(sim.base_url) == TEXT
            assert sim.requests[0].headers["host"] == f"[::1]:{sim.port}"

    def test_over_tls(self, tls):
        context, authority = tls
        with Simulator(host="::1", tls=context, text=TEXT) as sim:
            assert ask(sim.base_url, verify=authority) == TEXT


class TestInterimAnswers:
    """What comes before the answer is not it, and must not be left to be read later."""

    @pytest.mark.parametrize("status", [100, 102, 103, 199])
    def test_they_are_passed_over(self, status):
        interim = b"HTTP/1.1 %d X\r\nLink: </x>\r\n\r\n" % status
        answers = [b"one", b"two"]

        def serve(sock):
            while answers and read_request(sock):
                text = answers.pop(0)
                event = (
                    b'data: {"choices":[{"index":0,"delta":{"content":"%s"},'
                    b'"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n' % text
                )
                sock.sendall(interim)
                sock.sendall(answer(event, "Content-Type: text/event-stream"))
            wait_for_end(sock)

        with Peer(serve) as peer, client_for(peer.url) as client:
            assert client.stream("a").get_final_text() == "one"
            assert client.stream("b").get_final_text() == "two"
            assert peer.accepted == 1

    def test_a_connection_that_switched_protocols_is_not_used_again(self):
        def serve(sock):
            if read_request(sock):
                sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
                wait_for_end(sock)

        with Peer(serve) as peer, client_for(peer.url) as client:
            for accepted in (1, 2):
                with pytest.raises(NotAnEventStream):
                    client.stream("a").until_done()
                assert peer.accepted == accepted
