"""The answer to a chat request, as a pure function of the request.

What is answered depends on the model, the messages, the seed and, unless the
temperature is 0 or a seed is given, on the number of the sample: asking again
then gives another text, as it does with a real model. The last user message may
steer it: `echo:...` is answered with the rest, verbatim; `call:NAME {json}`,
with tools in the request, by a call. A model named `...reasoner...` thinks first.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from holystream.simulator.prose import pieces, prose, seeded

Text: TypeAlias = str | Callable[[dict[str, Any]], str] | None

DEFAULT_LENGTH = 120
_CALL = re.compile(r"call:([A-Za-z0-9_.-]+)[ \t]*")
_EPOCH = 1_700_000_000


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call: the arguments are JSON text, `deltas` what they are sent in."""

    id: str
    name: str
    arguments: str
    deltas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the `n` answers."""

    deltas: tuple[str, ...]
    reasoning_deltas: tuple[str, ...]
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.deltas)

    @property
    def reasoning(self) -> str:
        """The whole reasoning."""
        return "".join(self.reasoning_deltas)

    @property
    def tokens(self) -> int:
        """How many pieces it is sent in: the simulator's tokens."""
        calls = sum(len(call.deltas) for call in self.tool_calls)
        return len(self.deltas) + len(self.reasoning_deltas) + calls


@dataclass(frozen=True, slots=True)
class Answer:
    """All choices; the shorthands speak of the first one."""

    id: str
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: Mapping[str, Any]

    @property
    def text(self) -> str:
        """The whole text of the first choice."""
        return self.choices[0].text

    @property
    def reasoning(self) -> str:
        """The whole reasoning of the first choice."""
        return self.choices[0].reasoning

    @property
    def deltas(self) -> tuple[str, ...]:
        """The pieces in which the text of the first choice is sent."""
        return self.choices[0].deltas

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of the first choice."""
        return self.choices[0].tool_calls

    @property
    def finish_reason(self) -> str:
        """Why the first choice ends."""
        return self.choices[0].finish_reason


def is_sampled(request: Mapping[str, Any]) -> bool:
    """Tell whether asking again gives another text."""
    return request.get("temperature") != 0 and request.get("seed") is None


def draw(
    request: Mapping[str, Any], *, sample: int, text: Text, length: int
) -> tuple[Choice, ...]:
    """Return what the model would write if nothing stopped it.

    `sample` tells apart the answers to the same question; 0 is the greedy one.
    """
    messages = request.get("messages") or []
    key = (str(request.get("model", "")), messages, request.get("seed"), sample)
    fixed = text(dict(request)) if callable(text) else text
    prompt = last_prompt(messages)
    if fixed is None and prompt.startswith("echo:"):
        fixed = prompt.removeprefix("echo:")
    return tuple(
        _choice(request, (*key, index), fixed, length)
        for index in range(int(request.get("n") or 1))
    )


def make_answer(
    request: Mapping[str, Any],
    choices: Sequence[Choice],
    *,
    sample: int = 0,
    repeat: int = 0,
    cached_tokens: int = 0,
) -> Answer:
    """Make the answer to the request of these choices, within its `max_tokens`.

    `repeat` tells apart the ids of generations that are alike.
    """
    model, messages = str(request.get("model", "")), request.get("messages") or []
    key: tuple[object, ...] = (model, messages, request.get("seed"), sample)
    random = seeded(*key, "repeat", repeat) if repeat else seeded(*key)
    limit = request.get("max_completion_tokens") or request.get("max_tokens")
    limited = tuple(_limited(choice, limit) for choice in choices)
    return Answer(
        id=f"chatcmpl-{random.getrandbits(96):024x}",
        created=_EPOCH + random.getrandbits(24),
        model=model,
        choices=limited,
        usage=_usage(messages, limited, cached_tokens),
    )


def _limited(choice: Choice, limit: int | None) -> Choice:
    reasoning, deltas = choice.reasoning_deltas, choice.deltas
    if limit is None or len(reasoning) + len(deltas) <= limit:
        return choice
    reasoning = reasoning[:limit]
    deltas = deltas[: limit - len(reasoning)]
    return replace(
        choice, deltas=deltas, reasoning_deltas=reasoning, finish_reason="length"
    )


def last_prompt(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of the last user message."""
    for message in reversed(messages):
        if isinstance(message, Mapping) and message.get("role") == "user":
            return text_of(message.get("content"))
    return ""


