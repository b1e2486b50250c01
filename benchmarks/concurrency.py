"""Many streams in one process: lateness, memory, and how many are too many.

Each stream gets 50 tokens a second from a server that is a process of its own. A
thread reads each, or, with AsyncOpenAI, one event loop all. The reading process and the
server have a core each, as a worker that is kept on its core; or the system moves them
about (``--cores shared``). Differences within one run count.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from _crowd_server import cores
from throughput import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
READERS = {
    "raw": ("raw socket, a thread each", None),
    "openai": ("openai-python, a thread each", "openai"),
    "openai_async": ("AsyncOpenAI, one event loop", "openai"),
    "holystream": ("holystream, a thread each", None),
}
OURS = "holystream"
RATE = 50
"""Tokens a second in each stream."""
SIZES = (25, 50, 75, 100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700, 800, 1000)
"""Among these the largest number is searched for."""
LATE = 100.0
"""Milliseconds that 99 of 100 tokens stay under, while the streams are not too many."""
SERVER_LATE = 20.0
"""Milliseconds from which on the server is too late itself to tell anything."""
MOST, KILOBYTES = 500, 60.0
"""Targets: streams with that lateness, and memory of one that is open."""
Cores: TypeAlias = tuple[int | None, int | None]
"""Which one the readers are kept on, and the server."""
PATIENCE = 600.0
"""Seconds in which a crowd has been read, or its reader is given up."""
LONG_EVENTS = 1_000_000
PER_BYTE, ROOM = 2, 2_000_000
"""Targets: how memory grows with a long text, in bytes."""


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    readers = []
    for name in options.readers:
        label, needs = READERS[name]
        if needs is None or importlib.util.find_spec(needs):
            readers.append(name)
        else:
            print(f"left out {label}: no module {needs}; pip install -e '.[bench]'")
    load = os.getloadavg()[0]
    print(
        f"{os.cpu_count()} cores, load {load:.1f} before, "
        f"Python {platform.python_version()}"
    )
    kept = _cores(options.cores)
    print(
        "Readers and server share the cores."
        if kept[0] is None
        else f"The readers have core {kept[0]}, the server has core {kept[1]}."
    )
    seconds = min(options.seconds, 5.0)
    failed = [
        *_crowds(readers, options.streams, options.seconds, kept),
        *(_most(readers, seconds, kept) if options.search else []),
        *_long(options.events),
    ]
    return 1 if failed and options.check else 0


def _crowds(
    readers: list[str], sizes: list[int], seconds: float, kept: Cores
) -> list[str]:
    """Print the table of these numbers of streams; return what does not hold."""
    print(f"\n### {RATE} tokens a second for {seconds:g} s: lateness in ms\n")
    print(
        "| streams | reader | complete | p50 | p99 | worst | KB per stream, open "
        "| most | CPU us/token | server's p99 |"
    )
    print(f"|---:|---|{'---:|' * 8}")
    failed = []
    for size in sizes:
        for name in readers:
            found = measure(name, size, seconds, kept)
            print(
                f"| {size} | {READERS[name][0]} | {found['complete']} | "
                f"{found['p50']:.1f} | {found['p99']:.1f} | {found['worst']:.0f} | "
                f"{found['open']:.0f} | {found['peak']:.0f} | {found['cpu']:.0f} | "
                f"{found['server']:.1f}{_doubt(found)} |",
                flush=True,
            )
            if name == OURS and found["complete"] < size:
                failed.append(f"{found['complete']} of {size} streams are complete")
            if name == OURS and found["open"] > KILOBYTES:
                failed.append(f"{size} streams: {found['open']:.0f} KB for each")
    _say(failed, f"all complete, at most {KILOBYTES:g} KB per open stream and thread")
    return failed


def _most(readers: list[str], seconds: float, kept: Cores) -> list[str]:
    """Print how many streams each reader can take; return what does not hold."""
    print(f"\n### The most streams with a p99 under {LATE:g} ms\n")
    print("| reader | streams | p99, ms | one size more | p99, ms |")
    print("|---|---:|---:|---:|---:|")
    failed = []
    for name in readers:
        seen: dict[int, dict] = {}
        low, high = -1, len(SIZES)
        while high - low > 1:
            middle = (low + high) // 2
            seen[middle] = measure(name, SIZES[middle], seconds, kept)
            if seen[middle]["p99"] < LATE:
                low = middle
            else:
                high = middle
        cells = [
            f"{SIZES[at]} | {seen[at]['p99']:.1f}{_doubt(seen[at])}"
            if at in seen
            else "- | -"
            for at in (low, high)
        ]
        print(f"| {READERS[name][0]} | {' | '.join(cells)} |", flush=True)
        if name == OURS and (low < 0 or SIZES[low] < MOST):
            failed.append(f"{SIZES[low] if low >= 0 else 0} streams")
    _say(failed, f"at least {MOST} streams, a thread each")
    return failed


def _long(events: int) -> list[str]:
    """Print how memory grows with a long text; return what does not hold."""
    with _server("_paced.py", None) as (port, _):
        found = _child(None, "long", port, events)
    mega = {name: size / 1e6 for name, size in found.items()}
    limit = (PER_BYTE * found["text"] + ROOM) / 1e6
    print(f"\n### Memory of one stream of {events} tokens, read to its end\n")
    print(
        f"The text has {mega['text']:.1f} MB, the process grew by {mega['grown']:.1f}."
    )
    failed = [f"{mega['grown']:.1f} MB"] if mega["grown"] > limit else []
    _say(failed, f"at most twice the text and 2 MB, {limit:.1f} MB")
    return failed


def measure(name: str, streams: int, seconds: float, kept: Cores) -> dict:
    """Let one reader read a crowd, in a process and of a server of its own.

    One that is given up is late without end.
    """
    with _server("_crowd_server.py", kept[1]) as (port, said):
        events = round(RATE * seconds)
        try:
            found = _child(kept[0], name, port, streams, events, 1_000_000 // RATE)
        except subprocess.TimeoutExpired:
            late = dict.fromkeys(("p50", "p99", "worst"), math.inf)
            unknown = dict.fromkeys(("open", "peak", "cpu", "server"), math.nan)
            return {"complete": 0} | late | unknown
    return {**found, "server": said["p99"]}


@contextlib.contextmanager
def _server(program: str, core: int | None) -> Iterator[tuple[int, dict]]:
    """Run a server; what it says in the end is filled in then."""
    said: dict = {}
    with subprocess.Popen(
        [sys.executable, str(HERE / program)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(core),
        text=True,
    ) as process:
        try:
            yield int(process.stdout.readline()), said
            rest, _ = process.communicate(timeout=30)
            said.update(json.loads(rest or "{}"))
        finally:
            process.kill()


def _child(core: int | None, *arguments: object) -> dict:
    child = subprocess.run(
        [sys.executable, str(HERE / "_crowd_readers.py"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        env=_environment(core),
        check=True,
        text=True,
        timeout=PATIENCE,
    )
    return json.loads(child.stdout)


def _environment(core: int | None) -> dict[str, str]:
    return environment() | ({} if core is None else {"BENCH_CORE": str(core)})


def _cores(wanted: str) -> Cores:
    """Return the core of the readers and that of the server, if they have their own."""
    found = cores()
    if wanted == "own" and len(found) > 1:
        return found[0], found[-1]
    return None, None


def _doubt(found: dict) -> str:
    return " (!)" if found["server"] > SERVER_LATE else ""


def _say(failed: list[str], target: str) -> None:
    print(f"\nTarget: {target}: {'does not hold' if failed else 'holds'}")
    for line in failed:
        print(f"- {line}")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", help="how many at once: 500,1000")
    parser.add_argument("--seconds", type=float, help="that they last: 10")
    parser.add_argument(
        "--readers", default=",".join(READERS), help=f"some of {', '.join(READERS)}"
    )
    parser.add_argument(
        "--cores",
        choices=("own", "shared"),
        default="own",
        help="a core for the readers and one for the server, or all for both",
    )
    parser.add_argument(
        "--search",
        action=argparse.BooleanOptionalAction,
        help=f"look for the most that have a p99 under {LATE:g} ms",
    )
    parser.add_argument(
        "--quick", action="store_true", help="100 streams, 2 s, no search: a rough look"
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if a target does not hold"
    )
    options = parser.parse_args(arguments)
    quick = options.quick
    streams = options.streams or ("100" if quick else "500,1000")
    options.streams = [int(number) for number in streams.split(",")]
    options.seconds = options.seconds or (2.0 if quick else 10.0)
    options.search = not quick if options.search is None else options.search
    options.events = LONG_EVENTS // 20 if quick else LONG_EVENTS
    options.readers = options.readers.split(",")
    if unknown := set(options.readers) - set(READERS):
        parser.error(f"no such reader: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    sys.exit(main())
