"""The clients of completion.py.

Each asks one question and returns what it takes for the whole answer, or raises. None
of them waits long before it tries again.
"""

# ruff: noqa: PLC0415 - openai may not be installed

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import requests

from holystream import Client, Guarantee, RetryBudget, RetryPolicy, Rewound

if TYPE_CHECKING:
    from collections.abc import Callable

    Ask = Callable[[str], "Answer"]

ATTEMPTS = 20
"""Tries without progress, for everybody: that a client gives up is not the question."""
_RETRY = RetryPolicy(attempts=ATTEMPTS, total_attempts=200, base=0.001, cap=0.002)
_PATIENCE = 30.0
_UNPROVEN = (Guarantee.STITCHED, Guarantee.CONTINUED)
_EVENT, _DONE = b"data: ", b"data: [DONE]"


class Answer(NamedTuple):
    """What a client has, and says of it."""

    text: str
    proven: bool = True
    """It does not say that the text may be another one."""
    wasted: int | None = None
    """Tokens that interruptions cost, if it says so."""
    saved: int | None = None
    """Tokens that it did not let the server write again."""


class TwoTexts(AssertionError):
    """The text that was handed over is not that of the completion."""


def ours(
    url: str,
    *,
    provider: str,
    resume: tuple[str, ...],
    temperature: float | None = None,
) -> Ask:
    client = Client(
        provider=provider,
        base_url=url,
        model="m",
        retry=_RETRY,
        resume=resume,
        # Without waits it breaks more often in a second than any link would.
        retry_budget=RetryBudget(floor=1e6),
    )

    def ask(prompt: str) -> Answer:
        text = ""
        with client.stream(prompt, temperature=temperature) as stream:
            for event in stream:
                if isinstance(event, Rewound):
                    text = text[: event.offset]
                else:
                    text += str(event)
        done = stream.get_final_completion()
        if text != done.text:
            raise TwoTexts
        return Answer(
            text, done.guarantee not in _UNPROVEN, done.wasted_tokens, done.saved_tokens
        )

    return ask


def naive(url: str, *, keeps: bool) -> Ask:
    """Ask again after any exception, and append to what came, or begin anew."""
    session = requests.Session()

    def ask(prompt: str) -> Answer:
        parts: list[str] = []
        for left in reversed(range(ATTEMPTS)):
            if not keeps:
                parts = []
            try:
                _read(session, url, prompt, parts)
            except (requests.RequestException, ValueError):
                if not left:
                    raise
            else:
                break
        return Answer("".join(parts))

    return ask


def _read(session: requests.Session, url: str, prompt: str, parts: list[str]) -> None:
    with session.post(
        f"{url}/chat/completions",
        json={"model": "m", "messages": _messages(prompt), "stream": True},
        stream=True,
        timeout=_PATIENCE,
    ) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if line == _DONE:
                return
            if line.startswith(_EVENT):
                choices = json.loads(line.removeprefix(_EVENT))["choices"]
                parts += [choice["delta"].get("content") or "" for choice in choices]


def openai(url: str) -> Ask:
    from openai import OpenAI

    client = OpenAI(
        api_key="sk-loopback-0123456789abcdef",
        base_url=url,
        max_retries=ATTEMPTS,
        timeout=_PATIENCE,
    )

    def ask(prompt: str) -> Answer:
        parts: list[str] = []
        with client.chat.completions.create(
            model="m", messages=_messages(prompt), stream=True
        ) as stream:
            for chunk in stream:
                parts += [choice.delta.content or "" for choice in chunk.choices]
        return Answer("".join(parts))

    return ask


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]
