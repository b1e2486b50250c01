"""Seams, one rule at a time: what the new connection must bring to be joined."""

from __future__ import annotations

import re

import pytest
from exchange_player import (
    DONE,
    Player,
    finish,
    role,
    text,
)
from laboratory import TIRELESS

from holystream.errors import MalformedEvent, StreamInterrupted
from holystream.events import Guarantee, Interrupted, Resumed
from holystream.providers.profile import Prefill
from holystream.wire.sse import ServerSentEvent

VLLM = {"prefill": Prefill(spelling="continue_final_message")}


def named(number, data, answer="chatcmpl-1", model="m-2024"):
    """A chunk with an id that is a number."""
    data = data.replace(b"chatcmpl-1", answer.encode()).replace(
        b"m-2024", model.encode()
    )
    return ServerSentEvent(data, id=str(number))


class TestAnswersThatWereRefuted:
    def test_no_cursor_goes_on_with_an_answer_that_is_another_one(self):
        # Where it differs was read and thrown away; what follows fits by chance.
        player = Player(resume=("cursor", "replay"), retry=TIRELESS)
        player.connect().say("abc").cut()
        player.connect().send(named(1, text("aX"), "chatcmpl-2"))
        assert player.over, "there is no other way than the replay"
        assert isinstance(player.error, StreamInterrupted)
        assert player.error.partial_text == player.text == "abc"

    def test_what_a_cursor_goes_on_with_is_refuted_by_the_seam_it_goes_on_behind(self):
        player = Player(resume=("replay", "cursor", "restart"), retry=TIRELESS)
        player.connect().say("abc").cut()
        player.connect().send(named(1, text("a"), "chatcmpl-2")).cut()
        # A replay is asked for again; by choice of the order, not by the cursor.
        assert player.exchange.next_request.last_event_id == ""
        player = Player(resume=("cursor", "replay", "restart"), retry=TIRELESS)
        player.connect().say("abc").cut()
        player.connect().send(named(1, text("a"), "chatcmpl-2")).cut()
        player.connect()
        assert player.exchange.next_request.last_event_id == "1"
        player.send(named(2, text("X"), "chatcmpl-2"))
        player.answer(text("anew"), finish(), DONE)
        assert player.text == "anew"
        assert player.completion.guarantee is Guarantee.RESTARTED

    def test_a_cursor_that_was_not_refuted_goes_on(self):
        player = Player(resume=("cursor", "prefill"), profile=VLLM, retry=TIRELESS)
        player.connect().say("It was a ", "dog").cut()
        player.connect().send(named(1, text(" cat"), "chatcmpl-2"))
        player.connect()
        assert player.exchange.next_request.last_event_id == ""
        player.send(named(1, text(" and"), "chatcmpl-3")).cut()
        player.connect()
        assert player.exchange.next_request.last_event_id == "1"
        player.send(named(2, text(" more"), "chatcmpl-3"))
        player.send(named(3, finish(), "chatcmpl-3"), named(4, DONE))
        assert player.text == "It was a dog and more"
        assert player.completion.guarantee is Guarantee.CONTINUED


POEM = (
    "天を見上げると青い色が広がる。光は空気の中で散らばり、波の短いものほど強く曲がる"
    "からである。夕方には光が長い道を通り、赤い色だけが目に届く、と我"
)
PROSE = "The sky looks blue to us, for air scatters light of that colour most. The"


class TestServersThatIgnoreAPrefill:
    """Against their profile: the answer they begin anew must never be spliced on."""

    @pytest.mark.parametrize(
        ("whole", "anew"),
        [
            (POEM, "我は知らない"),
            (POEM, "と我は知らない"),
            (PROSE, " The"),
            (PROSE, " The air is"),
            ("I think that it is so. I", " I"),
            ("I", "I do not know"),
        ],
    )
    def test_one_word_by_chance_proves_nothing(self, whole, anew):
        pieces = list(whole) if whole is POEM else re.findall(r"\s*\S+", whole)
        player = Player(
            resume=("prefill",),
            profile=VLLM,
            retry=TIRELESS,
            min_guarantee=Guarantee.VERIFIED,
        )
        player.connect().say(*pieces).cut()
        player.connect().send(*(text(each) for each in anew), finish(), DONE)
        if len(whole) == 1:
            # All of it came again, and went on: it is one answer.
            assert player.text == player.completion.text == anew
            return
        assert player.completion is None
        assert player.text == player.error.partial_text == whole

    def test_an_answer_that_begins_as_the_last_one_did_is_not_gone_on_with(self):
        # The second try would be a prefill as well, which nothing can prove.
        player = Player(resume=("prefill", "restart"), profile=VLLM, retry=TIRELESS)
        player.connect().say(*re.findall(r"\s*\S+", PROSE)).cut()
        player.connect().say("The sky looks ", "blue because")
        player.connect()
        assert "continue_final_message" not in player.exchange.next_request.body
        player.send(text("Anew"), finish(), DONE)
        assert player.completion.guarantee is Guarantee.RESTARTED
        assert player.text == "Anew"

    def test_nor_by_one_that_samples(self):
        player = Player(
            resume=("prefill",), profile=VLLM, retry=TIRELESS, temperature=1
        )
        player.connect().say(*re.findall(r"\s*\S+", PROSE)).cut()
        player.connect().say("The sky looks blue to us", ", for air", "?")
        assert player.completion is None
        assert player.text == player.error.partial_text == PROSE

    def test_one_that_brings_all_of_it_again_is_a_replay(self):
        player = Player(resume=("prefill",), profile=VLLM, retry=TIRELESS)
        player.connect().say(*re.findall(r"\s*\S+", PROSE)).cut()
        player.connect().say(*PROSE, " sun").send(finish(), DONE)
        assert player.text == player.completion.text == f"{PROSE} sun"
        assert player.completion.guarantee is Guarantee.VERIFIED

    def test_what_the_text_begins_with_proves_nothing_at_its_end(self):
        refrain = " And so it goes."
        whole = f"{refrain} And the sun went down behind the hill.{refrain}"
        player = Player(resume=("prefill",), profile=VLLM, retry=TIRELESS)
        player.connect().say(*re.findall(r"\s*\S+", whole)).cut()
        player.connect()
        begun = player.exchange.next_request.body["messages"][-1]["content"]
        tail = whole.removeprefix(begun)
        assert not whole.startswith(tail)
        assert len(tail) > len(refrain)


