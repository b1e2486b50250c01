"""The journal of one machine: an SQLite database, shared by its processes.

What was acknowledged survives `kill -9` at any moment; with ``durability="power"`` a
cut of the power too. An append is one row of events and one of the stream, in a
transaction that others may share (`commits`); it checks the claim's fence and that its
events follow on those stored (`tables`), so that no two owners can both write. Who owns
a stream, and whether that owner is alive, the kernel knows (`owners`). How the file is
opened, and closed before a fork, is told in `database` and `holding`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from holystream.clocks import check_seconds
from holystream.errors import Fenced
from holystream.journal import reading, refusals, tables
from holystream.journal.base import (
    LIST_LIMIT,
    READ_LIMIT,
    JournalState,
    Outcome,
    StreamInfo,
    StreamMeta,
    check_after,
    check_stream_id,
)
from holystream.journal.commits import Write
from holystream.journal.holding import HeldFile, StoredClaim
from holystream.journal.later import (
    appending,
    carry_out_all,
    finishing,
    releasing,
)
from holystream.journal.owners import bury, bury_all
from holystream.journal.watching import growing_pauses

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Sequence

    from holystream.clocks import CancelToken
    from holystream.events import StreamEvent
    from holystream.journal.base import Claim, Reading
    from holystream.journal.tables import Standing

_SWEPT_AT_CREATE: Final = 2
_SWEPT_AT_ONCE: Final = 50
_COLLECTED_AT_ONCE: Final = 500


class SQLiteJournal(HeldFile):
    """A journal in an SQLite database. Thread-safe and fork-safe.

    In a forked child no claim of its parent's holds: the parent goes on.

    Args:
        path: The file; made if there is none, readable for its owner alone.
        durability: "process" survives a killed process; "power" a cut of the power too,
            for one fsync per commit.
        busy_timeout: Seconds to wait for another process's transaction to end.
        now: Returns the seconds since 1970.

    Raises:
        JournalUnavailable: The file cannot be opened or made.
        JournalCorrupt: It is damaged, or of something else.
        JournalVersion: A newer holystream made it.
    """

    def create(self, stream_id: str, *, request: bytes, ttl: float) -> Claim:
        """Begin a stream, and own it; see `Journal.create`."""
        check_stream_id(stream_id)
        check_seconds(ttl, "ttl=")
        now = self._now()
        if self._select(lambda connection: tables.needs_sweep(connection, now)):
            self._forget_some(now, _SWEPT_AT_CREATE)

        def create(connection: sqlite3.Connection) -> StoredClaim:
            owner = self._owner()
            fence = tables.create(
                connection, stream_id, owner=owner, now=now, ttl=ttl, request=request
            )
            return StoredClaim(
                stream_id=stream_id, owner=owner, fence=fence, number=fence
            )

        return self._take(create)

    def append(
        self,
        claim: Claim,
        events: Sequence[StreamEvent],
        *,
        cursor: bytes | None = None,
    ) -> None:
        """Store events and what it takes to go on after them; see `Journal.append`."""
        if self._commits.struck:
            self._later.add(appending(claim, events, cursor))
            return
        if self._later.works:
            self._later.carry_out()
        number = self._number(claim)
        append = tables.appending(claim, number, events, now=self._now(), cursor=cursor)
        next_seq = claim.next_seq + len(events)
        self._commits.submit(
            Write(append, wakes=claim.stream_id, claim=claim, next_seq=next_seq)
        )
        if self._later.works:
            self._later.carry_out()

    def finish(self, claim: Claim, outcome: Outcome, final: bytes) -> None:
        """End a stream, for good; see `Journal.finish`."""
        number, now, outcome = self._number(claim), self._now(), Outcome(outcome)
        if self._commits.struck:
            self._later.add(finishing(claim, outcome, final))
            return
        self._write(
            lambda connection: tables.finish(
                connection, claim, number, outcome=outcome, final=final, now=now
            ),
            claim.stream_id,
        )
        self._disown(claim)

    def release(self, claim: Claim) -> None:
        """Let go of a stream that has not ended; see `Journal.release`."""
        if self._database.closed:
            return
        try:
            number, now = self._number(claim), self._now()
        except Fenced:
            return
        if self._commits.struck:
            self.release_later(claim)
            return
        try:
            self._write(
                lambda connection: tables.release(connection, claim, number, now=now)
            )
        except Exception:
            self._disown(claim)
            raise
        # Not if a Ctrl-C strikes: then it is let go when the claim is lost.
        self._disown(claim)

    def release_later(self, claim: Claim) -> None:
        """Let go of a stream soon; see `Journal.release_later`."""
        self._later.add(releasing(claim))

    def claim(self, stream_id: str) -> Claim:
        """Take over a stream that nobody alive owns; see `Journal.claim`."""
        check_stream_id(stream_id)
        carry_out_all()
        now = self._now()
        dead: list[str] = []

        def claim(connection: sqlite3.Connection) -> StoredClaim:
            row = tables.known(connection, stream_id)
            if row.outcome is not None:
                raise refusals.finished(stream_id)
            if row.owner is not None:
                if self._is_alive(row.owner):
                    raise refusals.busy(stream_id, row.owner)
                dead.append(row.owner)
            owner = self._owner()
            return StoredClaim(
                stream_id=stream_id,
                owner=owner,
                fence=tables.take_over(connection, row.number, owner=owner, now=now),
                next_seq=row.next_seq,
                stop_requested=row.stop_requested,
                number=row.number,
            )

        taken = self._take(claim)
        for owner in dead:
            bury(self._database.owners, owner)
        return taken

    def read(
        self,
        stream_id: str,
        *,
        after: int = 0,
        limit: int = READ_LIMIT,
        wait: float = 0.0,
        cancel: CancelToken | None = None,
    ) -> Reading:
        """Read the events behind ``after``; see `Journal.read`."""
        check_stream_id(stream_id)
        check_after(after)

        def look() -> Reading:
            rows = self._select(
                lambda c: reading.rows_to_read(c, stream_id, after, limit)
            )
            return reading.read(stream_id, after, limit, rows)

        seen = self._version() if wait > 0 else 0

        def changed() -> bool:
            nonlocal seen
            before, seen = seen, self._version()
            return seen != before

        return self._watchers.follow(
            look,
            stream_id,
            wait=wait,
            cancel=cancel,
            pauses=growing_pauses(),
            changed=changed,
        )

    def meta(self, stream_id: str) -> StreamMeta | None:
        """Return what is recorded of a stream; see `Journal.meta`."""
        check_stream_id(stream_id)
        carry_out_all()
        rows = self._select(lambda c: reading.rows_of_meta(c, stream_id))
        if not rows:
            return None
        row, contents = reading.meta(rows)
        return StreamMeta(**self._info(row), **contents._asdict())

    def streams(
        self,
        *,
        states: Collection[JournalState] = tuple(JournalState),
        limit: int = LIST_LIMIT,
    ) -> list[StreamInfo]:
        """Return the streams of these states, the newest first."""
        carry_out_all()
        # A damaged row may say that its stream has ended.
        ended = not {JournalState.FINISHED, JournalState.DAMAGED}.isdisjoint(states)
        found: list[StreamInfo] = []
        # Beyond the last number that a row can have.
        before = 2.0**63
        while len(found) < limit:
            last = before
            rows = self._select(
                lambda c: reading.newest(c, last, LIST_LIMIT, ended=ended)  # noqa: B023
            )
            if not rows:
                break
            before = rows[-1][0].number
            infos = [StreamInfo(**self._info(row, whole=whole)) for row, whole in rows]
            found += [info for info in infos if info.state in states]
        return found[:limit]

    def request_stop(self, stream_id: str, by: str) -> None:
        """Ask the owner to stop; see `Journal.request_stop`."""
        check_stream_id(stream_id)
        self._write(lambda c: tables.request_stop(c, stream_id, by), stream_id)

    def delete(self, stream_id: str) -> None:
        """Forget a stream; nothing happens if there is none."""
        check_stream_id(stream_id)

        def delete(connection: sqlite3.Connection) -> None:
            number = tables.number_of(connection, stream_id)
            if number is not None:
                tables.forget(connection, number)

        self._write(delete, stream_id)
        self._collect()

    def sweep(self, now: float) -> int:
        """Forget the streams whose time is over; return how many."""
        swept = 0
        while True:
            looked, gone = self._forget_some(now, _SWEPT_AT_ONCE)
            swept += gone
            if looked < _SWEPT_AT_ONCE:
                break
        self._collect()
        bury_all(self._database.owners)
        return swept

    def _version(self) -> int:
        """Return a number that changes when another connection has committed."""
        version: int = self._select(
            lambda c: c.execute("PRAGMA data_version").fetchone()[0]
        )
        return version

    def _info(self, row: Standing, *, whole: bool = True) -> dict[str, Any]:
        """Return the fields of a StreamInfo."""
        fields = row._asdict()
        del fields["number"]
        if row.outcome is not None:
            fields["outcome"] = Outcome(row.outcome)
        if not whole:
            state = JournalState.DAMAGED
        elif row.outcome is not None:
            state = JournalState.FINISHED
        elif row.owner is not None and self._is_alive(row.owner):
            state = JournalState.LIVE
        else:
            state = JournalState.ABANDONED
        return fields | {"state": state}

    def _forget_some(self, now: float, count: int) -> tuple[int, int]:
        """Sweep a little; return how many were looked at, and how many are gone."""
        gone: list[str] = []

        def forget(connection: sqlite3.Connection) -> int:
            gone.clear()
            rows = tables.expired(connection, now, count)
            for row in rows:
                owned = row.outcome is None and row.owner is not None
                if owned and self._is_alive(row.owner or ""):
                    tables.spare(connection, row.number, now)
                else:
                    tables.forget(connection, row.number)
                    gone.append(row.stream_id)
            tables.collect(connection, _COLLECTED_AT_ONCE)
            return len(rows)

        looked = self._write(forget)
        self._watchers.wake(gone)
        return looked, len(gone)

    def _collect(self) -> None:
        """Delete the events of what was forgotten, in small transactions."""
        while self._write(lambda c: tables.collect(c, _COLLECTED_AT_ONCE)):
            pass
