"""The file of an SQLite journal in the hands of one process, and what it claims there.

It is open from its first use on. Once it is retired it is so only while a stream is
owned; and the lock that proves us alive is held as long as a stream may be owned.
"""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from holystream.clocks import check_seconds
from holystream.errors import Fenced
from holystream.journal import refusals, tables
from holystream.journal.base import Claim
from holystream.journal.commits import GroupCommit, Write
from holystream.journal.database import Database
from holystream.journal.forking import tell_of_forks
from holystream.journal.later import Grip, Later
from holystream.journal.owners import OwnerLock, is_alive
from holystream.journal.watching import Watchers

if TYPE_CHECKING:
    from collections.abc import Callable

    from holystream.journal.base import Durability


@dataclasses.dataclass(slots=True, kw_only=True, eq=False)
class StoredClaim(Claim):
    """A claim that knows where its stream is stored."""

    number: int


class HeldFile:
    """What an SQLite journal does with its file, whatever is asked. Thread-safe."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Durability = "process",
        busy_timeout: float = 5.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        check_seconds(busy_timeout, "busy_timeout=")
        self._now = now
        self._retired = False
        file = Path(path).expanduser().absolute()
        self._begin(Database(file, durability, busy_timeout))
        # Looked at now, for its errors; kept open from its first use on, so that what
        # is made before a fork is not open in it.
        with self._database.lock:
            self._database.connection()
            self._database.close()
        tell_of_forks(self)

    def _begin(self, database: Database) -> None:
        """Be of this process; in a forked child, anew."""
        self._database = database
        self._watchers = Watchers()
        self._commits = GroupCommit(database, self._watchers)
        self._later = Later(self)
        # Our claims, by their fences, from before they are committed. A transaction
        # that is undone gives its fences back, so one that is lost counts only if no
        # other has its fence. Added to under the database's lock.
        self._owned: dict[int, Grip] = {}
        # Made with the first claim, under the database's lock.
        self._lock_file: OwnerLock | None = None
        # Last: whoever finds another one here begins anew.
        self._pid = os.getpid()

    def close(self) -> None:
        """Let go of the file; the claims lapse. Closing twice is harmless."""
        self._be_here()
        with self._database.lock:
            self._database.closed = True
            self._later = Later(self)
            self._database.close()
            lock_file, self._lock_file = self._lock_file, None
        if lock_file is not None:
            lock_file.close()
        self._watchers.wake_all()

    def retire(self) -> None:
        """Keep the file open only while a stream is owned, from now on.

        It can still be used, and is opened for it.
        """
        self._retired = True
        self._rest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _write(self, work: Callable[[sqlite3.Connection], Any], wakes: str = "") -> Any:
        self._be_here()
        write = Write(work, wakes=wakes)
        try:
            return self._commits.submit(write)
        except BaseException:
            # A claim in it is lost now, not when the error is.
            write.result = None
            raise
        finally:
            self._rest()
            if self._later.works:
                self._later.carry_out()

    def _select(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        self._be_here()
        database = self._database
        try:
            with database.lock:
                return work(database.connection())
        except sqlite3.Error as error:
            raise database.error(error, "reading") from error
        finally:
            self._rest()

    def _take(self, work: Callable[[sqlite3.Connection], Claim]) -> Claim:
        """Have a stream taken, and the file kept open for it."""

        def take(connection: sqlite3.Connection) -> Claim:
            claim = work(connection)
            self._owned[claim.fence] = self._later.grip(claim)
            return claim

        claim: Claim = self._write(take)
        return claim

    def release_lost(self, grip: Grip) -> None:
        """Let go of a stream whose claim nobody has."""
        if self._database.closed:
            return
        claim = grip.claim
        try:
            number, now = self._number(claim), self._now()
        except Fenced:
            self._owned.pop(claim.fence, None)
            return
        if self._commits.struck:
            self._later.works.append(grip)
            return

        def release(connection: sqlite3.Connection) -> None:
            if self._owned.get(claim.fence) is grip:
                tables.release(connection, claim, number, now=now)

        self._write(release)
        with self._database.lock:
            if self._owned.get(claim.fence) is grip:
                del self._owned[claim.fence]
        self._rest()

    def _disown(self, claim: Claim) -> None:
        self._owned.pop(claim.fence, None)
        self._rest()

    def _owns(self) -> bool:
        return any(grip() is not None for grip in self._owned.copy().values())

    def _rest(self) -> None:
        """Close the file, if that is wanted and nobody needs it."""
        if not self._retired or self._owns():
            return
        with self._database.lock:
            # A signal handler may have come into our own transaction.
            if not self._owns() and not self._database.in_transaction:
                self._database.close()
                lock_file, self._lock_file = self._lock_file, None
                if lock_file is not None:
                    lock_file.close()

    def _owner(self) -> str:
        """Return who we are, within a transaction: under the database's lock."""
        if self._lock_file is None:
            self._lock_file = OwnerLock(self._database.owners)
        return self._lock_file.owner

    def _is_alive(self, owner: str) -> bool:
        ours = self._lock_file
        if ours is not None and ours.owner == owner:
            return True
        return is_alive(self._database.owners, owner)

    def _number(self, claim: Claim) -> int:
        """Return where the stream of a claim of ours is stored."""
        self._be_here()
        if self._database.closed:
            raise refusals.closed()
        ours = self._lock_file
        mine = ours is not None and ours.owner == claim.owner
        if not mine or not isinstance(claim, StoredClaim):
            raise refusals.fenced(claim.stream_id)
        return claim.number

    def _be_here(self) -> None:
        """Notice a fork that Python was not told of."""
        if self._pid != os.getpid():
            self.after_fork_in_child()

    def before_fork(self) -> None:
        """Close the connection until the fork is over."""
        self._database.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._database.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Go on as another owner, over a connection of our own."""
        if self._lock_file is not None:
            self._lock_file.abandon()
        self._begin(self._database.for_child())