def text_of(content: object) -> str:
    """Return the text of a message's content, in one piece or in parts."""
    if isinstance(content, list):
        parts = (part for part in content if isinstance(part, Mapping))
        return "".join(str(part.get("text", "")) for part in parts)
    return content if isinstance(content, str) else ""


def _choice(
    request: Mapping[str, Any],
    key: tuple[object, ...],
    fixed: str | None,
    length: int,
) -> Choice:
    random = seeded(*key)
    calls = _tool_calls(request, key)
    reasoning: tuple[str, ...] = ()
    deltas: tuple[str, ...] = ()
    if "reasoner" in str(request.get("model", "")):
        reasoning = prose(seeded(*key, "reasoning"), max(length // 3, 1))
    if fixed is not None and not calls:
        deltas = pieces(fixed, random)
    elif not calls:
        spread = length // 10
        deltas = prose(random, length - spread // 2 + random.randrange(spread + 1))
    return Choice(deltas, reasoning, calls, "tool_calls" if calls else "stop")


def _tool_calls(
    request: Mapping[str, Any], key: tuple[object, ...]
) -> tuple[ToolCall, ...]:
    tools, wanted = request.get("tools") or [], request.get("tool_choice", "auto")
    if not tools or wanted == "none":
        return ()
    found = _asked_for(last_prompt(request["messages"]))
    if not found and wanted != "auto":
        name = wanted["function"]["name"] if isinstance(wanted, Mapping) else None
        found = [_made_up(tools, name, key)]
    random = seeded(*key, "tools")
    return tuple(
        ToolCall(
            id=f"call_{random.getrandbits(96):024x}",
            name=name,
            arguments=arguments,
            deltas=pieces(arguments, random),
        )
        for name, arguments in found
    )


def _asked_for(prompt: str) -> list[tuple[str, str]]:
    found = []
    for match in _CALL.finditer(prompt):
        end = match.end()
        if prompt[end : end + 1] == "{":
            try:
                _, end = json.JSONDecoder().raw_decode(prompt, end)
            except ValueError:
                end = match.end()
        found.append((match[1], prompt[match.end() : end] or "{}"))
    return found


def _made_up(
    tools: Sequence[Mapping[str, Any]], name: str | None, key: tuple[object, ...]
) -> tuple[str, str]:
    functions = [tool.get("function", {}) for tool in tools]
    function = next((f for f in functions if f.get("name") == name), functions[0])
    random = seeded(*key, "arguments")
    values = {
        "integer": random.randrange(100),
        "number": round(random.random() * 100, 2),
        "boolean": random.random() < 0.5,  # noqa: PLR2004 - a coin
        "array": [],
        "object": {},
        "null": None,
    }
    properties = (function.get("parameters") or {}).get("properties") or {}
    arguments = {
        field: schema["enum"][0]
        if schema.get("enum")
        else values.get(schema.get("type"), "".join(prose(random, 3)))
        for field, schema in properties.items()
    }
    return name or function.get("name", ""), json.dumps(arguments, ensure_ascii=False)


def _usage(
    messages: Sequence[Any], choices: Sequence[Choice], cached: int
) -> dict[str, Any]:
    prompt = sum(4 + len(json.dumps(message)) // 4 for message in messages)
    completion = sum(choice.tokens for choice in choices)
    reasoning = sum(len(choice.reasoning_deltas) for choice in choices)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": min(cached, prompt)},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }
