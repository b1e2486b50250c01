"""The rules at the edges: what is asked for, what is refused, and what it cost."""

from __future__ import annotations

import re

import pytest
from exchange_player import (
    DONE,
    PROMPT,
    Player,
    call,
    choice,
    chunk,
    finish,
    refusal,
    text,
    thought,
    whole_call,
)
from hypothesis import given, strategies as st
from laboratory import TIRELESS, Laboratory, places
from ways import EXACT, TEXT, WEATHER

from holystream.errors import GuaranteeNotMet, StreamInterrupted
from holystream.events import (
    Guarantee,
    Logprobs,
    ReasoningDelta,
    Resumed,
    TextDelta,
)
from holystream.providers.profile import Prefill
from holystream.simulator.script import Script
from holystream.transcript import TextBuffer, Transcript

BEGUN = "One two three four five"
VLLM = {"prefill": Prefill(spelling="continue_final_message")}
MISTRAL = {"prefill": Prefill(spelling="prefix", echo=True)}


def player(*resume, **options):
    return Player(**{"resume": resume, "retry": TIRELESS, "profile": VLLM, **options})


def asked(one):
    return one.exchange.next_request.body


def last_message(one):
    return asked(one)["messages"][-1]


def ways_of(one):
    return [each.strategy for each in one.log if isinstance(each, Resumed)]


class TestStopStrings:
    def test_one_across_the_seam_ends_the_answer(self):
        one = player("prefill", temperature=1, stop=["END"])
        one.connect().say("One E").cut()
        one.connect().send(text("N"), text("D"), text(" more"))
        assert one.completion.text == "One E"
        assert one.completion.finish_reason == "stop"
        assert one.completion.guarantee is Guarantee.CONTINUED

    def test_half_a_one_is_text_if_nothing_follows(self):
        one = player("prefill", temperature=1, stop="END")
        one.connect().say("One E").cut()
        one.answer(text("N"), finish(), DONE)
        assert one.completion.text == "One EN"


class TestWhatIsAskedFor:
    def test_a_greedy_model_is_given_all_but_the_last_words(self):
        one = player("prefill").connect().say("One two", " three", " four five ").cut()
        one.connect()
        assert last_message(one) == {"role": "assistant", "content": "One two"}
        assert asked(one)["continue_final_message"] is True
        assert asked(one)["add_generation_prompt"] is False

    def test_a_sampling_one_all_but_the_white_space(self):
        one = player("prefill", temperature=1).connect().say("One two \n").cut()
        one.connect().send(text("\n three"), finish(), DONE)
        assert last_message(one)["content"] == "One two"
        assert one.text == "One two \n\n three"

    def test_nor_what_the_server_could_not_decode(self):
        one = player("prefill", temperature=1).connect().say("One \ufffd").cut()
        one.connect().send(text("\u00e9t\u00e9"), finish(), DONE)
        assert last_message(one)["content"] == "One"
        assert one.text == "One \ufffd\u00e9t\u00e9"

    def test_half_a_character_is_not_given(self):
        one = player("prefill", temperature=1).connect().say("One", "\ud83d").cut()
        one.connect().send(text("\ud83d"))
        assert last_message(one)["content"] == "One"
        one.send(text("\ude80"), finish(), DONE)
        assert one.text == "One🚀"

    def test_a_message_that_the_caller_has_begun_goes_on(self):
        begun = [
            {"role": "user", "content": PROMPT},
            {"role": "assistant", "content": "Well,"},
        ]
        one = player("prefill", temperature=1, prompt=begun)
        one.connect().say(" One two").cut()
        one.connect().send(text(" three"), finish(), DONE)
        assert [each["role"] for each in asked(one)["messages"]] == [
            "user",
            "assistant",
        ]
        assert last_message(one)["content"] == "Well, One two"
        assert one.completion.text == " One two three"

    def test_one_that_came_back_is_not_given_twice(self):
        begun = [
            {"role": "user", "content": PROMPT},
            {"role": "assistant", "content": "Well,"},
        ]
        one = player("prefill", temperature=1, prompt=begun, profile=MISTRAL)
        one.connect().say("Well, One two").cut()
        one.connect().send(text("Well, One two three"), finish(), DONE)
        assert last_message(one)["content"] == "Well, One two"
        assert one.completion.text == "Well, One two three"
        one = player("prefill", temperature=1, prompt=begun, profile=MISTRAL)
        one.connect().say("We").cut()
        assert isinstance(one.error, StreamInterrupted), "it has not come back yet"

    def test_a_message_in_parts_is_left_alone(self):
        begun = [
            {"role": "user", "content": PROMPT},
            {"role": "assistant", "content": [{"type": "text", "text": "Well,"}]},
        ]
        one = player("prefill", "restart", temperature=1, prompt=begun)
        one.connect().say(" One").cut().connect()
        assert asked(one)["messages"] == begun

    def test_deepseek_has_a_path_of_its_own(self):
        profile = {"prefill": Prefill(spelling="prefix", path="/beta/chat/completions")}
        one = player("prefill", temperature=1, profile=profile)
        one.connect().say("One").cut().connect()
        assert one.exchange.next_request.path == "/beta/chat/completions"
        assert last_message(one)["prefix"] is True


