"""The rules that find where a text joins on, on any text."""

from __future__ import annotations

import sys

import pytest
from hypothesis import assume, event, example, given, strategies as st

from holystream.events import (
    Guarantee,
    Logprobs,
    Resumed,
    TextDelta,
    TokenLogprob,
    ToolCall,
)
from holystream.resume import SeamMismatch
from holystream.resume.base import BegunAnew
from holystream.resume.held import HeldSeam
from holystream.resume.prefill import PrefixRule, rewound
from holystream.resume.stitch import OverlapRule

LONG = "The beginning of an answer that is long enough"


def fed(rule, new, *, sizes=(1,)):
    """What a rule decides of a text that comes in pieces; the last one ends it."""
    at = turn = 0
    while at < len(new):
        at = min(len(new), at + sizes[turn % len(sizes)])
        turn += 1
        if (skipped := rule.skip(new[:at], ended=False)) is not None:
            return skipped, at
    skipped = rule.skip(new, ended=True)
    assert skipped is not None, "what has ended is decided"
    return skipped, at


def skipped(rule, new, **options):
    return fed(rule, new, **options)[0]


def proven(begun, tail, *, said=None, echoes=False):
    said = begun if said is None else said
    return PrefixRule(begun, tail, said=said, echoes=echoes, must_repeat=True)


def going_on(begun, tail="", *, said=None, echoes=False):
    said = begun if said is None else said
    return PrefixRule(begun, tail, said=said, echoes=echoes, must_repeat=False)


class TestAPrefixWithItsTail:
    @pytest.mark.parametrize("echoes", [True, False])
    def test_the_tail_comes_again_with_the_prefix_or_without(self, echoes):
        rule = proven("One", " two", echoes=echoes)
        assert skipped(rule, " two three") == 4
        assert skipped(rule, "One two three") == 7

    @pytest.mark.parametrize(
        "new", [" tw", " twice", "two", "One", "One tw", "One twice", "", "x"]
    )
    def test_nothing_else_is_joined(self, new):
        with pytest.raises(SeamMismatch, match="last words"):
            fed(proven("One", " two", echoes=True), new)

    @pytest.mark.parametrize(
        ("begun", "tail"), [(" ha ha", " ha"), ("haha", "ha"), ("a" * 80, "a")]
    )
    @pytest.mark.parametrize("echoes", [True, False])
    def test_a_text_that_repeats_itself_may_join_in_two_places(
        self, begun, tail, echoes
    ):
        rule = proven(begun, tail, echoes=echoes)
        with pytest.raises(SeamMismatch, match="two places"):
            fed(rule, begun + tail + tail)
        # Too short for all of it again; but another answer may begin as this one did.
        if (begun + tail).startswith(tail):
            with pytest.raises(SeamMismatch, match="two places"):
                fed(rule, f"{tail}.")
        else:
            assert skipped(rule, f"{tail}.") == len(tail)

    def test_what_the_caller_began_may_come_again_or_not(self):
        rule = proven("Well, one", " two", said=" one")
        for new in ("Well, one two", " one two", " two"):
            assert skipped(rule, f"{new} three") == len(new)

    @pytest.mark.parametrize("new", [LONG[:20], f"{LONG[:20]}?", f"{LONG}?"])
    def test_what_the_answer_began_with_is_told_from_what_is_just_not_the_rest(
        self, new
    ):
        with pytest.raises(BegunAnew):
            fed(proven(LONG, " by far"), new)
        with pytest.raises(SeamMismatch) as refused:
            fed(proven(LONG, f" {LONG}"), f" {LONG[:-1]}?")
        assert not isinstance(refused.value, BegunAnew)
        with pytest.raises(SeamMismatch) as refused:
            fed(proven("", LONG), f"{LONG[:-1]}?")
        assert not isinstance(refused.value, BegunAnew), "nothing was given"

    def test_without_a_prefix_it_is_the_answer_from_its_beginning(self):
        assert skipped(proven("", "One"), "One two") == 3

    @given(
        st.text("ab ", max_size=6), st.text("ab ", min_size=1, max_size=4), st.data()
    )
    def test_what_it_skips_is_what_was_delivered(self, begun, tail, data):
        new = data.draw(
            st.text("ab ", max_size=14) | st.text("ab ").map((begun + tail).__add__)
        )
        try:
            skip = skipped(proven(begun, tail), new)
        except SeamMismatch:
            event("refused")
            echoed, plain = new.startswith(begun + tail), new.startswith(tail)
            assert not echoed or plain
            assert not plain or (begun + tail).startswith(tail)
        else:
            assert new[:skip] in (tail, begun + tail)
            other = {tail, begun + tail} - {new[:skip]}
            assert not any(new.startswith(each) for each in other)


