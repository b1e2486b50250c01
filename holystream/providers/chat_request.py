"""Builds the body of a chat request, and finds what is wrong before it is sent.

Every complaint is an `InvalidRequest` that names the argument, what is wrong with it
and what is expected. None of them quotes a value of the prompt: errors reach logs.

What is returned is a deep copy of plain JSON values, so that a caller who goes on
appending to a list of messages does not change a request that may be sent again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holystream.errors import InvalidRequest
from holystream.providers.base import ChatRequest
from holystream.providers.jsonvalues import kind, plain, wrong

if TYPE_CHECKING:
    from holystream.providers.profile import Profile

__all__ = ["Messages", "chat_request", "encode"]

Messages = str | Sequence[Mapping[str, Any]]
"""A prompt: a text, which becomes one message of the user, or a list of messages."""

ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
_INSTEAD_OF_CONTENT: Final = ("tool_calls", "function_call", "refusal", "audio")
"""What lets an assistant's message do without content."""
_OURS: Final = ("stream", "messages")
"""Fields that `extra_body` must leave alone."""
_SHOWN: Final = 10**18
MOST_CHOICES: Final = 128
"""Answers that one request may ask for: what OpenAI documents."""


def chat_request(
    prompt: Messages,
    *,
    profile: Profile,
    model: str | None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] | None = None,
    n: int | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    tool_choice: str | Mapping[str, Any] | None = None,
    response_format: Mapping[str, Any] | None = None,
    extra_body: Mapping[str, Any] | None = None,
    deterministic: bool | None = None,
) -> ChatRequest:
    """Build a checked request. An argument that is None is not sent.

    Args:
        prompt: A text, or the messages of a conversation.
        profile: What the server, and the model behind it, can do.
        model: The model's name.
        temperature: From 0; 0 makes the request deterministic, where the profile says
            that it does.
        top_p: Above 0, at most 1.
        max_tokens: The most tokens the answer may have.
        seed: Makes the request deterministic, where the profile says that it does.
        stop: A text, or several, before which the answer ends.
        n: How many answers to ask for, at most 128.
        tools: The tools the model may call.
        tool_choice: Which of them it must.
        response_format: The shape of the answer.
        extra_body: Fields to add to the body, or to put in place of ours. One that is
            None removes the field. They are sent as they are.
        deterministic: The caller's word that the same request gives the same answer,
            or that it does not; None to go by temperature and seed.

    Raises:
        InvalidRequest: An argument is wrong.
    """
    body: dict[str, Any] = {"model": model, "messages": _messages(prompt)}
    profile = profile.for_model(_model(model, extra_body))
    spelled = profile.spellings
    body["stream"] = True
    if profile.usage_option:
        body["stream_options"] = {"include_usage": True}
    arguments = {
        "temperature": _number("temperature", temperature, low=0),
        "top_p": _number("top_p", top_p, low=0, high=1, low_is_allowed=False),
        "max_tokens": _positive("max_tokens", max_tokens),
        "seed": _integer("seed", seed),
        "stop": _stop(stop),
        "n": _choices("n", n),
        "tools": _tools(tools),
        "tool_choice": _tool_choice(tool_choice),
        "response_format": _typed("response_format", response_format),
    }
    body |= {
        spelled.get(name, name): value
        for name, value in arguments.items()
        if value is not None
    }
    _override(body, extra_body)
    name = body.get("model")
    if not isinstance(name, str) or not name.strip():
        raise wrong("model", _blank(name), "the name of a model: give model=")
    if deterministic is not None and not isinstance(deterministic, bool):
        raise wrong("deterministic", kind(deterministic), "True, False or None")
    body = {key: plain(value, key) for key, value in body.items()}
    if deterministic is None:
        repeatable_by = profile.repeatable_by
        deterministic = (
            "temperature" in repeatable_by and body.get("temperature") == 0
        ) or ("seed" in repeatable_by and spelled.get("seed", "seed") in body)
    return ChatRequest(
        path=profile.target(body["model"]),
        body=body,
        model=body["model"],
        choices=body.get("n", 1),
        deterministic=deterministic,
    )


def encode(request: ChatRequest) -> bytes:
    """Return the body as JSON."""
    return msgspec.json.encode(request.body)


def _model(model: Any, extra_body: Any) -> str:
    """Return the model that will be asked for; nothing is checked yet."""
    if isinstance(extra_body, Mapping):
        model = extra_body.get("model", model)
    return model if isinstance(model, str) else ""


def _messages(prompt: Any) -> Any:
    expected = "a text or a list of messages"
    if isinstance(prompt, str):
        if not prompt.strip():
            raise wrong("prompt", "empty", expected)
        return [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list | tuple):
        raise wrong("prompt", kind(prompt), expected)
    if not prompt:
        raise wrong("prompt", "an empty list", "at least one message")
    for place, message in enumerate(prompt):
        _check_message(f"messages[{place}]", message)
    return prompt


