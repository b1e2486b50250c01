"""A client's streams and its pool: who holds permits, and who comes back for one."""

import pytest
from loopback import SOON, Reader, until

from holystream import (
    BreakerPolicy,
    CircuitOpen,
    Client,
    PrioritySemaphore,
    QueueTimeout,
    RetryPolicy,
    StreamCancelled,
    StreamState,
    Timeouts,
    Verdict,
    Waiting,
)
from holystream.simulator import Script, Simulator

KEY = "sk-0123456789abcdef"


@pytest.fixture
def sim():
    with Simulator(length=30) as server:
        yield server


def client_of(sim, **options):
    options.setdefault("retry", RetryPolicy(base=0.001, cap=0.002))
    return Client(KEY, base_url=sim.base_url, model="sim", **options)


def test_who_waits_in_vain_is_told_who_holds_the_permit(sim):
    with client_of(sim, pool=PrioritySemaphore(1)) as client:
        forgotten = client.stream("a", stream_id="the-forgotten-one").open()
        waiting = client.stream("b", timeout=Timeouts(queue=0.001))
        with pytest.raises(QueueTimeout, match="the-forgotten-one"):
            waiting.open()
        (held,) = client.pool.holders()
        assert held.stream_id == "the-forgotten-one"
        assert held.idle >= 0
        forgotten.close()


def test_a_stream_is_found_by_its_id_and_ended(sim):
    with client_of(sim, pool=PrioritySemaphore(1)) as client:
        stream = client.stream("a", stream_id="runaway").open()
        assert client.pool.abort("runaway")
        assert stream.state is StreamState.CLOSED
        with pytest.raises(StreamCancelled):
            stream.until_done()
        assert client.pool.statistics().in_use == 0
        assert not client.pool.abort("runaway")


def test_a_stream_that_backs_off_does_not_queue_anew(sim):
    """The queue takes nobody, and yet it comes back to a permit."""
    pool = PrioritySemaphore(1, max_queue=0)
    sim.play(Script(cut_at=2000), Script(cut_at=3000), Script())
    with client_of(sim, pool=pool) as client:
        stream = client.stream("a", temperature=0)
        assert stream.get_final_completion().attempts == 3
        assert pool.statistics().granted == 3


def test_one_that_backs_off_comes_back_before_those_who_are_new(sim):
    """However full the queue is, and however long it takes."""
    pool = PrioritySemaphore(1, max_queue=1)
    sim.play(Script(status=503))
    with client_of(sim, pool=pool, timeout=Timeouts(queue=0.001)) as client:
        stream = client.stream("a", temperature=0)
        while not isinstance(next(stream), Waiting):
            pass
        other = pool.acquire(timeout=0)  # it was given back
        new = Reader(lambda: (pool.acquire(timeout=SOON), len(sim.requests)))
        until(lambda: pool.statistics().queued == 1)
        back = Reader(stream.get_final_text)
        until(lambda: pool.statistics().queued == 2)
        other.release()
        assert back.ended() is None
        assert new.ended() is None
        assert new.result[1] == 2, "the second request was made before"


def test_a_stream_waits_and_holds_by_its_priority(sim):
    pool = PrioritySemaphore(1)
    with client_of(sim, pool=pool) as client:
        with client.stream("a", priority="high").open():
            (held,) = pool.holders()
            assert held.priority == "high"
            waiting = Reader(lambda: client.complete("b", priority="critical"))
            until(lambda: pool.statistics().queued == 1)
            assert pool.statistics().queued_by_priority["critical"] == 1
        assert waiting.ended() is None


def test_one_that_comes_back_has_its_priority_and_its_name(sim):
    pool = PrioritySemaphore(1)
    sim.play(Script(status=503))
    with client_of(sim, pool=pool) as client:
        stream = client.stream("a", priority="low", stream_id="back-again")
        while not isinstance(next(stream), Waiting):
            pass
        with pool.acquire(timeout=0):
            back = Reader(stream.get_final_text)
            until(lambda: pool.statistics().queued == 1)
            assert pool.statistics().queued_by_priority["low"] == 1
            assert pool.abort("back-again")
            assert isinstance(back.ended(), StreamCancelled)
        assert pool.statistics().in_use == 0


def test_clients_that_share_a_pool_are_bounded_together(sim):
    pool = PrioritySemaphore(1)
    with client_of(sim, pool=pool) as one, client_of(sim, pool=pool) as other:
        assert one.pool is other.pool
        with one.stream("a").open():
            waiting = other.stream("b", timeout=Timeouts(queue=0.001))
            with pytest.raises(QueueTimeout):
                waiting.open()
        assert other.complete("b").text


class TestBreakersAndTheQueue:
    """Nobody waits for a permit that would be of no use."""

    def shut(self, client):
        (breaker,) = client.breakers.values()
        while breaker.retry_after == 0.0:
            breaker.acquire().failed(Verdict.SERVER_ERROR)

    def test_who_comes_while_it_is_open_does_not_queue(self, sim):
        pool, policy = PrioritySemaphore(1), BreakerPolicy(failures=1)
        with client_of(sim, pool=pool, breaker=policy) as client:
            self.shut(client)
            with pool.acquire(), pytest.raises(CircuitOpen):
                client.complete("a")
            assert pool.statistics().cancels == pool.statistics().timeouts == 0

    def test_who_waits_when_it_opens_sends_nothing(self, sim):
        pool, policy = PrioritySemaphore(1), BreakerPolicy(failures=1)
        with client_of(sim, pool=pool, breaker=policy) as client:
            with pool.acquire():
                waiting = Reader(lambda: client.complete("a"))
                until(lambda: pool.statistics().queued == 1)
                self.shut(client)
            assert isinstance(waiting.ended(), CircuitOpen)
            assert pool.statistics().in_use == 0
        assert sim.requests == ()