class TestAPrefixAlone:
    def test_what_comes_goes_on(self):
        assert skipped(going_on("One"), " two") == 0

    @pytest.mark.parametrize(
        ("new", "skip"), [(" x", 1), ("  x", 2), ("   x", 2), ("x", 0)]
    )
    def test_white_space_that_comes_again_is_not_doubled(self, new, skip):
        assert skipped(going_on("One", "  "), new) == skip

    def test_no_other_is_trimmed(self):
        assert skipped(going_on("One two", " "), "two three") == 0
        assert skipped(going_on("One two", "\n"), " three") == 0

    def test_a_known_echo_is_stripped_however_short(self):
        rule = going_on("O", " ", echoes=True)
        assert skipped(rule, "O ne") == 2
        assert skipped(rule, "One") == 1
        assert skipped(rule, " ne") == 1

    def test_an_unknown_echo_is_stripped_if_it_is_two_words_or_long(self):
        for begun in (
            LONG,
            LONG[:31],
            "It is",
            "I am",
            "Evidently",
            "空の青さは光の散乱",
        ):
            assert skipped(going_on(begun), f"{begun} and more") == len(begun)
            assert skipped(going_on(begun, " "), f"{begun} and more") == len(begun) + 1
            assert skipped(going_on(f"So {begun}", said=begun), f"{begun}!") == len(
                begun
            )
        # Too short to know: it may go on like that.
        for begun in ("I", "The", "Perhaps"):
            assert skipped(going_on(begun), f"{begun} and more") == 0

    @pytest.mark.parametrize(
        ("begun", "tail"),
        [("ha " * 19 + "ha", " "), ("ab" * 40, ""), ("no no", " "), ("ha ha ha", "")],
    )
    def test_one_that_repeats_itself_may_do_so_once_more_or_be_made_anew(
        self, begun, tail
    ):
        for new in (f"{begun}{tail}{begun}", f"{begun}{tail}!", begun):
            with pytest.raises(SeamMismatch, match="repeats itself"):
                fed(going_on(begun, tail), new)
        assert skipped(going_on(begun, tail), f"{begun[:4]}!") == 0
        end = f"{begun} is it"
        assert skipped(going_on(end, tail), f"{end}{tail}{begun}") == len(end + tail)

    def test_part_of_an_echo_is_held_and_then_no_answer(self):
        rule = going_on(LONG)
        assert rule.skip(LONG[:40], ended=False) is None
        with pytest.raises(SeamMismatch, match="came back"):
            rule.skip(LONG[:40], ended=True)
        with pytest.raises(SeamMismatch, match="came back"):
            rule.skip(LONG[:8], ended=True)
        assert rule.skip(LONG[:5], ended=True) == 0
        assert rule.skip(f"{LONG[:5]}?", ended=False) == 0

    def test_an_answer_that_is_begun_anew_is_none(self):
        for new in (f"{LONG[:32]}?", f"{LONG[:-1]}?"):
            with pytest.raises(BegunAnew):
                fed(going_on(LONG), new)
            with pytest.raises(BegunAnew):
                fed(going_on(f"Well, {LONG}", said=LONG), new)
            # What it said twice it may say three times.
            assert skipped(going_on(f"{LONG[:40]}. {LONG}"), new) == 0
        assert skipped(going_on(LONG), f"{LONG[:31]}?") == 0

    def test_a_huge_text_is_looked_at_in_linear_work(self):
        # Which period it has, if any, took the square of its length.
        begun = "ab" * 100_000 + "c"
        assert going_on(begun).skip(f"{begun}d", ended=False) == len(begun)

    def test_and_no_more_than_once(self):
        begun = LONG + "".join(f" {number}" for number in range(3000))
        rule = going_on(begun)
        looked = 0

        def count(frame, what, _):
            nonlocal looked
            looked += what == "line"
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            for end in range(0, len(begun), 4):
                assert rule.skip(begun[:end], ended=False) is None
            assert rule.skip(f"{begun} and", ended=False) == len(begun)
        finally:
            sys.settrace(before)
        assert looked < 40 * len(begun)

    @given(st.text("ab", max_size=7), st.sampled_from(["", " ", "  "]), st.text("ab "))
    def test_short_texts_are_joined_as_they_come(self, begun, tail, new):
        skip = skipped(going_on(begun, tail), new)
        assert tail.startswith(new[:skip])
        assert new[skip : skip + 1] != tail[skip : skip + 1] or skip == len(tail)


