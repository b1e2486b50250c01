"""The stream under a response: a deadline on every recv, and a stop from any thread.

urllib3's timeouts kill the file object they strike in. Here each recv waits as long as
the attempt's guard (guard.py) allows, and takes turns with others where they are too
many (congestion.py).
"""

from __future__ import annotations

import functools
import io
import socket
import ssl
import struct
import sys
import threading
from typing import TYPE_CHECKING, Any

from holystream.wire.congestion import INTERPRETER, Turn

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from holystream.clocks import Clock
    from holystream.wire.guard import SocketGuard

_NOTHING_THERE = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a read that must not wait raises instead."""
_KERNEL_WAITS = sys.platform == "linux"
"""Elsewhere SO_RCVTIMEO takes another shape, or none."""
_PART = 1.0
"""Seconds that the kernel waits at once: should a signal come to another thread than
the main one, its wait begins anew."""
HEAD_BYTES = 1024
"""Bytes of a response's head that are read at once."""
WAITING_BYTES = 2048
"""Bytes that are read at once where little comes at a time."""
SPARED = 4
"""Reads without a turn after one that brought nothing: a slow stream would ask for the
interpreter once more for each token."""


class GuardedSocketIO(socket.SocketIO):
    """The raw stream of a response: each read waits as long as its guard allows.

    In the main thread it waits by a timeout of the socket's. Elsewhere, on Linux and
    without TLS, the kernel waits in recv itself: a socket with a timeout calls poll
    first, and a thread that comes back from two system calls must get the interpreter
    twice, which among hundreds of threads is half of what a token costs. Where even so
    they are too many, they take turns (congestion.py).
    """

    def __init__(self, sock: socket.socket, guard: SocketGuard) -> None:
        super().__init__(sock, "r")
        self._guard = guard
        self._socket = sock
        self._recv = sock.recv
        self._recv_into = sock.recv_into
        self._waits_itself = _KERNEL_WAITS and type(sock) is socket.socket
        # How it waits at present: by a timeout of the socket's, or of the kernel's.
        self._seconds = 0.0
        self._part = 0.0
        # What is left of a wait.
        self._left = 0.0
        # When the last read of the body ended, and how many take no turn.
        self._ended = 0.0
        self._spared = 0

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Receive once.

        Raises:
            Fault: A clock ran out, or the attempt was stopped meanwhile.
        """
        started, clock = self._begin()
        while True:
            try:
                count = self._recv_into(buffer)
            except BlockingIOError:
                self._wait_on(clock)
            except OSError as error:
                raise self._failure(error, clock) from None
            else:
                break
        guard = self._guard
        guard.reading_since = guard.now()
        guard.clocks.waited += guard.reading_since - started
        # After a stop the kernel may still hand out what came before it, and TLS
        # reports a ragged end: neither may pass for the server's doing.
        guard.check()
        return count

    def receive(self, amount: int) -> bytes:
        """Receive once, at most ``amount`` bytes; empty at the end.

        Raises:
            Fault: As `readinto`.
        """
        started, clock = self._begin()
        data = None
        if INTERPRETER.pause:
            data = self._receive_in_turn(amount, started, clock)
        elif started >= INTERPRETER.look_at:
            INTERPRETER.look()
        if data is None:
            while True:
                try:
                    data = self._recv(amount)
                except BlockingIOError:
                    self._wait_on(clock)
                except OSError as error:
                    raise self._failure(error, clock) from None
                else:
                    break
        # As in `readinto`. A token waits for whatever is done here.
        guard = self._guard
        ended = self._ended = guard.reading_since = guard.now()
        guard.clocks.waited += ended - started
        if guard.stopped:
            guard.check()
        return data

    def _receive_in_turn(
        self, amount: int, started: float, clock: Clock
    ) -> bytes | None:
        """Take a turn, and what is there; None if that is nothing, or it is spared."""
        if self._spared:
            self._spared -= 1
            return None
        guard = self._guard
        pause = self._ended + INTERPRETER.left() - started
        if amount > WAITING_BYTES:
            pause = 0.0  # the last read brought so much that there is more
        turn = Turn()
        try:
            INTERPRETER.take_turn(
                turn, min(pause, self._left), self._left, guard.sleep_on
            )
            data = self._receive_at_once(amount)
        except OSError as error:
            raise self._failure(error, clock) from None
        finally:
            # Struck before it begins, it leaves the baton to whoever loses patience.
            INTERPRETER.pass_on(turn)
        if data is None:
            guard.check()
            self._spared = SPARED
            # What was waited in line is no time in which bytes came.
            self._left -= guard.now() - started
            if self._left <= 0:
                raise guard.ran_out(clock)
            self._wait_again()
        return data

    def _receive_at_once(self, amount: int) -> bytes | None:
        """Receive what is there; None if that is nothing.

        Whoever has the baton must not wait for a server, nor for the rest of a record
        of TLS.
        """
        if self._part:
            try:
                return self._recv(amount, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
        self._seconds = 0.0
        self._socket.settimeout(0.0)
        found: list[bytes] = []
        # TLS hands out one record at a time, which is one token.
        while (left := amount - sum(map(len, found))) > 0:
            try:
                found.append(self._recv(left))
            except _NOTHING_THERE:
                break
            except OSError as error:
                if not found:
                    raise
                # A system tells it once, and would call it an end the next time.
                self._recv = functools.partial(_raise, error)
                break
            if not found[-1]:
                break
        return b"".join(found) if found else None

    def _wait_again(self) -> None:
        """Have recv wait for what is left, after one that did not wait."""
        if self._part:
            self._wait_in_part()
        else:
            self._socket.settimeout(self._left)
            self._seconds = self._left

    def _begin(self) -> tuple[float, Clock]:
        """Prepare to wait; return since when, and the clock that bounds it."""
        guard = self._guard
        started = guard.now()
        if guard.reading_since is not None:
            # Without this a flood of pings, which never lets us wait, would never end.
            guard.clocks.spent(started - guard.reading_since)
        seconds, clock = guard.wait_from(started)
        self._left = seconds
        # Python begins a recv anew after a signal, and the kernel's timeout with it: in
        # the main thread, which signals go to, a periodic one would make it endless.
        if (
            self._waits_itself
            and threading.get_ident() != threading.main_thread().ident
        ):
            self._wait_in_part()
        elif seconds != self._seconds:
            # Nobody else sets it while a body is read.
            self._socket.settimeout(seconds)
            self._seconds = seconds
            self._part = 0.0
        return started, clock

    def _wait_in_part(self) -> None:
        """Have the kernel wait for what is left, or for a part of it."""
        part = min(self._left, _PART)
        if part != self._part:
            self._socket.settimeout(None)
            whole, rest = divmod(max(part, 1e-6), 1.0)
            self._socket.setsockopt(
                socket.SOL_SOCKET,
                socket.SO_RCVTIMEO,
                struct.pack("@ll", int(whole), int(rest * 1e6)),
            )
            self._part = part
            self._seconds = 0.0

    def _wait_on(self, clock: Clock) -> None:
        """Wait for another part, if any is left."""
        self._guard.check()
        self._left -= self._part
        if self._left <= 0:
            raise self._guard.ran_out(clock)
        self._wait_in_part()

    def _failure(self, error: OSError, clock: Clock) -> Exception:
        self._guard.check()
        if isinstance(error, TimeoutError):
            return self._guard.ran_out(clock)
        return error


def _raise(error: OSError, _amount: int, _flags: int = 0) -> bytes:
    raise error


class GuardedSocket:
    """What http.client sees of a socket when it builds a response: ``makefile``."""

    def __init__(self, sock: Any, guard: SocketGuard) -> None:
        self._sock = sock
        self._guard = guard

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return a buffered reader that counts as one of the socket's files."""
        raw = GuardedSocketIO(self._sock, self._guard)
        # As socket.makefile does: the descriptor is closed with its last file.
        # TLS inside TLS wraps a socket instead of being one.
        counted = getattr(self._sock, "socket", self._sock)
        counted._io_refs += 1  # noqa: SLF001 - the protocol between the two
        # Small: only the headers are read through it, and it is kept with the body.
        return io.BufferedReader(raw, HEAD_BYTES)
