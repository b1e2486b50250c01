"""The server of concurrency.py: many streams at one pace, in one process and thread.

It prints its port and serves ``POST /<crowd>/<microseconds>/<events>/...``: headers
and role at once, and the tokens once so many requests have come. Then each stream gets
one per ``microseconds``, evenly spread over that time, stamped as those of _paced.py
are. At the end of its input it prints how late it was itself, in the largest crowd.
"""

from __future__ import annotations

import array
import json
import os
import queue
import resource
import selectors
import socket
import sys
import threading
import time

import _answer
import _paced

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
)
EARLY = 0.0002
"""Seconds that an event may be early: the shortest sleep takes about as long."""


class Paced:
    """A stream, and the bytes that its socket had no room for."""

    __slots__ = ("left", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.left = b""

    def send(self, data: bytes) -> None:
        """Send without waiting; what cannot be sent now goes before the next."""
        data = self.left + data
        try:
            self.left = data[self.sock.send(data) :]
        except BlockingIOError:
            self.left = data
        except ConnectionError:
            self.left = b""


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def accept(listener: socket.socket, crowds: queue.SimpleQueue) -> None:
    """Take requests; hand over each crowd that is complete."""
    role = _HEAD + chunk(_answer.server_sent_events(0)[0])
    waiting: list[Paced] = []
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = _paced.request(sock)
        sock.sendall(role)
        sock.setblocking(False)
        waiting.append(Paced(sock))
        if len(waiting) == int(request[0]):
            crowds.put((waiting, int(request[1]) / 1e6, int(request[2])))
            waiting = []


def pace(streams: list[Paced], gap: float, events: int) -> array.array:
    """Send all events; return by how many seconds each was late."""
    head, tail = _paced.template()
    size = len(head) + _paced.DIGITS + len(tail)
    head, tail = b"%x\r\n" % size + head, tail + b"\r\n"
    late = array.array("d")
    begun = time.monotonic() + gap
    for event in range(events):
        for number, stream in enumerate(streams):
            due = begun + gap * (event + number / len(streams))
            left = due - time.monotonic()
            if left > EARLY:
                time.sleep(left)
            stamp = time.monotonic_ns()
            stream.send(b"%b%020d%b" % (head, stamp, tail))
            late.append(stamp / 1e9 - due)
    end = chunk(b"".join(_answer.server_sent_events(0)[1:])) + b"0\r\n\r\n"
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            stream.send(end)
            selector.register(stream.sock, selectors.EVENT_WRITE, stream)
        while selector.get_map():
            for key, _ in selector.select():
                key.data.send(b"")
                if not key.data.left:
                    selector.unregister(key.data.sock)
                    key.data.sock.close()
    return late


def raise_limit() -> None:
    """Allow as many descriptors as the machine does."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def settle() -> None:
    """Stay on the core that ``BENCH_CORE`` names, if it does."""
    if core := os.environ.get("BENCH_CORE"):
        os.sched_setaffinity(0, {int(core)})


def cores() -> list[int]:
    """Return the cores that this process may use; none where nobody can tell."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0))


def main() -> None:
    raise_limit()
    settle()
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    crowds: queue.SimpleQueue = queue.SimpleQueue()
    said = {"streams": 0}

    def serve() -> None:
        while True:
            streams, gap, events = crowds.get()
            cpu = time.thread_time()
            late = sorted(pace(streams, gap, events))
            if len(streams) >= said["streams"]:
                said["streams"] = len(streams)
                said["p50"] = 1e3 * late[len(late) // 2]
                said["p99"] = 1e3 * late[len(late) * 99 // 100]
                said["cpu"] = (time.thread_time() - cpu) / len(late) * 1e6

    for target, arguments in ((serve, ()), (accept, (listener, crowds))):
        threading.Thread(target=target, args=arguments, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
