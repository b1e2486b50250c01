"""Records for the tests: plain ones, and any by hypothesis."""

from __future__ import annotations

import dataclasses
from typing import get_args

from hypothesis import strategies as st

from holystream.events import Usage
from holystream.telemetry import (
    AttemptOutcome,
    AttemptRecord,
    StreamOutcome,
    StreamRecord,
)

ATTEMPT = AttemptRecord(
    stream_id="s-1",
    number=1,
    provider="openai",
    endpoint="eu",
    model="gpt-5",
    strategy=None,
    outcome="finished",
    error_type=None,
    verdict=None,
    phase=None,
    queued=0.0,
    connect=0.125,
    first_content=0.25,
    duration=1.5,
    delay=None,
)
STREAM = StreamRecord(
    stream_id="s-1",
    provider="openai",
    model="gpt-5",
    response_model="gpt-5-2026-08-01",
    endpoint="eu",
    priority="NORMAL",
    outcome="done",
    error_type=None,
    attempts=1,
    interruptions=0,
    strategies=(),
    guarantee="SINGLE",
    finish_reason="stop",
    queued=0.0,
    ttft=0.25,
    duration=1.5,
    recoveries=(),
    usage=Usage(prompt_tokens=7, completion_tokens=30, total_tokens=37),
    total_usage=Usage(prompt_tokens=7, completion_tokens=30, total_tokens=37),
    wasted_tokens=0,
    saved_tokens=0,
    request_id="req-1",
    started_at=1_790_000_000.0,
)


def attempt(**changes):
    return dataclasses.replace(ATTEMPT, **changes)


def stream(**changes):
    return dataclasses.replace(STREAM, **changes)


def failed(number=1, error="ConnectionLost", **changes):
    return attempt(
        number=number,
        outcome="failed",
        error_type=error,
        verdict="INTERRUPTED",
        phase="BODY",
        **changes,
    )


# Halves of a power of two, so that sums are exact in any order.
seconds = st.just(0.0) | st.integers(0, 1 << 20).map(lambda number: number / 1024)
names = st.sampled_from(["a", "b", 'q"\\\n', "\N{SNOWMAN}"])
errors = st.sampled_from(["ConnectionLost", "IdleTimeout"])
counts = st.integers(0, 1_000)
stream_ids = st.sampled_from(["s-1", "s-2", "s-3"])
usages = st.none() | st.builds(Usage, prompt_tokens=counts, completion_tokens=counts)
attempts = st.builds(
    attempt,
    stream_id=stream_ids,
    number=st.integers(1, 3),
    provider=names,
    endpoint=names,
    model=names,
    strategy=st.none() | st.sampled_from(["cursor", "prefill"]),
    outcome=st.sampled_from(get_args(AttemptOutcome)),
    error_type=st.none() | errors,
    duration=seconds,
)
streams = st.builds(
    stream,
    stream_id=stream_ids,
    provider=names,
    endpoint=names,
    model=names,
    outcome=st.sampled_from(get_args(StreamOutcome)),
    error_type=st.none() | errors,
    interruptions=st.integers(0, 5),
    queued=seconds,
    ttft=st.none() | seconds,
    duration=seconds,
    recoveries=st.lists(seconds, max_size=3).map(tuple),
    usage=usages,
    total_usage=usages,
    wasted_tokens=counts,
    saved_tokens=counts,
)
opened = st.tuples(names, names, names)
notes = st.lists(opened | attempts | streams, max_size=40)


def tell(telemetry, note):
    """Hand a note in, whichever it is."""
    if isinstance(note, tuple):
        telemetry.opened(*note)
    elif isinstance(note, AttemptRecord):
        telemetry.attempt(note)
    else:
        telemetry.stream(note)
