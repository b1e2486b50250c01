"""What servers say, made fit for a message."""

from __future__ import annotations

import base64
import html
import json
import urllib.parse

import pytest
from hypothesis import assume, example, given, strategies as st

from holystream.resilience.redact import (
    fit_for_a_message,
    fit_for_an_id,
    in_one_case,
    one_line_each,
)


def upstream_text(text, secrets=()):
    return fit_for_a_message(text, one_line_each(secrets))


def test_what_looks_like_a_key_is_taken_out():
    assert upstream_text("Bearer abcdefghijkl") == "Bearer ***"
    assert upstream_text("key sk-proj-****abcd1234.") == "key ***."
    assert upstream_text("task-force risk-averse") == "task-force risk-averse"


def test_of_two_secrets_the_longer_goes_first():
    assert (
        upstream_text("a secret-key-two", ["secret-key", "secret-key-two"]) == "a ***"
    )


def test_a_secret_is_found_across_its_line_breaks():
    assert upstream_text("got: one two  three!", ["one\ntwo\tthree"]) == "got: ***!"


def test_a_quoted_prompt_is_taken_out_even_in_part():
    prompt = "Write a poem about\nthe 7 wonders of a very private garden. " * 20
    echo = f"invalid: {prompt[:400]}!"
    text = upstream_text(echo, [prompt])
    assert text == "invalid:***!"
    quoted = upstream_text("the 7 wonders of a very private", [prompt])
    assert quoted == "***"
    assert upstream_text("a very private", [prompt]) == "a very private"


def percent(text):
    """Every byte, as few servers do it."""
    return "".join(f"%{byte:02x}" for byte in text.encode())


def as_json(text):
    return json.dumps(text)[1:-1]


DISGUISES = {
    "JSON": as_json,
    "JSON twice": lambda text: as_json(as_json(text)),
    "JSON of a server that escapes slashes": lambda text: as_json(text).replace(
        "/", "\\/"
    ),
    "JSON that leaves letters": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "JSON, each character": lambda text: "".join(
        f"\\u{int.from_bytes(pair, 'big'):04x}"
        for raw in (text.encode("utf-16-be"),)
        for pair in (raw[at : at + 2] for at in range(0, len(raw), 2))
    ),
    "Python": lambda text: repr(text)[1:-1],
    "a byte string": lambda text: repr(text.encode())[2:-1],
    "a URL": lambda text: urllib.parse.quote(text, safe=""),
    "a path": urllib.parse.quote,
    "a form": urllib.parse.quote_plus,
    "a URL, each byte": percent,
    "a URL in a URL": lambda text: urllib.parse.quote(percent(text), safe=""),
    "JSON in a URL": lambda text: urllib.parse.quote(as_json(text), safe=""),
    "HTML": html.escape,
    "HTML, each character": lambda text: "".join(f"&#{ord(char)};" for char in text),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "hex with colons": lambda text: text.encode().hex(":"),
    "hex with spaces": lambda text: text.encode().hex(" "),
    "Base64": lambda text: base64.b64encode(text.encode()).decode(),
    "Base64 without its end": lambda text: (
        base64.b64encode(text.encode()).decode().rstrip("=")
    ),
    "Base64 of URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "Base64 with a user": lambda text: base64.b64encode(
        f"user:{text}".encode()
    ).decode(),
    "Base64 of a header": lambda text: base64.b64encode(
        f"Bearer {text}\r\n".encode()
    ).decode(),
    "Base64 in a URL": lambda text: urllib.parse.quote(
        base64.b64encode(text.encode()).decode(), safe=""
    ),
}
KEYS = [
    "pk_live/Zq8+T3=vR'\"<m&x",
    "AIzaSyD-9tSrke72PouQMnMX",
    "abc123",
    "p\u00e4ssw\u00f6rd \U0001f511 \u79d8\u5bc6",
]


@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES)
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("frame", ["bad key {}!", "key:{}", "{}", "key={}&x=1"])
def test_a_key_is_found_in_any_disguise(disguise, key, frame):
    shown = upstream_text(frame.format(disguise(key)), [key])
    assert "***" in shown
    for other in (key, disguise(key), disguise(key).strip("=")):
        assert other not in shown
    if " " not in frame:
        return
    assert shown.startswith("bad key ***")
    assert shown.endswith("!")


