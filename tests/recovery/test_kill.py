"""`kill -9` at any moment, and another process has the exact text.

Children stream from a simulator into one SQLite journal and are killed: when they have
printed a number of bytes drawn at random, or after a time drawn at random, which may
fall before they open the journal, while they connect, between two events, in a commit,
or behind the end. What each had printed and what `Client.resume` adds must be the text,
to the character, worth what was earned.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import random
import signal

import pytest
from jobs import client_for

from holystream import Guarantee, StreamUnknown, TextDelta, ToolCall
from holystream.journal import JournalState
from holystream.journal.sqlite import SQLiteJournal
from holystream.simulator import Script, Simulator

KILLS = 200
AT_ONCE = 4
BY_PLACE = 0.8
"""How many of them are killed when they have printed something."""
LONGEST = 0.15
"""Seconds in which a child has finished, mostly: the others are killed within these."""
AGAIN = 0.25
"""How many of those that go on are killed in their turn."""
ELSEWHERE = 0.2
"""How many of those that go on to the end are another child, not this process."""
SLOW = 0.0005
"""Seconds between events: a stream takes about as long as a child needs to begin it."""
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
ARGUMENTS = json.dumps({"where": "Zürich \N{SNOW CAPPED MOUNTAIN}", "note": "x" * 300})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Way:
    """How a stream is asked for, and what going on with it is worth."""

    worth: Guarantee
    script: Script
    provider: str = "openai-compatible"
    prompt: str = "Tell me of number {}"
    options: dict


WAYS = {
    "replay": Way(
        worth=Guarantee.REPLAYED,
        script=Script(pace=SLOW, split_surrogates=True),
        options={"temperature": 0},
    ),
    "prefill": Way(
        worth=Guarantee.VERIFIED,
        script=Script(pace=SLOW, prefill="continue", tokens=True),
        provider="vllm",
        options={"temperature": 0},
    ),
    "cursor": Way(
        worth=Guarantee.VERBATIM,
        script=Script(pace=SLOW, ids="named", split_surrogates=True),
        options={"temperature": 1},
    ),
    "bytes": Way(
        worth=Guarantee.VERBATIM,
        script=Script(pace=SLOW, split_surrogates=True),
        provider="llama.cpp",
        options={"temperature": 1},
    ),
    "reasoning": Way(
        worth=Guarantee.VERBATIM,
        script=Script(pace=SLOW, ids="named"),
        options={"temperature": 1, "model": "reasoner"},
    ),
    "tools": Way(
        worth=Guarantee.VERBATIM,
        script=Script(pace=SLOW, ids="named"),
        prompt="{} call:look " + ARGUMENTS.replace("{", "{{").replace("}", "}}"),
        options={"temperature": 1, "tools": TOOLS},
    ),
}


@pytest.fixture
def sim():
    with Simulator() as made:
        yield made


class Trial:
    """One stream, killed, gone on with, maybe killed again."""

    def __init__(self, sim, nursery, path, way, number):
        self.random = random.Random(f"kill {number} {way.worth}")
        self.way = way
        self.stream_id = f"stream-{number}"
        self.printed = ""
        self.headers = {"X-Simulator": str(self.way.script)}
        self._sim = sim
        self._nursery = nursery
        self._prompt = self.way.prompt.format(number)
        self._client = {
            "base_url": sim.base_url,
            "journal": str(path),
            "provider": self.way.provider,
        }

    def die(self):
        """Stream in a child and kill it."""
        options = {"extra_headers": self.headers, **self.way.options}
        self._kill(
            self._nursery.start(
                "stream",
                client=self._client,
                prompt=self._prompt,
                stream_id=self.stream_id,
                **options,
            )
        )

    def die_again(self):
        """Go on in another child and kill that."""
        self._kill(self._resumed())

    def go_on(self):
        """Go on in another child, to the end."""
        child = self._resumed()
        assert child.wait() == 0
        self.printed += child.text

    def _resumed(self):
        return self._nursery.start(
            "resume",
            client=self._client,
            which=self.stream_id,
            after=len(self.printed),
            extra_headers=self.headers,
        )

    def _kill(self, child):
        if self.random.random() < BY_PLACE:
            child.printed(self.random.randint(1, 600))
        else:
            child.read(lambda _: False, self.random.uniform(0, LONGEST))
        assert child.kill() in {0, -signal.SIGKILL}
        self.printed += child.text

    @property
    def generated(self):
        """What was written in answer: texts, each with its tool calls."""
        return [
            (
                generation.prefix + generation.text,
                [(call.name, call.arguments) for call in generation.answer.tool_calls],
            )
            for generation in self._sim.generations
            if generation.request["messages"][0]["content"] == self._prompt
        ]


def recorded(journal, stream_id):
    """The events that a journal holds of a stream, and their text."""
    events = journal.read(stream_id, limit=10**6).events
    text = ""
    for event in events:
        if isinstance(event, TextDelta):
            assert event.offset == len(text), "every character once"
            text += event.text
    return text, [type(event).__name__ for event in events]


def check(trial, journal, client):
    """Let it die and go on; tell when it died."""
    trial.die()
    if journal.meta(trial.stream_id) is None:
        assert trial.printed == ""
        with pytest.raises(StreamUnknown):
            client.resume(trial.stream_id)
        return "before it was known"
    before, _ = recorded(journal, trial.stream_id)
    assert before.startswith(trial.printed), "what is handed over was stored"
    while trial.random.random() < AGAIN:
        trial.die_again()
    before, names = recorded(journal, trial.stream_id)
    assert before.startswith(trial.printed)
    told = []
    if trial.random.random() < ELSEWHERE:
        trial.go_on()
    else:
        after = len(trial.printed)
        with client.resume(
            trial.stream_id, after=after, extra_headers=trial.headers
        ) as stream:
            told = list(stream)
        trial.printed += "".join(map(str, told))
    whole = trial.printed
    # Where nothing had been delivered another answer was asked for.
    calls = dict(trial.generated)[whole]
    assert recorded(journal, trial.stream_id)[0] == whole
    assert recorded(journal, trial.stream_id)[1].count("Finished") == 1
    assert journal.meta(trial.stream_id).state is JournalState.FINISHED
    with client.resume(trial.stream_id) as again:
        completion = again.get_final_completion()
    assert completion.text == whole
    assert [(call.name, call.arguments_json) for call in completion.tool_calls] == calls
    assert told == [] or calls == [
        (event.name, event.arguments_json)
        for event in told
        if isinstance(event, ToolCall)
    ], "each call once, whole"
    check_worth(trial, completion, before, recorded(journal, trial.stream_id)[1], names)
    if not before and "ToolCallDelta" not in names:
        return "with reasoning alone" if "ReasoningDelta" in names else "before a word"
    return "behind its end" if before == whole != "" else "amid"


def check_worth(trial, completion, before, names, names_before):
    """A text is worth what was earned, no more and no less."""
    if "Resumed" in names:
        assert completion.guarantee is trial.way.worth
    else:
        assert completion.guarantee is Guarantee.SINGLE
        assert before in {"", completion.text} or "Finished" in names_before


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_killed_at_any_moment(sim, nursery, tmp_path, way):
    path = tmp_path / "streams.db"

    def one(number):
        trial = Trial(sim, nursery, path, WAYS[way], number)
        try:
            return check(trial, journal, client)
        except BaseException as error:
            error.add_note(f"stream-{number}")
            raise

    with (
        SQLiteJournal(path) as journal,
        client_for(
            sim.base_url, provider=WAYS[way].provider, journal=journal
        ) as client,
        concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        moments = list(pool.map(one, range(KILLS // len(WAYS) + 1)))
    assert "amid" in moments
