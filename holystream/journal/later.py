"""What a finaliser or a signal handler wants of a journal: who does it, and when.

Either may run in a thread that holds any lock, in the midst of its own call of the very
journal. So it only takes a note, and whoever uses a journal of this process next does
the rest: the call that was interrupted, and one that writes, for its own journal; one
that asks how a stream stands, for all of them.

A claim that nobody has any more is noted as well, by no line of Python: a Ctrl-C that
keeps it from its caller, wherever it strikes, leaves a stream that can be claimed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from holystream.errors import JournalError, JournalUnavailable, StreamFinished
from holystream.gapless import keep
from holystream.journal.base import Claim

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holystream.events import StreamEvent
    from holystream.journal.base import Journal, Outcome

_log = logging.getLogger("holystream")


class Grip(weakref.ref[Claim]):
    """A claim that was given away, known weakly: when it is lost, this is noted.

    Attributes:
        claim: A copy, to let go by.
    """

    __slots__ = ("claim",)

    claim: Claim


Note: TypeAlias = "Callable[[Any], None] | Grip"


class Later:
    """The notes of one journal, in order. Thread-safe, and adding one is lock-free.

    Args:
        journal: What each piece of work is given; it must not hold it itself, for a
            journal that is forgotten lets go of everything at once.

    Attributes:
        works: What is noted.
    """

    __slots__ = ("__weakref__", "_journal", "_turn", "works")

    def __init__(self, journal: Any) -> None:
        self._journal: weakref.ref[Any] = weakref.ref(journal)
        self.works: deque[Note] = deque()
        # Held by the one thread that carries them out; never waited for.
        self._turn = threading.Lock()
        _all[id(self)] = self

    def add(self, work: Callable[[Any], None]) -> None:
        """Take note of something to do; it may be done twice. Never waits."""
        self.works.append(work)

    def grip(self, claim: Claim) -> Grip:
        """Take note of a claim when it is lost, if what this returns is still kept."""
        # Noted by C code: a finaliser in Python could be struck itself.
        grip = Grip(claim, self.works.append)
        grip.claim = dataclasses.replace(claim)
        return grip

    def carry_out(self) -> None:
        """Do it, unless somebody is; what cannot be done now is tried again later."""
        taken: list[bool] = []
        try:
            keep(taken, self._turn.acquire, False)
            # No more than there are: one that cannot be done yet may be noted anew.
            for _ in range(len(self.works) if taken[0] else 0):
                if not self._carry_out(self.works[0]):
                    return
                # Behind it: a Ctrl-C must not lose it.
                self.works.popleft()
        finally:
            if True in taken:
                self._turn.release()

    def _carry_out(self, work: Note) -> bool:
        """Do one piece; return whether it is over."""
        journal = self._journal()
        if journal is None:
            return False
        try:
            if isinstance(work, Grip):
                journal.release_lost(work)
            else:
                work(journal)
        except JournalUnavailable as error:
            _log.warning("a stream stays claimed for now: %s", error)
            return False
        except JournalError as error:
            _log.warning("the end of a stream was not recorded: %s", error)
        return True


# Those of all journals of this process, by their ids.
_all: Final[weakref.WeakValueDictionary[int, Later]] = weakref.WeakValueDictionary()


def carry_out_all() -> None:
    """Do what is noted for all journals of this process."""
    for known in _all.valuerefs():
        later = known()
        if later is not None and later.works:
            later.carry_out()


def releasing(claim: Claim) -> Callable[[Journal], None]:
    """Return what lets go of a stream."""
    return lambda journal: journal.release(claim)


def finishing(
    claim: Claim, outcome: Outcome, final: bytes
) -> Callable[[Journal], None]:
    """Return what ends a stream, once."""

    def work(journal: Journal) -> None:
        with contextlib.suppress(StreamFinished):
            journal.finish(claim, outcome, final)

    return work


def appending(
    claim: Claim, events: Sequence[StreamEvent], cursor: bytes | None
) -> Callable[[Journal], None]:
    """Return what appends to a stream, once."""
    begun: list[int] = []

    def work(journal: Journal) -> None:
        begun.append(claim.next_seq)
        if claim.next_seq == begun[0]:
            journal.append(claim, events, cursor=cursor)

    return work
