"""The other end of gated_app.py: a test decides when the next event is sent."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from typing import Self

from loopback import SOON


class Session:
    """One answer that waits for us.

    Attributes:
        pid: The process that gives it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lines = sock.makefile("rb")
        self.pid = int(self._lines.readline())

    def release(self, events: int) -> None:
        """Let it send so many events."""
        self._sock.sendall(b"." * events)

    def sent(self, events: int) -> None:
        """Wait until it has sent so many events more."""
        assert len(self._lines.read(events)) == events

    def release_all(self) -> None:
        """Let it go on by itself."""
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Let go."""
        self._lines.close()
        self._sock.close()


class Gate:
    """Takes the answers as they begin: the first ones may send only some events.

    Args:
        allowed: How many events each of the first answers may send at once; those that
            follow are free.
    """

    def __init__(self, *allowed: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.headers = {"X-Gate": str(self._listener.getsockname()[1])}
        self._allowed = list(allowed)
        self._begun: queue.Queue[Session] = queue.Queue()
        self._sessions: list[Session] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                session = Session(sock)
                self._sessions.append(session)
                if self._allowed:
                    session.release(self._allowed.pop(0))
                else:
                    session.release_all()
                self._begun.put(session)

    def session(self) -> Session:
        """Return the next answer that has begun."""
        return self._begun.get(timeout=SOON)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(SOON)
        for session in self._sessions:
            session.close()
