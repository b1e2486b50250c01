"""Connections that end too early: a FIN is a FIN, a RST is a RST, N bytes are N."""

import json
import random
import socket
import zlib

import pytest
from simulator_client import (
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


def offsets(body):
    """Edges of the first events, one byte around them, and some seeded others."""
    first = body.index(b"\n\n") + 2
    second = body.index(b"\n\n", first) + 2
    spread = random.Random(4).sample(range(len(body)), 6)
    edges = [first - 1, first, first + 1, second]
    return [0, 1, *edges, *spread, len(body) - 1, len(body)]


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("cut", ["fin", "rst"])
def test_the_client_gets_exactly_that_many_bytes(sim, framing, cut):
    body = sim.body(question())
    for offset in offsets(body):
        sim.play(Script(cut_at=offset, cut=cut, framing=framing))
        got = fetch(sim, question())
        assert (got.body, got.end) == (body[:offset], cut)
        assert not got.whole or (framing == "length" and offset == len(body))


def test_a_chunk_is_announced_whole_and_cut_inside(sim):
    body = sim.body(question())
    size = body.index(b"\n\n") + 2
    sim.play(Script(cut_at=10))
    assert fetch(sim).wire_body == b"%x\r\n" % size + body[:10]
    sim.play(Script(cut_at=size))
    assert fetch(sim).wire_body == b"%x\r\n" % size + body[:size] + b"\r\n"


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("gzip", [False, True])
def test_end_is_a_clean_end_of_less(sim, framing, gzip):
    body = sim.body(question())
    for offset in offsets(body):
        sim.play(Script(cut_at=offset, cut="end", framing=framing, gzip=gzip))
        got = fetch(sim)
        assert got.end == "fin"
        assert got.whole == (framing != "close")
        data = zlib.decompressobj(31).decompress(got.body) if gzip else got.body
        assert data == body[:offset]


def test_the_connection_is_good_for_more_after_a_clean_early_end(sim):
    sim.play(Script(cut_at=700, cut="end"))
    with dial(sim) as sock:
        for size in (700, len(sim.body(question()))):
            sock.sendall(request_bytes(question()))
            assert len(read_one(sock).body) == size
    assert sim.connections == 1


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("cut", ["fin", "rst"])
def test_gzip_is_cut_behind_the_same_plain_bytes(sim, framing, cut):
    body = sim.body(question())
    for offset in offsets(body):
        sim.play(Script(cut_at=offset, cut=cut, framing=framing, gzip=True))
        got = fetch(sim)
        unzip = zlib.decompressobj(31)
        assert unzip.decompress(got.body) == body[:offset]
        assert not unzip.eof
        assert got.end == cut
        assert not got.whole


def test_a_cut_behind_the_end_never_comes(sim):
    body = sim.body(question())
    for cut in ("fin", "rst", "end"):
        sim.play(Script(cut_at=len(body) + 1, cut=cut))
        got = fetch(sim)
        assert (got.body, got.end, got.whole) == (body, "fin", True)


def test_a_cut_works_on_plain_bodies_too(sim):
    sim.play(Script(cut_at=5, cut="rst"), Script(cut_at=7, status=503))
    got = fetch(sim, question(stream=False))
    assert (len(got.body), got.end) == (5, "rst")
    got = fetch(sim)
    assert (got.status, len(got.body), got.end) == (503, 7, "fin")
    assert int(got.headers["content-length"]) > 7


def test_a_rst_does_not_overtake_what_was_sent(simulate):
    sim = simulate(text="x" * 60_000)
    body = sim.body(question())
    sim.play(Script(cut_at=len(body) - 1, cut="rst"))
    assert fetch(sim).body == body[:-1]


@pytest.mark.parametrize("cut", ["fin", "rst"])
def test_cut_before_headers(sim, cut):
    sim.play(Script(cut_before_headers=cut))
    got = fetch(sim)
    assert (got.raw, got.end) == (b"", cut)
    assert len(sim.requests) == 1


def test_garbage_instead_of_a_status_line(sim):
    sim.play(Script(garbage_status_line=True))
    got = fetch(sim)
    assert got.raw
    assert not got.raw.startswith(b"HTTP")
    assert got.end == "fin"


@pytest.mark.parametrize("framing", FRAMINGS)
def test_tls_ends_with_or_without_goodbye(simulate, tls_contexts, framing):
    server, client = tls_contexts
    sim = simulate(tls=server)
    assert sim.base_url.startswith("https://")
    body = sim.body(question())
    got = fetch(sim, tls=client)
    assert (got.body, got.end) == (body, "fin")
    sim.play(Script(cut_at=900, framing=framing))
    got = fetch(sim, tls=client)
    assert (got.body, got.end) == (body[:900], "tls")
    sim.play(Script(cut_at=900, cut="rst", framing=framing))
    with dial(sim, client) as sock:
        sock.sendall(request_bytes(question()))
        read_until(sock, lambda got: got.body == body[:900])
        # Below TLS, because ssl reports a RST as an EOF.
        with pytest.raises(ConnectionResetError):
            socket.socket.recv(sock, 1)


def test_a_peer_that_does_not_speak_tls_is_let_go(simulate, tls_contexts):
    sim = simulate(tls=tls_contexts[0])
    with dial(sim) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        read_all(sock)
    assert sim.wait_until(lambda: sim.connections == 1 and not sim.open_connections)
    assert not sim.requests


def test_drop_all_resets_what_lives_now_and_nothing_later(sim):
    sim.play(Script(stall_at=50), Script(stall_headers=True))
    with dial(sim) as one, dial(sim) as two, dial(sim) as idle:
        one.sendall(request_bytes(question()))
        read_until(one, lambda got: len(got.body) == 50)
        two.sendall(request_bytes(question()))
        assert sim.wait_until(lambda: len(sim.requests) == 2 and sim.connections == 3)
        sim.drop_all()
        assert sim.open_connections == 0
        assert [read_all(sock).end for sock in (one, two, idle)] == ["rst"] * 3
    assert fetch(sim).body == sim.body(question())
    sim.drop_all()


def test_drop_all_reaches_a_client_that_does_not_read(simulate):
    sim = simulate(text="x" * 200_000)
    with dial(sim) as sock:
        sock.sendall(request_bytes(question()))
        read_until(sock, lambda got: got.raw)
        sim.drop_all()
        assert read_all(sock).end == "rst"


def test_scripts_are_taken_in_order_and_as_often_as_they_say(simulate):
    sim = simulate(script=[Script(status=500, times=2), Script(status=429)])
    sim.play(Script(status=503, times=0))
    statuses = [fetch(sim).status for _ in range(6)]
    assert statuses == [500, 500, 429, 503, 503, 503]


def test_a_script_without_end_can_be_ended(simulate):
    sim = simulate(script=[Script(status=503, times=0), Script(status=418)])
    assert [fetch(sim).status for _ in range(3)] == [503, 503, 503]
    sim.clear()
    assert fetch(sim).status == 200
    sim.play(Script(status=429))
    assert [fetch(sim).status for _ in range(2)] == [429, 200]


def test_one_script_alone_is_enough(simulate):
    sim = simulate(script=Script(status=418))
    assert [fetch(sim).status for _ in range(2)] == [418, 200]


def test_a_script_in_the_request_takes_none_from_the_queue(sim):
    sim.play(Script(status=500))
    body = sim.body(question())
    got = fetch(sim, X_Simulator="cut_at=120; cut=rst")
    assert (got.body, got.end) == (body[:120], "rst")
    got = fetch(sim, b"", path="/v1/models", method="GET", X_Simulator="status=502")
    assert got.status == 502
    got = fetch(sim, X_Simulator="cutat=1")
    assert got.status == 400
    assert "unknown key 'cutat'" in json.loads(got.body)["error"]["message"]
    assert fetch(sim).status == 500
