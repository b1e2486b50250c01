"""What is told of the attempts of a stream, and what they are charged."""

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from loopback import client_for, ctrl_c

from holystream import (
    AttemptRecord,
    DeadlineExceeded,
    Endpoint,
    Interrupted,
    PrioritySemaphore,
    QueueTimeout,
    RateLimited,
    RetryBudget,
    RetryPolicy,
    Started,
    StreamError,
    StreamInterrupted,
    StreamRecord,
    StreamState,
    Timeouts,
    Waiting,
)
from holystream.simulator import Script, Simulator

AGAIN = RetryPolicy(base=0.001, cap=0.002)
TEXT = "It goes on and on. " * 30


def recorded(client):
    """Return two lists that the client's records go into: of attempts, of streams."""
    attempts, streams = [], []

    def hook(record):
        kinds = {AttemptRecord: attempts, StreamRecord: streams}
        kinds[type(record)].append(record)

    client.telemetry.add_hook(hook)
    return attempts, streams


def test_who_was_not_asked_made_no_attempt(holystream_clock):
    """The rest was kept by a server that is gone, and nobody else can go on."""
    with (
        Simulator(
            script=Script(ids="named", gate=None, cut_at=4000), text=lambda _: TEXT
        ) as keeping,
        Simulator() as other,
        client_for(
            None,
            endpoints=[
                Endpoint(keeping.base_url, name="keeping"),
                Endpoint(other.base_url, name="other", priority=1),
            ],
            retry=AGAIN,
            resume=("cursor",),
        ) as client,
    ):
        attempts, streams = recorded(client)

        def read():
            for event in client.stream("hello", temperature=1):
                if isinstance(event, Interrupted):
                    keeping.close()

        with pytest.raises(StreamInterrupted) as caught:
            read()
        picked = {each.name: each.picked for each in client.metrics().endpoints}
    assert other.requests == ()
    assert [(each.number, each.endpoint) for each in attempts] == [
        (1, "keeping"),
        (2, "keeping"),
    ]
    assert caught.value.endpoint == "keeping"
    assert [(each.attempts, each.endpoint) for each in streams] == [(2, "keeping")]
    assert picked["keeping"] == 2


def test_a_deadline_that_passes_in_the_queue_is_no_retry(simulator, holystream_clock):
    simulator.play(Script(status=503, times=0))
    budget = RetryBudget(ratio=0, floor=25)
    with client_for(simulator.base_url, retry=AGAIN, retry_budget=budget) as client:
        _, streams = recorded(client)
        stream = client.stream("hello", deadline=60)
        while not isinstance(next(stream), Waiting):
            pass
        holystream_clock.advance(60)
        assert isinstance(next(stream), Interrupted)
        assert stream.state is not StreamState.WAITING
        with pytest.raises(DeadlineExceeded):
            next(stream)
    assert len(simulator.requests) == 1
    assert budget.statistics().spent == 1
    assert streams[0].strategies == ()


def test_nor_is_it_an_attempt_that_failed(simulator, holystream_clock):
    simulator.play(Script(cut_at=4000, cut="rst"))
    with client_for(simulator.base_url, retry=AGAIN) as client:
        _, streams = recorded(client)
        for last in (Waiting, Started):
            stream = client.stream("long " * 99, temperature=0, deadline=60)
            while not isinstance(next(stream), last):
                pass
            holystream_clock.advance(60)
            with pytest.raises((StreamInterrupted, DeadlineExceeded)):
                stream.until_done()
    assert [(each.attempts, each.interruptions) for each in streams] == [(1, 1), (0, 0)]


def test_a_plain_retry_goes_on_with_no_text(simulator):
    simulator.play(Script(status=503))
    with client_for(simulator.base_url, retry=AGAIN) as client:
        attempts, streams = recorded(client)
        client.complete("echo:hello")
        found = client.metrics().streams
    assert [each.strategy for each in attempts] == [None, None]
    assert streams[0].strategies == ("retry",)
    assert found.strategies == {}
    assert found.retries == {"Overloaded": 1}


