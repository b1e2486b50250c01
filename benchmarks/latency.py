"""Lateness of a token, and time to the first one, against a raw socket and three peers.

A token is late by the time from the moment its server sends it to the moment it is in
the caller's hands. Differences within one run count, not absolute numbers.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
from pathlib import Path

import _paced

HERE = Path(__file__).parent
READERS = {
    "raw": ("raw socket + split + typed decode", ("msgspec",)),
    "naive": ("requests + iter_lines + json", ("requests",)),
    "httpx_sse": ("httpx + httpx-sse + json", ("httpx", "httpx_sse")),
    "openai": ("openai-python", ("openai",)),
    "holystream": ("holystream, text_stream", ("holystream",)),
}
PACES = {1000: 400, 20000: 60}
"""Microseconds between tokens, and tokens in a stream of that pace."""
LATER_P50, LATER_P99 = 20.0, 300.0
"""Microseconds that a token may be later than at the raw socket, by DESIGN."""
FIRST_KEPT, FIRST_FRESH = 700.0, 1000.0
"""Microseconds that the first token may be later: connection kept, client new."""


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    readers = [
        name
        for name, (_, needs) in READERS.items()
        if all(importlib.util.find_spec(module) for module in needs)
    ]
    server = subprocess.Popen(
        [sys.executable, str(HERE / "_paced.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        port = int(server.stdout.readline())
        failed = [
            *_lateness(readers, port, options.rounds),
            *_first_tokens(readers, port, options.rounds),
        ]
    finally:
        server.kill()
        server.communicate()
    return 1 if failed and options.check else 0


def _lateness(readers: list[str], port: int, rounds: int) -> list[str]:
    """Print a table for each pace; return the targets that do not hold."""
    failed = []
    for pace, events in PACES.items():
        print(f"\n### {pace / 1000:g} ms between tokens: lateness in us, p50 / p99\n")
        print(f"| reader | {' | '.join(_paced.FRAMINGS.values())} |")
        print(f"|---|{'---:|' * len(_paced.FRAMINGS)}")
        samples: dict[tuple[str, str], list[float]] = {}
        for _ in range(rounds):
            for framing in _paced.FRAMINGS:
                for name in readers:
                    url = f"http://127.0.0.1:{port}/{framing}/{pace}/{events}"
                    got = _measure(name, url, 1)["lateness"]
                    samples.setdefault((name, framing), []).extend(got)
        marks = {key: _p50_p99(values) for key, values in samples.items()}
        for name in readers:
            cells = [
                "{:.0f} / {:.0f}".format(*marks[name, framing])
                for framing in _paced.FRAMINGS
            ]
            print(f"| {READERS[name][0]} | {' | '.join(cells)} |")
        for framing in _paced.FRAMINGS:
            floor, ours = marks["raw", framing], marks["holystream", framing]
            for mark, limit, one, other in zip(
                ("p50", "p99"), (LATER_P50, LATER_P99), ours, floor, strict=True
            ):
                if one - other > limit:
                    failed.append(
                        f"{pace / 1000:g} ms, {framing}: {mark} is "
                        f"{one - other:.0f} us over the raw socket, more than {limit:g}"
                    )
    _say(failed, "p50 within 20 us and p99 within 0.3 ms of a raw socket")
    return failed


def _first_tokens(readers: list[str], port: int, rounds: int) -> list[str]:
    """Print the table of first tokens; return the targets that do not hold."""
    print("\n### From the call to the first token, in us, p50\n")
    print("| reader | kept connection | new client and connection |")
    print("|---|---:|---:|")
    marks = {}
    url = f"http://127.0.0.1:{port}/{_paced.CHUNKED}/0/5"
    for name in readers:
        samples = [_measure(name, url, 60) for _ in range(rounds)]
        kept = statistics.median(value for each in samples for value in each["first"])
        fresh = statistics.median(value for each in samples for value in each["fresh"])
        marks[name] = kept, fresh
        print(f"| {READERS[name][0]} | {kept:.0f} | {fresh:.0f} |")
    failed = [
        f"{what}: {one - other:.0f} us over a raw socket, more than {limit:g}"
        for what, limit, one, other in zip(
            ("kept connection", "new client"),
            (FIRST_KEPT, FIRST_FRESH),
            marks["holystream"],
            marks["raw"],
            strict=True,
        )
        if one - other > limit
    ]
    _say(failed, "at most 0.7 ms over a raw socket kept, 1 ms anew")
    return failed


def _measure(name: str, url: str, streams: int) -> dict:
    child = subprocess.run(
        [sys.executable, str(HERE / "_arrivals.py"), name, url, str(streams)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        timeout=300,
    )
    return json.loads(child.stdout)


def _p50_p99(values: list[float]) -> tuple[float, float]:
    marks = statistics.quantiles(values, n=100)
    return marks[49], marks[98]


def _say(failed: list[str], target: str) -> None:
    print(f"\nTarget: {target}: {'does not hold' if failed else 'holds'}")
    for line in failed:
        print(f"- {line}")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each")
    parser.add_argument(
        "--quick", dest="rounds", action="store_const", const=1, help="one round"
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if a target does not hold"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
