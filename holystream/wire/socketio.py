"""The socket under a response: a deadline on every recv, and a stop from any thread.

urllib3's timeouts are per recv and kill the file object, so a server that drips holds
its reader for ever; closing a response from another thread does not wake its reader.
Both are mended one floor lower. A `SocketGuard` belongs to one attempt: its reading
thread asks it before each recv how long to wait, and any other thread may stop it.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import io
import os
import socket
import ssl
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from urllib3.util import wait_for_write

from holystream.clocks import Clock
from holystream.errors import Phase
from holystream.gapless import unlock
from holystream.wire.congestion import INTERPRETER, Turn
from holystream.wire.faults import Fault, FaultKind, is_exhausted
from holystream.wire.inherited import remember

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer

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


def resolve(
    host: str, port: int, guard: SocketGuard
) -> list[tuple[Any, Any, int, str, Any]]:
    """Return the addresses of ``host``, waiting no longer than ``guard`` allows.

    The resolver cannot be interrupted, so a name is looked up in a daemon thread that
    we stop waiting for.

    Raises:
        Fault: The name does not resolve, a clock ran out, or a stop came.
    """
    with contextlib.suppress(OSError, UnicodeError):
        return socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    # Not an Event, whose own lock this thread might hold when its signal handler stops.
    done = threading.Lock()
    done.acquire()
    answer: list[Any] = []

    def look_up() -> None:
        try:
            answer.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.append(error)
        unlock(done)

    threading.Thread(target=look_up, name="holystream-resolver", daemon=True).start()
    guard.wait_for(done)
    if isinstance(answer[0], Exception):
        # The resolver opens files, and does not say that it could not.
        _check_descriptors(guard)
        raise guard.fault(
            FaultKind.NAME_RESOLUTION, f"{host}: {answer[0]}"
        ) from answer[0]
    addresses: list[tuple[Any, Any, int, str, Any]] = answer[0]
    return addresses


def _check_descriptors(guard: SocketGuard) -> None:
    try:
        socket.socket().close()
    except OSError as error:
        if is_exhausted(error):
            raise guard.fault(FaultKind.NO_DESCRIPTOR) from error


def connect(
    addresses: list[tuple[Any, Any, int, str, Any]],
    guard: SocketGuard,
    *,
    source: tuple[str, int] | None,
    options: list[tuple[int, int, int | bytes]],
) -> socket.socket:
    """Connect to the first address that answers.

    Each address may take an equal share of the time that is left. The socket's timeout
    is set to what remains then, for the TLS handshake.

    Raises:
        Fault: None could be reached, a clock ran out, or a stop came.
    """
    failure: OSError | None = None
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:
            # Such as IPv6 where the machine has none.
            failure = error
            continue
        try:
            guard.adopt(sock)
            for option in options:
                sock.setsockopt(*option)
            if source:
                sock.bind(source)
            seconds, _ = guard.next_wait()
            _connect(sock, address, seconds / (len(addresses) - tried), guard)
            seconds, _ = guard.next_wait()
            sock.settimeout(seconds)
        except OSError as error:
            sock.close()
            guard.check()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    if isinstance(failure, TimeoutError):
        # Whichever clock it was that ran out.
        guard.next_wait()
        raise guard.fault(FaultKind.CONNECT_TIMEOUT) from failure
    if failure is not None and is_exhausted(failure):
        raise guard.fault(FaultKind.NO_DESCRIPTOR) from failure
    raise guard.fault(FaultKind.REFUSED, str(failure)) from failure


def _connect(
    sock: socket.socket, address: Any, seconds: float, guard: SocketGuard
) -> None:
    sock.setblocking(False)
    code = sock.connect_ex(address)
    # A stop that came before the connect had nothing to shut down and is seen here;
    # one that comes after it ends the connect.
    guard.check()
    if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
        if not wait_for_write(sock, seconds):
            raise TimeoutError("timed out")
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        guard.check()
    if code:
        raise OSError(code, os.strerror(code))
