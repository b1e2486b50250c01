"""What it costs to hand a permit on, and to take one that is free; and who gets it.

A hand-off is the way from the release in one thread to the acquire in the next, while
many threads wait. All of them stand in the queue before the clock starts; the first
release sets off a chain in which each passes the permit on. Differences within one run
count, not absolute numbers.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import platform
import statistics
import sys
import threading
import time
import timeit
from pathlib import Path

from _pool_rivals import RIVALS

import holystream
from holystream import PrioritySemaphore

SIZES = (10, 100, 1000, 5000)
"""Threads that wait."""
HAND_OFF, PAIR, LEAST = 1.2, 0.8, 0.9
"""The targets: times a bare lock, microseconds, share of the mean."""
STORM = 1000
"""Waiting threads beyond which waking all of them for each hand-off takes too long."""
QUIET = 5
"""Looks in a row in which nobody of the crowd did anything: all of them sleep."""


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    threading.stack_size(256 * 1024)
    print(
        f"Python {platform.python_version()}, holystream {holystream.__version__}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} when it began\n"
    )
    few, many, hops = (5, 10, 2_000) if options.quick else (15, 150, 20_000)
    handed = {
        size: _hand_offs(size, min(many, max(few, hops // size)))
        for size in options.sizes
    }
    pair = min(_pair() for _ in range(3 if options.quick else 15))
    served = {
        name: _served(name, 0.3 if options.quick else 2.0)
        for name in ("pool", "semaphore", "notify_all")
    }
    _print_hand_offs(handed)
    _print_served(served)
    print(
        f"\nAn acquire and its release, uncontended: {pair:.2f} us, best of rounds.\n"
    )
    failed = _judge(handed, pair, served["pool"])
    if options.json:
        report = {"handed": handed, "pair": pair, "served": served}
        options.json.write_text(json.dumps(report))
    return 1 if failed and options.check else 0


def _hand_offs(size: int, rounds: int) -> dict[str, list[float]]:
    """Return the microseconds for each hand-off, of each rival in each round."""
    # The same threads for all rivals: threads that merely sleep make waking dear.
    crowd = Crowd(size)
    names = [name for name in RIVALS if name != "notify_all" or size <= STORM]
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        # Each begins as often as the others.
        names = names[1:] + names[:1]
        for name in names:
            if name == "notify_all" and size == STORM and number:
                continue
            times[name].append(crowd.play(RIVALS[name][1](size)))
    crowd.leave()
    return times


class Crowd:
    """Threads that wait for one permit, in rounds."""

    def __init__(self, size: int) -> None:
        self._rival = None
        self._size = size
        self._arrived = self._passed = 0
        self._playing = True
        self._end = threading.Lock()
        self._end.acquire()
        self._starts = [threading.Lock() for _ in range(size)]
        for start in self._starts:
            start.acquire()
        self._threads = [
            threading.Thread(target=self._run, args=[number], daemon=True)
            for number in range(size)
        ]
        for thread in self._threads:
            thread.start()

    def play(self, rival) -> float:
        """Send the permit through all; return the microseconds for each of them."""
        self._rival = rival
        pass_on = rival.take(self._size)
        self._arrived = self._passed = 0
        for start in self._starts:
            start.release()
        while self._arrived < self._size:
            time.sleep(0.001)
        # They have arrived, and now they fall asleep. One quiet look is not enough: it
        # may be that this process had no turn.
        quiet = 0
        while quiet < QUIET:
            before = time.process_time()
            time.sleep(0.005)
            quiet = quiet + 1 if time.process_time() - before < 0.0005 else 0
        begun = time.perf_counter()
        pass_on()
        self._end.acquire()
        return (time.perf_counter() - begun) / self._size * 1e6

    def leave(self) -> None:
        """End the threads."""
        self._playing = False
        for start in self._starts:
            start.release()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        start, size = self._starts[number], self._size
        while True:
            start.acquire()
            if not self._playing:
                return
            # Each of these is alone: with the permit, or with the interpreter's lock.
            self._arrived += 1
            pass_on = self._rival.take(number)
            self._passed += 1
            if self._passed == size:
                self._end.release()
            pass_on()


def _pair() -> float:
    """Return the microseconds of an acquire and its release that nobody disturbs."""
    # As text, for a function around the two would be timed with them.
    pair, names = "pool.acquire().release()", {"pool": PrioritySemaphore(50)}
    return timeit.timeit(pair, globals=names, number=20_000) / 20_000 * 1e6


def _served(name: str, seconds: float) -> list[int]:
    """Return how often each of 32 threads that want one of 4 permits got it."""
    take = RIVALS[name][1](32, 4).take
    counts, over = [0] * 32, threading.Event()
    ready = threading.Barrier(33)

    def run(number: int) -> None:
        ready.wait()
        while not over.is_set():
            give_back = take(number)
            counts[number] += 1
            time.sleep(0)  # what a permit is for waits for the network
            give_back()

    threads = [threading.Thread(target=run, args=[number]) for number in range(32)]
    for thread in threads:
        thread.start()
    ready.wait()
    time.sleep(seconds)
    over.set()
    for thread in threads:
        thread.join()
    return counts


def _print_hand_offs(handed: dict[int, dict[str, list[float]]]) -> None:
    print(
        "### A hand-off in us, best and median; times a bare lock in the same round\n"
    )
    print(f"| | {' | '.join(f'{size} waiting' for size in handed)} |")
    print(f"|---|{'---:|' * len(handed)}")
    for name, (label, _) in RIVALS.items():
        cells = []
        for times in handed.values():
            if name not in times:
                cells.append("-")
                continue
            cells.append(
                f"{min(times[name]):.1f} / {statistics.median(times[name]):.1f}, "
                f"x {_ratio(times, name):.2f}"
            )
        print(f"| {label} | {' | '.join(cells)} |")


def _ratio(times: dict[str, list[float]], name: str) -> float:
    """Return how many times a bare lock it took, in the median of the rounds."""
    # The rounds of one number lie side by side: what else the machine did then, it did
    # to both. The best of each may be of different moments.
    return statistics.median(map(operator.truediv, times[name], times["bare"]))


def _print_served(served: dict[str, list[int]]) -> None:
    print("\n### 32 threads that want 4 permits\n")
    print("| | permits a second and thread | least served thread, of the mean |")
    print("|---|---:|---:|")
    for name, counts in served.items():
        print(
            f"| {RIVALS[name][0]} | {statistics.mean(counts):.0f} | "
            f"{_least(counts):.2f} |"
        )


def _least(counts: list[int]) -> float:
    return min(counts) / statistics.mean(counts)


def _judge(
    handed: dict[int, dict[str, list[float]]], pair: float, counts: list[int]
) -> list[str]:
    """Print which targets hold; return those that do not."""
    claims = [
        (
            f"a hand-off with {size} waiting at most {HAND_OFF} x a bare lock",
            (ratio := _ratio(times, "pool")),
            ratio <= HAND_OFF,
        )
        for size, times in handed.items()
    ]
    claims += [
        (f"at most {PAIR} us for an uncontended pair", pair, pair <= PAIR),
        (
            f"the least served thread gets {LEAST:.0%} of the mean",
            _least(counts),
            _least(counts) >= LEAST,
        ),
    ]
    print("| target | reached | |")
    print("|---|---:|---|")
    for claim, reached, holds in claims:
        print(f"| {claim} | {reached:.2f} | {'holds' if holds else '**fails**'} |")
    return [claim for claim, _, holds in claims if not holds]


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, a rough look")
    parser.add_argument("--check", action="store_true", help="exit 1 if a target fails")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument(
        "--sizes",
        type=lambda text: tuple(map(int, text.split(","))),
        default=SIZES,
        help="waiting threads, separated by commas",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
