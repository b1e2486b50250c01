"""The event stream: the standard's algorithm, under any cutting of its bytes."""

import itertools
import tracemalloc

import pytest
import requests
from hypothesis import example, given, strategies as st
from naive_events import interpret

from holystream.clocks import Deadline, ReadClocks, Timeouts
from holystream.wire.faults import Fault, FaultKind
from holystream.wire.guard import SocketGuard
from holystream.wire.http import MAX_LINE_BYTES, HttpConnection
from holystream.wire.sse import EventParser, LimitError, LineSplitter

MEGABYTE = 1024 * 1024
BOM = b"\xef\xbb\xbf"


class Pieces:
    """What urllib3's response is to a reader: one piece for each read.

    Before each read `look` is called: nothing that came may be withheld by then.
    """

    def __init__(self, pieces, look=lambda: None):
        self._pieces = iter(pieces)
        self._look = look

    def read1(self, amt, *, decode_content):
        self._look()
        assert decode_content
        piece = next(self._pieces, b"")
        assert len(piece) <= amt
        return piece

    def close(self):
        """Nothing is open."""

    def release_conn(self):
        """Nothing is held."""


def connect(raw):
    """Return a connection, as it is, whose body comes from `raw`."""
    response = requests.Response()
    response.raw = raw
    clocks = ReadClocks(Timeouts(), Deadline())
    return HttpConnection(response, SocketGuard(clocks), "request-id")


def read_all(pieces):
    """Read the whole body; return its events as the naive reading gives them."""
    connection = connect(Pieces(pieces))
    events = []
    while (batch := connection.next_batch()) is not None:
        assert batch
        events += map(plain, batch)
    assert connection.next_batch() is None
    connection.close()
    return events


def plain(event):
    return event.data, event.event, event.id, event.retry


def cut(body, places):
    """Cut the body at these places; empty pieces are left out, as a socket does."""
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges) if end > start]


def data(*texts):
    return [(text, "", "", None) for text in texts]


