"""What is in the tables of an SQLite journal, and the SQL that changes it.

`place` is a stream's number in the high 32 bits and the number of a batch's first event
in the low ones: one tree, in order, in which no batch can be twice. A stream's number
is its first fence, and fences count through the whole journal, so that neither is ever
used again. Every stored part has a checksum: SQLite has none, and would hand out what a
disk made up. Functions that change something run within a transaction; one that raises
a `JournalError` has changed nothing.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from holystream.journal import codec, refusals
from holystream.journal.base import Outcome

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from holystream.errors import JournalError
    from holystream.events import StreamEvent
    from holystream.journal.base import Claim

LAST_SEQ: Final = 2**32 - 1
"""The number of the last event that a stream has room for."""
_OUTCOMES: Final = frozenset(outcome.value for outcome in Outcome)

SCHEMA: Final = """
CREATE TABLE fences (last INTEGER NOT NULL);
INSERT INTO fences VALUES (0);
CREATE TABLE streams (
    number INTEGER PRIMARY KEY,
    stream_id TEXT NOT NULL UNIQUE,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    ttl REAL NOT NULL,
    expires REAL NOT NULL,
    owner TEXT,
    fence INTEGER NOT NULL,
    next_seq INTEGER NOT NULL DEFAULT 1,
    outcome TEXT,
    stop_requested TEXT,
    cursor BLOB
);
CREATE INDEX streams_by_expiry ON streams (expires);
CREATE TABLE contents (
    number INTEGER NOT NULL,
    kind TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (number, kind)
);
CREATE TABLE batches (
    place INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    events BLOB NOT NULL
);
CREATE TABLE garbage (number INTEGER PRIMARY KEY)
"""

_APPEND: Final = """
UPDATE streams SET next_seq = ?, updated = ?, cursor = coalesce(?, cursor)
WHERE number = ? AND fence = ? AND owner = ? AND next_seq = ? AND outcome IS NULL
"""
# What nearly never is costs nothing: only where this fails is there more to ask.
_APPEND_UNASKED: Final = _APPEND + "AND stop_requested IS NULL"
_FINISH: Final = """
UPDATE streams SET outcome = ?, updated = ?, expires = ttl + ?
WHERE number = ? AND fence = ? AND owner = ? AND outcome IS NULL
"""
_RELEASE: Final = """
UPDATE streams SET owner = NULL, updated = ?, expires = ttl + ?
WHERE number = ? AND fence = ? AND owner = ? AND outcome IS NULL
"""
_CLAIM: Final = """
UPDATE streams SET owner = ?, fence = ?, updated = ?, expires = ttl + ?
WHERE number = ?
"""
_STOP: Final = """
UPDATE streams
SET stop_requested = CASE WHEN outcome IS NULL THEN ? ELSE stop_requested END
WHERE stream_id = ?
"""


class Standing(NamedTuple):
    """The row of a stream, but for what is large."""

    number: int
    stream_id: str
    created: float
    updated: float
    owner: str | None
    fence: int
    next_seq: int
    outcome: str | None
    stop_requested: str | None


COLUMNS: Final = ", ".join(Standing._fields)
# A number has 31 bits of a place.
_LAST_FENCE: Final = 2**31 - 1
_YEAR_10000: Final = 253_402_300_800.0


def _is_id(value: object) -> bool:
    return isinstance(value, str) and value.isprintable() and value != ""


def _is_number(value: object) -> bool:
    return isinstance(value, int)


def _is_time(value: object) -> bool:
    return isinstance(value, float) and 0 <= value < _YEAR_10000


def _is_count(value: object) -> bool:
    return isinstance(value, int) and 0 < value <= LAST_SEQ


def _is_outcome(value: object) -> bool:
    return value is None or value in _OUTCOMES


def _is_text(value: object) -> bool:
    return value is None or isinstance(value, str)


# What a column holds, and what stands for it where it is damaged.
_FITTING: Final[dict[str, tuple[Callable[[object], bool], object]]] = {
    "number": (_is_number, 0),
    "stream_id": (_is_id, ""),
    "created": (_is_time, 0.0),
    "updated": (_is_time, 0.0),
    "owner": (_is_text, None),
    "fence": (_is_number, 0),
    "next_seq": (_is_count, 1),
    "outcome": (_is_outcome, None),
    "stop_requested": (_is_text, None),
}


def legible(row: Sequence[Any]) -> tuple[Standing, bool]:
    """Return what can be read of a stream's row, and whether that is all of it."""
    whole = True
    values: list[Any] = []
    for value, (fits, blank) in zip(row, _FITTING.values(), strict=True):
        fitting = fits(value)
        whole = whole and fitting
        values.append(value if fitting else blank)
    found = Standing(*values)
    if not found.stream_id:
        found = found._replace(stream_id=f"damaged stream {found.number}")
    return found, whole


