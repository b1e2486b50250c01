"""What the test suites of other clients' packages send beside the two big suites.

npm: eventsource-parser, eventsource and eventsource-client. PyPI: httpx-sse,
sseclient-py, requests-sse and launchdarkly-eventsource. A case of another suite is
not repeated.
"""

from stream_case import BOM, case

_LONG = b"x" * 2049
_JSON = (
    b"event: test event\r\ndata: {\r\n"
    b'data:     "terribly_split": "json_objects in SSE",\r\n'
    b'data:     "which_should_probably": "be on a single line",\r\n'
    b'data:     "but_oh_well": 1\r\ndata: }\r\n\r\n'
)
_JSON_TEXT = (
    '{\n    "terribly_split": "json_objects in SSE",\n'
    '    "which_should_probably": "be on a single line",\n    "but_oh_well": 1\n}'
)

PACKAGES = [
    case(
        "eventsource-parser: identified with retry",
        b"event: tick\nid: 1337\nretry: 50\ndata: 1337\n\n"
        b"event: tick\nid: 1338\nretry: 50\ndata: 1338\n\n",
        ("1337", "tick", "1337"),
        ("1338", "tick", "1338"),
        last_id="1338",
        retry=50,
    ),
    case(
        "eventsource-parser: heartbeats",
        ": ♥\ndata: A\n\n: ♥\ndata: B\n\nevent: done\ndata: ✔\n\n".encode(),
        "A",
        "B",
        ("✔", "done"),
        comments=("♥", "♥"),
    ),
    case(
        "eventsource-parser: lines and a type",
        b"event: stock\ndata: YHOO\ndata: +2\ndata: 10\n\n"
        b"event: stock\ndata: GOOG\ndata: -8\ndata: 1881\n\n",
        ("YHOO\n+2\n10", "stock"),
        ("GOOG\n-8\n1881", "stock"),
    ),
    case(
        "eventsource-parser: empty lines first",
        "\n\n\n\nid: 1\ndata: 我現在都看實況不玩遊戲\n\n".encode(),
        ("我現在都看實況不玩遊戲", "", "1"),
        last_id="1",
    ),
    case(
        "eventsource-parser: BOM at two places",
        BOM + b"data: bomful 1\n\n" + BOM + b"data: bomful 2\n\ndata: bomless 3\n\n",
        "bomful 1",
        "bomless 3",
    ),
    case(
        "eventsource-parser: CR",
        b"data: dog\rdata: bark\r\rdata: cat\r\r",
        "dog\nbark",
        "cat",
    ),
    case(
        "eventsource-parser: odd comments",
        b": Hello\n\n%s\ndata: First\n\n" % (b":" * 300),
        "First",
        comments=("Hello", ":" * 299),
    ),
    case(
        "eventsource-parser: odder comments",
        b"data:1\r\r:\0\n:\r\ndata:2\n\n:%s\rdata:3\n\n:data:fail\r:%s\ndata:4\n\ndata:5"
        % (_LONG, _LONG),
        *"1234",
        comments=("\0", "", _LONG.decode(), "data:fail", _LONG.decode()),
    ),
    case(
        "eventsource-parser: empty event field",
        "event:\ndata: Hello 1\n\nevent:\n\nevent: done\ndata: ✔\n\n".encode(),
        "Hello 1",
        ("✔", "done"),
    ),
    case(
        "eventsource-parser: empty retry field",
        (
            "id: 1\nretry: 500\ndata: 🥌\n\n"
            "id:2\nretry:\ndata:🧹\n\nid: 3\ndata: ✅\n\n"
        ).encode(),
        ("🥌", "", "1"),
        ("🧹", "", "2"),
        ("✅", "", "3"),
        last_id="3",
        retry=500,
    ),
    case(
        "eventsource-parser: CRLF between chunks",
        b"data: A\r\ndata: B\r\ndata: C\r\n\r\n",
        "A\nB\nC",
    ),
    case(
        "eventsource-parser: an id with NUL leaves the one before",
        b"id: 123\nid: bad\0id\ndata: hello\n\n",
        ("hello", "", "123"),
        last_id="123",
    ),
    case("eventsource-parser: id without data", b"id: 42\n\n", last_id="42"),
    case("eventsource-parser: id without a blank line", b"id: 42\n"),
    case("eventsource-parser: id without data, CR", b"id: 42\r\r", last_id="42"),
    case("eventsource-parser: id without data, CRLF", b"id: 42\r\n\r\n", last_id="42"),
    case(
        "eventsource-parser: a bad and an empty id without data",
        b"id: 42\n\nid: bad\0id\n\nid:\n\n",
    ),
    case(
        "eventsource-parser: retry alone, and a bad one",
        b"\nretry: 500\n\ndata: first\n\nretry: 50x\n\ndata: second\n\n",
        "first",
        "second",
        retry=500,
    ),
    case("eventsource-parser: not an event stream", b'{"error":"Internal"}\nWell\n'),
    case("eventsource-parser: datax", b"datax: no\ndata: ok\n\n", "ok"),
    case(
        "eventsource-parser: a CR, then CRLF",
        b"data: one\r\r\ndata: two\n\n",
        "one",
        "two",
    ),
    case(
        "eventsource-parser: a comment between lines",
        b"data: one\n:ignored\r\ndata: two\n\n",
        "one\ntwo",
        comments=("ignored",),
    ),
    case(
        "eventsource-parser: a bare field",
        b"data: one\ndata\r\ndata: two\n\n",
        "one\n\ntwo",
    ),
    case(
        "eventsource: split inside a character",
        "data: Aslak Hellesøy\n\n".encode(),
        "Aslak Hellesøy",
    ),
    case(
        "eventsource: an empty event field alone", b"event:\n\ndata: Hello\n\n", "Hello"
    ),
    case("eventsource: a dummy comment unended", b"data: Hello\n\n:", "Hello"),
    case(
        "eventsource: an empty comment in a block of its own",
        b"data: Hello\n\n:\n\ndata: World\n\n",
        "Hello",
        "World",
        comments=("",),
    ),
    case(
        "httpx-sse: the standard's second example",
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n"
        b"data:  third event\n\n",
        ("first event", "", "1"),
        "second event",
        " third event",
        comments=("test stream",),
    ),
    case(
        "httpx-sse: the standard's third example",
        b"data\n\ndata\ndata\n\ndata:\n",
        "",
        "\n",
    ),
    case(
        "httpx-sse: the standard's fourth example",
        b"data:test\n\ndata: test\n\n",
        "test",
        "test",
    ),
    # httpx-sse itself makes an event of it; the standard does not.
    case("httpx-sse: retry alone", b"retry: 10000\n\n", retry=10000),
    case("httpx-sse: a bad retry alone", b"retry: 1667a\n\n"),
    case("httpx-sse: an unknown field alone", b"something: ignore\n\n"),
    case(
        "httpx-sse: U+2028 ends no line",
        'event: message\ndata: {"text":"Hello\u2028World"}\n\n'.encode(),
        ('{"text":"Hello\u2028World"}', "message"),
    ),
    case("sseclient-py: a type without data", b"event: greeting\n\n"),
    case(
        "sseclient-py: types",
        b"event: greeting\ndata: Hello\n\nevent: salutation\ndata: World\n\n",
        ("Hello", "greeting"),
        ("World", "salutation"),
    ),
    case(
        "sseclient-py: spaces at the end",
        b"event: greeting \ndata: Hello  \n\n",
        ("Hello  ", "greeting "),
    ),
    case(
        "sseclient-py: what Python calls line ends",
        "data: Hello\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\n\n".encode(),
        "Hello\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029",
    ),
    case("sseclient-py: JSON over lines", _JSON, (_JSON_TEXT, "test event")),
    case("requests-sse: retry -1", b"retry: 5\nretry: -1\n", retry=5),
    case("requests-sse: retry +5", b"retry: 7\nretry: +5\n", retry=7),
    case(
        "requests-sse: retry of other digits", "retry: 7\nretry: ٣\n".encode(), retry=7
    ),
    case(
        "launchdarkly-eventsource: mixed ends",
        b"data: 1\ndata: 2\r\ndata: 3\r\ndata: 4\r\r\ndata: last\r\n",
        "1\n2\n3\n4",
    ),
    case(
        "launchdarkly-eventsource: retry without a blank line",
        b"retry: 1000\n",
        retry=1000,
    ),
]
