"""What came is handed over before anything else comes: shown by cause, not by clock.

The server sends the bytes that complete an event, and no byte more before the client
has handed that event over. A client that waits for one more byte (the LF after a CR,
the end of a chunk, a full buffer) waits until the server gives up.
"""

import pytest
from lockstep import FRAMINGS, Lockstep, Reply, chat_events, lay_out

from holystream import Client, Finished, TextDelta
from holystream.clocks import Deadline, ReadClocks, Timeouts
from holystream.wire.faults import Fault, FaultKind
from holystream.wire.guard import SocketGuard
from holystream.wire.http import HttpTransport
from holystream.wire.request import HttpRequest

TEXTS = ["Hello", " 🚀", "\u2028", " naïve\n", "東京", " ", "end."]

# How the lines end, and how much of that may be missing when an event is due.
ENDINGS = {
    "lf": (b"\n", 0),
    "cr": (b"\r", 0),
    "crlf": (b"\r\n", 1),
    "crlf-whole": (b"\r\n", 0),
}

anyhow = pytest.mark.parametrize("framing", FRAMINGS)
any_ending = pytest.mark.parametrize("ending", ENDINGS)
any_coding = pytest.mark.parametrize("gzip", [False, True], ids=["identity", "gzip"])
any_socket = pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])


def event_stream(datas, ending, *, together=1):
    """Return the parts of a body: each just completes an event, the last the body.

    The last `together` events are one part.
    """
    newline, missing = ENDINGS[ending]
    blocks = [b"data: " + data + newline * 2 for data in datas]
    blocks[-together:] = [b"".join(blocks[-together:])]
    parts, kept = [], b""
    for block in blocks:
        whole = kept + block
        parts.append(whole[: len(whole) - missing])
        kept = whole[len(whole) - missing :]
    return [*parts, kept]


@pytest.fixture
def make(tls_server, ca_file):
    """Make a lockstep server for one body, and what a client needs to trust it."""
    servers = []

    def make_server(parts, framing, *, gzip, tls, dribble=False):
        fields, pieces = lay_out(parts, framing, gzip=gzip)
        reply = Reply(
            pieces=tuple(pieces),
            fields=fields,
            end="fin" if framing == "close" else "keep",
            dribble=dribble,
        )
        servers.append(Lockstep(reply, tls=tls_server if tls else None))
        return servers[-1], ca_file if tls else True

    yield make_server
    for server in servers:
        server.close()
        assert not server.starved


def test_the_last_text_does_not_wait_for_the_end_that_came_with_it(make):
    data = [text.encode() for text in ("text", "finish", "usage", "[DONE]")]
    whole = b"".join(b"data: " + each + b"\n\n" for each in data)
    server, verify = make([whole], "length", gzip=False, tls=False)
    transport = HttpTransport(connections=1, user_agent="test", verify=verify)
    guard = SocketGuard(ReadClocks(Timeouts(), Deadline()))
    connection = transport.open(HttpRequest(url=server.origin, body=b"{}"), guard)
    assert [event.raw for event in connection.next_batch()] == data[:1]
    assert connection.taken() == len(b"data: text\n\n")
    assert [event.raw for event in connection.next_batch()] == data[1:]
    assert connection.taken() == len(whole)
    assert connection.next_batch() is None
    connection.close()
    transport.close()


@anyhow
@any_ending
@any_coding
@any_socket
def test_a_connection_hands_over_each_event_before_the_next_byte(
    make, framing, ending, gzip, tls
):
    datas = [text.replace("\n", "|").encode() for text in TEXTS]
    server, verify = make(
        event_stream(datas, ending), framing, gzip=gzip, tls=tls, dribble=True
    )
    transport = HttpTransport(connections=1, user_agent="test", verify=verify)
    guard = SocketGuard(ReadClocks(Timeouts(), Deadline()))
    connection = transport.open(HttpRequest(url=server.origin, body=b"{}"), guard)
    for data in datas:
        assert [event.raw for event in connection.next_batch()] == [data]
        server.handed_over()
    assert connection.next_batch() is None
    connection.close()
    transport.close()


@anyhow
@any_ending
@any_coding
@any_socket
def test_text_stream_yields_each_piece_before_the_next_byte(
    make, framing, ending, gzip, tls
):
    # The end comes at once: with the finish reason comes all that follows it.
    *parts, kept = event_stream(chat_events(TEXTS), ending, together=2)
    parts[-1] += kept
    server, verify = make(parts, framing, gzip=gzip, tls=tls, dribble=True)
    pieces = []
    with (
        Client("sk-test", base_url=server.origin, model="m", verify=verify) as client,
        client.stream("hello") as stream,
    ):
        for text in stream.text_stream:
            pieces.append(text)
            assert pieces == TEXTS[: len(pieces)]
            server.handed_over()
        assert pieces == TEXTS
        assert stream.attempts == 1


@anyhow
@any_ending
@any_coding
def test_the_answer_is_finished_at_done_before_the_body_ends(
    make, framing, ending, gzip
):
    parts = event_stream(chat_events(TEXTS), ending, together=2)
    server, _ = make(parts, framing, gzip=gzip, tls=False)
    seen = []
    with Client("sk-test", base_url=server.origin, model="m") as client:
        for event in client.stream("hello"):
            if isinstance(event, (TextDelta, Finished)):
                seen.append(str(event))
                server.handed_over()
        assert seen == [*TEXTS, ""]
        assert event.completion.text == "".join(TEXTS)
        assert event.completion.interruptions == 0


@anyhow
def test_what_one_write_brings_comes_in_one_batch(make, framing):
    """Promptness is not bought with a batch for each event."""
    parts = event_stream([b"%d" % number for number in range(50)], "lf", together=50)
    server, _ = make(parts, framing, gzip=False, tls=False)
    transport = HttpTransport(connections=1, user_agent="test")
    guard = SocketGuard(ReadClocks(Timeouts(), Deadline()))
    connection = transport.open(HttpRequest(url=server.origin, body=b"{}"), guard)
    assert len(connection.next_batch()) == 50
    server.handed_over()
    assert connection.next_batch() is None
    connection.close()
    transport.close()


@pytest.mark.parametrize("framing", ["chunked", "one-chunk", "length"])
def test_without_a_byte_more_it_really_waits(make, framing):
    """The proof of the proofs: half an event is not handed over."""
    parts = [b"data: a\n\nda", b"ta: b\n\n", b""]
    server, _ = make(parts, framing, gzip=False, tls=False)
    transport = HttpTransport(connections=1, user_agent="test")
    # The first part is waited for as long as it takes.
    guard = SocketGuard(ReadClocks(Timeouts(idle=0.05), Deadline()))
    connection = transport.open(HttpRequest(url=server.origin, body=b"{}"), guard)
    assert [event.raw for event in connection.next_batch()] == [b"a"]
    guard.clocks.content_came = True
    with pytest.raises(Fault) as caught:
        connection.next_batch()
    assert caught.value.kind is FaultKind.IDLE
    connection.close()
    transport.close()
