"""A client's streams and its pool: who holds permits, and who comes back for one."""

import pytest

from holystream import (
    Client,
    PrioritySemaphore,
    QueueTimeout,
    RetryPolicy,
    StreamCancelled,
    StreamState,
    Timeouts,
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
