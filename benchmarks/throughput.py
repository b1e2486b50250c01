"""CPU per token of streaming over loopback: holystream, its floor and its peers.

What is measured is the CPU of the reading process, in microseconds for each token of an
OpenAI chat completion: a raw socket with a typed decode (the floor), requests with
``iter_lines`` and ``json``, httpx with httpx-sse, openai-python, and holystream. The
server is a process of its own that sends ready-made bytes. Each measurement runs in a
fresh process after a warm-up, the readers take turns, and each one's text is checked.
Absolute numbers are the machine's; the ratios are what counts.

Exit status: 1 if a reader's text is wrong; with ``--check`` also if a target is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import _answer

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


class Reader(NamedTuple):
    """A row of the table."""

    name: str
    label: str
    needs: tuple[str, ...]
    streams: int
    """Answers in one measurement."""
    share: float
    """Of the events; a slow reader needs fewer to be measured as well."""


READERS = (
    Reader("floor", "raw socket + split + typed decode", (), 4, 1),
    Reader("naive", "requests + iter_lines + json", (), 1, 1),
    Reader("httpx-sse", "httpx + httpx-sse + json", ("httpx", "httpx_sse"), 1, 0.4),
    Reader("openai", "openai-python", ("openai",), 1, 0.2),
    Reader("text_stream", "holystream, text_stream", (), 4, 1),
    Reader("events", "holystream, events", (), 4, 1),
)


class Target(NamedTuple):
    """At most ``limit`` times the CPU of ``peer``."""

    framing: str
    peer: str
    limit: float


TARGETS = (
    Target(_answer.CHUNKED, "floor", 2),
    Target(_answer.CHUNKED, "naive", 0.6),
    Target(_answer.CHUNKED, "openai", 1 / 25),
    Target(_answer.CLOSE, "naive", 0.4),
)
OURS = "text_stream"
PEERS = ("floor", "naive", "openai")
PACKAGES = ("holystream", "requests", "urllib3", "msgspec", "httpx", "httpx-sse",
            "openai")  # fmt: skip


class Result(NamedTuple):
    """All measurements of one reader in one framing, in us per token."""

    cpu: list[float]
    user: list[float]
    right: bool

    @property
    def median(self) -> float:
        """The median of the CPU."""
        return statistics.median(self.cpu)

    @property
    def least(self) -> float:
        """The least CPU of any round."""
        return min(self.cpu)


Results = dict[tuple[str, str], Result]


def environment() -> dict[str, str]:
    """Return the environment of the children: no proxy, no coverage, no key."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy")
        and not name.startswith(("COV_", "COVERAGE_", "OPENAI_", "HOLYS"))
    }


