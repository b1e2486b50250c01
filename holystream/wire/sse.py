"""Server-sent events: from the bytes of a body to whole events."""

from __future__ import annotations

import msgspec


class ServerSentEvent(msgspec.Struct, frozen=True):
    """One dispatched event of an event stream, as the HTML standard defines it.

    Attributes:
        data: The data lines joined by LF, as UTF-8 bytes.
        event: The event type; empty for the default, "message".
        id: The last event id at dispatch.
        retry: Milliseconds of a ``retry`` field in this block, or None.
    """

    data: bytes
    event: str = ""
    id: str = ""
    retry: int | None = None