def checked(row: Sequence[Any]) -> Standing:
    """Return the row of a stream as it was fetched, or refuse it.

    Raises:
        JournalCorrupt: It holds what no holystream writes.
    """
    found, whole = legible(row)
    if not whole:
        raise refusals.damaged_row(found.stream_id)
    return found


def check_progress(stream_id: str, next_seq: object, outcome: object) -> None:
    """Refuse a count that is none, and an end that none has.

    Raises:
        JournalCorrupt: It is one.
    """
    if not (_is_count(next_seq) and _is_outcome(outcome)):
        raise refusals.damaged_row(stream_id)


def create(
    connection: sqlite3.Connection,
    stream_id: str,
    *,
    owner: str,
    now: float,
    ttl: float,
    request: bytes,
) -> int:
    """Begin a stream; return its number, which is its first fence.

    Raises:
        StreamExists: The id is taken.
    """
    if standing(connection, stream_id) is not None:
        raise refusals.exists(stream_id)
    fence = _next_fence(connection)
    connection.execute(
        "INSERT INTO streams (number, stream_id, created, updated, ttl, expires, owner,"
        " fence) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (fence, stream_id, now, now, ttl, now + ttl, owner, fence),
    )
    _put(connection, fence, "request", request)
    return fence


def appending(
    claim: Claim,
    number: int,
    events: Sequence[StreamEvent],
    *,
    now: float,
    cursor: bytes | None,
) -> Callable[[sqlite3.Connection], None]:
    """Prepare an append; return what carries it out, which may be more than once."""
    first, count = claim.next_seq, len(events)
    if first + count > LAST_SEQ:
        raise OverflowError(f"a stream has room for {LAST_SEQ} events")
    # As bytearrays: for bytes sqlite3 looks for an adapter, each time, in vain.
    data = bytearray(codec.encode(events) if count else b"")
    saved = None if cursor is None else bytearray(cursor)
    batch = (number << 32) + first, count, zlib.crc32(data), data
    row = first + count, now, saved, number, claim.fence, claim.owner, first

    def append(connection: sqlite3.Connection) -> None:
        if connection.execute(_APPEND_UNASKED, row).rowcount != 1:
            if connection.execute(_APPEND, row).rowcount != 1:
                raise _why_not(connection, claim, number)
            claim.stop_requested = known(connection, claim.stream_id).stop_requested
        if count:
            connection.execute("INSERT INTO batches VALUES (?, ?, ?, ?)", batch)

    return append


def finish(
    connection: sqlite3.Connection,
    claim: Claim,
    number: int,
    *,
    outcome: Outcome,
    final: bytes,
    now: float,
) -> None:
    """End a stream.

    Raises:
        JournalError: The claim does not hold.
    """
    row = outcome.value, now, now, number, claim.fence, claim.owner
    if connection.execute(_FINISH, row).rowcount != 1:
        raise _why_not(connection, claim, number)
    _put(connection, number, "final", final)


def release(
    connection: sqlite3.Connection, claim: Claim, number: int, *, now: float
) -> None:
    """Leave a stream without an owner, if the claim holds."""
    connection.execute(_RELEASE, (now, now, number, claim.fence, claim.owner))


def take_over(
    connection: sqlite3.Connection, number: int, *, owner: str, now: float
) -> int:
    """Give a stream another owner; return the new fence."""
    fence = _next_fence(connection)
    connection.execute(_CLAIM, (owner, fence, now, now, number))
    return fence


