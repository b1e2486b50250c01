"""Prefill: an answer that goes on from a beginning the client sends.

It is written down in three ways, and a server understands one of them, or none;
`read` says what a request means to the one that the script describes. What comes
then is as measured on real models: a greedy one goes on word by word from a prefix
that ends where one of its tokens does, and wanders off from any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from holystream.simulator.answers import text_of
from holystream.simulator.deltas import astray, behind, ends_whole
from holystream.simulator.prose import pieces
from holystream.simulator.responses import Refused
from holystream.simulator.script import Echo, Script

_MISTRAL = (
    "Expected last role User or Tool (or Assistant with prefix True) for serving "
    "but got assistant"
)
_ANTHROPIC = (
    "This model does not support assistant message prefill. "
    "The conversation must end with a user message."
)
_BOTH = "Cannot set both `continue_final_message` and `add_generation_prompt` to True."
_TWO = "Cannot have 2 or more assistant messages at the end of the list."


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request asks for: the answer to a question, or the rest of it."""

    body: Mapping[str, Any]
    """The request without the beginning of its answer."""
    prefix: str | None = None
    """The beginning; None asks for a whole answer."""


def read(body: Mapping[str, Any], script: Script) -> Wish:
    """Tell what the request means to this server.

    Raises:
        Refused: It has a prefill that the server does not take.
    """
    messages = body.get("messages") or []
    if len(messages) <= 1 or not _is_prefill(messages[-1]):
        return Wish(body)
    if not _understood(body, script):
        return Wish(body)
    question = {**body, "messages": messages[:-1]}
    if script.prefill == "ignore":
        return Wish(question)
    return Wish(question, text_of(messages[-1].get("content")))


def _is_prefill(message: Mapping[str, Any]) -> bool:
    return message.get("role") == "assistant" and not message.get("tool_calls")


def _understood(body: Mapping[str, Any], script: Script) -> bool:
    messages, mistral = body["messages"], "mistral" in body["model"].lower()
    marked = messages[-1].get("prefix") is True
    going_on = bool(body.get("continue_final_message"))
    match script.prefill:
        case "none":
            return False
        case "refuse":
            raise Refused(400, _MISTRAL if mistral else _ANTHROPIC)
        case "prefix":
            if mistral and not marked:
                raise Refused(400, _MISTRAL)
            return marked
        case "continue" | "trailing":
            # The prompt for a new turn is added unless the request says no.
            if going_on and body.get("add_generation_prompt", True):
                raise Refused(400, _BOTH)
            if script.prefill == "continue":
                return going_on
            if _is_prefill(messages[-2]):
                raise Refused(400, _TWO)
    return True


def carry_on(
    prefix: str, known: Sequence[Sequence[str]], *seed: object
) -> tuple[str, ...]:
    """Return the deltas a greedy model adds to the prefix.

    `known` are the deltas of texts it would write, the likeliest first; the first
    delta of each is the prefix it was written for, so that the same prefix always
    goes on in the same way.
    """
    for deltas in _begun(prefix, known):
        if deltas[0] == prefix or ends_whole("".join(deltas), len(prefix)):
            return behind(deltas, len(prefix))
    return wander(prefix, known, *seed)


def wander(
    prefix: str, known: Sequence[Sequence[str]], *seed: object
) -> tuple[str, ...]:
    """Return deltas that are not what any of these texts has behind the prefix."""
    rests = [behind(deltas, len(prefix)) for deltas in _begun(prefix, known) or known]
    avoid = "".join(rest[0][0] for rest in rests if rest)
    return astray(max(map(len, rests), default=1), avoid, prefix, *seed)


def _begun(prefix: str, known: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    return [deltas for deltas in known if "".join(deltas).startswith(prefix)]


def echoed(
    prefix: str, deltas: Sequence[str], how: Echo | None, random: Random
) -> tuple[str, ...]:
    """Return the deltas with the prefix before them."""
    if how is None or not prefix:
        return tuple(deltas)
    if how == "whole":
        return (prefix, *deltas)
    first = prefix + "".join(deltas[:1])
    begin = (first,) if how == "glued" else pieces(first, random)
    return (*begin, *deltas[1:])
