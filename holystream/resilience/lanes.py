"""Whose turn it is among those who wait: four lanes, shared by stride scheduling.

Each lane has a weight, and a pass that grows by ``stride = K / weight`` whenever one of
its waiters is served. The lane with the least pass is served next; of equals the more
urgent. So, while all have waiters, each gets its weight's share, in turns as even as
can be. A lane that begins to wait starts from where the others are: what it did not use
while nobody waited in it is gone.

In each lane those who return (they had a permit, and gave it back to wait before their
next attempt) are served before those who are new; among each, first in, first out.
"""

from __future__ import annotations

import collections
import math
import threading
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from holystream.errors import ConfigurationError
from holystream.gapless import unlock

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable, Iterator, Mapping

    from holystream.resilience.holders import PermitHolder, Priority
    from holystream.resilience.seats import Token

Order: TypeAlias = Literal["weighted", "strict"]
"""How the lanes share: by their weights, or the most urgent one first, always."""

WEIGHTS: Final[Mapping[Priority, int]] = {
    "critical": 8,
    "high": 4,
    "normal": 2,
    "low": 1,
}
"""The priorities, most urgent first, and their shares when all of them wait."""


class Waiter:
    """A place in a queue. What it is given is written under the pool's mutex.

    Attributes:
        priority: Its lane.
        since: When it began to wait; None for one that was served at once.
        waited: Seconds that it waited, once it was served; None as above.
        thread: The thread that waits.
        holder: A weak reference to whoever will hold the permit, if that was told.
        tokens: What it was granted: one token, or none.
        aborted: It was taken out of the queue by `PrioritySemaphore.abort`.
        turn: The lock on which it sleeps.
    """

    __slots__ = (
        "aborted",
        "holder",
        "priority",
        "since",
        "thread",
        "tokens",
        "turn",
        "waited",
    )

    def __init__(
        self, priority: Priority, holder: weakref.ref[PermitHolder] | None = None
    ) -> None:
        self.priority = priority
        self.since: float | None = None
        self.waited: float | None = None
        self.thread = threading.get_ident()
        self.holder = holder
        self.tokens: list[Token] = []
        self.aborted = False
        # Released by whoever wakes this waiter; acquired by the waiter alone.
        self.turn = threading.Lock()
        self.turn.acquire()

    def wake(self) -> None:
        """End the waiter's sleep. May be called more than once, from any thread."""
        # A grant and a cancellation may both arrive, and the second finds the lock
        # open. That wake-up is not needed: the waiter looks at both in any case.
        unlock(self.turn)


class Lane:
    """The waiters of one priority.

    Attributes:
        priority: Its name.
        stride: What its pass grows by with each turn.
        passed: Its pass.
        returning: Those who had a permit before, in order.
        fresh: The others, in order.
        queued: How many there are of both.
    """

    __slots__ = ("fresh", "passed", "priority", "queued", "returning", "stride")

    def __init__(self, priority: Priority, stride: int) -> None:
        self.priority = priority
        self.stride = stride
        self.passed = 0
        # Ordered, with removal from the middle in constant time; a plain dict is slow
        # to find the first one when many have gone before it.
        self.returning: collections.OrderedDict[Waiter, None] = (
            collections.OrderedDict()
        )
        self.fresh: collections.OrderedDict[Waiter, None] = collections.OrderedDict()
        self.queued = 0