def test_an_attempt_that_went_elsewhere_is_told_as_it_was_made():
    """Where the rest was kept nobody answers, so the answer is replayed elsewhere."""
    with (
        Simulator(
            script=Script(ids="named", gate=None, cut_at=4000), text=lambda _: TEXT
        ) as keeping,
        Simulator(text=lambda _: TEXT) as other,
        client_for(
            None,
            endpoints=[
                Endpoint(keeping.base_url, name="keeping"),
                Endpoint(other.base_url, name="other", priority=1),
            ],
            retry=AGAIN,
        ) as client,
    ):
        attempts, streams = recorded(client)
        for event in client.stream("hello", temperature=0):
            if isinstance(event, Interrupted):
                keeping.close()
        found = client.metrics().streams
    assert [(each.endpoint, each.strategy) for each in attempts] == [
        ("keeping", None),
        ("keeping", "cursor"),
        ("other", "replay"),
    ]
    assert streams[0].strategies == ("cursor", "replay")
    assert found.strategies == {"cursor": 1, "replay": 1}


def test_what_was_waited_for_a_permit_in_vain_is_told(simulator):
    with client_for(
        simulator.base_url, pool=PrioritySemaphore(1), timeout=Timeouts(queue=0.05)
    ) as client:
        _, streams = recorded(client)
        with (
            ThreadPoolExecutor(1) as other,
            other.submit(client.pool.acquire).result(),
            pytest.raises(QueueTimeout),
        ):
            client.complete("echo:hello")
    assert streams[0].queued > 0


def test_every_wait_before_an_attempt_is_told(simulator, holystream_clock):
    quiet = Script(status=429, headers={"Retry-After": "90"})
    simulator.play(quiet, Script(status=503), Script(times=0))
    with client_for(simulator.base_url, retry=RetryPolicy()) as client:
        with pytest.raises(RateLimited):
            client.complete("echo:first")
        attempts, _ = recorded(client)
        with client.map(["echo:hello"]) as results:
            assert [result.text for result in results] == ["hello"]
    assert [each.delay for each in attempts] == pytest.approx(holystream_clock.waits)
    assert holystream_clock.waits[0] >= 89


FAILS, CUT = Script(status=503), Script(cut_at=4000, cut="rst")
THRICE = RetryPolicy(attempts=3, base=0.001, cap=0.002)


@pytest.mark.parametrize(
    ("scripts", "interruptions", "recoveries"),
    [
        ([], 0, 0),
        ([FAILS], 1, 1),
        ([FAILS, FAILS], 2, 1),
        ([CUT], 1, 1),
        ([FAILS, CUT, FAILS], 3, 2),
        ([Script(cut_at=200, cut="rst")], 1, 1),
        # What ends a stream and brings nothing interrupts nothing.
        ([Script(status=401)], 0, 0),
        ([FAILS] * 3, 2, 0),
        ([CUT, Script(status=400)], 1, 0),
        ([CUT, FAILS, FAILS], 2, 0),
    ],
)
def test_faults_and_what_came_after_them(simulator, scripts, interruptions, recoveries):
    simulator.play(*scripts)
    with client_for(simulator.base_url, retry=THRICE) as client:
        _, streams = recorded(client)
        with contextlib.suppress(StreamError):
            for _ in client.stream(f"echo:{TEXT}", temperature=0):
                pass
        found = client.metrics().streams
    assert len(simulator.requests) == streams[0].attempts
    assert found.interruptions == streams[0].interruptions == interruptions
    assert found.recoveries == len(streams[0].recoveries) == recoveries
    assert (found.mean_time_to_recover is None) == (not recoveries)


def test_from_the_first_fault_in_a_row_to_new_content(simulator, holystream_clock):
    simulator.play(FAILS, FAILS)
    retry = RetryPolicy(attempts=3, base=8, cap=8, jitter=None)
    with client_for(simulator.base_url, retry=retry) as client:
        _, streams = recorded(client)
        client.complete("echo:hello")
    (seconds,) = streams[0].recoveries
    assert len(holystream_clock.waits) == 2
    assert seconds >= sum(holystream_clock.waits) - 0.001


def iterated(client):
    for _ in client.stream("hello"):
        pass


def in_a_block(client):
    with client.stream("hello") as stream:
        for _ in stream.text_stream:
            pass


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize(
    "read", [lambda client: client.complete("hello"), iterated, in_a_block]
)
def test_what_the_program_ends_is_closed_and_no_error(simulator, read, error):
    simulator.play(Script(stall_at=900))
    with client_for(simulator.base_url) as client:
        attempts, streams = recorded(client)
        with ctrl_c(lambda: simulator.requests, error=error), pytest.raises(error):
            read(client)
        found = client.metrics().streams
    told = [(each.outcome, each.error_type) for each in (*attempts, *streams)]
    assert told == [("closed", error.__name__)] * 2
    assert found.success_rate is None
    assert found.stream_errors == found.attempt_errors == {}
