"""A caller's wait for its turn: how it sleeps, and how it finds out why it woke."""

from __future__ import annotations

import sys
import threading
import warnings
from typing import TYPE_CHECKING, Final

from holystream.errors import StreamCancelled

if TYPE_CHECKING:
    from holystream.clocks import CancelToken
    from holystream.resilience.granting import Grants
    from holystream.resilience.lanes import Waiter

_OURS: Final = f"{__name__.partition('.')[0]}."
PATIENCE: Final = 1.0
"""Seconds of waiting after which it is found out if a thread waits for itself."""


def wait(
    grants: Grants, waiter: Waiter, cancel: CancelToken | None, seconds: float
) -> bool:
    """Sleep until ``waiter`` is granted its token; return False if none came in time.

    So it does, ahead of time, if `Waiter.shed` is set.

    Raises:
        StreamCancelled: The wait was cancelled or aborted. A token that was granted in
            the same moment is for the caller to pass on.
    """
    # The callback only opens the waiter's own lock. It must not take the mutex: it may
    # run in a signal handler, in the very thread that holds it. If the token is
    # cancelled already, it runs at once and the sleep ends before it begins.
    ignore = None if cancel is None else cancel.on_cancel(waiter.wake)
    try:
        # Most hold nothing, and sleep on: a crowd that wakes all at once to find out
        # would be in the way of the permit.
        if seconds <= PATIENCE or not grants.serves(waiter.thread):
            waiter.turn.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
        elif not waiter.turn.acquire(timeout=PATIENCE):
            _suspect(grants, waiter)
            left = min(seconds - PATIENCE, threading.TIMEOUT_MAX)
            waiter.turn.acquire(timeout=left)
    finally:
        if ignore is not None:
            ignore()
    cancelled = cancel is not None and cancel.cancelled
    # Written before we were woken, and never taken back: no need for the mutex.
    if waiter.tokens and not cancelled:
        return True
    if not cancelled and not waiter.aborted:
        if grants.leave(waiter):
            return False
        # Granted between the end of our sleep and now, it is ours: a little late is
        # better than a timeout and a token sent around in vain. Else it was aborted.
        if waiter.tokens:
            return True
        if waiter.shed:
            return False
    # Granted or not: whoever cancelled us does not want the connection.
    grants.cancelled(waiter)
    raise StreamCancelled("the stream was cancelled in the queue for a permit")


def _suspect(grants: Grants, waiter: Waiter) -> None:
    """Warn, once, of a thread that may be waiting for itself."""
    if grants.suspected:
        return
    own = sum(seat.thread == waiter.thread for seat in grants.seats())
    # Looked at last: one of those may be what it was granted this moment.
    if own and not waiter.tokens:
        grants.suspected = True
        warnings.warn(
            f"a thread waits for a permit of a pool of {grants.limit} and acquired "
            f"{own} of those that are held: if it is to give one of them back, it "
            "waits for itself. Close one stream before you open the next, or allow "
            "more connections.",
            RuntimeWarning,
            stacklevel=_caller(),
        )


def _caller() -> int:
    """Return the ``stacklevel`` of the first frame that is not holystream's."""
    frame, level = sys._getframe(1), 1  # noqa: SLF001 - as the warnings module does
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(_OURS):
        frame, level = frame.f_back, level + 1
    return level
