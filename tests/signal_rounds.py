"""A process whose signal handler cancels, at seeded moments: `SCENE ROUNDS SEED`.

Prints how many rounds were cut short. If a round hangs, it prints where and dies.
"""

from __future__ import annotations

import contextlib
import faulthandler
import random
import signal
import sys

from holystream import (
    BreakerPolicy,
    Client,
    PrioritySemaphore,
    QueueTimeout,
    RetryBudget,
    RetryPolicy,
    StreamCancelled,
)
from holystream.clocks import CancelToken
from holystream.simulator import Simulator

LIMIT = 40.0
"""Seconds in which all rounds are over on any machine, unless one hangs."""
PATIENT = RetryPolicy(attempts=10**6, total_attempts=None, base=1e-6, cap=1e-5)


def waiting(token: CancelToken) -> None:
    while not token.wait(1e-6):
        pass


def queueing(pool: PrioritySemaphore, token: CancelToken) -> None:
    while True:
        with contextlib.suppress(QueueTimeout):
            pool.acquire(timeout=1e-6, cancel=token)


def cancelling(token: CancelToken) -> None:
    while not token.struck:
        other = CancelToken()
        for _ in range(3):
            other.on_cancel(token.own)
        token.others.append(other)
        other.cancel()


class Chain(CancelToken):
    """Cancels others with itself: all that the main thread may be cancelling."""

    def __init__(self) -> None:
        super().__init__()
        self.others: list[CancelToken] = []
        self.calls = 0
        self.struck = False

    def own(self) -> None:
        self.calls += 1

    def cancel(self) -> None:
        for other in self.others[-2:]:
            other.cancel()
        self.struck = True


def main(scene: str, rounds: int, seed: int) -> None:
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    rng = random.Random(seed)
    cut = 0
    with Simulator(length=3) as sim:
        client = Client("sk-0123456789", base_url=sim.base_url, model="sim")
        client_of_none = Client(
            "sk-0123456789",
            base_url=sim.base_url,
            model="sim",
            retry=PATIENT,
            # It fails on purpose, and often.
            breaker=BreakerPolicy(failures=1_000_000),
            retry_budget=RetryBudget(floor=1e6),
        )
        for _ in range(rounds):
            full = PrioritySemaphore(1)
            held = full.acquire()
            if scene == "read":
                target = client.stream("x", extra_headers={"X-Simulator": "stall_at=0"})
                work = target.until_done
            elif scene == "backoff":
                header = {"X-Simulator": "cut_before_headers=rst"}
                target = client_of_none.stream("x", extra_headers=header)
                work = target.until_done
            elif scene == "queue":
                target = CancelToken()
                work = lambda: queueing(full, target)  # noqa: B023, E731
            elif scene == "wait":
                target = CancelToken()
                work = lambda: waiting(target)  # noqa: B023, E731
            else:
                target = Chain()
                work = lambda: cancelling(target)  # noqa: B023, E731
            signal.signal(signal.SIGALRM, lambda *_: target.cancel())  # noqa: B023
            # Again and again, for the interpreter notices a signal that comes in the
            # instant before a system call only when that call returns.
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 5e-3), 0.01)
            try:
                work()
            except StreamCancelled:
                cut += 1
            else:
                cut += scene in {"wait", "cancel"}
            signal.setitimer(signal.ITIMER_REAL, 0)
            held.release()
            assert full.statistics().queued == 0
        client.close()
        client_of_none.close()
        assert client.pool.statistics().in_use == 0
    sys.stdout.write(f"{cut}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
