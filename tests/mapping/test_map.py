"""A map: what it takes and hands over, in which order, and how far ahead it works."""

from __future__ import annotations

import inspect
import itertools
import threading

import pytest
from loopback import Reader, client_for, until

from holystream import (
    BadRequest,
    Client,
    Guarantee,
    InvalidRequest,
    MapItem,
    MapResult,
    MemoryJournal,
    PrioritySemaphore,
    QueueFull,
    QueueTimeout,
    StreamCancelled,
    StreamInterrupted,
    StreamInUse,
    StreamOptions,
    Timeouts,
)
from holystream.mapping import MapOptions, runner
from holystream.simulator import Script


def echoes(numbers):
    return [f"echo:{number}" for number in numbers]


def test_complete_waits_for_the_whole_answer(client, sim):
    completion = client.complete("echo:all of it", temperature=0, max_tokens=50)
    assert (completion.text, completion.guarantee) == ("all of it", Guarantee.SINGLE)
    assert sim.requests[-1].json["max_tokens"] == 50


def test_complete_raises_as_a_stream_does(client, sim):
    sim.play(Script(status=400))
    with pytest.raises(BadRequest):
        client.complete("hello")
    with pytest.raises(TypeError, match="colour"):
        client.complete("hello", colour="red")


@pytest.mark.parametrize("call", ["complete", "map"])
def test_what_nobody_has_read_is_written_anew(sim, call):
    """A break behind the first text, and an answer that is another each time."""
    sim.play(Script(cut_at=3000, sampling=True))
    with client_for(sim.base_url, retry=None) as client:
        if call == "complete":
            completion = client.complete("hello")
        else:
            (result,) = client.map(["hello"])
            completion = result.completion
    assert completion.guarantee is Guarantee.RESTARTED
    assert completion.text == sim.generations[-1].text


@pytest.mark.parametrize("where", ["client", "call"])
def test_unless_somebody_has_said_how_it_may_go_on(sim, where):
    sim.play(Script(cut_at=3000, sampling=True, times=0))
    options = {"resume": ("replay",)}
    at_client, at_call = (options, {}) if where == "client" else ({}, options)
    with client_for(sim.base_url, retry=None, **at_client) as client:
        (result,) = client.map(["hello"], **at_call)
        assert isinstance(result.error, StreamInterrupted)
        assert result.partial_text
        with pytest.raises(StreamInterrupted):
            client.complete("hello", **at_call)


def test_each_prompt_has_one_result(client):
    with client.map(echoes(range(50))) as mapped:
        results = list(mapped)
    assert sorted(int(result.text) for result in results) == list(range(50))
    assert all(result.text == str(result.index) for result in results)
    assert all(result.ok and result.item.prompt for result in results)
    assert (mapped.done, mapped.failed, mapped.total) == (50, 0, 50)
    assert list(mapped) == []


@pytest.mark.parametrize("concurrency", [1, 2, 7, None])
def test_in_the_order_of_the_prompts(client, concurrency):
    mapped = client.map(echoes(range(40)), order="input", concurrency=concurrency)
    assert [result.text for result in mapped] == [str(n) for n in range(40)]


def test_as_they_finish(client, sim):
    """The first is held up; the others come, and it comes last."""
    gate = threading.Semaphore(0)
    sim.play(Script(gate=gate))
    with client.map(echoes(range(3)), concurrency=2) as mapped:
        first = next(mapped)
        second = next(mapped)
        gate.release(100)
        third = next(mapped)
    assert {first.index, second.index, third.index} == {0, 1, 2}
    # Two threads: which of them sent first is theirs to say.
    assert third.index in {0, 1}


def test_in_order_a_slow_one_holds_up_the_prompts_too(client, sim, source):
    gate = threading.Semaphore(0)
    sim.play(Script(gate=gate))
    with client.map(iter(source), order="input", concurrency=1) as mapped:
        reader = Reader(lambda: next(mapped))
        until(lambda: sim.requests)
        until(lambda: source.pulled == 2)
        gate.release(100)
        assert reader.ended() is None
        assert reader.result.index == 0


@pytest.mark.parametrize("order", ["done", "input"])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_prompts_are_pulled_a_little_ahead_and_no_more(
    client, source, order, concurrency
):
    with client.map(iter(source), order=order, concurrency=concurrency) as mapped:
        assert source.pulled == 0
        for handed in range(1, 31):
            next(mapped)
            assert handed <= source.pulled <= handed - 1 + 2 * concurrency
        before = source.pulled
        until(lambda: mapped._ends.qsize() == before - mapped._pulled + _open(mapped))
        assert source.pulled == before
    assert source.pulled == before


