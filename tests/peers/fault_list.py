"""The faults of the matrix: what the simulator does, and in which framings it matters.

A fault's fields are those of a `Script`. An offset may be a place in the answer instead
of a number, and a text may hold ``{base}`` and ``{port}``, the simulator's own.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from holystream.simulator import Script, Simulator
from holystream.simulator.failures import ERROR_EVENTS, error_body

if TYPE_CHECKING:
    from collections.abc import Mapping

FRAMINGS = ("chunked", "one-chunk", "close", "length")
"""One event per HTTP chunk; all in one; ended by the connection; with a length."""
NO_BODY = ("-",)
"""The framing of a fault that no body comes with."""
SHORT = 1.0
"""Seconds: every clock of a run that waits in vain."""

Places = dict[str, int]
_OFFSETS = ("cut_at", "stall_at")
_INDICES = ("malformed_at", "error_event_at")


@dataclasses.dataclass(frozen=True)
class Fault:
    """One row for each of its framings.

    Attributes:
        kind: The heading under which it stands.
        name: What happens, for a reader.
        fields: Of the `Script`.
        framings: Those in which it is tried.
        waits: A clock has to run out: the clients' are short.
    """

    kind: str
    name: str
    fields: Mapping[str, Any]
    framings: tuple[str, ...] = FRAMINGS
    waits: bool = False

    def script(
        self, framing: str, body: dict[str, Any], simulator: Simulator, times: int
    ) -> Script:
        """Return the script that brings this fault to the answer to ``body``."""
        where = places(_events(simulator, body))
        own = {"base": simulator.base_url, "port": str(simulator.port)}
        fields = {**self.fields, "times": times}
        for name in _OFFSETS + _INDICES:
            if isinstance(fields.get(name), str):
                fields[name] = where[fields[name]]
        if "redirect" in fields:
            fields["redirect"] = fields["redirect"].format(**own)
        if framing in FRAMINGS:
            fields["framing"] = framing
        return Script(**fields)

    def arriving(self, body: dict[str, Any], simulator: Simulator) -> str:
        """Return the text of the events that come whole before the fault."""
        events = _events(simulator, body)
        script = self.script("-", body, simulator, 1)
        if not script.finish:
            return simulator.answer(body, sample=0).text
        given = [getattr(script, name) for name in _INDICES]
        count = min((index for index in given if index is not None), default=0)
        for name in _OFFSETS:
            if (offset := getattr(script, name)) is not None:
                body_so_far = b"\n\n".join(events)[:offset]
                count = body_so_far.count(b"\n\n")
        chunks = [json.loads(event.removeprefix(b"data: ")) for event in events[:count]]
        return "".join(
            choice["delta"].get("content", "")
            for chunk in chunks
            for choice in chunk["choices"]
        )


def _events(simulator: Simulator, body: dict[str, Any]) -> list[bytes]:
    return simulator.body(body, sample=0).split(b"\n\n")


def places(events: list[bytes]) -> Places:
    """Return offsets in an answer: its role, its text, its finish, usage, [DONE]."""
    edges = [0]
    for event in events[:-1]:
        edges.append(edges[-1] + len(event) + 2)
    middle = len(edges) // 2
    finish = next(at for at, event in enumerate(events) if b'"stop"' in event)
    return {
        "event": middle,
        "in the first event": edges[1] // 2,
        "inside an event": (edges[middle] + edges[middle + 1]) // 2,
        "between two events": edges[middle],
        "before the finish reason": edges[finish],
        "after the finish reason": edges[finish + 1],
    }


PLACES = (
    "in the first event",
    "inside an event",
    "between two events",
    "before the finish reason",
    "after the finish reason",
)
CUTS = {"fin": "FIN", "rst": "RST", "end": "clean end"}


def _broken() -> list[Fault]:
    kind = "The connection breaks"
    return [
        Fault(kind, "nobody listens", {}, NO_BODY),
        Fault(kind, "FIN before the headers", {"cut_before_headers": "fin"}, NO_BODY),
        Fault(kind, "RST before the headers", {"cut_before_headers": "rst"}, NO_BODY),
        *(
            Fault(kind, f"{name} {place}", {"cut": cut, "cut_at": place})
            for place in PLACES
            for cut, name in CUTS.items()
        ),
        Fault(
            kind,
            "FIN inside an event, gzip",
            {"cut": "fin", "cut_at": "inside an event", "gzip": True},
        ),
        Fault(
            kind,
            "clean end between two events, gzip",
            {"cut": "end", "cut_at": "between two events", "gzip": True},
        ),
    ]


def _silent() -> list[Fault]:
    kind = "Nothing comes"
    middle = {"stall_at": "between two events"}
    pings = {"pings": SHORT / 8}
    one = ("chunked",)
    return [
        Fault(
            kind,
            "silence before the headers",
            {"stall_headers": True},
            NO_BODY,
            waits=True,
        ),
        Fault(
            kind,
            "headers, one byte in a while",
            {"drip_headers": (1, SHORT / 8)},
            NO_BODY,
            waits=True,
        ),
        Fault(kind, "silence before the first event", {"stall_at": 0}, waits=True),
        Fault(
            kind, "silence inside an event", {"stall_at": "inside an event"}, waits=True
        ),
        Fault(kind, "silence between two events", middle, waits=True),
        Fault(
            kind, "pings before the first event", {"stall_at": 0, **pings}, waits=True
        ),
        Fault(kind, "pings between two events", middle | pings, waits=True),
        Fault(
            kind,
            "a chunk size that never ends",
            middle | {"drip_chunk_size": True},
            one,
            waits=True,
        ),
        Fault(
            kind,
            "silence after the finish reason",
            {"stall_at": "after the finish reason"},
            one,
            waits=True,
        ),
        Fault(kind, "a slow drip of the whole answer", {"drip": (97, 0.002)}),
    ]


def _refused() -> list[Fault]:
    kind = "The server refuses"
    rate, quota = (
        error_body(429),
        error_body(429, "No credit.", code="insufficient_quota"),
    )
    model = error_body(404, "The model `sim` does not exist.", code="model_not_found")
    context = error_body(400, "Too long.", code="context_length_exceeded")
    refusals = {
        "429, Retry-After: 1": {
            "status": 429,
            "error": rate,
            "headers": {"Retry-After": "1"},
        },
        "429, Retry-After: 600": {
            "status": 429,
            "error": rate,
            "headers": {"Retry-After": "600"},
        },
        "429, no credit left": {"status": 429, "error": quota},
        "500": {"status": 500},
        "502 of a proxy, in HTML": {
            "status": 502,
            "error": b"<html>Bad Gateway</html>",
        },
        "503, retry-after-ms: 40": {"status": 503, "headers": {"retry-after-ms": "40"}},
        "529": {"status": 529},
        "408": {"status": 408},
        "400": {"status": 400},
        "400, context length": {"status": 400, "error": context},
        "401": {"status": 401},
        "403": {"status": 403, "error": error_body(403, code="forbidden")},
        "404, model": {"status": 404, "error": model},
        "404, path": {"status": 404},
        "500, x-should-retry: false": {
            "status": 500,
            "headers": {"x-should-retry": "false"},
        },
    }
    return [Fault(kind, name, fields, NO_BODY) for name, fields in refusals.items()]


def _not_a_stream() -> list[Fault]:
    kind = "The answer is something else"
    here, elsewhere = (
        "{base}/chat/completions",
        "http://localhost:{port}/v1/chat/completions",
    )
    huge = b'data: {"id":"' + b"x" * (9 << 20) + b'"}\n\n'
    half = {"error_event_at": "event"}
    stream = "text/event-stream"
    return [
        Fault(
            kind, "a status line that is none", {"garbage_status_line": True}, NO_BODY
        ),
        Fault(kind, "307 to the same server", {"redirect": here}, NO_BODY),
        Fault(
            kind,
            "307 to another server, which answers",
            {"redirect": elsewhere},
            NO_BODY,
        ),
        Fault(
            kind, "302 to the same server", {"redirect": here, "status": 302}, NO_BODY
        ),
        Fault(kind, "204", {"status": 204}, NO_BODY),
        Fault(kind, "200 with HTML", {"error": b"<html>Log in</html>"}),
        Fault(kind, "200 with an API error in JSON", {"error": error_body(429)}),
        Fault(kind, "200 with an empty stream", {"error": b"", "content_type": stream}),
        Fault(kind, "a line of 9 MiB, then the end", half | {"error_event": huge}),
    ]


def _finish(reason: str) -> bytes:
    choice = {"index": 0, "delta": {}, "finish_reason": reason}
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "sim"}
    return b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n"


def _said() -> list[Fault]:
    kind = "What the stream says"
    done = b"data: [DONE]\n\n"
    half = {"error_event_at": "event"}
    return [
        *(
            Fault(
                kind,
                f"error event: {name}",
                {"error_event": name, "error_event_at": "event"},
            )
            for name in ERROR_EVENTS
        ),
        Fault(kind, "error event before any text", {"error_event_at": 1}),
        Fault(kind, "an event of broken JSON", {"malformed_at": "event"}),
        Fault(kind, "no [DONE]", {"done": False}),
        Fault(kind, "no finish reason", {"finish": False}),
        Fault(kind, "no finish reason, no [DONE]", {"finish": False, "done": False}),
        Fault(kind, "[DONE] after half of the text", half | {"error_event": done}),
        *(
            Fault(
                kind,
                f"finish reason {reason!r} after half of the text",
                half | {"error_event": _finish(reason) + done},
            )
            for reason in ("error", "abort", "insufficient_system_resource", "")
        ),
        Fault(kind, "finish reason 'length'", {"finish_reason": "length"}),
        Fault(kind, "no usage", {"usage": "none"}),
        Fault(kind, "usage on the finish reason", {"usage": "finish"}),
        Fault(kind, "emoji in two halves", {"split_surrogates": True}),
    ]


def _delivered() -> list[Fault]:
    kind = "How it is delivered"
    return [
        Fault(kind, "CRLF", {"newline": "\r\n"}),
        Fault(kind, "CRLF, byte by byte", {"newline": "\r\n", "rechunk": 1}),
        Fault(kind, "CR", {"newline": "\r"}),
        Fault(kind, "byte order mark", {"bom": True}),
        Fault(kind, "no blank line at the end", {"final_blank_line": False}),
        Fault(
            kind,
            "no blank line behind the finish reason, no [DONE]",
            {"final_blank_line": False, "done": False, "usage": "finish"},
        ),
        Fault(kind, "byte by byte", {"rechunk": 1}),
        Fault(kind, "gzip", {"gzip": True}),
        Fault(kind, "gzip, in pieces of 7 bytes", {"gzip": True, "rechunk": 7}),
        Fault(kind, "no content type", {"content_type": ""}),
        Fault(kind, "comments between the events", {"pings": 0.002, "pace": 0.005}),
    ]


FAULTS = (
    *_broken(),
    *_silent(),
    *_refused(),
    *_not_a_stream(),
    *_said(),
    *_delivered(),
)
