"""A map in an outage: its items wait for the breaker, and do not fail by it."""

from __future__ import annotations

import dataclasses
import importlib
import threading

import pytest
from loopback import PATIENT, SOON, Reader, client_for, until

from holystream import (
    BreakerPolicy,
    CircuitOpen,
    ConfigurationError,
    Connected,
    InvalidRequest,
    MapItem,
    MemoryJournal,
    Overloaded,
    PrioritySemaphore,
    StreamCancelled,
    Timeouts,
    Verdict,
    Waiting,
)
from holystream.mapping.runner import ThreadRunner
from holystream.simulator import Script

mapped = importlib.import_module("holystream.mapping.mapped")

BRIEF = BreakerPolicy(open_for=0.05, open_cap=0.05, jitter=0.0)
LONG = BreakerPolicy(open_for=500.0, jitter=0.0)


def opened(client):
    """Open the breaker of a client's only endpoint, as by the failures of others."""
    (breaker,) = client._router.breakers.values()
    while breaker.retry_after == 0.0:
        breaker.acquire().failed(Verdict.NOT_SENT)
    return breaker


def made(sim, breaker, **options):
    pool = PrioritySemaphore(4)
    return client_for(sim.base_url, pool=pool, breaker=breaker, **options)


def test_the_items_are_asked_once_it_is_willing(sim):
    with made(sim, BRIEF) as client:
        opened(client)
        with client.map([f"echo:{n}" for n in range(20)], order="input") as results:
            assert [result.text for result in results] == [f"{n}" for n in range(20)]


def test_they_are_asked_as_soon_as_another_stream_has_closed_it(sim, holystream_clock):
    with made(sim, LONG) as client:
        breaker = opened(client)
        waited = []

        def mend(event):
            if isinstance(event, Waiting):
                waited.append(event)
                if len(waited) == 3:
                    breaker.reset()

        with client.map(["echo:hello"], on_event=mend) as results:
            assert [result.text for result in results] == ["hello"]
        assert {event.reason for event in waited} == {"circuit open"}
        assert max(event.delay for event in waited) <= 5.0
        assert len(waited) == 3


def test_the_wait_for_a_breaker_is_no_wait_for_a_permit(sim, holystream_clock):
    """Where the queue is full for a moment when the outage is over."""

    class Pool(PrioritySemaphore):
        asked = 0

        def statistics(self):
            self.asked += 1
            if self.asked == 2:  # by the refusal, and then whether there is room
                held.release()
            return super().statistics()

    pool = Pool(1, max_queue=0)
    held = pool.acquire()
    waits = dataclasses.replace(PATIENT, queue=4.0)
    with client_for(sim.base_url, pool=pool, breaker=LONG, timeout=waits) as client:
        breaker = opened(client)
        with client.map(
            ["echo:hello"],
            on_event=lambda event: isinstance(event, Waiting) and breaker.reset(),
        ) as results:
            assert [result.text for result in results] == ["hello"]
    assert pool.asked == 2


def test_no_outage_is_what_has_no_prompts_yet(sim, monkeypatch):
    asked = threading.Event()

    def prompts():
        yield mapped.LATER
        asked.set()
        yield mapped.LATER
        # It has waited now, and was woken.
        monkeypatch.setattr(mapped, "OUTAGE", 1800.0)
        yield "echo:hello"

    monkeypatch.setattr(mapped, "OUTAGE", 1e-9)
    with made(sim, BRIEF) as client, client.map(prompts()) as results:
        reader = Reader(lambda: list(results))
        assert asked.wait(SOON)
        results._wake()
        assert reader.ended() is None
        assert [result.text for result in reader.result] == ["hello"]


def test_it_can_be_cancelled_while_it_has_no_prompts_yet(sim):
    asked = threading.Event()

    def prompts():
        asked.set()
        while True:
            yield mapped.LATER

    with made(sim, BRIEF) as client, client.map(prompts()) as results:
        reader = Reader(lambda: list(results))
        assert asked.wait(SOON)
        results.cancel()
        assert isinstance(reader.ended(), StreamCancelled)


def test_an_endless_input_is_not_drained(sim, source):
    with made(sim, LONG) as client:
        opened(client)
        with client.map(source, concurrency=4) as results:
            reader = Reader(lambda: list(results))
            until(lambda: source.pulled >= 4)
            until(lambda: len(results._runner._running) == 4)
            assert (results.done, results.failed) == (0, 0)
            results.cancel()
            assert isinstance(reader.ended(), StreamCancelled)
            assert source.pulled <= 8


def test_no_longer_than_its_deadline(sim):
    with made(sim, LONG) as client:
        opened(client)
        item = MapItem("echo:hello", options={"deadline": 0.3})
        (result,) = client.map([item])
    assert isinstance(result.error, CircuitOpen)
    assert "the deadline passed" in result.error.message


