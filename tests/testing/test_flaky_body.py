"""A mocked body is read as given: by requests in all its ways, and by holystream."""

from __future__ import annotations

import io
import zlib

import pytest
import requests
import responses
from urllib3.exceptions import DecodeError

from holystream import (
    Client,
    ConnectionFailed,
    ConnectionLost,
    FirstTokenTimeout,
    IdleTimeout,
    IncompleteAnswer,
    Phase,
    RetryPolicy,
    StreamInterrupted,
    TextDelta,
)
from holystream.testing import Cut, Stall, flaky_body

PLAIN = "https://mock.test/"
CHAT = "https://mock.test/v1/chat/completions"
ONCE = RetryPolicy(attempts=1)
FAULTS = [
    (Cut(), requests.exceptions.ChunkedEncodingError, "IncompleteRead"),
    (Cut("rst"), requests.exceptions.ChunkedEncodingError, "ConnectionReset"),
    (Stall(), requests.exceptions.ConnectionError, "Read timed out"),
    (BrokenPipeError("gone"), requests.exceptions.ChunkedEncodingError, "BrokenPipe"),
    (DecodeError("odd"), requests.exceptions.ContentDecodingError, "odd"),
]


def chunk(content=None, finish="null"):
    delta = "{}" if content is None else f'{{"content":"{content}"}}'
    return (
        'data: {"id":"c","object":"chat.completion.chunk","model":"m","choices":'
        f'[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]}}\n\n'
    )


HELLO = [chunk("Hel"), chunk("lo"), chunk(finish='"stop"'), "data: [DONE]\n\n"]


@pytest.fixture
def mock():
    with responses.RequestsMock() as mock:
        yield mock


@pytest.fixture
def answers(mock):
    """Answer the coming requests with these bodies, in order; the last one stays."""

    def add(*bodies):
        for items in bodies:
            mock.post(CHAT, flaky_body(items), content_type="text/event-stream")

    return add


@pytest.fixture
def client(holystream_clock):
    with Client("mock-key", base_url="https://mock.test/v1", model="m") as client:
        yield client


def read(method="iter_content", size=512):
    """Read with plain requests; return the pieces and the error that followed."""
    response = requests.get(PLAIN, stream=True, timeout=9)
    pieces = []
    try:
        for piece in getattr(response, method)(size):
            pieces.append(piece)  # noqa: PERF402 - those before an error count
    except requests.RequestException as error:
        return pieces, error
    return pieces, None


@pytest.mark.parametrize("size", [512, 4, 2, 1, None])
@pytest.mark.parametrize(("fault", "kind", "words"), FAULTS)
def test_requests_meets_each_piece_and_then_the_fault(mock, size, fault, kind, words):
    mock.get(PLAIN, flaky_body([b"one\n", "t\u00e9o\n", b"thr", fault]))
    pieces, error = read(size=size)
    assert b"".join(pieces) == "one\nt\u00e9o\nthr".encode()
    if size in (512, None):
        assert pieces == [b"one\n", "t\u00e9o\n".encode(), b"thr"]
    assert type(error) is kind
    assert words in str(error)


@pytest.mark.parametrize("size", [512, 4, 1, None])
def test_without_a_fault_it_ends_cleanly(mock, size):
    mock.get(PLAIN, flaky_body([b"one\n", b"two\n", b"thr"]))
    pieces, error = read("iter_lines", size)
    assert pieces == [b"one", b"two", b"thr"]
    assert error is None


def test_requests_hands_over_the_lines_before_a_fault(mock):
    mock.get(PLAIN, flaky_body([b"one\ntw", b"o\n", Cut()]))
    pieces, error = read("iter_lines")
    assert pieces == [b"one", b"two"]
    assert isinstance(error, requests.exceptions.ChunkedEncodingError)


def test_a_body_that_is_not_streamed_is_whole_or_an_error(mock):
    mock.get(PLAIN, flaky_body(["a" * 20_000, "b"]))
    assert requests.get(PLAIN, timeout=9).text == "a" * 20_000 + "b"
    mock.replace("GET", PLAIN, flaky_body(["a", Cut("rst")]))
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(PLAIN, timeout=9)


@pytest.mark.parametrize("headers", [{"Transfer-Encoding": "chunked"}, {}])
@pytest.mark.parametrize("fault", [(), (Cut(),)])
def test_each_request_meets_it_from_its_start(mock, headers, fault):
    mock.get(PLAIN, flaky_body([b"one", b"two", *fault]), headers=headers)
    for _ in range(3):
        pieces, error = read()
        assert pieces == [b"one", b"two"]
        assert (error is not None) == bool(fault)


def test_a_response_that_was_closed_early_leaves_the_next_one_a_whole_body(mock):
    mock.get(PLAIN, flaky_body([b"one", b"two"]))
    with requests.get(PLAIN, stream=True, timeout=9) as response:
        assert next(response.iter_content(512)) == b"one"
    assert read() == ([b"one", b"two"], None)