def _open(mapped):
    """How many ends are to be expected."""
    return mapped._pulled - mapped.done - mapped.failed


def test_no_more_at_a_time_than_it_may(sim, gate):
    with (
        client_for(sim.base_url, pool=PrioritySemaphore(50)) as client,
        client.map(echoes(range(20)), concurrency=5) as mapped,
    ):
        reader = Reader(lambda: list(mapped))
        until(lambda: sim.open_connections == 5)
        until(lambda: client.pool.statistics().in_use == 5)
        assert sim.connections == 5
        assert client.pool.statistics().queued == 0
        gate.release(1000)
        assert reader.ended() is None
        assert len(reader.result) == 20


def test_threads_are_started_as_they_are_needed(client):
    def ours():
        return [one for one in threading.enumerate() if "holystream-map" in one.name]

    with client.map(echoes(range(2)), concurrency=50) as mapped:
        assert ours() == []
        next(mapped)
        assert 1 <= len(ours()) <= 2
        assert all(one.daemon for one in ours())
    assert ours() == []


def test_failures_are_results(client, sim):
    sim.play(Script(status=400, times=1))
    results = list(client.map(echoes(range(10)), concurrency=1))
    assert [result.ok for result in results] == [False] + [True] * 9
    (failed,) = [result for result in results if not result.ok]
    assert isinstance(failed.error, BadRequest)
    assert failed.completion is None
    assert failed.partial_text == ""
    with pytest.raises(BadRequest):
        _ = failed.text


def test_what_is_wrong_with_an_item_is_its_result(client, sim):
    wrong = [
        {"role": "user", "content": "not a list of messages"},
        5,
        None,
        "",
        MapItem("hello", options={"temperature": "hot"}),
        MapItem("hello", options={"colour": "red"}),
        MapItem("hello", options={"stream_id": "not one!"}),
    ]
    results = list(client.map([*wrong, "echo:right"], order="input"))
    kinds = [type(result.error) for result in results]
    assert kinds[-1] is type(None)
    assert set(kinds[:-1]) == {InvalidRequest}
    assert len(sim.requests) == 1


def test_what_a_callback_of_an_item_raises_is_its_result(client):
    def refuse(_):
        raise ValueError("not this one")

    (one, other) = client.map(
        [MapItem("echo:a", options={"on_event": refuse}), "echo:b"], order="input"
    )
    assert isinstance(one.error, ValueError)
    assert other.text == "b"


def test_items_have_ids_and_options_of_their_own(client, sim):
    items = [
        MapItem("echo:a", id=("any", "thing"), options={"model": "other"}),
        MapItem([{"role": "user", "content": "echo:b"}], options={"max_tokens": 9}),
        [{"role": "user", "content": "echo:c"}],
    ]
    results = list(client.map(items, order="input", concurrency=1, max_tokens=7))
    assert [result.text for result in results] == ["a", "b", "c"]
    assert [result.id for result in results] == [("any", "thing"), None, None]
    assert results[0].item is items[0]
    bodies = [request.json for request in sim.requests]
    assert [body["model"] for body in bodies] == ["other", "sim", "sim"]
    assert [body["max_tokens"] for body in bodies] == [7, 9, 7]


def test_progress_is_told_in_the_thread_that_iterates(client, sim):
    told = []
    sim.play(Script(status=400))

    def tell(done, failed, total):
        told.append((done, failed, total))
        assert threading.current_thread() is threading.main_thread()

    list(client.map(echoes(range(5)), concurrency=1, on_progress=tell))
    assert told == [(0, 1, 5), (1, 1, 5), (2, 1, 5), (3, 1, 5), (4, 1, 5)]
    told.clear()
    list(client.map(iter(echoes(range(2))), on_progress=tell))
    assert told == [(1, 0, None), (2, 0, None)]


def test_what_a_progress_callback_raises_costs_no_result(client):
    def tell(done, failed, total):
        if done % 3 == 0:
            raise ValueError(done)

    results, raised = [], []
    with client.map(echoes(range(20)), on_progress=tell) as mapped:
        while True:
            try:
                results.append(next(mapped).index)
            except ValueError as error:
                raised.append(error.args[0])
            except StopIteration:
                break
    assert sorted(results) == list(range(20))
    assert raised == [3, 6, 9, 12, 15, 18]


