"""The chunked coding, taken apart in bulk: the payload, whole, whatever the cutting."""

import http.client
import io
import itertools

import pytest
import requests
from hypothesis import example, given, settings, strategies as st
from lockstep import Lockstep, Reply

from holystream.clocks import Deadline, ReadClocks, Timeouts
from holystream.wire.chunked import BulkHTTPResponse, ChunkedDecoder
from holystream.wire.faults import Fault, FaultKind
from holystream.wire.guard import SocketGuard
from holystream.wire.http import HttpTransport
from holystream.wire.request import HttpRequest

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def new_guard():
    return SocketGuard(ReadClocks(Timeouts(), Deadline()))


def cut(wire, places):
    edges = [0, *sorted(place % (len(wire) + 1) for place in places), len(wire)]
    return [wire[a:b] for a, b in itertools.pairwise(edges) if b > a]


def decode(pieces):
    decoder = ChunkedDecoder()
    payload = b""
    for piece in pieces:
        payload += decoder.feed(piece)
        if decoder.broken or decoder.finished:
            break
    return decoder, payload


def test_a_plain_body():
    decoder, payload = decode([b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"])
    assert (payload, decoder.finished, decoder.broken) == (b"abcde", True, False)
    assert not decoder.surplus


PAYLOADS = st.lists(
    st.binary(min_size=1, max_size=40)
    | st.sampled_from([b"\r\n", b"0\r\n\r\n", b"\n", b"\r", b"5\r\nhello\r\n"]),
    max_size=8,
)
PLACES = st.lists(st.integers(0, 1000), max_size=12)
EXTENSIONS = st.sampled_from(
    [b"", b"", b";a", b";a=b", b' ; a="b;c"', b" ", b";" + b"x" * 300, b";0"]
)


@st.composite
def codings(draw, endings=(b"\r\n", b"\n")):
    """Draw a payload, its coding, and how much of that holds the last chunk's line.

    With all that RFC 9112 and real servers allow.
    """
    chunks = draw(PAYLOADS)
    ending = st.sampled_from(endings)
    wire = b""
    for chunk in chunks:
        size = draw(st.sampled_from([b"%x", b"%X", b"0%x", b"000000%X"])) % len(chunk)
        wire += size + draw(EXTENSIONS) + draw(ending) + chunk + draw(ending)
    wire += draw(st.sampled_from([b"0", b"000"])) + draw(EXTENSIONS) + draw(ending)
    enough = len(wire)
    for trailer in draw(st.lists(st.sampled_from([b"A: b", b"0", b"x" * 200]))):
        wire += trailer + draw(ending)
    return b"".join(chunks), wire + draw(ending), enough


@given(codings(), PLACES)
def test_any_coding_in_any_pieces_is_its_payload(coding, places):
    payload, wire, _ = coding
    for pieces in (cut(wire, places), [wire], cut(wire, range(len(wire)))):
        decoder, got = decode(pieces)
        assert got == payload
        assert decoder.finished
        assert not decoder.broken
        assert not decoder.surplus


@given(codings())
def test_part_of_a_chunk_is_handed_over_as_it_comes(coding):
    payload, wire, _ = coding
    decoder = ChunkedDecoder()
    got = b""
    for end in range(1, len(wire) + 1):
        got += decoder.feed(wire[end - 1 : end])
        assert ChunkedDecoder().feed(wire[:end]) == got
    assert got == payload


@given(codings(), st.binary(min_size=1, max_size=10))
def test_bytes_behind_the_end_are_no_payload(coding, more):
    payload, wire, _ = coding
    decoder, got = decode([wire + more])
    assert got == payload
    assert decoder.finished
    assert decoder.surplus


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"-5",
            b"+5",
            b"0x5",
            b"5_0",
            b"",
            b" ",
            b"g",
            b"5 5",
            b";a",
            b"\xb2",
            b"5\r5",
        ),
        *(b"\x00", b"HTTP/1.1 200 OK", b"data: a"),
    ],
)
@pytest.mark.parametrize("ending", [b"\r\n", b"\n"])
def test_a_bad_size_ends_it_and_keeps_what_came(line, ending):
    wire = b"3\r\nabc\r\n" + line + ending + b"3\r\ndef\r\n0\r\n\r\n"
    for pieces in ([wire], cut(wire, range(len(wire)))):
        decoder, payload = decode(pieces)
        assert payload == b"abc"
        assert decoder.broken


