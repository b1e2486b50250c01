"""One TCP connection, seen from the server: send, wait, FIN, RST.

Promises: no wait is blind. Whatever a thread waits for here (bytes, room to
send, the time of the next event), it is woken at once when the client goes away
(`Gone`) or when the connection's Alarm rings (`Dropped`). The socket never
blocks, so this also holds while a client does not read.

An Alarm is shared by all connections of its time and rings once, for good.
"""

import math
import selectors
import socket
import ssl
import struct
import sys
import time
from contextlib import suppress
from typing import TypeAlias

if sys.platform == "linux":
    import fcntl

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_BLOCK = 65_536
_MOST_PIPELINED = 64 * 1024 * 1024
_HOUR = 3600.0
_SIOCOUTQNSD = 0x894B
_NO_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)

# poll() costs no descriptor per connection and knows no limit of 1024.
if sys.platform == "win32":
    _Selector: TypeAlias = selectors.SelectSelector
else:
    _Selector: TypeAlias = selectors.PollSelector


class Gone(Exception):
    """The client has left."""


class Dropped(Exception):
    """The simulator ends this connection now, with a RST if `reset` is set."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__(reset)
        self.reset = reset


class Alarm:
    """Wakes all that wait on it; once rung it stays so."""

    def __init__(self) -> None:
        self.socket, self._bell = socket.socketpair()
        self.reset = False

    def ring(self, *, reset: bool) -> None:
        """Wake everyone; the first ring decides how connections end."""
        if self._bell.fileno() != -1:
            self.reset = reset
            self._bell.close()

    def close(self) -> None:
        """Give the sockets back, when nobody waits any more."""
        self._bell.close()
        self.socket.close()


class Peer:
    """The client at the other end; used by one thread."""

    def __init__(self, sock: socket.socket, alarm: Alarm) -> None:
        sock.setblocking(False)
        self.received = bytearray()
        self._socket = sock
        self._alarm = alarm
        self._selector = _Selector()
        self._selector.register(sock, _READ)
        self._selector.register(alarm.socket, _READ)
        self._watched = _READ

    def handshake(self) -> None:
        """Bring TLS up, if this is TLS."""
        if not isinstance(self._socket, ssl.SSLSocket):
            return
        while True:
            try:
                self._socket.do_handshake()
            except ssl.SSLWantReadError:
                self._wait(_READ)
            except ssl.SSLWantWriteError:
                self._wait(_WRITE)
            except OSError as error:
                raise Gone from error
            else:
                return

    def receive(self) -> None:
        """Wait for bytes and add them to `received`."""
        while not self._absorb():
            self._wait(_READ)

    def send(self, data: bytes | bytearray) -> None:
        """Send everything."""
        view = memoryview(data)
        while view:
            try:
                sent = self._socket.send(view)
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(_WRITE)
            except ssl.SSLWantReadError:
                self._wait(_READ)
            except OSError as error:
                raise Gone from error
            else:
                view = view[sent:]

    def pause(self, until: float) -> None:
        """Wait until that moment of `time.monotonic`; `inf` waits for ever."""
        while (left := until - time.monotonic()) > 0:
            # The selector counts whole milliseconds, rounded up: it gets one
            # less, and the rest is slept, which is too short to need waking.
            whole = math.floor(min(left, _HOUR) * 1000)
            if self._wait(_READ, whole / 1000 - 1e-6):
                self._absorb()
            elif not whole:
                time.sleep(left)

    def check(self) -> None:
        """Raise at once what a wait would raise."""
        if self._wait(_READ, 0):
            self._absorb()

    def finish(self, *, clean: bool = True) -> None:
        """End with a FIN; `clean` says goodbye in TLS before it."""
        if clean and isinstance(self._socket, ssl.SSLSocket):
            with suppress(OSError, ValueError):
                self._socket.unwrap()
        with suppress(OSError):
            # Not SSLSocket.shutdown, which forgets TLS; and before the rest is
            # read, because close() with unread bytes would send a RST instead.
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            while socket.socket.recv(self._socket, _BLOCK):
                pass
        self.close()

    def reset(self) -> None:
        """End with a RST, behind everything that was sent."""
        self._flush()
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        self._selector.close()
        socket.socket.close(self._socket)

    def _flush(self) -> None:
        # A RST throws away what still waits in our own queue.
        if sys.platform != "linux" or self._alarm.reset:
            return
        deadline = time.monotonic() + 1
        with suppress(OSError, Dropped, Gone):
            while time.monotonic() < deadline:
                answer = fcntl.ioctl(self._socket, _SIOCOUTQNSD, b"\0" * 4)
                if not struct.unpack("i", answer)[0]:
                    return
                self.pause(time.monotonic() + 0.001)

    def _absorb(self) -> bool:
        try:
            data = self._socket.recv(_BLOCK)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError as error:
            raise Gone from error
        if not data or len(self.received) > _MOST_PIPELINED:
            raise Gone
        self.received += data
        return True

    def _wait(self, events: int, timeout: float | None = None) -> bool:
        if events != self._watched:
            self._selector.modify(self._socket, events)
            self._watched = events
        ready = self._selector.select(timeout)
        if any(key.fileobj is self._alarm.socket for key, _ in ready):
            raise Dropped(reset=self._alarm.reset)
        return bool(ready)
