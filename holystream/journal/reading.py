"""Reading an SQLite journal: each question is one statement, so of one moment.

What is fetched is checked: every part by its checksum, the events by their numbers.
Only the fetching needs the database's lock.
"""

from __future__ import annotations

import zlib
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from holystream.errors import JournalCorrupt
from holystream.journal import codec, refusals
from holystream.journal.base import Gone
from holystream.journal.excerpt import Excerpt
from holystream.journal.tables import (
    COLUMNS,
    LAST_SEQ,
    Standing,
    check_progress,
    checked,
    legible,
)

if TYPE_CHECKING:
    import sqlite3

    from holystream.events import StreamEvent
    from holystream.journal.base import Reading

_READ: Final = """
SELECT next_seq, outcome, place - (number << 32), count, checksum, events
FROM streams LEFT JOIN batches ON next_seq > :after + 1
    AND place <= (number << 32) + :last
    AND place >= (
        SELECT max(place) FROM batches
        WHERE place BETWEEN (number << 32) AND (number << 32) + :after + 1
    )
WHERE stream_id = :stream_id ORDER BY place
"""
_META: Final = f"""
SELECT {COLUMNS}, cursor, kind, checksum, data
FROM streams JOIN contents USING (number) WHERE stream_id = ?
"""  # noqa: S608 - the columns are above
_LIST: Final = f"""
SELECT {COLUMNS} FROM streams WHERE number < ? AND (outcome IS NULL OR ?)
ORDER BY number DESC LIMIT ?
"""  # noqa: S608 - the columns are above

_KINDS: Final = ("request", "final")


def newest(
    connection: sqlite3.Connection, before: float, count: int, *, ended: bool
) -> list[tuple[Standing, bool]]:
    """Return some streams older than the one numbered ``before``, newest first.

    With each goes whether its row is whole; of a damaged one it is what can be read.
    """
    rows = connection.execute(_LIST, (before, ended, count)).fetchall()
    return [legible(row) for row in rows]


class Contents(NamedTuple):
    """What is large of a stream."""

    cursor: bytes | None
    request: bytes
    final: bytes | None


def rows_of_meta(connection: sqlite3.Connection, stream_id: str) -> list[Any]:
    """Fetch what `meta` makes sense of."""
    return connection.execute(_META, (stream_id,)).fetchall()


def meta(rows: list[Any]) -> tuple[Standing, Contents]:
    """Return the row of a stream and its contents.

    Raises:
        JournalCorrupt: They are damaged.
    """
    width = len(Standing._fields)
    row = checked(rows[0][:width])
    cursor = rows[0][width]
    if not isinstance(cursor, (bytes, NoneType)):
        raise refusals.damaged(f"the cursor of stream {row.stream_id!r}")
    found: dict[str, bytes] = {}
    for *_, kind, checksum, data in rows:
        if kind not in _KINDS:
            raise refusals.damaged(f"a part of stream {row.stream_id!r}")
        if not isinstance(data, bytes) or zlib.crc32(data) != checksum:
            raise _damaged(row.stream_id, f"the {kind}")
        found[kind] = data
    if "request" not in found:
        raise _damaged(row.stream_id, "the request")
    return row, Contents(cursor, found["request"], found.get("final"))


def rows_to_read(
    connection: sqlite3.Connection, stream_id: str, after: int, limit: int
) -> list[Any]:
    """Fetch what `read` makes sense of."""
    last = min(after + limit, LAST_SEQ)
    wanted = {"stream_id": stream_id, "after": after, "last": last}
    return connection.execute(_READ, wanted).fetchall()


def read(stream_id: str, after: int, limit: int, rows: list[Any]) -> Reading:
    """Return the events in what was fetched.

    Raises:
        JournalCorrupt: They are damaged, or some are missing.
        JournalVersion: A newer holystream wrote them.
    """
    if not rows:
        return Gone()
    next_seq, outcome = rows[0][:2]
    check_progress(stream_id, next_seq, outcome)
    ended = outcome is not None
    excerpt = Excerpt.of(next_seq, ended=ended, after=after, limit=limit)
    if excerpt.is_empty:
        return excerpt.nothing()
    events: list[StreamEvent] = []
    begin = expected = rows[0][2] or after + 1
    for *_, first, count, checksum, data in rows:
        if first != expected:
            raise refusals.event_missing(stream_id, expected)
        whole = isinstance(count, int) and isinstance(data, bytes)
        if not whole or zlib.crc32(data) != checksum:
            raise _damaged(stream_id, f"the batch of event {first}")
        events += codec.decode(data)
        expected = first + count
        if len(events) != expected - begin:
            raise _damaged(stream_id, f"the batch of event {first}")
    if expected <= excerpt.last:
        raise refusals.event_missing(stream_id, expected)
    return excerpt.out_of(events, begin)


def _damaged(stream_id: str, what: str) -> JournalCorrupt:
    return JournalCorrupt(
        f"stream {stream_id!r}: {what} in the journal is damaged: its checksum is "
        "wrong; what comes before it can be read with a smaller limit="
    )