def standing(connection: sqlite3.Connection, stream_id: str) -> Standing | None:
    """Return the row of a stream, if it is known."""
    row = connection.execute(
        f"SELECT {COLUMNS} FROM streams WHERE stream_id = ?",  # noqa: S608 - ours
        (stream_id,),
    ).fetchone()
    return None if row is None else checked(row)


def known(connection: sqlite3.Connection, stream_id: str) -> Standing:
    """Return the row of a stream.

    Raises:
        StreamUnknown: There is none.
    """
    row = standing(connection, stream_id)
    if row is None:
        raise refusals.unknown(stream_id)
    return row


def request_stop(connection: sqlite3.Connection, stream_id: str, by: str) -> None:
    """Note who wants a stream to stop.

    Raises:
        StreamUnknown: There is no such stream.
    """
    if connection.execute(_STOP, (by, stream_id)).rowcount != 1:
        raise refusals.unknown(stream_id)


def number_of(connection: sqlite3.Connection, stream_id: str) -> int | None:
    """Return the number of a stream, whatever else its row holds, if it is known."""
    row = connection.execute(
        "SELECT number FROM streams WHERE stream_id = ?", (stream_id,)
    ).fetchone()
    return None if row is None else int(row[0])


def expired(connection: sqlite3.Connection, now: float, count: int) -> list[Standing]:
    """Return some streams whose time is over, the longest ago first.

    Of one whose row is damaged it is what can be read of it: its time is over, too.
    """
    rows = connection.execute(
        f"SELECT {COLUMNS} FROM streams WHERE expires <= ? "  # noqa: S608 - ours
        "ORDER BY expires LIMIT ?",
        (now, count),
    ).fetchall()
    return [legible(row)[0] for row in rows]


def needs_sweep(connection: sqlite3.Connection, now: float) -> bool:
    """Whether something is over, or was forgotten and is not yet deleted."""
    row = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM streams WHERE expires <= ?) "
        "OR EXISTS (SELECT 1 FROM garbage)",
        (now,),
    ).fetchone()
    return bool(row[0])


def spare(connection: sqlite3.Connection, number: int, now: float) -> None:
    """Give a stream its time once more."""
    connection.execute(
        "UPDATE streams SET expires = ttl + ? WHERE number = ?", (now, number)
    )


def forget(connection: sqlite3.Connection, number: int) -> None:
    """Make a stream unknown; its events become garbage."""
    connection.execute("DELETE FROM streams WHERE number = ?", (number,))
    connection.execute("DELETE FROM contents WHERE number = ?", (number,))
    connection.execute("INSERT OR IGNORE INTO garbage VALUES (?)", (number,))


def collect(connection: sqlite3.Connection, count: int) -> bool:
    """Delete some batches of what was forgotten; return whether there may be more."""
    found = connection.execute("SELECT number FROM garbage LIMIT 1").fetchone()
    if found is None:
        return False
    deleted = connection.execute(
        "DELETE FROM batches WHERE place IN (SELECT place FROM batches "
        "WHERE place BETWEEN (? << 32) AND (? << 32) + ? LIMIT ?)",
        (found[0], found[0], LAST_SEQ, count),
    )
    if deleted.rowcount < count:
        connection.execute("DELETE FROM garbage WHERE number = ?", found)
    return True


def _why_not(connection: sqlite3.Connection, claim: Claim, number: int) -> JournalError:
    """Return why a claim could not be used."""
    row = standing(connection, claim.stream_id)
    if row is None:
        return refusals.unknown(claim.stream_id)
    same = row.number == number and row.fence == claim.fence
    if not same or row.owner != claim.owner:
        return refusals.fenced(claim.stream_id)
    if row.outcome is not None:
        return refusals.finished(claim.stream_id)
    return refusals.out_of_step(claim.stream_id, claim.next_seq, row.next_seq)


def _next_fence(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT last FROM fences").fetchone()
    if not row or not isinstance(row[0], int) or not 0 <= row[0] < _LAST_FENCE:
        raise refusals.damaged("the count of the claims")
    connection.execute("UPDATE fences SET last = ?", (row[0] + 1,))
    return row[0] + 1


def _put(connection: sqlite3.Connection, number: int, kind: str, data: bytes) -> None:
    connection.execute(
        "INSERT INTO contents VALUES (?, ?, ?, ?)",
        (number, kind, zlib.crc32(data), bytes(data)),
    )
