"""Server-sent events: from the bytes of a body to whole events.

The event-stream algorithm of the HTML standard
(https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6) in two
steps, so that ``requests``' own ``iter_lines`` can stand between them: `LineSafeRaw`
takes the place of ``response.raw`` and hands on whole lines with LF endings, the moment
they are whole; `EventParser` makes events of the lines. ``iter_lines`` alone loses
received bytes on a cut, withholds events, and makes up blank lines where a CR and its
LF come apart; over whole lines it is exact.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_BOM = b"\xef\xbb\xbf"
_SELF_DELIMITING = b'{["'
_RETRY_DIGITS = 18


class ServerSentEvent(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event of an event stream.

    Attributes:
        raw: The data lines joined by LF, as bytes.
        event: The event type; empty for the default, "message".
        id: The last event id at dispatch.
        retry: Milliseconds of a ``retry`` field in this block, or None.
    """

    raw: bytes
    event: str = ""
    id: str = ""
    retry: int | None = None

    @property
    def data(self) -> str:
        """The data as text; bytes that are not UTF-8 become U+FFFD."""
        return self.raw.decode("utf-8", "replace")


class LimitError(Exception):
    """A line or an event is larger than its limit in bytes."""


class LineSplitter:
    r"""Cuts bytes into whole lines and writes every ending (LF, CR, CRLF) as LF.

    A CR ends its line at once; if an LF follows in the next bytes it is dropped, so
    no byte is waited for. Linear in the length of a line. Not thread-safe.
    """

    __slots__ = ("_after_cr", "_limit", "_pending", "only_lf")

    def __init__(self, max_line_bytes: int) -> None:
        # No byte was dropped so far: an LF was written for an LF.
        self.only_lf = True
        self._limit = max_line_bytes
        # Not a list: an object for each piece costs many times a dripped line.
        self._pending = bytearray()
        self._after_cr = False

    def feed(self, data: bytes) -> bytes:
        """Return all lines that are whole now, each ended by LF; maybe none.

        Raises:
            LimitError: A line exceeds ``max_line_bytes``.
        """
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if not data:
            return b""
        self._after_cr = data.endswith(b"\r")
        if b"\r" in data:
            self.only_lf = False
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = data.rfind(b"\n") + 1
        pending = self._pending
        if pending:
            first = data.find(b"\n") if end else len(data)
            self._check(len(pending) + first)
            if end:
                data = b"".join((pending, data))
                end += len(pending)
                pending.clear()
        if end == len(data):
            return data
        rest = data[end:]
        self._check(len(pending) + len(rest))
        pending += rest
        return data[:end]

    @property
    def at_start(self) -> bool:
        """Nothing is pending: whole lines that end in LF may go past it."""
        return not (self._pending or self._after_cr)

    @property
    def rest(self) -> bytes:
        """The line that has not ended yet."""
        return bytes(self._pending)

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise LimitError(f"a line exceeds {self._limit} bytes")


class LineSafeRaw:
    """Stands in for ``response.raw`` under ``iter_lines``. Not thread-safe.

    Args:
        raw: What it stands in for: closed and released, but not read.
        read: Returns what one read of the body brings; empty at the end.
        max_line_bytes: The longest line that is waited for.

    Attributes:
        lines: How many lines the last block held: what one read brought.
        received: Bytes of the decoded body that were read.
    """

    __slots__ = ("_raw", "_read", "_splitter", "lines", "received")

    def __init__(
        self, raw: Any, read: Callable[[], bytes], max_line_bytes: int
    ) -> None:
        self._raw = raw
        self._read = read
        self._splitter = LineSplitter(max_line_bytes)
        self.lines = 0
        self.received = 0

    def stream(self, _amt: int, *, decode_content: bool) -> Iterator[bytes]:  # noqa: ARG002 - requests' signature
        """Yield blocks of whole lines as soon as one read brings some.

        Raises:
            LimitError: A line exceeds its limit.
        """
        read = self._read
        splitter = self._splitter
        at_start = splitter.at_start
        while True:
            data = read()
            self.received += len(data)
            if at_start and data[-1:] == b"\n" and b"\r" not in data:
                block = data
            elif data:
                block = splitter.feed(data)
                at_start = splitter.at_start
            else:
                return
            if block:
                self.lines = block.count(b"\n")
                yield block

    @property
    def rest(self) -> bytes:
        """A last line without an ending."""
        return self._splitter.rest

    @property
    def whole(self) -> int | None:
        """Bytes of the body in lines that are whole; None if an ending was not LF."""
        splitter = self._splitter
        return self.received - len(splitter.rest) if splitter.only_lf else None

    def close(self) -> None:
        """Close the connection, unless its body was read to the end."""
        self._raw.close()

    def release_conn(self) -> None:
        """Give the connection back to urllib3's pool."""
        self._raw.release_conn()


