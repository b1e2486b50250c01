"""Who is alive: each owner holds the lock of a file of its own, beside the database.

The kernel frees the lock when the process ends, however it ends: nobody has to beat a
drum, and a takeover need not wait. An owner is one journal object in one process: a
forked child closes its copy of the descriptor, which the parent's lock outlives, and
becomes an owner of its own. A file that is missing, or whose lock is free, is of one
that is dead, and dead owners do not come back: their names are random.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from typing import TYPE_CHECKING, Final

from holystream.gapless import keep

if TYPE_CHECKING:
    from pathlib import Path

_NAME: Final = re.compile(r"[0-9]+-[0-9a-f]{16}")
_SUFFIX: Final = ".lock"


class OwnerLock:
    """The proof that an owner is alive, for as long as it is open. Thread-safe.

    Args:
        directory: Where the files are; it must exist.

    Attributes:
        owner: The process id and a random part.

    Raises:
        OSError: The file cannot be made or locked.
    """

    def __init__(self, directory: Path) -> None:
        self._pid = os.getpid()
        self._descriptor = -1
        while True:
            self.owner = f"{self._pid}-{os.urandom(8).hex()}"
            self._path = directory / (self.owner + _SUFFIX)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            opened: list[int] = []
            try:
                keep(opened, os.open, self._path, flags, 0o600)
            finally:
                self._descriptor = opened[0] if opened else -1
            # Between these two lines somebody may have found a file whose lock is free,
            # and taken it away. Then we are somebody else.
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(self._descriptor).st_nlink == 1:
                    return
            self.close()

    def close(self) -> None:
        """Be dead. Closing twice is harmless."""
        if self._descriptor >= 0:
            if self._pid == os.getpid():
                with contextlib.suppress(OSError):
                    self._path.unlink()
            self.abandon()

    def abandon(self) -> None:
        """In a forked child: close the copy; the parent's lock is not touched."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            self.close()


def is_alive(directory: Path, owner: str) -> bool:
    """Whether an owner holds its lock.

    Raises:
        OSError: Its file is there, but cannot be looked at.
    """
    if _NAME.fullmatch(owner) is None:
        return False
    opened: list[int] = []
    try:
        path = directory / (owner + _SUFFIX)
        keep(opened, os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        # Shared, so that two who look at the same time do not take each other for it.
        fcntl.flock(opened[0], fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return False


def bury(directory: Path, owner: str) -> None:
    """Take away the file of an owner that is dead."""
    if _NAME.fullmatch(owner) is not None:
        with contextlib.suppress(OSError):
            (directory / (owner + _SUFFIX)).unlink()


def bury_all(directory: Path) -> None:
    """Take away the files of all that are dead."""
    with contextlib.suppress(OSError):
        for path in directory.glob("*" + _SUFFIX):
            if not is_alive(directory, path.stem):
                bury(directory, path.stem)
