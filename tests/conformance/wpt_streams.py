r"""What the eventsource tests of web-platform-tests send, and expect.

https://github.com/web-platform-tests/wpt, directory eventsource. Where its message.py
serves a message it adds "\n\n" unless told otherwise, and always another "\n".
"""

from stream_case import BOM, case

_LONG = b"x" * 2048


def _message(text, newline=b"\n\n"):
    return text + newline + b"\n"


_FIELDS = (
    b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\r"
    b"data:\r\n data:32\ndata:4\n"
)
_COMMENTS = b"data:1\r:\0\n:\r\ndata:2\n:%s\rdata:3\n:data:fail\r:%s\ndata:4\n" % (
    _LONG,
    _LONG,
)
_LONG_TEXT = _LONG.decode()
_LINES = (
    b"data:msg\ndata: msg\n\n:\nfalsefield:msg\n\nfalsefield:msg\nData:data\n\n"
    b"data\n\ndata:end\n\n"
)

WPT = [
    case("event-data", _LINES, "msg\nmsg", "", "end", comments=("",)),
    case("eventsource-onmessage", _message(b"data: data"), "data"),
    case(
        "format-bom",
        _message(BOM + b"data:1\n\n" + BOM + b"data:2\n\ndata:3"),
        "1",
        "3",
    ),
    case("format-bom-2", _message(BOM + BOM + b"data:1\n\ndata:2\n\ndata:3"), "2", "3"),
    case(
        "format-comments",
        _message(_COMMENTS, b""),
        "1\n2\n3\n4",
        comments=("\0", "", _LONG_TEXT, "data:fail", _LONG_TEXT),
    ),
    case(
        "format-data-before-final-empty-line",
        _message(b"retry:1000\ndata:test1\n\nid:test\ndata:test2", b""),
        "test1",
        retry=1000,
    ),
    case(
        "format-field-data",
        _message(b"data:\n\ndata\ndata\n\ndata:test"),
        "",
        "\n",
        "test",
    ),
    case(
        "format-field-event",
        _message(b"event:test\ndata:x\n\ndata:x"),
        ("x", "test"),
        "x",
    ),
    case("format-field-event-empty", _message(b"event: \ndata:data"), "data"),
    case(
        "format-field-id, format-field-id-2",
        "id: …\nretry: 200\ndata: hello\n\n".encode(),
        ("hello", "", "…"),
        last_id="…",
        retry=200,
    ),
    case(
        "format-field-id-3 persists",
        b"id: 1\ndata: 1\n\ndata:2\n\n",
        ("1", "", "1"),
        ("2", "", "1"),
        last_id="1",
    ),
    case(
        "format-field-id-3 changes and persists",
        b"id: 1\ndata: 1\n\nid: 2\ndata:2\n\ndata:3\n\n",
        ("1", "", "1"),
        ("2", "", "2"),
        ("3", "", "2"),
        last_id="2",
    ),
    case(
        "format-field-id-3 resets",
        b"id: 1\ndata: 1\n\nid:\ndata:2\n\ndata:3\n\n",
        ("1", "", "1"),
        "2",
        "3",
    ),
    case(
        "format-field-id-3 resets without a colon",
        b"id: 1\ndata: 1\n\nid\ndata:2\n\ndata:3\n\n",
        ("1", "", "1"),
        "2",
        "3",
    ),
    *(
        case(
            f"format-field-id-null {place}",
            b"id: " + place + b"\nretry: 200\ndata: hello\n\n",
            "hello",
            retry=200,
        )
        for place in (b"\0\0", b"x\0", b"\0x", b"x\0x", b" \0")
    ),
    case("format-field-parsing", _message(_FIELDS, b""), "\0\n 2\n1\n3\n\n4"),
    case("format-field-retry", _message(b"retry:03000\ndata:x"), "x", retry=3000),
    case(
        "format-field-retry-bogus",
        _message(b"retry:3000\nretry:1000x\ndata:x"),
        "x",
        retry=3000,
    ),
    case(
        "format-field-retry-bogus-2",
        _message(b"retry:1000\nretry:5000x\ndata:x"),
        "x",
        retry=1000,
    ),
    case("format-field-retry-empty", _message(b"retry\ndata:test"), "test"),
    case(
        "format-field-unknown",
        _message(
            b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\n"
            b"data:test"
        ),
        "test\n\ntest",
        comments=("thisisacommentyay",),
    ),
    case(
        "format-leading-space",
        _message(b"data:\ttest\rdata: \ndata:test"),
        "\ttest\n\ntest",
    ),
    case(
        "format-newlines",
        _message(b"data:test\r\ndata\ndata:test\r\n\r", b""),
        "test\n\ntest",
    ),
    case("format-null-character", _message(b"data:\0\n\n\n\n"), "\0"),
    case("format-utf-8", _message("data:ok…".encode()), "ok…"),
    case("resources/status-reconnect 200", b"retry: 2\n", retry=2),
    case(
        "resources/status-reconnect 200 ok_first",
        b"retry: 2\ndata: ok\n\n",
        "ok",
        retry=2,
    ),
    case(
        "submissions field-name-event",
        b"event: testevent\ndata: x\n\n",
        ("x", "testevent"),
    ),
    case(
        "cross-origin-preflight long id",
        b"id: %s\nretry: 200\ndata: long\n\n" % (b"a" * 255),
        ("long", "", "a" * 255),
        last_id="a" * 255,
        retry=200,
    ),
    case(
        "cross-origin-preflight unsafe id",
        b"id: e5p3n<3k0k0s\nretry: 200\ndata: unsafe\n\n",
        ("unsafe", "", "e5p3n<3k0k0s"),
        last_id="e5p3n<3k0k0s",
        retry=200,
    ),
    case("from-readable-stream empty", b""),
    case("from-readable-stream lines", b"data: hello\ndata: world\n\n", "hello\nworld"),
    case(
        "from-readable-stream events",
        b"data: first\n\ndata: second\n\n",
        "first",
        "second",
    ),
    case(
        "from-readable-stream type",
        b"event: custom\ndata: hello\n\n",
        ("hello", "custom"),
    ),
    case(
        "from-readable-stream comment",
        b": this is a comment\ndata: hello\n\n",
        "hello",
        comments=("this is a comment",),
    ),
    case(
        "from-readable-stream id",
        b"id: 42\ndata: hello\n\n",
        ("hello", "", "42"),
        last_id="42",
    ),
    case(
        "from-readable-stream retry",
        b"retry: 5000\ndata: hello\n\n",
        "hello",
        retry=5000,
    ),
    case("from-readable-stream retry bogus", b"retry: bogus\ndata: hello\n\n", "hello"),
    case(
        "from-readable-stream newlines",
        b"data: cr\r\rdata: lf\n\ndata: crlf\r\n\r\n",
        "cr",
        "lf",
        "crlf",
    ),
    case("from-readable-stream BOM", BOM + b"data: hello\n\n", "hello"),
]
