"""What the tests of the wire share: peers of a few lines, threads that read, limits.

Nothing here knows holystream but `client_for`. Whatever is opened is closed with its
``with`` block, and every wait has a bound, so that a failing test fails instead of
hanging.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import trustme

from holystream import BreakerPolicy, Client, RetryBudget, RetryPolicy, Timeouts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "test-key-0123456789abcdef"
SOON = 25.0
"""Seconds in which whatever must happen "at once" has happened on any machine: one
that is four times slower, busy, and stops for a second now and then."""
PATIENT = Timeouts(connect=120, first_token=120, idle=120, token_idle=120, queue=120)
"""Far longer than `SOON`: nothing that ends in time was ended by one of these."""
ONCE = RetryPolicy(attempts=1)


def client_for(base_url: str, **options) -> Client:
    """Return a client that is patient and tries once, unless told otherwise.

    Its endpoint may fail as often as a test likes: no breaker sends its streams away.
    """
    settings = {
        "timeout": PATIENT,
        "retry": ONCE,
        "breaker": BreakerPolicy(failures=1_000_000),
        "retry_budget": RetryBudget(floor=1e6),
        "model": "sim",
        **options,
    }
    return Client(KEY, provider="openai-compatible", base_url=base_url, **settings)


def until(
    condition: Callable[[], object], what: str = "", seconds: float = SOON
) -> None:
    """Wait until something holds that nobody tells us of."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"in vain: {what or condition}"
        time.sleep(0.001)


def open_files() -> set[tuple[int, str]]:
    """Return the descriptors of this process and what they are."""
    found = set()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
        # The one that lists them is gone by now.
        with contextlib.suppress(FileNotFoundError):
            found.add((int(number), str(Path("/proc/self/fd", number).readlink())))
    return found


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Fail if a descriptor or a thread is left that was not there before."""
    gc.collect()
    files, threads = open_files(), set(threading.enumerate())
    yield
    gc.collect()
    until(lambda: set(threading.enumerate()) <= threads, "threads are left")
    until(lambda: open_files() <= files, f"open: {open_files() - files}")


class Reader:
    """A thread that does something with a stream; how it ended can be asked."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.result: object = None
        self.error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:  # noqa: BLE001 - `ended` returns it
            self.error = error

    def ended(self) -> BaseException | None:
        """Wait for its end, which must come soon; return its error."""
        self._thread.join(SOON)
        assert not self._thread.is_alive(), "the reader still waits"
        return self.error


@contextlib.contextmanager
def ctrl_c(
    when: Callable[[], object],
    what: str = "",
    error: type[BaseException] = KeyboardInterrupt,
) -> Iterator[None]:
    """Press Ctrl-C for the main thread once something holds, until it is heard.

    CPython does not hear a signal that comes after its last look and before a wait
    begins: whoever presses Ctrl-C presses it again.
    """
    heard = threading.Event()

    def hear(*_: object) -> None:
        if not heard.is_set():
            heard.set()
            raise error

    def press() -> None:
        until(when, what)
        while not heard.is_set():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            heard.wait(0.01)

    before = signal.signal(signal.SIGINT, hear)
    striker = Reader(press)
    try:
        yield
    finally:
        error = striker.ended()
        signal.signal(signal.SIGINT, before)
    assert error is None


class Peer:
    """A server whose every connection is served by one function in a thread.

    The function gets the connected socket, which is closed when it returns; when the
    peer is closed, its recv and send end with an error, which is not reported. ``idle``
    is set once it has ended a connection.
    """

    def __init__(
        self,
        serve: Callable[[socket.socket], object],
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=64)
        self.port: int = self._listener.getsockname()[1]
        name = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if tls else 'http'}://{name}:{self.port}"
        self.accepted = 0
        self.idle = threading.Event()
        self._serve = serve
        self._tls = tls
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.accepted += 1
                self._open.add(sock)
                thread = threading.Thread(target=self._run, args=[sock], daemon=True)
                self._threads.append(thread)
                thread.start()

    def _run(self, sock: socket.socket) -> None:
        served = sock
        with contextlib.suppress(OSError, ValueError), sock:
            if self._tls is not None:
                # Not shut down with the handshake half done, and it owns the socket.
                served = self._tls.wrap_socket(sock, server_side=True)
                self._open.add(served)
            with served:
                self._serve(served)
        self.idle.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(SOON)
        for sock in list(self._open):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(SOON)
            assert not thread.is_alive()


def free_port() -> int:
    """Return a port that nobody listens on, and that no system gives away by itself.

    Else another test's server or connection might have it before it is listened on.
    """
    for port in random.sample(range(10_000, 20_000), 100):
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a hundred ports were tried, and all of them are taken")


def read_request(sock: socket.socket) -> bytes:
    """Read one request whole and return it; empty if the client left or speaks TLS."""
    data = b""
    while b"\r\n\r\n" not in data:
        received = sock.recv(65536)
        data += received
        # As servers do, which do not wait for the end of a line in a handshake.
        if not received or data.startswith(b"\x16"):
            return b""
    head, _, body = data.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
            while len(body) < length and (received := sock.recv(65536)):
                body += received
    return head + b"\r\n\r\n" + body


def answer(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return a response with a Content-Length."""
    rows = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(rows).encode() + body


def wait_for_end(sock: socket.socket) -> None:
    """Read until the client leaves."""
    while sock.recv(65536):
        pass


@contextlib.contextmanager
def blackhole() -> Iterator[int]:
    """Yield a port of this machine where a connect is never answered."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        # Its queue is full when a connect is no longer answered at once.
        for _ in range(16):
            sock = stack.enter_context(socket.socket())
            sock.settimeout(0.2)
            try:
                sock.connect(("127.0.0.1", port))
            except TimeoutError:
                break
        yield port


def is_connecting_to(port: int) -> bool:
    """Whether the kernel waits for an answer to a connect to this port."""
    return any(row[1] == f"0100007F:{port:04X}" and row[2] == "02" for row in _tcp())


def is_stuck_sending_to(port: int) -> bool:
    """Whether bytes wait to be sent to this port and the receiver's buffer is full."""
    return any(
        row[0] == f"0100007F:{port:04X}" and int(row[3].split(":")[1], 16) > 65536
        for row in _tcp()
    ) and any(
        row[1] == f"0100007F:{port:04X}" and int(row[3].split(":")[0], 16) > 65536
        for row in _tcp()
    )


def _tcp() -> list[list[str]]:
    """Return local address, remote address, state and queues of each connection."""
    table = Path("/proc/self/net/tcp").read_text(encoding="ascii")
    rows = [line.split() for line in table.splitlines()[1:]]
    return [[row[1], row[2], row[3], row[4]] for row in rows]


def certificates(folder: Path) -> tuple[ssl.SSLContext, str]:
    """Return a server's context and the path of the authority that vouches for it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost", "::1").configure_cert(context)
    path = folder / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return context, str(path)
