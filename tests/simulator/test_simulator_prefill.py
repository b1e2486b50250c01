"""Prefill and stitching: answers that go on from a beginning the client sends."""

import json
import re

import pytest
from simulator_client import events, fetch, question, text_of

from holystream.simulator import Script

TRAILING = {}
PREFIX = {"prefix": True}
CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
SPELLINGS = {"prefix": PREFIX, "continue": CONTINUE, "trailing": TRAILING}


def begun(prefix, spelling="trailing", **fields):
    """Return the question with the beginning of its answer."""
    body, more = question(**fields), SPELLINGS[spelling]
    message = {"role": "assistant", "content": prefix}
    if spelling == "prefix":
        message |= more
    else:
        body |= more
    return {**body, "messages": [*body["messages"], message]}


def said(sim, body, **script):
    """Return the text of the answer, and its chunks."""
    sim.play(Script(**script))
    got = fetch(sim, body)
    assert got.status == 200, got.body
    chunks = events(got.body)
    return text_of(chunks), chunks


def boundaries(text):
    """Return where words end: before white space that follows a word."""
    return [match.start() for match in re.finditer(r"(?<=\w)\s", text)]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_whole_word_goes_on_verbatim(sim, spelling):
    whole = sim.answer(question()).text
    for at in boundaries(whole)[::9]:
        body = begun(whole[:at], spelling)
        text, chunks = said(sim, body, prefill=spelling)
        assert whole[:at] + text == whole
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert sim.generations[-1].prefix + sim.generations[-1].text == whole


def test_half_a_word_and_white_space_go_astray(sim):
    whole = sim.answer(question()).text
    ends = boundaries(whole)
    inside = [match.start() + 2 for match in re.finditer(r"[a-z]{4}", whole)]
    for at in (*(end + 1 for end in ends[::9]), *inside[::9]):
        body = begun(whole[:at])
        text, _ = said(sim, body, prefill="trailing")
        assert text[0] != whole[at]
        assert said(sim, body, prefill="trailing")[0] == text


def test_characters_without_spaces_are_tokens_of_their_own(simulate):
    whole = "東京 言葉🚀🎉가나다 end 42"
    sim = simulate(text=whole)
    good = [
        at
        for at in range(len(whole) + 1)
        if said(sim, begun(whole[:at]), prefill="trailing")[0] == whole[at:]
    ]
    ends = [whole[:at] for at in good]
    assert ends == [
        *("", "東", "東京", "東京 言", "東京 言葉", "東京 言葉🚀", "東京 言葉🚀🎉"),
        *("東京 言葉🚀🎉" + rest for rest in ("가", "가나", "가나다", "가나다 end")),
        whole,
    ]


def test_white_space_at_the_very_end_goes_astray_too(simulate):
    sim = simulate(text="the end ")
    assert said(sim, begun("the end"), prefill="trailing")[0] == " "
    assert said(sim, begun("the end "), prefill="trailing")[0]


def test_deltas_can_be_whole_tokens(sim):
    whole = sim.answer(question()).text
    script = Script(tokens=True, prefill="trailing", times=0)
    sim.play(script)
    deltas = sim.answer(question(), script=script).deltas
    assert "".join(deltas) == whole
    for count in range(1, len(deltas), 11):
        got = fetch(sim, begun("".join(deltas[:count])))
        assert [
            text_of([chunk]) for chunk in events(got.body) if text_of([chunk])
        ] == list(deltas[count:])


def test_what_went_astray_goes_on_as_it_began(sim):
    whole = sim.answer(question()).text
    wrong = whole[: boundaries(whole)[5] + 2]
    text, _ = said(sim, begun(wrong), prefill="trailing")
    for at in boundaries(text)[1::9]:
        more, _ = said(sim, begun(wrong + text[:at]), prefill="trailing")
        assert more == text[at:]


def test_sampled_answers_are_gone_on_with_as_they_were(sim):
    body = question(temperature=None)
    first, _ = said(sim, body)
    second, _ = said(sim, body)
    for whole in (first, second):
        at = boundaries(whole)[7]
        request = begun(whole[:at], temperature=None)
        assert said(sim, request, prefill="trailing")[0] == whole[at:]


