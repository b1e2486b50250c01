"""Whether a text is the right one when connections break, and what it costs.

Every connection, a resumed one too, is cut with p = 0.3 at a random byte of the body
that it would have sent (``--at event``: where one of its events begins). Each client
then has the exact text, or a wrong one that it takes for the whole answer, or an error.
All draws are seeded: the first connection of a stream is cut in the same place for all
clients that meet the same body.

Exact means: the text is, to the last character, one that the server generated for this
question from its start, in one generation. At temperature 0 there is only one such
text; else each request brings another, and a text made of parts of two is not exact.

Exit status: with ``--check`` 1 if a text of holystream's is wrong and passed as whole,
or if one of cursor, greedy prefill or replay is not exact.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import _askers
import _cutting
from _tally import (
    ERROR,
    EXACT,
    LABELLED,
    MIXED,
    SHORT,
    WRONG,
    Tally,
    judge,
    judge_error,
    percent,
    total,
)

from holystream.simulator import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SEED = 20
SHARE = 0.3
COMPATIBLE = "openai-compatible"


class Row(NamedTuple):
    """A client, and the server that it meets."""

    name: str
    label: str
    make: Callable[[str], _askers.Ask]
    script: Script = Script()
    ours: bool = False
    exact: bool = False
    """Every text has to be exact."""
    needs: str = "requests"


def _ours(name: str, label: str, script: Script, *, exact: bool, **how: object) -> Row:
    make = functools.partial(_askers.ours, **how)
    return Row(name, f"holystream, {label}", make, script, ours=True, exact=exact)


ROWS = (
    _ours(
        "cursor", "cursor: SSE ids", Script(ids="named"), exact=True,
        provider=COMPATIBLE, resume=("cursor",),
    ),
    _ours(
        "llama-server", "cursor: llama-server's bytes", Script(), exact=True,
        provider="llama.cpp", resume=("cursor",),
    ),
    _ours(
        "prefill", "prefill, greedy", Script(prefill="continue", tokens=True),
        exact=True, provider="vllm", resume=("prefill",), temperature=0,
    ),
    _ours(
        "replay", "replay, greedy", Script(), exact=True,
        provider=COMPATIBLE, resume=("replay",), temperature=0,
    ),
    _ours(
        "restart", "restart", Script(), exact=False,
        provider=COMPATIBLE, resume=("restart",),
    ),
    _ours(
        "stitch", "stitch", Script(stitch="continue", overlap=40), exact=False,
        provider=COMPATIBLE, resume=("stitch",),
    ),
    _ours(
        "stitch-chatty", "stitch, and the model adds a preamble",
        Script(stitch="continue", preamble="Sure, I will go on: "), exact=False,
        provider=COMPATIBLE, resume=("stitch",),
    ),
    _ours("none", "no way to resume", Script(), exact=False,
          provider=COMPATIBLE, resume=()),
    Row("append", "requests + iter_lines, retry and append",
        functools.partial(_askers.naive, keeps=True)),
    Row("anew", "requests + iter_lines, retry and begin anew",
        functools.partial(_askers.naive, keeps=False)),
    Row("openai", "openai-python, its own retries", _askers.openai, needs="openai"),
)  # fmt: skip

CLAIMED_WITH, CLAIMED_WITHOUT = 99.2, 87.4
"""Percent of streams that complete, by articles about the HolySheep gateway."""
NEAR = 1.0
"""Points by which a share may differ from the second claim that is said to hold."""

Results = dict[tuple[str, _cutting.Mode], Tally]


def measure(
    row: Row, mode: _cutting.Mode, *, streams: int, share: float, at: str, seed: int
) -> Tally:
    """Return what became of so many streams."""
    tally = Tally()
    with _cutting.CuttingServer(
        row.script, mode, share=share, at=at, seed=seed
    ) as server:
        ask = row.make(server.base_url)
        for number in range(streams):
            account = server.begin(number)
            answer = None
            try:
                answer = ask(f"How does stream {number} arrive?")
            except Exception as error:  # noqa: BLE001 - that of a client is counted
                kind = judge_error(error, account)
            else:
                kind = judge(answer, account)
            tally.enter(kind, account, answer)
    return tally


def _prepare() -> None:
    """Let nothing of the environment come between the clients and the server."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("OPENAI_", "HOLYS")):
            del os.environ[name]