class TestHowMuchMayBeWritten:
    """``max_tokens`` is less what was written, and never less than is left of it."""

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
    @pytest.mark.parametrize("together", [True, False])
    def test_the_limit_is_for_both_parts(self, name, together):
        one = player("prefill", temperature=1, extra_body={name: 10})
        one.connect()
        parts = [text(part) for part in ("One", " two", " three")]
        one.send(*parts) if together else [one.send(part) for part in parts]
        one.cut().connect()
        assert asked(one)[name] == 7

    @pytest.mark.parametrize("together", [True, False])
    def test_the_words_that_are_written_again_do_not_count(self, together):
        one = player("prefill", max_tokens=10).connect()
        words = ("One", " two", " th", "re", "e", " four", " five")
        parts = [text(part) for part in words]
        one.send(*parts) if together else [one.send(part) for part in parts]
        one.cut().connect()
        assert last_message(one)["content"] == "One two"
        assert asked(one)["max_tokens"] == 8

    @pytest.mark.parametrize("way", ["prefill", "stitch"])
    @pytest.mark.parametrize(
        ("sent", "left"),
        [
            ("One reconsideration", 18),
            ("天を見上げると青い色", 17),
            ("\n\n One - two", 17),
            ("x" * 40, 17),
        ],
    )
    def test_letters_are_no_tokens(self, way, sent, left):
        # Whoever sends them one by one has not written as many tokens as deltas.
        one = player(way, temperature=1, max_tokens=20).connect()
        one.say(*sent).cut().connect()
        assert asked(one)["max_tokens"] == left

    def test_nor_are_thoughts_that_are_thought_anew(self):
        one = player("prefill", temperature=1, max_tokens=20).connect()
        one.send(thought("Well"), thought(" then"), text("One two")).cut().connect()
        assert asked(one)["max_tokens"] == 18

    def test_nor_is_what_the_caller_began(self):
        begun = [
            {"role": "user", "content": PROMPT},
            {"role": "assistant", "content": "Well, then"},
        ]
        one = player(
            "prefill", temperature=1, max_tokens=20, prompt=begun, profile=MISTRAL
        )
        one.connect().say(*"Well, then one").cut().connect()
        assert last_message(one)["content"] == "Well, then one"
        assert asked(one)["max_tokens"] == 19

    def test_of_a_short_text_all_is_written_again(self):
        one = player("prefill", max_tokens=10).connect().say("One", " two").cut()
        one.connect()
        assert asked(one)["max_tokens"] == 10
        assert "continue_final_message" not in asked(one)
        one.send(text("One two three"), finish(), DONE)
        assert one.completion.text == "One two three"
        assert one.completion.guarantee is Guarantee.VERIFIED

    def test_where_all_of_it_is_written_nothing_can_be_asked_for(self):
        one = player("prefill", "stitch", temperature=1, max_tokens=2)
        one.connect().say("One", " two").cut()
        assert isinstance(one.error, StreamInterrupted)

    @pytest.mark.parametrize("sizes", [None, [97]])
    @pytest.mark.parametrize(
        "way",
        [way for way in EXACT if "verified continue" in way.name],
        ids=str,
    )
    def test_the_answer_ends_no_earlier_than_it_would_have(self, way, sizes):
        whole = Laboratory(text=TEXT, max_tokens=15, **way.asked).run(way.script)
        assert whole.completion.finish_reason == "length"
        for place in places(whole.bodies[0]):
            one = Laboratory(text=TEXT, max_tokens=15, **way.asked)
            one.run(way.script, place, sizes=sizes).finish(way.script)
            assert one.text.startswith(whole.text), "no word is missing"
            assert TEXT.startswith(one.text)
            one.check(one.text)
            cut = "stop" if one.text == TEXT else "length"
            assert one.completion.finish_reason == cut

    @given(st.lists(st.lists(st.text("ab", min_size=1, max_size=9), min_size=1)))
    def test_the_last_pieces_are_known_whatever_came_together(self, batches):
        transcript = Transcript()
        pieces = [piece for batch in batches for piece in batch]
        for batch in batches:
            transcript.add([TextDelta(piece, 0) for piece in batch])
        whole = "".join(pieces)
        for offset in range(max(0, len(whole) - 200), len(whole) + 1):
            ends = [len("".join(pieces[: at + 1])) for at in range(len(pieces))]
            assert transcript.pieces_behind(offset) == sum(end > offset for end in ends)

    def test_no_more_of_them_is_kept(self):
        buffer = TextBuffer()
        for _ in range(10_000):
            buffer.append("abcd")
        assert 64 <= buffer.pieces_behind(0) <= 2048


