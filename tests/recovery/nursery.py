"""Processes that stream into a journal, to be killed: forked by one that is warm.

Starting an interpreter takes longer than the streams of these tests. So one process
imports holystream, opens nothing, and forks a child for each job. A child's output is a
pipe that its parent does not keep: after a kill one can read all that it ever wrote.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self

PATIENCE = 30.0
"""Seconds in which whatever must happen has happened on any machine."""


class Child:
    """A process that streams, and what it has handed over."""

    def __init__(self, pid: int, output: int, nursery: Nursery) -> None:
        self.pid = pid
        self.written = b""
        self._output = output
        self._nursery = nursery
        self._ended = False

    @property
    def text(self) -> str:
        """The text that it has printed."""
        return self.written.decode("utf-8", "surrogatepass").replace("\0", "")

    def read(self, until, seconds: float = PATIENCE) -> bool:
        """Read until a condition holds; False if the child or the time ended first."""
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            while not until(self):
                if not selector.select(max(0.0, end - time.monotonic())):
                    return False
                piece = os.read(self._output, 65536)
                if not piece:
                    self._ended = True
                    return False
                self.written += piece
        return True

    def printed(self, size: int) -> bool:
        """Read until it has printed so many bytes."""
        return self.read(lambda child: len(child.written) >= size)

    def signal(self, number: int) -> None:
        """Send it a signal; its pid is its own until it was waited for."""
        os.kill(self.pid, number)

    def kill(self) -> int:
        """Kill it, wherever it is; return its status once it is dead."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def wait(self) -> int:
        """Read to its end; return its exit status, or minus the signal's number."""
        self.read(lambda child: child._ended)
        assert self._ended, "the child goes on and on"
        os.close(self._output)
        return self._nursery.reap(self.pid)


class Nursery:
    """The process that forks the children."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._ours.settimeout(PATIENCE)
        # Guards the socket from an order to its answer, and _alive.
        self._ordering = threading.Lock()
        self._alive: set[int] = set()

    def start(self, job: str, **options) -> Child:
        """Fork a child that does a job: a function of `jobs`."""
        output, inherited = os.pipe()
        order = json.dumps([job, options]).encode()
        try:
            with self._ordering:
                socket.send_fds(self._ours, [order], [inherited])
                pid = int(self._ours.recv(64))
                self._alive.add(pid)
        finally:
            os.close(inherited)
        return Child(pid, output, self)

    def reap(self, pid: int) -> int:
        """Wait for a child's end; return its status."""
        with self._ordering:
            self._alive.discard(pid)
            self._ours.send(json.dumps(pid).encode())
            return int(self._ours.recv(64))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for pid in self._alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._ours.close()
        assert self._process.wait(PATIENCE) == 0


def serve(control: socket.socket) -> None:
    """Fork a child for each job that comes; a child stays a zombie until asked for."""
    import jobs  # and with it holystream, in this process alone

    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 1)
        if not message:
            return
        order = json.loads(message)
        if isinstance(order, int):
            _, status = os.waitpid(order, 0)
            control.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid = os.fork()
        if pid:
            os.close(descriptors[0])
            control.send(str(pid).encode())
            continue
        control.close()
        job, options = order
        os._exit(jobs.run(getattr(jobs, job), descriptors[0], options))


if __name__ == "__main__":
    # A Ctrl-C at the terminal is the test run's own affair.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path.insert(0, str(Path(__file__).parent))
    serve(socket.socket(fileno=int(sys.argv[1])))
