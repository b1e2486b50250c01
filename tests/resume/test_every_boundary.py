"""The same on real sockets: cut at every boundary of events, in every framing.

Each event of a short answer is cut two bytes before its end, at it, two behind it, and
between; an answer of a few kilobytes at places that are drawn.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from random import Random

import pytest
import requests
from laboratory import boundaries, changed, is_written
from ways import EXACT, SAMPLED, TEXT, Way

from holystream import Client, RetryPolicy, Timeouts
from holystream.events import Guarantee, Resumed, Rewound, TextDelta, ToolCall
from holystream.providers.registry import PROFILES
from holystream.simulator import Script, Simulator

RETRY = RetryPolicy(base=0.0005, cap=0.001, attempts=8)
PATIENT = Timeouts(connect=30, first_token=30, idle=30, token_idle=30, queue=30)
SHORT = "Naïve 🚀 reads  two\n\n東京の言葉 👩‍🚀 ends \n"
FRAMINGS = ("chunked", "one-chunk", "close", "length")
ENDS = ("fin", "rst", "end")
DRAWN = 300
NAMES = (
    "named ids",
    "inclusive",
    "out of order",
    "halves of characters",
    "calls by ids",
    "bytes",
    "calls by bytes",
    "verified prefix",
    "verified continue_final_message, echo pieces",
    "verified trailing, echo glued",
    "replay",
    "replay of calls",
    "stitch",
    "restart",
)
WAYS = [*(way for way in EXACT if way.name in NAMES), SAMPLED[0]]
assert len(WAYS) == len(NAMES) + 1


class Bench:
    """A server and a client that goes on in one way; what comes is counted."""

    def __init__(self, way: Way, text: str) -> None:
        self.way = way
        self.server = Simulator(text=None if way.calls else text)
        profile = dataclasses.replace(PROFILES["openai-compatible"], **way.profile)
        self.client = Client(
            "sk-test-key",
            provider=profile,
            base_url=self.server.base_url,
            model="m",
            retry=RETRY,
            resume=way.resume,
            timeout=PATIENT,
        )
        self.whole = self.read()
        body = self.server.requests[-1].json
        self.body = self.server.body(body, way.script)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        self.server.close()

    def read(self, *scripts: Script):
        """Read an answer to which these things happen, and then nothing more."""
        asked = self.way.asked
        played = [*scripts, self.way.script]
        before = len(self.server.requests)
        self.server.play(*played)
        with self.client.stream(
            asked.get("prompt", "?"),
            temperature=asked["temperature"],
            tools=asked.get("tools"),
            extra_body=asked["extra_body"],
        ) as stream:
            events = list(stream)
        # What a cut behind the end has left over.
        for _ in range(len(played) - (len(self.server.requests) - before)):
            with contextlib.suppress(requests.RequestException):
                requests.get(f"{self.server.base_url}/stream?conv_id=x", timeout=30)
        return events

    def check(self, *scripts: Script) -> bool:
        """Read an answer that is cut; tell whether that interrupted it."""
        events = self.read(*scripts)
        completion = events[-1].completion
        text = "".join(map(str, events))
        resumed = [event for event in events if isinstance(event, Resumed)]
        if rewound := [event for event in events if isinstance(event, Rewound)]:
            last = events.index(rewound[-1])
            text = "".join(map(str, events[last:]))
        assert completion.text == text, "every character once"
        deltas = [event for event in events if isinstance(event, TextDelta)]
        if not rewound:
            ends = [event.offset + len(event.text) for event in deltas]
            assert [event.offset for event in deltas] == [0, *ends][:-1]
        assert completion.guarantee is min(
            [Guarantee.SINGLE, *(event.guarantee for event in resumed)]
        )
        assert {event.guarantee for event in resumed} <= self.way.worth | {
            # A server with ids or a name for it keeps a continuation as well.
            Guarantee.VERBATIM
        }
        if self.way in EXACT:
            assert text == self.whole[-1].completion.text
        seams = [
            event.offset for event in resumed if event.guarantee is Guarantee.CONTINUED
        ]
        if not self.way.calls and self.way.name != "stitch":
            assert is_written(text, seams, self.server.generations, complete=True)
        assert calls(events) == calls(self.whole)
        return bool(resumed)


def calls(events):
    return [
        (event.call_index, event.name, event.arguments_json)
        for event in events
        if isinstance(event, ToolCall)
    ]


def framed(way: Way, random: Random, framing: str) -> Script:
    """The way's script in one of the shapes that a body may have on the wire."""
    newline = random.choice(["\n", "\r\n", "\r"])
    if "cursor" in way.profile:
        newline = "\n"  # others cannot be counted
    return changed(
        way.script,
        framing=framing,
        newline=newline,
        gzip=random.random() < 0.25,
        rechunk=random.choice([None, None, 7, 100]),
    )


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_cut_around_every_boundary(way):
    random = Random(str(way))
    framings, ends = itertools.cycle(FRAMINGS), itertools.cycle(ENDS)
    interrupted = 0
    with Bench(way, SHORT) as bench:
        for end in boundaries(bench.body):
            for place in range(max(0, end - 2), end + 3):
                script = framed(way, random, next(framings))
                # Places are those of LF; with other endings they are near.
                script = changed(script, newline=way.script.newline)
                cut = changed(script, cut_at=place, cut=next(ends))
                interrupted += bench.check(cut)
    assert interrupted > 10


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_cut_at_places_that_are_drawn(way):
    random = Random(f"drawn {way}")
    with Bench(way, TEXT) as bench:
        for _ in range(DRAWN // len(WAYS)):
            cuts = [
                changed(
                    framed(way, random, random.choice(FRAMINGS)),
                    cut_at=random.randrange(len(bench.body)),
                    cut=random.choice(ENDS),
                )
                for _ in range(random.randint(1, 3))
            ]
            bench.check(*cuts)
