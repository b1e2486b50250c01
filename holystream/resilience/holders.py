"""How a pool stands, and who holds its permits, for how long, and idle since when.

What a holder says of itself is asked for when somebody wants to know, never before, and
never under a lock.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    import weakref
    from collections.abc import Iterable, Mapping


Priority: TypeAlias = Literal["critical", "high", "normal", "low"]
"""What a request may claim of the queue."""

_NAMED: Final = 5
"""Holders that a message names."""


class PermitHolder(Protocol):
    """Whoever holds a permit, as far as the pool is concerned.

    The pool keeps a weak reference, and calls it outside of its locks, from any thread.
    """

    @property
    def stream_id(self) -> str:
        """What `PrioritySemaphore.abort` finds it by."""

    def idle(self) -> float:
        """Return the seconds since it last used what the permit is for."""

    def cancel(self) -> object:
        """End what the permit is for, and give it back."""


class Place(Protocol):
    """A seat, or a place in a queue."""

    holder: weakref.ref[PermitHolder] | None


class TakenSeat(Place, Protocol):
    """A seat: see seats.py."""

    since: float | None
    priority: Priority
    thread: int


Kind = TypeVar("Kind", bound=Place)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class HeldPermit:
    """A permit that is held. Times are seconds.

    Attributes:
        stream_id: Who holds it; None if that was not told.
        priority: The priority it was acquired with.
        held: Since it was granted.
        idle: Since its holder last used it; None if that was not told.
        ours: The thread that asks acquired it itself.
    """

    stream_id: str | None
    priority: Priority
    held: float
    idle: float | None
    ours: bool

    def __str__(self) -> str:
        name = "one unnamed" if self.stream_id is None else f"stream {self.stream_id}"
        idle = "" if self.idle is None else f", idle for {self.idle:.1f} s"
        ours = ", acquired by this very thread" if self.ours else ""
        return f"{name} for {self.held:.1f} s{idle}{ours}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """What a pool is doing and has done since it was made, or since a fork.

    Attributes:
        limit: Permits in all.
        in_use: Permits that are held.
        queued: Callers that wait.
        queued_by_priority: The same, for each priority.
        max_queue: Callers that may wait.
        oldest: Seconds since the permit held longest was granted; None if none is.
        granted: Permits granted so far.
        waited: Of these, the ones that had to be waited for.
        wait_total: The seconds that those were waited for, all together.
        wait_mean: The same, for one of them; 0 if there is none.
        wait_max: The longest of these waits.
        refused: Callers turned away because the queue was full.
        timeouts: Callers that waited in vain.
        cancels: Callers that were cancelled in the queue, by their token or by `abort`.
        backpressure: Whether the pool is nearly full.
    """

    limit: int
    in_use: int
    queued: int
    queued_by_priority: Mapping[Priority, int]
    max_queue: int
    oldest: float | None
    granted: int
    waited: int
    wait_total: float
    wait_mean: float
    wait_max: float
    refused: int
    timeouts: int
    cancels: int
    backpressure: bool


def describe(seats: Iterable[TakenSeat], now: float) -> tuple[HeldPermit, ...]:
    """Return who holds these seats, the one that has been idle longest first."""
    thread = threading.get_ident()
    found = []
    for seat in seats:
        since, reference = seat.since, seat.holder
        if since is None:
            continue  # given back meanwhile
        holder = None if reference is None else reference()
        found.append(
            HeldPermit(
                stream_id=holder.stream_id if holder is not None else None,
                priority=seat.priority,
                held=max(0.0, now - since),
                idle=max(0.0, holder.idle()) if holder is not None else None,
                ours=seat.thread == thread,
            )
        )
    # Whoever does not tell may have been idle all the time.
    found.sort(key=lambda it: it.held if it.idle is None else it.idle, reverse=True)
    return tuple(found)


def held_by(stream_id: str, places: Iterable[Kind]) -> list[tuple[Kind, PermitHolder]]:
    """Return which of these seats or waiters are of that stream, and who that is."""
    found = []
    for place in places:
        reference = place.holder
        holder = None if reference is None else reference()
        if holder is not None and holder.stream_id == stream_id:
            found.append((place, holder))
    return found


def name(holders: tuple[HeldPermit, ...]) -> str:
    """Say who holds permits, in one line."""
    if not holders:
        return ""
    named = "; ".join(map(str, holders[:_NAMED]))
    more = f"; and {len(holders) - _NAMED} more" if len(holders) > _NAMED else ""
    return f" ({named}{more})"
