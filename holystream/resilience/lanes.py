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
import operator
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

_PASSED: Final = operator.attrgetter("passed")

SLACK: Final = 8
"""Places of those who left that a lane keeps, beside as many as there are waiters."""


class Waiter:
    """A place in a queue. What it is given is written under the pool's mutex.

    Attributes:
        priority: Its lane.
        queued: It is in the queue.
        since: When it began to wait; None for one that was served at once.
        thread: The thread that waits.
        holder: A weak reference to whoever will hold the permit, if that was told.
        tokens: What it was granted: one token, or none.
        aborted: It was taken out of the queue by `PrioritySemaphore.abort`.
        shed: It was taken out of the queue for a more urgent one.
        turn: The lock on which it sleeps.
    """

    __slots__ = (
        "aborted",
        "holder",
        "priority",
        "queued",
        "shed",
        "since",
        "thread",
        "tokens",
        "turn",
    )

    def __init__(
        self, priority: Priority, holder: weakref.ref[PermitHolder] | None = None
    ) -> None:
        self.priority = priority
        self.queued = False
        self.since: float | None = None
        self.thread = threading.get_ident()
        self.holder = holder
        self.tokens: list[Token] = []
        self.aborted = False
        self.shed = False
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
        self.returning: collections.deque[Waiter] = collections.deque()
        self.fresh: collections.deque[Waiter] = collections.deque()
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
        waited: How many waited until they were served.
        wait_total: The seconds that those waited, all together.
        wait_max: The longest of these waits.

    Raises:
        ConfigurationError: One of them cannot be used.
    """

    __slots__ = (
        "_lanes",
        "_last",
        "_reached",
        "_strict",
        "by_priority",
        "queued",
        "wait_max",
        "wait_total",
        "waited",
    )

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
        self.waited = 0
        self.wait_total = 0.0
        self.wait_max = 0.0

    def __iter__(self) -> Iterator[Waiter]:
        for lane in self._lanes:
            for waiter in (*lane.returning, *lane.fresh):
                if waiter.queued:
                    yield waiter

    def lengths(self) -> dict[Priority, int]:
        """Return how many wait in each lane."""
        return {lane.priority: lane.queued for lane in self._lanes}

    def add(self, waiter: Waiter) -> None:
        """Let ``waiter`` wait behind all others of its priority."""
        lane = self.by_priority[waiter.priority]
        if not lane.queued and lane.passed < self._reached:
            lane.passed = self._reached
        lane.fresh += (waiter,)
        lane.queued += 1
        self.queued += 1
        waiter.queued = True

    def add_returning(self, waiter: Waiter) -> None:
        """Let ``waiter`` wait before all of its priority that are new."""
        lane = self.by_priority[waiter.priority]
        if not lane.queued and lane.passed < self._reached:
            lane.passed = self._reached
        lane.returning += (waiter,)
        lane.queued += 1
        self.queued += 1
        waiter.queued = True

    def newest_below(self, priority: Priority) -> Waiter | None:
        """Return who came last of the least urgent who wait, below ``priority``.

        None of those who return: they have begun something.
        """
        for lane in reversed(self._lanes):
            if lane.priority == priority:
                break
            for waiter in reversed(lane.fresh):
                if waiter.queued:
                    return waiter
        return None

    def remove(self, waiter: Waiter) -> bool:
        """Take ``waiter`` out; return whether it was still waiting."""
        if not waiter.queued:
            return False
        lane = self.by_priority[waiter.priority]
        lane.queued -= 1
        self.queued -= 1
        waiter.queued = False
        # Its turn may never come, and there may be many like it.
        if len(lane.fresh) + len(lane.returning) > 2 * lane.queued + SLACK:
            lane.fresh = collections.deque(it for it in lane.fresh if it.queued)
            lane.returning = collections.deque(it for it in lane.returning if it.queued)
        return True

    def serve(  # noqa: C901 - calls to its parts would be half of what it costs
        self,
        free: collections.deque[Token],
        kept: collections.deque[Token],
        clock: Callable[[], float],
    ) -> None:
        """Grant a token to each waiter whose turn it is, and wake it, while there are.

        Args:
            free: Tokens for everybody.
            kept: Tokens for those who are critical alone.
            clock: The time.
        """
        while self.queued:
            if kept and self._lanes[0].queued:
                # Not at the expense of its share of the others.
                lane, tokens, cost = self._lanes[0], kept, 0
            elif free:
                lane = self._last
                if lane.queued != self.queued:  # somebody waits in another
                    lane = self._next()
                tokens, cost = free, lane.stride
            else:
                return
            queue = lane.returning or lane.fresh
            waiter = queue[0]
            if not waiter.queued:
                del queue[0]  # it left
                continue
            now = clock()
            try:
                waiter.tokens = [tokens.pop()]
            except IndexError:
                continue  # another thread was faster
            # From the grant to the waking no call of Python's stands in which a signal
            # handler could raise: neither a permit nor a waiter gets lost between them.
            del queue[0]
            lane.queued -= 1
            self.queued -= 1
            waiter.queued = False
            if cost:
                self._reached = lane.passed
                lane.passed += cost
            self._last = lane
            if waiter.since is not None:
                waited = now - waiter.since
                self.waited += 1
                self.wait_total += waited
                if waited > self.wait_max:  # noqa: PLR1730 - max would be a call
                    self.wait_max = waited
            seat = waiter.tokens[0].seat
            seat.uses += 1
            seat.priority = waiter.priority
            seat.thread = waiter.thread
            seat.holder = waiter.holder
            seat.since = now
            # Under the mutex, for whoever wakes up does not need it.
            try:  # noqa: SIM105 - as said
                waiter.turn.release()
            except RuntimeError:
                pass  # awake already: cancelled in the same moment

    def _next(self) -> Lane:
        """Return the lane whose turn it is, of those that have waiters."""
        waiting = [lane for lane in self._lanes if lane.queued]
        return waiting[0] if self._strict else min(waiting, key=_PASSED)


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
