"""What an answer amounts to: the fold over its events, and the buffer under it."""

import sys
import threading
import tracemalloc

from hypothesis import given, strategies as st

from holystream.events import (
    Connected,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
    UsageReport,
)
from holystream.transcript import TextBuffer, Transcript


def tool_call(place=0, index=0):
    return ToolCall(
        call_index=place,
        id=f"call_{place}",
        name="look",
        arguments={},
        arguments_json="{}",
        index=index,
    )


HALF_CALL = ToolCallDelta(call_index=0, id="call_0", name="look", arguments="{")
CONTENT = [
    TextDelta("a", 0),
    TextDelta("b", 0, 1),
    ReasoningDelta("c", 0),
    RefusalDelta("d", 0),
    HALF_CALL,
    tool_call(),
]
OTHERS = [
    Connected(endpoint="here", attempt=1, request_id="r"),
    UsageReport(usage=Usage()),
]


class TestTextBuffer:
    @given(st.lists(st.text(max_size=3), max_size=50), st.integers(0, 5000))
    def test_it_is_the_sum_of_its_pieces(self, pieces, more):
        buffer = TextBuffer()
        for piece in [*pieces, *["x"] * more]:
            buffer.append(piece)
        assert buffer.text == "".join(pieces) + "x" * more
        assert buffer.length == len(buffer.text)

    @given(st.lists(st.text(max_size=3), max_size=9), st.integers(0, 30), st.text())
    def test_it_can_be_cut_and_go_on(self, pieces, length, more):
        buffer = TextBuffer()
        for piece in pieces:
            buffer.append(piece)
        buffer.truncate(length)
        buffer.append(more)
        assert buffer.text == "".join(pieces)[:length] + more
        assert buffer.length == len(buffer.text)

    def test_small_pieces_cost_little_more_than_their_characters(self):
        buffer = TextBuffer()
        pieces = [f"{number:04}" for number in range(10_000)] * 20
        tracemalloc.start()
        try:
            for piece in pieces:
                buffer.append("".join(piece))
            used, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert used < 2 * buffer.length

    def test_another_thread_reads_a_prefix_at_any_moment(self):
        buffer = TextBuffer()
        whole = "".join(chr(0x4E00 + number % 5000) for number in range(20_000))
        wrong, done = [], threading.Event()
        read = threading.Event()

        def watch():
            while not done.is_set():
                seen = buffer.text
                if not whole.startswith(seen):
                    wrong.append(seen)
                read.set()

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            assert read.wait(10)
            for character in whole:
                buffer.append(character)
        finally:
            done.set()
            watcher.join()
            sys.setswitchinterval(interval)
        assert wrong == []
        assert buffer.text == whole


class TestTranscript:
    def test_it_tells_content_from_the_rest(self):
        transcript = Transcript()
        assert not transcript.add([])
        assert not transcript.add(OTHERS)
        assert transcript.content_events == 0
        for count, event in enumerate(CONTENT, 1):
            assert transcript.add([event])
            assert transcript.content_events == count

    def test_a_batch_of_anything_is_taken_whole(self):
        transcript = Transcript()
        assert transcript.add([*OTHERS, *CONTENT, *OTHERS, TextDelta("z", 1)])
        assert transcript.content_events == len(CONTENT) + 1
        first, second = transcript.choices(2, {0: "stop"})
        assert (first.text, first.reasoning, first.refusal) == ("az", "c", "d")
        assert first.tool_calls == (tool_call(),)
        assert (first.finish_reason, second.finish_reason) == ("stop", None)
        assert second.text == "b"

    def test_tool_calls_belong_to_their_choice(self):
        transcript = Transcript()
        transcript.add([tool_call(0, 1), tool_call(0, 0), tool_call(1, 1)])
        first, second = transcript.choices(2, {})
        assert [each.call_index for each in first.tool_calls] == [0]
        assert [each.call_index for each in second.tool_calls] == [0, 1]
        assert len(transcript.tool_calls) == 3

    def test_there_are_as_many_choices_as_were_asked_for_or_more(self):
        transcript = Transcript()
        assert [each.index for each in transcript.choices(2, {})] == [0, 1]
        transcript.add([TextDelta("c", 0, 2)])
        found = transcript.choices(1, {3: "stop"})
        assert [(each.index, each.text) for each in found] == [
            (0, ""),
            (2, "c"),
            (3, ""),
        ]

    def test_only_text_and_whole_calls_are_delivered(self):
        for event in CONTENT:
            transcript = Transcript()
            transcript.add([event])
            assert transcript.delivered is isinstance(event, TextDelta | ToolCall)
            assert transcript.extent == transcript.delivered

    def test_the_extent_counts_characters_and_calls_of_every_choice(self):
        transcript = Transcript()
        transcript.add([TextDelta("abc", 0), TextDelta("de", 0, 1), tool_call()])
        assert transcript.extent == 6

    def test_texts_are_those_of_choices_that_have_any(self):
        transcript = Transcript()
        transcript.add([TextDelta("b", 0, 1), ReasoningDelta("c", 0)])
        assert transcript.texts == {1: "b"}
        assert transcript.text == ""

    def test_reasoning_begins_anew_or_goes_on_by_its_offset(self):
        transcript = Transcript()
        for event, now in [
            (ReasoningDelta("ab", 0), "ab"),
            (ReasoningDelta("cd", 2), "abcd"),
            (ReasoningDelta("xy", 3, 0, 1), "abcxy"),
            (ReasoningDelta("new", 0, 0, 2), "new"),
        ]:
            transcript.add([event])
            assert transcript.choices(1, {})[0].reasoning == now

    def test_a_refusal_does_as_well(self):
        transcript = Transcript()
        transcript.add([RefusalDelta("I ca", 0), RefusalDelta("No", 0, 0, 1)])
        assert transcript.choices(1, {})[0].refusal == "No"

    def test_what_was_not_delivered_can_be_forgotten(self):
        transcript = Transcript()
        transcript.add(
            [
                ReasoningDelta("kept", 0),
                TextDelta("a", 0),
                ReasoningDelta("gone", 0, 1),
                RefusalDelta("gone", 0, 1),
                tool_call(0, 1),
            ]
        )
        transcript.forget_undelivered()
        first, second = transcript.choices(2, {})
        assert (first.text, first.reasoning) == ("a", "kept")
        assert (second.reasoning, second.refusal) == ("", "")
        assert second.tool_calls == (tool_call(0, 1),)

    def test_clearing_it_withdraws_everything(self):
        transcript = Transcript()
        transcript.add(CONTENT)
        transcript.clear()
        assert not transcript.delivered
        assert transcript.text == ""
        assert transcript.choices(1, {})[0].reasoning == ""
