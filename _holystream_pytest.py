"""The pytest plugin of holystream: a simulator, a client for it, a clock without sleep.

It lies outside the package because pytest loads it at every start, in every project of
an environment that has holystream: importing the package would cost them all a fifth of
a second. What a fixture needs is imported when a test asks for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holystream import Client
    from holystream.simulator import Simulator
    from holystream.testing import SleeplessClock

_SECONDS = 5.0
"""How long a client of a test waits for a silent server, which never is a slow one."""


@pytest.fixture
def holystream_simulator() -> Iterator[Simulator]:
    """Return a running simulator, a server that streams and fails as it is told.

    Its ``play(Script(...))`` says what the next requests meet, ``requests`` holds what
    was received.
    """
    from holystream.simulator import Simulator

    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def holystream_client(holystream_simulator: Simulator) -> Iterator[Client]:
    """Return a client of ``holystream_simulator``."""
    from holystream import Client

    with Client(
        "hs-simulated-key",
        base_url=holystream_simulator.base_url,
        model="simulator",
        timeout=_SECONDS,
    ) as client:
        yield client


@pytest.fixture
def holystream_clock() -> Iterator[SleeplessClock]:
    """Return a clock under which no stream of this process sleeps between attempts.

    Its ``waits`` holds how long each wait would have been.
    """
    from holystream.testing import SleeplessClock

    with SleeplessClock() as clock:
        yield clock