def test_under_sampling_nothing_goes_on_as_it_was(sim):
    whole = sim.answer(question()).text
    for at in boundaries(whole)[::9]:
        body = begun(whole[:at])
        one, _ = said(sim, body, prefill="trailing", sampling=True)
        two, _ = said(sim, body, prefill="trailing", sampling=True)
        assert whole[at] not in (one[0], two[0])
        assert one != two


def test_a_beginning_the_model_would_not_write(sim):
    text, _ = said(sim, begun("Quite another story"), prefill="trailing")
    assert text
    assert text not in sim.answer(question()).text


def test_max_tokens_and_usage_count_what_is_new(sim):
    options = {"stream_options": {"include_usage": True}}
    whole = sim.answer(question())
    at = boundaries(whole.text)[9]
    for echo in (None, "pieces"):
        limited = begun(whole.text[:at], max_tokens=5, **options)
        text, chunks = said(sim, limited, prefill="trailing", echo=echo)
        *_, finish, usage = chunks
        text = text.removeprefix(whole.text[:at] if echo else "")
        assert whole.text[at:].startswith(text)
        assert 0 < len(text) <= 40
        assert finish["choices"][0]["finish_reason"] == "length"
        assert usage["usage"]["completion_tokens"] == 5
        assert usage["usage"]["prompt_tokens"] > whole.usage["prompt_tokens"]


def test_a_limit_counts_on_where_it_was(sim):
    whole = sim.answer(question(max_tokens=40))
    for count in range(40):
        prefix = "".join(whole.deltas[:count])
        answer = sim.answer(
            begun(prefix, max_tokens=40 - count), script=Script(prefill="trailing")
        )
        if prefix + answer.text == whole.text:
            assert answer.deltas == whole.deltas[count:]
            assert answer.finish_reason == "length"


@pytest.mark.parametrize("echo", ["whole", "glued", "pieces"])
def test_an_echo_comes_first(sim, echo):
    whole = sim.answer(question()).text
    at = boundaries(whole)[6]
    text, chunks = said(sim, begun(whole[:at]), prefill="trailing", echo=echo)
    assert text == whole
    deltas = [text_of([chunk]) for chunk in chunks if text_of([chunk])]
    if echo == "whole":
        assert deltas[0] == whole[:at]
    elif echo == "glued":
        assert deltas[0].startswith(whole[: at + 1])
    else:
        assert max(map(len, deltas)) <= 8


def test_echo_alone_means_pieces():
    assert Script.parse("echo") == Script.parse("echo=true") == Script(echo="pieces")


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("prefill", ["none", *SPELLINGS])
def test_a_spelling_that_is_not_understood_is_a_new_turn(sim, spelling, prefill):
    whole = sim.answer(question()).text
    body = begun(whole[: boundaries(whole)[6]], spelling)
    text, _ = said(sim, body, prefill=prefill)
    understood = prefill in (spelling, "trailing")
    assert whole.endswith(text) == understood
    assert text != whole


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_prefill_can_be_passed_over(sim, spelling):
    whole = sim.answer(question()).text
    body = begun(whole[:100], spelling, stream_options={"include_usage": True})
    text, chunks = said(sim, body, prefill="ignore")
    assert text == whole
    assert chunks[-1]["usage"] == sim.answer(question()).usage


@pytest.mark.parametrize(
    ("model", "prefill", "spelling", "words"),
    [
        ("mistral-small", "refuse", "prefix", "Expected last role User or Tool"),
        ("mistral-small", "prefix", "trailing", "(or Assistant with prefix True)"),
        ("claude", "refuse", "trailing", "must end with a user message."),
        ("vllm", "continue", "both", "Cannot set both `continue_final_message`"),
        ("llama", "trailing", "both", "Cannot set both `continue_final_message`"),
        ("llama", "trailing", "two", "2 or more assistant messages at the end"),
    ],
)
def test_refusals_are_those_of_real_servers(sim, model, prefill, spelling, words):
    body = begun("The", spelling if spelling in SPELLINGS else "continue", model=model)
    if spelling == "both":
        body["add_generation_prompt"] = True
    if spelling == "two":
        body["messages"].append(body["messages"][-1])
    sim.play(Script(prefill=prefill))
    got = fetch(sim, body)
    assert got.status == 400
    assert words in json.loads(got.body)["error"]["message"]
    assert not sim.generations


