"""The answer that every reader reads: its text, and its bytes in each framing."""

from __future__ import annotations

import functools
import hashlib
import json
import random

CHUNKED = "chunked"
CLOSE = "close"
FRAMINGS = {
    CHUNKED: "chunked, one event per HTTP chunk",
    CLOSE: "close-delimited",
}
MODEL = "gpt-5-2025-08-07"
PROMPT_TOKENS = 19

_WORDS = (
    " the", " of", " a", " stream", " that", " ends", " right", ",", " and", " in",
    " connection", " breaks", ".", "\n\n", " To", "ken", "s", " are", ' "quoted"',
    " naïve", " which", " answer", " …", " 東京", " it", " goes", " on", ":", " one",
    " after", " another", " without", " loss",
)  # fmt: skip


@functools.cache
def pieces(events: int) -> list[str]:
    """Return the text, token by token; the same for the same number."""
    rng = random.Random(events)
    return rng.choices(_WORDS, k=events)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def expected(events: int) -> str:
    """Return the digest of the whole text."""
    return digest("".join(pieces(events)))


def server_sent_events(events: int) -> list[bytes]:
    """Return the events as OpenAI sends them: role, tokens, end, usage, [DONE]."""
    usage = {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": events,
        "total_tokens": PROMPT_TOKENS + events,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    choices = [
        [_choice({"role": "assistant", "content": "", "refusal": None})],
        *([_choice({"content": piece})] for piece in pieces(events)),
        [_choice({}, "stop")],
    ]
    return [
        *(_event(some, None) for some in choices),
        _event([], usage),
        b"data: [DONE]\n\n",
    ]


def body(framing: str, events: int) -> bytes:
    """Return the whole body as it goes over the wire."""
    parts = server_sent_events(events)
    if framing == CLOSE:
        return b"".join(parts)
    chunks = (b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"".join(chunks) + b"0\r\n\r\n"


def _choice(delta: dict, finish_reason: str | None = None) -> dict:
    return {
        "index": 0,
        "delta": delta,
        "logprobs": None,
        "finish_reason": finish_reason,
    }


def _event(choices: list[dict], usage: dict | None) -> bytes:
    chunk = {
        "id": "chatcmpl-CTq2nJx0vQ8eWb5yKd7LrZ1",
        "object": "chat.completion.chunk",
        "created": 1762000000,
        "model": MODEL,
        "system_fingerprint": "fp_4c2851f862",
        "choices": choices,
        "usage": usage,
    }
    text = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
    return b"data: %b\n\n" % text.encode()