# Each body, and the events it has: data, type, id, retry.
STANDARD = {
    "one event": (b"data: a\n\n", data("a")),
    "two lines": (b"data: a\ndata: b\n\n", data("a\nb")),
    "no blank line, no event": (b"data: a\n", []),
    "bom": (BOM + b"data: a\n\n", data("a")),
    "bom alone in its line": (BOM + b"\ndata: a\n\n", data("a")),
    "bom before a comment": (BOM + b": hi\ndata: a\n\n", data("a")),
    "bom in the second line": (b"\n" + BOM + b"data: a\n\n", []),
    "bom in the second event": (
        b"data: a\n\n" + BOM + b"data: b\n\ndata: c\n\n",
        data("a", "c"),
    ),
    "only one bom": (BOM + BOM + b"data: a\n\n", []),
    "bom in the data": (b"data: " + BOM + b"a\n\n", data("\ufeffa")),
    "cr": (b"data: a\rdata: b\r\rdata: c\r\r", data("a\nb", "c")),
    "crlf": (b"data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n", data("a\nb", "c")),
    "every ending in one body": (
        b"data: a\r\ndata: b\rdata: c\n\r\ndata: d\n\rdata: e\r\n\rdata: f\r\r\n",
        data("a\nb\nc", "d", "e", "f"),
    ),
    "lf cr is two endings": (b"data: a\n\rdata: b\n\r", data("a", "b")),
    "crlf is one ending": (b"data: a\r\ndata: b\r\n\r\n", data("a\nb")),
    "comments": (b": x\ndata: a\n:\n:data: no\ndata: b\n\n", data("a\nb")),
    "only comments": (b": ping\n\n: ping\n\n", []),
    "field without colon": (b"data\n\ndata\ndata\n\n", data("", "\n")),
    "empty data": (b"data:\n\ndata: \n\n", data("", "")),
    "an empty line in the data": (b"data: a\ndata\ndata: b\n\n", data("a\n\nb")),
    "no space": (b"data:a\n\n", data("a")),
    "one space goes": (b"data:  a \n\n", data(" a ")),
    "a tab stays": (b"data:\ta\n\n", data("\ta")),
    "colons in the value": (b"data: a: b\n\n", data("a: b")),
    "unknown fields": (
        b"dat: a\ndatax: b\n data: c\nData: d\n\ndata: e\n\n",
        data("e"),
    ),
    "type": (b"event: add\ndata: a\n\n", [("a", "add", "", None)]),
    "type without a space": (b"event:add\ndata: a\n\n", [("a", "add", "", None)]),
    "the last type counts": (
        b"event: a\nevent: b\ndata: x\n\n",
        [("x", "b", "", None)],
    ),
    "type is reset by dispatch": (
        b"event: add\ndata: a\n\ndata: b\n\n",
        [("a", "add", "", None), ("b", "", "", None)],
    ),
    "type is reset without data": (b"event: add\n\ndata: b\n\n", data("b")),
    "type can be emptied": (b"event: add\nevent\ndata: a\n\n", data("a")),
    "id": (
        b"id: 1\ndata: a\n\ndata: b\n\n",
        [("a", "", "1", None), ("b", "", "1", None)],
    ),
    "id without data is kept": (b"id: 7\n\ndata: a\n\n", [("a", "", "7", None)]),
    "an empty id resets": (
        b"id: 1\ndata: a\n\nid\ndata: b\n\n",
        [("a", "", "1", None), ("b", "", "", None)],
    ),
    "an id with NUL is ignored": (
        b"id: 1\n\nid: 2\x003\ndata: a\n\n",
        [("a", "", "1", None)],
    ),
    "id is text": (
        "id: naïve 🚀\ndata: a\n\n".encode(),
        [("a", "", "naïve 🚀", None)],
    ),
    "retry": (
        b"retry: 1500\ndata: a\n\ndata: b\n\n",
        [("a", "", "", 1500), *data("b")],
    ),
    "retry of zeros": (b"retry: 007\ndata: a\n\n", [("a", "", "", 7)]),
    "retry is digits only": (
        b"retry: 1.5\nretry: -1\nretry: 1e3\nretry: 1 \nretry:\nretry: +5\nretry: 1_0\n"
        + "retry: ٣\n".encode()
        + b"data: a\n\n",
        data("a"),
    ),
    "separators of unicode are text": (
        "data: a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei\n\n".encode(),
        data("a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\x1dh\x1ei"),
    ),
    "invalid utf-8": (
        b"data: a\xff\xc3\ndata: \xe2\x82\n\n",
        data("a\ufffd\ufffd\n\ufffd"),
    ),
    "invalid utf-8 in names and types": (
        b"d\xffata: a\nevent: \xf0\x9f\nid: \xff\ndata: b\n\n",
        [("b", "\ufffd", "\ufffd", None)],
    ),
    "NUL in the data": (b"data: a\0b\n\n", data("a\0b")),
    "many blank lines": (b"\n\n\n\ndata: a\n\n\n\n\n", data("a")),
    "nothing": (b"", []),
    # The deviation: at the end of the body, whole JSON or [DONE] counts.
    "an object ends": (b'data: {"a":1}\n', data('{"a":1}')),
    "an object ends without a line end": (b'data: {"a":1}', data('{"a":1}')),
    "an array ends": (b"data:[1]", data("[1]")),
    "a string ends": (b'data: "a"\r\n', data('"a"')),
    "[DONE] ends": (b"data: a\n\ndata: [DONE]", data("a", "[DONE]")),
    "[DONE] ends after a CR": (b"data: [DONE]\r", data("[DONE]")),
    "it counts with all that is known of it": (
        b"event: x\nid: 1\nretry: 2\ndata: {}\n",
        [("{}", "x", "1", 2)],
    ),
    "of several lines": (b'data: {"a":\ndata: 1}', data('{"a":\n1}')),
    "behind a bom": (BOM + b"data: {}", data("{}")),
    "a bom counts once there too": (BOM + BOM + b"data: {}", []),
    "JSON that only Python writes": (b'data: {"a":NaN}\n', data('{"a":NaN}')),
    "half a surrogate pair": (b'data: "\\ud83d"\n', data('"\\ud83d"')),
    "invalid utf-8 in a string": (b'data: "\xff"\n', data('"\ufffd"')),
    "a number may go on": (b"data: 12", []),
    "true, false and null too": (b"data: true\n", []),
    "text may go on": (b"data: hello\n", []),
    "half an object": (b'data: {"a":1', []),
    "half a string": (b'data: "a', []),
    "an object and more": (b"data: {} {", []),
    "half a line more": (b"data: {}\ndata: {", []),
    "half a [DONE]": (b"data: [DONE", []),
    "a half line of another field": (b"id: 1", []),
    "a half name": (b"data: a\n\ndat", data("a")),
    "too deep": (b"data: " + b"[" * 100_000 + b"]" * 100_000, []),
}


@pytest.mark.parametrize("name", STANDARD)
def test_the_standard(name):
    body, events = STANDARD[name]
    assert read_all([body[at : at + 65536] for at in range(0, len(body), 65536)]) == (
        events
    )
    assert interpret(body, at_end=True).events == events, "the naive reading is wrong"


@pytest.mark.parametrize("name", [name for name in STANDARD if name != "too deep"])
def test_the_standard_cut_anywhere(name):
    body, events = STANDARD[name]
    assert read_all([body[at : at + 1] for at in range(len(body))]) == events
    for at in range(1, len(body)):
        assert read_all([body[:at], body[at:]]) == events


