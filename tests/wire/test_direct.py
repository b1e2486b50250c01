"""Read past urllib3, a body is what urllib3 reads of it, and ends the same way."""

import pytest
import urllib3
from hypothesis import given, settings, strategies as st
from test_chunked import Wire, cut, new_guard

from holystream.wire.chunked import BulkHTTPResponse
from holystream.wire.direct import reader_of
from holystream.wire.faults import LIBRARY_ERRORS

PAYLOAD = b"data: one\n\ndata: two, which is longer\n\n"


def chunked(payload):
    sizes = (11, 11, len(payload) - 22)
    pieces, start = [], 0
    for size in sizes:
        pieces.append(b"%x\r\n%b\r\n" % (size, payload[start : start + size]))
        start += size
    return b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(pieces) + b"0\r\n\r\n"


WIRES = {
    "chunked": chunked(PAYLOAD),
    "one chunk": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
    % (len(PAYLOAD), PAYLOAD),
    "length": b"Content-Length: %d\r\n\r\n%b" % (len(PAYLOAD), PAYLOAD),
    "close": b"\r\n" + PAYLOAD,
    "broken": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n",
}


class Pool:
    """Where urllib3 gives connections back."""

    def __init__(self):
        self.back = 0

    def _put_conn(self, _connection):
        self.back += 1


class Connection:
    """What urllib3 closes where a body broke off."""

    closed = False

    def close(self):
        self.closed = True


def read(wire, places, make):
    """Read a body; return payload, error, connections given back, and closed."""
    response = BulkHTTPResponse(
        Wire(cut(b"HTTP/1.1 200 OK\r\n" + wire, places)), guard=new_guard()
    )
    response.begin()
    pool, connection = Pool(), Connection()
    raw = urllib3.HTTPResponse(
        body=response,
        headers=dict(response.getheaders()),
        status=200,
        preload_content=False,
        original_response=response,
        pool=pool,
        connection=connection,
    )
    reading = make(raw, response)
    payload, error = b"", False
    try:
        while data := reading():
            payload += data
            # Not only at the end: whoever stops at [DONE] leaves the rest to it.
            assert pool.back == int(response.isclosed())
        assert reading() == b""
    except LIBRARY_ERRORS:
        error = True
    return payload, error, pool.back, connection.closed


def through_urllib3(raw, _response):
    return lambda: raw.read1(65536, decode_content=True)


def past_it(raw, response):
    raw.bulk = response
    reading = reader_of(raw)
    assert reading.__self__ is not raw
    return reading


@pytest.mark.parametrize("framing", WIRES)
@given(st.data())
@settings(deadline=None)
def test_cut_off_anywhere_it_reads_what_urllib3_reads(framing, data):
    wire = WIRES[framing]
    head = wire.index(b"\r\n\r\n") + 4 if framing != "close" else 2
    wire = wire[: data.draw(st.integers(head, len(wire)))]
    places = data.draw(st.lists(st.integers(0, 300), max_size=6))
    theirs = read(wire, places, through_urllib3)
    assert read(wire, places, past_it) == theirs


def test_a_body_with_a_content_coding_is_left_to_urllib3():
    raw = urllib3.HTTPResponse(
        body=b"", headers={"Content-Encoding": "gzip"}, preload_content=False
    )
    raw.bulk = object()
    assert reader_of(raw).func == raw.read1
