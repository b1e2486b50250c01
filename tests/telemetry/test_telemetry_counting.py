"""What is counted: the same as a simple model counts, from any thread and any fork."""

from __future__ import annotations

import collections
import dataclasses
import gc
import itertools
import json
import os
import pickle
import signal
import threading
import traceback
import weakref

import msgspec
import pytest
from hypothesis import given, strategies as st
from made_records import attempt, failed, notes, stream, tell
from strikes import interrupt, moments

from holystream.events import Usage
from holystream.telemetry import (
    BUCKETS,
    AttemptRecord,
    StreamRecord,
    Telemetry,
    Timing,
)
from holystream.telemetry.tally import MOST_MODELS, OTHER, Opened

FILES = ("telemetry/collecting.py", "telemetry/tally.py", "holystream/gapless.py")


def plain(numbers):
    """Return a counter without its zeros, as a dict."""
    return {key: number for key, number in numbers.items() if number}


class Model:
    """Counts what it is told, as plainly as can be."""

    def __init__(self, told):
        attempts = [note for note in told if isinstance(note, AttemptRecord)]
        streams = [note for note in told if isinstance(note, StreamRecord)]
        self.opened = sum(isinstance(note, tuple) for note in told)
        self.streams = collections.Counter(note.outcome for note in streams)
        self.stream_errors = collections.Counter(
            note.error_type
            for note in streams
            if note.error_type and note.outcome == "error"
        )
        self.attempts = collections.Counter(note.outcome for note in attempts)
        self.attempt_errors = collections.Counter(
            note.error_type
            for note in attempts
            if note.error_type and note.outcome == "failed"
        )
        self.strategies = collections.Counter(
            note.strategy for note in attempts if note.strategy
        )
        self.reconnects = sum(note.number > 1 for note in attempts)
        self.interruptions = sum(note.interruptions for note in streams)
        recoveries = [each for note in streams for each in note.recoveries]
        self.recoveries = len(recoveries)
        self.recovery_seconds = sum(recoveries)
        usages = [note.total_usage or note.usage or Usage() for note in streams]
        self.prompt_tokens = sum(usage.prompt_tokens for usage in usages)
        self.completion_tokens = sum(usage.completion_tokens for usage in usages)
        self.wasted_tokens = sum(note.wasted_tokens for note in streams)
        self.saved_tokens = sum(note.saved_tokens for note in streams)
        self.ttft = [note.ttft for note in streams if note.ttft is not None]
        self.duration = [note.duration for note in streams]
        self.queue_wait = [note.queued for note in streams]

    def agrees_with(self, numbers):
        for name, mine in vars(self).items():
            its = getattr(numbers, name)
            if isinstance(its, Timing):
                assert its.count == len(mine)
                assert its.total == sum(mine)
                assert its.longest == max(mine, default=0.0)
                for bound, below in zip(
                    BUCKETS, itertools.accumulate(its.buckets), strict=False
                ):
                    assert below == sum(each <= bound for each in mine), name
            elif isinstance(mine, dict):
                assert plain(its) == mine, name
            else:
                assert its == mine, name


@given(notes)
def test_any_sequence_is_counted_as_by_a_simple_model(told):
    telemetry = Telemetry()
    for note in told:
        tell(telemetry, note)
    metrics = telemetry.metrics()
    Model(told).agrees_with(metrics)

    def place(note, *names):
        if isinstance(note, tuple):
            note = Opened(*note)
        return tuple(getattr(note, name) for name in names)

    for endpoint, numbers in metrics.endpoints.items():
        of_it = [note for note in told if place(note, "endpoint") == (endpoint,)]
        assert of_it
        Model(of_it).agrees_with(numbers)
    for name, numbers in metrics.models.items():
        of_it = [note for note in told if place(note, "provider", "model") == name]
        assert of_it
        Model(of_it).agrees_with(numbers)
        active = max(0, numbers.opened - numbers.ended)
        assert metrics.active_by_model.get(name, 0) == active
    assert sum(numbers.opened for numbers in metrics.models.values()) == metrics.opened


def test_nothing_yet():
    metrics = Telemetry().metrics()
    assert (metrics.active, metrics.ended, metrics.reconnects) == (0, 0, 0)
    assert metrics.success_rate is None
    assert metrics.mean_time_to_recover is None
    assert (metrics.ttft.mean, metrics.ttft.p50, metrics.ttft.p99) == (None,) * 3