def nowhere(_):
    return False


class TestRewinding:
    @pytest.mark.parametrize(
        ("text", "start"),
        [
            ("Zero one seventeen three", "Zero"),
            ("Zero one seventeen three \n", "Zero"),
            ("Zero  one seventeen three", "Zero"),
            ("Zero\n\none seventeen three", "Zero"),
            ("Zero\u2028one seventeen three", "Zero"),
            ("Zero one two three four five", "Zero one two"),
            ("Zero internationalization reconsidered", "Zero"),
            ("Zero", ""),
            ("One two three", ""),
            ("One seventeen-eighteen", ""),
            (" One", ""),
            ("", ""),
        ],
    )
    def test_by_some_words_with_the_white_space_before_them(self, text, start):
        assert text[: rewound(text, nowhere)] == start

    def test_a_text_without_spaces_by_some_pieces(self):
        text = (
            "天を見上げると青い色が広がる。光は空気の中で散らばり、波の短いものほど強く曲がる"
            "からである。夕方には光が長い道を通り、赤い色だけが目に届く"
        )
        assert rewound(text, {3, 7, len(text) - 17, len(text) - 15}.__contains__) == (
            len(text) - 17
        )
        assert rewound(text, nowhere) == 0
        assert rewound(f"One {text}", {20}.__contains__) == 20
        # Pieces may be parts of words, so a short text is better written again.
        assert rewound("Zero unreconsiderable", {3}.__contains__) == 0
        assert rewound(text[:64], {30}.__contains__) == 0

    def test_no_part_that_the_text_began_with(self):
        refrain = " And so it goes."
        text = f"{refrain} The sun went down.{refrain}"
        assert text[rewound(text, nowhere) :] == f" down.{refrain}"
        assert rewound("東京" * 40, {40, 60}.__contains__) == 0

    @given(
        st.text("ab \n東", max_size=200),
        st.sets(st.integers(0, 200)),
    )
    def test_what_is_written_again_is_a_proof(self, text, pieces):
        start = rewound(text, pieces.__contains__)
        assert 0 <= start <= len(text)
        if start:
            tail = text[start:].rstrip()
            assert len(tail) >= 16
            # Whoever begins as this text does goes on otherwise for as long.
            assert not tail.startswith(text[: len(tail) - 15])
            if start not in pieces:
                assert text[start].isspace()
                assert not text[start - 1].isspace()


class TestABeginningThatIsMadeAnew:
    @given(
        st.lists(st.sampled_from(["a", "b ", "ab ", "東", " "]), max_size=80),
        st.integers(0, 300),
        st.text("ab 東", max_size=15),
    )
    @example(["ab "] * 20, 59, "")
    def test_is_never_gone_on_with_unless_it_brings_all_again(self, pieces, at, more):
        """At any place it differs, and then resembles any part by chance."""
        text = "".join(pieces)
        ends = {len("".join(pieces[:end])) for end in range(len(pieces))}
        start = rewound(text, ends.__contains__)
        rule = proven(text[:start], text[start:])
        new = f"{text[:at]}{more}~"
        if new.startswith(text):
            assert skipped(rule, new) == len(text)
        else:
            with pytest.raises(SeamMismatch):
                fed(rule, new)


TAIL = "and so the story went on for many a year"


