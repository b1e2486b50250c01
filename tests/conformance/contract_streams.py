"""What LaunchDarkly's SSE contract tests send, and expect.

https://github.com/launchdarkly/sse-contract-tests, directory ssetests: basic parsing,
byte-order marks, comments, line feeds and payload sizes. Its cases that differ in how
the same bytes are cut are one here, because every case is cut at every place.
"""

from stream_case import BOM, case


def _line_feeds(name, end):
    source = f"linefeeds {name}"
    lines = [
        ("one-line event", b"data: event 1||", ["event 1"]),
        (
            "one-line and two-line event",
            b"data: event 1||data: event 2 line 1|data: event 2 line 2||",
            ["event 1", "event 2 line 1\nevent 2 line 2"],
        ),
        ("empty first", b"data:|data: line2|data: line3||", ["\nline2\nline3"]),
        ("empty middle", b"data: line1|data:|data: line3||", ["line1\n\nline3"]),
        ("1 extra", b"data: event 1|||data: event 2||", ["event 1", "event 2"]),
        ("2 extra", b"data: event 1||||data: event 2||", ["event 1", "event 2"]),
    ]
    return [
        case(f"{source}: {what}", body.replace(b"|", end), *texts)
        for what, body, texts in lines
    ]


_SIZES = (
    *(1, 128, 512, 1023, 1024, 1025, 2048, 3999, 4094, 4096, 4098, 6144),
    *(8189, 8192, 8195, 12288, 16384, 32768, 65536, 262144, 1048576),
)
_MANY = [f"message {number}" for number in range(100)]

CONTRACT = [
    case("basic: one line", b"data: Hello\n\n", "Hello"),
    case("basic: two messages", b"data: Hello\n\ndata: World\n\n", "Hello", "World"),
    case("basic: two lines", b"data: Hello\ndata:World\n\n", "Hello\nWorld"),
    case("basic: empty data", b"data:\n\n", ""),
    case("basic: type", b"event: greeting\ndata: Hello\n\n", ("Hello", "greeting")),
    case("basic: id", b"id: abc\ndata: Hello\n\n", ("Hello", "", "abc"), last_id="abc"),
    case(
        "basic: type and id",
        b"event: greeting\nid: abc\ndata: Hello\n\n",
        ("Hello", "greeting", "abc"),
        last_id="abc",
    ),
    case("basic: id with a null", b"id: a\0bc\ndata: Hello\n\n", "Hello"),
    case(
        "basic: id persists",
        b"id: abc\ndata: first\n\ndata: second\n\n",
        ("first", "", "abc"),
        ("second", "", "abc"),
        last_id="abc",
    ),
    case(
        "basic: id overridden by an empty value",
        b"id: abc\ndata: first\n\nid: \ndata: second\n\n",
        ("first", "", "abc"),
        "second",
    ),
    case(
        "basic: reverse order",
        b"data: Hello\nid: abc\nevent: greeting\n\n",
        ("Hello", "greeting", "abc"),
        last_id="abc",
    ),
    case(
        "basic: unknown field",
        b"event: greeting\ncolor: blue\ndata: Hello\n\n",
        ("Hello", "greeting"),
    ),
    case("basic: no space", b"event:greeting\ndata:Hello\n\n", ("Hello", "greeting")),
    case(
        "basic: extra space",
        b"event:  greeting\ndata:  Hello\n\n",
        (" Hello", " greeting"),
    ),
    case("basic: no colon", b"data\n\ndata\ndata\n\n", "", "\n"),
    case("basic: multi-byte", "data: €豆腐\n\n".encode(), "€豆腐"),
    case(
        "basic: many messages",
        "".join(f"data: {text}\n\n" for text in _MANY).encode(),
        *_MANY,
    ),
    case(
        "BOM before type and id",
        BOM + b"event: greeting\nid: abc\ndata: Hello\n\n",
        ("Hello", "greeting", "abc"),
        last_id="abc",
    ),
    case(
        "BOM before messages",
        BOM + b"data: First\n\ndata: Second\n\n",
        "First",
        "Second",
    ),
    case(
        "BOM in later data",
        b"data: First\n\ndata: " + BOM + b"Second\n\n",
        "First",
        "\ufeffSecond",
    ),
    case("BOM twice", BOM + b"data: " + BOM + b"Hello\n\n", "\ufeffHello"),
    case("BOM before lines", BOM + b"data: Line1\ndata: Line2\n\n", "Line1\nLine2"),
    case(
        "BOM before a comment",
        BOM + b":comment\ndata: Hello\n\n",
        "Hello",
        comments=("comment",),
    ),
    case("BOM before empty data", BOM + b"data:\n\n", ""),
    case("comment: single", b":Hello\n", comments=("Hello",)),
    case("comment: two", b":Hello\n:World\n", comments=("Hello", "World")),
    case("comment: before", b":Hello\ndata: Hello\n\n", "Hello", comments=("Hello",)),
    case("comment: after", b"data: Hello\n\n:Hello\n", "Hello", comments=("Hello",)),
    *_line_feeds("LF", b"\n"),
    *_line_feeds("CRLF", b"\r\n"),
    *_line_feeds("CR", b"\r"),
    case(
        "linefeeds: CRLF where CR is end of 1 chunk",
        b"data: Hello\r\ndata: World\r\n\r\ndata: OK\r\n\r\n",
        "Hello\nWorld",
        "OK",
    ),
    *(
        case(f"payload of {size} bytes", b"data: %s\n\n" % (b"x" * size), "x" * size)
        for size in _SIZES
    ),
]