@contextlib.contextmanager
def server() -> Iterator[tuple[int, dict[str, float]]]:
    """Run the server; what sending cost it is filled in at the end."""
    cost: dict[str, float] = {}
    with subprocess.Popen(
        [sys.executable, str(HERE / "_server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    ) as process:
        try:
            yield int(process.stdout.readline()), cost
            said, _ = process.communicate(timeout=30)
            cost.update(json.loads(said))
        finally:
            process.kill()


def measure(reader: Reader, port: int, framing: str, events: int) -> dict:
    """Measure one reader once, in a process of its own."""
    child = subprocess.run(
        [
            sys.executable,
            str(HERE / "_readers.py"),
            reader.name,
            f"http://127.0.0.1:{port}/{framing}",
            str(max(1, round(events * reader.share))),
            str(reader.streams),
        ],
        stdout=subprocess.PIPE,
        env=environment(),
        check=True,
        text=True,
        timeout=600,
    )
    return json.loads(child.stdout)


def run(readers: list[Reader], port: int, *, events: int, rounds: int) -> Results:
    """Measure all readers in all framings, in turn, ``rounds`` times."""
    results: Results = {}
    for turn in range(rounds):
        for framing in _answer.FRAMINGS:
            for reader in readers:
                note(f"round {turn + 1} of {rounds}: {framing}, {reader.name}")
                sample = measure(reader, port, framing, events)
                key = (framing, reader.name)
                old = results.get(key, Result([], [], right=True))
                results[key] = Result(
                    [*old.cpu, sample["cpu"]],
                    [*old.user, sample["user"]],
                    old.right and sample["right"],
                )
    note("")
    return results


def note(text: str) -> None:
    """Show what is being done, where someone watches."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def ratio(results: Results, framing: str, peer: str, name: str = OURS) -> float | None:
    """Return the CPU of a reader over that of a peer, by medians."""
    ours, theirs = results.get((framing, name)), results.get((framing, peer))
    return ours.median / theirs.median if ours and theirs else None


def verdicts(results: Results) -> list[dict]:
    """Say of each target whether it holds; None where it was not measured."""
    return [
        {
            "framing": target.framing,
            "peer": target.peer,
            "limit": target.limit,
            "ratio": (reached := ratio(results, target.framing, target.peer)),
            "holds": None if reached is None else reached <= target.limit,
        }
        for target in TARGETS
    ]


def tables(results: Results, readers: list[Reader]) -> Iterator[str]:
    """Yield the lines of the report: a table for each framing, and the targets."""
    for framing, description in _answer.FRAMINGS.items():
        yield f"### {description}"
        yield ""
        yield (
            "| reader | CPU us/token, median | least | user alone | "
            "x floor | x naive | x openai-python |"
        )
        yield "|---|---:|---:|---:|---:|---:|---:|"
        for reader in readers:
            result = results[framing, reader.name]
            cells = [
                reader.label + ("" if result.right else " (WRONG TEXT)"),
                f"{result.median:.2f}",
                f"{result.least:.2f}",
                f"{statistics.median(result.user):.2f}",
                *(_cell(ratio(results, framing, peer, reader.name)) for peer in PEERS),
            ]
            yield f"| {' | '.join(cells)} |"
        yield ""
    yield f"| target for holystream, {OURS} | reached | |"
    yield "|---|---:|---|"
    for verdict in verdicts(results):
        answer = {True: "holds", False: "does not hold", None: "not measured"}
        yield (
            f"| at most {verdict['limit']:.2f} x {verdict['peer']}, "
            f"{verdict['framing']} | {_cell(verdict['ratio'])} | "
            f"{answer[verdict['holds']]} |"
        )
    yield ""


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def versions() -> dict[str, str]:
    """Return the versions of everything that is compared."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def missing(reader: Reader) -> list[str]:
    """Return the modules that a reader needs and that are not installed."""
    return [name for name in reader.needs if importlib.util.find_spec(name) is None]


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--events", type=int, help="tokens in an answer, 50000 by default"
    )
    parser.add_argument(
        "--rounds", type=int, help="measurements of each reader, 7 by default"
    )
    parser.add_argument(
        "--readers", help=f"some of {', '.join(reader.name for reader in READERS)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="10000 tokens, 3 rounds: a rough look"
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if a target does not hold"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    chosen = parser.parse_args(arguments)
    events, rounds = (10_000, 3) if chosen.quick else (50_000, 7)
    chosen.events = chosen.events or events
    chosen.rounds = chosen.rounds or rounds
    names = [reader.name for reader in READERS]
    chosen.readers = chosen.readers.split(",") if chosen.readers else names
    if unknown := set(chosen.readers) - set(names):
        parser.error(f"no such reader: {', '.join(sorted(unknown))}")
    return chosen


def main(arguments: list[str] | None = None) -> int:
    chosen = options(arguments)
    readers = [reader for reader in READERS if reader.name in chosen.readers]
    for reader in list(readers):
        if absent := missing(reader):
            print(f"left out {reader.label}: no module {', '.join(absent)}; ")
            print("    pip install -e '.[bench]'")
            readers.remove(reader)
    with server() as (port, cost):
        results = run(readers, port, events=chosen.events, rounds=chosen.rounds)
    per_event = cost["seconds"] / cost["events"] * 1e6
    size = len(_answer.body(_answer.CLOSE, 1000)) / 1000
    print(
        f"{chosen.events} events of {size:.0f} bytes, {chosen.rounds} rounds; "
        f"sending cost the server {per_event:.2f} us of CPU per event"
    )
    print(", ".join(f"{name} {version}" for name, version in versions().items()))
    print()
    for line in tables(results, readers):
        print(line)
    if chosen.json:
        chosen.json.write_text(
            json.dumps(
                {
                    "events": chosen.events,
                    "rounds": chosen.rounds,
                    "versions": versions(),
                    "server_us_per_event": per_event,
                    "results": [
                        {"framing": framing, "reader": name, **result._asdict()}
                        for (framing, name), result in results.items()
                    ],
                    "targets": verdicts(results),
                },
                indent=2,
            )
            + "\n"
        )
    wrong = [key for key, result in results.items() if not result.right]
    for framing, name in wrong:
        print(f"{name} got a wrong text ({framing})", file=sys.stderr)
    missed = chosen.check and not all(v["holds"] for v in verdicts(results))
    return 1 if wrong or missed else 0


if __name__ == "__main__":
    sys.exit(main())
