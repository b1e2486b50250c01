"""Hooks see every record, harm nobody, and are never called under a lock."""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
import typing
from unittest import mock

import pytest
from made_records import attempt, stream
from prometheus_client import CollectorRegistry

from holystream import telemetry as package
from holystream.errors import ConfigurationError
from holystream.events import Usage
from holystream.telemetry import AttemptRecord, StreamRecord, Telemetry
from holystream.telemetry.logging import log_records
from holystream.telemetry.opentelemetry import OpenTelemetryExporter
from holystream.telemetry.prometheus import PrometheusExporter

KEPT = {
    AttemptRecord: """
        stream_id number provider endpoint model strategy outcome error_type verdict
        phase queued connect first_content duration delay
    """,
    StreamRecord: """
        stream_id provider model response_model endpoint priority outcome error_type
        attempts interruptions strategies guarantee finish_reason queued ttft duration
        recoveries usage total_usage wasted_tokens saved_tokens request_id started_at
    """,
}


@pytest.mark.parametrize("kind", KEPT, ids=lambda kind: kind.__name__)
def test_a_record_has_these_fields_and_no_content(kind):
    """A new field must be one that may be logged, exported and kept for ever."""
    assert [field.name for field in dataclasses.fields(kind)] == KEPT[kind].split()
    hints = typing.get_type_hints(kind, vars(package) | {"Usage": Usage})
    told = {
        str, int, float, str | None, float | None, Usage | None,
        tuple[str, ...], tuple[float, ...],
        package.AttemptOutcome, package.StreamOutcome,
    }  # fmt: skip
    assert set(hints.values()) <= told


@pytest.mark.parametrize("record", [attempt(), stream()])
def test_a_record_is_frozen_and_slotted(record):
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.model = "another"
    assert not hasattr(record, "__dict__")
    with pytest.raises(TypeError):
        type(record)("s-1")


def test_hooks_see_all_in_order_until_they_are_removed():
    telemetry = Telemetry()
    first, second, opened = [], [], []
    remove = telemetry.add_hook(first.append)
    telemetry.add_hook(second.append, opened=lambda *what: opened.append(what))
    told = [attempt(), stream()]
    telemetry.opened("openai", "eu", "gpt-5")
    telemetry.attempt(told[0])
    telemetry.stream(told[1])
    remove()
    remove()
    telemetry.stream(told[1])
    assert first == told
    assert second == [*told, told[1]]
    assert opened == [("openai", "eu", "gpt-5")]


def test_one_hook_twice_is_two_hooks():
    telemetry = Telemetry()
    seen = []
    remove = telemetry.add_hook(seen.append)
    telemetry.add_hook(seen.append)
    telemetry.stream(stream())
    remove()
    telemetry.stream(stream())
    assert len(seen) == 3


def test_what_is_set_again_takes_the_place_of_the_first():
    telemetry = Telemetry()
    first, second, other = [], [], []
    remove = telemetry.set_hook("an exporter", first.append)
    telemetry.set_hook("another", other.append)
    telemetry.set_hook("an exporter", second.append)
    telemetry.stream(stream())
    assert (len(first), len(second), len(other)) == (0, 1, 1)
    remove()
    remove()
    telemetry.stream(stream())
    assert (len(first), len(second), len(other)) == (0, 1, 2)


def injected(function):
    """Call a function with something more, as decorators do."""

    @functools.wraps(function)
    def called(record):
        return function("more", record)

    return called


TAKEN = {
    "a function": lambda record: record,
    "any arguments": lambda *_: None,
    "more with a default": lambda record, seen=(): (record, seen),
    "a partial": functools.partial(lambda seen, record: (seen, record), []),
    "of C": print,
    "of C, without a signature": [].append,
    "a class": type,
    "a mock": mock.Mock(),
    "what a decorator has made fit": injected(lambda more, record: (more, record)),
}
REFUSED = {
    "nothing": None,
    "a text": "x",
    "a number": 3,
    "no argument": lambda: 1,
    "two arguments": lambda record, seen: (record, seen),
    "by name alone": lambda *, record: record,
}