@pytest.mark.parametrize("after", [b"x\r\n", b"\rx\r\n", b"defg\r\n", b" \n"])
def test_a_chunk_longer_than_its_size_ends_it(after):
    wire = b"3\r\nabc\r\n3\r\nabc" + after + b"0\r\n\r\n"
    for pieces in ([wire], cut(wire, range(len(wire)))):
        decoder, payload = decode(pieces)
        assert payload == b"abcabc"
        assert decoder.broken


@pytest.mark.parametrize("size", [1, 1000, 65536])
@pytest.mark.parametrize(
    "start", [b"3\r\nabc\r\n", b"3\r\nabc\r\n3;", b"3\r\nabc\r\n0\r\nTrailer: "]
)
def test_an_endless_line_ends_it(start, size):
    decoder = ChunkedDecoder()
    payload = decoder.feed(start)
    fed = 0
    while not decoder.broken:
        payload += decoder.feed(b"0" * size)
        fed += size
        assert fed < 200_000
    assert payload == b"abc"


def test_a_huge_size_is_only_a_number():
    decoder, payload = decode([b"f" * 1000 + b"\r\nabc", b"def"])
    assert payload == b"abcdef"
    assert not decoder.broken
    assert not decoder.may_end


class Wire:
    """A socket as a response reads it: one piece for each recv."""

    def __init__(self, pieces):
        self._pieces = [piece for piece in pieces if piece]
        self._io_refs = 0

    def settimeout(self, seconds):
        assert seconds > 0

    def recv(self, room):
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if piece[room:]:
            self._pieces.insert(0, piece[room:])
        return piece[:room]

    def recv_into(self, buffer):
        piece = self.recv(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    def shutdown(self, _how):
        self._pieces.clear()

    def _decref_socketios(self):
        self._io_refs -= 1


def ours(pieces, *, amount=65536):
    """Read a response; return its payload and whether its end was clean."""
    wire = Wire(pieces)
    response = BulkHTTPResponse(wire, guard=new_guard())
    response.begin()
    payload = b""
    try:
        while data := response.read1(amount):
            assert len(data) <= amount
            payload += data
    except http.client.IncompleteRead:
        clean = False
    else:
        clean = True
    assert response.isclosed()
    assert wire._io_refs == 0
    assert response.read1(amount) == b""
    return payload, clean


class Whole:
    def __init__(self, data):
        self._data = data

    def makefile(self, _mode):
        return io.BytesIO(self._data)


def theirs(data):
    """Read the same bytes by http.client alone."""
    response = http.client.HTTPResponse(Whole(data))
    response.begin()
    payload = b""
    try:
        while data := response.read(1):
            payload += data
    except (http.client.HTTPException, ValueError):
        return payload, False
    finally:
        response.close()
    return payload, True


@given(codings(endings=(b"\r\n",)), PLACES, st.integers(1, 100))
def test_http_client_reads_the_same(coding, places, amount):
    payload, wire, _ = coding
    assert theirs(HEAD + wire) == (payload, True)
    assert ours(cut(HEAD + wire, places)) == (payload, True)
    assert ours(cut(HEAD + wire, places), amount=amount) == (payload, True)


@settings(max_examples=20)
@given(codings(endings=(b"\r\n",)), PLACES)
@example((b"abc", b"3\r\nabc\r\n0\r\n\r\n", 11), [])
def test_cut_anywhere_it_has_what_http_client_has(coding, places):
    payload, wire, enough = coding
    for end in range(len(wire)):
        pieces = cut(HEAD + wire[:end], places)
        expected, ended = theirs(HEAD + wire[:end])
        assert ours(pieces) == (expected, end >= enough)
        assert payload.startswith(expected)
        # http.client takes half a line for a whole one: the "0" of "0a".
        assert ended or end < enough


DAMAGE = st.tuples(
    st.integers(0, 1000),
    st.integers(0, 2),
    st.sampled_from(
        [b"", b"\r", b"\n", b"0", b"f", b";", b"-", b" ", b"_", b"x", b"\0"]
    ),
)


@given(codings(endings=(b"\r\n",)), DAMAGE, PLACES)
def test_what_is_taken_for_whole_http_client_reads_the_same(coding, damage, places):
    _, wire, _ = coding
    place, length, new = damage
    place %= len(wire)
    wire = wire[:place] + new + wire[place + length :]
    got, clean = ours(cut(HEAD + wire, places))
    assert (got, clean) == ours([HEAD + wire])
    # A line that ends in LF alone http.client accepts in some places only.
    if clean and not {*wire.replace(b"\r\n", b""), *got} & {*b"\r\n"}:
        assert theirs(HEAD + wire) == (got, True)


@given(st.binary(max_size=60), PLACES)
def test_random_bytes_never_raise_anything_else(wire, places):
    ours(cut(HEAD + wire, places))


@given(
    st.lists(
        st.sampled_from(
            [b"\r\n", b"\n", b"\r", b"0", b"1", b"3", b"a", b";", b"-", b" "]
        )
    ).map(b"".join),
    PLACES,
)
def test_neither_do_bytes_that_look_like_a_coding(wire, places):
    assert ours(cut(HEAD + wire, places)) == ours([HEAD + wire])


@pytest.mark.parametrize("wire", [b"3\r\nabc\r\n0\r\n", b"3\r\nabc\r\n0\r\nA: b\r\n"])
def test_the_empty_line_at_the_end_may_be_missing(wire):
    assert ours([HEAD + wire]) == (b"abc", True)


def fetch(transport, server):
    guard = new_guard()
    connection = transport.open(HttpRequest(url=server.origin, body=b"{}"), guard)
    try:
        return [
            event.raw for batch in iter(connection.next_batch, None) for event in batch
        ]
    finally:
        connection.close()


BODY = b"9\r\ndata: a\n\n\r\n0\r\n\r\n"
CHUNKED = ("Transfer-Encoding: chunked",)


@pytest.mark.parametrize(
    "pieces", [(BODY,), (BODY[:-4], b"\r\n", b"\r\n"), (BODY[:5], BODY[5:])]
)
def test_a_whole_body_leaves_its_connection_for_re_use(pieces):
    replies = [Reply(pieces=pieces, fields=CHUNKED, gated=False) for _ in range(3)]
    transport = HttpTransport(connections=2, user_agent="test")
    with Lockstep(*replies) as server:
        assert [fetch(transport, server) for _ in range(3)] == [[b"a"]] * 3
        transport.close()
    assert server.connections == 1


@pytest.mark.parametrize("surplus", [b"\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"x"])
def test_bytes_behind_the_body_are_not_read_as_the_next_answer(surplus):
    first = Reply(pieces=(BODY + surplus,), fields=CHUNKED, gated=False)
    second = Reply(pieces=(BODY.replace(b": a", b": b"),), fields=CHUNKED, gated=False)
    transport = HttpTransport(connections=2, user_agent="test")
    with Lockstep(first, second) as server:
        assert fetch(transport, server) == [b"a"]
        assert fetch(transport, server) == [b"b"]
        transport.close()
    assert server.connections == 2


def test_a_broken_coding_keeps_its_events_and_is_a_lost_connection():
    pieces = (b"9\r\ndata: a\n\n\r\nnonsense\r\n",)
    transport = HttpTransport(connections=2, user_agent="test")
    with Lockstep(
        Reply(pieces=pieces, fields=CHUNKED, gated=False),
        Reply(pieces=(BODY,), fields=CHUNKED, gated=False),
    ) as server:
        connection = transport.open(
            HttpRequest(url=server.origin, body=b"{}"), new_guard()
        )
        assert [event.raw for event in connection.next_batch()] == [b"a"]
        with pytest.raises(Fault) as caught:
            connection.next_batch()
        connection.close()
        assert caught.value.kind is FaultKind.LOST
        assert isinstance(caught.value.__cause__, requests.exceptions.RequestException)
        assert fetch(transport, server) == [b"a"]
        transport.close()
    assert server.connections == 2