def test_an_assistant_that_calls_a_tool_begins_no_answer(sim):
    body = begun("")
    body["messages"][-1] |= {"tool_calls": [{"id": "1"}]}
    sim.play(Script(prefill="refuse"))
    assert fetch(sim, body).status == 200


def test_choices_go_on_each_for_itself(sim):
    choices = sim.answer(question(n=2)).choices
    at = boundaries(choices[1].text)[4]
    body = begun(choices[1].text[:at], n=2)
    _, chunks = said(sim, body, prefill="trailing")
    assert text_of(chunks, 1) == choices[1].text[at:]
    assert text_of(chunks, 0) not in choices[0].text


def test_the_path_of_the_beta_is_served(sim):
    got = fetch(sim, path="/beta/chat/completions")
    assert got.body == sim.body(question())


def test_a_generation_can_differ_from_the_one_before(sim):
    whole = sim.answer(question()).text
    for at in (0, 1, 77, len(whole) - 1):
        text, _ = said(sim, question(), differ_at=at)
        assert text[:at] == whole[:at]
        assert text[at] != whole[at]
    assert said(sim, question(), differ_at=len(whole))[0] == whole


def test_a_generation_can_be_shorter(sim):
    whole = sim.answer(question()).text
    for at in (0, 77):
        text, chunks = said(sim, question(), shorter=at)
        assert text == whole[:at]
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_cached_tokens_are_told(sim):
    for cached in (3, 10**6):
        options = {"include_usage": True}
        _, chunks = said(sim, question(stream_options=options), cached_tokens=cached)
        usage = chunks[-1]["usage"]
        told = usage["prompt_tokens_details"]["cached_tokens"]
        assert told == min(cached, usage["prompt_tokens"])


def going_on(prefix, message="Go on.", **fields):
    body = begun(prefix, **fields)
    body["messages"].append({"role": "user", "content": message})
    return body


class TestStitching:
    @pytest.fixture
    def whole(self, sim):
        return sim.answer(question()).text

    def test_it_goes_on_wherever_it_broke_off(self, sim, whole):
        for at in range(1, len(whole), 41):
            text, _ = said(sim, going_on(whole[:at]), stitch="continue")
            assert text == whole[at:]

    def test_it_may_greet_and_repeat(self, sim, whole):
        script = {"preamble": "Sure, continuing: ", "overlap": 30}
        text, _ = said(sim, going_on(whole[:200]), **script)
        assert text == "Sure, continuing: " + whole[170:]
        text, _ = said(sim, going_on(whole[:9]), **script)
        assert text == "Sure, continuing: " + whole

    def test_it_may_tell_all_again(self, sim, whole):
        assert said(sim, going_on(whole[:200]), stitch="whole")[0] == whole

    @pytest.mark.parametrize("escape", [str, json.dumps])
    def test_a_quote_of_the_end_will_do(self, sim, whole, escape):
        for at in (7, 100, 301):
            quote = escape(whole[max(at - 50, 0) : at])
            body = question()
            message = f"Your previous response ended with [{quote}]. Continue."
            body["messages"] = [
                *body["messages"],
                {"role": "user", "content": message},
            ]
            assert said(sim, body, stitch="continue")[0] == whole[at:]

    def test_a_sampled_answer_is_remembered(self, sim):
        body = question(temperature=None)
        said(sim, body)
        whole, _ = said(sim, body)
        request = going_on(whole[:123], temperature=None)
        assert said(sim, request, stitch="continue")[0] == whole[123:]

    @pytest.mark.parametrize(
        "prefix", ["Another story", "", None], ids=["other", "none", "whole"]
    )
    def test_what_was_not_broken_off_is_a_new_turn(self, sim, whole, prefix):
        body = going_on(whole if prefix is None else prefix)
        assert said(sim, body, stitch="continue")[0] == sim.answer(body).text

    def test_unless_it_is_told_to_it_is_a_new_turn(self, sim, whole):
        text, _ = said(sim, going_on(whole[:200]))
        assert text not in whole