@pytest.mark.parametrize("hook", TAKEN.values(), ids=TAKEN)
def test_what_takes_a_record_is_a_hook(caplog, hook):
    telemetry = Telemetry()
    telemetry.add_hook(hook)
    with caplog.at_level(logging.ERROR, "holystream"):
        telemetry.attempt(attempt())
    assert not caplog.records


@pytest.mark.parametrize("hook", REFUSED.values(), ids=REFUSED)
def test_what_takes_no_record_is_refused_at_once(hook):
    telemetry = Telemetry()
    with pytest.raises(ConfigurationError, match=r"is called with \(record\): "):
        telemetry.add_hook(hook)
    if hook is not None:
        with pytest.raises(ConfigurationError, match=r"\(provider, endpoint, model\)"):
            telemetry.add_hook(print, opened=hook)
    assert repr(telemetry) == "<Telemetry with 0 hooks>"


@pytest.mark.parametrize(
    "attach",
    [
        log_records,
        OpenTelemetryExporter().attach,
        PrometheusExporter(registry=CollectorRegistry()).attach,
    ],
)
def test_who_attaches_to_a_client_is_told_of_its_telemetry(client, attach):
    with pytest.raises(ConfigurationError, match=r"client\.telemetry, not a Client"):
        attach(client)


def test_a_hook_that_raises_is_logged_and_the_others_are_called(caplog):
    telemetry = Telemetry()
    seen = []

    def broken(*_):
        raise RuntimeError("no room on the disk")

    telemetry.add_hook(broken, opened=broken)
    telemetry.add_hook(seen.append)
    with caplog.at_level(logging.ERROR, "holystream"):
        telemetry.opened("openai", "eu", "gpt-5")
        telemetry.attempt(attempt())
        telemetry.stream(stream())
    assert len(seen) == 2
    assert [entry.name for entry in caplog.records] == ["holystream"] * 3
    assert "no room on the disk" in caplog.text
    assert telemetry.metrics().ended == 1


def test_ctrl_c_in_a_hook_goes_through_and_leaves_the_next_ones_alone():
    telemetry = Telemetry()
    struck = []

    def hook(record):
        if not struck:
            struck.append(record)
            raise KeyboardInterrupt

    seen = []
    telemetry.add_hook(hook)
    telemetry.add_hook(seen.append)
    with pytest.raises(KeyboardInterrupt):
        telemetry.stream(stream())
    telemetry.stream(stream())
    assert len(seen) == 1
    assert telemetry.metrics().ended == 2


def test_a_hook_may_ask_from_any_thread():
    telemetry = Telemetry()
    asked = []

    def hook(_):
        asking = threading.Thread(
            target=lambda: asked.append(telemetry.metrics().ended)
        )
        asking.start()
        asking.join(20)
        assert not asking.is_alive()

    telemetry.add_hook(hook)
    telemetry.stream(stream())
    telemetry.stream(stream())
    assert asked == [1, 2]


def test_a_thread_is_in_its_hooks_only_once():
    """As a signal handler does that ends a stream while a hook holds its lock."""
    telemetry = Telemetry()
    lock = threading.Lock()
    seen = []

    def hook(record):
        assert lock.acquire(timeout=20)
        with_it = record.stream_id
        if with_it == "s-1":
            telemetry.stream(stream(stream_id="s-2"))
            telemetry.opened("openai", "eu", "gpt-5")
        seen.append(with_it)
        lock.release()

    telemetry.add_hook(hook, opened=lambda *_: seen.append("opened"))
    telemetry.stream(stream(stream_id="s-1"))
    assert seen == ["s-1", "s-2", "opened"]
    assert not telemetry._telling


def test_threads_are_in_a_hook_at_once():
    telemetry = Telemetry()
    together = threading.Barrier(2)
    telemetry.add_hook(lambda _: together.wait(20))
    threads = [
        threading.Thread(target=telemetry.stream, args=(stream(),)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not together.broken


def test_a_hook_that_removes_itself_and_adds_another():
    telemetry = Telemetry()
    seen = []

    def once(record):
        remove()
        telemetry.add_hook(seen.append)
        seen.append(record)

    remove = telemetry.add_hook(once)
    telemetry.stream(stream())
    telemetry.stream(stream())
    assert len(seen) == 2
