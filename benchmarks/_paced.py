"""The server of latency.py: events at a pace, each stamped with the moment it was sent.

It prints its port and serves ``POST /<framing>/<microseconds>/<events>/...`` until the
end of its input. The stamp is CLOCK_MONOTONIC in nanoseconds, which all processes
share, in 20 digits, so that every size is known before anything is sent.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time

import _answer

CHUNKED, CLOSE = _answer.CHUNKED, _answer.CLOSE
ONE_CHUNK, LENGTH = "one-chunk", "length"
FRAMINGS = {
    CHUNKED: "chunked, one event per HTTP chunk",
    ONE_CHUNK: "one big HTTP chunk, trickled",
    CLOSE: "close-delimited",
    LENGTH: "Content-Length",
}
DIGITS = 20
_STAMP = "0" * DIGITS
_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"


def template() -> tuple[bytes, bytes]:
    event = _answer.server_sent_events(1)[1]
    chunk = json.loads(event[len(b"data: ") :])
    chunk["choices"][0]["delta"]["content"] = _STAMP
    text = json.dumps(chunk, ensure_ascii=False, separators=(",", ":"))
    head, _, tail = f"data: {text}\n\n".encode().partition(_STAMP.encode())
    return head, tail


def serve(connection: socket.socket) -> None:
    """Answer the requests of one connection."""
    head, tail = template()
    size = len(head) + DIGITS + len(tail)
    ending = b"".join(_answer.server_sent_events(0)[1:])
    with connection, contextlib.suppress(ConnectionError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while asked := request(connection):
            framing, pace, events = asked[0], int(asked[1]) / 1e6, int(asked[2])
            body = size * events + len(ending)
            before, after = b"", b""
            if framing == CHUNKED:
                framed = "Transfer-Encoding: chunked\r\n"
                before, after = b"%x\r\n" % size, b"\r\n"
                last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(ending), ending)
            elif framing == ONE_CHUNK:
                framed = "Transfer-Encoding: chunked\r\n"
                last = ending + b"\r\n0\r\n\r\n"
            else:
                length = framing == LENGTH
                framed = f"Content-Length: {body}\r\n" if length else ""
                last = ending
            connection.sendall(f"{_HEAD}{framed}\r\n".encode())
            if framing == ONE_CHUNK:
                connection.sendall(b"%x\r\n" % body)
            due = time.monotonic()
            for _ in range(events):
                due += pace
                if pace:
                    time.sleep(max(0.0, due - time.monotonic()))
                stamp = b"%020d" % time.monotonic_ns()
                connection.sendall(before + head + stamp + tail + after)
            connection.sendall(last)
            if framing == CLOSE:
                return


def request(connection: socket.socket) -> list[str] | None:
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0:
        data = connection.recv(65536)
        if not data:
            return None
        received += data
    head = received[:end].decode("latin-1").lower()
    length = int(head.partition("\r\ncontent-length:")[2].split("\r\n")[0])
    while len(received) < end + 4 + length:
        received += connection.recv(65536)
    return head.split()[1].split("/")[1:4]


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
