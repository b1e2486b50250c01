"""The file of an SQLite journal: how it is made, checked, and closed for a fork.

SQLite keeps a table of the files that its process has open, with the locks on them. A
forked child inherits that table, but not one of the locks: a connection that it opens
then believes to hold what it does not, and others overwrite what it reads. So nothing
may be open while the process forks: the connection is closed before, and opened again,
by whoever needs it, on either side.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import stat
import threading
import time
from typing import TYPE_CHECKING, Final

from holystream.errors import (
    JournalCorrupt,
    JournalError,
    JournalUnavailable,
    JournalVersion,
)
from holystream.gapless import keep
from holystream.journal import refusals
from holystream.journal.forking import Hold
from holystream.journal.tables import SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

    from holystream.journal.base import Durability


APPLICATION_ID: Final = 0x686F6C79
"""The mark of our files: "holy"."""
SCHEMA_VERSION: Final = 1
WAL_LIMIT: Final = 4 << 20
"""Bytes to which the write-ahead log is cut back when it has been worked off."""
_PAGE: Final = 2048
"""Bytes of a page: a commit of one token writes two, and half of them are cheaper."""
_BETWEEN_TRIES: Final = 0.005
_LONGEST_HOLD: Final = 30.0
"""Seconds that a fork waits for a transaction to end."""

_WHAT: Final = {
    sqlite3.SQLITE_FULL: "its disk is full: make room",
    sqlite3.SQLITE_READONLY: "it is read-only: make it and its directory writable",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: look at its path and permissions",
    sqlite3.SQLITE_PERM: "access to it is denied: look at its permissions",
    sqlite3.SQLITE_IOERR: "its disk failed to read or write: look at the system's log",
    sqlite3.SQLITE_NOMEM: "there is no memory left for it",
}


class Database:
    """The connection of one process to a journal's file. Thread-safe by its lock.

    Args:
        path: The file, absolute.
        durability: What a commit survives.
        busy_timeout: Seconds to wait for the lock of another process.

    Attributes:
        path: The file.
        owners: The directory of the owners' lock files.
        lock: Guards the connection and everything that is done with it. It is the one
            lock that is held over I/O.
    """

    def __init__(self, path: Path, durability: Durability, busy_timeout: float) -> None:
        self.path = path
        self.owners = path.with_name(path.name + ".owners")
        # Re-entrant for a signal handler that forks, whatever its thread is doing.
        self.lock = threading.RLock()
        self.closed = False
        self._durability = durability
        self._busy_timeout = busy_timeout
        self._connection: sqlite3.Connection | None = None
        self._inherited: sqlite3.Connection | None = None
        self._hold = Hold(self.lock, _LONGEST_HOLD)

    def connection(self) -> sqlite3.Connection:
        """Return the connection, opened if need be, for whoever holds the lock.

        Raises:
            JournalError: It cannot be had.
        """
        if self.closed:
            raise refusals.closed()
        if self._inherited is not None:
            raise JournalUnavailable(
                f"the journal {self.path} was in use when this process was forked, in "
                "a way that could not wait for it: use it in the child alone, or fork "
                "by os.fork"
            )
        return self._connection or self._open()

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open. Lock held."""
        return self._connection is not None and self._connection.in_transaction

    def rest(self) -> None:
        """Undo a transaction that a Ctrl-C left open. Lock held."""
        if self._connection is not None and self._connection.in_transaction:
            self._connection.rollback()

    def close(self) -> None:
        """Close the connection; the next one who needs it opens it. Lock held."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __del__(self) -> None:
        # Nobody uses it any more: there is nothing to wait for.
        with contextlib.suppress(AttributeError, sqlite3.Error):
            self.close()

    def error(self, error: Exception, doing: str) -> JournalError:
        """Return what to tell the caller of an error met while ``doing`` something."""
        if isinstance(error, JournalError):
            return error
        kept = "what was acknowledged before is kept"
        if isinstance(error, OSError):
            what = error.strerror or type(error).__name__
            # Another path than the one that is named already, such as NAME.owners.
            if error.filename not in {None, str(self.path)}:
                what = f"{what}: {error.filename}"
            return JournalUnavailable(
                f"{doing} the journal {self.path}: {what}: look at the path and its "
                f"permissions, or give another; {kept}"
            )
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return JournalUnavailable(
                f"{doing} the journal {self.path}: another process held its lock for "
                f"more than {self._busy_timeout:g} s; {kept}, this was not stored"
            )
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return JournalCorrupt(
                f"{doing} the journal {self.path}: the file is damaged, or no journal: "
                "move it away, with its -wal and -shm, or give another path"
            )
        what = _WHAT.get(code, str(error))
        return JournalUnavailable(f"{doing} the journal {self.path}: {what}; {kept}")

    def _open(self) -> sqlite3.Connection:
        end = time.monotonic() + self._busy_timeout
        while True:
            try:
                self._make_file()
                return self._connect()
            except (sqlite3.Error, OSError) as error:
                # Two who make it at once meet locks for which SQLite does not wait.
                if not _is_locked(error) or time.monotonic() > end:
                    raise self.error(error, "opening") from error
            time.sleep(_BETWEEN_TRIES)

    def _make_file(self) -> None:
        """Make the file and the directory, for our eyes only."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        opened: list[int] = []
        try:
            keep(opened, os.open, self.path, flags, 0o600)
        except FileExistsError:
            # Never opened here: to close it would drop SQLite's locks on it.
            status = self.path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise JournalUnavailable(
                    f"opening the journal {self.path}: it is no file: give another path"
                ) from None
            if status.st_size == 0 and status.st_mode & 0o077:
                self.path.chmod(0o600)
        finally:
            for descriptor in opened:
                os.close(descriptor)
        self.owners.mkdir(mode=0o700, exist_ok=True)

    def _connect(self) -> sqlite3.Connection:
        connect = functools.partial(
            sqlite3.connect,
            self.path,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        opened: list[sqlite3.Connection] = []
        try:
            keep(opened, connect)
            (connection,) = opened
            connection.text_factory = _text
            self._check(connection)
            full = self._durability == "power"
            connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
            (page,) = connection.execute("PRAGMA page_size").fetchone()
            connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_LIMIT // page}")
            # What is deleted is overwritten: it was somebody's prompt.
            connection.execute("PRAGMA secure_delete = ON")
        except BaseException:
            # One that is only dropped stays open until it is collected.
            for connection in opened:
                connection.close()
            raise
        # Here and not by the caller, whom it might not reach.
        self._connection = connection
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        """See that it is a journal that we know, or make it one if it is empty."""
        # One snapshot for its three reads: another process may be making it now.
        connection.execute("BEGIN")
        ours = self._is_ours(connection)
        connection.execute("COMMIT")
        if ours:
            return
        # Of a file that is empty; one that is made already keeps its own.
        connection.execute(f"PRAGMA page_size = {_PAGE}")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise JournalUnavailable(
                f"opening the journal {self.path}: its file system cannot hold a "
                "write-ahead log: put it on a local disk"
            )
        connection.execute("BEGIN IMMEDIATE")
        if not self._is_ours(connection):
            for statement in SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        (mark,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if mark != APPLICATION_ID and (mark or version or objects):
            raise JournalCorrupt(
                f"{self.path} is a database of something else: give another path"
            )
        if version > SCHEMA_VERSION:
            raise JournalVersion(
                f"the journal {self.path} was made by a newer holystream (its version "
                f"is {version}, ours {SCHEMA_VERSION}): upgrade, or give another path"
            )
        return bool(version)

    def before_fork(self) -> None:
        """Close the connection, and let nobody open it until the fork is over."""
        rests = self._hold.take()
        # In a transaction: a signal handler forks in the midst of its thread's own. The
        # child will find that it cannot use the journal.
        if rests and not self.in_transaction:
            self.close()

    def after_fork_in_parent(self) -> None:
        """Let the others go on."""
        self._hold.give_back()

    def for_child(self) -> Database:
        """Return what the child of a fork uses instead of this."""
        child = Database(self.path, self._durability, self._busy_timeout)
        child.closed = self.closed
        # Never to be used, nor closed while the child lives: see above.
        child._inherited = self._connection or self._inherited
        return child


def _text(data: bytes) -> str | bytes:
    """Return a stored text; as bytes where it is damaged, which fails every check."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _is_locked(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
