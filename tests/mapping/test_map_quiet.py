"""A map whose host asks for quiet: its items keep it, and do not fail by it."""

from __future__ import annotations

import importlib
import socket

import pytest
from loopback import client_for

from holystream import (
    CircuitOpen,
    Endpoint,
    MapItem,
    PrioritySemaphore,
    QuotaExceeded,
    RateLimited,
    RetryBudget,
    RetryPolicy,
    StreamCancelled,
    Waiting,
)
from holystream.simulator import Script, Simulator
from holystream.testing import SleeplessClock

mapped = importlib.import_module("holystream.mapping.mapped")


@pytest.fixture
def clock():
    with SleeplessClock() as made:
        yield made


def busy(times, hint="90", status=429):
    headers = {} if hint is None else {"Retry-After": hint}
    return Script(status=status, headers=headers, times=times)


def echoes(count):
    return [f"echo:{number}" for number in range(count)]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("hint", ["1", "90", "700"])
def test_the_items_wait_as_long_as_is_asked(sim, clock, status, hint):
    sim.play(Script(times=10), busy(5, hint, status), Script(times=0))
    budget = RetryBudget(ratio=0, floor=0)
    with (
        client_for(sim.base_url, retry_budget=budget) as client,
        client.map(echoes(30), order="input", concurrency=1) as results,
    ):
        assert [result.text for result in results] == [f"{n}" for n in range(30)]
    assert (budget.statistics().spent, budget.statistics().refused) == (0, 0)
    assert len(sim.requests) == 35
    assert len(clock.waits) == 5
    assert min(clock.waits) >= int(hint)


def test_nothing_is_sent_to_a_host_that_asked_for_quiet(sim, clock):
    sim.play(busy(1), Script(times=0))
    sent, waited = [], []

    def note(event):
        if isinstance(event, Waiting):
            waited.append(event)
            sent.append(len(sim.requests))

    with client_for(sim.base_url) as client:
        with pytest.raises(RateLimited):
            client.complete("echo:first")
        with client.map(["echo:hello"], on_event=note) as results:
            assert [result.text for result in results] == ["hello"]
    assert sent == [1]
    assert [event.reason for event in waited] == ["server hint"]
    assert 60 < waited[0].delay <= 99


def test_the_permits_are_free_meanwhile(sim, clock):
    sim.play(busy(1), Script(times=0))
    free = []

    with client_for(sim.base_url, pool=PrioritySemaphore(1)) as client:

        def note(event):
            if isinstance(event, Waiting):
                before = clock.sleep

                def look(*args):
                    free.append(client.pool.statistics().in_use)
                    before(*args)

                clock.sleep = look

        with client.map(["echo:hello"], on_event=note) as results:
            assert [result.text for result in results] == ["hello"]
    assert free == [0]


def test_no_longer_than_its_deadline(sim, clock):
    sim.play(busy(0))
    with client_for(sim.base_url) as client:
        items = [MapItem("echo:a", options={"deadline": 30.0}) for _ in range(3)]
        errors = [result.error for result in client.map(items, concurrency=1)]
    assert {type(error) for error in errors} == {RateLimited}
    assert "deadline" in errors[0].message
    assert "the deadline passed" in errors[1].message
    assert "asked for quiet" in errors[1].message
    assert errors[1].attempts == 0


def test_what_never_ends_is_not_waited_for_for_ever(sim, source, monkeypatch):
    monkeypatch.setattr(mapped, "OUTAGE", 0.3)
    sim.play(busy(0, "3600"))
    with client_for(sim.base_url) as client:
        results = []
        with (
            pytest.raises(CircuitOpen, match="for a host asks to wait") as ended,
            client.map(source, concurrency=4) as asked,
        ):
            results.extend(asked)
    assert {type(result.error) for result in results} == {StreamCancelled}
    assert len(sim.requests) <= 4
    assert "back" not in str(ended.value)


