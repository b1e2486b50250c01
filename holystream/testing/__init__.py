"""For the tests of code that uses holystream: clock, faults, recordings.

The pytest plugin brings the fixtures `holystream_simulator`, `holystream_client` and
`holystream_clock`; everything here also works without pytest, and importing it loads
neither pytest nor any web framework. docs/testing.md shows how.
"""

from holystream.testing.flaky import Cut, Stall, flaky_body
from holystream.testing.recording import record
from holystream.testing.replaying import Replay, replay
from holystream.testing.sleepless import SleeplessClock

__all__ = [
    "Cut",
    "Replay",
    "SleeplessClock",
    "Stall",
    "flaky_body",
    "record",
    "replay",
]