CASES = {
    "upper": str.upper,
    "lower": str.lower,
    "swapped": str.swapcase,
    "title": str.title,
}


@pytest.mark.parametrize("change", CASES.values(), ids=CASES)
@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES)
@pytest.mark.parametrize(
    "key", [*KEYS, "\u039f\u0394\u039f\u03a3 in \u0410\u0444\u0438\u043d\u044b"]
)
def test_a_key_is_found_in_any_case(change, disguise, key):
    for secret, said in ((key, change(key)), (change(key), key)):
        shown = upstream_text(f"bad key {disguise(said)}!", [secret])
        assert shown == "bad key ***!"


@pytest.mark.parametrize("change", [str.upper, str.lower, str.swapcase])
def test_a_prompt_is_found_in_any_case(change):
    prompt = "Write a poem about\nthe 7 wonders of a very private garden. " * 20
    assert (
        upstream_text(f"invalid: {change(prompt[:400])}!", [prompt]) == "invalid:***!"
    )
    quoted = change("the 7 wonders of a very private")
    assert upstream_text(quoted, [prompt]) == "***"
    assert upstream_text("A VERY PRIVATE", [prompt]) == "A VERY PRIVATE"


def test_a_key_in_another_case_is_found_where_a_long_text_is_cut():
    key = "AIzaSyD-9tSrke72PouQMnMX"
    # At 2 000 characters, where eight of the 84th are left: too few for a quote.
    assert "AIZA" not in upstream_text(key.upper() * 100, [key])


def test_a_key_that_we_were_not_told_of_is_found_in_any_case():
    assert upstream_text("KEY SK-PROJ-ABCD1234.") == "KEY ***."
    assert upstream_text("TASK-FORCE RISK-AVERSE") == "TASK-FORCE RISK-AVERSE"


@pytest.mark.parametrize("change", CASES.values(), ids=CASES)
def test_an_id_holds_no_key_in_any_case(change):
    key = "AIzaSyD-9tSrke72PouQMnMX"
    assert fit_for_an_id(f"req_{change(key)}", [key]) == "***"
    assert fit_for_an_id("req_0123456789abcdef", [key]) == "req_0123456789abcdef"


@given(st.text(), st.text())
@example("\u0130\u03a3", "\u03a3 \u03c2")
def test_in_one_case_each_character_is_in_its_place(one, other):
    assert len(in_one_case(one)) == len(one)
    assert in_one_case(one) + in_one_case(other) == in_one_case(one + other)
    assert in_one_case(in_one_case(one)) == in_one_case(one)


@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES)
def test_without_a_secret_in_it_a_disguise_is_left(disguise):
    hidden = disguise("nothing of ours, only words")
    assert upstream_text(f"see {hidden}", KEYS) == f"see {hidden}"


def test_a_part_of_a_key_is_found_in_any_disguise():
    key = "AIzaSyD-9tSrke72PouQMnMX"
    echo = base64.b64encode(key[:14].encode()).decode()
    assert upstream_text(f"key {echo} is wrong", [key]) == "key *** is wrong"


@given(
    key=st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=8),
    before=st.text(st.sampled_from("abc =:"), max_size=5),
    disguise=st.sampled_from(sorted(DISGUISES)),
)
def test_any_key_is_found_in_any_disguise(key, before, disguise):
    said = DISGUISES[disguise](key)
    assume(len(said) < 1_900)
    shown = upstream_text(f"{before} {said}", [key])
    assert said.strip("=") not in shown


def test_a_short_prompt_does_not_spoil_the_message():
    assert upstream_text("this is it", ["hi", "is"]) == "this is it"


@given(st.text(max_size=3_000), st.lists(st.text(min_size=6), max_size=3))
def test_any_text_is_made_fit(text, secrets):
    fit = upstream_text(text, secrets)
    assert fit.isprintable()
    assert len(fit) <= 300
    assert fit == fit.strip()