FIELD = st.sampled_from(["data", "event", "id", "retry", "", "dat", "Data", "x"])
VALUE = st.one_of(
    st.sampled_from(
        ["", " ", "a", "  a", "1", "007", "9" * 18, "9" * 19, "٣", "{}", '{"a":', "1}"]
    ),
    st.sampled_from(["[DONE]", '"', "[", "]", "\0", "a\0", "🚀", "a:b", ":", "\ufeff"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8),
)
LINE = st.one_of(
    st.just(""),
    st.builds(
        lambda name, colon, value: name + colon + value,
        FIELD,
        st.sampled_from([": ", ":"]),
        VALUE,
    ),
    FIELD,
    VALUE,
)
ENDING = st.sampled_from(["\n", "\r", "\r\n"])
STREAMS = st.builds(
    lambda bom, lines, rest: (
        bom + "".join(line + ending for line, ending in lines).encode() + rest.encode()
    ),
    st.sampled_from([b"", b"", BOM]),
    st.lists(st.tuples(LINE, ENDING), max_size=12),
    st.one_of(st.just(""), LINE),
)
WORDS = [
    "data",
    "data:",
    "id:",
    "event:",
    "retry:",
    ":",
    "1",
    "[DONE]",
    "{",
    "}",
    '"',
    "[",
    "\u2028",
    "\x85",
    "🚀",
    "\ufeff",
]
NOISE = st.lists(
    st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b" ", b"\0"])
    | st.sampled_from([word.encode() for word in WORDS])
    | st.sampled_from([b"\xff", b"\xc3", b"\xe2\x82"])
    | st.binary(max_size=3),
    max_size=30,
).map(b"".join)
PLACES = st.lists(st.integers(0, 400), max_size=12)


@given(STREAMS | NOISE, PLACES)
@example(b"data: a\r\n\r\n", [8, 9, 10])
def test_any_cutting_agrees_with_the_naive_reading(body, places):
    events = interpret(body, at_end=True).events
    assert read_all(cut(body, places)) == events
    assert read_all([body[at : at + 1] for at in range(len(body))]) == events


@given(STREAMS | NOISE, PLACES)
def test_no_event_is_withheld(body, places):
    """Before each read, all that the bytes so far make up was handed over."""
    pieces = cut(body, places)
    events = []
    reads = 0

    def look():
        nonlocal reads
        came = b"".join(pieces[:reads])
        assert events == interpret(came).events
        reads += 1

    connection = connect(Pieces(pieces, look))
    while (batch := connection.next_batch()) is not None:
        events += map(plain, batch)
    connection.close()
    assert reads == len(pieces) + 1


@given(STREAMS | NOISE, st.sampled_from(["", "seed"]))
def test_what_a_reconnect_needs(body, seed):
    splitter, parser = LineSplitter(10_000), EventParser(10_000, last_event_id=seed)
    parser.feed(splitter.feed(body).split(b"\n")[:-1])
    naive = interpret(body, last_event_id=seed)
    assert parser.last_event_id == naive.last_event_id
    assert parser.reconnection_time == naive.reconnection_time


def test_the_id_is_committed_at_the_blank_line():
    parser = EventParser(1000)
    parser.feed([b"id: 1"])
    assert parser.last_event_id == ""
    parser.feed([b""])
    assert parser.last_event_id == "1"
    assert parser.feed([b"data: a", b""])[0].id == "1"


def test_retry_counts_at_once_and_without_data():
    parser = EventParser(1000)
    parser.feed([b"retry: 250"])
    assert parser.reconnection_time == 250
    assert parser.feed([b""]) == []
    parser.feed([b"retry: soon", b""])
    assert parser.reconnection_time == 250


def test_one_read_is_one_batch():
    connection = connect(Pieces([b"data: a\n\ndata: b\n\nda", b"ta: c\n\n"]))
    batches = [connection.next_batch() for _ in range(3)]
    connection.close()
    assert [batch and [event.raw for event in batch] for batch in batches] == [
        [b"a", b"b"],
        [b"c"],
        None,
    ]


def measured(pieces):
    """Read a body of one event; return it, the bytes allocated and the most held.

    Each read's share is the peak since the read before it: whoever copies what waits
    allocates it anew, so that copying shows however fast the machine is.
    """
    allocated = most = before = 0

    def look():
        nonlocal allocated, most, before
        now, peak = tracemalloc.get_traced_memory()
        # A read has its small change: frames, numbers, tuples.
        allocated += max(0, peak - before - 2000)
        most = max(most, peak)
        tracemalloc.reset_peak()
        before = now

    connection = connect(Pieces(pieces, look))
    tracemalloc.start()
    try:
        batch = connection.next_batch()
        look()
    finally:
        tracemalloc.stop()
    connection.close()
    return batch[0].raw, allocated, most


