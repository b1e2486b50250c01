"""Log probabilities: with the text they belong to, once, or not at all."""

import json
import math

import pytest
from chat_chunks import (
    DONE,
    choice,
    chunk,
    content,
    finish,
    messages,
    new_decoder,
    run,
    said,
    text,
    tool,
)
from hypothesis import example, given, strategies as st

from holystream.events import (
    Guarantee,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    TextDelta,
    TokenLogprob,
)
from holystream.providers.logprobs import read_tokens
from holystream.resume.replay import ReplaySeam
from holystream.transcript import Transcript


def token(word, logprob=-0.5, **fields):
    return {"token": word, "logprob": logprob, "bytes": None, **fields}


def weighed(*tokens, **fields):
    report = {"content": list(tokens), "refusal": None}
    return chunk({**choice(**fields), "logprobs": report})


def test_they_follow_their_text_with_its_place():
    decoder = new_decoder(segment=2)
    events = decoder.decode(
        messages(
            text("Oh, "),
            weighed(
                token(
                    "Hel",
                    -0.25,
                    bytes=[72, 101, 108],
                    top_logprobs=[token("Hel", -0.25), token("Hi", -2)],
                ),
                token("lo", -1),
                content="Hello",
            ),
            finish(),
            DONE,
        )
    )
    assert [type(event) for event in events] == [TextDelta, TextDelta, Logprobs]
    hel = TokenLogprob(
        token="Hel",
        logprob=-0.25,
        bytes=b"Hel",
        top=(
            TokenLogprob(token="Hel", logprob=-0.25),
            TokenLogprob(token="Hi", logprob=-2.0),
        ),
    )
    assert events[-1] == Logprobs(
        tokens=(hel, TokenLogprob(token="lo", logprob=-1.0)), offset=4, segment=2
    )
    assert str(events[-1]) == ""
    assert decoder.finished


def test_each_channel_and_choice_has_its_own():
    _, events = run(
        text("ab", 1),
        weighed(token("hm"), reasoning="hm"),
        weighed(token("c"), content="c", index=1),
        chunk({**choice(refusal="No"), "logprobs": {"refusal": [token("No")]}}),
        n=2,
    )
    found = [event for event in events if type(event) is Logprobs]
    assert [(each.channel, each.index, each.offset) for each in found] == [
        ("reasoning", 0, 0),
        ("text", 1, 2),
        ("refusal", 0, 0),
    ]
    assert said(events, ReasoningDelta) == "hm"
    assert said(events, RefusalDelta) == "No"


def test_those_of_a_tool_call_are_left_out():
    piece = json.loads(tool(0, id="1", name="f", arguments="{}"))["choices"][0]["delta"]
    _, events = run(
        chunk({"index": 0, "delta": piece, "logprobs": {"content": [token("{}")]}})
    )
    assert not [event for event in events if type(event) is Logprobs]


def test_those_of_the_end_stand_at_the_end():
    decoder, events = run(text("ab"), weighed(token(""), finish="stop"))
    assert events[-1] == Logprobs(
        tokens=(TokenLogprob(token="", logprob=-0.5),), offset=2
    )
    assert decoder.finished


def test_half_a_character_is_whole_text_and_a_marked_token():
    halves = [content(half) for half in ("\\ud83d", "\\ude00")]
    data = [
        half.replace(
            b'"logprobs": null',
            b'"logprobs": {"content": [{"token": "\\ud83d", "logprob": -1}]}',
        )
        for half in halves
    ]
    _, events = run(*data)
    assert said(events) == "\U0001f600"
    tokens = [event.tokens[0].token for event in events if type(event) is Logprobs]
    assert tokens == ["\ufffd", "\ufffd"]


UNREADABLE = [
    [],
    "content",
    {"content": {}},
    {"content": []},
    {"content": ["a"]},
    {"content": [None]},
    {"content": [{"token": "a"}]},
    {"content": [{"token": "a", "logprob": None}]},
    {"content": [{"token": 3, "logprob": -1}]},
    {"content": [{"token": "a", "logprob": True}]},
    {"content": [{"token": "a", "logprob": 10**400}]},
    {"content": [{"token": "a", "logprob": -1}, {"token": "b"}]},
    {"tokens": ["a"], "token_logprobs": [-1]},
]


