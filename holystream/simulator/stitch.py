"""Stitching: a user asks for the rest of an answer that broke off.

Either the beginning stands before his message as the assistant's, or the message
quotes the end of it. The model takes the point, more or less: it may greet first,
repeat the last words, or tell the whole story again.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from holystream.simulator.answers import text_of
from holystream.simulator.deltas import behind
from holystream.simulator.prose import pieces
from holystream.simulator.script import Script

_QUOTED = 24
"""Characters that nobody quotes by chance."""
_LEAST = 4


@dataclass(frozen=True, slots=True)
class Stitching:
    """The question before it was asked to go on, and what is known of the answer."""

    body: Mapping[str, Any]
    beginning: str = ""
    quoting: str = ""

    def place(self, known: Iterable[Sequence[str]]) -> tuple[Sequence[str], int] | None:
        """Return the answer of these that is meant, and where it broke off."""
        for deltas in known:
            text = "".join(deltas)
            if self.beginning:
                at = len(self.beginning) if text.startswith(self.beginning) else 0
            else:
                at = _end_of_quote(text, self.quoting)
            if 0 < at < len(text):
                return deltas, at
        return None


def read(body: Mapping[str, Any], script: Script) -> Stitching | None:
    """Return what shall be gone on with, if this looks like it."""
    messages = body.get("messages") or []
    wanted = script.stitch is not None or script.preamble or script.overlap
    if not wanted or len(messages) <= 1 or messages[-1].get("role") != "user":
        return None
    last = messages[-2]
    if last.get("role") == "assistant" and not last.get("tool_calls"):
        beginning = text_of(last.get("content"))
        return Stitching({**body, "messages": messages[:-2]}, beginning=beginning)
    quoting = text_of(messages[-1].get("content"))
    return Stitching({**body, "messages": messages[:-1]}, quoting=quoting)


def stitched(
    deltas: Sequence[str], at: int, script: Script, random: Random
) -> tuple[str, ...]:
    """Return what is said to somebody who has the text up to there."""
    start = 0 if script.stitch == "whole" else max(at - script.overlap, 0)
    return (*pieces(script.preamble, random), *behind(deltas, start))


def _end_of_quote(text: str, message: str) -> int:
    for at in range(len(text) - 1, _LEAST - 1, -1):
        tail = text[max(at - _QUOTED, 0) : at]
        if any(form in message for form in (tail, *_escaped(tail))):
            return at
    return 0


def _escaped(text: str) -> tuple[str, str]:
    return json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]
