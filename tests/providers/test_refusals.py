"""Error bodies of every dialect, read into one record."""

import json

import pytest
from hypothesis import given, strategies as st

from holystream.providers.refusals import read_refusal
from holystream.wire.faults import Answer, Refusal


def read(body, status=200, **headers):
    if not isinstance(body, bytes | str):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode("utf-8", "surrogatepass")
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_refusal(Answer(status=status, headers=headers, body=body))


OPENROUTER = {
    "error": {
        "code": 502,
        "message": "Provider returned error",
        "metadata": {"provider_name": "Chutes", "raw": '{"detail":"busy"}'},
    },
    "user_id": "u",
}
GEMINI = {
    "error": {
        "code": 429,
        "message": "Resource exhausted",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12s"},
        ],
    }
}
QUOTA = "You exceeded your current quota"

CASES = {
    "OpenAI": (
        {
            "error": {
                "message": QUOTA,
                "type": "insufficient_quota",
                "param": None,
                "code": "insufficient_quota",
            }
        },
        {"message": QUOTA, "code": "insufficient_quota", "type": "insufficient_quota"},
    ),
    "Anthropic": (
        {
            "type": "error",
            "error": {"type": "overloaded_error", "message": "Overloaded"},
            "request_id": "req_1",
        },
        {"message": "Overloaded", "type": "overloaded_error"},
    ),
    "Gemini": (
        GEMINI,
        {
            "message": "Resource exhausted",
            "status": 429,
            "code": "429",
            "type": "RESOURCE_EXHAUSTED",
            "retry_after": 12.0,
        },
    ),
    "Gemini in a list": (
        [GEMINI],
        {
            "message": "Resource exhausted",
            "status": 429,
            "code": "429",
            "type": "RESOURCE_EXHAUSTED",
            "retry_after": 12.0,
        },
    ),
    "OpenRouter": (
        OPENROUTER,
        {
            "message": 'Provider returned error: Chutes: {"detail":"busy"}',
            "status": 502,
            "code": "502",
        },
    ),
    "OpenRouter, only the provider's words": (
        {"error": {"code": "server_error", "metadata": {"raw": {"a": 1}}}},
        {"message": '{"a": 1}', "code": "server_error"},
    ),
    "OpenRouter, inside the stream": (
        {
            "id": "gen-1",
            "error": {"code": "server_error", "message": "Provider disconnected"},
            "choices": [{"delta": {"content": "x"}, "finish_reason": "error"}],
        },
        {"message": "Provider disconnected", "code": "server_error"},
    ),
    "an error in the choice": (
        {
            "choices": [
                None,
                {"error": {"code": 503, "message": "no"}, "finish_reason": "error"},
            ]
        },
        {"message": "no", "status": 503, "code": "503"},
    ),
    "only a finish reason": (
        {"choices": [{"delta": {"content": "secret"}, "finish_reason": "abort"}]},
        {"message": "the answer ended with finish_reason 'abort'"},
    ),
    "choices that say nothing": (
        {"choices": [{"delta": {"content": "secret"}}, 3]},
        {"message": "the server gave no reason"},
    ),
    "vLLM": (
        {"object": "error", "message": "no", "type": "BadRequestError", "code": 400},
        {"message": "no", "type": "BadRequestError", "code": "400", "status": 400},
    ),
    "litellm": (
        {"error": {"message": "no", "type": None, "param": None, "code": "500"}},
        {"message": "no", "code": "500", "status": 500},
    ),
    "a text": ({"error": "model 'x' not found"}, {"message": "model 'x' not found"}),
    "Spring": (
        {"status": 500, "error": "Internal Server Error", "message": "pool is empty"},
        {"message": "Internal Server Error: pool is empty", "status": 500},
    ),
    "error as a flag": ({"error": True, "message": "no"}, {"message": "no"}),
    "FastAPI": ({"detail": "Not Found"}, {"message": "Not Found"}),
    "FastAPI with a list": (
        {
            "detail": [
                {"loc": ["body", "n"], "msg": "must be 1", "input": "secret"},
                {"msg": "bad"},
                "worse",
                {"loc": ["query"], "msg": "absent"},
            ]
        },
        {"message": "body.n: must be 1; bad; worse; query: absent"},
    ),
    "detail as an object": (
        {"detail": {"message": "no", "code": "quota"}},
        {"message": "no", "code": "quota"},
    ),
    "a list of errors": (
        {"success": False, "errors": [{"code": 1000, "message": "no"}]},
        {"message": "no", "code": "1000"},
    ),
    "an error in an error": (
        {"error": {"error": {"message": "inner", "type": "t"}, "message": "outer"}},
        {"message": "inner", "type": "t"},
    ),
    "a message that is no text": (
        {"error": {"message": {"a": ["b"]}}},
        {"message": '{"a": ["b"]}'},
    ),
    "no message": (
        {"error": {"code": "x"}},
        {"message": '{"error": {"code": "x"}}', "code": "x"},
    ),
    "another object": ({"a": "b"}, {"message": '{"a": "b"}'}),
    "plain text": ("upstream connect error\n", {"message": "upstream connect error"}),
    "a JSON string": ('"no"', {"message": "no"}),
    "a JSON number": ("5", {"message": "5"}),
    "a list of texts": ({"errors": ["no", "nay"]}, {"message": "no; nay"}),
    "a list that holds no error": ('["no"]', {"message": '["no"]'}),
    "an empty list": ("[]", {"message": "[]"}),
    "HTML": (
        "<!DOCTYPE html><html><head><title>502 Bad\n Gateway &amp; more</title></head>",
        {"message": "502 Bad Gateway & more"},
    ),
    "HTML without a title": (
        "<html><style>p {}</style><body><p>Sorry &lt;3</p><script>x()</script></body>",
        {"message": "Sorry <3"},
    ),
    "HTML that shows nothing": (
        "<html></html>",
        {"message": "the server gave no reason"},
    ),
    "nothing": ("", {"message": "the server gave no reason"}),
    "blanks": (" \n", {"message": "the server gave no reason"}),
    "null": ("null", {"message": "the server gave no reason"}),
    "control characters": (
        {"error": {"message": "a\x00b\r\n\x1b[31mc\u202ed\u2028e", "code": "x\ny"}},
        {"message": "a b [31mc d e", "code": "x y"},
    ),
    "not UTF-8": (b"caf\xe9 closed", {"message": "caf\ufffd closed"}),
    "a byte order mark": (b'\xef\xbb\xbf{"error":"no"}', {"message": "no"}),
    "a code that is no status": (
        {"error": {"message": "no", "code": 1234}},
        {"message": "no", "code": "1234"},
    ),
    "a status beside the code": (
        {"error": {"message": "no", "code": "busy", "status": 503}},
        {"message": "no", "code": "busy", "status": 503},
    ),
    "a status around the error": (
        {"error": {"message": "no"}, "status_code": 403},
        {"message": "no", "status": 403},
    ),
    "codes of other types": (
        {"error": {"message": "no", "code": [1], "type": True}},
        {"message": "no"},
    ),
    "seconds as a number": (
        {"error": {"message": "no", "retry_after": 3}},
        {"message": "no", "retry_after": 3.0},
    ),
    "seconds in the metadata": (
        {"error": {"message": "no", "metadata": {"retry_after_seconds": "1.5"}}},
        {"message": "no", "retry_after": 1.5},
    ),
    "seconds that are none": (
        {
            "error": {
                "message": "no",
                "retry_after": "soon",
                "retry_after_seconds": -1,
                "details": [None, {"retryDelay": "1h"}, {"retryDelay": "2.25s"}],
            }
        },
        {"message": "no", "retry_after": 2.25},
    ),
}


