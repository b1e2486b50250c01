"""One process of `benchmarks/journal.py`: it writes into a journal, and measures.

Called as ``paced PATH THREADS RATE SECONDS`` or ``flat KIND PATH BATCH TOKENS``; prints
JSON. A line on its standard input starts it, so that processes start together.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time

from holystream.events import TextDelta
from holystream.journal import MemoryJournal
from holystream.journal.sqlite import SQLiteJournal

DAY = 86_400.0
REQUEST = b'{"model": "m", "messages": [{"role": "user", "content": "Hello"}]}'
CURSOR = b"x" * 60
RAW = b'{"choices": [{"delta": {"content": " token"}}]}' * 5


class NoJournal:
    """What is called the same, and does nothing."""

    def create(self, stream_id, **_):
        return stream_id

    def append(self, claim, events, *, cursor=None):
        pass


def events(count: int) -> list[TextDelta]:
    """Return tokens as a provider sends them."""
    return [TextDelta(" token", 6 * at, 0, 0, RAW) for at in range(count)]


def paced(path: str, threads: int, rate: float, seconds: float) -> dict:
    """Let threads append a token so many times a second each; return the latencies."""
    journal = SQLiteJournal(path)
    token = events(1)
    gate = threading.Barrier(threads + 1)
    latencies: list[list[float]] = [[] for _ in range(threads)]

    def write(number: int) -> None:
        claim = journal.create(f"{time.time_ns()}-{number}", request=REQUEST, ttl=DAY)
        mine = latencies[number]
        rng = random.Random(number)
        gate.wait()
        due = time.perf_counter() + rng.random() / rate
        for _ in range(int(seconds * rate)):
            left = due - time.perf_counter()
            if left > 0:
                time.sleep(left)
            before = time.perf_counter()
            journal.append(claim, token, cursor=CURSOR)
            mine.append(time.perf_counter() - before)
            due += 1 / rate

    writers = [threading.Thread(target=write, args=(n,)) for n in range(threads)]
    for writer in writers:
        writer.start()
    print("ready", flush=True)
    sys.stdin.readline()
    gate.wait()
    began, cpu = time.perf_counter(), time.process_time()
    for writer in writers:
        writer.join()
    wall, spent = time.perf_counter() - began, time.process_time() - cpu
    journal.close()
    found = [latency for mine in latencies for latency in mine]
    return {"latencies": found, "wall": wall, "cpu": spent}


def flat(kind: str, path: str, batch: int, tokens: int) -> dict:
    """Append as fast as it goes; return the CPU it took for each token, in us."""
    journal = {
        "none": NoJournal,
        "memory": MemoryJournal,
        "sqlite": lambda: SQLiteJournal(path),
        "power": lambda: SQLiteJournal(path, durability="power"),
    }[kind]()
    claim = journal.create("s", request=REQUEST, ttl=DAY)
    some = events(batch)
    journal.append(claim, some, cursor=CURSOR)
    print("ready", flush=True)
    sys.stdin.readline()
    before, began = time.process_time(), time.perf_counter()
    for _ in range(tokens // batch):
        journal.append(claim, some, cursor=CURSOR)
    spent = time.process_time() - before
    wall = time.perf_counter() - began
    return {"cpu": spent / tokens * 1e6, "wall": wall / tokens * 1e6}


def main() -> None:
    what, *arguments = sys.argv[1:]
    if what == "paced":
        path, threads, rate, seconds = arguments
        result = paced(path, int(threads), float(rate), float(seconds))
    else:
        kind, path, batch, tokens = arguments
        result = flat(kind, path, int(batch), int(tokens))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
