"""Events to bytes and back, for every store.

A batch is one msgpack array: the format's version and the events, each an array that
begins with its tag. The deltas, of which there are many, are positional; of the others
the fields go by name. An unknown version or tag was written by a newer holystream, and
that is an error: nothing is passed over in silence.

Not stored: the server's raw bytes of a delta, and of an error all but what describes it
(no partial text, which the events hold, and no traceback). A text may hold half a
surrogate pair and a number more than 64 bits, which msgpack cannot: those go by an
extension, on a slower path.
"""

from __future__ import annotations

import enum
import json
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holystream import errors
from holystream.errors import (
    JournalCorrupt,
    JournalVersion,
    Phase,
    StreamError,
    Verdict,
)
from holystream.events import (
    Completion,
    Connected,
    Failed,
    Finished,
    Interrupted,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    Rewound,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    UsageReport,
    Waiting,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holystream.events import StreamEvent

VERSION: Final = 1
"""The format's version; an older reader refuses a newer one."""

_HALF_PAIRS: Final = 1
_BIG_NUMBER: Final = 2
_MOST_CAUSES: Final = 4

# Tags are for ever: one that has been in a release is never given to another event.
_TEXT, _REASONING, _REFUSAL, _TOOL_PIECE, _TOOL_CALL = 1, 2, 3, 4, 5
_INTERRUPTED, _FAILED, _FINISHED, _LOGPROBS = 6, 7, 8, 9
_DELTAS: Final = {
    _TEXT: TextDelta,
    _REASONING: ReasoningDelta,
    _REFUSAL: RefusalDelta,
}
_BY_NAME: Final[dict[int, type[Any]]] = {
    10: Started,
    11: Connected,
    12: UsageReport,
    13: Waiting,
    14: Resumed,
    15: Rewound,
}
_FACTS: Final = (
    *("stream_id", "request_id", "endpoint", "attempts", "retry_after", "exhausted"),
    *("status", "code", "type"),
)

_encoder = msgspec.msgpack.Encoder()


def encode(events: Sequence[StreamEvent | Failed]) -> bytes:
    """Return the bytes of a batch of events.

    Raises:
        TypeError: One of them is no event of a stream.
    """
    rows: list[Any] = []
    for event in events:
        if type(event) is TextDelta:
            rows.append((_TEXT, event.text, event.offset, event.index, event.segment))
            continue
        try:
            to_row = _ROWS[type(event)]
        except KeyError:
            raise TypeError(
                f"{type(event).__name__} is not an event that a journal stores"
            ) from None
        rows.append(to_row(event))
    try:
        return _encoder.encode((VERSION, rows))
    except (UnicodeEncodeError, OverflowError):
        return _encoder.encode((VERSION, _extended(rows)))


def decode(data: bytes) -> list[StreamEvent]:
    """Return the events of a batch.

    Raises:
        JournalVersion: A newer holystream wrote them.
        JournalCorrupt: They are not what any holystream wrote.
    """
    try:
        version, rows = _decoder.decode(data)
    except (ValueError, TypeError, msgspec.DecodeError) as error:
        raise _corrupt() from error
    if version != VERSION:
        raise JournalVersion(
            f"these events were stored in format {version!r}, of which this holystream "
            f"knows {VERSION}: upgrade holystream to read them"
        )
    events: list[Any] = []
    try:
        for row in rows:
            tag = row[0]
            if tag == _TEXT:
                _, text, offset, index, segment = row
                events.append(TextDelta(text, offset, index, segment))
            elif tag in _EVENTS:
                events.append(_EVENTS[tag](row))
            else:
                raise JournalVersion(
                    f"an event of kind {tag!r} was stored by a newer holystream: "
                    "upgrade holystream to read it"
                )
    except (ValueError, TypeError, LookupError, msgspec.ValidationError) as error:
        raise _corrupt() from error
    return events


def _corrupt() -> JournalCorrupt:
    return JournalCorrupt(
        "stored events cannot be decoded: the journal is damaged; what comes before "
        "them can be read with a smaller limit="
    )


def _delta_row(tag: int) -> Callable[[Any], tuple[Any, ...]]:
    return lambda event: (tag, event.text, event.offset, event.index, event.segment)


def _delta(row: list[Any]) -> Any:
    tag, text, offset, index, segment = row
    return _DELTAS[tag](text, offset, index, segment)


def _tool_piece(row: list[Any]) -> ToolCallDelta:
    _, call_index, call_id, name, arguments, index, segment = row
    return ToolCallDelta(
        call_index=call_index,
        id=call_id,
        name=name,
        arguments=arguments,
        index=index,
        segment=segment,
    )


def _tool_call_row(call: ToolCall) -> tuple[Any, ...]:
    # The parsed arguments as JSON once more: numbers of any size and half surrogate
    # pairs are at home in it, and who parsed them need not be asked how.
    parsed = json.dumps(call.arguments)
    return (
        *(_TOOL_CALL, call.call_index, call.id, call.name),
        *(parsed, call.arguments_json, call.index),
    )


def _tool_call(row: list[Any]) -> ToolCall:
    _, call_index, call_id, name, parsed, written, index = row
    return ToolCall(
        call_index=call_index,
        id=call_id,
        name=name,
        arguments=json.loads(parsed),
        arguments_json=written,
        index=index,
    )


def _logprobs_row(event: Logprobs) -> tuple[Any, ...]:
    tokens = [_token_row(token) for token in event.tokens]
    return _LOGPROBS, tokens, event.offset, event.channel, event.index, event.segment


def _logprobs(row: list[Any]) -> Logprobs:
    _, tokens, offset, channel, index, segment = row
    return Logprobs(
        tokens=tuple(_token(token) for token in tokens),
        offset=offset,
        channel=channel,
        index=index,
        segment=segment,
    )


def _token_row(token: TokenLogprob) -> tuple[Any, ...]:
    return token.token, token.logprob, token.bytes, [_token_row(t) for t in token.top]


def _token(row: list[Any]) -> TokenLogprob:
    token, logprob, data, top = row
    others = tuple(_token(other) for other in top)
    return TokenLogprob(token=token, logprob=logprob, bytes=data, top=others)


def _completion_row(completion: Completion) -> dict[str, Any]:
    row = msgspec.structs.asdict(completion)
    row["choices"] = [
        msgspec.structs.asdict(choice)
        | {"tool_calls": [_tool_call_row(call) for call in choice.tool_calls]}
        for choice in completion.choices
    ]
    return row


def _completion(row: dict[str, Any]) -> Completion:
    for choice in row["choices"]:
        choice["tool_calls"] = tuple(_tool_call(call) for call in choice["tool_calls"])
    return msgspec.convert(row, Completion)


def _error_row(error: BaseException | None, depth: int = 0) -> dict[str, Any] | None:
    if error is None or depth == _MOST_CAUSES:
        return None
    row = {name: getattr(error, name, None) for name in _FACTS}
    row["kind"] = type(error).__name__
    row["message"] = getattr(error, "message", None) or type(error).__name__
    row["verdict"] = getattr(error, "verdict", Verdict.FATAL).name
    row["phase"] = getattr(error, "phase", None)
    row["cause"] = _error_row(getattr(error, "cause", None), depth + 1)
    return row


def _error(row: dict[str, Any]) -> StreamError:
    """Make an error as it was described; of a kind that is unknown, a StreamError."""
    kind = getattr(errors, row["kind"], None)
    if not (isinstance(kind, type) and issubclass(kind, StreamError)):
        kind = StreamError
    error = kind(row["message"])
    for name in _FACTS:
        if hasattr(error, name) and row.get(name) is not None:
            setattr(error, name, row[name])
    error.verdict = Verdict[row["verdict"]]
    error.phase = None if row["phase"] is None else Phase(row["phase"])
    if isinstance(error, errors.StreamInterrupted) and row["cause"] is not None:
        error.cause = _error(row["cause"])
    return error


def _interrupted(row: list[Any]) -> Interrupted:
    _, error, attempt = row
    return Interrupted(error=_error(error), attempt=attempt)


def _by_name_row(tag: int) -> Callable[[Any], tuple[Any, ...]]:
    return lambda event: (tag, event)


def _by_name(row: list[Any]) -> Any:
    tag, fields = row
    return msgspec.convert(fields, _BY_NAME[tag])


def _extended(value: Any) -> Any:  # noqa: PLR0911 - one for each type
    """Put what msgpack cannot hold into extensions."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            data = value.encode("utf-8", "surrogatepass")
            return msgspec.msgpack.Ext(_HALF_PAIRS, data)
        return value
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if isinstance(value, dict):
        return {name: _extended(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_extended(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return msgspec.msgpack.Ext(_BIG_NUMBER, hex(value).encode())
    return value


def _unextended(code: int, data: memoryview) -> Any:
    if code == _HALF_PAIRS:
        return bytes(data).decode("utf-8", "surrogatepass")
    if code == _BIG_NUMBER:
        return int(bytes(data), 16)
    raise JournalVersion(
        f"a value of kind {code} was stored by a newer holystream: upgrade holystream "
        "to read it"
    )


_decoder = msgspec.msgpack.Decoder(tuple[int, list[Any]], ext_hook=_unextended)
# msgspec learns a type at its first use, and two threads that meet there crash the
# interpreter: it learns them here.
for _kind in (Completion, *_BY_NAME.values()):
    msgspec.msgpack.Decoder(_kind)

_ROWS: Final[dict[type[Any], Callable[[Any], tuple[Any, ...]]]] = {
    **{kind: _delta_row(tag) for tag, kind in _DELTAS.items()},
    **{kind: _by_name_row(tag) for tag, kind in _BY_NAME.items()},
    ToolCallDelta: lambda event: (
        *(_TOOL_PIECE, event.call_index, event.id, event.name),
        *(event.arguments, event.index, event.segment),
    ),
    ToolCall: _tool_call_row,
    Logprobs: _logprobs_row,
    Interrupted: lambda event: (_INTERRUPTED, _error_row(event.error), event.attempt),
    Failed: lambda event: (_FAILED, _error_row(event.error)),
    Finished: lambda event: (_FINISHED, _completion_row(event.completion)),
}
_EVENTS: Final[dict[int, Callable[[list[Any]], Any]]] = {
    **dict.fromkeys(_DELTAS, _delta),
    **dict.fromkeys(_BY_NAME, _by_name),
    _TOOL_PIECE: _tool_piece,
    _TOOL_CALL: _tool_call,
    _LOGPROBS: _logprobs,
    _INTERRUPTED: _interrupted,
    _FAILED: lambda row: Failed(error=_error(row[1])),
    _FINISHED: lambda row: Finished(completion=_completion(row[1])),
}
