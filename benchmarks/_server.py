"""The server of the benchmarks: a process of its own, plain sockets, ready-made bytes.

It prints its port, serves ``POST /<framing>/<events>/...``, and at the end of its input
prints what sending cost it, so that a reader that waited for it can be told.
"""

from __future__ import annotations

import contextlib
import functools
import json
import socket
import sys
import threading
import time

import _answer

_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\n"
)
_HEADS = {
    _answer.CHUNKED: _HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
    _answer.CLOSE: _HEAD + b"Connection: close\r\n\r\n",
}


class Meter:
    """What sending has cost, over all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds = 0.0
        self.events = 0

    def add(self, seconds: float, events: int) -> None:
        with self._lock:
            self.seconds += seconds
            self.events += events


@functools.lru_cache(maxsize=4)
def answer(framing: str, events: int) -> memoryview:
    return memoryview(_HEADS[framing] + _answer.body(framing, events))


def serve(connection: socket.socket, meter: Meter) -> None:
    """Answer the requests of one connection."""
    received = b""
    with connection, contextlib.suppress(ConnectionError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            while (end := received.find(b"\r\n\r\n")) < 0:
                data = connection.recv(65536)
                if not data:
                    return
                received += data
            head = received[:end].decode("latin-1").lower()
            received = received[end + 4 :]
            length = int(head.partition("\r\ncontent-length:")[2].split("\r\n")[0])
            while len(received) < length:
                data = connection.recv(65536)
                if not data:
                    return
                received += data
            received = received[length:]
            framing, number = head.split()[1].split("/")[1:3]
            whole = answer(framing, int(number))
            started = time.thread_time()
            connection.sendall(whole)
            meter.add(time.thread_time() - started, int(number))
            if framing == _answer.CLOSE:
                return


def main() -> None:
    meter = Meter()
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(
                target=serve, args=(connection, meter), daemon=True
            ).start()

    threading.Thread(target=accept, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()
    print(json.dumps({"seconds": meter.seconds, "events": meter.events}), flush=True)


if __name__ == "__main__":
    main()
