"""What the server says: the time, and whether it takes the key."""

import contextlib
import email.utils
import socket
import ssl
import threading
import time

import pytest
from loopback import Peer, answer, read_request

from holystream.cli.doctor import api
from holystream.cli.doctor.findings import Status

KEY = "sk-4711-never-show-me"
MODELS = b'{"object": "list", "data": [{"id": "m"}]}'
JSON = "Content-Type: application/json"


def dated(seconds, *headers):
    date = email.utils.formatdate(time.time() + seconds, usegmt=True)
    return answer(MODELS, JSON, f"Date: {date}", *headers)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3600, "s behind the server's"), (-3600, "s ahead of the server's")],
)
def test_a_wrong_clock_is_warned_of(diagnose, serve, seconds, said):
    finding = diagnose(serve(lambda _: dated(seconds)))["clock"]
    assert finding.problem == "clock.skewed"
    assert said in finding.text
    # As exact as a Date can be, however long the answer took: never more than it is.
    assert 3500 < abs(finding.facts["skew_seconds"]) <= 3600


def test_a_right_clock_is_fine(diagnose, serve):
    finding = diagnose(serve(lambda _: dated(0)))["clock"]
    assert (finding.status, finding.facts["skew_seconds"]) == (Status.OK, 0.0)


def test_an_answer_that_took_long_is_not_a_wrong_clock(case):
    """Anything between sending and receiving may have been the server's moment."""

    made = case("https://api.example/v1")
    made.probe = api_reply("Wed, 01 Jan 2025 00:00:30 GMT", 1735689600, 1735689660)
    assert api.clock(made).status is Status.OK
    made.probe = api_reply("Wed, 01 Jan 2025 00:01:06 GMT", 0, 1735689660)
    finding = api.clock(made)
    assert finding.facts["skew_seconds"] == 6.0
    assert finding.problem == "clock.skewed"


def api_reply(date, sent_at, answered_at):
    from holystream.cli.doctor.case import Reply
    from holystream.errors import Phase
    from holystream.wire.faults import Answer

    said = Answer(status=200, headers={"date": date}, body=b"")
    return Reply(
        fault=None,
        said="",
        phase=Phase.BODY,
        answer=said,
        sent_at=sent_at,
        answered_at=answered_at,
    )


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("X-None: 1", "sends no Date"),
        ("Date: yesterday", "cannot be read"),
        ("Date: Mon, 99 Jan 9999 00:00:00 GMT", "cannot be read"),
        ("Date: Wed, 01 Jan 2025 00:00:00 GMT\r\nAge: 7", "from a cache"),
    ],
)
def test_without_a_date_of_now_nothing_is_said_of_the_clock(
    diagnose, serve, header, said
):
    finding = diagnose(serve(lambda _: answer(MODELS, JSON, header)))["clock"]
    assert (finding.status, finding.stops) == (Status.SKIPPED, False)
    assert said in finding.text


def test_a_key_that_is_taken(diagnose, sim):
    finding = diagnose(sim.base_url)["authentication"]
    assert finding.status is Status.OK
    assert finding.text == "GET /v1/models answered 200 with the key, 401 without"


def test_a_key_that_is_not_taken(diagnose, sim, environment):
    environment.setenv("HOLYSTREAM_API_KEY", "sk-0815-somebody-else")
    findings = diagnose(sim.base_url)
    finding = findings["authentication"]
    assert finding.problem == "authentication.refused"
    assert "401" in finding.text
    assert "HOLYSTREAM_API_KEY" in finding.advice
    assert "0815" not in repr(findings)
    assert findings["buffering"].text == "needs authentication"


def test_a_server_that_repeats_the_key(diagnose, serve):
    def respond(request):
        return answer(request, JSON, status="401 Unauthorized")

    assert diagnose(serve(respond))["authentication"].stops