@pytest.mark.parametrize("report", UNREADABLE)
def test_what_cannot_be_read_is_left_out_and_the_text_is_kept(report):
    decoder, events = run(
        text("a"), chunk({**choice(content="b"), "logprobs": report}), finish()
    )
    assert said(events) == "ab"
    assert {type(event) for event in events} == {TextDelta}
    assert decoder.finished


@pytest.mark.parametrize("listed", [[256], [-1], ["a"], [True], "Hi", {}, 3])
def test_bytes_that_are_none_are_left_out(listed):
    report = {"content": [token("a", bytes=listed, top_logprobs=listed)]}
    (read,) = read_tokens(report, "content")
    assert read == TokenLogprob(token="a", logprob=-0.5)


@pytest.mark.parametrize("number", ["-Infinity", "NaN", "-9999.0", "0"])
def test_a_probability_of_nothing_is_a_number_too(number):
    data = weighed(token("a", 7), content="a").replace(
        b": 7,", b": %b," % number.encode()
    )
    _, events = run(data)
    (logprob,) = (each.logprob for each in events[-1].tokens)
    assert logprob == float(number) or math.isnan(logprob)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["content", "refusal", "token", "logprob", "bytes", "top_logprobs"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(report=VALUES)
@example(report={"content": [token("\ud83d")]})
def test_no_report_costs_a_character(report):
    decoder, events = run(
        text("a"), chunk({**choice(content="b"), "logprobs": report}), finish()
    )
    assert said(events) == "ab"
    assert decoder.finished
    for event in events:
        if type(event) is Logprobs:
            assert event.tokens
            assert all(each.token.encode() is not None for each in event.tokens)


@given(
    cut=st.integers(1, 10),
    sizes=st.lists(st.integers(1, 4), min_size=4),
    batch=st.integers(1, 5),
)
def test_at_a_seam_no_character_is_weighed_twice(cut, sizes, batch):
    whole = "abcdefghijkl"
    transcript = Transcript()
    transcript.add([TextDelta(whole[:cut], 0)])
    seam = ReplaySeam(transcript)
    events, at = [], 0
    for size in sizes:
        piece = whole[at : at + size]
        if piece:
            tokens = tuple(TokenLogprob(token=each, logprob=-1.0) for each in piece)
            events += [
                TextDelta(piece, at, 0, 1),
                Logprobs(tokens=tokens, offset=at, segment=1),
            ]
        at += size
    joined = []
    for start in range(0, len(events), 2 * batch):
        some = events[start : start + 2 * batch]
        joined += seam.join(some) if seam.open else some
    weighed_from = [event.offset for event in joined if type(event) is Logprobs]
    assert all(offset >= cut for offset in weighed_from)
    spoken = [event for event in joined if type(event) is TextDelta]
    assert "".join(event.text for event in spoken) == whole[cut:at]
    # The delta across the seam has lost its tokens, and no other has.
    whole_deltas = [event.offset for event in spoken if event.offset in weighed_from]
    assert weighed_from == whole_deltas
    assert len(spoken) - len(weighed_from) <= 1
    assert any(type(event) is Resumed for event in joined) is (at >= cut)


def test_other_choices_and_channels_go_on_at_their_own_seams():
    transcript = Transcript()
    transcript.add([TextDelta("ab", 0)])
    seam = ReplaySeam(transcript)
    one = (TokenLogprob(token="a", logprob=-1.0),)
    thought = Logprobs(tokens=one, offset=0, channel="reasoning")
    second = Logprobs(tokens=one, offset=0, index=1)
    assert seam.join([thought, second]) == [second]
    assert seam.join([TextDelta("ab", 0), thought]) == [
        Resumed(strategy="replay", guarantee=Guarantee.REPLAYED, offset=2),
        thought,
    ]
