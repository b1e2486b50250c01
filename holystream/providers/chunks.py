"""The chunks of an OpenAI-compatible chat stream, reduced to the fields we use.

Two readings lead to the same structs. The typed one, by msgspec, is the fast path and
takes what the API documents. It refuses everything else, and real servers send that:
NaN, halves of a surrogate pair, invalid UTF-8, null or an object of another type where
one is promised. Those go to `read_leniently`, which is allowed to be slow.

Invariants: a string from the typed reading can be encoded, and so can a name from the
lenient one; but a piece of text from it may hold lone surrogates, half characters.
Nothing that could be part of the answer is dropped because of its shape: it is read, or
it raises `Malformed`, whose message never holds content.
"""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from holystream.providers.surrogates import mend_whole

__all__ = [
    "DONE",
    "INDEX_LIMIT",
    "Chunk",
    "ChunkChoice",
    "Delta",
    "FunctionPiece",
    "Malformed",
    "NamedChunk",
    "NotJSON",
    "ToolCallPiece",
    "read_identity",
    "read_leniently",
    "read_named",
    "read_named_spoken",
    "read_plain",
    "read_spoken",
    "read_text",
]

DONE = b"[DONE]"
"""The data of the event that ends a stream."""

_INDEX_DIGITS: Final = 10
INDEX_LIMIT: Final = 2**31
"""No index is as large; a hostile one may have thousands of digits."""

# The typed reading refuses anything but null here, and the lenient one takes it: who
# asks for what is rare pays for it, and no other stream looks at it in vain.
if TYPE_CHECKING:
    from collections.abc import Iterator

    Rare = Any
else:
    Rare = None


_WELL: Final = frozenset({"", "0", "200", "ok", "success"})
"""Codes of messages that are no errors."""

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What the typed readings raise; in older versions a MsgspecError is no ValueError."""


class Malformed(ValueError):
    """An event cannot be read. Its message says where, never what it holds."""


class NotJSON(Malformed):
    """The data of an event is not a JSON object."""


class FunctionPiece(msgspec.Struct, gc=False):
    """A piece of a call: its name, once, and its arguments, bit by bit."""

    name: str | None = None
    arguments: str | None = None


class ToolCallPiece(msgspec.Struct, gc=False):
    """One element of ``delta.tool_calls``."""

    index: int | None = None
    id: str | None = None
    function: FunctionPiece | None = None


class Delta(msgspec.Struct, gc=False):
    """What one chunk adds to one choice."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallPiece] | None = None
    function_call: FunctionPiece | None = None


class ChunkChoice(msgspec.Struct, gc=False):
    """One element of ``choices``. Moonshot puts the usage here, OpenRouter errors."""

    index: int | None = None
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    usage: Any = None
    logprobs: Rare = None
    error: Any = None
    text: str | None = None


class Chunk(msgspec.Struct, gc=False):
    """One chunk, without what every chunk repeats."""

    choices: list[ChunkChoice] | None = None
    usage: Any = None
    error: Any = None


class NamedChunk(Chunk, gc=False):
    """A chunk with the names that are only needed once for each answer."""

    id: str | None = None
    model: str | None = None


_Empty = Annotated[str, msgspec.Meta(max_length=0)] | None
_NoCalls = Annotated[list[Any], msgspec.Meta(max_length=0)] | None


class SpokenDelta(msgspec.Struct, gc=False):
    """A delta that is text and nothing else, but may say who speaks."""

    content: Annotated[str, msgspec.Meta(min_length=1)]
    reasoning_content: _Empty = None
    reasoning: _Empty = None
    refusal: _Empty = None
    tool_calls: _NoCalls = None
    function_call: None = None


class SpokenChoice(msgspec.Struct, gc=False):
    """The first choice, in the midst of its text."""

    delta: SpokenDelta
    index: Annotated[int, msgspec.Meta(ge=0, le=0)] | None = 0
    finish_reason: _Empty = None
    usage: None = None
    logprobs: None = None
    error: None = None


