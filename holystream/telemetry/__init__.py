"""What happened to the streams of a client, in numbers and names: never their content.

Each attempt and each stream leaves one frozen record, whichever way it ends. They are
counted here and handed to hooks; exporters are hooks.
"""

from __future__ import annotations

from holystream.telemetry.collecting import (
    Due,
    Telemetry,
    due_of_a_stream,
    due_of_an_attempt,
)
from holystream.telemetry.metrics import BUCKETS, Metrics, Numbers, Timing
from holystream.telemetry.records import (
    AttemptOutcome,
    AttemptRecord,
    StreamOutcome,
    StreamRecord,
)

__all__ = [
    "BUCKETS",
    "AttemptOutcome",
    "AttemptRecord",
    "Due",
    "Metrics",
    "Numbers",
    "StreamOutcome",
    "StreamRecord",
    "Telemetry",
    "Timing",
    "due_of_a_stream",
    "due_of_an_attempt",
]
