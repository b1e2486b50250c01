"""The places in a pool: taken and given back without a lock, and never lost.

Whoever takes a `Token` out of the deque of free ones has the place; whoever appends it
again has given it back. Both are one step of the interpreter's. A token that dies
outside the deque, with a permit that was forgotten or in the hands of a thread that an
exception struck, is noted by a weak reference whose callback is no Python code: nothing
can interrupt it, and it waits for nothing. `Seats.tend` puts another in its place.
"""

from __future__ import annotations

import collections
import weakref
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from holystream.resilience.holders import PermitHolder, Priority


class Seat:
    """A place, and who has it. What is written belongs to whoever has its token.

    Attributes:
        kept: It is for those who are critical alone.
        uses: How often it was taken.
        since: When it was taken; None while nobody has it.
        priority: The priority it was taken with.
        thread: The thread that took it.
        holder: A weak reference to whoever holds it, if that was told.
        row: What notes the death of its token, and by what it is listed.
        watch: What tells the pool of that death.
    """

    __slots__ = (
        "holder",
        "kept",
        "priority",
        "row",
        "since",
        "thread",
        "uses",
        "watch",
    )

    def __init__(self, *, kept: bool) -> None:
        self.kept = kept
        self.uses = 0
        self.since: float | None = None
        self.priority: Priority = "normal"
        self.thread = 0
        self.holder: weakref.ref[PermitHolder] | None = None
        self.row: weakref.ref[Canary]
        self.watch: weakref.ref[Canary]


class Canary:
    """Dies with its token, and is what weak references watch."""

    __slots__ = ("__weakref__",)


# Not known to the garbage collector, which calls callbacks of weak references before
# it runs finalisers: one of those may yet give the token back, and it is not dead.
# So the canary of a token seems to be held by something outside the garbage, and dies
# only if the token does. In return a token must not lead to anything that leads to it.
class Token(msgspec.Struct, gc=False, eq=False):
    """What one must have to sit. Each seat has one, and nobody keeps a copy."""

    seat: Seat
    canary: Canary


class Seats:
    """A number of seats. ``free`` is for every thread; the rest needs the pool's mutex.

    Args:
        kept: They are for those who are critical alone.
        on_loss: Called when a token has died and was noted, in whatever its last owner
            was doing: a finaliser, most likely.

    Attributes:
        free: The tokens that nobody has.
        lost: Those that died and were not replaced yet.
        target: How many there should be. Seats too many go when they are free.
    """

    __slots__ = ("_kept", "_on_loss", "_past", "_rows", "free", "lost", "target")

    def __init__(self, on_loss: Callable[[object], object], *, kept: bool) -> None:
        self._kept = kept
        self.free: collections.deque[Token] = collections.deque()
        self.target = 0
        self._on_loss = on_loss
        # Which tokens there are. What is not in here is no token of ours any more.
        self._rows: dict[weakref.ref[Canary], Seat] = {}
        # Appending takes no lock.
        self.lost: collections.deque[weakref.ref[Canary]] = collections.deque()
        # Uses of the seats that are gone.
        self._past = 0

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def untidy(self) -> bool:
        """Whether `tend` has something to do, now or when a seat comes free."""
        return bool(self.lost) or len(self._rows) != self.target

    @property
    def in_use(self) -> int:
        """Seats whose token somebody has."""
        return len(self._rows) - len(self.free)

    @property
    def uses(self) -> int:
        """How often seats were taken."""
        return self._past + sum(seat.uses for seat in self._rows.values())

    def taken(self) -> list[Seat]:
        """Return the seats that somebody has, as far as they say since when."""
        return [seat for seat in self._rows.values() if seat.since is not None]

    def serves(self, thread: int) -> bool:
        """Whether one of the seats was taken by that thread; needs no mutex."""
        # The list is made in one step.
        for seat in list(self._rows.values()):
            if seat.thread == thread and seat.since is not None:
                return True
        return False

    def tend(self) -> None:
        """Replace the tokens that died, and add and remove seats up to the target.

        An exception out of a signal handler may end it at any point: the next call does
        the rest.
        """
        rows, lost = self._rows, self.lost
        while lost:
            if lost[0] in rows:
                self._past += rows[lost[0]].uses
                del rows[lost[0]]
            lost.popleft()
        while len(rows) > self.target and self.free:
            try:
                token = self.free.pop()
            except IndexError:
                break  # another thread was faster; the seat goes when it comes back
            # No call from here to the end: all of it happens or nothing.
            seat = token.seat
            self._past += seat.uses
            del rows[seat.row], seat.row, seat.watch
        while len(rows) < self.target:
            self._add()

    def _add(self) -> None:
        seat = Seat(kept=self._kept)
        token = Token(seat, Canary())
        # Two, for the one that notes it must be no Python code. The last one that was
        # made is called first.
        seat.watch = weakref.ref(token.canary, self._on_loss)
        seat.row = weakref.ref(token.canary, self.lost.append)
        self._rows[seat.row] = seat
        self.free.append(token)
