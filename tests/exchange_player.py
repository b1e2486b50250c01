"""Plays both sides of an exchange without a socket: chunks in, events checked and kept.

`Reader` is a caller who believes the events: it folds them into what he would hold, and
complains about any event that does not fit to the ones before it. `Player` drives an
`Exchange` as a stream does, with a clock that only moves when it is told to.
"""

import dataclasses
import itertools
import json

from holystream.clocks import Timeouts
from holystream.errors import Phase
from holystream.events import (
    Connected,
    Finished,
    Interrupted,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    Rewound,
    Started,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Waiting,
)
from holystream.exchange import Exchange
from holystream.providers.chat_request import chat_request
from holystream.providers.openai_chat import OpenAIChat
from holystream.providers.registry import PROFILES
from holystream.resilience.retry import RetryPolicy
from holystream.resume import strategies
from holystream.wire.faults import Answer, Fault, FaultKind
from holystream.wire.sse import ServerSentEvent

DONE = b"[DONE]"
STEADY = RetryPolicy(attempts=6, base=1.0, cap=60.0, jitter=None)
"""Waits of exactly 1, 2, 4, ... seconds; six attempts without progress."""
PROMPT = "Tell me what the promptest of prompts would say"
KEY = "sk-0123456789abcdef"


class Reader:
    """What a caller holds who applies every event as it comes."""

    def __init__(self):
        self.texts = {}
        self.reasoning = {}
        self.asides = {}
        self.calls = {}
        self.half_calls = {}
        self.discarded = []
        self.names = []
        self.finished = None
        self.delivered = 0

    @property
    def text(self):
        return self.texts.get(0, "")

    def take(self, events):
        for event in events:
            assert self.finished is None, f"{event!r} comes after the end"
            assert isinstance(event, Started) is not bool(self.names)
            self.names.append(type(event).__name__)
            self._apply(event)
            if isinstance(event, (ReasoningDelta, RefusalDelta)):
                self._put(event)
        return list(events)

    def _put(self, event):
        """Fold as docs/api.md says."""
        key = type(event), event.index
        before = self.asides.get(key, "")
        assert event.offset <= len(before), "no offset is behind what was said"
        self.asides[key] = before[: event.offset] + event.text

    def _apply(self, event):
        if isinstance(event, TextDelta):
            text = self.texts.get(event.index, "")
            assert event.text, "no empty delta is made"
            assert event.offset == len(text), "offsets are contiguous"
            self.texts[event.index] = text + event.text
            self.delivered += len(event.text)
        elif isinstance(event, ReasoningDelta):
            # A later segment begins anew, or where it had not been shown before.
            texts = self.reasoning.setdefault(event.index, [])
            if not event.offset:
                texts.append("")
            assert event.offset <= len(texts[-1])
            texts[-1] = texts[-1][: event.offset] + event.text
        elif isinstance(event, ToolCallDelta):
            key = event.index, event.call_index, event.segment
            assert key[:2] not in self.calls, "a whole call gets no more pieces"
            self.half_calls[key] = self.half_calls.get(key, "") + event.arguments
        elif isinstance(event, ToolCall):
            key = event.index, event.call_index
            assert key not in self.calls, "a tool call is delivered once"
            assert json.loads(event.arguments_json) == event.arguments
            self.calls[key] = event
        elif isinstance(event, Rewound):
            assert event.offset == 0
            assert event.discarded == self.text
            assert not self.calls, "a delivered tool call is never withdrawn"
            self.discarded.append(event.discarded)
            self.texts.clear()
            self.asides.clear()
        elif isinstance(event, Finished):
            self.finished = event.completion
            for choice in event.completion.choices:
                said = [
                    self.asides.get((kind, choice.index), "")
                    for kind in (ReasoningDelta, RefusalDelta)
                ]
                assert [choice.reasoning, choice.refusal] == said


