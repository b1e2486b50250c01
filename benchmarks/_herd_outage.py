"""The outage: every client loses its stream in the same instant, and all come back.

A discrete-event simulation without I/O, sleep or wall clock. Each client's waits are
those that `RetryPolicy` really makes: its `RetryProgress` is asked what follows each
failure, with a seeded rng and the simulation's own clock. One seed gives one history.
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
import math
import random
from typing import TYPE_CHECKING

from holystream.clocks import Deadline
from holystream.errors import ConnectionLost, Overloaded, StreamError
from holystream.resilience.retry import GiveUp

if TYPE_CHECKING:
    from holystream.resilience.retry import RetryPolicy

NETWORK = (0.010, 0.002)
"""Mean and standard deviation of the delay of one way, in seconds: AWS's network."""
WINDOW = 0.1
"""Seconds of the window in which the server's capacity is counted."""

LOST = ConnectionLost("the stream broke")
UNAVAILABLE = Overloaded("503", status=503)
NEVER = Deadline()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """What happens to the server, and to how many.

    Attributes:
        clients: How many have a stream when it breaks, at 0 s.
        seconds: How long the server accepts nobody.
        capacity: Connections that it accepts in each window of `WINDOW` seconds
            afterwards; inf for any number.
        refusal: What a client that is not accepted meets.
    """

    clients: int
    seconds: float
    capacity: float = math.inf
    refusal: StreamError = UNAVAILABLE


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What happened.

    Attributes:
        outage: What was simulated.
        arrivals: (seconds, client) of each call as it reached the server, in order.
        accepted: Seconds at which the server took a client, in order.
        reconnected: Seconds from the loss until each accepted client knew it.
        gave_up: Clients whose policy ended it.
    """

    outage: Outage
    arrivals: list[tuple[float, int]]
    accepted: list[float]
    reconnected: list[float]
    gave_up: int

    @property
    def calls(self) -> int:
        """Calls that reached the server."""
        return len(self.arrivals)

    @property
    def refused(self) -> float:
        """The share of the calls that was for nothing."""
        return 1 - len(self.reconnected) / self.calls

    @property
    def mean(self) -> float:
        """Mean seconds to reconnect, of those that did."""
        return math.fsum(self.reconnected) / len(self.reconnected)

    def quantile(self, share: float) -> float:
        """Seconds within which that share of the reconnected had done so."""
        ordered = sorted(self.reconnected)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]

    @property
    def finished(self) -> float:
        """Seconds until the last one was back."""
        return max(self.reconnected)

    def per_window(self, window: float) -> collections.Counter[int]:
        """Calls in each window of that many seconds, the first from 0 s."""
        return collections.Counter(int(at / window) for at, _ in self.arrivals)

    def peak(self, window: float = WINDOW) -> int:
        """The most calls in one window once the server was back."""
        first = int(self.outage.seconds / window)
        counts = self.per_window(window).items()
        return max(count for key, count in counts if key >= first)

    def collisions(self, window: float) -> int:
        """Calls that share a window with a call of another client."""
        first: dict[int, int] = {}
        shared: set[int] = set()
        for at, client in self.arrivals:
            key = int(at / window)
            if first.setdefault(key, client) != client:
                shared.add(key)
        return sum(int(at / window) in shared for at, _ in self.arrivals)

    def pairs(self, window: float) -> int:
        """Pairs of calls that share a window."""
        return sum(math.comb(count, 2) for count in self.per_window(window).values())


def simulate(policy: RetryPolicy, outage: Outage, seed: str) -> History:
    """Play an outage until every client is back or has given up."""
    rng = random.Random(seed)
    progress = [policy.start(0.0, rng) for _ in range(outage.clients)]
    queue: list[tuple[float, int]] = []
    arrivals: list[tuple[float, int]] = []
    accepted: list[float] = []
    reconnected: list[float] = []
    taken: collections.Counter[int] = collections.Counter()
    gave_up = 0

    def failed(client: int, error: StreamError, now: float) -> int:
        decision = progress[client].failed(error, now, NEVER)
        if isinstance(decision, GiveUp):
            return 1
        heapq.heappush(queue, (now + decision.delay + delay(rng), client))
        return 0

    for client in range(outage.clients):
        gave_up += failed(client, LOST, delay(rng))
    while queue:
        now, client = heapq.heappop(queue)
        arrivals.append((now, client))
        window = int(now / WINDOW)
        answered = now + delay(rng)
        if now >= outage.seconds and taken[window] < outage.capacity:
            taken[window] += 1
            accepted.append(now)
            reconnected.append(answered)
        else:
            gave_up += failed(client, outage.refusal, answered)
    return History(
        outage=outage,
        arrivals=arrivals,
        accepted=accepted,
        reconnected=reconnected,
        gave_up=gave_up,
    )


def delay(rng: random.Random) -> float:
    """Return the seconds that one way over the network takes."""
    return abs(rng.normalvariate(*NETWORK))
