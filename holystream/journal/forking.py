"""What a journal does when its process is forked.

Hooks of `os.register_at_fork` cannot be taken back, so there is one set of them for all
journals, which it knows weakly. It is registered with the first journal.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Protocol

from holystream.gapless import keep

if TYPE_CHECKING:
    from threading import RLock


class Forkable(Protocol):
    """Something that must know of a fork. Each of these must not fail."""

    def before_fork(self) -> None:
        """Come to rest, and let nothing move until the fork is over."""
        ...

    def after_fork_in_parent(self) -> None:
        """Go on."""
        ...

    def after_fork_in_child(self) -> None:
        """Go on as somebody else."""
        ...


class Hold:
    """A lock that is held while a process forks, by each thread that forks.

    Args:
        lock: Re-entrant, for a signal handler may fork in the midst of a fork.
        longest: Seconds to wait for it.
    """

    def __init__(self, lock: RLock, longest: float) -> None:
        self._lock = lock
        self._longest = longest
        self._taken: dict[int, list[bool]] = {}

    def take(self) -> bool:
        """Wait for the lock; whether it was had."""
        taken = self._taken.setdefault(threading.get_ident(), [])
        # Once for each fork, which asks twice.
        longest = 0.0 if False in taken else self._longest
        keep(taken, self._lock.acquire, True, longest)
        return taken[-1]

    def give_back(self) -> None:
        """Release it, if this thread took it; doing it once too often is harmless."""
        taken = self._taken.get(threading.get_ident())
        if not taken:
            return
        try:
            if taken[-1]:
                self._lock.release()
        finally:
            del taken[-1]


class _Hooks:
    """The journals, and those among them that rest for a fork under way.

    Python goes on with a fork whose hook was struck by a Ctrl-C. So each hook is there
    twice: what the first one did not do is done by the second.
    """

    def __init__(self) -> None:
        self._known: weakref.WeakSet[Forkable] = weakref.WeakSet()
        # By thread, for two may fork at a time; and of each the forks under way, for a
        # signal handler may fork in the midst of one.
        self._resting: dict[int, list[list[Forkable]]] = {}
        self._registered = False

    def add(self, journal: Forkable) -> None:
        # More than once, by two threads or behind a Ctrl-C, is harmless.
        if not self._registered and hasattr(os, "register_at_fork"):
            # Those before a fork are called in reverse.
            os.register_at_fork(
                before=self._rest,
                after_in_parent=self._go_on,
                after_in_child=self._in_child,
            )
            os.register_at_fork(
                before=self._begin,
                after_in_parent=self._end,
                after_in_child=self._in_child,
            )
            self._registered = True
        self._known.add(journal)

    def _forks(self) -> list[list[Forkable]]:
        return self._resting.setdefault(threading.get_ident(), [])

    def _begin(self) -> None:
        self._forks().append([])
        self._rest()

    def _rest(self) -> None:
        forks = self._forks()
        if not forks:
            forks.append([])
        for journal in list(self._known):
            # Ahead of it: to give back once too often is harmless.
            forks[-1].append(journal)
            journal.before_fork()

    def _go_on(self) -> None:
        forks = self._forks()
        while forks and forks[-1]:
            forks[-1][-1].after_fork_in_parent()
            forks[-1].pop()

    def _end(self) -> None:
        self._go_on()
        forks = self._forks()
        if forks:
            forks.pop()
        if not forks:
            self._resting.pop(threading.get_ident(), None)

    def _in_child(self) -> None:
        self._resting = {}
        for journal in list(self._known):
            journal.after_fork_in_child()


_hooks = _Hooks()


def tell_of_forks(journal: Forkable) -> None:
    """Let a journal know of every fork from now on, until it is collected."""
    _hooks.add(journal)