def test_a_compressed_body_is_decoded_piece_by_piece(mock):
    deflate = zlib.compressobj(wbits=31)
    pieces = [
        deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH)
        for text in (b"one", b"two", b"three")
    ]
    mock.get(PLAIN, flaky_body([*pieces, Cut()]), headers={"Content-Encoding": "gzip"})
    pieces, error = read()
    assert pieces == [b"one", b"two", b"three"]
    assert error is not None


def test_requests_at_the_same_time_get_a_body_each(mock):
    def respond(request):
        return 200, {}, flaky_body([b"one", b"two"])

    mock.add_callback("GET", PLAIN, respond)
    with (
        requests.get(PLAIN, stream=True, timeout=9) as first,
        requests.get(PLAIN, stream=True, timeout=9) as second,
    ):
        one, other = first.iter_content(512), second.iter_content(512)
        assert [next(one), next(other)] == [b"one", b"one"]
        assert [next(one), next(other)] == [b"two", b"two"]


def test_it_is_a_file_that_can_only_be_read():
    body = flaky_body([b"one", b"", b"two"])
    assert isinstance(body, io.BufferedReader)
    assert body.readable()
    assert [body.read(2), body.read1(), body.read(), body.read()] == [
        b"on",
        b"e",
        b"two",
        b"",
    ]
    assert body.closed
    with pytest.raises(io.UnsupportedOperation):
        body.readinto(bytearray(3))


@pytest.mark.parametrize("item", [None, 5, Cut, KeyboardInterrupt()])
def test_what_no_body_can_hold_is_refused(item):
    with pytest.raises(TypeError, match="takes bytes, str, "):
        flaky_body([b"one", item])


@pytest.mark.parametrize("items", ["data: one\n\n", b"one"])
def test_one_piece_is_no_list_of_them(items):
    with pytest.raises(TypeError, match=r"in a list: flaky_body\(\[\.\.\.\]\)"):
        flaky_body(items)


def test_nothing_follows_a_fault():
    with pytest.raises(ValueError, match=r"nothing can follow Cut\(how='fin'\)"):
        flaky_body([b"one", Cut(), b"two"])


def test_a_connection_is_cut_in_one_of_two_ways():
    with pytest.raises(ValueError, match="not 'RST'"):
        Cut("RST")


def test_holystream_reads_it_to_its_end(client, answers):
    answers(HELLO)
    completion = client.stream("hi").get_final_completion()
    assert completion.text == "Hello"
    assert completion.attempts == 1


def test_holystream_gets_every_piece_at_once(client, answers):
    whole = "".join(HELLO).encode()
    answers([whole[at : at + 3] for at in range(0, len(whole), 3)])
    stream = client.stream("hi")
    assert [str(event) for event in stream if type(event) is TextDelta] == ["Hel", "lo"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Cut(), ConnectionLost),
        (Cut("rst"), ConnectionLost),
        (Stall(), IdleTimeout),
        (OSError("odd"), ConnectionLost),
    ],
)
def test_holystream_names_a_fault_in_the_body(client, answers, fault, error):
    answers([*HELLO[:2], fault])
    with pytest.raises(StreamInterrupted) as caught:
        client.stream("hi", retry=ONCE).until_done()
    assert type(caught.value.__cause__) is error
    assert caught.value.phase is Phase.BODY
    assert caught.value.partial_text == "Hello"


@pytest.mark.parametrize(
    ("items", "error"),
    [([Cut()], ConnectionLost), ([Stall()], FirstTokenTimeout), ([], IncompleteAnswer)],
)
def test_holystream_names_a_fault_before_the_first_event(client, answers, items, error):
    answers(items)
    stream = client.stream("hi", retry=ONCE)
    with pytest.raises(error) as caught:
        stream.until_done()
    assert caught.value.phase is Phase.HEADERS


def test_holystream_tries_again_from_fault_to_fault(
    client, answers, holystream_clock, mock
):
    answers([Cut("rst")], [Stall()], HELLO)
    stream = client.stream("hi")
    assert stream.get_final_text() == "Hello"
    assert stream.attempts == len(mock.calls) == 3
    assert len(holystream_clock.waits) == 2


def test_holystream_meets_the_last_body_again_and_again(client, answers):
    answers([chunk("Hel"), Cut()])
    stream = client.stream("hi", temperature=0, retry=RetryPolicy(attempts=4))
    with pytest.raises(StreamInterrupted) as caught:
        stream.until_done()
    assert stream.attempts == 4
    assert caught.value.partial_text == "Hel"


def test_a_mocked_connection_that_fails_before_its_headers_was_never_made(client, mock):
    mock.post(CHAT, body=requests.exceptions.ConnectionError("no route"))
    with pytest.raises(ConnectionFailed) as caught:
        client.stream("hi", retry=ONCE).until_done()
    assert caught.value.phase is Phase.CONNECT