def test_a_progress_callback_cannot_end_the_results_unseen(client):
    def tell(done, failed, total):
        raise StopIteration

    results, raised = [], []
    with client.map(echoes(range(3)), on_progress=tell) as mapped:
        while len(results) < 3:
            try:
                results.extend(result.index for result in mapped)
            except RuntimeError as error:
                raised.append(str(error))
    assert sorted(results) == [0, 1, 2]
    assert raised == 3 * ["on_progress raised StopIteration"]


def test_the_streams_have_ids_of_the_map(client):
    journal = MemoryJournal()
    named = {"map_id": "mine", "journal": journal}
    mapped = client.map(echoes(range(3)), order="input", **named)
    assert [one.completion.stream_id for one in mapped] == [
        "mine.0",
        "mine.1",
        "mine.2",
    ]
    with client.map(["echo:a"]) as mapped:
        assert next(mapped).completion.stream_id == f"{mapped.map_id}.0"
    journal.close()


def test_an_id_without_a_journal_is_refused_before_a_prompt_is_taken(sim, client):
    prompts = iter(echoes(range(3)))
    with pytest.raises(InvalidRequest, match=r"map_id needs a journal: .*journal="):
        client.map(prompts, map_id="mine")
    assert next(prompts) == "echo:0"
    assert sim.connections == 0


def test_a_batch_is_served_behind_everybody_else(client, gate):
    with client.map(iter(echoes(range(9)))) as mapped:
        reader = Reader(lambda: list(mapped))
        until(lambda: client.pool.statistics().in_use == 4)
        streams = list(mapped._runner._running)
        assert {stream._driver._priority for stream in streams} == {"low"}
        gate.release(1000)
        assert reader.ended() is None


def test_the_queue_of_the_pool_is_left_to_others(sim, gate):
    """Five thousand prompts, four permits, and room for two in the queue."""
    pool = PrioritySemaphore(4, max_queue=2)
    with (
        client_for(sim.base_url, pool=pool) as client,
        client.map(echoes(range(5000)), concurrency=6) as mapped,
    ):
        reader = Reader(lambda: list(itertools.islice(mapped, 50)))
        until(lambda: pool.statistics().queued == 2)
        gate.release(5000)
        assert reader.ended() is None
        assert all(result.ok for result in reader.result)
        assert pool.statistics().refused == 0


def test_a_full_queue_is_waited_for(sim, gate):
    """More threads than places in the queue: nobody fails, all are served."""
    pool = PrioritySemaphore(1, max_queue=0)
    with client_for(sim.base_url, pool=pool) as client:
        mapped = client.map(echoes(range(6)), concurrency=3)
        reader = Reader(lambda: list(mapped))
        until(lambda: pool.statistics().refused)
        gate.release(1000)
        assert reader.ended() is None
        assert sorted(result.text for result in reader.result) == list("012345")


def test_a_queue_in_which_the_map_itself_is_first_is_waited_in(sim, gate):
    """Its own stream has the only permit for longer than a stream would wait."""
    waits = Timeouts(queue=0.01, first_token=30, idle=30)
    with client_for(sim.base_url, pool=PrioritySemaphore(1), timeout=waits) as client:
        mapped = client.map(echoes(range(3)), concurrency=2)
        reader = Reader(lambda: list(mapped))
        until(lambda: client.pool.statistics().timeouts >= 3)
        gate.release(1000)
        assert reader.ended() is None
        assert all(result.ok for result in reader.result)


def test_a_queue_that_others_hold_up_for_good_is_left(sim, source):
    pool = PrioritySemaphore(1)
    waits = Timeouts(queue=0.01)
    results = []
    with client_for(sim.base_url, pool=pool, timeout=waits) as client, pool.acquire():
        mapped = client.map(source, concurrency=3)
        with pytest.raises(QueueTimeout, match="others keep all permits") as ended:
            results.extend(mapped)
    # Once for all that were pulled, not for each batch of them in turn.
    assert len(results) == source.pulled <= 6
    assert f"after {source.pulled} results" in str(ended.value)
    kinds = [type(result.error) for result in results]
    assert set(kinds) <= {QueueTimeout, StreamCancelled}
    assert QueueTimeout in kinds
    assert pool.statistics().timeouts <= 3


