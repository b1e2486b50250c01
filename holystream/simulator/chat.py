"""The chat completions dialect: an Answer as OpenAI would write it.

`event_stream` gives the blocks of the event stream, one per event, exactly as
the script wants them read; `completion` the JSON of an answer in one piece.
Joined, the blocks are the body byte for byte, so whoever cuts and paces can
work on bytes alone.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

from holystream.simulator.answers import Answer, Choice
from holystream.simulator.failures import ERROR_EVENTS
from holystream.simulator.logprobs import weigh
from holystream.simulator.script import Script

_FINGERPRINT = "fp_simulator"
_PADDING = "aZ3kQ9xW7mB1vR5t"
_ESCAPE_EVERY = 3
_DONE = "data: [DONE]"
_BOM = b"\xef\xbb\xbf"
_HALF = re.compile("[\ud800-\udfff]")
_LAST_OF_THE_BMP = 0xFFFF


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class _Writer:
    """Writes the chunks of one stream: the frame is encoded only once."""

    def __init__(self, answer: Answer, request: Mapping[str, Any]) -> None:
        options = request.get("stream_options") or {}
        frame = {
            "id": answer.id,
            "object": "chat.completion.chunk",
            "created": answer.created,
            "model": answer.model,
            "system_fingerprint": _FINGERPRINT,
        }
        self._request = request
        self.with_usage = bool(options.get("include_usage"))
        self._frame = f'data: {_json(frame)[:-1]},"choices":['
        self._padded = options.get("include_obfuscation", True)
        self._count = 0

    def delta(self, index: int, key: str, text: str) -> str:
        """Return a chunk with one text; every third is escaped to ASCII."""
        self._count += 1
        # Half a surrogate pair can only be written as an escape.
        escape = not self._count % _ESCAPE_EVERY or _HALF.search(text)
        encode = encode_basestring_ascii if escape else encode_basestring
        delta = f'{{"{key}":{encode(text)}}}'
        weighed = weigh(self._request, [text]) if key == "content" else None
        return self.chunk(index, delta, size=len(text), weighed=weighed)

    def chunk(
        self,
        index: int,
        delta: str,
        finish: str | None = None,
        *,
        size: int = 0,
        usage: Mapping[str, Any] | None = None,
        weighed: Mapping[str, Any] | None = None,
    ) -> str:
        """Return a chunk with one choice."""
        logprobs = "null" if weighed is None else json.dumps(weighed)
        reason = "null" if finish is None else encode_basestring(finish)
        choice = (
            f'{{"index":{index},"delta":{delta},"logprobs":{logprobs},'
            f'"finish_reason":{reason}}}'
        )
        return self._whole(choice, usage, size)

    def usage_chunk(self, usage: Mapping[str, Any]) -> str:
        """Return the chunk that has usage and no choice."""
        return self._whole("", usage, 0)

    def _whole(self, choice: str, usage: Mapping[str, Any] | None, size: int) -> str:
        tail = ""
        if usage is not None:
            tail = f',"usage":{_json(usage)}'
        elif self.with_usage:
            tail = ',"usage":null'
        if self._padded:
            tail += f',"obfuscation":"{_PADDING[size % len(_PADDING) :]}"'
        return f"{self._frame}{choice}]{tail}}}"


def event_stream(
    answer: Answer, request: Mapping[str, Any], script: Script
) -> tuple[bytes, ...]:
    """Return the blocks of the stream, one per event."""
    return lay_out(with_ids(events(answer, request, script), answer, script), script)


def events(
    answer: Answer, request: Mapping[str, Any], script: Script
) -> tuple[str, ...]:
    """Return the data line of each event."""
    lines = tuple(_chunks(_Writer(answer, request), answer, script))
    return (*lines, _DONE) if script.done else lines


def with_ids(lines: Sequence[str], answer: Answer, script: Script) -> Sequence[str]:
    """Return the lines with the ids that the script gives them, counting from 1."""
    if script.ids is None:
        return lines
    name = f"{answer.id}:" if script.ids == "named" else ""
    ending = script.newline
    return [f"id: {name}{number}{ending}{line}" for number, line in enumerate(lines, 1)]


def lay_out(lines: Sequence[str], script: Script) -> tuple[bytes, ...]:
    """Return the blocks of one event stream, with what is wrong with them."""
    ending = (script.newline * 2).encode()
    blocks = [line.encode() + ending for line in lines]
    if script.malformed_at is not None and script.malformed_at < len(blocks):
        broken = blocks[script.malformed_at].rstrip(b"\r\n")
        start = broken.index(b"data: ")
        end = start + (len(broken) - start) * 2 // 3
        blocks[script.malformed_at] = broken[:end] + ending
    if script.error_event_at is not None and script.error_event_at <= len(blocks):
        blocks[script.error_event_at :] = [_error_block(script)]
    if blocks and script.bom:
        blocks[0] = _BOM + blocks[0]
    if blocks and not script.final_blank_line:
        blocks[-1] = blocks[-1].removesuffix(script.newline.encode())
    return tuple(blocks)


def _chunks(writer: _Writer, answer: Answer, script: Script) -> Iterator[str]:
    last = len(answer.choices) - 1
    tracks = (
        _track(writer, index, choice, script, answer.usage if index == last else None)
        for index, choice in enumerate(answer.choices)
    )
    if len(answer.choices) == 1:
        yield from next(tracks)
    else:
        for round_ in zip_longest(*tracks):
            yield from (text for text in round_ if text is not None)
    if script.usage == "last" and writer.with_usage:
        yield writer.usage_chunk(answer.usage)


def _track(
    writer: _Writer,
    index: int,
    choice: Choice,
    script: Script,
    usage: Mapping[str, Any] | None,
) -> Iterator[str]:
    content = "null" if choice.tool_calls else '""'
    first = f'{{"role":"assistant","content":{content},"refusal":null}}'
    yield writer.chunk(index, first)
    split = _halves if script.split_surrogates else _as_they_are
    for text in split(choice.reasoning_deltas):
        yield writer.delta(index, "reasoning_content", text)
    for text in split(choice.deltas):
        yield writer.delta(index, "content", text)
    for position, call in enumerate(choice.tool_calls):
        opening = {"name": call.name, "arguments": ""}
        head = {"index": position, "id": call.id, "type": "function"}
        yield writer.chunk(
            index, _json({"tool_calls": [{**head, "function": opening}]})
        )
        for text in call.deltas:
            part = {"index": position, "function": {"arguments": text}}
            yield writer.chunk(index, _json({"tool_calls": [part]}))
    if script.finish:
        at_finish = usage if script.usage == "finish" else None
        yield writer.chunk(index, "{}", _reason(choice, script), usage=at_finish)


def _as_they_are(deltas: Sequence[str]) -> Iterator[str]:
    return iter(deltas)


def _halves(deltas: Sequence[str]) -> Iterator[str]:
    for delta in deltas:
        part = ""
        for character in delta:
            if ord(character) > _LAST_OF_THE_BMP:
                pair = character.encode("utf-16-be")
                yield part + pair[:2].decode("utf-16-be", "surrogatepass")
                part = pair[2:].decode("utf-16-be", "surrogatepass")
            else:
                part += character
        if part:
            yield part


def _error_block(script: Script) -> bytes:
    event = script.error_event
    if isinstance(event, bytes):
        return event
    if isinstance(event, str):
        block = ERROR_EVENTS[event]
    else:
        block = b"data: " + json.dumps(dict(event)).encode() + b"\n\n"
    return block.replace(b"\n", script.newline.encode())


def completion(
    answer: Answer, request: Mapping[str, Any], script: Script
) -> dict[str, Any]:
    """Return the answer as one JSON object."""
    return {
        "id": answer.id,
        "object": "chat.completion",
        "created": answer.created,
        "model": answer.model,
        "choices": [
            {
                **_whole_choice(index, choice, script),
                "logprobs": weigh(request, choice.deltas),
            }
            for index, choice in enumerate(answer.choices)
        ],
        **({} if script.usage == "none" else {"usage": dict(answer.usage)}),
        "system_fingerprint": _FINGERPRINT,
    }


def _whole_choice(index: int, choice: Choice, script: Script) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if choice.tool_calls else choice.text,
        "refusal": None,
    }
    if choice.reasoning_deltas:
        message["reasoning_content"] = choice.reasoning
    if choice.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in choice.tool_calls
        ]
    return {
        "index": index,
        "message": message,
        "logprobs": None,
        "finish_reason": _reason(choice, script) if script.finish else None,
    }


def _reason(choice: Choice, script: Script) -> str:
    override = script.finish_reason
    return choice.finish_reason if override is None else override
