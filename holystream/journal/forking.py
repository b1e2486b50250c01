"""What a journal does when its process is forked.

Hooks of `os.register_at_fork` cannot be taken back, so there is one set of them for all
journals, which it knows weakly. It is registered with the first journal.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


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


class _Hooks:
    """The journals, and those among them that rest for a fork under way."""

    def __init__(self) -> None:
        self._known: weakref.WeakSet[Forkable] = weakref.WeakSet()
        self._resting: list[Forkable] = []
        self._registered = False

    def add(self, journal: Forkable) -> None:
        # Twice by two threads at once is harmless: the second finds nothing to do.
        if not self._registered and hasattr(os, "register_at_fork"):
            self._registered = True
            os.register_at_fork(
                before=self._before,
                after_in_parent=self._in_parent,
                after_in_child=self._in_child,
            )
        self._known.add(journal)

    def _before(self) -> None:
        resting = list(self._known)
        for journal in resting:
            journal.before_fork()
        # Two threads may fork at a time: who comes here has all of them at rest.
        self._resting = resting

    def _in_parent(self) -> None:
        resting, self._resting = self._resting, []
        for journal in resting:
            journal.after_fork_in_parent()

    def _in_child(self) -> None:
        self._resting = []
        for journal in list(self._known):
            journal.after_fork_in_child()


_hooks = _Hooks()


def tell_of_forks(journal: Forkable) -> None:
    """Let a journal know of every fork from now on, until it is collected."""
    _hooks.add(journal)
