"""Streams that break while they are read: how many are complete in the end.

Each needs so many seconds of connection and breaks by a constant hazard, which is set
so that a given share gets through unbroken. Each break begins an outage of its own, of
exponential length. A stream that resumes goes on with what is left, by the real
`RetryPolicy`; one that does not is lost at its first break.
"""

from __future__ import annotations

import dataclasses
import math
import random
from typing import TYPE_CHECKING

from _herd_outage import LOST, NEVER, UNAVAILABLE, delay

from holystream.resilience.retry import GiveUp

if TYPE_CHECKING:
    from holystream.resilience.retry import RetryPolicy

LENGTH = 30.0
"""Seconds of connection that one answer takes."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Of a number of streams, the shares that were complete.

    Attributes:
        unbroken: Without resuming: the streams that never broke.
        resumed: With it.
    """

    unbroken: float
    resumed: float


def play(
    policy: RetryPolicy, *, streams: int, unbroken: float, outage: float, seed: str
) -> Completion:
    """Read that many streams, of which ``unbroken`` are expected not to break.

    ``outage`` is the mean of the seconds that the server is out after a break.
    """
    rng = random.Random(seed)
    hazard = -math.log(unbroken) / LENGTH
    whole = complete = 0
    for _ in range(streams):
        breaks = _read(policy, rng, hazard, outage)
        whole += breaks == 0
        complete += breaks is not None
    return Completion(unbroken=whole / streams, resumed=complete / streams)


def _read(
    policy: RetryPolicy, rng: random.Random, hazard: float, outage: float
) -> int | None:
    """Return how often one stream broke until it was complete; None if it never was."""
    progress = policy.start(0.0, rng)
    now, left, breaks = 0.0, LENGTH, 0
    while (lived := rng.expovariate(hazard)) < left:
        now, left, breaks = now + lived, left - lived, breaks + 1
        progress.progressed(now)
        back = now + (rng.expovariate(1 / outage) if outage else 0.0)
        decision = progress.failed(LOST, now, NEVER)
        while not isinstance(decision, GiveUp):
            arrival = now + decision.delay + delay(rng)
            now = arrival + delay(rng)
            if arrival >= back:
                break
            decision = progress.failed(UNAVAILABLE, now, NEVER)
        else:
            return None
    return breaks
