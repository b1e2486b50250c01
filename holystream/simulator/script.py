"""Script: what goes wrong with one answer.

A Script is a frozen set of faults; the default one is a healthy answer. All
faults compose. Three families, and `Simulator.body` knows only the first two:

* what is *generated*, and with which ids: `sampling`, `tokens`, `differ_at`,
  `shorter`, `cached_tokens`, `ids`, `prefill`, `echo`, `stitch`, `preamble`,
  `overlap`;
* what the event stream *says*: `newline`, `bom`, `usage`, `finish`, `done`,
  `finish_reason`, `malformed_at`, `error_event_at`, `final_blank_line`,
  `split_surrogates`;
* how it is *delivered*: everything else. `cursor`, `replay_events` and `shuffle`
  count only for a request that says where to go on.

Offsets (`cut_at`, `stall_at`) count bytes of the event stream as the client
gets it after removing HTTP framing and gzip; pings are not counted. An offset
behind the end is never reached. Seconds are floats.

`Script.parse("cut_at=120; cut=rst")` reads what `str(script)` writes.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from math import inf
from types import NoneType
from typing import Any, Literal, Self, TypeAlias, get_args

from holystream.simulator import notation
from holystream.simulator.failures import ERROR_EVENTS

Cut: TypeAlias = Literal["fin", "rst", "end"]
HeaderCut: TypeAlias = Literal["fin", "rst"]
Framing: TypeAlias = Literal["chunked", "one-chunk", "close", "length"]
Newline: TypeAlias = Literal["\n", "\r\n", "\r"]
UsagePlace: TypeAlias = Literal["last", "finish", "none"]
Ids: TypeAlias = Literal["plain", "named"]
Cursor: TypeAlias = Literal[
    "honour", "inclusive", "ignore", "other", "gap", "missing", "refuse", "empty"
]
Prefill: TypeAlias = Literal[
    "none", "prefix", "continue", "trailing", "ignore", "refuse"
]
Echo: TypeAlias = Literal["pieces", "whole", "glued"]
Stitch: TypeAlias = Literal["continue", "whole"]

_CHOICES: Mapping[str, tuple[object, ...]] = {
    "cut": get_args(Cut),
    "cut_before_headers": (None, *get_args(HeaderCut)),
    "framing": (None, *get_args(Framing)),
    "newline": get_args(Newline),
    "usage": get_args(UsagePlace),
    "ids": (None, *get_args(Ids)),
    "cursor": get_args(Cursor),
    "prefill": get_args(Prefill),
    "echo": (None, *get_args(Echo)),
    "stitch": (None, *get_args(Stitch)),
}
_Range: TypeAlias = Callable[[Any], bool]


def _not_negative(value: float | None) -> bool:
    return value is None or 0 <= value < inf


def _positive(value: float | None) -> bool:
    return value is None or 0 < value < inf


def _pair(value: tuple[int, float] | None) -> bool:
    return value is None or (_positive(value[0]) and _not_negative(value[1]))


def _applied(fits: _Range, name: str, value: Any) -> bool:
    try:
        return fits(value)
    except (TypeError, LookupError):
        two = " of bytes and one of seconds" if fits is _pair else ""
        raise TypeError(f"{name} must be a number{two}, not {value!r}") from None


_RANGES: Mapping[str, _Range] = {
    **dict.fromkeys(("latency", "first_token", "pace", "linger", "ttl"), _not_negative),
    **dict.fromkeys(("cut_at", "stall_at", "times"), _not_negative),
    **dict.fromkeys(("error_event_at", "malformed_at"), _not_negative),
    **dict.fromkeys(("pings", "rechunk", "ring"), _positive),
    **dict.fromkeys(("replay_events", "shuffle", "overlap"), _not_negative),
    **dict.fromkeys(("differ_at", "shorter", "cached_tokens"), _not_negative),
    **dict.fromkeys(("drip", "drip_headers"), _pair),
    "status": range(200, 1000).__contains__,
}


_BODY = (Mapping, bytes)
_KINDS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "error": ((*_BODY, NoneType), "a mapping or bytes, as b'busy' for text"),
    "error_event": ((*_BODY, str), "a name, a mapping or bytes"),
    "headers": ((Mapping,), "a mapping"),
    **dict.fromkeys(
        ("content_type", "redirect", "finish_reason"), ((str, NoneType), "a str")
    ),
    **dict.fromkeys(("ping_text", "preamble"), ((str,), "a str")),
}


def _check_kind(name: str, value: object) -> None:
    """Refuse what only the thread that answers would stumble over."""
    kinds, wanted = _KINDS[name]
    if not isinstance(value, kinds):
        raise TypeError(f"{name} must be {wanted}, not {type(value).__name__}")
    if name != "headers" and isinstance(value, Mapping):
        try:
            json.dumps(dict(value))
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} holds what JSON cannot") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """The faults of one answer (or of `times` answers); see the module."""

    latency: float = 0.0
    """Seconds of silence before the response headers."""
    first_token: float = 0.0
    """Seconds between the headers and the first event."""
    pace: float = 0.0
    """Seconds between events, on an absolute schedule."""
    gate: threading.Semaphore | None = None
    """Each event (each piece with `rechunk`) waits for one `release()`."""

    cut_at: int | None = None
    """Body bytes after which the connection ends."""
    cut: Cut = "fin"
    """How: a FIN, a RST, or a clean `end` of the body without the rest."""
    cut_before_headers: HeaderCut | None = None
    """Read the request, then end the connection without a byte."""
    garbage_status_line: bool = False
    """Answer with something that is not HTTP."""
    stall_at: int | None = None
    """Body bytes after which silence begins, until the client leaves. With
    `pings` or `drip_chunk_size` it moves on to the end of the event."""
    stall_headers: bool = False
    """Never answer."""
    drip: tuple[int, float] | None = None
    """Bytes per write of the body, and the seconds between writes."""
    drip_headers: tuple[int, float] | None = None
    """The same for the response headers."""
    drip_chunk_size: bool = False
    """At `stall_at` (default 0) send zeros of a chunk-size line for ever, at
    the speed of `drip` (default one every 0.05 s). Chunked framing only."""
    pings: float | None = None
    """A comment whenever a wait for the next event, or a stall, was silent for
    so many seconds. Where a length was announced (`one-chunk`, `length`) only
    while stalled, and only for as long as that length lasts."""
    ping_text: str = "ping"
    """What the comment says."""
    linger: float = 0.0
    """Seconds of silence between the last event and the end of the body."""

    status: int = 200
    """Response status; anything but 2xx sends an error body."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Response headers to add or to replace."""
    error: Mapping[str, Any] | bytes | None = None
    """The body instead of an answer, whatever the status: JSON or bytes."""
    content_type: str | None = None
    """Replaces the content type."""
    redirect: str | None = None
    """The `Location` of a redirect; the status is then 307 unless given."""
    echo_key: bool = False
    """An error body that repeats the Authorization header; 401 by default."""

    error_event_at: int | None = None
    """Events after which `error_event` ends the stream."""
    error_event: Mapping[str, Any] | bytes | str = "openai"
    """A name of ERROR_EVENTS, the JSON of a data line, or the raw block."""
    malformed_at: int | None = None
    """Index of the event whose JSON is broken off."""
    finish_reason: str | None = None
    """Replaces the finish reason."""
    finish: bool = True
    """Whether a finish reason is sent at all."""
    done: bool = True
    """Whether `data: [DONE]` is sent."""
    usage: UsagePlace = "last"
    """Usage in a chunk of its own when asked for, on the finish, or never."""
    split_surrogates: bool = False
    """Each character beyond U+FFFF comes as two deltas, half a pair each."""

    sampling: bool | None = None
    """Whether asking again gives another text; by default the request's
    temperature and seed say so."""
    tokens: bool = False
    """Deltas are whole tokens (a word with the space before it, one character of
    CJK or emoji), rather than pieces of one to eight characters."""
    differ_at: int | None = None
    """Characters after which the text is another one."""
    shorter: int | None = None
    """Characters after which the text is at its end, and says "stop"."""
    cached_tokens: int = 0
    """How many tokens of the prompt, at most, are reported as cached."""

    ids: Ids | None = None
    """Every event has an id: a `plain` number, from 1, or `named` by the id of the
    response as well. A request with one as its Last-Event-ID goes on behind it."""
    cursor: Cursor = "honour"
    """What such a request meets: the rest; the rest `inclusive` of the event it
    names; an answer from the start, as if it were to `ignore`; the rest of an
    `other` answer; a `gap` of one event; a 404 as `missing`; a 400 to `refuse` it;
    an `empty` event stream."""
    replay_events: int = 0
    """How many of the events before it come again first, by their old ids."""
    shuffle: int = 0
    """The rest comes out of order, within each run of so many events."""

    ring: int = 4 * 1024 * 1024
    """How many of the last bytes of a body are kept for a request that brought an
    `X-Conversation-Id`; `GET /v1/stream` goes on with them."""
    ttl: float = 300.0
    """Seconds for which they are kept, from the end of the answer."""

    prefill: Prefill = "none"
    """Which prefill is understood: an assistant message at the end with `prefix:
    true`, with the request's `continue_final_message: true`, or just `trailing`.
    `none`: it is a turn like others; `ignore`: it is passed over; `refuse`: 400."""
    echo: Echo | None = None
    """The prefix comes again before what is new: as one delta, `glued` to the first
    new one, or in `pieces` cut anywhere."""
    stitch: Stitch | None = None
    """A user's message behind a part of the answer, or quoting the end of one, gets
    its continuation, or the `whole` answer again."""
    preamble: str = ""
    """What is said first when an answer is stitched."""
    overlap: int = 0
    """How many characters of the end come again when an answer is stitched."""

    framing: Framing | None = None
    """Default: `chunked` for event streams, `length` for plain bodies."""
    newline: Newline = "\n"
    """The line ending of the event stream."""
    rechunk: int | None = None
    """Write (and chunk) the body in pieces of so many bytes, not by event."""
    bom: bool = False
    """Begin the event stream with a byte order mark."""
    gzip: bool = False
    """Compress, with a flush after each event."""
    final_blank_line: bool = True
    """Whether the last event ends in its blank line."""

    times: int = 1
    """How many requests the script serves; 0: all that come."""

    def __post_init__(self) -> None:
        """Refuse what could only surprise later."""
        for name in _KINDS:
            _check_kind(name, getattr(self, name))
        for name, known in _CHOICES.items():
            if (value := getattr(self, name)) not in known:
                words = ", ".join(repr(word) for word in known)
                raise ValueError(f"{name} must be one of {words}, not {value!r}")
        for name, fits in _RANGES.items():
            if not _applied(fits, name, value := getattr(self, name)):
                raise ValueError(f"{name} is out of range: {value!r}")
        if isinstance(self.error_event, str) and self.error_event not in ERROR_EVENTS:
            names = ", ".join(ERROR_EVENTS)
            raise ValueError(
                f"no error event is named {self.error_event!r}; known: {names}"
            )
        if self.drip_chunk_size and self.framing not in (None, "chunked"):
            raise ValueError("drip_chunk_size needs chunked framing")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `key=value` items separated by commas or semicolons.

        Raises:
            ValueError: A key is not known, or its value does not fit.
        """
        return cls(**notation.read(text))

    def __str__(self) -> str:
        changed = {
            item.name: value
            for item in fields(self)
            if (value := getattr(self, item.name)) != getattr(_HEALTHY, item.name)
        }
        return notation.write(changed)


_HEALTHY = Script()
