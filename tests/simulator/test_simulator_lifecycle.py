"""Beginning and end: nothing is left behind, whatever was going on."""

import selectors
import sys
import threading

import pytest
from loopback import open_files
from simulator_client import (
    BODY,
    dial,
    fetch,
    question,
    read_all,
    read_until,
    request_bytes,
)

from holystream.simulator import Script, Simulator

STALLS = [
    Script(stall_headers=True),
    Script(latency=3600),
    Script(stall_at=0),
    Script(stall_at=100),
    Script(stall_at=100, pings=0.001),
    Script(drip_chunk_size=True),
    Script(drip=(1, 30)),
    Script(drip_headers=(1, 30)),
    Script(first_token=3600),
    Script(pace=3600, gzip=True),
    Script(linger=3600),
    Script(gate=threading.Semaphore(0)),
]


@pytest.mark.parametrize("script", STALLS, ids=str)
@pytest.mark.parametrize("how", ["close", "drop_all", "client"])
def test_a_stall_ends_at_once_and_leaves_no_thread(script, how):
    before = set(threading.enumerate())
    with Simulator(script=script) as sim, dial(sim) as sock:
        sock.sendall(request_bytes(question()))
        assert sim.wait_until(lambda: len(sim.requests) == 1)
        if how == "close":
            sim.close()
            assert read_all(sock).end == "fin"
        elif how == "drop_all":
            sim.drop_all()
            assert read_all(sock).end == "rst"
        else:
            sock.close()
            assert sim.wait_until(lambda: not sim.open_connections)
    assert set(threading.enumerate()) <= before


def test_close_reaches_a_client_that_does_not_read():
    with Simulator(text="x" * 200_000) as sim, dial(sim) as sock:
        sock.sendall(request_bytes(question()))
        read_until(sock, lambda got: got.raw)
        sim.close()


def test_close_reaches_a_handshake_and_a_half_sent_request(tls_contexts):
    with Simulator(tls=tls_contexts[0]) as sim, dial(sim) as sock:
        assert sim.wait_until(lambda: sim.connections == 1)
        sim.close()
        assert read_all(sock).end == "fin"
    with Simulator() as sim, dial(sim) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n1234")
        assert sim.wait_until(lambda: sim.connections == 1)
        sim.close()
        assert not sim.requests


def test_close_may_be_called_again_and_from_many_threads():
    sim = Simulator()
    barrier = threading.Barrier(4)

    def close():
        barrier.wait(20)
        sim.close()

    threads = [threading.Thread(target=close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sim.close()
    sim.drop_all()
    with pytest.raises(ConnectionRefusedError):
        dial(sim)


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_no_descriptor_is_left():
    # The collector may close what another test has left meanwhile.
    before = open_files()
    with Simulator() as sim:
        sim.play(Script(cut_at=9, cut="rst"), Script(cut_at=9), Script(stall_at=9))
        fetch(sim)
        fetch(sim)
        with dial(sim) as sock:
            sock.sendall(request_bytes(question()))
            read_until(sock, lambda got: len(got.body) == 9)
            sim.drop_all()
        fetch(sim)
    assert open_files() <= before


def test_what_it_waits_with_is_open_once_it_is_made(monkeypatch):
    threads = []

    def made(make=selectors.DefaultSelector):
        threads.append(threading.current_thread())
        return make()

    monkeypatch.setattr(selectors, "DefaultSelector", made)
    with Simulator():
        assert threads == [threading.current_thread()]


def test_serve_forever_ends_with_close():
    sim = Simulator()
    thread = threading.Thread(target=sim.serve_forever)
    thread.start()
    fetch(sim)
    sim.close()
    thread.join(20)
    assert not thread.is_alive()


def test_serve_forever_lets_an_interrupt_through(sim, monkeypatch):
    def interrupted(timeout):
        raise KeyboardInterrupt

    monkeypatch.setattr(sim._closed, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sim.serve_forever()


def test_a_text_function_that_hangs_is_named(monkeypatch):
    monkeypatch.setattr("holystream.simulator.server._JOIN", 0.01)
    release, asked = threading.Event(), threading.Event()

    def text(body):
        asked.set()
        release.wait(20)
        return ""

    sim = Simulator(text=text)
    with dial(sim) as sock:
        sock.sendall(request_bytes(question()))
        assert asked.wait(20)
        with pytest.raises(RuntimeError, match="simulator-1"):
            sim.close()
        release.set()
    assert sim.wait_until(lambda: not sim.open_connections)
    sim._alarm.close()


def test_wait_until_gives_up(sim):
    assert not sim.wait_until(lambda: False, timeout=0.01)
    assert sim.wait_until(lambda: True, timeout=0)


def test_connections_are_counted(sim):
    with dial(sim), dial(sim):
        assert sim.wait_until(lambda: sim.connections == sim.open_connections == 2)
    assert sim.wait_until(lambda: sim.open_connections == 0)
    assert sim.connections == 2


def test_its_address(sim, simulate):
    assert sim.base_url == f"http://127.0.0.1:{sim.port}/v1"
    assert sim.base_url in repr(sim)
    with pytest.raises(OSError, match="in use"):
        simulate(port=sim.port)
    other = simulate(host="::1")
    assert other.base_url == f"http://[::1]:{other.port}/v1"


def test_many_clients_at_once_each_get_their_answer(sim):
    count = 100
    barrier = threading.Barrier(count)
    wrong = []

    def client(number):
        body = question(f"number {number}")
        script = Script(pace=0.0001, cut_at=2000 + number, cut="rst")
        barrier.wait(20)
        got = fetch(sim, body, X_Simulator=str(script))
        if (got.body, got.end) != (sim.body(body)[: 2000 + number], "rst"):
            wrong.append((number, len(got.body), got.end))

    threads = [threading.Thread(target=client, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sim.connections == len(sim.requests) == count


def test_concurrent_samples_are_all_different(sim):
    body = {**BODY, "temperature": 1}
    texts = []
    threads = [
        threading.Thread(target=lambda: texts.append(fetch(sim, body).body))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(texts) == {sim.body(body, sample=number) for number in range(8)}