class TestOverlaps:
    def test_what_is_repeated_of_the_tail_is_dropped(self):
        rule = OverlapRule(f"Once upon a time {TAIL}")
        assert skipped(rule, f"{TAIL} and ended") == len(TAIL)
        assert skipped(rule, f"{TAIL[8:]}.") == len(TAIL) - 8

    def test_if_it_is_long_enough(self):
        rule = OverlapRule(f"Once upon a time {TAIL}")
        assert skipped(rule, f"{TAIL[-24:]}!") == 24
        assert skipped(rule, f"{TAIL[-23:]}!") == 0

    def test_if_it_covers_a_word(self):
        rule = OverlapRule("x" + "abcdefghijklmnopqrstuvwxyz")
        assert skipped(rule, "abcdefghijklmnopqrstuvwxyzabc") == 0
        assert skipped(rule, "abcdefghijklmnopqrstuvwxyz abc") == 26
        kana = "東京の言葉は長い文字の流れであり空白を知らない一つの言葉"
        assert skipped(OverlapRule(f"前{kana}"), f"{kana}として") == len(kana)

    def test_if_the_text_does_not_repeat_itself(self):
        verse = "row row row your boat ahoy "
        rule = OverlapRule(f"Sing: {verse}{verse}")
        assert skipped(rule, f"{verse}gently") == 0
        # Said again, or sung four times.
        assert skipped(rule, f"{verse}{verse}gently") == 0

    @pytest.mark.parametrize(
        ("text", "cut"),
        [("ha " * 60, 100), ("ha " * 30, 45), ("天地玄黄" * 20, 45)]
        + [("- item: yes\n" * 12, cut) for cut in (24, 30, 48, 70, 80, 120)],
    )
    @pytest.mark.parametrize("before", ["", "It goes like this: "])
    def test_nor_goes_on_to(self, text, cut, before):
        rule = OverlapRule(before + text[:cut])
        assert skipped(rule, f"{text[cut:]}!") == 0

    def test_nor_says_the_same_twice(self):
        refrain = "and that is all there is to it. "
        said = "".join(f"verse {number}, " for number in range(60))
        rule = OverlapRule(f"Oh, {refrain}{said}{refrain}")
        assert skipped(rule, f"{refrain}The end.") == 0
        # Its beginning and its end are the same: one of them may be all that is said.
        rule = OverlapRule(f"Oh, {refrain}Never doubt it, {refrain}")
        assert skipped(rule, f"{refrain}Never doubt it, {refrain}The end.") == 0
        # But it is no matter if its end is found within it.
        once = f"And so on, {refrain}Never doubt it, {refrain}"
        assert skipped(OverlapRule(f"Oh, {once}"), f"{once}The end.") == len(once)

    def test_only_at_the_start_of_what_comes(self):
        rule = OverlapRule(f"Once upon a time {TAIL}")
        assert skipped(rule, f"Sure: {TAIL} and") == 0

    def test_only_of_the_last_512_characters(self):
        text = "".join(f"{number} " for number in range(1000))
        assert skipped(OverlapRule(text), text[-512:] + "x") == 512
        assert skipped(OverlapRule(text), text[-513:] + "x") == 0

    @pytest.mark.parametrize("text", [f"Once {TAIL}", f"Once {TAIL} " * 30, "Sure, so"])
    def test_an_answer_that_is_begun_anew_is_none(self, text):
        rule = OverlapRule(text)
        with pytest.raises(SeamMismatch, match="anew"):
            fed(rule, text[:40] + "~")

    @pytest.mark.parametrize("text", ["S", "Sure"])
    def test_nor_is_that_of_a_short_one(self, text):
        # It may go on like that; it may as well have begun anew.
        with pytest.raises(SeamMismatch, match="anew"):
            fed(OverlapRule(text), f"{text}, here it is")

    def test_the_whole_of_a_text_may_be_repeated_as_its_tail(self):
        assert skipped(OverlapRule(TAIL), f"{TAIL} and ended") == len(TAIL)

    @given(
        st.text("ab 東", min_size=1, max_size=60),
        st.integers(0, 60),
        st.text("ab 東", max_size=40),
    )
    @example("a" * 30, 25, "a")
    def test_what_is_dropped_is_an_overlap_by_the_rules(self, text, overlap, rest):
        new = text[len(text) - min(overlap, len(text)) :] + rest
        try:
            skip, seen = fed(OverlapRule(text), new)
        except SeamMismatch:
            assert new.startswith(text[:32])
            return
        assert text.endswith(new[:skip])
        assert skip == 0 or skip >= 24
        assert seen <= len(new)