class Player:
    """An exchange, its reader, and a server that says what the test wants."""

    def __init__(
        self,
        *,
        n=None,
        temperature=0,
        tools=None,
        resume=("replay",),
        retry=STEADY,
        timeouts=None,
        deadline=None,
        min_guarantee=None,
        profile=None,
        seed=None,
        deterministic=None,
        prompt=PROMPT,
        model="m",
        **asked,
    ):
        self.now = 1000.0
        self.reader = Reader()
        self.log = []
        dialect = dataclasses.replace(PROFILES["holysheep"], **(profile or {}))
        request = chat_request(
            prompt,
            profile=dialect,
            model=model,
            n=n,
            temperature=temperature,
            seed=seed,
            tools=tools,
            deterministic=deterministic,
            **asked,
        )
        self.exchange = Exchange(
            request,
            OpenAIChat(dialect),
            stream_id="stream-1",
            endpoint="here",
            timeouts=timeouts or Timeouts(),
            deadline=deadline,
            retry=retry,
            resume=strategies(resume),
            min_guarantee=min_guarantee,
            secrets=(KEY,),
        )
        self._take(self.exchange.start(self.now))

    @property
    def text(self):
        return self.reader.text

    @property
    def completion(self):
        return self.exchange.completion

    @property
    def error(self):
        return self.exchange.error

    @property
    def over(self):
        return self.completion is not None or self.error is not None

    @property
    def names(self):
        return self.reader.names

    def last(self, kind):
        return [event for event in self.log if isinstance(event, kind)][-1]

    def attempt(self):
        """Begin an attempt, after the wait before it."""
        assert not self.over
        if self.exchange.wait is not None:
            self.now += self.exchange.wait.delay
        self.exchange.attempt()
        return self

    def connect(self):
        """Begin an attempt, and have it answered by an event stream."""
        self.attempt()
        events = self.exchange.connected(f"req_{self.exchange.attempts}", self.now)
        self._take(events)
        return self

    def send(self, *batch):
        """Send these chunks in one read; carry on as a stream does on a failure."""
        messages = [
            each if isinstance(each, ServerSentEvent) else ServerSentEvent(each)
            for each in batch
        ]
        events = self.exchange.receive(messages, self.now)
        self._take(events)
        if self.exchange.failure is not None:
            assert self.completion is None
            self.end(fault=self.exchange.failure)
        return self

    def say(self, *texts, index=0):
        """Send texts, each in a read of its own."""
        for each in texts:
            self.send(text(each, index))
        return self

    def answer(self, *batches):
        """Connect, and send these batches (a chunk alone is a batch) until it fails."""
        self.connect()
        attempt = self.exchange.attempts
        for batch in batches:
            self.send(*(batch if isinstance(batch, list | tuple) else [batch]))
            if self.over or self.exchange.wait or attempt != self.exchange.attempts:
                break
        return self

    def end(self, kind=FaultKind.LOST, phase=Phase.BODY, *, fault=None, **options):
        """End the attempt."""
        if fault is None:
            fault = Fault(kind, phase, **options)
        self._take(self.exchange.fault(fault, self.now))
        assert self.reader.text == self.exchange.transcript.text
        return self

    def cut(self):
        return self.end()

    def close(self):
        """End the body cleanly, which is a fault as well."""
        return self.end(FaultKind.ENDED)

    def refuse(self, status, body=None, **headers):
        """Answer with an error status."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        said = json.dumps(body or {"error": {"message": "no"}}).encode()
        answer = Answer(status=status, headers=names, body=said)
        self.attempt()
        return self.end(FaultKind.STATUS, Phase.HEADERS, answer=answer)

    def _take(self, events):
        self.log += self.reader.take(events)
        for event in events:
            if isinstance(event, (Interrupted, Waiting, Connected, Resumed, Finished)):
                assert str(event) == ""


def chunk(*choices, **fields):
    frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m-2024"}
    return json.dumps({**frame, "choices": choices, **fields}).encode()


def choice(index=0, finish_reason=None, **delta):
    return {"index": index, "delta": delta, "finish_reason": finish_reason}


def role(index=0):
    return chunk(choice(index, role="assistant", content=""))


def text(content, index=0):
    return chunk(choice(index, content=content))


def thought(content, index=0):
    return chunk(choice(index, reasoning_content=content))


def refusal(content, index=0):
    return chunk(choice(index, refusal=content))


def finish(reason="stop", index=0, **fields):
    return chunk(choice(index, reason), **fields)


def call(place, name=None, arguments=None, id=None, index=0):  # noqa: A002 - the API's
    function = {"name": name, "arguments": arguments}
    piece = {
        "index": place,
        "function": {
            key: value for key, value in function.items() if value is not None
        },
    }
    if id is not None:
        piece |= {"id": id, "type": "function"}
    return chunk(choice(index, tool_calls=[piece]))


def whole_call(place, name, arguments, *, prefix="call", index=0):
    """A call in three pieces, the id made from the prefix."""
    written = json.dumps(arguments)
    half = len(written) // 2
    return [
        call(place, name, "", f"{prefix}_{place}", index),
        call(place, None, written[:half], index=index),
        call(place, None, written[half:], index=index),
    ]


def usage(prompt=9, completion=3):
    total = prompt + completion
    counts = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": total,
    }
    return chunk(usage=counts)


def error_event(message="it fell over", **fields):
    return json.dumps({"error": {"message": message, **fields}}).encode()


def pieces(whole, cuts):
    """Cut a text at these places; pieces that would be empty are left out."""
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < len(whole)}), len(whole)]
    return [whole[a:b] for a, b in itertools.pairwise(bounds) if a < b]
