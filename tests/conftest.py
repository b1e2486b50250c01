"""How every test runs: hypothesis without a deadline, and the same in each CI run.

`simulator` and `client` are a server that misbehaves on request, and a client of it.
"""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import settings

from holystream import Client, RetryPolicy
from holystream.simulator import Simulator

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_collection_finish():
    """Let no collection look at what was imported: hundreds of tests ask for one."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def simulator():
    with Simulator(length=30) as server:
        yield server


@pytest.fixture
def client(simulator):
    """A client that tries again soon, and must have all its permits in the end."""
    retry = RetryPolicy(attempts=3, base=0.001, cap=0.002)
    key, url = "sk-0123456789abcdef", simulator.base_url
    with Client(key, base_url=url, model="sim", retry=retry) as made:
        yield made
        statistics = made.pool.statistics()
        assert (statistics.in_use, statistics.queued) == (0, 0)
