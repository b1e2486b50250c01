"""Going on over a new connection: the strategies, the seam, and storms of any weather.

The seam is proven on any text, delivered to any point, cut and sent in any pieces, any
number of times. The storms put all faults together: whatever comes, the reader ends
with one answer whole, or with an error and a true prefix of one.
"""

import dataclasses
from random import Random

import pytest
from exchange_player import (
    DONE,
    Player,
    call,
    error_event,
    finish,
    pieces,
    refusal,
    role,
    text,
    thought,
    usage,
)
from hypothesis import event, example, given, settings, strategies as st

from holystream.errors import ConfigurationError, Phase, StreamError, StreamInterrupted
from holystream.events import Guarantee, ReasoningDelta, TextDelta, ToolCall
from holystream.providers.base import ChatRequest
from holystream.providers.openai_chat import OpenAIChat
from holystream.providers.registry import PROFILES
from holystream.resilience.retry import RetryPolicy
from holystream.resume import (
    DEFAULT_STRATEGIES,
    STRATEGIES,
    SeamMismatch,
    Trail,
    strategies,
)
from holystream.transcript import Transcript
from holystream.wire.faults import FaultKind

TIRELESS = RetryPolicy(base=1.0, cap=1.0, jitter=None, attempts=99, total_attempts=None)


def request(*, deterministic=True):
    return ChatRequest(
        path="/", body={}, model="m", choices=1, deterministic=deterministic
    )


def delivered(*events):
    transcript = Transcript()
    transcript.add(events)
    return transcript


def join(name, transcript, *, deterministic=True):
    """What the first strategy of this name makes of what was delivered."""
    trail = Trail(
        request=request(deterministic=deterministic),
        provider=OpenAIChat(PROFILES["holysheep"]),
        transcript=transcript,
    )
    return STRATEGIES[name][0].join(trail)


def tool_call(place=0, name="look", arguments=None):
    return ToolCall(
        call_index=place,
        id=f"call_{place}",
        name=name,
        arguments=arguments or {},
        arguments_json="{}",
    )


class TestStrategiesByName:
    def test_they_come_in_the_order_given(self):
        found = strategies(["restart", "replay"])
        assert [strategy.name for strategy in found] == ["restart", "replay"]
        assert strategies(()) == ()

    def test_by_default_nothing_is_withdrawn_nor_guessed(self):
        assert DEFAULT_STRATEGIES == ("cursor", "prefill", "replay")

    def test_each_is_known_by_its_own_name(self):
        for name, ways in STRATEGIES.items():
            assert {way.name for way in ways} == {name}

    def test_of_two_ways_with_one_name_the_better_comes_first(self):
        for ways in STRATEGIES.values():
            worth = [way.guarantee for way in ways]
            assert worth == sorted(worth, reverse=True)

    @pytest.mark.parametrize("name", ["rewind", "", None, 5])
    def test_another_name_is_refused_and_told_the_known_ones(self, name):
        with pytest.raises(ConfigurationError, match=r"use 'cursor', 'prefill'"):
            strategies([name])

    def test_a_single_string_is_taken_for_the_mistake_it_is(self):
        with pytest.raises(ConfigurationError, match=r"a tuple .* \('cursor', 're"):
            strategies("replay")


class TestWhenTheyApply:
    def test_a_replay_needs_a_deterministic_request(self):
        assert join("replay", delivered()) is not None
        assert join("replay", delivered(), deterministic=False) is None

    def test_a_restart_needs_that_no_tool_call_was_delivered(self):
        assert join("restart", delivered(TextDelta("a", 0))) is not None
        assert join("restart", delivered(tool_call())) is None


