"""A simulator that echoes, a patient client of it, and streams that wait at a gate."""

from __future__ import annotations

import threading

import pytest
from loopback import client_for, nothing_left_behind

from holystream import PrioritySemaphore
from holystream.simulator import Script, Simulator

PERMITS = 4


@pytest.fixture
def sim():
    with nothing_left_behind(), Simulator() as made:
        yield made


@pytest.fixture
def client(sim):
    """A client with few permits, all of which must be there in the end."""
    with client_for(sim.base_url, pool=PrioritySemaphore(PERMITS)) as made:
        yield made
        # Statistics take back what finalisers have returned.
        found = made.pool.statistics()
        assert (found.in_use, found.queued) == (0, 0)


@pytest.fixture
def gate(sim):
    """Holds every answer up, before its first event."""
    made = threading.Semaphore(0)
    sim.play(Script(gate=made, times=0))
    yield made
    made.release(1000)


@pytest.fixture
def source():
    return Source()


class Source:
    """An endless generator of prompts that counts how many were pulled."""

    def __init__(self):
        self.pulled = 0
        self.tail = ""

    def __iter__(self):
        while True:
            self.pulled += 1
            yield f"echo:{self.pulled - 1}{self.tail}"