class TestWhatIsNotExtended:
    @pytest.mark.parametrize(
        "body",
        [
            {"response_format": {"type": "json_object"}},
            {"guided_json": {"type": "object"}},
            {"guided_regex": "a+"},
            {"regex": "a+"},
            {"structured_outputs": {"json": {}}},
            {"structural_tag": "{}"},
            {"grammar": "root ::= 'a'"},
            {"json_schema": {}},
            {"format": "json"},
        ],
    )
    @pytest.mark.parametrize("way", ["prefill", "stitch"])
    @pytest.mark.parametrize("temperature", [0, 1])
    def test_an_answer_of_a_given_form(self, body, way, temperature):
        one = player(way, temperature=temperature, extra_body=body)
        one.connect().say('{"a": ').cut()
        assert isinstance(one.error, StreamInterrupted)

    @pytest.mark.parametrize("way", ["prefill", "stitch"])
    @pytest.mark.parametrize("temperature", [0, 1])
    def test_one_of_several(self, way, temperature):
        one = player(way, n=2, temperature=temperature).connect().say("One").cut()
        assert isinstance(one.error, StreamInterrupted)

    @pytest.mark.parametrize("way", ["prefill", "stitch"])
    @pytest.mark.parametrize(
        "sent",
        [
            [call(0, "look", '{"at":', "id")],
            [*whole_call(0, "look", {"at": 1}), call(1, "look", "", "id")],
        ],
    )
    def test_one_with_tool_calls(self, way, sent):
        one = player(way, temperature=1, tools=[WEATHER])
        one.connect().say("One").send(*sent).cut()
        assert isinstance(one.error, StreamInterrupted)

    def test_half_a_call_is_remembered_over_attempts_that_did_not_come_so_far(self):
        one = player("replay", "prefill", tools=[WEATHER])
        one.connect().say("One").send(call(0, "look", '{"at":', "id")).cut()
        one.connect().send(text("O")).cut()
        one.connect().send(text("Two"))
        assert isinstance(one.error, StreamInterrupted)

    def test_with_a_cursor_all_of_it_goes_on(self):
        one = Laboratory(text=None, n=2, temperature=1, resume=("cursor",), profile={})
        script = Script(ids="named")
        one.run(script, 0.4).run(script, 0.4).finish(script)
        (made,) = one.service.generations
        assert [each.text for each in one.completion.choices] == [
            each.text for each in made.answer.choices
        ]
        assert one.completion.guarantee is Guarantee.VERBATIM


