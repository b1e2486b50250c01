"""A map with a journal: what it does again, and what it goes on with or hands over."""

from __future__ import annotations

import random

import pytest
from loopback import Reader, client_for, until

from holystream import (
    Guarantee,
    InvalidRequest,
    MapItem,
    MemoryJournal,
    PrioritySemaphore,
    RetryPolicy,
    StreamBusy,
    StreamCancelled,
)
from holystream.journal.sqlite import SQLiteJournal
from holystream.resilience.budget import RetryBudget
from holystream.simulator import Script, Simulator

SOON = RetryPolicy(attempts=6, base=0.001, cap=0.002)


@pytest.fixture(params=["memory", "sqlite"])
def journal(request, tmp_path):
    made = (
        MemoryJournal()
        if request.param == "memory"
        else SQLiteJournal(tmp_path / "streams.db")
    )
    yield made
    made.close()


@pytest.fixture
def client(sim, journal):
    with client_for(sim.base_url, pool=PrioritySemaphore(4), journal=journal) as made:
        yield made
        assert made.pool.statistics().in_use == 0


PROMPTS = [f"echo:{number}" for number in range(10)]
TEXTS = [str(number) for number in range(10)]


def run(client, prompts=PROMPTS, **options):
    options = {"map_id": "m", "order": "input", **options}
    with client.map(prompts, **options) as mapped:
        return list(mapped)


def test_what_was_done_is_handed_over_again(client, sim):
    assert [result.text for result in run(client)] == TEXTS
    again = run(client)
    assert [result.text for result in again] == TEXTS
    assert [result.completion.stream_id for result in again][:2] == ["m.0", "m.1"]
    assert len(sim.requests) == 10


def test_without_an_id_of_its_own_nothing_is(client, sim):
    run(client, map_id=None)
    run(client, map_id=None)
    assert len(sim.requests) == 20


def test_what_failed_is_tried_again(client, sim):
    sim.play(Script(status=400, times=3))
    assert sum(not result.ok for result in run(client)) == 3
    assert [result.text for result in run(client)] == TEXTS
    assert len(sim.requests) == 13


def test_what_was_cancelled_is_tried_again(client, sim, gate):
    mapped = client.map(PROMPTS, map_id="m")
    reader = Reader(lambda: list(mapped))
    until(lambda: sim.open_connections == 4)
    mapped.cancel()
    assert isinstance(reader.ended(), StreamCancelled)
    gate.release(1000)
    assert [result.text for result in run(client)] == TEXTS


def test_what_was_broken_off_is_gone_on_with(sim, journal):
    """A replay that is compared with what was recorded, not a new answer."""
    sim.play(Script(cut_at=3000, times=1))
    once = RetryPolicy(attempts=1)
    with client_for(sim.base_url, journal=journal, retry=once) as client:
        (failed,) = run(client, ["hello"], temperature=0)
        assert not failed.ok
        (result,) = run(client, ["hello"], temperature=0)
    assert result.completion.guarantee is Guarantee.REPLAYED
    assert result.text.startswith(failed.partial_text)
    assert result.text == sim.generations[-1].text


def test_what_a_closed_map_left_is_gone_on_with(client, sim, gate):
    mapped = client.map(["hello"], map_id="m", temperature=0)
    reader = Reader(lambda: list(mapped))
    for _ in range(5):
        gate.release()
    until(lambda: sim.open_connections == 1)
    mapped.close()
    assert reader.ended() is not None
    gate.release(1000)
    (result,) = run(client, ["hello"], temperature=0)
    assert result.text == sim.generations[-1].text


@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        ("echo:another", {}),
        ("echo:0", {"temperature": 0.5}),
        ("echo:0", {"model": "another"}),
        ("echo:0", {"n": 2}),
    ],
)
def test_the_answer_to_something_else_is_not_handed_over(client, sim, prompt, options):
    assert run(client, ["echo:0"])[0].ok
    (result,) = run(client, [MapItem(prompt, options=options)])
    assert isinstance(result.error, InvalidRequest)
    assert "another request" in str(result.error)
    assert len(sim.requests) == 1


def test_one_that_another_has_at_the_moment_is_left_to_it(client, sim, gate):
    with client.map(["echo:0"], map_id="m") as mapped:
        reader = Reader(lambda: list(mapped))
        until(lambda: sim.open_connections == 1)
        (result,) = run(client, ["echo:0"])
        assert isinstance(result.error, StreamBusy)
        gate.release(1000)
        assert reader.ended() is None


def test_a_journal_may_be_given_as_a_path(sim, tmp_path):
    with client_for(sim.base_url) as client:
        path = tmp_path / "map.db"
        assert [one.text for one in run(client, journal=path)] == TEXTS
        assert [one.text for one in run(client, journal=path)] == TEXTS
    assert len(sim.requests) == 10


def test_items_that_wait_for_a_permit_are_recorded_once(sim, journal, gate):
    pool = PrioritySemaphore(1, max_queue=0)
    with client_for(sim.base_url, pool=pool, journal=journal) as client:
        mapped = client.map(PROMPTS, map_id="m", concurrency=3, order="input")
        reader = Reader(lambda: list(mapped))
        until(lambda: pool.statistics().refused)
        gate.release(1000)
        assert reader.ended() is None
        assert [result.text for result in reader.result] == TEXTS
    assert len(journal.streams()) == 10


@pytest.mark.slow
def test_five_hundred_prompts_with_random_cuts_are_all_exact():
    """Every third answer is cut, anywhere, in any way; none is short or doubled."""
    rng = random.Random(4711)
    text = "Every answer is whole, or it says that it is not. " * 4
    prompts = [f"echo:{number} {text}" for number in range(500)]
    scripts = [
        Script(cut_at=rng.randrange(1, 15_000), cut=rng.choice(["fin", "rst", "end"]))
        if rng.random() < 1 / 3
        else Script()
        for _ in range(2000)
    ]
    # So many breaks in a second or two are more than a client should put up with, and
    # six in a row meet one of five hundred prompts now and then.
    retry = RetryPolicy(attempts=40, base=0.001, cap=0.002)
    options = {"retry": retry, "retry_budget": RetryBudget(floor=1000)}
    with Simulator() as sim:
        sim.play(*scripts)
        with client_for(sim.base_url, pool=PrioritySemaphore(20), **options) as client:
            with client.map(prompts, order="input", temperature=0) as mapped:
                results = list(mapped)
            interrupted = sum(one.completion.interruptions for one in results)
            assert client.pool.statistics().in_use == 0
    assert [one.text for one in results] == [
        prompt.removeprefix("echo:") for prompt in prompts
    ]
    assert interrupted > 100
    assert {one.completion.guarantee for one in results} == {
        Guarantee.SINGLE,
        Guarantee.REPLAYED,
    }
