"""The tables of the herd simulation, as lines of markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from _herd_claims import Claim, Contentions, fewer, history, percent
from _herd_outage import History, Outage, simulate
from _herd_policies import HINT, JITTERS, hinted, patient, refused, scenario

from holystream.resilience.retry import JitterName, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WINDOWS = (0.001, 0.01, 0.1, 1.0)
"""Seconds."""
LENGTHS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
"""Seconds of the outages that a policy is to survive."""


def table(head: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    """Yield a table: the first column is text, and the others are numbers."""
    yield f"| {' | '.join(head)} |"
    yield f"|---|{'---:|' * (len(head) - 1)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def claims(heading: str, found: Iterable[Claim]) -> Iterator[str]:
    """Yield claims beside our numbers."""
    yield f"| {heading} | where | ours | |"
    yield "|---|---|---:|---|"
    for claim in found:
        yield f"| {claim.says} | {claim.setting} | {claim.ours} | {claim.verdict} |"
    yield ""


def outage(clients: int, seed: int) -> Iterator[str]:
    """Yield what an outage of 5 s comes to, by jitter."""
    plain = scenario(clients)
    rows: list[tuple[str, History]] = [
        (name, history(jitter, plain, seed)) for name, jitter in JITTERS.items()
    ]
    extra: tuple[tuple[str, JitterName | None, Outage], ...] = (
        ("full, refused connections", "full", refused(plain)),
        (f"full, `Retry-After: {HINT:g}`", "full", hinted(plain)),
        (f"none, `Retry-After: {HINT:g}`", None, hinted(plain)),
    )
    rows += [
        (name, simulate(patient(jitter), other, f"outage/{seed}"))
        for name, jitter, other in extra
    ]
    yield from table(
        ["jitter", "calls", "per client", "for nothing", "collisions, 1 ms", "10 ms",
         "100 ms", "most in 100 ms, once back", "reconnect, mean", "p50", "p99",
         "all back"],
        (
            [
                name,
                f"{one.calls}",
                f"{one.calls / clients:.1f}",
                percent(one.refused, 0),
                *(f"{one.collisions(window)}" for window in WINDOWS[:3]),
                f"{one.peak()}",
                f"{one.mean:.1f} s",
                f"{one.quantile(0.5):.1f} s",
                f"{one.quantile(0.99):.1f} s",
                f"{one.finished:.1f} s",
            ]
            for name, one in rows
        ),
    )  # fmt: skip


def reduction(clients: tuple[int, ...], seed: int) -> Iterator[str]:
    """Yield how many collisions jitter 0.25 saves, by how they are counted."""
    rows = []
    for number in clients:
        for how, one in (
            ("2 % taken per 100 ms", scenario(number)),
            ("all taken at once", Outage(clients=number, seconds=5.0)),
        ):
            saved = [fewer(one, window, seed) for window in WINDOWS]
            rows += [
                [
                    f"{number}, {how}, calls",
                    *(percent(calls, 0) for calls, _ in saved),
                ],
                [
                    f"{number}, {how}, pairs",
                    *(percent(pairs, 0) for _, pairs in saved),
                ],
            ]
    head = ["N, capacity, what is counted"]
    yield from table(head + [f"{window * 1000:g} ms" for window in WINDOWS], rows)


def survival(clients: int, seed: int) -> Iterator[str]:
    """Yield how many get through outages with a policy that gives up."""
    rows = []
    for jitter, attempts in (
        (None, 6), ("plusminus", 6), ("equal", 6), ("decorrelated", 6),
        ("full", 6), ("full", 8), ("full", 10), ("full", 12),
    ):  # fmt: skip
        policy = RetryPolicy(jitter=jitter, attempts=attempts)
        shares = []
        for seconds in LENGTHS:
            one = Outage(clients=clients, seconds=seconds)
            played = simulate(policy, one, f"survival/{seed}")
            shares.append(percent(1 - played.gave_up / clients, 1))
        rows.append([f"{jitter or 'none'}, `attempts={attempts}`", *shares])
    yield from table(["policy", *(f"{seconds:g} s" for seconds in LENGTHS)], rows)


def contention(results: Contentions) -> Iterator[str]:
    """Yield calls and time of the contention, by jitter and number of clients."""
    names = list(dict.fromkeys(name for name, _ in results))
    numbers = sorted({number for _, number in results})
    yield from table(
        ["jitter", *(f"N={number}" for number in numbers)],
        (
            [
                name,
                *(
                    f"{results[name, number].calls:.0f} in "
                    f"{results[name, number].seconds:.1f} s"
                    for number in numbers
                ),
            ]
            for name in names
        ),
    )
