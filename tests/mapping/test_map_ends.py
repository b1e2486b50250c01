"""How a map ends before its time: from anywhere, at once, with nothing left behind."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import threading
import weakref

import pytest
from loopback import SOON, Reader, client_for, ctrl_c, until
from strikes import moments

from holystream import (
    MapItem,
    PrioritySemaphore,
    RetryPolicy,
    Stream,
    StreamCancelled,
    StreamClosed,
    StreamState,
    TextDelta,
)
from holystream.simulator import Script


def threads():
    return {one for one in threading.enumerate() if "holystream-map" in one.name}


def gone(client):
    """Whether nothing of a map is left."""
    return not threads() and client.pool.statistics().in_use == 0


def waiting_for_headers(sim, client):
    sim.play(Script(stall_headers=True, times=0))
    return lambda: sim.open_connections == 4 and client.pool.statistics().in_use == 4


def waiting_for_text(sim, client):
    sim.play(Script(stall_at=0, times=0))
    return lambda: sim.open_connections == 4 and client.pool.statistics().in_use == 4


def amid_the_text(sim, client):
    sim.play(Script(stall_at=2000, times=0))
    return lambda: sim.open_connections == 4 and client.pool.statistics().in_use == 4


def waiting_to_try_again(sim, client):
    sim.play(Script(status=503, headers={"retry-after": "50"}, times=0))
    return lambda: waiting_streams() == 4 and client.pool.statistics().in_use == 0


def waiting_streams():
    """Count those that wait, also those that sent nothing, for the host wants quiet."""
    found = [each for each in gc.get_objects() if type(each) is Stream]
    return sum(each.state is StreamState.WAITING for each in found)


def waiting_for_permits(sim, client):
    held = [client.pool.acquire() for _ in range(4)]
    weakref.finalize(client.pool, held.clear)
    client.held = held
    return lambda: client.pool.statistics().queued == 4


def waiting_for_a_full_queue(sim, client):
    held = [client.pool.acquire() for _ in range(4)]
    others = [
        Reader(lambda: client.pool.acquire(timeout=SOON).release()) for _ in range(40)
    ]
    client.held, client.others = held, others
    until(lambda: client.pool.statistics().queued == 40)
    return lambda: client.pool.statistics().refused >= 4


STATES = [
    *(waiting_for_headers, waiting_for_text, amid_the_text),
    *(waiting_to_try_again, waiting_for_permits, waiting_for_a_full_queue),
]


@pytest.fixture
def busy(sim):
    """A client of four permits that tries again, and gives back what a state held."""
    retry = RetryPolicy(attempts=3, base=0.001, cap=0.002)
    with client_for(sim.base_url, pool=PrioritySemaphore(4), retry=retry) as made:
        made.held, made.others = [], []
        yield made
        made.held.clear()
        for other in made.others:
            other.ended()


@pytest.fixture(params=STATES, ids=lambda state: state.__name__)
def state(request, sim, busy, source):
    """Brings streams into a state; returns a function that waits until they are."""
    source.tail = " and so on" * 100
    there = request.param(sim, busy)
    return lambda: until(there, request.param.__name__)


def test_cancelled_in_every_state(state, busy, source):
    with busy.map(iter(source), concurrency=4) as mapped:
        results = []

        # A list keeps what came before the error.
        reader = Reader(lambda: results.extend(mapped))
        state()
        mapped.cancel()
        assert isinstance(reader.ended(), StreamCancelled)
        # Each that was pulled has its one result.
        assert sorted(result.index for result in results) == list(range(source.pulled))
        assert {type(result.error) for result in results} == {StreamCancelled}
        assert not threads()
        with pytest.raises(StreamCancelled):
            next(mapped)


def test_closed_in_every_state(state, busy, source):
    mapped = busy.map(iter(source), concurrency=4)
    reader = Reader(lambda: list(mapped))
    state()
    mapped.close()
    assert isinstance(reader.ended(), StreamClosed)
    assert not threads()
    mapped.close()
    with pytest.raises(StreamClosed):
        next(mapped)


def test_without_a_single_thread(client, sim, monkeypatch):
    """Nothing is asked, then or later, under the number of another prompt."""

    def start(thread):
        raise RuntimeError("can't start new thread")

    with client.map(["echo:a", "echo:b"]) as mapped:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(RuntimeError, match="new thread"):
                next(mapped)
        with pytest.raises(RuntimeError, match="new thread"):
            next(mapped)
        assert (mapped.done, mapped.failed) == (0, 0)
    assert sim.requests == ()


def test_forgotten_in_every_state(state, busy, source):
    """An interrupted loop, and nobody holds the map any more."""
    mapped = busy.map(iter(source), concurrency=4)
    # A reader cannot forget it; so the streams are begun by hand.
    for _ in range(4):
        mapped._pull()
    state()
    there = weakref.ref(mapped)
    with pytest.warns(ResourceWarning, match="dropped before its end"):
        del mapped
    assert there() is None
    until(lambda: not threads(), "the threads of a forgotten map")


def test_what_was_received_is_kept_when_it_is_cancelled(sim, client):
    sim.play(Script(stall_at=4000, times=0))
    told = threading.Semaphore(0)

    def tell(event):
        if isinstance(event, TextDelta):
            told.release()

    with client.map(["hello"], on_event=tell) as mapped:
        reader = Reader(lambda: next(mapped))
        for _ in range(3):
            assert told.acquire(timeout=SOON)
        mapped.cancel()
        assert reader.ended() is None
        result = reader.result
        assert isinstance(result.error, StreamCancelled)
        assert result.partial_text
        assert sim.generations[0].text.startswith(result.partial_text)


def test_a_cancel_behind_the_end_is_harmless(client):
    mapped = client.map(["echo:a", "echo:b"])
    assert len(list(mapped)) == 2
    mapped.cancel()
    mapped.close()
    assert list(mapped) == []


def test_what_had_finished_is_handed_over_behind_a_cancel(client, source):
    with client.map(iter(source)) as mapped:
        results = [next(mapped)]
        mapped.cancel()
        with pytest.raises(StreamCancelled, match=r"\d+ results"):
            results.extend(mapped)
    assert sorted(result.index for result in results) == list(range(source.pulled))


def test_a_consumer_that_breaks_off(client, sim, source):
    with client.map(iter(source)) as mapped:
        for result in mapped:
            assert result.ok
            if result.index > 20:
                break
    assert gone(client)
    pulled = source.pulled
    assert len(sim.requests) <= pulled
    with pytest.raises(StreamClosed, match="results"):
        next(mapped)
    assert source.pulled == pulled


def test_a_consumer_that_raises(client, source):
    def read():
        with client.map(iter(source)) as mapped:
            return [1 / (result.index - 5) for result in mapped]

    with pytest.raises(ZeroDivisionError):
        read()
    assert gone(client)


@pytest.mark.parametrize("order", ["done", "input"])
def test_prompts_that_raise(client, order):
    def prompts():
        yield from (f"echo:{n}" for n in range(10))
        raise LookupError("the database is gone")

    results = []
    with client.map(prompts(), order=order) as mapped:
        with pytest.raises(LookupError, match="the database is gone"):
            results.extend(mapped)
        assert sorted(result.index for result in results) == list(range(10))
        assert gone(client)
        with pytest.raises(LookupError):
            next(mapped)


def test_prompts_that_are_interrupted(client):
    def prompts():
        yield from (f"echo:{n}" for n in range(10))
        raise KeyboardInterrupt

    mapped = client.map(prompts())
    with pytest.raises(KeyboardInterrupt):
        list(mapped)
    assert gone(client)
    with pytest.raises(StreamClosed):
        next(mapped)


def test_prompts_that_close_or_iterate_their_own_map(client):
    def closing():
        yield "echo:a"
        mapped.close()
        yield "echo:b"

    mapped = client.map(closing())
    with pytest.raises(StreamClosed):
        list(mapped)

    def iterating():
        yield "echo:a"
        next(other)

    other = client.map(iterating())
    with pytest.raises(RuntimeError, match="another thread"):
        list(other)
    assert gone(client)


def test_a_ctrl_c_while_it_waits(client, sim, source, gate):
    mapped = client.map(iter(source))
    with (
        ctrl_c(lambda: sim.open_connections == 4),
        pytest.raises(KeyboardInterrupt),
    ):
        next(mapped)
    assert gone(client)
    with pytest.raises(StreamClosed):
        next(mapped)


@pytest.mark.slow
def test_a_ctrl_c_at_any_moment(sim, client):
    """Whenever it strikes in our own code: it is closed, and nothing is left."""

    def strike():
        raise KeyboardInterrupt

    for moment in moments(("mapping/mapped.py", "mapping/runner.py")):
        mapped = client.map(["echo:a", "echo:b"], concurrency=1)
        with contextlib.suppress(KeyboardInterrupt), moment.by(strike):
            next(mapped)
        mapped.close()
        assert gone(client)


def test_a_callback_that_closes_its_own_map(client, source):
    """In a thread of the map, which cannot wait for itself."""
    made = []

    def close(_):
        made[0].close()

    made.append(client.map(iter(source), on_event=close, concurrency=2))
    with pytest.raises(StreamClosed):
        list(made[0])
    until(lambda: gone(client))


def test_a_callback_that_exits_its_thread(client):
    def leave(_):
        raise SystemExit

    (result,) = client.map(["echo:a"], on_event=leave)
    assert isinstance(result.error, SystemExit)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_leaves_the_map_to_its_parent(client, sim, gate):
    mapped = client.map((f"echo:{n}" for n in range(8)), concurrency=4)
    reader = Reader(lambda: [next(mapped) for _ in range(8)])
    until(lambda: sim.open_connections == 4)
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            try:
                next(mapped)
            except StreamClosed:
                mapped.cancel()
                mapped.close()
                del mapped, reader
                gc.collect()
                gate.release(100)
                status = 0
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.release(1000)
    assert reader.ended() is None
    assert sorted(result.text for result in reader.result) == list("01234567")
    assert list(mapped) == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_makes_a_map_of_its_own(client):
    assert len(list(client.map(["echo:a"] * 5))) == 5
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            results = list(client.map([f"echo:{n}" for n in range(5)], order="input"))
            status = 0 if [one.text for one in results] == list("01234") else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_one_that_was_never_asked_leaves_nothing(client, source):
    mapped = client.map(iter(source))
    assert source.pulled == 0
    del mapped
    gc.collect()
    assert gone(client)


def test_ends_do_not_pile_up(client):
    """What was handed over is no longer held."""
    with client.map(f"echo:{n}" for n in itertools.count()) as mapped:
        for _ in range(100):
            next(mapped)
        gc.collect()
        # By its type: to ask a lazy object of another library for its class wakes it.
        there = [one for one in gc.get_objects() if type(one) is MapItem]
        # Those that were pulled and not handed over, and the one of the last result.
        assert len(there) <= 2 * 4 + 1