class TestAnotherAnswerOnOneConnection:
    def test_is_not_the_rest_of_the_first_one(self):
        player = Player(retry=TIRELESS).connect().send(role())
        player.say("One", " two").send(named("", role(), "chatcmpl-2"))
        player.send(named("", text(" drei"), "chatcmpl-2"))
        assert isinstance(player.last(Interrupted).error, MalformedEvent)
        assert "another answer" in str(player.last(Interrupted).error)
        assert player.text == "One two"
        player.answer(text("One two three"), finish(), DONE)
        assert player.completion.text == "One two three"
        assert player.completion.guarantee is Guarantee.REPLAYED


class TestModels:
    def test_another_model_does_not_go_on(self):
        player = Player(resume=("prefill",), profile=VLLM, temperature=1)
        player.connect().say("One ", "two").cut()
        player.connect().send(named("", text(" three"), model="other"))
        assert "another model" in str(player.error)

    def test_after_a_restart_it_is_the_model_that_wrote_anew(self):
        player = Player(
            resume=("prefill", "restart"), profile=VLLM, temperature=1, retry=TIRELESS
        )
        player.connect().say("One ", "two").cut()
        player.connect().send(named("", text(" three"), model="other"))
        player.connect().send(named("", text("Eins"), model="other")).cut()
        assert player.text == "Eins"
        player.connect()
        assert "continue_final_message" not in player.exchange.next_request.body


class TestCursorsThatBringNothing:
    @pytest.mark.parametrize("brought", [[], [named(1, text("a"))]])
    def test_the_second_time_the_next_way_is_gone(self, brought):
        player = Player(resume=("cursor", "replay"), retry=TIRELESS)
        player.connect().send(named(1, text("a"))).cut()
        for _ in range(2):
            player.connect()
            assert player.exchange.next_request.last_event_id == "1"
            if brought:
                player.send(*brought)
            player.close()
        player.connect()
        assert player.exchange.next_request.last_event_id == ""
        player.send(text("ab"), finish(), DONE)
        assert player.text == "ab"

    def test_but_not_when_it_brought_something_in_between(self):
        player = Player(resume=("cursor",), temperature=1, retry=TIRELESS)
        player.connect().send(named(1, text("a"))).cut()
        player.connect().close()
        player.connect().send(named(2, text("b"))).cut()
        player.connect().close()
        player.connect().send(named(3, text("c")), named(4, finish())).close()
        assert player.completion.guarantee is Guarantee.VERBATIM
        assert player.text == "abc"

    def test_a_cut_while_messages_wait_for_the_one_before_them_is_no_end(self):
        # The finish reason is here, and what lies behind it; what lies between is not.
        player = Player(resume=("cursor",), temperature=1, retry=TIRELESS)
        player.connect().send(named(1, text("a"))).cut()
        player.connect().send(named(2, finish()), named(4, text("c"))).cut()
        assert player.completion is None
        player.connect()
        assert player.exchange.next_request.last_event_id == "2"
        player.send(named(3, text("b")), named(4, text("c")), named(5, DONE))
        assert player.text == "abc"

    def test_an_empty_answer_ends_none_that_may_go_on_behind_its_finish_reason(self):
        early = {"early_stop": True}
        player = Player(resume=("cursor",), profile=early, retry=TIRELESS)
        player.connect().send(named(1, text("a")), named(2, finish())).cut()
        player.connect().close()
        assert player.completion is None
        player.connect().send(named(3, text("b")), named(4, finish()), named(5, DONE))
        assert player.text == "ab"

    def test_an_id_that_is_taken_back_makes_no_place(self):
        player = Player(resume=("cursor",), temperature=1, retry=TIRELESS)
        player.connect().send(named(1, text("a")))
        player.send(named(2, text("b")), named("", text("c")))
        player.cut().connect()
        assert player.exchange.next_request.last_event_id == "2"
        player.send(named("", text("c")), named("", text("d")), named("", finish()))
        player.close()
        assert player.text == player.completion.text == "abcd"

    def test_what_a_prefill_began_is_asked_for_as_it_was(self):
        player = Player(resume=("cursor", "prefill"), profile=VLLM, retry=TIRELESS)
        player.connect().say("One ", "two three forever").cut()
        player.connect().send(named(1, text(" two three forever"), "chatcmpl-2")).cut()
        player.connect()
        request = player.exchange.next_request
        assert request.last_event_id == "1"
        assert request.body["messages"][-1]["content"] == "One"
        player.send(named(2, text(" and"), "chatcmpl-2"))
        player.send(named(3, finish(), "chatcmpl-2"), named(4, DONE))
        assert player.text == "One two three forever and"
        guarantees = [
            each.guarantee for each in player.log if isinstance(each, Resumed)
        ]
        assert guarantees == [Guarantee.VERIFIED, Guarantee.VERBATIM]
        assert player.completion.guarantee is Guarantee.VERIFIED
