"""A server whose answers are scripted byte by byte, for tests of the EventSource."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import holystream

QUICK = holystream.RetryPolicy(attempts=3, base=0.001, cap=0.001)
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
REFUSED = b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n"
NO_MORE = b"HTTP/1.1 204 No Content\r\n\r\n"


class Request:
    """A request as it came."""

    def __init__(self, sock):
        head = b""
        while b"\r\n\r\n" not in head:
            data = sock.recv(65536)
            if not data:
                raise ConnectionError
            head += data
        head, _, self.body = head.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        self.method, self.path, _ = first.decode().split(" ")
        self.headers = {
            name.lower(): value
            for name, value in (line.split(b": ", 1) for line in lines)
        }
        while len(self.body) < int(self.headers.get(b"content-length", 0)):
            self.body += sock.recv(65536)

    @property
    def last_event_id(self):
        value = self.headers.get(b"last-event-id")
        return None if value is None else value.decode()


class Reset(bytes):
    """An answer after which the connection is reset, not ended."""

    __slots__ = ()


class Server:
    """Answers the n-th connection with the n-th of its answers, the last for ever."""

    def __init__(self, *answers):
        self.answers = answers
        self.requests = []
        self.gone = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/feed"
        self._socks = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._socks.append(sock)
                thread = threading.Thread(target=self._serve, args=(sock,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock):
        with contextlib.suppress(OSError), sock:
            request = Request(sock)
            answer = self.answers[min(len(self.requests), len(self.answers) - 1)]
            self.requests.append(request)
            if callable(answer):
                answer = answer(request)
            sock.sendall(answer)
            if isinstance(answer, Reset):
                linger = struct.pack("ii", 1, 0)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            if answer.endswith(b"hold\n\n"):
                sock.recv(1)
                self.gone.set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._socks:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