def test_a_key_that_cannot_be_one_is_not_tried(diagnose, sim, environment):
    environment.setenv("HOLYSTREAM_API_KEY", '"sk-0815"')
    findings = diagnose(sim.base_url)
    assert findings["tcp"].status is Status.OK
    assert findings["authentication"].text == "needs key"
    assert not any("authorization" in request.headers for request in sim.requests)


def test_a_key_that_is_missing(diagnose, sim, environment):
    environment.delenv("HOLYSTREAM_API_KEY")
    finding = diagnose(sim.base_url)["authentication"]
    assert finding.problem == "authentication.key-needed"
    assert "HOLYSTREAM_API_KEY" in finding.advice


def test_a_list_that_anyone_may_read_proves_nothing(diagnose, serve, environment):
    url = serve(lambda _: answer(MODELS, JSON))
    finding = diagnose(url)["authentication"]
    assert finding.problem == "authentication.open"
    environment.delenv("HOLYSTREAM_API_KEY")
    assert diagnose(url)["authentication"].status is Status.OK


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        ("402 Payment Required", "authentication.no-credit"),
        ("403 Forbidden", "authentication.forbidden"),
        ("404 Not Found", "authentication.not-found"),
        ("405 Method Not Allowed", "authentication.unclear"),
        ("407 Proxy Authentication Required", "authentication.proxy"),
        ("429 Too Many Requests", "authentication.throttled"),
        ("500 Internal Server Error", "authentication.server-error"),
        ("503 Service Unavailable", "authentication.server-error"),
    ],
)
def test_each_status_means_something_else(diagnose, serve, status, problem):
    body = b'{"error": {"message": "because \x1b[31mof you"}}'
    finding = diagnose(serve(lambda _: answer(body, JSON, status=status)))[
        "authentication"
    ]
    assert finding.problem == problem
    assert f"answered {status[:3]}" in finding.text
    assert finding.text.isprintable()


@pytest.mark.parametrize(
    "status", ["404 Not Found", "405 Method Not Allowed", "501 Unsupported method"]
)
def test_a_page_of_a_web_server_is_not_the_api(diagnose, serve, status):
    page = b"<html><title>Not here</title></html>"
    kind = "Content-Type: text/html;charset=utf-8"
    url = serve(lambda _: answer(page, kind, status=status))
    finding = diagnose(url)["authentication"]
    assert finding.problem == "authentication.not-the-api"
    assert finding.status is Status.FAIL


def test_a_base_url_that_lacks_its_version_is_mended(diagnose, sim):
    finding = diagnose(sim.base_url.removesuffix("/v1"))["authentication"]
    assert finding.problem == "authentication.version-missing"
    assert finding.advice == f"Use --base-url {sim.base_url}."
    # The key went to where it was sent, not where we guessed.
    keys = {
        request.route for request in sim.requests if "authorization" in request.headers
    }
    assert keys == {"/models"}


def test_a_path_that_is_wrong_anyhow_is_not_mended(diagnose, serve):
    url = serve(lambda _: answer(b"{}", JSON, status="404 Not Found"))
    finding = diagnose(url.removesuffix("/v1"))["authentication"]
    assert finding.problem == "authentication.not-found"


def test_a_redirect_is_not_followed(diagnose, serve):
    where = "Location: https://other.example/v1?secret=1"
    finding = diagnose(serve(lambda _: answer(b"", where, status="302 Found")))[
        "authentication"
    ]
    assert finding.problem == "authentication.redirected"
    assert "302 to https://other.example/v1" in finding.text
    assert "secret" not in finding.text


def test_a_web_page_is_not_the_api(diagnose, serve):
    page = answer(b"<html>Welcome to our WiFi", "Content-Type: text/html")
    finding = diagnose(serve(lambda _: page))["authentication"]
    assert finding.problem == "authentication.not-the-api"
    assert "200 with text/html" in finding.text


def test_an_answer_without_a_type_says_nothing(diagnose, serve):
    finding = diagnose(serve(lambda _: answer(MODELS)))["authentication"]
    assert finding.problem == "authentication.unclear"