class Lanes:
    """All who wait. Not thread-safe: the pool's mutex guards it.

    Each change is one run of instructions without a call among them, so that no signal
    handler can come between its parts.

    Args:
        order: "weighted" or "strict".
        weights: Shares by priority, positive whole numbers; those not given are as in
            `WEIGHTS`.

    Attributes:
        queued: How many wait.
        by_priority: The lanes, most urgent first.

    Raises:
        ConfigurationError: One of them cannot be used.
    """

    __slots__ = ("_lanes", "_last", "_reached", "_strict", "by_priority", "queued")

    def __init__(
        self,
        order: Order = "weighted",
        weights: Mapping[Priority, int] | None = None,
    ) -> None:
        if order not in {"weighted", "strict"}:
            raise ConfigurationError(
                f"the pool's order must be 'weighted' or 'strict', not {order!r}"
            )
        shares = dict(WEIGHTS) | dict(weights or {})
        for priority, weight in shares.items():
            if priority not in WEIGHTS:
                raise ConfigurationError(
                    f"the pool's weights are for {', '.join(map(repr, WEIGHTS))}, not "
                    f"for {priority!r}"
                )
            check_whole(weight, f"the pool's weight of {priority!r}", 1)
        common = math.lcm(*shares.values())
        self._strict = order == "strict"
        self.by_priority: dict[Priority, Lane] = {
            priority: Lane(priority, common // weight)
            for priority, weight in shares.items()
        }
        self._lanes = tuple(self.by_priority.values())
        # The pass of the lane that was served last.
        self._reached = 0
        self._last = self._lanes[0]
        self.queued = 0

    def __iter__(self) -> Iterator[Waiter]:
        for lane in self._lanes:
            yield from lane.returning
            yield from lane.fresh

    def lengths(self) -> dict[Priority, int]:
        """Return how many wait in each lane."""
        return {lane.priority: lane.queued for lane in self._lanes}

    def add(self, waiter: Waiter) -> None:
        """Let ``waiter`` wait behind all others of its priority."""
        lane = self.by_priority[waiter.priority]
        if not lane.queued and lane.passed < self._reached:
            lane.passed = self._reached
        lane.fresh[waiter] = None
        lane.queued += 1
        self.queued += 1

    def add_returning(self, waiter: Waiter) -> None:
        """Let ``waiter`` wait before all of its priority that are new."""
        lane = self.by_priority[waiter.priority]
        if not lane.queued and lane.passed < self._reached:
            lane.passed = self._reached
        lane.returning[waiter] = None
        lane.queued += 1
        self.queued += 1

    def remove(self, waiter: Waiter) -> bool:
        """Take ``waiter`` out; return whether it was still waiting."""
        lane = self.by_priority[waiter.priority]
        for queue in (lane.returning, lane.fresh):
            if waiter in queue:
                del queue[waiter]
                lane.queued -= 1
                self.queued -= 1
                return True
        return False

    def next(self) -> Lane | None:
        """Return the lane whose turn it is; None if nobody waits. Changes nothing."""
        if self._last.queued == self.queued:
            return self._last if self.queued else None  # nobody waits in any other
        best = None
        for lane in self._lanes:
            if lane.queued and (best is None or lane.passed < best.passed):
                if self._strict:
                    return lane
                best = lane
        return best

    def urgent(self) -> Lane | None:
        """Return the lane of those who are critical, if anybody waits there."""
        lane = self._lanes[0]
        return lane if lane.queued else None

    def serve(
        self,
        lane: Lane,
        free: collections.deque[Token],
        cost: int,
        clock: Callable[[], float],
    ) -> Waiter | None:
        """Grant the first waiter of ``lane`` a token, and wake it.

        Args:
            lane: One with waiters.
            free: Where the token comes from.
            cost: What the pass of ``lane`` grows by.
            clock: The time.

        Returns:
            Who was served; None if there was no token, and nothing changed.
        """
        queue = lane.returning or lane.fresh
        waiter = next(iter(queue))
        try:
            waiter.tokens = [free.pop()]
        except IndexError:
            return None
        # From the grant to the waking no call of Python's stands in which a signal
        # handler could raise: neither a permit nor a waiter gets lost between the two.
        # It is woken here, under the mutex, because whoever wakes up does not need it.
        seat = waiter.tokens[0].seat
        del queue[waiter]
        lane.queued -= 1
        self.queued -= 1
        try:  # noqa: SIM105 - as said
            waiter.turn.release()
        except RuntimeError:
            pass  # awake already: cancelled in the same moment
        # Its thread is on its way: from here on nobody is kept waiting.
        self._last = lane
        if cost:
            self._reached = lane.passed
            lane.passed += cost
        seat.uses += 1
        now = clock()
        if waiter.since is not None:
            waiter.waited = now - waiter.since
        # Unless it has given the permit back already, or passed it on.
        if waiter.tokens:
            seat.priority = waiter.priority
            seat.thread = waiter.thread
            seat.holder = waiter.holder
            seat.since = now
        return waiter


def check_whole(value: object, name: str, least: int) -> None:
    """Refuse anything but a whole number, ``least`` or more.

    Raises:
        ConfigurationError: It is none; the message names the setting.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(
            f"{name} must be a whole number, at least {least}, not {value!r}"
        )


def check_share(value: object, name: str) -> None:
    """Refuse anything but a number from 0 up to, and not, 1.

    Raises:
        ConfigurationError: It is none; the message names the setting.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 <= value < 1
    ):
        raise ConfigurationError(
            f"{name} must be a share, at least 0 and below 1, not {value!r}"
        )
