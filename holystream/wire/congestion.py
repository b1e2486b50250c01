"""Readers take turns where there are too many for one interpreter.

Python runs one thread at a time. Where hundreds of threads wait for a token each, what
a token costs is mostly the hand-over of the interpreter: every thread that is ready
fights for it, wakes every 5 ms to ask again, and in the end tokens are seconds late.

So, once the interpreter is late in coming, a thread that wants to read sleeps until its
last read is some hundredths of a second old, and its turn has come; then it takes all
that arrived meanwhile. One thread at a time has the *baton*: it sleeps until its pause
is over, reads, and wakes the next, before the caller sees what it read. The others
sleep on locks of their own, and ask for nothing.
"""

from __future__ import annotations

import collections
import os
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

from holystream.gapless import unlock

if TYPE_CHECKING:
    from collections.abc import Callable

LATE: Final = 0.03
"""Seconds from which on the interpreter is late: six of Python's switch intervals, so
that a few other threads that compute are no congestion."""
OVERDUE: Final = 0.01
"""Seconds from which on a turn is late."""
EACH: Final = 0.0002
"""Seconds that a read and what follows it take: a pause is as long as it takes to serve
all who wait."""
LONGEST_PAUSE: Final = 0.05
"""Seconds; no token waits longer than this for the sake of the others."""
FALL: Final = 0.02
"""Seconds by which it shrinks in each second in which nobody was."""
SELDOM: Final = 0.02
"""Seconds between two looks while all is well."""
OFTEN: Final = 0.01
"""The same, while readers take turns."""
PATIENCE: Final = 1.0
"""Seconds after which a turn that does not come is taken: whoever had the baton may
have died with it."""

_LAST_DATA_RECEIVED: Final = struct.Struct("=52xI")
"""Of Linux's struct tcp_info: the milliseconds since data came."""


def _let_others_run() -> None:
    time.sleep(0)


class Congestion:
    """Who reads next, and how long after its last read. Thread-safe.

    Without a lock: each step is one that the interpreter does not interrupt, and two
    threads that look at the same moment count one look twice, and no more.

    Args:
        clock: Monotonic seconds.
        hand_over: Lets the interpreter go, and waits for it.

    Attributes:
        pause: Seconds from a read to the next, when somebody looked last; 0 while all
            is well.
        look_at: When somebody should `look` again.
    """

    __slots__ = (
        "_baton",
        "_clock",
        "_hand_over",
        "_looked",
        "_turns",
        "look_at",
        "pause",
    )

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        hand_over: Callable[[], object] = _let_others_run,
    ) -> None:
        self._clock = clock
        self._hand_over = hand_over
        self.begin()

    def begin(self) -> None:
        """Begin with nobody waiting: in a new process."""
        self.pause = 0.0
        self._looked = self.look_at = self._clock()
        self._turns: collections.deque[_Turn] = collections.deque()
        # Holds one thing while nobody has the baton. Whoever takes it out has it.
        self._baton = collections.deque([None], maxlen=1)

    def look(self) -> None:
        """Find out how late the interpreter is, and what follows from it."""
        begun = self._clock()
        self._hand_over()
        self._note(late=self._clock() - begun >= LATE)

    def _note(self, *, late: bool) -> None:
        pause = self.left()
        if late:
            served = EACH * (1 + len(self._turns))
            pause = max(pause, min(served, LONGEST_PAUSE))
        self.pause = pause
        self._looked = self._clock()
        self.look_at = self._looked + (OFTEN if pause else SELDOM)

    def left(self) -> float:
        """Return the seconds from a read to the next, now."""
        # Whoever comes when nobody looked for a while finds what is left of it.
        return max(0.0, self.pause - FALL * (self._clock() - self._looked))

    def take_turn(
        self, due: float, sleep: Callable[[threading.Lock, float], bool]
    ) -> bool:
        """Wait for the baton, and until it is ``due``.

        Args:
            due: When the pause is over, on the clock.
            sleep: Waits for the release of a lock, for so many seconds at most; returns
                whether that, or something else that ends all waiting, was why it ended.

        Returns:
            Whether the caller has the baton, and has to `pass_on`.
        """
        turn = _Turn()
        leads = self._take_baton()
        if not leads:
            self._turns.append(turn)
            # It may have come back before we stood in line.
            leads = self._take_baton()
            late = not leads and not sleep(turn.lock, PATIENCE)
            # Nobody who passes it on may count on us from here on.
            leads = leads or late or not turn.claim()
        left = due - self._clock()
        if left > 0:
            sleep(turn.lock, left)
        now = self._clock()
        if now >= self.look_at:
            self._note(late=now - due >= OVERDUE)
        return leads

    def pass_on(self) -> None:
        """Wake the next in line, or put the baton down."""
        while True:
            while self._turns:
                try:
                    turn = self._turns.popleft()
                except IndexError:
                    break
                if turn.claim():
                    unlock(turn.lock)
                    return
            self._baton.append(None)
            # Whoever stood in line after we looked found no baton.
            if not self._turns or not self._take_baton():
                return

    def _take_baton(self) -> bool:
        try:
            self._baton.pop()
        except IndexError:
            return False
        return True


class _Turn:
    """A place in the line."""

    __slots__ = ("_claims", "lock")

    def __init__(self) -> None:
        # Released by whoever wakes its thread.
        self.lock = threading.Lock()
        self.lock.acquire()
        self._claims = [None]

    def claim(self) -> bool:
        """Return whether nobody did before: to leave, or to wake its thread."""
        try:
            self._claims.pop()
        except IndexError:
            return False
        return True


def silent_for(sock: socket.socket) -> float | None:
    """Return for how many seconds no data has come; None where that is not known.

    The system counts in ticks of 1 to 10 ms.
    """
    if sys.platform != "linux":
        return None
    try:
        found = sock.getsockopt(
            socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECEIVED.size
        )
    except OSError:
        return None
    if len(found) < _LAST_DATA_RECEIVED.size:
        return None
    milliseconds: int = _LAST_DATA_RECEIVED.unpack(found)[0]
    return milliseconds / 1e3


INTERPRETER: Final = Congestion()
"""That of this process."""

if hasattr(os, "register_at_fork"):
    # Those who took turns are the parent's.
    os.register_at_fork(after_in_child=INTERPRETER.begin)
