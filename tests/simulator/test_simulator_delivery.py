"""How an answer is delivered: framing, pace, silence, drips and pings."""

import threading
import time
import zlib

import pytest
from simulator_client import (
    dechunk,
    dial,
    fetch,
    question,
    read_all,
    read_one,
    read_until,
    request_bytes,
)

from holystream.simulator import Script

FRAMINGS = ("chunked", "one-chunk", "close", "length")


def blocks(body):
    return [block + b"\n\n" for block in body.split(b"\n\n")[:-1]]


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("gzip", [False, True])
def test_every_framing_carries_the_same_body(sim, framing, gzip):
    sim.play(Script(framing=framing, gzip=gzip))
    got = fetch(sim)
    assert got.whole == (framing != "close")
    assert ("transfer-encoding" in got.headers) == ("chunk" in framing)
    assert ("content-length" in got.headers) == (framing == "length")
    assert got.headers.get("content-encoding") == ("gzip" if gzip else None)
    body = sim.body(question())
    if gzip:
        unzip = zlib.decompressobj(31)
        assert unzip.decompress(got.body) == body
        assert unzip.eof
    else:
        assert got.body == body
    if framing == "one-chunk":
        assert len(got.chunks) == 1
    if framing == "chunked" and not gzip:
        assert got.chunks == blocks(body)


def test_gzip_is_flushed_after_each_event(sim):
    sim.play(Script(gzip=True))
    unzip = zlib.decompressobj(31)
    plain = [unzip.decompress(chunk) for chunk in fetch(sim).chunks]
    assert [part for part in plain if part] == blocks(sim.body(question()))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_connections_are_kept_where_the_framing_allows(sim, framing):
    sim.play(Script(framing=framing, times=2))
    with dial(sim) as sock:
        sock.sendall(request_bytes(question()))
        if framing == "close":
            got = read_all(sock)
            assert (got.headers["connection"], got.end) == ("close", "fin")
        else:
            assert read_one(sock).whole
            sock.sendall(request_bytes(question()))
            assert read_one(sock).body == sim.body(question())


@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_a_plain_body_takes_the_framing_asked_for(sim, framing):
    sim.play(Script(framing=framing, status=500))
    got = fetch(sim)
    assert got.whole
    assert ("content-length" in got.headers) == (framing == "length")


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_newlines(sim, newline):
    sim.play(Script(newline=newline))
    want = sim.body(question()).replace(b"\n", newline.encode())
    assert fetch(sim).body == want == sim.body(question(), Script(newline=newline))


def test_rechunking_goes_by_bytes_alone(sim):
    sim.play(Script(rechunk=7), Script(rechunk=7, framing="length"))
    got = fetch(sim)
    assert {len(chunk) for chunk in got.chunks[:-1]} == {7}
    assert got.body == fetch(sim).body == sim.body(question())


def test_a_cut_of_rechunked_bytes(sim):
    sim.play(Script(rechunk=7, cut_at=10))
    body = sim.body(question())
    assert fetch(sim).wire_body == b"7\r\n" + body[:7] + b"\r\n7\r\n" + body[7:10]


def test_bom_and_no_final_blank_line(sim):
    body = sim.body(question())
    sim.play(Script(bom=True, final_blank_line=False, newline="\r\n"))
    got = fetch(sim).body
    assert got == b"\xef\xbb\xbf" + body.replace(b"\n", b"\r\n")[:-2]


def test_latency_comes_before_the_headers(sim):
    sim.play(Script(latency=0.05))
    got = fetch(sim)
    assert got.times[0] - sim.requests[0].at >= 0.05


def test_first_token_comes_between_headers_and_events(sim):
    sim.play(Script(first_token=0.05))
    with dial(sim) as sock:
        sock.sendall(request_bytes(question(), Connection="close"))
        got = read_all(sock)
    assert got.times[-1] - sim.requests[0].at >= 0.05
    assert got.body == sim.body(question())


def test_first_token_holds_for_a_body_without_events(sim):
    sim.play(Script(first_token=0.03, cut_at=0, cut="end"))
    got = fetch(sim)
    assert got.times[-1] - sim.requests[0].at >= 0.03
    assert (got.body, got.whole) == (b"", True)