@pytest.mark.parametrize(("body", "expected"), CASES.values(), ids=CASES)
def test_every_dialect(body, expected):
    assert read(body) == Refusal(**expected)


def test_the_http_status_wins():
    assert read(GEMINI, 503).status == 503
    assert read("", 404).status == 404
    assert read("", 400).status == 400
    assert read({"error": "no"}, 302).status is None


def test_html_is_known_by_its_type_too():
    page = "<center><h1>504 Gateway Time-out</h1></center>"
    assert read(page, 504, content_type="text/html; charset=utf-8").message == (
        "504 Gateway Time-out"
    )


def test_a_long_message_is_cut():
    message = read({"error": {"message": "word " * 1000, "code": "c" * 1000}})
    assert len(message.message) == 500
    assert message.message.endswith("...")
    assert len(message.code) == 100
    assert read("x" * 500).message == "x" * 500


@pytest.mark.parametrize("page", ["<title", "<script>", "<style", "<", "<title>x"])
def test_a_hostile_page_takes_no_time(page):
    assert read("<html>" + page * 10_000, 500, content_type="text/html").status == 500


@pytest.mark.parametrize("depth", [10, 900, 980, 990, 995, 1000, 100_000])
def test_no_depth_makes_it_raise(depth):
    assert read('{"error":' * depth + '"no"' + "}" * depth).message
    assert read('{"message":' + "[" * depth + "]" * depth + "}").message