def run(
    rows: Iterable[Row], *, streams: int, share: float, at: str, seed: int, jobs: int
) -> Results:
    """Measure all rows in all modes."""
    tasks = [(row, mode) for row in rows for mode in _cutting.MODES]
    one = functools.partial(measure, streams=streams, share=share, at=at, seed=seed)
    if jobs == 1:
        _prepare()
        return {(row.name, mode): one(row, mode) for row, mode in tasks}
    with concurrent.futures.ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), _prepare
    ) as pool:
        waiting = {pool.submit(one, row, mode): (row.name, mode) for row, mode in tasks}
        for done, _ in enumerate(concurrent.futures.as_completed(waiting), 1):
            if sys.stderr.isatty():
                print(f"\r{done} of {len(tasks)}", end="\r", file=sys.stderr)
        return {key: future.result() for future, key in waiting.items()}


def failures(row: Row, mode: _cutting.Mode, tally: Tally) -> Iterator[str]:
    """Yield what holystream promises and this row did not keep."""
    where = f"{row.label} ({mode.label})"
    if row.ours and (wrong := sum(tally.kinds[kind] for kind in WRONG)):
        yield f"{where}: {wrong} of {tally.streams} texts or errors are wrong"
    if row.exact and tally.kinds[EXACT] != tally.streams:
        yield f"{where}: {tally.kinds[EXACT]} of {tally.streams} texts are exact"
    if not tally.cuts:
        yield f"{where}: nothing was cut"


def texts(rows: list[Row], results: Results) -> Iterator[str]:
    """Yield the table of what became of the texts, mode by mode."""
    yield "### Texts, in %: exact / wrong and passed as whole / error"
    yield ""
    yield f"| client | {' | '.join(mode.label for mode in _cutting.MODES)} |"
    yield f"|---|{'---:|' * len(_cutting.MODES)}"
    for row in rows:
        cells = [row.label]
        for mode in _cutting.MODES:
            tally = results[row.name, mode]
            shares = (tally.share(EXACT), tally.share(*WRONG), tally.share(ERROR))
            cells.append(" / ".join(map(percent, shares)))
        yield f"| {' | '.join(cells)} |"
    yield ""


