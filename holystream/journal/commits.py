"""Group commit: the first thread that waits commits what all of them queued.

Who finds no leader leads: it takes what is queued, does it in one transaction, and
wakes those whose work was in it; then it hands the lead to the first of those that came
in the meantime, or to nobody. A follower sleeps on a lock of its own.

Invariants, true whenever the mutex is free:

- whoever is in the queue is unsettled, or just about to leave it;
- while somebody is in the queue, there is a leader, and it is one of the queue.

An exception out of a signal handler (Ctrl-C) may strike anywhere. Whether a transaction
that was struck took place is asked of SQLite, never guessed; who was struck leaves the
queue, and hands on the lead if it has it. Lock order: the database's lock, then the
mutex. The mutex is held for a few lines, never over I/O.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

from holystream.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holystream.journal.base import Claim
    from holystream.journal.database import Database
    from holystream.journal.watching import Watchers


class Write:
    """Something to do within a transaction, and what came of it.

    Args:
        work: Does it. A `JournalError` out of it means that it changed nothing; with
            any other error the whole transaction is undone.
        wakes: The stream whose readers it may concern, or "".
        claim: A claim that is counted on if it is done.
        next_seq: To where.
    """

    __slots__ = (
        *("claim", "error", "next_seq", "ready", "result"),
        *("settled", "taken", "thread", "wakes", "work"),
    )

    def __init__(
        self,
        work: Callable[[sqlite3.Connection], Any],
        *,
        wakes: str = "",
        claim: Claim | None = None,
        next_seq: int = 0,
    ) -> None:
        self.work = work
        self.wakes = wakes
        self.claim = claim
        self.next_seq = next_seq
        self.result: Any = None
        self.error: Exception | None = None
        self.settled = False
        self.thread = threading.get_ident()
        # A leader has it in a transaction, or had it in one that was struck.
        self.taken = False
        # Locked until the work is settled, or its thread is to lead.
        self.ready = threading.Lock()
        self.ready.acquire()

    def settle(self, error: Exception | None) -> None:
        """Let it be done, or have failed."""
        self.error = error
        if error is None and self.claim is not None:
            self.claim.next_seq = self.next_seq
        self.settled = True

    def wake(self) -> None:
        """Wake its thread, which leads if the work is not settled."""
        try:  # noqa: SIM105 - once for every token of a slow stream
            self.ready.release()
        except RuntimeError:
            pass  # it is awake


class GroupCommit:
    """The queue of writes before one database. Thread-safe."""

    def __init__(self, database: Database, watchers: Watchers) -> None:
        self._database = database
        self._watchers = watchers
        # Guards _queue and _leader. Re-entrant for a signal handler that strikes before
        # its thread's own write is in the queue; behind that, see `struck`.
        self._mutex = threading.RLock()
        self._queue: list[Write] = []
        self._leader: Write | None = None

    @property
    def struck(self) -> bool:
        """Whether we are a signal handler in the midst of its thread's own write.

        To submit another one would wait for the first, for ever.
        """
        leader = self._leader
        if leader is None:
            return False
        thread = threading.get_ident()
        # One that is settled is left in the queue by its thread, for the leader.
        return leader.thread == thread or any(
            write.thread == thread and not write.settled for write in self._queue.copy()
        )

    def submit(self, write: Write) -> Any:
        """Have something done in a transaction; return its result.

        Raises:
            JournalError: It was not done.
        """
        try:
            with self._mutex:
                self._queue.append(write)
                if self._leader is None:
                    self._leader = write
            if self._leader is not write:
                write.ready.acquire()
            if not write.settled:
                self._lead()
        finally:
            if self._leader is write or not write.settled:
                # Once more if it is struck: what a Ctrl-C leaves undone, nobody does.
                try:
                    self._leave(write)
                except BaseException:
                    self._leave(write)
                    raise
        if write.error is not None:
            raise write.error
        return write.result

    def _leave(self, write: Write) -> None:
        """Leave the queue; hand on the lead."""
        while True:
            with self._mutex:
                leads = self._leader is write
                if leads or write.settled or not write.taken:
                    self._queue = [
                        each
                        for each in self._queue
                        if each is not write and not each.settled
                    ]
                    if leads or self._leader is None:
                        self._leader = self._queue[0] if self._queue else None
                    heir = self._leader
                    break
            # It was struck while another thread commits it: soon we know what came of
            # it, and its claim is in step, or we are told to lead.
            write.ready.acquire()
        if heir is not None and not heir.settled:
            heir.wake()

    def _lead(self) -> None:
        with self._database.lock:
            writes: list[Write] = []
            try:
                begun = self._begin()
                # Not before: who came while another process had the lock is part of it.
                with self._mutex:
                    writes += [each for each in self._queue if not each.settled]
                    for write in writes:
                        write.taken = True
                self._commit(begun, writes)
            finally:
                try:
                    self._conclude(writes)
                except BaseException:
                    self._conclude(writes)
                    raise

    def _conclude(self, writes: Sequence[Write]) -> None:
        """Leave no transaction open, for it locks others out, and nobody asleep."""
        self._database.rest()
        for write in writes:
            if write.settled:
                write.wake()
        self._watchers.wake([write.wakes for write in writes])

    def _begin(self) -> sqlite3.Connection | Exception:
        try:
            connection = self._database.connection()
            connection.execute("BEGIN IMMEDIATE")
        except (sqlite3.Error, JournalError) as error:
            self._renew(error)
            return error
        return connection

    def _commit(
        self, begun: sqlite3.Connection | Exception, writes: Sequence[Write]
    ) -> None:
        """Do it all in one transaction or, if that fails, each in its own."""
        if isinstance(begun, Exception):
            for write in writes:
                write.settle(self._copy_of(begun))
            return
        try:
            self._transact(begun, writes)
        except Exception as error:  # noqa: BLE001 - each of them gets its own
            self._undo(begun, error)
            if len(writes) == 1:
                writes[0].settle(self._copy_of(error))
                return
            for write in writes:
                self._commit(self._begin(), [write])

    def _transact(
        self, connection: sqlite3.Connection, writes: Sequence[Write]
    ) -> None:
        """Do it all and commit; only then is any of it settled."""
        refused: dict[Write, JournalError] = {}
        commits = False
        try:
            for write in writes:
                try:
                    write.result = write.work(connection)
                except JournalError as error:
                    refused[write] = error
            commits = True
            connection.execute("COMMIT")
            _settle(writes, refused)
        except Exception:
            raise
        except BaseException:
            # If it is still open it was not committed, and is undone: the others are
            # queued as before, and the next leader does it.
            if commits and not connection.in_transaction:
                _settle(writes, refused)
            raise

    def _undo(self, connection: sqlite3.Connection, error: Exception) -> None:
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.rollback()
        self._renew(error)

    def _renew(self, error: Exception) -> None:
        """Take a fresh look at the file next time, unless it was full or locked."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_FULL) & 0xFF
        if code not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
            with contextlib.suppress(sqlite3.Error):
                self._database.close()

    def _copy_of(self, error: Exception) -> Exception:
        """Return an error of a caller's own, for each has its traceback."""
        if isinstance(error, JournalError):
            copy: Exception = type(error)(*error.args)
        elif isinstance(error, (sqlite3.Error, OSError)):
            copy = self._database.error(error, "writing")
        else:
            return error
        copy.__cause__ = error
        return copy


def _settle(writes: Sequence[Write], refused: dict[Write, JournalError]) -> None:
    for write in writes:
        if not write.settled:
            write.settle(refused.get(write))
