"""How many viewers a site under gunicorn serves, by its workers, threads and permits.

All viewers come in the same moment, and each asks for one answer. Whoever finds no
thread waits in the listener's backlog, whoever finds no permit in the pool's queue, and
whoever finds no place there gets a 503 at once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.client
import importlib.util
import math
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
HOST = "127.0.0.1"
WORDS, PACE = 20, 0.1
"""Of an answer: its tokens, and the seconds between two of them."""
ANSWER = "word " * WORDS
VIEWERS = 100
FOR_EVER = 300.0
"""Seconds; no viewer waits longer for anything."""
LOOKS = 0.1
"""Seconds between two looks at the memory."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Workers; and the threads, permits and places in the queue of each."""

    workers: int
    threads: int
    permits: int
    queue: int


SITES = (
    Sizes(2, 4, 50, 20),
    Sizes(2, 32, 50, 20),
    Sizes(2, 96, 50, 20),
    Sizes(2, 96, 25, 20),
    Sizes(2, 96, 25, 50),
    Sizes(2, 96, 10, 50),
    Sizes(1, 160, 100, 20),
    Sizes(4, 48, 25, 10),
)


@dataclasses.dataclass(frozen=True)
class Visit:
    """What a viewer saw; times are seconds since all of them came."""

    status: int
    text: str
    begun: float
    ended: float


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if importlib.util.find_spec("gunicorn") is None:
        print("no module gunicorn; pip install -e '.[bench]'")
        return 1
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before, Python "
        f"{platform.python_version()}\n\n{options.viewers} viewers come at once, for "
        f"answers of {WORDS} tokens in {WORDS * PACE:.0f} s\n"
    )
    print(
        "| workers | threads | permits | queue | answered | 503 | at most at once "
        "| first text, s: p50 | p99 | last one done, s | MB, all workers "
        "| CPU, ms per answer |\n|" + "---:|" * 12
    )
    whole = True
    with _upstream() as upstream:
        for sizes in options.sites:
            visits, megabytes, cpu = _measure(sizes, options.viewers, upstream)
            _print(sizes, visits, megabytes, cpu)
            # A text that is short without a word would be worse than any number.
            whole &= all(it.text == ANSWER for it in visits if it.status == 200)
    print("\nAll answers are whole." if whole else "\n**Answers are not whole.**")
    return 0 if whole else 1


def _print(
    sizes: Sizes, visits: list[Visit], megabytes: float | None, cpu: float | None
) -> None:
    answered = [it for it in visits if it.status == 200]
    refused = sum(it.status == 503 for it in visits)
    firsts = sorted(it.begun for it in answered) or [math.nan]
    # Each beginning is one more, each end one less; of the same moment the end first.
    changes = sorted(
        [(it.begun, 1) for it in answered] + [(it.ended, -1) for it in answered]
    )
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    cells = [
        *dataclasses.astuple(sizes),
        len(answered),
        refused,
        most,
        f"{firsts[len(firsts) // 2]:.1f}",
        f"{firsts[len(firsts) * 99 // 100]:.1f}",
        f"{max(it.ended for it in visits):.1f}",
        "-" if megabytes is None else f"{megabytes:.0f}",
        "-" if cpu is None else f"{1e3 * cpu / max(1, len(answered)):.0f}",
    ]
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def _measure(
    sizes: Sizes, viewers: int, upstream: str
) -> tuple[list[Visit], float | None, float | None]:
    """Return what each viewer saw, and the megabytes and CPU seconds of the workers."""
    with _site(sizes, upstream) as (port, master):
        _visit(port, time.monotonic())  # its first request loads what is loaded late
        before = _cpu(master)
        gate = threading.Barrier(viewers + 1)
        visits: list[Visit] = []
        came = [0.0]

        def view() -> None:
            gate.wait()
            visits.append(_visit(port, came[0]))

        threads = [threading.Thread(target=view) for _ in range(viewers)]
        for thread in threads:
            thread.start()
        came[0] = time.monotonic()
        gate.wait()
        megabytes = []
        while any(thread.is_alive() for thread in threads):
            if (now := _megabytes(master)) is not None:
                megabytes.append(now)
            time.sleep(LOOKS)
        after = _cpu(master)
    cpu = None if before is None or after is None else after - before
    return visits, max(megabytes, default=None), cpu


def _visit(port: int, came: float) -> Visit:
    """Read one answer; return what came and when."""
    connection = http.client.HTTPConnection(HOST, port, timeout=FOR_EVER)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        response = connection.getresponse()
        body = response.read1()
        begun = time.monotonic() - came
        while piece := response.read1():
            body += piece
    return Visit(response.status, body.decode(), begun, time.monotonic() - came)


@contextlib.contextmanager
def _site(sizes: Sizes, upstream: str) -> Iterator[tuple[int, int]]:
    """Run the site; yield its port and the process whose children the workers are."""
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    command = [
        *[sys.executable, "-m", "gunicorn", "_site:app", "--preload"],
        *["--chdir", str(HERE), "--bind", f"{HOST}:{port}", "--worker-class=gthread"],
        *["--no-control-socket", "--keep-alive=0", "--log-level=error"],
        f"--workers={sizes.workers}",
        f"--threads={sizes.threads}",
        f"--worker-connections={sizes.threads}",
    ]
    settings = {"UPSTREAM": upstream, "PERMITS": sizes.permits, "QUEUE": sizes.queue}
    environ = os.environ | {name: str(value) for name, value in settings.items()}
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen([*command, "--worker-tmp-dir", folder], env=environ) as master,
    ):
        try:
            while not (_listens(port) and _complete(master.pid, sizes.workers)):
                if master.poll() is not None:
                    raise SystemExit("gunicorn did not start")
                time.sleep(0.05)
            yield port, master.pid
        finally:
            master.terminate()


@contextlib.contextmanager
def _upstream() -> Iterator[str]:
    """Run the simulator as the provider; yield its address."""
    command = [sys.executable, "-m", "holystream", "simulator", "--until-eof"]
    command += ["--text", ANSWER, "--times", "0", "--fault", f"tokens,pace={PACE}"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield next(
            word
            for line in process.stdout
            for word in line.split()
            if word.startswith("http://")
        )
        process.stdin.close()


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((HOST, port)) == 0


def _complete(master: int, workers: int) -> bool:
    """Whether all workers have been forked, as far as this system tells."""
    return not Path("/proc/self/task").is_dir() or len(_children(master)) == workers


def _children(master: int) -> list[int]:
    found = Path(f"/proc/{master}/task/{master}/children")
    return list(map(int, found.read_text().split())) if found.exists() else []


def _megabytes(master: int) -> float | None:
    """Return what the workers have in memory; pages that they share count in parts."""
    total = 0
    for worker in _children(master):
        with contextlib.suppress(OSError):
            rolled = Path(f"/proc/{worker}/smaps_rollup").read_text().split()
            total += int(rolled[rolled.index("Pss:") + 1])
    return total / 1024 if total else None


def _cpu(master: int) -> float | None:
    """Return the seconds of CPU that the workers have used."""
    ticks = [
        Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[11:13]
        for worker in _children(master)
    ]
    used = sum(int(tick) for pair in ticks for tick in pair)
    return used / os.sysconf("SC_CLK_TCK") if ticks else None


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--viewers", type=int, default=VIEWERS)
    parser.add_argument(
        "--sites",
        type=lambda text: [Sizes(*map(int, it.split("x"))) for it in text.split(",")],
        default=SITES,
        metavar="WORKERSxTHREADSxPERMITSxQUEUE,...",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
