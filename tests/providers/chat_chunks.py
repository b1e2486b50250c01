"""Chunks as OpenAI-compatible servers send them, and readers of what comes out."""

import dataclasses
import itertools
import json

from holystream.events import TextDelta, ToolCall, Usage
from holystream.providers.base import ChatRequest
from holystream.providers.openai_chat import OpenAIChat
from holystream.providers.registry import PROFILES
from holystream.wire.sse import ServerSentEvent

PROFILE = PROFILES["holysheep"]
DONE = b"[DONE]"


def new_decoder(n=1, *, segment=0, **profile):
    request = ChatRequest(
        path="/chat/completions", body={}, model="m", choices=n, deterministic=False
    )
    provider = OpenAIChat(dataclasses.replace(PROFILE, **profile))
    return provider.decoder(request, segment=segment)


def chunk(*choices, **fields):
    """A chunk as OpenAI sends it, with everything that we do not read."""
    return json.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1700000000,
            "model": "m-2024",
            "system_fingerprint": "fp",
            "choices": choices,
            "usage": None,
            "obfuscation": "x9",
            **fields,
        }
    ).encode()


def choice(*, index=0, finish=None, **delta):
    return {
        "index": index,
        "delta": delta,
        "logprobs": None,
        "finish_reason": finish,
    }


def text(content, index=0, **fields):
    return chunk(choice(index=index, content=content), **fields)


def finish(reason="stop", index=0, **fields):
    return chunk(choice(index=index, finish=reason), **fields)


def tool(index=0, *, id=None, name=None, arguments=None, choice_index=0, **fields):  # noqa: A002
    piece = {"function": {}}
    if index != "absent":
        piece["index"] = index
    if id is not None:
        piece |= {"id": id, "type": "function"}
    if name is not None:
        piece["function"]["name"] = name
    if arguments is not None:
        piece["function"]["arguments"] = arguments
    return chunk(choice(index=choice_index, tool_calls=[piece]), **fields)


def messages(*data):
    return [
        each if isinstance(each, ServerSentEvent) else ServerSentEvent(each)
        for each in data
    ]


def run(*data, n=1, **profile):
    decoder = new_decoder(n, **profile)
    return decoder, decoder.decode(messages(*data))


def said(events, kind=TextDelta, index=0):
    """The text of a channel, after checking its offsets."""
    whole = ""
    for event in events:
        if type(event) is kind and event.index == index:
            assert event.text, "no empty delta is made"
            assert event.offset == len(whole)
            event.text.encode()
            whole += event.text
    return whole


def calls(events, index=0):
    found = [e for e in events if type(e) is ToolCall and e.index == index]
    assert [call.call_index for call in found] == list(range(len(found)))
    for call in found:
        assert json.loads(call.arguments_json) == call.arguments
    return [(call.id, call.name, call.arguments) for call in found]


OPENAI = [
    chunk(choice(role="assistant", content="", refusal=None)),
    text("Hel"),
    text("lo \U0001f600 "),
    text("you"),
    finish(),
    chunk(usage={"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}),
    DONE,
]


USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
COUNTED = Usage(prompt_tokens=9, completion_tokens=3, total_tokens=12)
SECRET = b"s3cret"


def content(escaped, **fields):
    """A chunk whose content is JSON as written, escapes and all."""
    marker = text("@", **fields)
    return marker.replace(b'"@"', b'"%b"' % escaped.encode())


def split(items, cuts):
    bounds = [0, *sorted(cuts), len(items)]
    return [items[a:b] for a, b in itertools.pairwise(bounds)]
