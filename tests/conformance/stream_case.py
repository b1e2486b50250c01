"""A case of an event stream: the bytes of one body, and what they mean.

The cases are in wpt_streams.py, contract_streams.py and package_streams.py: what the
suites of others send and expect, written down anew.
"""

from __future__ import annotations

from dataclasses import dataclass

BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class StreamCase:
    """A body and what it means.

    ``events`` are (data, type, last event id), the type empty for "message".
    ``last_id`` is sent by the next connection, ``retry`` is the milliseconds to wait
    before it, None if the body does not say.
    """

    source: str
    body: bytes
    events: tuple[tuple[str, str, str], ...]
    last_id: str = ""
    retry: int | None = None
    comments: tuple[str, ...] = ()


def case(source, body, *events, **others):
    """Return a case; an event may leave out its id, and its type."""
    full = tuple(
        (each, "", "") if isinstance(each, str) else (*each, "", "")[:3]
        for each in events
    )
    return StreamCase(source, body, full, **others)