def _check_message(where: str, message: Any) -> None:
    if not isinstance(message, Mapping):
        raise wrong(where, kind(message), "a mapping with role and content")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        what = "missing" if role is None else "unknown"
        raise wrong(f"{where}.role", what, f"one of {', '.join(ROLES)}")
    content = message.get("content")
    expected = "a text or a list of parts"
    if content is None:
        if role == "assistant" and any(message.get(key) for key in _INSTEAD_OF_CONTENT):
            return
        raise wrong(f"{where}.content", "missing", expected)
    if isinstance(content, str):
        return
    if not isinstance(content, list | tuple):
        raise wrong(f"{where}.content", kind(content), expected)
    if not content:
        raise wrong(f"{where}.content", "an empty list", expected)
    for place, part in enumerate(content):
        _typed(f"{where}.content[{place}]", part, required=True)


def _number(
    name: str,
    value: Any,
    *,
    low: float,
    high: float = math.inf,
    low_is_allowed: bool = True,
) -> Any:
    if value is None:
        return None
    start = "from" if low_is_allowed else "above"
    end = f" up to {high:g}" if high < math.inf else ""
    expected = f"a number {start} {low:g}{end}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(name, kind(value), expected)
    # Written so that NaN, which compares false with everything, is out of range.
    in_range = low < value <= high or (low_is_allowed and value == low)
    if not in_range or value == math.inf:
        raise wrong(name, _show(value), expected)
    return value


def _integer(name: str, value: Any) -> Any:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise wrong(name, kind(value), "an integer")
    return value


def _positive(name: str, value: Any) -> Any:
    if value is not None and _integer(name, value) < 1:
        raise wrong(name, _show(value), "an integer from 1")
    return value


def _choices(name: str, value: Any) -> Any:
    if value is not None and not 1 <= _integer(name, value) <= MOST_CHOICES:
        raise wrong(name, _show(value), f"an integer from 1 to {MOST_CHOICES}")
    return value


def _stop(stop: Any) -> Any:
    expected = "a text or a list of texts, none of them empty"
    if stop is None:
        return None
    texts = [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, list | tuple):
        raise wrong("stop", kind(stop), expected)
    if not texts:
        raise wrong("stop", "an empty list", expected)
    for place, text in enumerate(texts):
        if not isinstance(text, str) or not text:
            where = "stop" if text is stop else f"stop[{place}]"
            raise wrong(where, _blank(text), expected)
    return stop


def _tools(tools: Any) -> Any:
    if tools is None:
        return None
    if not isinstance(tools, list | tuple):
        raise wrong("tools", kind(tools), "a list of mappings")
    if not tools:
        raise wrong("tools", "an empty list", "at least one tool, or None")
    for place, tool in enumerate(tools):
        where = f"tools[{place}]"
        _typed(where, tool, required=True)
        if tool["type"] == "function":
            function = tool.get("function")
            name = function.get("name") if isinstance(function, Mapping) else None
            if not isinstance(name, str) or not name:
                raise wrong(
                    f"{where}.function", "not a mapping with a name", "name, parameters"
                )
    return tools


def _tool_choice(choice: Any) -> Any:
    if choice is None or (isinstance(choice, str) and choice):
        return choice
    if isinstance(choice, str):
        raise wrong("tool_choice", "empty", "a word or a mapping with a type")
    return _typed("tool_choice", choice)


def _typed(where: str, value: Any, *, required: bool = False) -> Any:
    """Check a mapping that says by its ``type`` what it is."""
    if value is None and not required:
        return None
    if not isinstance(value, Mapping):
        raise wrong(where, kind(value), "a mapping with a type")
    name = value.get("type")
    if not isinstance(name, str) or not name:
        raise wrong(f"{where}.type", _blank(name), "a text")
    return value


def _override(body: dict[str, Any], extra: Any) -> None:
    if extra is None:
        return
    if not isinstance(extra, Mapping):
        raise wrong("extra_body", kind(extra), "a mapping")
    for key, value in extra.items():
        if not isinstance(key, str):
            raise wrong(
                "extra_body",
                f"a mapping with a key that is {kind(key)}",
                "texts as keys",
            )
        if key in _OURS:
            argument = "prompt" if key == "messages" else "client.stream()"
            raise InvalidRequest(f"extra_body must not set {key!r}: use {argument}")
        if value is None:
            body.pop(key, None)
        else:
            body[key] = value
    _choices("extra_body.n", body.get("n"))


def _blank(value: object) -> str:
    return "empty" if isinstance(value, str) else kind(value)


def _show(number: float) -> str:
    """Return a number as text; one that is too long to show is only described."""
    if isinstance(number, int) and abs(number) > _SHOWN:
        return "far out of range"
    return repr(number)
