"""What lives on in the child of a fork: told there, before anything else runs.

The child has one thread, and none of the locks, tickets and streams that belonged to
the others. Whoever registers gets a call to `Forkable.after_fork_in_child`, in which no
other thread of ours exists.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """What keeps a lock, or counts what threads hold."""

    def after_fork_in_child(self) -> None:
        """Take fresh locks, and forget what belongs to the parent."""


_alive: weakref.WeakSet[Forkable] = weakref.WeakSet()


def register(thing: Forkable) -> None:
    """Tell ``thing`` of each fork, for as long as it lives."""
    _alive.add(thing)


def _after_fork_in_child() -> None:
    for thing in list(_alive):
        thing.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