class TestReasoning:
    def test_it_is_thought_anew_and_kept_apart(self):
        one = player("prefill", temperature=1).connect()
        one.send(thought("hm"), text("One")).cut()
        one.connect().send(thought("again"), text(" two"), finish(), DONE)
        assert one.completion.text == "One two"
        assert one.completion.reasoning == "again"
        assert one.reader.reasoning == {0: ["hm", "again"]}

    def test_what_was_thought_for_an_answer_that_never_came_is_withdrawn(self):
        for first, channel in (
            (thought("hm"), "reasoning"),
            (refusal("I can"), "refusal"),
        ):
            one = player("replay").connect().send(first).cut()
            one.connect().send(text("One"), finish(), DONE)
            (answer,) = one.completion.choices
            assert (answer.text, getattr(answer, channel)) == ("One", "")
            kind = f"{channel.title()}Delta"
            deltas = [name for name in one.names if "Delta" in name]
            assert deltas == [kind, kind, "TextDelta"]

    def test_and_by_what_is_thought_anew_without_a_word(self):
        one = player("replay").connect().send(thought("hm"), thought(", no")).cut()
        one.connect().send(thought("so"), text("One"), finish(), DONE)
        assert one.completion.reasoning == "so"
        said = [each.text for each in one.log if isinstance(each, ReasoningDelta)]
        assert said == ["hm", ", no", "so"]

    def test_nor_does_it_outlive_an_answer_without_any(self):
        one = player("replay").connect().send(thought("hm")).cut()
        one.connect().cut().connect().send(finish(), DONE)
        assert one.completion.reasoning == ""

    @pytest.mark.parametrize("again", ["hm", "h", "hm, hm", "so", ""])
    @pytest.mark.parametrize("more", ["", " and so"])
    def test_behind_a_replay_it_is_that_of_the_answer_that_goes_on(self, again, more):
        one = player("replay").connect().send(thought("hm"), text("One")).cut()
        one.connect()
        one.send(*([thought(again)] if again else []), text("One two"))
        one.send(*([thought(more)] if more else []), text("."), finish(), DONE)
        assert one.completion.text == "One two."
        assert one.completion.reasoning == (again + more or "hm")

    @given(
        way=st.sampled_from(["replay", "prefill", "restart"]),
        attempts=st.lists(
            st.lists(st.none() | st.text("hm", min_size=1, max_size=3), max_size=12),
            max_size=4,
        ),
    )
    def test_the_events_amount_to_what_the_answer_says(self, way, attempts):
        """The reader of each player folds them, and compares at the end."""
        # None is the next word of the text; all else is thought.
        one, text_ = player(way), " ".join(BEGUN.split() * 2)
        for last, attempt in enumerate([*attempts, [None] * 20], 1 - len(attempts)):
            one.connect()
            begun = last_message(one)["content"]
            words = re.findall(r"\s*\S+", text_.removeprefix(begun))
            for each in attempt:
                if each or words:
                    one.send(thought(each) if each else text(words.pop(0)))
            one.send(finish(), DONE) if last == 1 else one.cut()
        assert one.completion.text == text_
        assert one.reader.asides.get((ReasoningDelta, 0), "") == (
            one.completion.reasoning
        )

    def test_behind_a_cursor_it_goes_on(self):
        model = "deepseek-reasoner"
        one = Laboratory(length=30, temperature=1, resume=("cursor",), model=model)
        script = Script(ids="plain")
        one.run(script, 0.2).run(script, 0.1).finish(script)
        (made,) = one.service.generations
        assert one.completion.reasoning == made.answer.reasoning
        assert one.completion.text == made.text
        assert one.completion.guarantee is Guarantee.VERBATIM


