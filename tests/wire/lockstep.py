"""A server that goes on only when it is told to, and bodies laid out byte by byte.

It shares no code with the package or the simulator. `Lockstep` answers one request
after the other with `Reply` objects; each piece of a reply but the first waits for one
`handed_over()`. A client that withholds what came therefore waits for ever: after
PATIENCE seconds the server gives up, says so in `starved`, and the client meets a cut.
"""

import contextlib
import json
import socket
import ssl
import struct
import threading
import zlib
from dataclasses import dataclass

PATIENCE = 25.0
FRAMINGS = ("chunked", "one-chunk", "close", "length")
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One response.

    `fields` are its header lines, `pieces` its body as it goes over the wire. `end` is
    what follows the last piece: "keep" the connection, "fin" or "rst". With `dribble`
    every byte of the head is sent on its own. Without `gated` nothing waits.
    """

    pieces: tuple
    fields: tuple = ()
    end: str = "keep"
    dribble: bool = False
    gated: bool = True

    @property
    def head(self):
        lines = ("HTTP/1.1 200 OK", "Content-Type: text/event-stream", *self.fields)
        return "\r\n".join((*lines, "", "")).encode()


class Lockstep:
    """Serves the replies in order, one connection at a time."""

    def __init__(self, *replies, tls=None):
        self.connections = 0
        self.starved = False
        self._replies = list(replies)
        self._tls = tls
        self._gate = threading.Semaphore(0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="lockstep")
        self._thread.start()

    @property
    def origin(self):
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    def handed_over(self):
        """Let the next piece go."""
        self._gate.release()

    def close(self):
        """End; the client must have closed its connections."""
        self._closing = True
        # Wakes whoever waits, for a piece or for a connection.
        self._gate.release(10_000)
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self._port), timeout=5).close()
        self._thread.join(20)
        self._listener.close()
        assert not self._thread.is_alive()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _serve(self):
        while True:
            sock, _ = self._listener.accept()
            with sock:
                if self._closing:
                    return
                self.connections += 1
                # A client that leaves in the middle is the test's own business.
                with contextlib.suppress(OSError):
                    self._converse(sock)

    def _converse(self, sock):
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            sock = self._tls.wrap_socket(sock, server_side=True)
        with sock:
            while self._replies and read_request(sock):
                reply = self._replies.pop(0)
                if not self._send(sock, reply) or reply.end != "keep":
                    _hang_up(sock, reply.end)
                    return

    def _send(self, sock, reply):
        step = 1 if reply.dribble else len(reply.head)
        for at in range(0, len(reply.head), step):
            sock.sendall(reply.head[at : at + step])
        for number, piece in enumerate(reply.pieces):
            if number and reply.gated and not self._gate.acquire(timeout=PATIENCE):
                self.starved = True
                return False
            if piece:
                sock.sendall(piece)
        if reply.end == "rst" and not self._gate.acquire(timeout=PATIENCE):
            self.starved = True
        return True


def read_request(sock):
    """Read one whole request; return whether one came."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = sock.recv(65536)
        if not data:
            return False
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(body) < length:
        body += sock.recv(65536)
    return True


def _hang_up(sock, end):
    if end == "rst":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        # At once, and below TLS, which would say goodbye.
        socket.socket.close(sock)
    elif isinstance(sock, ssl.SSLSocket):
        sock.unwrap()


def lay_out(parts, framing, *, gzip=False):
    """Return the header fields and the wire pieces of a body given in parts.

    Each piece holds just what is needed to read its part: the CRLF that ends an HTTP
    chunk goes out with the next one, and with gzip each part ends in a sync flush.
    """
    fields = ()
    if gzip:
        fields = ("Content-Encoding: gzip",)
        deflate = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
        parts = [
            deflate.compress(part) + deflate.flush(zlib.Z_SYNC_FLUSH) for part in parts
        ]
        parts[-1] += deflate.flush(zlib.Z_FINISH)
    size = sum(map(len, parts))
    if framing == "close":
        return (*fields, "Connection: close"), list(parts)
    if framing == "length":
        return (*fields, f"Content-Length: {size}"), list(parts)
    fields = (*fields, "Transfer-Encoding: chunked")
    if framing == "one-chunk":
        return fields, [b"%x\r\n" % size + parts[0], *parts[1:-1], parts[-1] + _LAST]
    pieces = [
        (b"\r\n" if number else b"") + b"%x\r\n" % len(part) + part
        for number, part in enumerate(parts)
        if part
    ]
    pieces[len(parts) - 1 :] = [(pieces[len(parts) - 1 :] or [b""])[0] + _LAST]
    return fields, pieces


_LAST = b"\r\n0\r\n\r\n"


def chat_events(texts):
    """Return an answer as the data of its events: all but the last two bring text."""
    frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m"}

    def chunk(delta, finish=None):
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        value = {**frame, "created": 1, "choices": [choice]}
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

    events = [chunk({"content": text}) for text in texts]
    return [*events, chunk({}, "stop"), b"[DONE]"]
