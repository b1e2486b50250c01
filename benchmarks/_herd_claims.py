"""What the sources say of jitter, each beside our number: it holds, or it does not.

The sources define neither their windows nor how many clients, how long an outage or
how much a server takes; so each claim is put to several, and a row names its own.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING

from _herd_contention import Contention, average
from _herd_outage import History, Outage, simulate
from _herd_policies import patient, scenario
from _herd_streams import play
from tenacity import wait_none

from holystream.resilience.retry import JitterName, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENTS = 1000
STREAMS = 10_000
UNBROKEN = 0.874
"""The share of streams that does not break: the sources' own, put in by us."""

FEWER = "78 % fewer collisions at jitter 0.25"
SOON = "2.3 s mean time to reconnect"
COMPLETE = "99.2 % of streams complete, 87.4 % without resuming"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A row: what is said, where it was tried, what came out.

    Attributes:
        says: The claim.
        setting: N, window, outage and capacity.
        ours: Our number.
        holds: Whether it is at least as good as what is said.
    """

    says: str
    setting: str
    ours: str
    holds: bool

    @property
    def verdict(self) -> str:
        """In words."""
        return "holds" if self.holds else "does not hold"


def percent(share: float, digits: int) -> str:
    """Write a share as the sources do."""
    return f"{share * 100:.{digits}f} %"


@functools.lru_cache(maxsize=24)
def history(jitter: JitterName | None, outage: Outage, seed: int) -> History:
    """Simulate an outage; the same random numbers whatever the jitter."""
    return simulate(patient(jitter), outage, f"outage/{seed}")


def fewer(outage: Outage, window: float, seed: int) -> tuple[float, float]:
    """Return how much jitter 0.25 saves of the collisions, and of the pairs."""
    without = history(None, outage, seed)
    jittered = history("plusminus", outage, seed)
    return (
        _saved(without.collisions(window), jittered.collisions(window)),
        _saved(without.pairs(window), jittered.pairs(window)),
    )


def _saved(before: int, after: int) -> float:
    return 1 - after / before if before else 0.0


def claims(seed: int) -> Iterator[Claim]:
    """Put the sources' claims to the test."""
    for outage, how in _outages():
        for window in (0.001, 0.01, 0.1):
            share, _ = fewer(outage, window, seed)
            yield Claim(
                says=FEWER,
                setting=f"N={CLIENTS}, window {window * 1000:g} ms, {how}",
                ours=f"{percent(share, 1)} fewer",
                holds=share >= 0.78,
            )
    for outage, how in _outages():
        _, share = fewer(outage, 0.1, seed)
        yield Claim(
            says=f"{FEWER}, counted in pairs",
            setting=f"N={CLIENTS}, window 100 ms, {how}",
            ours=f"{percent(share, 1)} fewer",
            holds=share >= 0.78,
        )
    for seconds in (0.0, 1.0, 2.0, 5.0, 10.0):
        outage = Outage(clients=CLIENTS, seconds=seconds)
        mean = history("plusminus", outage, seed).mean
        yield Claim(
            says=SOON,
            setting=f"N={CLIENTS}, out {seconds:g} s, then all taken at once",
            ours=f"{mean:.2f} s",
            holds=mean <= 2.3,
        )
    for seconds in (1.0, 5.0, 15.0):
        yield _completion(RetryPolicy(jitter="plusminus"), seconds, seed)
        yield _completion(RetryPolicy(), seconds, seed)
        yield _completion(RetryPolicy(attempts=12), seconds, seed)


def _outages() -> tuple[tuple[Outage, str], ...]:
    return (
        (scenario(CLIENTS), "out 5 s, then 2 % taken per 100 ms"),
        (Outage(clients=CLIENTS, seconds=5.0), "out 5 s, then all taken at once"),
    )


def _completion(policy: RetryPolicy, seconds: float, seed: int) -> Claim:
    shares = play(
        policy,
        streams=STREAMS,
        unbroken=UNBROKEN,
        outage=seconds,
        seed=f"streams/{seed}",
    )
    return Claim(
        says=COMPLETE,
        setting=(
            f"N={STREAMS}, out {seconds:g} s on average after each break, "
            f"{policy.jitter}, `attempts={policy.attempts}`"
        ),
        ours=f"{percent(shares.resumed, 1)}, {percent(shares.unbroken, 1)} without",
        holds=shares.resumed >= 0.992,
    )


Contentions = dict[tuple[str, int], Contention]
"""By jitter and number of clients."""

NO_BACKOFF = "no backoff"


@functools.lru_cache(maxsize=4)
def contentions(clients: tuple[int, ...], rounds: int, seed: int) -> Contentions:
    """Play AWS's contention: first wait 10 ms, doubling up to 2 s, as theirs."""
    policies = {
        NO_BACKOFF: patient(None, wait=wait_none()),
        "none": patient(None, base=0.010, cap=2.0),
        "equal": patient("equal", base=0.010, cap=2.0),
        "full": patient("full", base=0.010, cap=2.0),
        # Theirs starts from the base itself, where the others begin with its double.
        "decorrelated": patient("decorrelated", base=0.005, cap=2.0),
        "plusminus 0.25": patient("plusminus", base=0.010, cap=2.0),
        "additive 0.25": patient("additive", base=0.010, cap=2.0),
    }
    return {
        (name, number): average(policy, number, f"contention/{seed}", rounds)
        for number in clients
        for name, policy in policies.items()
    }


def findings(results: Contentions, clients: int) -> Iterator[Claim]:
    """Put AWS's own findings to the test; ``clients`` and half of them were played."""
    at = {name: results[name, clients] for name, number in results if number == clients}
    none, full, equal = at["none"], at["full"], at["equal"]
    decorrelated = at["decorrelated"]
    setting = f"N={clients}"
    ratio = at[NO_BACKOFF].calls / results[NO_BACKOFF, clients // 2].calls
    power = math.log2(ratio)
    yield Claim(
        says="without backoff the calls grow with the square of N",
        setting=f"N={clients // 2} to {clients}",
        ours=f"N to the power of {power:.1f}",
        holds=power > 1.75,
    )
    yield Claim(
        says="full jitter more than halves the calls of plain exponential backoff",
        setting=setting,
        ours=f"{full.calls:.0f} of {none.calls:.0f}",
        holds=full.calls < none.calls / 2,
    )
    yield Claim(
        says="plain exponential backoff takes the most time of all backoffs",
        setting=setting,
        ours=f"{none.seconds:.1f} s, full {full.seconds:.1f} s",
        holds=none.seconds
        == max(one.seconds for name, one in at.items() if name != NO_BACKOFF),
    )
    yield Claim(
        says="full and equal make about as many calls, decorrelated more",
        setting=setting,
        ours=f"{full.calls:.0f}, {equal.calls:.0f}, {decorrelated.calls:.0f}",
        holds=abs(equal.calls / full.calls - 1) < 0.1
        and decorrelated.calls > max(full.calls, equal.calls),
    )
    yield Claim(
        says="equal takes much longer than full",
        setting=setting,
        ours=f"{equal.seconds:.1f} s, {full.seconds:.1f} s",
        holds=equal.seconds > 1.1 * full.seconds,
    )
    yield Claim(
        says="full takes slightly longer than decorrelated",
        setting=setting,
        ours=f"{full.seconds:.1f} s, {decorrelated.seconds:.1f} s",
        holds=decorrelated.seconds < full.seconds < 1.5 * decorrelated.seconds,
    )