def kinds(rows: list[Row], sums: dict[str, Tally]) -> Iterator[str]:
    """Yield the table of what became of the texts, over all modes."""
    yield "### All modes together, in %"
    yield ""
    yield (
        "| client | exact | short | doubled or spliced | inexact, and says so | "
        "error | attempts |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        tally = sums[row.name]
        shares = [
            percent(tally.share(kind))
            for kind in (EXACT, SHORT, MIXED, LABELLED, ERROR)
        ]
        attempts = f"{tally.per_stream('connections'):.2f}"
        yield f"| {' | '.join((row.label, *shares, attempts))} |"
    yield ""


def costs(rows: list[Row], sums: dict[str, Tally]) -> Iterator[str]:
    """Yield the table of tokens, over all modes."""
    yield "### Tokens per stream, as the server counted them"
    yield ""
    yield (
        "| client | prompt | generated | x one whole answer | wasted: server / "
        "holystream | saved: server / holystream |"
    )
    yield "|---|---:|---:|---:|---:|---:|"
    for row in rows:
        tally = sums[row.name]
        paid = tally.prompt_tokens + tally.generated_tokens
        cells = [
            row.label,
            f"{tally.per_stream('prompt_tokens'):.0f}",
            f"{tally.per_stream('generated_tokens'):.0f}",
            f"{paid / max(tally.unbroken_tokens, 1):.2f}",
            *(_both(tally, what) for what in ("wasted", "saved")),
        ]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _both(tally: Tally, what: str) -> str:
    if not tally.said:
        return "-"
    pair = (getattr(tally, f"{who}_{what}") / tally.said for who in ("server", "said"))
    return " / ".join(f"{value:.1f}" for value in pair)


def claims(rows: list[Row], sums: dict[str, Tally]) -> Iterator[str]:
    """Yield the sources' claims beside what was measured."""
    yield (
        "| claim: share of streams that complete | compared with: exact texts, all "
        "modes | % | at least, at 95 % | |"
    )
    yield "|---|---|---:|---:|---|"
    for row in rows:
        tally = sums[row.name]
        reached = tally.share(EXACT)
        if row.exact:
            claim, holds = f"{CLAIMED_WITH} % with resuming", reached >= CLAIMED_WITH
        elif row.name == "none" or not row.ours:
            claim = f"{CLAIMED_WITHOUT} % without"
            holds = abs(reached - CLAIMED_WITHOUT) <= NEAR
        else:
            continue
        least = f"{100 - 300 / tally.streams:.2f}" if reached == 100 else "-"
        yield (
            f"| {claim} | {row.label}, N = {tally.streams} | {percent(reached)} | "
            f"{least} | {'holds' if holds else 'does not hold'} |"
        )
    yield ""


def options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--streams", type=int, help="streams of each client in each mode, 300"
    )
    parser.add_argument("--seed", type=int, default=SEED, help=f"of all draws, {SEED}")
    parser.add_argument(
        "--share", type=float, default=SHARE, help=f"of connections cut, {SHARE}"
    )
    parser.add_argument(
        "--at", choices=("byte", "event"), default="byte", help="where, byte"
    )
    names = [row.name for row in ROWS]
    parser.add_argument("--clients", help=f"some of {', '.join(names)}")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--quick", action="store_true", help="30 streams: a rough look")
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if a promise is not kept"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    chosen = parser.parse_args(arguments)
    chosen.streams = chosen.streams or (30 if chosen.quick else 300)
    chosen.clients = chosen.clients.split(",") if chosen.clients else names
    if unknown := set(chosen.clients) - set(names):
        parser.error(f"no such client: {', '.join(sorted(unknown))}")
    return chosen


def main(arguments: list[str] | None = None) -> int:
    chosen = options(arguments)
    rows = [row for row in ROWS if row.name in chosen.clients]
    for row in list(rows):
        if importlib.util.find_spec(row.needs) is None:
            print(f"left out {row.label}: no module {row.needs}; ")
            print("    pip install -e '.[bench]'")
            rows.remove(row)
    begun = time.monotonic()
    results = run(
        rows,
        streams=chosen.streams,
        share=chosen.share,
        at=chosen.at,
        seed=chosen.seed,
        jobs=chosen.jobs,
    )
    sums = {
        row.name: total(results[row.name, mode] for mode in _cutting.MODES)
        for row in rows
    }
    everything = total(sums.values())
    print(
        f"{chosen.streams} streams of each client in each of {len(_cutting.MODES)} "
        f"modes, every connection cut with p = {chosen.share:g} at a "
        f"random {chosen.at}, seed {chosen.seed}: "
        f"{everything.cuts} of {everything.connections} connections were cut; "
        f"{time.monotonic() - begun:.0f} s"
    )
    print(", ".join(f"{name} {version}" for name, version in _versions()))
    print()
    for lines in (
        texts(rows, results),
        kinds(rows, sums),
        costs(rows, sums),
        claims(rows, sums),
    ):
        for line in lines:
            print(line)
    failed = [
        line
        for row in rows
        for mode in _cutting.MODES
        for line in failures(row, mode, results[row.name, mode])
    ]
    for line in failed:
        print(line, file=sys.stderr)
    if chosen.json:
        _write(chosen, results)
    return 1 if failed and chosen.check else 0


def _versions() -> Iterator[tuple[str, str]]:
    for package in ("holystream", "requests", "urllib3", "openai", "httpx"):
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue


def _write(chosen: argparse.Namespace, results: Results) -> None:
    numbers = {
        "streams": chosen.streams,
        "share": chosen.share,
        "at": chosen.at,
        "seed": chosen.seed,
        "results": [
            {"client": name, "framing": mode.framing, "cut": mode.cut} | tally.record()
            for (name, mode), tally in results.items()
        ],
    }
    chosen.json.write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
