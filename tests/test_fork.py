"""A client that is forked: the child streams, and the parent's streams go on."""

from __future__ import annotations

import os
import threading
import traceback
import warnings
from pathlib import Path

import pytest
from loopback import (
    Reader,
    certificates,
    client_for,
    nothing_left_behind,
    open_files,
    until,
)

from holystream import PrioritySemaphore, RetryPolicy
from holystream.events import TextDelta
from holystream.simulator import Script, Simulator

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork"),
    # Python 3.12 warns of any fork with threads: which is what is tested here.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]

TEXT = "Two roads diverged in a yellow wood. " * 20


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    return certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["plain", "TLS"])
def sim_and_client(request):
    context, authority = None, True
    if request.param == "TLS":
        context, authority = request.getfixturevalue("tls")
    with (
        nothing_left_behind(),
        Simulator(text=TEXT, tls=context) as sim,
        client_for(sim.base_url, verify=authority, pool=PrioritySemaphore(3)) as client,
    ):
        yield sim, client


def in_a_child(work):
    """Do something in a forked child; return what went wrong there, or ""."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        complaint = ""
        try:
            work()
        except BaseException:  # noqa: BLE001 - it must not get out of the child
            complaint = traceback.format_exc()
        finally:
            os.write(writing, complaint.encode()[-60_000:])
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        complaint = pipe.read().decode()
    os.waitpid(child, 0)
    return complaint


def test_a_client_that_was_used_before(sim_and_client):
    sim, client = sim_and_client
    assert client.stream("hello").get_final_text() == TEXT

    def work():
        for _ in range(3):
            assert client.stream("hello").get_final_text() == TEXT

    assert in_a_child(work) == ""
    # One of the parent's, and one that the child's three streams shared.
    assert sim.connections == 2
    assert client.stream("hello").get_final_text() == TEXT
    assert sim.connections == 2
    assert [request.connection for request in sim.requests] == [1, 2, 2, 2, 1]


def test_a_child_of_a_child(sim_and_client):
    sim, client = sim_and_client
    assert client.stream("hello").get_final_text() == TEXT

    def work():
        assert client.stream("hello").get_final_text() == TEXT
        assert in_a_child(work_too) == ""
        assert client.stream("hello").get_final_text() == TEXT

    def work_too():
        assert client.stream("hello").get_final_text() == TEXT

    assert in_a_child(work) == ""
    assert client.stream("hello").get_final_text() == TEXT
    assert [request.connection for request in sim.requests] == [1, 2, 3, 2, 1]


def test_in_the_middle_of_a_stream(sim_and_client):
    """The child streams beside it, drops its copy of it, and closes the client."""
    sim, client = sim_and_client
    gate = threading.Semaphore(0)
    sim.play(Script(gate=gate))
    streams = [client.stream("hello")]
    gate.release(3)
    first = next(event for event in streams[0] if isinstance(event, TextDelta))

    def work():
        assert client.pool.statistics().in_use == 0
        assert client.stream("hello").get_final_text() == TEXT
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            streams.clear()
        assert client.stream("hello").get_final_text() == TEXT
        client.close()
        assert client.pool.statistics().in_use == 0

    assert in_a_child(work) == ""
    gate.release(10_000)
    text = str(first) + "".join(map(str, streams[0]))
    assert text == TEXT
    assert sim.connections == 2
    assert client.pool.statistics().in_use == 0


@pytest.mark.parametrize("end", ["close", "cancel"])
def test_ending_the_copy_of_a_stream_leaves_the_parents_alone(sim_and_client, end):
    sim, client = sim_and_client
    gate = threading.Semaphore(0)
    sim.play(Script(gate=gate))
    with client.stream("hello") as stream:
        gate.release(3)
        first = next(event for event in stream if isinstance(event, TextDelta))
        assert in_a_child(getattr(stream, end)) == ""
        gate.release(10_000)
        text = str(first) + "".join(map(str, stream))
    assert text == TEXT
    assert sim.connections == 1


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
def test_the_child_holds_no_copy_of_a_connection(sim_and_client):
    """Neither of one that is kept nor of one in use: the server would not miss it."""
    sim, client = sim_and_client
    gate = threading.Semaphore(0)
    sim.play(Script(gate=gate))
    with client.stream("hello") as stream:
        gate.release(3)
        first = next(event for event in stream if isinstance(event, TextDelta))
        assert client.stream("hello").get_final_text() == TEXT
        ours = sockets_to(sim.port)
        assert len(ours) == 2

        def work():
            assert sockets_to(sim.port) == set()
            assert client.stream("hello").get_final_text() == TEXT
            assert len(sockets_to(sim.port)) == 1
            assert not ours & sockets_to(sim.port)

        assert in_a_child(work) == ""
        gate.release(10_000)
        assert str(first) + "".join(map(str, stream)) == TEXT
    assert sim.connections == 3


def test_a_copy_of_a_stream_goes_on_over_a_connection_of_its_own(sim_and_client):
    sim, client = sim_and_client
    gate = threading.Semaphore(0)
    sim.play(Script(gate=gate))
    retry = RetryPolicy(attempts=2, base=0.001, cap=0.002)
    with client.stream("hello", temperature=0, retry=retry) as stream:
        gate.release(3)
        first = next(event for event in stream if isinstance(event, TextDelta))

        def work():
            # What comes of the parent's answer is the parent's: the gate is shut.
            reader = Reader(lambda: str(first) + "".join(map(str, stream)))
            assert reader.ended() is None
            assert reader.result == TEXT

        assert in_a_child(work) == ""
        gate.release(10_000)
        assert str(first) + "".join(map(str, stream)) == TEXT
    assert sim.connections == 2


def sockets_to(port):
    """Return the sockets that this process has connected to a port."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    connected = {
        f"socket:[{row[9]}]" for row in rows if row[2].endswith(f":{port:04X}")
    }
    return connected & {what for _, what in open_files()}