def test_pace_is_an_absolute_schedule(simulate):
    sim = simulate(length=20)
    sim.play(Script(pace=0.004))
    count = len(blocks(sim.body(question())))
    got = fetch(sim)
    took = got.times[-1] - sim.requests[0].at
    assert took >= 0.004 * (count - 1)
    assert got.chunks == blocks(sim.body(question()))


@pytest.mark.parametrize("framing", FRAMINGS)
def test_each_event_goes_out_alone_and_at_once(simulate, framing):
    """Each next event is let go only after the one before it was read."""
    sim = simulate(length=12)
    gate = threading.Semaphore(0)
    sim.play(Script(gate=gate, framing=framing))
    with dial(sim) as sock:
        sock.sendall(request_bytes(question(), Connection="close"))
        got = read_until(sock, lambda got: b"\r\n\r\n" in got.raw)
        so_far = b""
        for block in blocks(sim.body(question())):
            assert got.body == so_far
            so_far += block
            gate.release()
            read_until(sock, lambda got: got.body == so_far, got)  # noqa: B023
        assert read_all(sock, got).body == so_far


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_stall_begins_behind_that_byte(sim, framing):
    body = sim.body(question())
    edge = body.index(b"\n\n") + 2
    for offset in (0, 1, edge, edge + 9, len(body)):
        sim.play(Script(stall_at=offset, framing=framing))
        with dial(sim) as sock:
            sock.sendall(request_bytes(question()))
            got = read_until(
                sock,
                lambda got: b"\r\n\r\n" in got.raw and len(got.body) >= offset,  # noqa: B023
            )
            assert got.body == body[:offset]
            assert sim.open_connections == 1
        assert sim.wait_until(lambda: not sim.open_connections)


def test_the_earlier_of_stall_and_cut_wins(sim):
    sim.play(Script(stall_at=20, cut_at=10), Script(stall_at=10, cut_at=20))
    assert len(fetch(sim).body) == 10
    with dial(sim) as sock:
        sock.sendall(request_bytes(question()))
        read_until(sock, lambda got: len(got.body) == 10)
        assert sim.open_connections == 1


def test_stalled_headers(sim):
    sim.play(Script(stall_headers=True))
    with dial(sim) as sock:
        sock.sendall(request_bytes(question()))
        assert sim.wait_until(lambda: len(sim.requests) == 1)
        # What a client sends meanwhile does not end the stall.
        sock.sendall(b"more")
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recv(1)
    assert sim.wait_until(lambda: not sim.open_connections)


@pytest.mark.parametrize("framing", ["chunked", "close"])
@pytest.mark.parametrize("gzip", [False, True])
def test_pings_while_waiting_for_an_event(simulate, framing, gzip):
    sim = simulate(text="hi")
    script = Script(
        first_token=0.05, pings=0.01, ping_text="wait", framing=framing, gzip=gzip
    )
    sim.play(script)
    data = fetch(sim).body
    if gzip:
        data = zlib.decompressobj(31).decompress(data)
    body = sim.body(question())
    assert data == b": wait\n\n" * data.count(b": wait") + body
    assert 1 <= data.count(b": wait") <= 4


def test_pings_between_paced_events(simulate):
    sim = simulate(text="hi")
    sim.play(Script(pace=0.03, pings=0.01, newline="\r\n"))
    body = fetch(sim).body
    assert b": ping\r\n\r\n" in body
    assert body.replace(b": ping\r\n\r\n", b"") == sim.body(
        question(), Script(newline="\r\n")
    )


def test_no_ping_before_the_bom_or_inside_an_event(simulate):
    sim = simulate(text="hi")
    sim.play(
        Script(first_token=0.03, pings=0.01, bom=True),
        Script(rechunk=100, pace=0.02, pings=0.01),
    )
    assert fetch(sim).body == sim.body(question(), Script(bom=True))
    data = fetch(sim).body
    assert data.replace(b": ping\n\n", b"") == sim.body(question())


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("rechunk", [None, 50])
def test_pings_keep_coming_in_a_stall_that_begins_after_the_event(
    sim, framing, rechunk
):
    first = blocks(sim.body(question()))[0]
    sim.play(Script(stall_at=30, pings=0.005, framing=framing, rechunk=rechunk))
    with dial(sim) as sock:
        sock.sendall(request_bytes(question()))
        got = read_until(sock, lambda got: got.body.count(b": ping\n\n") >= 3)
        pings = got.body.removeprefix(first)
        assert pings.replace(b": ping\n\n", b"") == b""