def test_an_event_stream_is_not_the_api_either(diagnose, serve):
    page = answer(b"data: 1\n\n", "Content-Type: text/event-stream")
    finding = diagnose(serve(lambda _: page))["authentication"]
    assert finding.problem == "authentication.not-the-api"


@pytest.mark.parametrize(
    ("said", "problem", "text"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "authentication.not-http", "not HTTP"),
        (b"", "authentication.no-answer", "the connection broke"),
    ],
)
def test_no_answer_is_told(diagnose, said, problem, text):
    def converse(sock):
        read_request(sock)
        sock.sendall(said)

    with Peer(converse) as peer:
        finding = diagnose(f"{peer.url}/v1")["authentication"]
    assert finding.problem == problem
    assert finding.facts["phase"] == "SENT"
    assert text in finding.text


def test_a_port_that_speaks_tls_is_told_from_a_server_that_refuses(diagnose, tls_sim):
    right = tls_sim().base_url
    finding = diagnose(f"http{right.removeprefix('https')}")["authentication"]
    assert finding.problem == "authentication.tls-port"
    assert finding.advice == f"Use --base-url {right}: this port speaks TLS."


def test_a_400_of_a_tls_port_is_no_riddle(diagnose, authority):
    """As nginx and Go do: one port, TLS, and words for whoever comes without."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    def converse(sock):
        if sock.recv(1, socket.MSG_PEEK) == b"\x16":
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(sock, server_side=True) as tls,
            ):
                tls.recv(1)
        else:
            read_request(sock)
            sock.sendall(answer(b"go away", status="400 Bad Request"))

    with Peer(converse) as peer:
        finding = diagnose(f"{peer.url}/v1")["authentication"]
    assert finding.problem == "authentication.tls-port"


def test_a_tls_port_that_wants_another_name_is_one(diagnose):
    def converse(sock):
        sock.recv(65536)
        # A fatal alert: unrecognized_name.
        sock.sendall(b"\x15\x03\x03\x00\x02\x02\x70")

    with Peer(converse) as peer:
        finding = diagnose(f"{peer.url}/v1")["authentication"]
    assert finding.problem == "authentication.tls-port"


def test_a_400_without_tls_is_unclear(diagnose, serve):
    url = serve(lambda _: answer(b"{}", JSON, status="400 Bad Request"))
    assert diagnose(url)["authentication"].problem == "authentication.unclear"


def test_a_circle_of_redirects_is_told(diagnose, serve):
    around = answer(b"", "Location: /v1/models", status="307 Temporary Redirect")
    finding = diagnose(serve(lambda _: around))["authentication"]
    assert finding.problem == "authentication.redirect-loop"
    assert "more than 5 redirects" in finding.text


def test_models_that_are_nested_without_end_are_none(diagnose, serve):
    findings = diagnose(serve(lambda _: answer(b"[" * 60_000, JSON)))
    assert findings["buffering"].status is Status.SKIPPED


def test_a_silent_server_is_not_waited_for(diagnose):
    left = threading.Event()

    def converse(sock):
        while sock.recv(65536):
            pass
        left.set()

    with Peer(converse) as peer:
        finding = diagnose(f"{peer.url}/v1", seconds=0.1)["authentication"]
        assert left.wait(10)
    assert finding.problem == "authentication.no-answer"


def test_azure_has_its_models_elsewhere(case):
    made = case("https://r.openai.azure.com", "azure")
    made.base_url = made.typed_url
    assert made.models_url == (
        "https://r.openai.azure.com/openai/models?api-version=2024-10-21"
    )


@pytest.mark.parametrize(
    "body",
    [b"", b"[1]", b'{"data": 1}', b'{"data": ["m"]}', b'{"data": []}', MODELS, b"{"],
)
def test_only_the_simulator_is_the_simulator(diagnose, serve, body):
    finding = diagnose(serve(lambda _: answer(body, JSON)))["buffering"]
    assert finding.status is Status.SKIPPED