def test_nor_is_a_budget_that_hardly_refills(sim, source, monkeypatch):
    monkeypatch.setattr(mapped, "OUTAGE", 0.3)
    sim.play(busy(0, None))
    budget = RetryBudget(ratio=0, floor=0.001)
    with (
        client_for(sim.base_url, retry=RetryPolicy(), retry_budget=budget) as client,
        pytest.raises(CircuitOpen, match="for a host asks to wait"),
        client.map(source, concurrency=2) as asked,
    ):
        list(asked)


@pytest.mark.parametrize("hint", ["0", "0.02"])
def test_a_hint_of_next_to_nothing_is_no_leave_to_hurry(sim, clock, hint):
    sim.play(busy(8, hint), Script(times=0))
    with client_for(sim.base_url) as client, client.map(["echo:hello"]) as results:
        assert [result.text for result in results] == ["hello"]
    assert clock.waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_spent_budget_is_waited_for(sim, clock):
    sim.play(busy(12, None), Script(times=0))
    budget = RetryBudget(ratio=0, floor=0.1, clock=clock.now)
    policy = RetryPolicy(attempts=30)
    with client_for(sim.base_url, retry=policy, retry_budget=budget) as client:
        with client.map(["echo:hello"]) as results:
            assert [result.text for result in results] == ["hello"]
        assert budget.statistics().spent == 12
        assert budget.statistics().refused > 0


def test_a_budget_of_nothing_is_not(sim, clock):
    sim.play(busy(0, None))
    budget = RetryBudget(ratio=0.2, floor=0, clock=clock.now)
    policy = RetryPolicy(attempts=30)
    with client_for(sim.base_url, retry=policy, retry_budget=budget) as client:
        (result,) = client.map(["echo:hello"])
    assert "the retry budget is spent" in result.error.message


def test_a_429_without_a_hint_is_an_attempt_all_the_same(sim, clock):
    sim.play(busy(0, None))
    with client_for(sim.base_url, retry=RetryPolicy(attempts=3)) as client:
        (result,) = client.map(["echo:hello"])
    assert "3 attempts" in result.error.message
    assert len(sim.requests) == 3


def test_no_credit_is_not_waited_for(sim, clock):
    error = {"error": {"message": "no credit", "code": "insufficient_quota"}}
    sim.play(Script(status=429, error=error, headers={"Retry-After": "9"}))
    with client_for(sim.base_url) as client:
        (result,) = client.map(["echo:hello"])
    assert isinstance(result.error, QuotaExceeded)
    assert clock.waits == []


def test_another_endpoint_is_asked_meanwhile(sim, clock):
    with Simulator() as other:
        sim.play(busy(0))
        other.play(Script(times=6), busy(1), Script(times=0))
        endpoints = [
            Endpoint(each.base_url, name=name, priority=place)
            for place, (name, each) in enumerate([("a", sim), ("b", other)])
        ]
        with client_for(None, endpoints=endpoints) as client:
            results = client.map(echoes(10), concurrency=1, order="input")
            texts = [result.text for result in results]
    assert texts == [f"{number}" for number in range(10)]
    assert len(other.requests) == 11
    assert len(sim.requests) <= 2


@pytest.mark.parametrize("refusals", [1, 3])
def test_beside_a_dead_endpoint_who_asked_for_quiet_is_waited_for(sim, clock, refusals):
    """Before the last try: until then the dead one may come back."""
    sim.play(busy(refusals), Script(times=0))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        endpoints = [
            Endpoint(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", name="dead"),
            Endpoint(sim.base_url, name="busy", priority=1),
        ]
        with client_for(None, endpoints=endpoints, retry=RetryPolicy()) as client:
            results = client.map(echoes(3), concurrency=1, order="input")
            texts = [result.text for result in results]
    assert texts == ["0", "1", "2"]
    assert len(sim.requests) == 3 + refusals
    assert len([seconds for seconds in clock.waits if seconds > 60]) == refusals


def test_the_other_streams_of_the_client_are_not_patient(sim, clock):
    sim.play(busy(0))
    with client_for(sim.base_url, retry=RetryPolicy()) as client:
        for _ in range(2):
            with pytest.raises(RateLimited, match="more than retry_after_cap=60"):
                client.complete("echo:hello")
    assert len(sim.requests) == 2
    assert clock.waits == []
