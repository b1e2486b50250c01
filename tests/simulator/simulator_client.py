"""A client that owns every byte: what the simulator sends is asserted on raw bytes."""

import json
import socket
import time
from dataclasses import dataclass, field

BODY = {
    "model": "m",
    "messages": [{"role": "user", "content": "tell me"}],
    "temperature": 0,
    "stream": True,
}


def question(text="tell me", **fields):
    return {**BODY, "messages": [{"role": "user", "content": text}], **fields}


def request_bytes(body, path="/v1/chat/completions", method="POST", **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    rows = [f"{method} {path} HTTP/1.1", "Host: simulator"]
    rows += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    rows += [f"Content-Length: {len(data)}", "", ""]
    return "\r\n".join(rows).encode() + data


def dial(sim, tls=None):
    sock = socket.create_connection(("127.0.0.1", sim.port), timeout=20)
    if tls is None:
        return sock
    return tls.wrap_socket(
        sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False
    )


@dataclass
class Received:
    """All bytes up to the end of the connection, and how it ended: fin, rst, tls."""

    raw: bytes = b""
    end: str = ""
    times: list = field(default_factory=list)

    @property
    def head(self):
        return self.raw.partition(b"\r\n\r\n")[0]

    @property
    def wire_body(self):
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def status(self):
        return int(self.head.split(b" ")[1])

    @property
    def headers(self):
        rows = self.head.decode("latin-1").split("\r\n")[1:]
        return {row.partition(":")[0].lower(): row.partition(": ")[2] for row in rows}

    @property
    def chunks(self):
        return dechunk(self.wire_body)[0]

    @property
    def body(self):
        """The body as far as it came, without its framing."""
        if "chunked" in self.headers.get("transfer-encoding", ""):
            return b"".join(dechunk(self.wire_body)[0])
        return self.wire_body

    @property
    def whole(self):
        """Whether the framing says that the body is complete."""
        if "chunked" in self.headers.get("transfer-encoding", ""):
            return dechunk(self.wire_body)[1]
        return len(self.wire_body) == int(self.headers.get("content-length", -1))


def dechunk(data):
    """Return the chunks (the last one may be short) and whether the end was seen."""
    chunks, at = [], 0
    while (line_end := data.find(b"\r\n", at)) >= 0:
        size, at = int(data[at:line_end], 16), line_end + 2
        end = data[at + size : at + size + 2]
        assert end in (b"", b"\r", b"\r\n")
        if not size:
            assert len(data) <= at + 2
            return chunks, end == b"\r\n"
        chunks.append(data[at : at + size])
        if end != b"\r\n":
            break
        at += size + 2
    return chunks, False


def read_all(sock, received=None):
    """Read until the connection ends."""
    received = received or Received()
    while True:
        try:
            data = sock.recv(65536)
        except ConnectionResetError:
            received.end = "rst"
            return received
        except OSError as error:
            received.end = "tls" if "EOF" in str(error) else repr(error)
            return received
        if not data:
            received.end = "fin"
            return received
        received.raw += data
        received.times.append(time.monotonic())


def read_until(sock, condition, received=None):
    """Read until `condition(received)` holds; the connection must not end first."""
    received = received or Received()
    while not condition(received):
        data = sock.recv(65536)
        assert data, f"ended after {received.raw!r}"
        received.raw += data
        received.times.append(time.monotonic())
    return received


def read_one(sock):
    """Read one whole response and leave the connection open."""
    return read_until(sock, lambda got: b"\r\n\r\n" in got.raw and got.whole)


def fetch(sim, body=None, tls=None, **headers):
    """Send one request on a connection of its own and read to its end."""
    headers.setdefault("Connection", "close")
    with dial(sim, tls) as sock:
        sock.sendall(request_bytes(question() if body is None else body, **headers))
        return read_all(sock)


def events(body):
    """Return the JSON of the data lines; LF line endings."""
    assert body.endswith(b"\n\n")
    blocks = body.decode().removesuffix("\n\n").split("\n\n")
    assert all(block.startswith("data: ") for block in blocks)
    lines = [block.removeprefix("data: ") for block in blocks]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def text_of(chunks, index=0, key="content"):
    return "".join(
        choice["delta"].get(key) or ""
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["index"] == index
    )
