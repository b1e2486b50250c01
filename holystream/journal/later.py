"""Streams that were dropped: who lets go of them, and when.

A finaliser may run within any allocation, in a thread that holds any lock. So it only
takes a note, and whoever uses a journal of this process next does the rest: one that
writes, for its own journal; one that asks how a stream stands, for all of them.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from holystream.errors import JournalError

if TYPE_CHECKING:
    from holystream.journal.base import Claim

_log = logging.getLogger("holystream")


class Releasing(Protocol):
    """A journal, as far as it matters here."""

    def release(self, claim: Claim) -> None:
        """Let go of a stream."""
        ...


class Dropped:
    """The claims of one journal that nobody holds any more. Thread-safe, lock-free."""

    __slots__ = ("__weakref__", "_claims", "_journal")

    def __init__(self, journal: Releasing) -> None:
        # Weak: a journal that is forgotten as well lets go of everything at once.
        self._journal = weakref.ref(journal)
        self._claims: deque[Claim] = deque()

    def add(self, claim: Claim) -> None:
        """Take note of a claim. Never waits."""
        self._claims.append(claim)
        _noted.append(weakref.ref(self))

    def __bool__(self) -> bool:
        return bool(self._claims)

    def release(self) -> None:
        """Release them; what cannot be released now is tried again next time."""
        journal = self._journal()
        for claim in list(self._claims) if journal is not None else ():
            try:
                journal.release(claim)
            except JournalError as error:
                _noted.append(weakref.ref(self))
                _log.warning("a dropped stream stays claimed for now: %s", error)
                return
            # Behind it: a Ctrl-C must not lose it, and to release it twice is harmless.
            with contextlib.suppress(ValueError):
                self._claims.remove(claim)


_noted: Final[deque[weakref.ref[Dropped]]] = deque()


def release_all() -> None:
    """Let go of all streams of this process that were dropped."""
    for _ in range(len(_noted)):
        with contextlib.suppress(IndexError):
            dropped = _noted.popleft()()
            if dropped is not None:
                dropped.release()
