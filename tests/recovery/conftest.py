"""A simulator that is waited for event by event, and journals to lose streams in."""

from __future__ import annotations

import contextlib
import threading

import pytest
from jobs import client_for
from nursery import Nursery

from holystream.journal.sqlite import SQLiteJournal
from holystream.simulator import Simulator


@pytest.fixture(scope="module")
def nursery():
    """The process that forks children."""
    with Nursery() as made:
        yield made


@pytest.fixture
def sim():
    with Simulator(length=40) as made:
        yield made


@pytest.fixture
def path(tmp_path):
    return tmp_path / "streams.db"


@pytest.fixture
def journal(path):
    with SQLiteJournal(path) as made:
        yield made


@pytest.fixture
def connect(sim, journal):
    """Make clients of the simulator that record in the journal."""
    with contextlib.ExitStack() as stack:

        def made(**options):
            options = {"base_url": sim.base_url, "journal": journal, **options}
            return stack.enter_context(client_for(**options))

        yield made


@pytest.fixture
def client(connect):
    return connect()


@pytest.fixture
def gate():
    """Lets a script's events through, one for each release."""
    return threading.Semaphore(0)