def sliced(body, size):
    # Made beforehand: what the reader allocates is measured, not what we do.
    return [body[at : at + size] for at in range(0, len(body), size)]


@pytest.mark.parametrize(
    ("size", "length"),
    [
        (1, MEGABYTE // 8),
        (2, MEGABYTE // 8),
        (100, MEGABYTE),
        *((size, MAX_LINE_BYTES - 100) for size in (512, 4096, 65536)),
    ],
)
def test_a_long_line_is_copied_a_few_times_whatever_the_pieces(size, length):
    line = b"data: " + b"x" * length
    received, allocated, most = measured(sliced(line + b"\n\n", size))
    assert received == line[6:]
    # Joined, cut into lines, its name taken off: not once for each piece.
    room = 1.25 * length + 200_000
    assert allocated < 5 * room
    assert most < 4 * room


@pytest.mark.parametrize("size", [2, 1000])
def test_a_line_that_waits_takes_little_more_than_its_bytes(size):
    line = b"x" * (MEGABYTE // 4)
    splitter = LineSplitter(MEGABYTE)
    tracemalloc.start()
    try:
        # Each piece lives only as long as it is fed, but for what is kept of it.
        for at in range(0, len(line), size):
            splitter.feed(line[at : at + size])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert splitter.rest == line
    assert held < 1.25 * len(line) + 50_000


def too_large(body):
    """Read a body that exceeds a limit; return the events before it."""
    connection = connect(Pieces(sliced(body, 65536)))
    events = []
    with pytest.raises(Fault) as caught:
        events.extend(
            event.raw for batch in iter(connection.next_batch, None) for event in batch
        )
    connection.close()
    assert caught.value.kind is FaultKind.TOO_LARGE
    return events


FIRST = b"data: a\n\ndata: b\n\n"


def test_a_line_over_the_limit_ends_the_stream_and_keeps_what_came():
    endless = b"data: " + b"x" * MAX_LINE_BYTES
    assert too_large(FIRST + endless) == [b"a", b"b"]
    assert too_large(FIRST + endless + b"\n\n" + FIRST) == [b"a", b"b"]


def test_a_comment_over_the_limit_too():
    assert too_large(b": " + b"x" * MAX_LINE_BYTES + b"\n\n" + FIRST) == []


def test_an_event_over_the_limit_ends_the_stream_and_keeps_what_came():
    line = b"data: " + b"x" * (MEGABYTE - 1) + b"\n"
    assert too_large(FIRST + line * 9 + b"\n" + FIRST) == [b"a", b"b"]
    # Without an end, too: what waits is bounded.
    assert too_large(FIRST + line * 9) == [b"a", b"b"]


def test_what_is_as_large_as_the_limit_is_whole():
    line = b"data: " + b"x" * (MAX_LINE_BYTES - 6)
    assert read_all(sliced(line + b"\n\n", 65536)) == data(line[6:].decode())
    text = b"x" * (MEGABYTE - 1)
    body = (b"data: " + text + b"\n") * 8 + b"\n"
    assert read_all(sliced(body, 65536)) == data(b"\n".join([text] * 8).decode())


@given(
    st.lists(st.sampled_from([b"", b"x", b"yy"]), min_size=2, max_size=5),
    st.sampled_from([b"data:", b"data: "]),
    st.integers(-2, 2),
)
def test_the_parser_bounds_the_joined_data_exactly(texts, name, spare):
    joined = b"\n".join(texts)
    lines = [name + text for text in texts]
    limit = max(2, len(joined) + spare)
    parser = EventParser(limit)
    events = parser.feed([b"data: a", b"", *lines, b"", b"data: b", b""])
    if len(joined) > limit:
        assert parser.exceeded
        assert [event.raw for event in events] == [b"a"]
    else:
        assert not parser.exceeded
        assert [event.raw for event in events] == [b"a", joined, b"b"]


@given(
    st.lists(st.text("x\n", max_size=40).map(str.encode), max_size=20),
    st.integers(40, 60),
)
def test_the_splitter_bounds_each_line_exactly(pieces, limit):
    """With reads no larger than the limit, which is how they come."""
    splitter = LineSplitter(limit)
    whole = b"".join(pieces)
    got = b""
    raised = False
    try:
        for piece in pieces:
            got += splitter.feed(piece)
    except LimitError:
        raised = True
    lines = whole.split(b"\n")
    assert raised == any(len(line) > limit for line in lines)
    assert whole.startswith(got)
    if not raised:
        assert got + splitter.rest == whole
    else:
        long = next(place for place, line in enumerate(lines) if len(line) > limit)
        before = b"".join(line + b"\n" for line in lines[:long])
        assert got == before
