"""Every example of docs/retry_stream.md runs as it stands there, on flaky servers."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from loopback import Peer, read_request, wait_for_end

import holystream
from holystream import ResumePoint, RetriedStream
from holystream.testing import SleeplessClock

TEXT = (Path(__file__).parents[1] / "docs" / "retry_stream.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
BODY = bytes(range(256)) * 1000
ROWS = [f"row {number}\n".encode() for number in range(10)]


def example(marker):
    (code,) = [code for code in EXAMPLES if marker in code]
    return code


def run(marker, **given):
    exec(compile(example(marker), f"{marker} in retry_stream.md", "exec"), given)


@pytest.fixture
def clock():
    with SleeplessClock() as clock:
        yield clock


def download(sock):
    """Answer a range, cut after at most 100 000 bytes."""
    request = read_request(sock).decode().lower()
    start = int(request.partition("bytes=")[2].partition("-")[0])
    rest = BODY[start:]
    status = "206 Partial Content" if start else "200 OK"
    sock.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(rest)}\r\n\r\n".encode())
    sock.sendall(rest[:100_000])


def table(sock):
    """Answer with the rows after the asked one; cut after three, until the last."""
    request = read_request(sock).decode()
    start = int(request.partition("after=")[2].partition(" ")[0])
    rest = b"".join(ROWS[start:])
    sock.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(rest)}\r\n\r\n".encode())
    sock.sendall(b"".join(ROWS[start : start + 3]))


def test_a_download(clock):
    file = io.BytesIO()
    with Peer(download) as peer:
        run("operator.itemgetter(0)", url=peer.url, file=file)
    assert file.getvalue() == BODY
    assert peer.accepted == len(clock.waits) + 1 > 2


def test_rows(clock, capsys):
    with Peer(table) as peer:
        run('print(f"attempt', url=peer.url)
    told = capsys.readouterr().out.splitlines(keepends=True)
    assert "".join(told).startswith("row 0\nrow 1\nrow 2\nattempt 2 from row 3\n")
    assert [line for line in told if line.startswith("row")] == [
        row.decode() for row in ROWS
    ]


def test_policies(clock, capsys):
    run("def letters(*")
    assert capsys.readouterr().out == "abcdef 3\n0 1 2 3 4 5 6 7 8 9\n"


def test_cancel(capsys):
    def endless(sock):
        read_request(sock)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nfirst\nsecond\n")
        wait_for_end(sock)

    with Peer(endless) as peer:
        run("stream.cancel", url=peer.url)
    assert capsys.readouterr().out == "first\nsecond\nthat is enough\n"


def test_methods(capsys):
    run("class Table")
    assert capsys.readouterr().out == "1 2 3 a b c\n"


def test_plain_functions(capsys, monkeypatch):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    answers = iter([b"", b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"])
    fine = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nA\ntitle"

    def serve(sock):
        read_request(sock)
        sock.sendall(next(answers, fine))

    with Peer(serve) as peer:
        run("retry_with(", url=peer.url)
    assert capsys.readouterr().out == "A 3\nA\n"


def test_every_example_is_run_here():
    here = Path(__file__).read_text("utf-8")
    markers = [a or b for a, b in re.findall(r"""run\((?:"([^"]+)"|'([^']+)')""", here)]
    assert {example(marker) for marker in markers} == set(EXAMPLES)


def test_the_tables_are_complete():
    names = set(re.findall(r"`\.?(\w+)(?:\(\w*\))?`", TEXT))
    fields = {name for name in dir(ResumePoint) if not name.startswith("_")}
    assert fields <= names
    members = {*vars(RetriedStream), "attempts", "count", "waited"}
    assert {name for name in members if not name.startswith("_")} <= names
    options = holystream.retry_stream.__kwdefaults__
    assert all(re.search(rf"\b{option}=", TEXT) for option in options)