class SpokenChunk(msgspec.Struct, gc=False):
    """The usual chunk: msgspec refuses any that holds more than a piece of text."""

    choices: tuple[SpokenChoice]
    usage: None = None
    error: None = None


class NamedSpokenChunk(SpokenChunk, gc=False):
    """The same with the id of the answer."""

    id: str | None = None


class TextOnlyDelta(SpokenDelta, gc=False):
    """The same where it would be news who speaks."""

    role: None = None


class TextOnlyChoice(SpokenChoice, gc=False):
    """The first choice, where it would be."""

    delta: TextOnlyDelta


class TextOnlyChunk(SpokenChunk, gc=False):
    """The usual chunk, where it would be."""

    choices: tuple[TextOnlyChoice]


class _Identified(msgspec.Struct, gc=False):
    """A chunk of which only the id is wanted."""

    id: str | None = None


_read_identified = msgspec.json.Decoder(_Identified).decode
read_text = msgspec.json.Decoder(TextOnlyChunk).decode
read_spoken = msgspec.json.Decoder(SpokenChunk).decode
read_named_spoken = msgspec.json.Decoder(NamedSpokenChunk).decode
read_plain = msgspec.json.Decoder(Chunk).decode
read_named = msgspec.json.Decoder(NamedChunk).decode


def read_identity(data: bytes) -> str | None:
    """Return the id of the answer that a chunk belongs to, if it says so."""
    try:
        return _read_identified(data).id or None
    except UNREADABLE:
        # Half of a character, bytes that are no text: it has a name all the same.
        with contextlib.suppress(Malformed):
            chunk = read_leniently(data)
            return chunk.id if chunk is not None else None
        return None


def parts_of(choice: ChunkChoice, delta: Delta | None) -> Iterator[str]:
    """Yield what a choice adds to its answer: "text", its "end", and the like."""
    if delta is not None:
        if delta.reasoning_content or delta.reasoning:
            yield "reasoning"
        if delta.content:
            yield "text"
        if delta.refusal:
            yield "refusal"
        if delta.tool_calls or delta.function_call:
            yield "calls"
    if choice.finish_reason:
        yield "end"


def read_leniently(data: bytes) -> NamedChunk | None:
    """Read a chunk of any shape.

    Args:
        data: The data of an event that the typed reading refused or found nothing in.

    Returns:
        The chunk; its ``error`` is set for every known shape of an error. None for an
        object that is neither a chunk nor an error.

    Raises:
        NotJSON: It is not a JSON object.
        Malformed: A part of it that may be content has a shape nobody can read.
    """
    try:
        # strict=False: some servers leave control characters unescaped.
        chunk = json.loads(
            data.decode("utf-8", "replace").removeprefix("\ufeff"), strict=False
        )
    except (ValueError, RecursionError):
        # Not chained: a JSONDecodeError holds the whole text.
        raise NotJSON(f"{len(data)} bytes of data are not JSON") from None
    if not isinstance(chunk, dict):
        raise NotJSON(f"the data is a JSON {_kind(chunk)}, not an object")
    error = chunk.get("error")
    if not error and not chunk.get("choices") and _is_error(chunk):
        error = chunk
    if not error and not any(key in chunk for key in ("choices", "usage")):
        return None
    return NamedChunk(
        choices=[_choice(choice) for choice in _list(chunk, "choices")],
        usage=chunk.get("usage"),
        error=error or None,
        id=_name(chunk, "id"),
        model=_name(chunk, "model"),
    )


def _is_error(chunk: dict[str, Any]) -> bool:
    """Know the errors that do not come under the key ``error``."""
    return (
        chunk.get("object") == "error"
        or chunk.get("type") == "error"
        or bool(chunk.get("detail"))
        or (bool(chunk.get("message") or chunk.get("msg")) and _is_failed(chunk))
    )