def test_while_other_threads_hold_all_permits_and_wait_for_more(sim_and_client):
    sim, client = sim_and_client
    pool = client.pool
    gate = threading.Semaphore(0)
    sim.play(*[Script(gate=gate)] * 6)
    readers = [Reader(client.stream("hello").get_final_text) for _ in range(6)]
    until(lambda: pool.statistics().queued == 3)
    assert sim.wait_until(lambda: len(sim.requests) == 3)

    def work():
        statistics = pool.statistics()
        assert (statistics.in_use, statistics.queued) == (0, 0)
        # The gates are the parent's simulator's: these answers must not meet them.
        headers = {"X-Simulator": "usage=last"}
        children = [
            Reader(client.stream("hello", extra_headers=headers).get_final_text)
            for _ in range(6)
        ]
        for child in children:
            assert child.ended() is None
            assert child.result == TEXT
        assert pool.statistics().in_use == 0

    assert in_a_child(work) == ""
    assert pool.statistics().in_use == 3
    gate.release(100_000)
    for reader in readers:
        assert reader.ended() is None
        assert reader.result == TEXT
    assert pool.statistics().in_use == 0


def test_many_times_while_threads_are_busy(sim_and_client):
    """Whatever locks the other threads hold at that moment, the child needs none."""
    sim, client = sim_and_client
    done = threading.Event()

    def busy():
        while not done.is_set():
            assert client.stream("hello").get_final_text() == TEXT

    readers = [Reader(busy) for _ in range(3)]
    assert sim.wait_until(lambda: len(sim.requests) > 10)

    def work():
        with client.stream("hello") as stream:
            assert stream.get_final_text() == TEXT

    try:
        for _ in range(20):
            assert in_a_child(work) == ""
    finally:
        done.set()
    for reader in readers:
        assert reader.ended() is None
    assert client.pool.statistics().in_use == 0
