"""Reasoning, refusals, and characters that come in two halves."""

import pytest
from chat_chunks import (
    DONE,
    choice,
    chunk,
    content,
    finish,
    messages,
    run,
    said,
    split,
    text,
)
from hypothesis import given, strategies as st

from holystream.events import ReasoningDelta, RefusalDelta, TextDelta


def test_reasoning_and_refusals_are_channels_of_their_own():
    _, events = run(
        chunk(choice(reasoning_content="Let me ")),
        chunk(choice(reasoning_content="think", content="So: ")),
        chunk(choice(content="no", reasoning=None)),
        chunk(choice(refusal="I can't")),
        chunk(choice(refusal=".", content="!")),
    )
    assert said(events) == "So: no!"
    assert said(events, ReasoningDelta) == "Let me think"
    assert said(events, RefusalDelta) == "I can't."
    assert all(event.raw for event in events)


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning": "hm"},
        {"reasoning_content": "hm", "reasoning": "hm"},
        {"reasoning_content": None, "reasoning": "hm"},
        {"reasoning_content": "", "reasoning": "hm"},
        {"reasoning_content": "hm", "reasoning": {"summary": "x"}},
        {"content": [{"type": "thinking", "thinking": "hm"}]},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "h"}]},
                {"type": "thinking", "thinking": [{"type": "text", "text": "m"}]},
                {"type": "thinking", "thinking": None},
            ]
        },
    ],
)
def test_reasoning_in_every_dialect(delta):
    decoder, events = run(chunk(choice(**delta)))
    assert said(events, ReasoningDelta) == "hm"
    assert len(events) == 1
    assert decoder.failure is None


def test_a_reasoning_choice_alone_does_not_finish():
    thought = chunk(choice(index=1, reasoning="hm"))
    decoder, _ = run(finish(), thought, DONE, n=2)
    assert not decoder.finished


SURROGATES = [
    (["a\\ud83d", "\\ude00b"], "a\U0001f600b"),
    (["\\ud83d", "\\ude00"], "\U0001f600"),
    (["\\ud83d", "", "\\ude00"], "\U0001f600"),
    (["\\ud83d", "\\ude00\\ud83d", "\\ude01"], "\U0001f600\U0001f601"),
    (["a\\ud83d", "b", "c"], "a\ufffdbc"),
    (["a\\ud83d", "\\ud83d", "\\ude00"], "a\ufffd\U0001f600"),
    (["a\\ud83d"], "a\ufffd"),
    (["a\\ude00b", "c"], "a\ufffdbc"),
    (["\\ude00\\ud83dx"], "\ufffd\ufffdx"),
    (["a\\ud83d\\ude00b"], "a\U0001f600b"),
]


@pytest.mark.parametrize(("pieces", "expected"), SURROGATES)
@pytest.mark.parametrize("key", ["content", "reasoning", "refusal"])
def test_halves_of_a_character_are_joined_or_replaced(pieces, expected, key):
    kinds = {"content": TextDelta, "reasoning": ReasoningDelta, "refusal": RefusalDelta}
    data = [
        content(piece).replace(b'"content"', f'"{key}"'.encode()) for piece in pieces
    ]
    decoder, events = run(text("."), *data, finish())
    others = {"content": "."}.get(key, "")
    assert said(events, kinds[key]) == others + expected
    assert decoder.finished


def test_half_a_character_is_not_delivered_before_its_partner():
    decoder, events = run(content("a\\ud83d"))
    assert said(events) == "a"
    more = decoder.decode(messages(content("\\ude00")))
    assert [(event.text, event.offset) for event in more] == [("\U0001f600", 1)]


def test_half_a_character_waits_in_its_own_choice_and_channel():
    _, events = run(
        content("\\ud83d"),
        text("other", 1),
        chunk(choice(reasoning="hm")),
        content("\\ude00"),
        finish(),
        n=2,
    )
    assert said(events) == "\U0001f600"
    assert said(events, index=1) == "other"
    assert said(events, ReasoningDelta) == "hm"


def test_half_a_character_is_given_up_at_the_end_mark():
    decoder, events = run(finish(), content("\\ud83d"))
    assert said(events) == ""
    assert not decoder.finished
    assert said(decoder.decode(messages(DONE))) == "\ufffd"
    assert decoder.finished


def test_a_finish_reason_gives_up_the_halves_of_its_own_choice_only():
    decoder, events = run(
        content("\\ud83d"),
        content("\\ud83d").replace(b'"index": 0', b'"index": 1'),
        finish(index=1),
        content("\\ude00"),
        finish(),
        n=2,
    )
    assert said(events) == "\U0001f600"
    assert said(events, index=1) == "\ufffd"
    assert decoder.finished


@given(
    text_=st.text(st.sampled_from("ab\U0001f600\U0001f1e9\u00e9"), min_size=1),
    cuts=st.lists(st.integers(0, 40)),
    indexes=st.booleans(),
)
def test_a_text_cut_between_any_utf16_units_comes_out_whole(text_, cuts, indexes):
    escaped = text_.encode("utf-16-be")
    units = [f"\\u{escaped[i : i + 2].hex()}" for i in range(0, len(escaped), 2)]
    pieces = split(units, [cut for cut in cuts if cut < len(units)])
    data = [content("".join(piece)) for piece in pieces]
    if indexes:
        data = [each for piece in data for each in (piece, text("o", 1))]
    _, events = run(*data, finish(), n=1 + indexes)
    assert said(events) == text_
