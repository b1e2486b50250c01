"""Names to addresses, and addresses to a connection, within an attempt's clocks."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

from urllib3.util import wait_for_write

from holystream.gapless import unlock
from holystream.wire.faults import FaultKind, is_exhausted

if TYPE_CHECKING:
    from holystream.wire.guard import SocketGuard


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
