"""What a journal costs: how long a commit takes, and the CPU that a token takes.

Commits: threads that append one token fifty times a second each, one thread, 64, and
two processes of 128, into one SQLite journal; how long `append` takes, and what share
of a core that is. CPU: one thread that appends as fast as it goes, one token or 250 at
a time, into no journal, into memory, and into SQLite. Each measurement is a process of
its own.

Exit status: with ``--check`` 1 if the target is missed.
"""

from __future__ import annotations

import argparse
import json
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
WRITERS = ((1, 1), (1, 64), (2, 128))
"""Processes, and threads of each."""
RATE = 50
KINDS = {
    "none": "no journal",
    "memory": "memory",
    "sqlite": "SQLite",
    "power": 'SQLite, durability="power"',
}
BATCHES = {1: 20_000, 250: 1_000_000}
"""Tokens that are appended at once, and how many in all."""
WHOLE = {"rounds": 5, "seconds": 10.0, "share": 1.0}
QUICK = {"rounds": 1, "seconds": 2.0, "share": 0.1}
MOST = 0.9
"""Us of CPU that a token may take in batches of 250: half of what reading it takes."""


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}")
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        _commits(Path(folder), options.seconds)
        missed = _cpu(Path(folder), options.rounds, options.share)
    return 1 if missed and options.check else 0


def _commits(folder: Path, seconds: float) -> None:
    print(f"\n### One token per commit, {RATE} times a second per thread\n")
    print(
        "| processes x threads | commits/s | p50 us | p99 us | worst ms | CPU cores |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for processes, threads in WRITERS:
        path = folder / f"{processes}x{threads}.db"
        command = ("paced", str(path), str(threads), str(RATE), str(seconds))
        results = _run([command] * processes)
        found = [1e6 * each for result in results for each in result["latencies"]]
        marks = statistics.quantiles(found, n=100)
        wall = max(result["wall"] for result in results)
        cores = sum(result["cpu"] for result in results) / wall
        print(
            f"| {processes} x {threads} | {len(found) / wall:.0f} | {marks[49]:.0f} | "
            f"{marks[98]:.0f} | {max(found) / 1000:.1f} | {cores:.2f} |"
        )


def _cpu(folder: Path, rounds: int, share: float) -> bool:
    print("\n### As fast as it goes: CPU us per token, median of the rounds\n")
    print(f"| journal | {' | '.join(f'{batch} at a time' for batch in BATCHES)} |")
    print(f"|---|{'---:|' * len(BATCHES)}")
    samples: dict[tuple[str, int], list[float]] = {}
    for turn in range(rounds):
        for kind in KINDS:
            for batch, tokens in BATCHES.items():
                path = folder / f"{kind}-{batch}-{turn}.db"
                some = int(tokens * share) // batch * batch
                (result,) = _run([("flat", kind, str(path), str(batch), str(some))])
                samples.setdefault((kind, batch), []).append(result["cpu"])
    marks = {key: statistics.median(values) for key, values in samples.items()}
    for kind, label in KINDS.items():
        cells = [f"{marks[kind, batch]:.2f}" for batch in BATCHES]
        print(f"| {label} | {' | '.join(cells)} |")
    most = max(BATCHES)
    costs = marks["sqlite", most] - marks["none", most]
    verdict = "holds" if costs <= MOST else "does not hold"
    print(
        f"\nTarget: at most {MOST} us of CPU per token over no journal, {most} at a "
        f"time: {costs:.2f}, {verdict}"
    )
    return costs > MOST


def _run(commands: list[tuple[str, ...]]) -> list[dict]:
    """Start processes, let them begin together, and return what they measured."""
    children = [
        subprocess.Popen(
            [sys.executable, str(HERE / "_journal_writers.py"), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    for child in children:
        child.stdout.readline()
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    results = [json.loads(child.communicate(timeout=600)[0]) for child in children]
    if any(child.returncode for child in children):
        raise SystemExit("a writer failed")
    return results


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, help="measurements of each: 5")
    parser.add_argument("--seconds", type=float, help="of paced writing: 10")
    parser.add_argument("--share", type=float, help="of the tokens: 1")
    parser.add_argument("--folder", help="where the journals are made")
    parser.add_argument("--quick", action="store_true", help="a rough look")
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if the target does not hold"
    )
    options = parser.parse_args(arguments)
    defaults = QUICK if options.quick else WHOLE
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


if __name__ == "__main__":
    sys.exit(main())
