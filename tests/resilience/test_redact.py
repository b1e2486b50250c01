"""What servers say, made fit for a message."""

from __future__ import annotations

from hypothesis import given, strategies as st

from holystream.resilience.redact import fit_for_a_message, one_line_each


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


def test_a_short_prompt_does_not_spoil_the_message():
    assert upstream_text("this is it", ["hi", "is"]) == "this is it"


@given(st.text(max_size=3_000), st.lists(st.text(min_size=6), max_size=3))
def test_any_text_is_made_fit(text, secrets):
    fit = upstream_text(text, secrets)
    assert fit.isprintable()
    assert len(fit) <= 300
    assert fit == fit.strip()