class TestSeams:
    def test_a_restart_changes_nothing_behind_its_seam(self):
        transcript = delivered(TextDelta("old", 0))
        seam = join("restart", transcript).seam
        events = [TextDelta("n", 0), TextDelta("ew", 1)]
        assert seam.join(events)[2:] == events
        assert not seam.open
        assert transcript.text == ""

    def test_a_replay_does_not_touch_what_was_delivered(self):
        transcript = delivered(TextDelta("old", 0))
        seam = join("replay", transcript).seam
        seam.join([TextDelta("ol", 0)])
        assert seam.open
        assert transcript.text == "old"

    def test_text_that_was_added_later_is_not_compared(self):
        transcript = delivered(TextDelta("a", 0))
        seam = join("replay", transcript).seam
        transcript.add([TextDelta("b", 1)])
        (resumed,) = seam.join([TextDelta("a", 0)])
        assert resumed.offset == 1

    def test_a_delta_across_the_end_is_divided(self):
        seam = join("replay", delivered(TextDelta("abc", 0))).seam
        _, rest = seam.join([TextDelta("abcde", 0, 0, 1, b"raw")])
        assert rest == TextDelta("de", 3, 0, 1, b"raw")

    def test_nothing_can_be_joined_that_has_not_come_whole(self):
        seam = join("replay", delivered(TextDelta("abc", 0))).seam
        seam.join([TextDelta("ab", 0)])
        with pytest.raises(SeamMismatch, match="ends before"):
            seam.finish()

    def test_reasoning_of_another_choice_passes(self):
        seam = join("replay", delivered(TextDelta("abc", 0))).seam
        other = ReasoningDelta("hm", 0, 1)
        assert seam.join([ReasoningDelta("hm", 0, 0), other]) == [other]


@st.composite
def replays(draw):
    """A text, and for each attempt its pieces and how many of them come."""
    whole = draw(st.text(max_size=40))
    attempts = []
    for _ in range(draw(st.integers(1, 5))):
        cuts = draw(st.lists(st.integers(0, len(whole)), max_size=8))
        split = pieces(whole, cuts)
        attempts.append((split, draw(st.integers(0, len(split)))))
    return whole, attempts


@given(replays())
@example(("ab", [(["a", "b"], 2), (["ab"], 1), (["a", "b"], 1)]))
def test_any_text_in_any_pieces_to_any_point_any_number_of_times(replay):
    whole, attempts = replay
    player = Player(retry=TIRELESS)
    furthest = 0
    for split, count in attempts:
        player.connect().say(*split[:count]).cut()
        furthest = max(furthest, len("".join(split[:count])))
        assert player.text == whole[:furthest]
    split, _ = attempts[0]
    player.connect().say(*split).send(finish(), DONE)
    assert player.completion.text == whole == player.text
    assert player.reader.delivered == len(whole), "every character exactly once"
    joined = Guarantee.REPLAYED if furthest else Guarantee.SINGLE
    assert player.completion.guarantee is joined


def test_at_every_offset_of_a_text():
    whole = "naïve 🚀 text,\n\ntwo lines"
    for end in range(1, len(whole) + 1):
        for size in (1, 2, 3, len(whole)):
            again = [whole[at : at + size] for at in range(0, len(whole), size)]
            player = Player().connect().say(*whole[:end]).cut()
            player.connect().say(*again).send(finish(), DONE)
            assert player.completion.text == whole
            assert player.reader.delivered == len(whole)


def test_at_every_offset_a_difference_is_seen():
    whole = "naïve 🚀 text"
    for end in range(1, len(whole) + 1):
        for at in range(end):
            other = whole[:at] + "#" + whole[at + 1 :]
            player = Player().connect().say(whole[:end]).cut()
            player.answer(text(other), finish(), DONE)
            assert isinstance(player.error, StreamInterrupted)
            assert player.text == player.error.partial_text == whole[:end]


@dataclasses.dataclass(frozen=True)
class Said:
    """One choice of an answer, as it is meant."""

    thought: str
    text: str
    refusal: str
    calls: tuple


def units(string):
    """The string in UTF-16: a character beyond U+FFFF in its two halves."""
    data = string.encode("utf-16-be")
    return "".join(
        data[at : at + 2].decode("utf-16-be", "surrogatepass")
        for at in range(0, len(data), 2)
    )


def chunks_of(answer, random):
    """One way to send an answer: pieces, choices and halves of characters at random."""
    tracks = []
    for index, said in enumerate(answer):
        track = [role(index)]
        middle = len(said.thought) // 2  # the order is part of the answer
        for write, whole in (
            (thought, said.thought[:middle]),
            (text, said.text),
            (thought, said.thought[middle:]),
            (refusal, said.refusal),
        ):
            whole = units(whole)  # noqa: PLW2901 - as it is sent
            cuts = [random.randint(0, len(whole)) for _ in range(random.randint(0, 6))]
            track += [write(piece, index) for piece in pieces(whole, cuts)]
        for place, (name, arguments) in enumerate(said.calls):
            made = f"call_{random.randint(0, 10**6)}"
            track.append(call(place, name, "", made, index))
            cuts = [random.randint(0, len(arguments)) for _ in range(2)]
            track += [
                call(place, None, piece, index=index)
                for piece in pieces(arguments, cuts)
            ]
        track.append(finish("tool_calls" if said.calls else "stop", index))
        tracks.append(track)
    sent = []
    while tracks:
        track = random.choice(tracks)
        sent.append(track.pop(0))
        if not track:
            tracks.remove(track)
    if random.random() < 0.5:
        sent.append(usage())
    return [*sent, DONE]