class TestOrder:
    def test_the_ways_are_tried_as_they_were_given(self):
        for resume in (("replay", "prefill"), ("prefill", "replay")):
            one = player(*resume).connect().say(BEGUN).cut().connect()
            assert ("continue_final_message" in asked(one)) is (resume[0] == "prefill")

    @pytest.mark.parametrize("status", [400, 404, 422])
    def test_one_that_is_refused_is_gone_and_the_next_is_tried(self, status):
        one = player("prefill", "replay").connect().say("One two").cut()
        one.refuse(status).connect()
        assert "continue_final_message" not in asked(one)
        one.say("One two", " three").cut().connect()
        assert "continue_final_message" not in asked(one), "it stays gone"
        one.send(text("One two three"), finish(), DONE)
        assert ways_of(one) == ["replay", "replay"]

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_one_that_was_not_answered_is_tried_again(self, status):
        one = player("prefill", "replay").connect().say(BEGUN).cut()
        one.refuse(status).connect()
        assert "continue_final_message" in asked(one)

    def test_a_mismatch_goes_once_without_the_rewinding(self):
        one = player("prefill").connect().say("One two").cut()
        one.connect().send(text(" three"))
        one.connect()
        assert last_message(one)["content"] == "One two"
        one.send(text(" three"), finish(), DONE)
        assert one.completion.text == "One two three"
        assert one.completion.guarantee is Guarantee.CONTINUED

    def test_the_weakest_seam_is_what_the_text_is_worth(self):
        one = player("prefill", "restart", temperature=1)
        one.connect().say("One").cut()
        one.connect().say(" two").cut()
        one.refuse(400)
        one.answer(text("Eins"), finish(), DONE)
        assert ways_of(one) == ["prefill", "restart"]
        assert one.completion.guarantee is Guarantee.RESTARTED
        assert one.completion.text == "Eins"

    @pytest.mark.parametrize(
        ("least", "way"),
        [
            (Guarantee.VERBATIM, None),
            (Guarantee.REPLAYED, "replay"),
            (Guarantee.VERIFIED, "prefill"),
            (Guarantee.CONTINUED, "prefill"),
        ],
    )
    def test_only_what_is_worth_enough_is_tried(self, least, way):
        one = player("stitch", "restart", "prefill", "replay", min_guarantee=least)
        one.connect().say(BEGUN).cut()
        if way is None:
            assert isinstance(one.error, GuaranteeNotMet)
            assert "'stitch'" in str(one.error)
            assert one.error.partial_text == BEGUN
        else:
            one.connect()
            assert ("continue_final_message" in asked(one)) is (way == "prefill")

    def test_what_is_worth_less_is_not_tried_after_a_mismatch(self):
        least = Guarantee.VERIFIED
        one = player("prefill", min_guarantee=least).connect().say("One two").cut()
        one.connect().send(text(" three"))
        assert isinstance(one.error, GuaranteeNotMet)
        assert one.error.partial_text == one.text == "One two"


class TestStitching:
    def test_it_asks_in_a_turn_of_its_own(self):
        one = player("stitch", temperature=1).connect().say('One "two"').cut()
        one.connect()
        said, asks = asked(one)["messages"][-2:]
        assert said == {"role": "assistant", "content": 'One "two"'}
        assert asks["role"] == "user"
        assert '"One \\"two\\""' in asks["content"]
        one.send(text(" three"), finish(), DONE)
        assert one.completion.text == 'One "two" three'
        assert one.completion.guarantee is Guarantee.STITCHED

    def test_not_behind_a_message_that_the_caller_has_begun(self):
        begun = [
            {"role": "user", "content": PROMPT},
            {"role": "assistant", "content": "Well,"},
        ]
        one = player("stitch", temperature=1, prompt=begun)
        one.connect().say(" One").cut()
        assert isinstance(one.error, StreamInterrupted)

    def test_an_answer_that_begins_anew_is_none(self):
        one = player("stitch", "restart", temperature=1)
        one.connect().say("Sure, here it is").cut()
        one.connect().say("Sure, here ", "it is: One")
        one.answer(text("Anew"), finish(), DONE)
        assert ways_of(one) == ["restart"]
        assert one.text == "Anew"


