"""The fault matrix: all runs at once, and the document that says how they ended.

    .venv/bin/python tests/peers/fault_matrix.py --write

writes docs/faults.md anew, and without ``--write`` prints it.
"""

from __future__ import annotations

import argparse
import itertools
import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Self

from fault_list import FAULTS, SHORT, Fault
from fault_runs import HUNG, openai, run_holystream, run_openai

DOCUMENT = Path(__file__).parents[2] / "docs" / "faults.md"

Place = tuple[str, str]
"""The name of a fault, and a framing."""


class Row(NamedTuple):
    """What three runs of holystream showed.

    Attributes:
        once: The first request meets the fault; temperature 0.
        sampled: The same, with another text each time.
        always: Every request meets it; temperature 0.
    """

    once: str
    sampled: str
    always: str


class Matrix:
    """Runs everything at once; `row` and `openai` wait for what they return."""

    def __init__(self, faults: tuple[Fault, ...] = FAULTS) -> None:
        self._pools = [ThreadPoolExecutor(count) for count in (32, 3, 12)]
        waiting, working, theirs = self._pools
        self._rows: dict[Place, list[Future[str]]] = {}
        self._theirs: dict[Place, Future[str]] = {}
        self._http = openai and openai.DefaultHttpxClient(trust_env=False)
        for fault in faults:
            ours = waiting if fault.waits else working
            other = waiting if fault.waits else theirs
            for framing in fault.framings:
                place = fault.name, framing
                self._rows[place] = [
                    ours.submit(run_holystream, fault, framing, **how)
                    for how in (
                        {"temperature": 0.0, "times": 1},
                        {"temperature": 1.0, "times": 1},
                        {"temperature": 0.0, "times": 0},
                    )
                ]
                if openai:
                    run = other.submit(run_openai, fault, framing, self._http)
                    self._theirs[place] = run

    def row(self, fault: str, framing: str) -> Row:
        """Return what holystream made of it."""
        return Row(*(future.result() for future in self._rows[fault, framing]))

    def openai(self, fault: str, framing: str) -> str | None:
        """Return what openai-python made of it; None if it is not installed."""
        return self._theirs[fault, framing].result() if openai else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)
        if self._http is not None:
            self._http.close()


HEAD = """\
# What goes wrong, and how it ends

Made by `tests/peers/fault_matrix.py --write`; `tests/peers/test_fault_matrix.py` proves
holystream's columns against the simulator, in all framings of HTTP: an HTTP chunk for
each event (chunked), one chunk for the whole body (one-chunk), a body that the end of
the connection ends (close), a body with a Content-Length (length).

- **temperature 0**: the first request meets the fault, the next ones do not. The answer
  can be asked for again and compared: `resume=("replay",)`.
- **sampled**: the same, but the model gives another text each time. What was delivered
  cannot be continued without splicing two answers, so a typed error keeps it; where
  nothing was delivered yet, asking again is invisible.
- **at every request**: as the first, but the fault never ends. Three attempts.
- **openai-python**: {version}, `stream=True` at temperature 0 with its two retries; the
  first request meets the fault.

A cell says how it ended and, in brackets, how many requests the server got.

- *exact* is the server's text, whole; after it stands the guarantee, unless one
  connection brought it all.
- *prefix* is a true prefix of the answer, to the last event that arrived whole, in the
  error's `partial_text`. The phase tells how far the attempt got, and
  `StreamInterrupted: X` has X as its cause.
- Clocks that had to run out were {seconds:g} s, and so was openai-python's `timeout`;
  *waits beyond its timeout* was ended after {hung:g} s.
- openai-python's text counts as *exact* where all of it happened to have arrived,
  whether or not anything proved that it was all.

{summary}
"""

COLUMNS = """\

## {kind}

| fault | framing | temperature 0 | sampled | at every request | openai-python |
|---|---|---|---|---|---|
"""


def render(matrix: Matrix, known: dict[Place, tuple[str, ...]]) -> str:
    """Return the document; openai-python's cells are kept where it did not run."""
    parts = []
    for kind, faults in itertools.groupby(FAULTS, key=lambda fault: fault.kind):
        parts.append(COLUMNS.format(kind=kind))
        for fault in faults:
            groups: dict[tuple[str, ...], list[str]] = {}
            for framing in fault.framings:
                place = fault.name, framing
                theirs = matrix.openai(*place) or known[place][3]
                cells = (*matrix.row(*place), theirs)
                groups.setdefault(cells, []).append(framing)
            for cells, framings in groups.items():
                every = len(framings) == len(fault.framings) > 1
                row = fault.name, "all" if every else ", ".join(framings), *cells
                parts.append(f"| {' | '.join(row)} |\n")
    tables = "".join(parts)
    head = HEAD.format(
        version=f"openai {openai.__version__}" if openai else _version(),
        seconds=SHORT,
        hung=HUNG,
        summary=summary(parse(tables)),
    )
    return head + tables


def parse(text: str) -> dict[Place, tuple[str, ...]]:
    """Return the cells of the document by fault and framing."""
    found = {}
    framings = {fault.name: fault.framings for fault in FAULTS}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[0] in framings:
            name, where, *rest = cells
            listed = framings[name] if where == "all" else where.split(", ")
            found |= {(name, framing): tuple(rest) for framing in listed}
    return found


def summary(rows: dict[Place, tuple[str, ...]]) -> str:
    """Return the numbers of the whole table."""

    lines = [
        f"{len(FAULTS)} faults make {len(rows)} rows with their framings:",
        "",
        "| temperature 0 | exact text | an error | short text as whole, or no end |",
        "|---|---:|---:|---:|",
    ]
    for name, column in (("holystream", 0), ("openai-python", 3)):
        cells = [row[column] for row in rows.values()]
        exact = sum(cell.startswith("exact") for cell in cells)
        bad = sum(cell.startswith("**") or "WRONG" in cell for cell in cells)
        lines.append(f"| {name} | {exact} | {len(cells) - exact - bad} | {bad} |")
    return "\n".join(lines)


def _version() -> str:
    found = re.search(r"openai \d[\w.]*", DOCUMENT.read_text(encoding="utf-8"))
    assert found is not None
    return found.group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {DOCUMENT.name}")
    options = parser.parse_args()
    before = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
    with Matrix() as everything:
        document = render(everything, parse(before))
    if options.write:
        DOCUMENT.write_text(document, encoding="utf-8")
    else:
        print(document, end="")  # noqa: T201 - a command prints