def test_a_full_queue_that_others_hold_up_for_good_is_left(sim):
    pool = PrioritySemaphore(1, max_queue=0)
    waits = Timeouts(queue=0.2)
    with (
        client_for(sim.base_url, pool=pool, timeout=waits) as client,
        pool.acquire(),
        client.map(echoes(range(3))) as mapped,
    ):
        assert isinstance(next(mapped).error, QueueFull)
        with pytest.raises(QueueFull, match="others keep all permits"):
            list(mapped)


def test_who_waits_for_room_in_the_queue_is_not_refused_again_and_again(
    sim, monkeypatch
):
    class Watched(PrioritySemaphore):
        asked = 0

        def statistics(self):
            self.asked += 1
            return super().statistics()

    monkeypatch.setattr(runner, "_FULL", 0.001)
    pool = Watched(1, max_queue=0)
    with client_for(sim.base_url, pool=pool) as client:
        held = pool.acquire()
        reader = Reader(lambda: list(client.map(["echo:a"])))
        until(lambda: pool.asked > 20)
        held.release()
        assert reader.ended() is None
        assert [result.text for result in reader.result] == ["a"]
    assert PrioritySemaphore.statistics(pool).refused == 1


def test_one_thread_iterates(client, sim, gate):
    with client.map(echoes(range(4))) as mapped:
        reader = Reader(lambda: list(mapped))
        until(lambda: sim.open_connections == 4)
        with pytest.raises(StreamInUse):
            next(mapped)
        gate.release(1000)
        assert reader.ended() is None
        assert len(reader.result) == 4


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"prompts": "hello"}, "several"),
        ({"prompts": {"prompt": "hello"}}, "several"),
        ({"prompts": 5}, "iterable"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"concurrency": 1.5}, "concurrency"),
        ({"order": "random"}, "order"),
        ({"on_progress": 5}, "on_progress"),
        ({"map_id": "not one!"}, "map_id"),
        ({"map_id": ""}, "map_id"),
        ({"map_id": "m" * 116}, "map_id"),
        ({"priority": "urgent"}, "priority"),
        ({"progress": "yes"}, "progress must be True or False"),
        ({"stream_id": "mine"}, "map_id="),
        ({"temperature": "hot"}, "temperature"),
    ],
)
def test_wrong_arguments_are_refused_at_once(client, arguments, complaint):
    with pytest.raises(InvalidRequest, match=complaint):
        client.map(**{"prompts": ["hello"], **arguments})


@pytest.mark.parametrize(
    ("identity", "options", "complaint"),
    [
        (
            None,
            {"temprature": 0},
            "item 1: there is no option 'temprature': did you mean 'temperature'?",
        ),
        ("b", {"colour": "red"}, "item 1 (id='b'): there is no option 'colour'"),
        (
            7,
            {"max_token": 5},
            "item 1 (id=7): there is no option 'max_token': did you mean 'max_tokens'?",
        ),
        (None, {5: 5}, "item 1: there is no option 5"),
        (None, ["n"], "item 1: options must be a mapping, not list"),
    ],
)
def test_an_option_that_is_none_is_named_with_its_item(
    client, identity, options, complaint
):
    wrong = MapItem("hello", id=identity, options=options)
    good, bad = client.map(["echo:right", wrong], order="input")
    assert good.text == "right"
    assert isinstance(bad.error, InvalidRequest)
    assert str(bad.error) == complaint


def test_there_is_no_other_argument(client):
    with pytest.raises(TypeError, match="colour"):
        client.map(["hello"], colour="red")


def test_the_longest_id_is_one(client):
    journal = MemoryJournal()
    mapped = client.map(["echo:a"], map_id="m" * 115, journal=journal)
    assert [one.ok for one in mapped] == [True]
    journal.close()


def test_options_are_the_arguments_of_a_stream():
    """Typed twice, so that they can be handed on: they must not drift apart."""
    parameters = inspect.signature(Client.stream).parameters
    asked = {
        name: parameter.annotation
        for name, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    typed = {
        name: reference.__forward_arg__
        for name, reference in StreamOptions.__annotations__.items()
    }
    assert typed == asked
    common = set(typed) - {"priority", "stream_id"}
    assert set(MapOptions.__annotations__) == common


def test_results_are_records():
    result = MapResult(index=0, item=MapItem("hello"), error=ValueError("no"))
    with pytest.raises(AttributeError):
        result.index = 1
    assert not result.ok
    assert result.partial_text == ""


def test_an_empty_map(client, sim):
    assert list(client.map([])) == []
    assert sim.requests == ()
