"""A process that may open nothing more: its own fault, and no endpoint's."""

from __future__ import annotations

import contextlib
import os
import resource
import socket

import pytest

from holystream import Client, ConnectionFailed, Endpoint, RetryPolicy, Verdict
from holystream.simulator import Simulator

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
def test_it_is_said_at_once_and_no_endpoint_is_left_for_it(host, spare):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://{host}:{taken.getsockname()[1]}/v1"
        with Client(
            KEY,
            endpoints=[Endpoint(url, name="a")],
            model="sim",
            retry=RetryPolicy(base=0.001, cap=0.002),
        ) as client:
            with none_left(spare), pytest.raises(ConnectionFailed) as caught:
                # The last one is for the socket, and none is left for its handle.
                client.complete("hello")
            (endpoint,) = client.metrics().endpoints
    error = caught.value
    assert "this process has as many files and sockets open as it may" in error.message
    assert "ulimit -n" in error.message
    assert error.verdict is Verdict.FATAL
    assert error.attempts == 1
    assert endpoint.breaker.failed == 0


def test_so_it_is_on_a_connection_that_is_used_again():
    with (
        Simulator() as sim,
        Client(KEY, base_url=sim.base_url, model="sim") as client,
    ):
        client.complete("hello")
        with none_left(), pytest.raises(ConnectionFailed, match="ulimit -n") as caught:
            client.complete("hello")
        assert caught.value.attempts == 1
        assert client.complete("hello").text
