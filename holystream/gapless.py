"""Locks in the company of signal handlers, which run between any two calls.

Python runs signal handlers in the main thread after any call, a lock's ``acquire``
among them: a Ctrl-C may strike when the lock is taken and no ``try`` knows of it yet.
Where the call and the keeping of what it returned are one instruction, there is no such
moment.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

Kept = TypeVar("Kept")


def keep(
    results: list[Kept], function: Callable[..., Kept], *arguments: object
) -> None:
    """Append to ``results`` what ``function`` returns, once it has returned.

    Args:
        results: Made before the ``try`` whose ``finally`` looks into it.
        function: One that is written in C; another may be interrupted half-way.
        arguments: What it is called with.
    """
    # The iterator calls, and the list appends, inside this instruction.
    results += itertools.starmap(function, (arguments,))


def unlock(lock: threading.Lock) -> None:
    """Wake whoever waits for ``lock``; it may be open already. Never waits."""
    with contextlib.suppress(RuntimeError):
        lock.release()
