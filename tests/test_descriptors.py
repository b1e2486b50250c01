"""A process that may open nothing more: its own fault, and no endpoint's."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading

import pytest
from loopback import SOON, Reader, client_for

from holystream import (
    BreakerPolicy,
    Client,
    Connected,
    ConnectionFailed,
    Endpoint,
    RetryBudget,
    RetryPolicy,
    Verdict,
    Waiting,
    clocks,
)
from holystream.simulator import Script, Simulator

KEY = "sk-0123456789abcdef"


@contextlib.contextmanager
def none_left(spare=0):
    """Let the process have so many more files, and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.dup(1)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 50, hard))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(1))
        for _ in range(spare):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("spare", [0, 1])
def test_it_is_tried_again_and_said_and_no_endpoint_is_left_for_it(host, spare):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://{host}:{taken.getsockname()[1]}/v1"
        with Client(
            KEY,
            endpoints=[Endpoint(url, name="a")],
            model="sim",
            retry=RetryPolicy(attempts=3, base=0.001, cap=0.002),
            breaker=BreakerPolicy(failures=1),
        ) as client:
            with none_left(spare), pytest.raises(ConnectionFailed) as caught:
                # The last one is for the socket, and none is left for its handle.
                client.complete("hello")
            (endpoint,) = client.metrics().endpoints
    error = caught.value
    assert "this process has as many files and sockets open as it may" in error.message
    assert "ulimit -n" in error.message
    assert error.verdict is Verdict.NOT_SENT
    assert (error.attempts, error.exhausted) == (3, True)
    assert "Gave up: 3 attempts" in error.message
    assert endpoint.breaker.failed == 0


def test_so_it_is_on_a_connection_that_is_used_again():
    with (
        Simulator() as sim,
        client_for(sim.base_url) as client,
    ):
        client.complete("hello")
        with none_left(), pytest.raises(ConnectionFailed, match="ulimit -n") as caught:
            client.complete("hello")
        assert caught.value.verdict is Verdict.NOT_SENT
        assert client.complete("hello").text


def freed_after(waits):
    """Leave none until so many waits were told; return how to tell, and the list."""
    told = []
    stack = contextlib.ExitStack()

    def note(event):
        if isinstance(event, Waiting):
            told.append(event)
            if len(told) == waits:
                stack.close()

    stack.enter_context(none_left())
    return note, told, stack


def test_a_stream_goes_on_where_it_would_have_gone(holystream_clock):
    with Simulator() as sim, Simulator() as other:
        endpoints = [
            Endpoint(sim.base_url, name="a"),
            Endpoint(other.base_url, name="b", priority=1),
        ]
        with Client(KEY, endpoints=endpoints, model="sim") as client:
            note, told, stack = freed_after(3)
            with stack:
                done = client.stream("hello", on_event=note).get_final_completion()
    assert (done.endpoint, done.attempts, len(told)) == ("a", 4, 3)


def test_nor_is_a_server_left_that_keeps_the_rest_of_an_answer(holystream_clock):
    text = "It goes on and on. " * 30
    with (
        Simulator(text=lambda _: text) as sim,
        Simulator(text=lambda _: text) as other,
    ):
        sim.play(Script(ids="named", cut_at=4000), Script(ids="named", times=0))
        endpoints = [
            Endpoint(sim.base_url, name="a"),
            Endpoint(other.base_url, name="b", priority=1),
        ]
        with Client(KEY, endpoints=endpoints, model="sim") as client:
            stream = client.stream("hello", temperature=0)
            while not isinstance(next(stream), Waiting):
                pass
            with none_left():
                while not isinstance(next(stream), Waiting):
                    pass
            done = stream.get_final_completion()
    assert (done.endpoint, done.text, str(done.guarantee)) == ("a", text, "VERBATIM")


def test_an_item_of_a_map_waits_for_those_of_the_other_streams(holystream_clock):
    gate, budget = threading.Semaphore(0), RetryBudget(ratio=0, floor=0)
    with (
        Simulator(script=[Script(gate=gate), Script(times=0)]) as sim,
        client_for(sim.base_url, retry_budget=budget) as client,
        client.stream("echo:held") as held,
    ):
        while not isinstance(next(held), Connected):
            pass
        note, told, stack = freed_after(20)
        with stack, client.map(["echo:hello"], on_event=note) as results:
            (result,) = results
        gate.release(1_000_000)
    assert (result.text, result.completion.attempts, len(told)) == ("hello", 21, 20)
    assert {event.reason for event in told} == {"backoff"}
    assert budget.statistics().spent == 0


def test_it_goes_on_once_one_of_them_has_ended(monkeypatch):
    monkeypatch.setattr(clocks, "LOOK", 0.002)
    gate, waiting = threading.Semaphore(0), threading.Event()

    def note(event):
        if isinstance(event, Waiting):
            assert event.delay == 400
            waiting.set()

    with (
        Simulator(script=[Script(gate=gate), Script(times=0)]) as sim,
        client_for(
            sim.base_url, retry=RetryPolicy(base=400, cap=400, jitter=None)
        ) as client,
        client.stream("echo:held") as held,
    ):
        while not isinstance(next(held), Connected):
            pass
        with client.map(["echo:hello"], on_event=note) as results:
            with none_left():
                reader = Reader(lambda: [result.text for result in results])
                assert waiting.wait(SOON)
            gate.release(1_000_000)
            held.until_done()
            assert reader.ended() is None
    assert reader.result == ["hello"]


def test_it_does_not_where_nobody_will_give_any_back(holystream_clock):
    with (
        Simulator() as sim,
        client_for(sim.base_url, retry=RetryPolicy(attempts=3)) as client,
        none_left(),
        client.map(["echo:hello"]) as results,
    ):
        (result,) = results
    assert isinstance(result.error, ConnectionFailed)
    assert (result.error.attempts, result.error.exhausted) == (3, True)