def weighed(content, offset=0):
    made = choice(content=content)
    tokens = [{"token": content, "logprob": -1.0}]
    return chunk({**made, "logprobs": {"content": tokens}})


class TestLogprobs:
    def test_each_token_has_one_and_none_has_two(self):
        two = " two times seventeen"
        for way, again in (("prefill", two), ("replay", f"One{two}")):
            one = player(way).connect()
            one.send(weighed("One")).send(weighed(two)).cut()
            one.connect().send(weighed(again)).send(weighed(" three"))
            one.send(weighed(" four"), finish(), DONE)
            found = [each for each in one.log if isinstance(each, Logprobs)]
            assert [(each.offset, each.tokens[0].token) for each in found] == [
                (0, "One"),
                (3, two),
                (23, " three"),
                (29, " four"),
            ]


class TestCosts:
    """What it says it cost, against what the simulator generated and read."""

    def prompt_tokens(self, lab):
        return lab.service.generations[0].answer.usage["prompt_tokens"]

    def test_without_an_interruption(self):
        lab = Laboratory(text=TEXT).run()
        assert lab.completion.interruption_costs == ()
        assert lab.completion.total_usage == lab.completion.usage

    def test_a_cursor_wastes_nothing(self):
        lab = Laboratory(text=TEXT, resume=("cursor",))
        script = Script(ids="named")
        lab.run(script, 0.5)
        held = lab.exchange.transcript.written
        lab.finish(script)
        (made,) = lab.service.generations
        (cost,) = lab.completion.interruption_costs
        assert cost.strategy == "cursor"
        assert cost.wasted_prompt_tokens == cost.wasted_completion_tokens == 0
        assert cost.saved_completion_tokens == held
        assert lab.completion.usage.total_tokens == made.answer.usage["total_tokens"]
        assert lab.completion.total_usage == lab.completion.usage

    def test_a_prefill_reads_again_what_was_written(self):
        lab = Laboratory(text=TEXT, resume=("prefill",), profile=VLLM)
        script = Script(prefill="continue", tokens=True)
        lab.run(script, 0.5)
        held = lab.exchange.transcript.written
        lab.finish(script)
        first, made = lab.service.generations
        (cost,) = lab.completion.interruption_costs
        assert cost.strategy == "prefill"
        whole = first.answer.usage["completion_tokens"]
        saved = whole - made.answer.usage["completion_tokens"]
        assert cost.saved_completion_tokens == saved
        assert cost.wasted_completion_tokens == held - saved > 0
        assert (
            lab.completion.usage.completion_tokens
            == (made.answer.usage["completion_tokens"])
        )
        spent = lab.completion.total_usage
        assert spent.completion_tokens == (
            held + made.answer.usage["completion_tokens"]
        )
        assert spent.estimated

    def test_a_replay_wastes_what_was_written(self):
        lab = Laboratory(text=TEXT, resume=("replay",))
        lab.run(cut=0.5)
        held = lab.exchange.transcript.written
        lab.finish()
        first, second = lab.service.generations
        (cost,) = lab.completion.interruption_costs
        assert cost.strategy == "replay"
        assert cost.wasted_completion_tokens == held
        assert cost.saved_completion_tokens == 0
        assert cost.wasted_prompt_tokens == first.answer.usage["prompt_tokens"]
        spent = lab.completion.total_usage
        usage_ = second.answer.usage
        assert spent.prompt_tokens == 2 * usage_["prompt_tokens"]
        assert spent.completion_tokens == held + usage_["completion_tokens"]

    def test_an_attempt_that_never_began_costs_nothing(self):
        lab = Laboratory(text=TEXT, resume=("replay",))
        lab.run(Script(status=503)).finish()
        (cost,) = lab.completion.interruption_costs
        assert (cost.strategy, lab.completion.wasted_tokens) == ("retry", 0)
        assert lab.completion.total_usage == lab.completion.usage
