"""Readers take turns where there are too many for one interpreter.

Python runs one thread at a time. Where hundreds of threads wait for a token each, what
a token costs is mostly the hand-over of the interpreter: every thread that is ready
fights for it, wakes every 5 ms to ask again, and in the end tokens are seconds late.

So, once the interpreter is late in coming, a thread that wants to read sleeps until its
last read is some hundredths of a second old, and its turn has come; then it takes all
that arrived meanwhile. One thread at a time has the *baton*: it sleeps until its pause
is over, takes what is there, and wakes the next, before the caller sees what it read.
It never waits for bytes. The others sleep on locks of their own, and ask for nothing.
"""

from __future__ import annotations

import collections
import os
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
"""Seconds after which nobody waits any longer for a turn, and the baton is taken from
whoever had it all the while: its thread may have died with it."""


def _let_others_run() -> None:
    time.sleep(0)


class Turn:
    """A place in the line: of one thread, for one read.

    Attributes:
        lock: Released by whoever wakes its thread.
        began: When its thread came.
        waits: It may be given the baton.
    """

    __slots__ = ("began", "lock", "waits")

    def __init__(self) -> None:
        self.began = 0.0
        self.lock = threading.Lock()
        self.lock.acquire()
        self.waits = False


class Congestion:
    """Who reads next, and how long after its last read. Thread-safe.

    Without a lock, for what may go wrong is harmless: two threads that look at the same
    moment count one look twice, or one of the two, and two that find the baton free, or
    hand it on, at the same moment both go on, but only the last to write its name has
    it. What must not happen is that one has it who will not pass it on.

    Args:
        clock: Monotonic seconds.
        hand_over: Lets the interpreter go, and waits for it.

    Attributes:
        pause: Seconds from a read to the next, when somebody looked last; 0 while all
            is well.
        look_at: When somebody should `look` again.
        leader: Whose turn it is: it has the baton. None while nobody has.
    """

    __slots__ = (
        "_clock",
        "_hand_over",
        "_line",
        "_looked",
        "leader",
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
        self._line: collections.deque[Turn] = collections.deque()
        self.leader: Turn | None = None

    def look(self) -> None:
        """Find out how late the interpreter is, and what follows from it."""
        begun = self._clock()
        self._hand_over()
        self._note(late=self._clock() - begun >= LATE)

    def _note(self, *, late: bool) -> None:
        pause = self.left()
        if late:
            served = EACH * (1 + len(self._line))
            pause = max(pause, min(served, LONGEST_PAUSE))
        self.pause = pause
        self._looked = self._clock()
        self.look_at = self._looked + (OFTEN if pause else SELDOM)

    def left(self) -> float:
        """Return the seconds from a read to the next, now."""
        # Whoever comes when nobody looked for a while finds what is left of it.
        return max(0.0, self.pause - FALL * (self._clock() - self._looked))

    def take_turn(
        self,
        turn: Turn,
        pause: float,
        longest: float,
        sleep: Callable[[threading.Lock, float], bool],
    ) -> None:
        """Wait for the baton, and until the pause is over.

        However it ends, even by an exception, the caller has to `pass_on`.

        Args:
            turn: A new one.
            pause: Seconds from now, or fewer than none.
            longest: Seconds that may be waited for the baton.
            sleep: Waits for the release of a lock, for so many seconds at most; returns
                whether that, or something else that ends all waiting, was why it ended.
        """
        due = turn.began = self._clock()
        if pause > 0:
            due += pause
        if self.leader is not None:
            turn.waits = True
            self._line.append(turn)
            self._wait_in_line(turn, longest, sleep)
        if self.leader is None:
            self.leader = turn
        left = due - self._clock()
        if left > 0:
            sleep(turn.lock, left)
        now = self._clock()
        if now >= self.look_at:
            self._note(late=now - due >= OVERDUE)

    def _wait_in_line(
        self,
        turn: Turn,
        seconds: float,
        sleep: Callable[[threading.Lock, float], bool],
    ) -> None:
        # Whoever put the baton down before we stood in line has not seen us.
        while seconds > 0 and (leader := self.leader) not in {None, turn}:
            if sleep(turn.lock, min(seconds, PATIENCE)):
                return
            seconds -= PATIENCE
            # A line that moves is worth waiting for, however long it is.
            if self.leader is leader and self._clock() - leader.began >= PATIENCE:
                self.leader = turn

    def pass_on(self, turn: Turn) -> None:
        """Leave the line; if it has the baton, wake the next, or put it down."""
        turn.waits = False
        if self.leader is not turn:
            return
        while True:
            try:
                following = self._line.popleft()
            except IndexError:
                self.leader = None
                # Whoever stood in line before that relies on us; whoever did it after
                # that finds no leader.
                if not self._line:
                    return
                continue
            self.leader = following
            # Not before: it could leave meanwhile, and not know that it has the baton.
            if following.waits:
                unlock(following.lock)
                return


INTERPRETER: Final = Congestion()
"""That of this process."""

if hasattr(os, "register_at_fork"):
    # Those who took turns are the parent's.
    os.register_at_fork(after_in_child=INTERPRETER.begin)