class EventParser:
    """Makes events of whole lines, as the standard dispatches them. Not thread-safe.

    One deviation, for streams of LLMs, in `close`.

    Attributes:
        last_event_id: The id that a reconnect would send; empty for none.
        reconnection_time: Milliseconds that the last ``retry`` field asked for.
        pending: Bytes, with their LFs, of the lines of a block that has not ended.
        exceeded: An event exceeded ``max_event_bytes``; parsing has ended.
        started: The first line has come, with which a byte order mark may come.
    """

    __slots__ = (
        "_data",
        "_event",
        "_id",
        "_limit",
        "_retry",
        "_size",
        "exceeded",
        "last_event_id",
        "pending",
        "reconnection_time",
        "started",
    )

    def __init__(self, max_event_bytes: int, *, last_event_id: str = "") -> None:
        self._limit = max_event_bytes
        self._data: list[bytes] = []
        self._size = 0
        self._event = ""
        self._id = last_event_id
        self._retry: int | None = None
        self.started = False
        self.last_event_id = last_event_id
        self.reconnection_time: int | None = None
        self.pending = 0
        self.exceeded = False

    def feed(self, lines: Sequence[bytes]) -> list[ServerSentEvent]:
        """Return the events that these lines complete."""
        if not lines:
            return []
        if not self.started:
            self.started = True
            lines = [lines[0].removeprefix(_BOM), *lines[1:]]
        if (usual := self._usual(lines)) is not None:
            return usual
        events: list[ServerSentEvent] = []
        data = self._data
        for line in lines:
            if not line:
                self.last_event_id = self._id
                if data:
                    whole = data[0] if len(data) == 1 else b"\n".join(data)
                    events.append(
                        ServerSentEvent(whole, self._event, self._id, self._retry)
                    )
                    data.clear()
                self._event = ""
                self._retry = None
                self.pending = 0
            else:
                self.pending += len(line) + 1
                self._take_field(line)
                if self.exceeded:
                    break
        return events

    def _usual(self, lines: Sequence[bytes]) -> list[ServerSentEvent] | None:
        """Return the events if each is one data line and a blank one, as most are."""
        pending = self._data or self._event or self._retry is not None
        if pending or any(lines[1::2]):
            return None
        heads = lines[::2]
        bodies = [line[6:] for line in heads if line[:6] == b"data: "]
        if not 2 * len(bodies) == 2 * len(heads) == len(lines):
            return None
        last_event_id = self.last_event_id = self._id
        self.pending = 0
        return [ServerSentEvent(body, "", last_event_id) for body in bodies]

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            if not self._data:
                self._size = -1
            self._size += 1 + len(value)
            self.exceeded = self._size > self._limit
            self._data.append(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            digits = value.lstrip(b"0") or b"0"
            if len(digits) <= _RETRY_DIGITS:
                self._retry = self.reconnection_time = int(digits)

    def close(self, rest: bytes) -> ServerSentEvent | None:
        """Return the event that the end of the stream completes, if any.

        The standard drops a block that no blank line ended. Some servers send their
        last event so, and for a stream whose end decides whether an answer is whole
        that loses the answer: here it counts, whole, if its data is one complete JSON
        object, array or string, or ``[DONE]``. A bare number could go on, and does not.

        Args:
            rest: The last line, if it had no ending.
        """
        if not self.started:
            rest = rest.removeprefix(_BOM)
        if rest.startswith(b"data:"):
            self.feed([rest])
        data = b"\n".join(self._data)
        if data.strip() != b"[DONE]" and not _is_complete_json(data):
            return None
        return next(iter(self.feed([b""])), None)


def _is_complete_json(data: bytes) -> bool:
    if data.lstrip()[:1] not in _SELF_DELIMITING:
        return False
    try:
        # Not msgspec: what is complete may still hold a NaN or a lone surrogate.
        json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return False
    return True