def seam(text, rule=None, *, stops=()):
    rule = rule or going_on(text)
    return HeldSeam(
        text, rule, strategy="prefill", guarantee=Guarantee.CONTINUED, stops=stops
    )


def deltas(*texts):
    found, offset = [], 0
    for each in texts:
        found.append(TextDelta(each, offset))
        offset += len(each)
    return found


def written(events):
    return "".join(map(str, events))


class TestSeams:
    def test_offsets_are_those_of_the_whole_text(self):
        joined = seam("One").join(deltas(" two", " three"))
        assert joined[1:] == [TextDelta(" two", 3), TextDelta(" three", 7)]
        assert joined[0] == Resumed(
            strategy="prefill", guarantee=Guarantee.CONTINUED, offset=3
        )

    def test_what_was_dropped_is_told(self):
        (resumed, rest) = seam("One", proven("O", "ne")).join(deltas("ne", " two"))
        assert resumed.dropped == "ne"
        assert rest == TextDelta(" two", 3)

    def test_a_delta_across_the_seam_is_divided(self):
        joined = seam("One", proven("O", "ne")).join(deltas("n", "e tw", "o"))
        assert joined[1:] == [TextDelta(" tw", 3), TextDelta("o", 6)]

    def test_log_probabilities_of_what_came_before_are_left_out(self):
        weighed = [
            TextDelta("ne", 0),
            Logprobs(tokens=(TokenLogprob(token="ne", logprob=-1.0),), offset=0),
            TextDelta(" two", 2),
            Logprobs(tokens=(TokenLogprob(token=" two", logprob=-2.0),), offset=2),
        ]
        joined = seam("One", proven("O", "ne")).join(weighed)
        (left,) = (each for each in joined if isinstance(each, Logprobs))
        assert left.offset == 3
        assert left.tokens[0].token == " two"

    def test_nor_those_of_a_delta_that_was_divided(self):
        weighed = [
            TextDelta("ne two", 0),
            Logprobs(tokens=(TokenLogprob(token="ne two", logprob=-1.0),), offset=0),
        ]
        joined = seam("One", proven("O", "ne")).join(weighed)
        assert not [each for each in joined if isinstance(each, Logprobs)]

    def test_a_tool_call_closes_it(self):
        call = ToolCall(
            call_index=0, id="x", name="look", arguments={}, arguments_json="{}"
        )
        joined = seam("One", going_on("One", "  ")).join([*deltas(" "), call])
        assert [type(each) for each in joined] == [Resumed, ToolCall]
        with pytest.raises(SeamMismatch):
            seam("One", proven("O", "ne")).join([call])

    @pytest.mark.parametrize(
        ("text", "stop", "new", "rest"),
        [
            ("One EN", "END", "D more", ""),
            ("One EN", "END", "d more", "d more"),
            ("One E", "END", "ND", ""),
            ("One", "END", "END", "END"),
            ("aa", "aab", "b", ""),
            ("aa", "aaab", "ab", ""),
            ("One\n", "\n\n", "\ntwo", ""),
        ],
    )
    @pytest.mark.parametrize("size", [1, 9])
    def test_a_stop_string_across_it_ends_the_answer(self, text, stop, new, rest, size):
        cut = seam(text, going_on(""), stops=[stop])
        texts = [new[at : at + size] for at in range(0, len(new), size)]
        joined = cut.join(deltas(*texts))
        assert cut.stopped is (not rest)
        assert written(joined) == rest

    def test_half_a_stop_string_at_the_end_is_text(self):
        cut = seam("One E", stops=["END"])
        assert cut.join(deltas("N")) == []
        assert written(cut.finish()) == "N"
        assert not cut.stopped

    @given(
        st.text("ab", min_size=1, max_size=6),
        st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5),
        st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    )
    def test_any_stop_strings(self, text, texts, stops):
        """The text ends where it would if one had looked at all of it."""
        assume(not any(stop in text for stop in stops))
        cut = seam(text, going_on(""), stops=stops)
        new = "".join(texts)
        joined = [*cut.join(deltas(*texts))]
        joined += cut.finish()
        across = any(
            (text + new).find(stop, len(text) - size) == len(text) - size
            for stop in stops
            for size in range(1, len(stop))
            if text.endswith(stop[:size])
        )
        assert cut.stopped is across
        assert written(joined) == ("" if across else new)