words = st.text("ab🚀é\n", max_size=12)
calls = st.lists(
    st.tuples(
        st.sampled_from(["look", "ask"]), st.sampled_from(['{"a": 1}', '{"a":2}'])
    ),
    max_size=3,
).map(tuple)
answers = st.lists(
    st.builds(
        Said, thought=words, text=words, refusal=st.just("") | words, calls=calls
    ),
    min_size=1,
    max_size=2,
)
weather = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "cut",
                "cut",
                "stall",
                "clean end",
                "error event",
                "malformed",
                "429",
                "503",
                "not sent",
                "fatal",
                "another answer",
            ]
        ),
        st.floats(0, 1),
    ),
    max_size=6,
)


@settings(max_examples=400)
@given(
    truth=answers,
    other=answers,
    storm=weather,
    resume=st.sampled_from(
        [(), ("replay",), ("replay", "restart"), ("restart",), ("restart", "replay")]
    ),
    deterministic=st.booleans(),
    shared=st.integers(0, 12),
    seed=st.integers(0, 2**32),
)
def test_storms(truth, other, storm, *, resume, deterministic, shared, seed):
    random = Random(seed)
    other = [
        dataclasses.replace(that, text=this.text[:shared] + that.text)
        for this, that in zip(truth, other * 2, strict=False)
    ]
    if deterministic and "replay" in resume:
        # Text and tool calls are compared. An answer that differs in nothing else may
        # be joined, and its reasoning is then the other one's.
        other = [
            dataclasses.replace(that, thought=this.thought, refusal=this.refusal)
            for this, that in zip(truth, other, strict=True)
        ]
    sent = [truth]
    player = Player(
        n=len(truth), resume=resume, deterministic=deterministic, retry=TIRELESS
    )
    for kind, share in [*storm, ("calm", 1.0), ("calm", 1.0), ("calm", 1.0)]:
        if player.over:
            break
        sent.append(other if kind == "another answer" else truth)
        strike(player, kind, share, chunks_of(sent[-1], random), random)
        assert player.over is (player.exchange.wait is None)

    reader = player.reader
    assert player.over
    for index, held in reader.texts.items():
        assert any(held == answer[index].text[: len(held)] for answer in sent)
    if "restart" not in resume:
        assert reader.discarded == []
        assert reader.delivered == sum(map(len, reader.texts.values()))
    if player.completion is not None:
        event(player.completion.guarantee.name)
        assert [
            Said(each.reasoning, each.text, each.refusal, spelled(each.tool_calls))
            for each in player.completion.choices
        ] == sent[-1]
        assert player.names[-1] == "Finished"
        if reader.discarded:
            assert player.completion.guarantee is Guarantee.RESTARTED
        if "Resumed" not in player.names:
            assert player.completion.guarantee is Guarantee.SINGLE
    else:
        event(type(player.error).__name__)
        assert isinstance(player.error, StreamError)
        assert player.error.partial_text == reader.text
        assert "Finished" not in player.names


def spelled(found):
    return tuple((each.name, each.arguments_json) for each in found)


def strike(player, kind, share, chunks, random):
    """Play one attempt."""
    if kind in {"429", "503"}:
        player.refuse(int(kind))
        return
    if kind == "not sent":
        player.attempt().end(FaultKind.REFUSED, Phase.CONNECT)
        return
    count = len(chunks) if kind in {"calm", "another answer"} else 0
    count = count or int(share * (len(chunks) - 2))
    last = {
        "error event": [error_event()],
        "malformed": [b'{"choices":[{"delta":{"content":"lost'],
        "fatal": [error_event(code="insufficient_quota")],
    }.get(kind, [])
    todo = [*chunks[:count], *last]
    player.connect()
    while todo and not player.over and player.exchange.wait is None:
        size = random.randint(1, 4)
        player.send(*todo[:size])
        del todo[:size]
    if not player.over and player.exchange.wait is None:
        ends = {"stall": FaultKind.IDLE, "clean end": FaultKind.ENDED}
        player.end(ends.get(kind, FaultKind.LOST))
