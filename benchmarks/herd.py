"""A herd of clients that all come back: what each jitter makes of it, by simulation.

Two models, both driven by the waits of the real `RetryPolicy` and by one seed: an
outage that every client meets in the same instant, and AWS's contention for one row.
Neither sleeps nor opens a socket: one seed gives the same numbers on every machine.
Claims that others make of jitter stand beside our numbers with "holds" or "does not
hold".

Exit status: with ``--check`` 1 if something does not hold that must, such as full
jitter having fewer collisions than none. The claims of others are only reported.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import _herd_claims
import _herd_plot
import _herd_tables
from _herd_outage import NETWORK, WINDOW
from _herd_policies import JITTERS, scenario

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 20150304
"""The day of AWS's article."""
SECTIONS = ("claims", "outage", "collisions", "attempts", "contention")
CONTENDERS = (10, 20, 50, 100)


def report(chosen: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the chosen sections."""
    seed = chosen.seed
    if "claims" in chosen.only:
        yield f"### The sources' claims (seed {seed})"
        yield ""
        yield from _herd_tables.claims("claim", _herd_claims.claims(seed))
    if "outage" in chosen.only:
        for number in chosen.clients:
            yield f"### An outage of 5 s, N={number} (seed {seed})"
            yield ""
            yield from _herd_tables.outage(number, seed)
    if "collisions" in chosen.only:
        yield f"### Collisions saved by plusminus 0.25, by window (seed {seed})"
        yield ""
        yield from _herd_tables.reduction((100, *chosen.clients), seed)
    if "attempts" in chosen.only:
        number = min(500, *chosen.clients)
        yield f"### Who gets through an outage, N={number} (seed {seed})"
        yield ""
        yield from _herd_tables.survival(number, seed)
    if "contention" in chosen.only:
        results = _herd_claims.contentions(CONTENDERS, chosen.rounds, seed)
        yield f"### Contention for one row, {chosen.rounds} rounds (seed {seed})"
        yield ""
        yield from _herd_tables.contention(results)
        found = _herd_claims.findings(results, max(CONTENDERS))
        yield from _herd_tables.claims("AWS found", found)


def broken(chosen: argparse.Namespace) -> Iterator[str]:
    """Yield what does not hold although it must, whatever the seed."""
    outage = scenario(min(chosen.clients))
    none = _herd_claims.history(None, outage, chosen.seed)
    for name, jitter in JITTERS.items():
        played = _herd_claims.history(jitter, outage, chosen.seed)
        if len(played.reconnected) != outage.clients or played.gave_up:
            yield f"{name}: not every client is back"
        if played.accepted[0] < outage.seconds:
            yield f"{name}: a client was accepted during the outage"
        if name == "none":
            continue
        for window in _herd_tables.WINDOWS:
            if played.collisions(window) >= none.collisions(window):
                yield f"{name}: no fewer collisions than without jitter ({window} s)"
        if played.peak() >= none.peak():
            yield f"{name}: no lower peak than without jitter"
        if played.calls >= none.calls or played.finished >= none.finished:
            yield f"{name}: no less work or time than without jitter"
    results = _herd_claims.contentions((max(CONTENDERS),), 1, chosen.seed)
    calls = {name: one.calls for (name, _), one in results.items()}
    if not calls["full"] < calls["none"] < calls[_herd_claims.NO_BACKOFF]:
        yield "contention: full, none, no backoff is not the order of the calls"


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--seed", type=int, default=SEED, help=f"{SEED} by default, as in the docs"
    )
    parser.add_argument(
        "--clients", help="sizes of the herd, 1000,10000 by default", metavar="N,N"
    )
    parser.add_argument(
        "--rounds", type=int, help="rounds of the contention, 10 by default"
    )
    parser.add_argument("--only", help=f"some of {', '.join(SECTIONS)}")
    parser.add_argument(
        "--quick", action="store_true", help="1000 clients, 3 rounds: a rough look"
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if what must hold does not"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the SVG")
    chosen = parser.parse_args(arguments)
    clients, rounds = ("1000", 3) if chosen.quick else ("1000,10000", 10)
    chosen.clients = tuple(int(n) for n in (chosen.clients or clients).split(","))
    chosen.rounds = chosen.rounds or rounds
    chosen.only = chosen.only.split(",") if chosen.only else SECTIONS
    if min(chosen.clients) < 2 or chosen.rounds < 1:
        parser.error("a herd has two clients or more, and rounds are at least 1")
    if unknown := set(chosen.only) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    return chosen


def main(arguments: list[str] | None = None) -> int:
    chosen = options(arguments)
    print(
        f"seed {chosen.seed}, network {NETWORK[0] * 1000:g} ms one way "
        f"(standard deviation {NETWORK[1] * 1000:g} ms), "
        f"capacity counted in windows of {WINDOW * 1000:g} ms"
    )
    print()
    for line in report(chosen):
        print(line)
    if chosen.plot:
        histories = {
            name: _herd_claims.history(jitter, scenario(1000), chosen.seed)
            for name, jitter in JITTERS.items()
        }
        results = _herd_claims.contentions(CONTENDERS, chosen.rounds, chosen.seed)
        chosen.plot.write_text(_herd_plot.draw(histories, results, chosen.seed))
        print(f"wrote {chosen.plot}")
    faults = list(broken(chosen)) if chosen.check else []
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