def test_a_host_that_never_comes_back_is_not_waited_for_for_ever(
    sim, source, monkeypatch
):
    monkeypatch.setattr(mapped, "OUTAGE", 0.2)
    with made(sim, LONG) as client:
        opened(client)
        results = []
        with (
            pytest.raises(CircuitOpen, match="no item was answered in") as ended,
            client.map(source, concurrency=4) as asked,
        ):
            results.extend(asked)
        assert "when the host is back" in str(ended.value)
        assert {type(result.error) for result in results} == {StreamCancelled}
        assert len(results) == source.pulled <= 8
        assert sim.requests == ()


def test_nor_where_each_probe_costs_an_item(sim, source, monkeypatch):
    def hurry(*_):
        # Not before the first has failed, however long that takes here.
        monkeypatch.setattr(mapped, "OUTAGE", 0.5)

    sim.play(Script(status=503, times=0))
    with made(sim, BRIEF) as client:
        results = []
        asked = client.map(source, concurrency=4, on_progress=hurry)
        with pytest.raises(CircuitOpen), asked:
            results.extend(asked)
        kinds = {type(result.error) for result in results}
        assert kinds == {Overloaded, StreamCancelled}


def test_an_item_that_may_be_silent_for_longer_is_waited_for(sim, monkeypatch):
    patient = Timeouts(first_token=mapped.OUTAGE + SOON)
    monkeypatch.setattr(mapped, "OUTAGE", 0.0)
    sim.play(Script(latency=0.2))
    with made(sim, LONG) as client, client.map(["echo:a"], timeout=patient) as results:
        assert [result.text for result in results] == ["a"]


def test_so_is_one_that_may_be_by_its_own_options(sim, monkeypatch):
    """And one whose options are wrong is no more than a result."""
    patient = Timeouts(first_token=mapped.OUTAGE + SOON)
    monkeypatch.setattr(mapped, "OUTAGE", 0.0)
    sim.play(Script(latency=0.2))
    own = [{"timeout": patient}, {"timeout": "long"}, "nonsense"]
    items = [MapItem("echo:a", options=options) for options in own]
    with made(sim, LONG) as client, client.map(items, order="input") as results:
        answered, *wrong = results
    assert answered.text == "a"
    assert [type(each.error) for each in wrong] == [ConfigurationError, InvalidRequest]


def test_an_answer_that_takes_longer_is_waited_for(sim, monkeypatch):
    gate, begun, looks = threading.Semaphore(0), threading.Event(), []
    sim.play(Script(gate=gate))

    def look(runner):
        looks.append(answering(runner))
        if len(looks) == 5:
            gate.release(1000)
        return looks[-1]

    answering = ThreadRunner.answering.fget
    monkeypatch.setattr(ThreadRunner, "answering", property(look))

    def connected(event):
        if isinstance(event, Connected):
            begun.set()

    def prompts():
        yield MapItem("echo:long", options={"on_event": connected})
        assert begun.wait(SOON)
        monkeypatch.setattr(mapped, "OUTAGE", 0.01)
        yield "echo:short"

    with made(sim, LONG) as client, client.map(prompts()) as results:
        assert [result.text for result in results] == ["short", "long"]
    assert looks[:5] == 5 * [True]


@pytest.mark.parametrize(
    ("script", "answers"),
    [
        (Script(), True),
        (Script(status=400), True),
        (Script(cut_at=2000), True),
        (Script(status=503), False),
        (Script(cut_before_headers="rst"), False),
    ],
)
def test_it_is_known_whether_a_host_answers(sim, script, answers):
    sim.play(script)
    with client_for(sim.base_url, resume=()) as client:
        with client.map(["echo:" + 30 * "hello "]) as results:
            list(results)
        assert (results._in_vain == 0.0) == answers


def test_what_was_forced_open_is_not_waited_for(sim):
    with made(sim, LONG) as client:
        client._router.breakers[next(iter(client._router.breakers))].force_open()
        (result,) = client.map(["echo:hello"])
    assert isinstance(result.error, CircuitOpen)


def test_an_item_of_an_earlier_map_is_waited_for_too(sim):
    journal = MemoryJournal()
    with made(sim, BRIEF, journal=journal) as client:
        # As a process leaves it that ends before its answer.
        with client.stream("echo:hello", stream_id="m.0") as stream:
            next(stream)
        opened(client)
        with client.map(["echo:hello"], map_id="m") as results:
            assert [result.text for result in results] == ["hello"]
    journal.close()


def test_the_other_streams_of_the_client_are_not_patient(sim):
    with made(sim, LONG) as client:
        opened(client)
        with client.map(["echo:hello"]), pytest.raises(CircuitOpen):
            client.complete("echo:hello")