def test_pings_do_not_run_over_an_announced_length(simulate):
    sim = simulate(text="hi")
    body = sim.body(question())
    sim.play(Script(stall_at=len(body), pings=0.001, framing="length"))
    with dial(sim) as sock:
        sock.sendall(request_bytes(question()))
        assert read_one(sock).body == body
        sock.settimeout(0.03)
        with pytest.raises(TimeoutError):
            sock.recv(1)


def test_drips(simulate):
    sim = simulate(text="hi")
    sim.play(Script(drip=(100, 0.001)), Script(drip_headers=(20, 0.001)))
    got = fetch(sim)
    assert got.body == sim.body(question())
    writes = len(got.wire_body) // 100
    assert got.times[-1] - sim.requests[0].at >= 0.001 * writes
    got = fetch(sim)
    assert got.body == sim.body(question())
    assert got.times[-1] - sim.requests[1].at >= 0.001 * (len(got.head) // 20)


def test_a_drip_is_cut_and_pinged_like_anything_else(simulate):
    sim = simulate(text="hi")
    sim.play(Script(drip=(50, 0.001), drip_headers=(50, 0.0), cut_at=333, cut="rst"))
    got = fetch(sim)
    assert (len(got.body), got.end) == (333, "rst")
    sim.play(Script(drip_headers=(50, 0.0), stall_at=0, pings=0.01))
    with dial(sim) as sock:
        sock.sendall(request_bytes(question()))
        got = read_until(sock, lambda got: b"ping" in got.raw)
        assert got.body.startswith(b": ping\n\n")


@pytest.mark.parametrize("stall_at", [None, 10])
def test_a_chunk_size_that_never_ends(sim, stall_at):
    sim.play(Script(drip_chunk_size=True, stall_at=stall_at, drip=(1000, 0.001)))
    first = blocks(sim.body(question()))[0] if stall_at else b""
    with dial(sim) as sock:
        sock.sendall(request_bytes(question()))
        got = read_until(sock, lambda got: got.wire_body.endswith(b"0" * 20))
        framed = got.wire_body.rstrip(b"0")
        assert dechunk(framed)[0] == ([first] if stall_at else [])
        assert framed[-2:] == (b"\r\n" if stall_at else b"")


def test_linger_keeps_the_end_back(sim):
    body = sim.body(question())
    sim.play(Script(linger=3600), Script(linger=0.02))
    with dial(sim) as sock:
        sock.sendall(request_bytes(question()))
        got = read_until(sock, lambda got: got.raw and got.body == body)
        assert not got.whole
    got = fetch(sim)
    assert (got.body, got.whole) == (body, True)
    assert got.times[-1] - sim.requests[1].at >= 0.02


def test_pauses_end_in_time_and_not_before(simulate):
    sim = simulate(text="hi")
    sim.play(Script(first_token=0.02, pace=0.0007))
    count = len(blocks(sim.body(question())))
    got = fetch(sim)
    assert got.times[-1] - sim.requests[0].at >= 0.02 + 0.0007 * (count - 1)
    assert got.body == sim.body(question())


def test_tls_paces_pings_and_stalls_as_well(simulate, tls_contexts):
    server, client = tls_contexts
    sim = simulate(tls=server, text="hi")
    sim.play(
        Script(pace=0.002, drip=(40, 0.0), gzip=True), Script(stall_at=0, pings=1e-3)
    )
    got = fetch(sim, tls=client)
    assert zlib.decompressobj(31).decompress(got.body) == sim.body(question())
    with dial(sim, client) as sock:
        sock.sendall(request_bytes(question()))
        read_until(sock, lambda got: got.raw.count(b"ping") >= 2)
    assert sim.wait_until(lambda: not sim.open_connections)


def test_a_healthy_answer_is_not_slowed_down(simulate):
    sim = simulate(text="x" * 20_000)
    want = sim.body(question())
    began = time.monotonic()
    assert fetch(sim).body == want
    assert time.monotonic() - began < 5