def test_the_rates():
    telemetry = Telemetry()
    for outcome in ["done"] * 3 + ["error", "cancelled", "closed", "abandoned"]:
        telemetry.opened("openai", "eu", "gpt-5")
        telemetry.stream(stream(outcome=outcome, recoveries=(1.0, 2.5)))
    telemetry.opened("openai", "eu", "gpt-5")
    metrics = telemetry.metrics()
    assert metrics.success_rate == 3 / 4
    assert metrics.mean_time_to_recover == 1.75
    assert metrics.active == 1
    assert metrics.active_by_model == {("openai", "gpt-5"): 1}


def test_a_retry_is_counted_by_the_error_before_it():
    telemetry = Telemetry()
    telemetry.attempt(failed(stream_id="s-1", error="Overloaded"))
    telemetry.attempt(failed(stream_id="s-2", error="IdleTimeout"))
    telemetry.metrics()  # what is known of open streams outlives a count
    telemetry.attempt(failed(2, stream_id="s-1", error="ConnectionLost"))
    telemetry.attempt(attempt(number=2, stream_id="s-2"))
    telemetry.attempt(attempt(number=3, stream_id="s-1"))
    telemetry.attempt(failed(stream_id="s-3"))
    telemetry.stream(stream(stream_id="s-3", outcome="error"))
    telemetry.attempt(attempt(number=2, stream_id="s-3"))  # another one of that id
    assert telemetry.metrics().retries == {
        "Overloaded": 1,
        "IdleTimeout": 1,
        "ConnectionLost": 1,
        "unknown": 1,
    }


def test_the_end_of_a_stream_that_went_elsewhere_ends_it():
    telemetry = Telemetry()
    telemetry.opened("openai", "eu", "gpt-5")
    telemetry.stream(stream(endpoint="us"))
    metrics = telemetry.metrics()
    assert metrics.active == 0
    assert metrics.endpoints["eu"].opened == 1
    assert metrics.endpoints["us"].ended == 1