KEYS = st.sampled_from(
    [
        "error",
        "errors",
        "detail",
        "message",
        "msg",
        "code",
        "type",
        "status",
        "status_code",
        "metadata",
        "raw",
        "loc",
        "details",
        "retryDelay",
        "retry_after",
        "retry_after_seconds",
        "choices",
        "finish_reason",
        "provider_name",
    ]
)
HUGE = 10**400
NUMBERS = st.integers() | st.floats() | st.sampled_from([HUGE, -HUGE, 10**4299, 1e308])
SHAPES = st.recursive(
    st.none() | st.booleans() | NUMBERS | NUMBERS.map(str) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5)
    ),
    max_leaves=15,
)


@given(
    body=SHAPES.map(lambda shape: json.dumps(shape).encode()) | st.binary(),
    status=st.sampled_from([200, 429, 500]),
    kind=st.sampled_from(["", "text/html"]),
)
def test_it_never_fails(body, status, kind):
    refusal = read(body, status, content_type=kind)
    assert 0 < len(refusal.message) <= 500
    assert refusal.message.isprintable()
    refusal.message.encode()
    assert refusal.status is None or 400 <= refusal.status < 600
    assert refusal.retry_after is None or 0 <= refusal.retry_after < 10**9


@pytest.mark.parametrize(
    "number",
    [HUGE, -HUGE, 10**9, 10**4299, 1e308, float("inf"), float("nan"), -1.0, "9" * 99],
    ids=lambda number: f"{str(number)[:9]}",
)
@pytest.mark.parametrize("at", ["error", "metadata", "details"])
def test_no_number_of_seconds_makes_it_raise(number, at):
    wait = {"retry_after": number}
    error = {
        "error": wait,
        "metadata": {"metadata": wait},
        "details": {"details": [{"retryDelay": number}]},
    }[at]
    refusal = read({"error": {"message": "no", "code": number, **error}}, 429)
    assert refusal.retry_after is None
    assert len(refusal.code) <= 100


@pytest.mark.parametrize("page", ["<html>%s</html>", "<html><title>%s</title>"])
def test_a_character_of_countless_digits_is_left_as_it_is(page):
    assert read(page % ("&#" + "9" * 5000 + ";"), 500).message.startswith("&#999")


def test_a_text_that_runs_out_of_stack_is_left_out(monkeypatch):
    def dumps(value, **options):
        raise RecursionError

    monkeypatch.setattr(json, "dumps", dumps)
    body = b'{"error":{"message":["no"],"code":"x"}}'
    refusal = read(body, 500)
    assert (refusal.message, refusal.code) == ("the server gave no reason", "x")


@pytest.mark.parametrize(
    ("body", "whole"),
    [
        (b'{"choices": [{"message": {"role": "assistant", "content": "hi"}}]}', True),
        (b'{"choices": [{"delta": {"content": "hi"}}]}', False),
        (b'{"choices": [{"message": {}}], "error": {"message": "no"}}', False),
        (b'{"choices": 5}', False),
        (b"<p>choices</p>", False),
    ],
)
def test_an_answer_that_was_not_streamed_is_known(body, whole):
    found = read_refusal(Answer(status=200, headers={}, body=body))
    assert found.whole_answer is whole