def _is_failed(chunk: dict[str, Any]) -> bool:
    """Whether a code, or a status in numbers, says so: 0 and 200 do not."""
    code = chunk.get("code")
    if code is None and not isinstance(code := chunk.get("status"), int):
        return False
    if isinstance(code, str):
        return code.casefold() not in _WELL
    if isinstance(code, bool) or not isinstance(code, int):
        return False
    return code != 0 and not 200 <= code < 300  # noqa: PLR2004 - HTTP's own


def _choice(choice: dict[str, Any]) -> ChunkChoice:
    return ChunkChoice(
        index=_index(choice),
        delta=_delta(choice, "delta"),
        message=_delta(choice, "message"),
        finish_reason=_name(choice, "finish_reason"),
        usage=choice.get("usage"),
        logprobs=choice.get("logprobs"),
        error=choice.get("error"),
        text=_text(choice, "text"),
    )


def _delta(choice: dict[str, Any], key: str) -> Delta | None:
    delta = choice.get(key)
    if delta is None:
        return None
    if not isinstance(delta, dict):
        raise Malformed(f"{key} is a JSON {_kind(delta)}, not an object")
    content, thinking = _content(delta)
    return Delta(
        content=content,
        reasoning_content=_text(delta, "reasoning_content") or thinking,
        reasoning=_text(delta, "reasoning"),
        refusal=_text(delta, "refusal"),
        tool_calls=[_tool_call(piece) for piece in _list(delta, "tool_calls")] or None,
        function_call=_function(delta, "function_call"),
    )


def _content(delta: dict[str, Any]) -> tuple[str | None, str | None]:
    """Read content that is a string or, from Mistral, a list of parts."""
    content = delta.get("content")
    if content is None or isinstance(content, str):
        return content, None
    text = thinking = ""
    for part in _list(delta, "content"):
        if isinstance(part.get("text"), str):
            text += part["text"]
        elif part.get("type") == "thinking":
            inner = part.get("thinking")
            if isinstance(inner, str):
                thinking += inner
            else:
                thinking += _content({"content": inner})[0] or ""
        else:
            raise Malformed("content holds a part without text")
    return text, thinking


def _tool_call(piece: dict[str, Any]) -> ToolCallPiece:
    return ToolCallPiece(
        index=_index(piece),
        id=_name(piece, "id"),
        function=_function(piece, "function"),
    )


def _function(piece: dict[str, Any], key: str) -> FunctionPiece | None:
    function = piece.get(key)
    if function is None:
        return None
    if not isinstance(function, dict):
        raise Malformed(f"{key} is a JSON {_kind(function)}, not an object")
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        # Some servers parse the arguments themselves and send them in one piece.
        arguments = json.dumps(arguments, ensure_ascii=False)
    return FunctionPiece(name=_name(function, "name"), arguments=arguments)


def _list(holder: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the objects of a list; null, there or as an element, is nothing."""
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Malformed(f"{key} is a JSON {_kind(value)}, not an array")
    objects = [element for element in value if element is not None]
    for element in objects:
        if not isinstance(element, dict):
            raise Malformed(f"{key} holds a JSON {_kind(element)}, not an object")
    return objects


def _text(holder: dict[str, Any], key: str) -> str | None:
    value = holder.get(key)
    return value if isinstance(value, str) else None


def _name(holder: dict[str, Any], key: str) -> str | None:
    """Return a string that is whole, so that no half of a character has a partner."""
    value = _text(holder, key)
    return value and mend_whole(value)


def _index(holder: dict[str, Any]) -> int | None:
    value = holder.get("index")
    if isinstance(value, str) and value.isdecimal() and len(value) < _INDEX_DIGITS:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _kind(value: object) -> str:
    """Return JSON's name for the type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    names = ((str, "string"), (list, "array"), (dict, "object"))
    return next((name for kind, name in names if isinstance(value, kind)), "number")
