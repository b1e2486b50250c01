"""Watches over the socket of one attempt: how long to wait, and a stop from any thread.

urllib3's timeouts are per recv, so a server that drips holds its reader for ever; and
closing a response from another thread does not wake its reader. A `SocketGuard` is made
for one attempt: its reading thread asks it before each wait how long that may be, and
any other thread may stop it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

from holystream.clocks import Clock
from holystream.errors import Phase
from holystream.gapless import unlock
from holystream.wire.faults import Fault, FaultKind
from holystream.wire.inherited import remember

if TYPE_CHECKING:
    from collections.abc import Callable

    from holystream.clocks import ReadClocks

_KIND_OF_CLOCK = {
    Clock.CONNECT: FaultKind.CONNECT_TIMEOUT,
    Clock.FIRST_TOKEN: FaultKind.FIRST_TOKEN,
    Clock.IDLE: FaultKind.IDLE,
    Clock.TOKEN_IDLE: FaultKind.TOKEN_IDLE,
    Clock.TAIL: FaultKind.TAIL,
    Clock.DRAIN: FaultKind.IDLE,
    Clock.DEADLINE: FaultKind.DEADLINE,
}


class SocketGuard:
    """Watches over the socket of one attempt.

    `stop` may be called from any thread; everything else is the reading thread's.

    Attributes:
        clocks: How long the reading thread may still wait.
        phase: How far the attempt got.
        reused: The connection had served a request before.
        target: What the request line names, once that is known.
        reading_since: When the last recv of this read ended; None before the first.
        stopped: True once `stop` was called.
    """

    def __init__(
        self, clocks: ReadClocks, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.clocks = clocks
        self.now = now
        self.reading_since: float | None = None
        self._connect_by = 0.0
        # Guards _handle. The shutdown and the close that are made under it never block;
        # without the lock a shutdown could hit a descriptor number that was closed and
        # given out again. Re-entrant: a signal handler or a finaliser may stop in the
        # midst of it, and whatever it meets there it may shut down.
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self.stopped = False
        self._handle: socket.socket | None = None
        self._waiting: threading.Lock | None = None

        self.begin()

    def begin(self) -> None:
        """Begin with a request: the first one, or the next after a redirect."""
        self.resume()
        self.phase = Phase.CONNECT
        self.reused = False
        self.target = ""
        self._connect_by = self.now() + self.clocks.connect

    def resume(self) -> None:
        """Begin to read: until now the time was the caller's."""
        self.reading_since = None

    def stop(self) -> None:
        """End the attempt at once, whatever its thread is waiting for."""
        self.stopped = True
        waiting = self._waiting
        if waiting is not None:
            unlock(waiting)
        with self._lock:
            # Looked up once: a signal handler may release it before any of these calls.
            handle = self._handle
            # After a fork the connection is still the parent's: a child that drops its
            # copy must not end it.
            if handle is not None and os.getpid() == self._pid:
                # Not connected yet, or gone already: then there is nothing to wake.
                with contextlib.suppress(OSError):
                    handle.shutdown(socket.SHUT_RDWR)

    def adopt(self, sock: socket.socket) -> None:
        """Take a second handle on ``sock``: it outlives the TLS wrapping of the first.

        Raises:
            Fault: The attempt was stopped already.
        """
        # TLS inside TLS wraps a socket instead of being one.
        plain = getattr(sock, "socket", sock)
        handle = socket.fromfd(plain.fileno(), plain.family, plain.type)
        remember(handle)
        with self._lock:
            previous, self._handle = self._handle, handle
        if previous is not None:
            previous.close()
        # A stop before the handle was in place found nothing to shut down.
        self.check()

    def release(self) -> None:
        """Let go of the socket; a later `stop` must not touch it."""
        with self._lock:
            # Forgotten only when it is closed, should a Ctrl-C come between.
            handle = self._handle
            if handle is not None:
                handle.close()
            self._handle = None

    def check(self) -> None:
        """Raise if the attempt was stopped.

        Raises:
            Fault: It was.
        """
        if self.stopped:
            raise self.fault(FaultKind.STOPPED)

    def fault(self, kind: FaultKind, detail: str = "") -> Fault:
        """Return a fault of this attempt, in its present phase."""
        return Fault(kind, self.phase, detail, reused=self.reused)

    def next_wait(self) -> tuple[float, Clock]:
        """Return how many seconds the next wait may take, and the clock that says so.

        Raises:
            Fault: A clock ran out, or the attempt was stopped.
        """
        return self.wait_from(self.now())

    def wait_from(self, now: float) -> tuple[float, Clock]:
        """Return what `next_wait` does, for a wait that begins ``now``."""
        if self.stopped:
            self.check()
        seconds, clock = self.clocks.left(now)
        if self.phase is Phase.CONNECT and self._connect_by - now < seconds:
            seconds, clock = self._connect_by - now, Clock.CONNECT
        if seconds <= 0:
            raise self.ran_out(clock)
        return seconds, clock

    def ran_out(self, clock: Clock) -> Fault:
        """Return the fault for ``clock`` having run out."""
        return self.fault(_KIND_OF_CLOCK[clock])

    def wait_for(self, turn: threading.Lock) -> None:
        """Wait for the release of a lock, which another thread holds for us.

        Raises:
            Fault: A clock ran out, or the attempt was stopped.
        """
        seconds, clock = self.next_wait()
        if not self.sleep_on(turn, min(seconds, threading.TIMEOUT_MAX)):
            raise self.ran_out(clock)
        self.check()

    def sleep_on(self, turn: threading.Lock, seconds: float) -> bool:
        """Wait for the release of a lock, or a stop; return whether either came."""
        self._waiting = turn
        try:
            # A stop before the lock was in place is seen here.
            return self.stopped or turn.acquire(timeout=seconds)
        finally:
            self._waiting = None
