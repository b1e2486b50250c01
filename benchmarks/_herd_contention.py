"""The contention: clients that all want to write one row, as in AWS's simulation.

The model of "Exponential Backoff And Jitter" (Marc Brooker, AWS Architecture Blog,
2015) and of aws-samples/aws-arch-backoff-simulator: every client reads the version of a
row and writes it back; a write whose version is out of date fails, and the client waits
and begins again. Exactly one write of each version succeeds, so that all of them are
done after as many as there are clients. The waits are those of the real `RetryPolicy`.
"""

from __future__ import annotations

import dataclasses
import heapq
import random
from typing import TYPE_CHECKING

from _herd_outage import NEVER, delay

from holystream.errors import Overloaded
from holystream.resilience.retry import GiveUp

if TYPE_CHECKING:
    from holystream.resilience.retry import RetryPolicy

OUT_OF_DATE = Overloaded("the version is out of date", status=503)

READ, WRITE = 0, 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contention:
    """What it took until every client had written once.

    Attributes:
        calls: Writes that were tried.
        seconds: When the last client knew that it had succeeded.
    """

    calls: float
    seconds: float


def contend(policy: RetryPolicy, clients: int, seed: str) -> Contention:
    """Let the clients write the row, once each."""
    rng = random.Random(seed)
    progress = [policy.start(0.0, rng) for _ in range(clients)]
    # A message on its way to the server: when it arrives, whose it is, a read or a
    # write, and of which version.
    queue = [(delay(rng), client, READ, 0) for client in range(clients)]
    heapq.heapify(queue)
    version = calls = 0
    seconds = 0.0
    while queue:
        now, client, verb, known = heapq.heappop(queue)
        answered = now + delay(rng)
        if verb == READ:
            heapq.heappush(queue, (answered + delay(rng), client, WRITE, version))
            continue
        calls += 1
        if known == version:
            version += 1
            seconds = max(seconds, answered)
            continue
        decision = progress[client].failed(OUT_OF_DATE, answered, NEVER)
        if isinstance(decision, GiveUp):
            raise TypeError(f"a client gave up: {decision.reason}")
        again = answered + decision.delay + delay(rng)
        heapq.heappush(queue, (again, client, READ, 0))
    return Contention(calls=calls, seconds=seconds)


def average(policy: RetryPolicy, clients: int, seed: str, rounds: int) -> Contention:
    """Return the means of several rounds."""
    played = [contend(policy, clients, f"{seed}/{turn}") for turn in range(rounds)]
    return Contention(
        calls=sum(one.calls for one in played) / rounds,
        seconds=sum(one.seconds for one in played) / rounds,
    )