@given(
    st.lists(st.floats(0, 2_000, allow_nan=False, allow_subnormal=False), min_size=1),
    st.sampled_from([0.5, 0.9, 0.99]),
)
def test_a_quantile_is_at_most_a_bucket_off(durations, share):
    telemetry = Telemetry()
    for seconds in durations:
        telemetry.stream(stream(duration=seconds))
    found = telemetry.metrics().duration.quantile(share)
    rank = max(1, -int(-share * len(durations) // 1))
    exact = sorted(durations)[rank - 1]
    bounds = (0.0, *BUCKETS, float("inf"))
    low, high = next(pair for pair in itertools.pairwise(bounds) if exact <= pair[1])
    assert low <= found <= min(high, max(durations))


def test_a_program_that_asks_for_any_model_fills_no_memory():
    telemetry = Telemetry()
    for number in range(MOST_MODELS + 50):
        telemetry.opened("openai", "eu", f"model-{number}")
    for number in range(MOST_MODELS + 40):
        telemetry.stream(stream(endpoint="us", model=f"model-{number}"))
    metrics = telemetry.metrics()
    assert len(metrics.models) == MOST_MODELS + 1
    assert metrics.active_by_model == {("openai", OTHER): 10}


def test_a_name_that_no_page_can_hold_is_made_fit():
    telemetry = Telemetry()
    telemetry.opened("openai", "eu", "\ud800" + "x" * 1_000)
    telemetry.stream(stream(model="\ud800" + "x" * 1_000))
    metrics = telemetry.metrics()
    ((_, model),) = metrics.models
    assert model == "?" + "x" * 199
    assert metrics.active == 0


def test_a_snapshot_stays_as_it_is_and_pickles():
    telemetry = Telemetry()
    telemetry.stream(stream())
    before = telemetry.metrics()
    telemetry.stream(stream())
    assert (before.ended, telemetry.metrics().ended) == (1, 2)
    assert pickle.loads(pickle.dumps(before)) == before


def test_threads_lose_nothing():
    telemetry = Telemetry()
    threads, rounds = 8, 1_000
    together = threading.Barrier(threads + 1)
    told = collections.Counter()
    telemetry.add_hook(lambda record: told.update([type(record).__name__]))

    def work(name):
        together.wait()
        for number in range(rounds):
            identity = f"{name}-{number}"
            telemetry.opened("openai", "eu", "gpt-5")
            telemetry.attempt(failed(stream_id=identity))
            telemetry.attempt(attempt(number=2, stream_id=identity))
            telemetry.stream(stream(stream_id=identity))

    working = [threading.Thread(target=work, args=(name,)) for name in range(threads)]
    for thread in working:
        thread.start()
    together.wait()
    while any(thread.is_alive() for thread in working):
        metrics = telemetry.metrics()
        assert 0 <= metrics.active <= threads
        assert metrics.ended >= metrics.attempts["finished"] - threads
    for thread in working:
        thread.join()
    metrics = telemetry.metrics()
    total = threads * rounds
    assert metrics.streams["done"] == metrics.opened == total
    assert metrics.retries == {"ConnectionLost": total}
    assert metrics.active == 0


def test_what_waits_is_counted_without_being_asked():
    telemetry = Telemetry()
    for _ in range(10_000):
        telemetry.stream(stream())
    assert len(telemetry._waiting) < 1_000


def test_whoever_counts_holds_nobody_up():
    telemetry = Telemetry()
    with telemetry._lock:  # as a thread does that counts
        done = threading.Thread(
            target=lambda: [telemetry.stream(stream()) for _ in range(1_000)]
        )
        done.start()
        done.join(20)
        assert not done.is_alive()
    assert telemetry.metrics().ended == 1_000


@pytest.mark.slow
@pytest.mark.parametrize("work", ["metrics", "stream"])
def test_a_strike_at_any_moment_loses_and_doubles_nothing(work, monkeypatch):
    # Or nearly all moments are those of one loop over the buckets.
    monkeypatch.setattr("holystream.telemetry.tally.BUCKETS", (1.0,))
    for strike in moments(FILES):
        telemetry = Telemetry(batch=2)
        telemetry.attempt(attempt())
        telemetry.metrics()  # there are sums already
        telemetry.attempt(attempt())
        try:
            with strike.by(interrupt):
                if work == "metrics":
                    telemetry.metrics()
                else:
                    telemetry.stream(stream())  # the second: both are counted
        except KeyboardInterrupt:
            pass
        answered = threading.Thread(target=telemetry.metrics, daemon=True)
        answered.start()
        answered.join(20)
        assert not answered.is_alive(), "the lock is held"
        metrics = telemetry.metrics()
        assert metrics.attempts["finished"] == 2
        if work == "stream":
            assert metrics.ended <= 1
            assert strike.struck or metrics.ended == 1


def test_a_handler_that_asks_and_tells_at_any_moment():
    for strike in moments(FILES):
        telemetry = Telemetry(batch=2)
        told = []
        telemetry.add_hook(told.append)

        def handler(telemetry=telemetry):
            telemetry.stream(stream(outcome="cancelled"))
            telemetry.metrics()

        with strike.by(handler):
            telemetry.attempt(attempt())
            telemetry.stream(stream())
        metrics = telemetry.metrics()
        assert metrics.attempts["finished"] == 1
        assert metrics.streams["done"] == 1
        assert metrics.streams["cancelled"] == strike.struck
        assert len(told) == 2 + strike.struck


def in_a_child(work):
    """Do something in a forked child; return what went wrong there, or ""."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # a lock that nobody releases ends it
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
    _, status = os.waitpid(child, 0)
    return complaint or (f"it ended with status {status}" if status else "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_counts_from_zero_with_fresh_locks():
    now = [100.0]
    telemetry = Telemetry(clock=lambda: now[0])
    told = []
    telemetry.add_hook(told.append)
    telemetry.opened("openai", "eu", "gpt-5")
    telemetry.stream(stream(started_at=50.0))
    telemetry.opened("openai", "eu", "gpt-5")
    telemetry.attempt(failed())
    locked, leave = threading.Event(), threading.Event()

    def count():
        with telemetry._lock:
            locked.set()
            leave.wait(20)

    counting = threading.Thread(target=count)
    counting.start()
    assert locked.wait(20)

    def in_the_child():
        assert telemetry.metrics().opened == telemetry.metrics().ended == 0
        before = len(told)
        telemetry.stream(stream(started_at=60.0))  # the parent's
        assert telemetry.metrics().ended == 0
        assert len(told) == before
        telemetry.opened("openai", "eu", "gpt-5")
        telemetry.attempt(attempt(number=2))
        telemetry.stream(stream(started_at=100.0))
        metrics = telemetry.metrics()
        assert (metrics.opened, metrics.ended, metrics.active) == (1, 1, 0)
        assert metrics.retries == {"unknown": 1}
        assert len(told) == before + 2

    complaint = in_a_child(in_the_child)
    leave.set()
    counting.join()
    assert not complaint, complaint
    metrics = telemetry.metrics()
    assert (metrics.opened, metrics.ended, metrics.active) == (2, 1, 1)


def test_nobody_keeps_it_alive():
    gone = weakref.ref(Telemetry())
    gc.collect()
    assert gone() is None


def test_a_snapshot_can_be_sent_to_a_status_page(client):
    client.complete("echo:Hello")
    found = client.metrics()
    assert pickle.loads(pickle.dumps(found)) == found
    told = json.loads(msgspec.json.encode(found.pool))
    assert told["queued_by_priority"]["high"] == 0
    assert dataclasses.asdict(found)["pool"] == told
