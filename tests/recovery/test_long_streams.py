"""`Client.resume` with a journal: what a long answer costs, how it is told again."""

from __future__ import annotations

import tracemalloc

from hypothesis import given, strategies as st

from holystream import (
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    Rewound,
    TextDelta,
    ToolCall,
    ToolCallDelta,
)
from holystream.events import Guarantee
from holystream.resume.checkpoint import Checkpoint, Recorded
from holystream.resume.retelling import Retelling
from holystream.transcript import Transcript

WORD = " token"
MANY = 60_000
ROOM = 2_000_000
"""Bytes beside the text; the events of MANY words take ten times that."""


def recorded(journal, events):
    """Record events as the stream "s", which nobody owns."""
    request = Recorded(
        provider="openai-compatible",
        path="/chat/completions",
        body={"model": "sim", "messages": [{"role": "user", "content": "?"}]},
        model="sim",
        choices=1,
        deterministic=True,
        resume=("replay",),
        min_guarantee=None,
    )
    claim = journal.create("s", request=request.encode(), ttl=60.0)
    for begin in range(0, len(events), 500):
        batch = events[begin : begin + 500]
        journal.append(claim, batch, cursor=Checkpoint(attempts=1).encode())
    journal.release(claim)


def words(count):
    return [TextDelta(WORD, at * len(WORD)) for at in range(count)]


def told(stream, size):
    """The events of text up to that many characters."""
    events, length = [], 0
    for event in stream:
        if isinstance(event, TextDelta):
            events.append(event)
            length += len(event.text)
        if length >= size:
            break
    return events


def test_a_long_answer_takes_little_more_than_its_text(client, journal):
    recorded(journal, words(MANY))
    tracemalloc.start()
    try:
        stream = client.resume("s")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    with stream:
        assert "".join(map(str, told(stream, MANY * len(WORD)))) == WORD * MANY
    assert peak < MANY * len(WORD) + ROOM


def test_only_what_follows_is_told(client, journal):
    recorded(journal, words(MANY))
    after = MANY * len(WORD) - 4
    with client.resume("s", after=after) as stream:
        (event,) = told(stream, 4)
    assert (event.text, event.offset) == (WORD[-4:], after)


def drafts(choices):
    return [(c.index, c.text, c.reasoning, c.refusal, c.tool_calls) for c in choices]


class Mouth:
    """Says pieces of one answer, each where its channel has come to."""

    def __init__(self):
        self.segment = 0
        self.ends = {}

    def say(self, kind, text, index):
        if kind in {TextDelta, ReasoningDelta, RefusalDelta}:
            # A later connection thinks anew, and goes on with the text.
            key = (kind, index, 0 if kind is TextDelta else self.segment)
            offset = self.ends.get(key, 0)
            self.ends[key] = offset + len(text)
            return kind(text, offset, index, self.segment)
        if kind is ToolCallDelta:
            return ToolCallDelta(
                call_index=index,
                id="a",
                name="b",
                arguments=text,
                segment=self.segment,
            )
        if kind is ToolCall:
            return ToolCall(
                call_index=index, id="a", name="b", arguments={}, arguments_json=text
            )
        if kind is Rewound:
            self.ends.clear()
            self.segment += 1
            return Rewound(offset=0, discarded=text)
        self.segment += 1
        return Resumed(strategy="prefill", guarantee=Guarantee.CONTINUED, offset=0)


KINDS = [
    *(TextDelta, TextDelta, TextDelta, ReasoningDelta, RefusalDelta),
    *(ToolCallDelta, ToolCall, Resumed, Rewound),
]
scripts = st.lists(
    st.tuples(st.sampled_from(KINDS), st.text(max_size=3), st.integers(0, 1)),
    max_size=30,
)


def text_of(events, kind, index):
    return "".join(
        event.text for event in events if type(event) is kind and event.index == index
    )


@given(script=scripts, size=st.integers(1, 7), after=st.integers(0, 12))
def test_pages_amount_to_what_the_events_do(script, size, after):
    mouth = Mouth()
    events = [mouth.say(*line) for line in script]
    whole, standing = Transcript(), []
    for event in events:
        if isinstance(event, Rewound):
            whole.clear()
            standing.clear()
        else:
            whole.add([event])
            standing.append(event)
    retold = Retelling()
    for begin in range(0, len(events), size):
        retold.add(events[begin : begin + size])
    transcript = retold.transcript
    assert drafts(transcript.choices(1, {})) == drafts(whole.choices(1, {}))
    assert transcript.written == whole.written
    assert transcript.extent == whole.extent
    for offset in range(whole.length + 1):
        assert transcript.pieces_behind(offset) == whole.pieces_behind(offset)
    heard = list(retold.behind(after))
    assert text_of(heard, TextDelta, 0) == whole.text[after:]
    for kind in (ReasoningDelta, RefusalDelta):
        for index in range(2):
            assert text_of(heard, kind, index) == text_of(standing, kind, index)
    for kind in (ToolCall, Resumed):
        assert [event for event in heard if type(event) is kind] == [
            event for event in standing if type(event) is kind
        ]
    assert retold.rewound == any(isinstance(event, Rewound) for event in events)


def test_the_end_counts_only_as_the_last(client, journal):
    retold = Retelling()
    answer = client.stream("?", stream_id="t", temperature=0).get_final_completion()
    retold.add([Finished(completion=answer)])
    assert retold.completion == answer
    retold.add([Rewound(offset=0, discarded="")])
    assert retold.completion is None
