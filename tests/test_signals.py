"""Signal handlers that cancel, and a Ctrl-C, at any moment of a stream."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from strikes import interrupt, moments

from holystream import (
    BreakerPolicy,
    Client,
    Connected,
    Overloaded,
    PrioritySemaphore,
    QueueFull,
    QueueTimeout,
    RetryBudget,
    RetryPolicy,
    StreamCancelled,
    StreamError,
    StreamState,
)
from holystream.clocks import CancelToken
from holystream.simulator import Simulator

SOON = 25.0
COUNTING = (
    "holystream/account.py",
    "holystream/attempts.py",
    "holystream/telemetry/collecting.py",
    "holystream/telemetry/tally.py",
)
OURS = (
    "holystream/driver.py",
    "holystream/gapless.py",
    "holystream/clocks.py",
    *(
        f"holystream/resilience/{name}.py"
        for name in ("pool", "permits", "granting", "waiting", "lanes", "seats")
    ),
)
NEAR = (
    *OURS,
    "holystream/wire/guard.py",
    "holystream/wire/socketio.py",
    "holystream/wire/shelf.py",
    "threading.py",
    "queue.py",
    "urllib3/connectionpool.py",
)


@pytest.fixture(scope="module")
def sim():
    with Simulator(length=3) as server:
        yield server


@pytest.fixture(autouse=True)
def no_garbage():
    """Let no other test's permits die here: what strikes in a callback is lost."""
    gc.collect()


@pytest.fixture
def asking(sim):
    retry = RetryPolicy(attempts=2, base=0.001, cap=0.002)
    with Client(
        "sk-0123456789",
        base_url=sim.base_url,
        model="sim",
        retry=retry,
        # It fails on purpose, and often.
        breaker=BreakerPolicy(failures=1_000_000),
        retry_budget=RetryBudget(floor=1e6),
    ) as it:
        yield it


def take(pool):
    pool.acquire().release()


def played(script):
    """Ask the simulator for something; a queue would keep what was not asked for."""
    return {"X-Simulator": script} if script else {}


def read(stream, pieces):
    for event in stream:
        pieces.append(str(event))


class TestCtrlC:
    """It is an exception at any moment: the stream can be closed, and holds nothing."""

    @pytest.mark.parametrize("scene", ["read", "fail", "close", "close at the end"])
    def test_it_leaves_nothing_behind(self, asking, scene):
        expected = None
        for strike in moments(OURS):
            script = "cut_before_headers=rst" if scene == "fail" else ""
            stream = asking.stream("hello", temperature=0, extra_headers=played(script))
            pieces = []
            if scene == "close":
                stream.open()
            elif scene == "close at the end":
                while stream.completion is None:
                    pieces.append(str(next(stream)))
            # Kept, for it holds the frames: nothing may hang on their collection.
            struck = None
            try:
                with contextlib.suppress(StreamError), strike.by(interrupt):
                    stream.close() if "close" in scene else read(stream, pieces)
            except KeyboardInterrupt as error:
                struck = error
            assert (struck is not None) == strike.struck
            assert not stream._driver._reading.locked()
            with contextlib.suppress(StreamError):
                read(stream, pieces)
                expected = expected or "".join(pieces)
                assert "".join(pieces) == expected, "a clean end, and text is missing"
            stream.close()
            assert stream.state in (StreamState.CLOSED, StreamState.DONE)
            assert asking.pool.statistics().in_use == 0
            assert stream._driver._connection is None
            with contextlib.suppress(StreamError):
                read(stream, pieces)

    @pytest.mark.slow
    @pytest.mark.parametrize("scene", ["read", "fail"])
    def test_it_is_counted_once_or_not_at_all(self, asking, scene):
        records = []
        asking.telemetry.add_hook(records.append)
        before = asking.metrics().streams
        for strike in moments((*OURS[:1], *COUNTING)):
            script = "cut_before_headers=rst" if scene == "fail" else ""
            stream = asking.stream("hello", temperature=0, extra_headers=played(script))
            with (
                contextlib.suppress(StreamError, KeyboardInterrupt),
                strike.by(interrupt),
            ):
                read(stream, [])
            stream.close()
            now = asking.metrics().streams
            assert now.active_by_model == {}
            assert now.opened == now.ended <= before.opened + 1
            told = sum(now.attempts.values()) - sum(before.attempts.values())
            assert told == stream.attempts, "picked is not tried"
            before = now
        assert max(each.duration for each in records) < SOON


class TestAHandlerThatCancels:
    """It runs in the reading thread, whatever that thread was doing: it never waits."""

    @pytest.mark.slow
    @pytest.mark.parametrize("scene", ["read", "backoff", "cancel"])
    def test_the_stream_itself(self, asking, scene):
        for strike in moments(NEAR):
            script = "status=503" if scene == "backoff" else ""
            stream = asking.stream("hello", temperature=0, extra_headers=played(script))
            pieces = []
            if scene == "cancel":
                stream.open()
            ended = None
            with strike.by(stream.cancel):
                try:
                    stream.cancel() if scene == "cancel" else read(stream, pieces)
                except StreamCancelled as error:
                    ended = error
                except Overloaded as error:
                    # It had given up, and the cancel came too late.
                    ended = error
                    continue
            if stream.completion is None:
                with pytest.raises(StreamCancelled):
                    read(stream, pieces)
            assert (ended is None) == (scene == "cancel" or bool(stream.completion))
            assert asking.pool.statistics().in_use == 0

    @pytest.mark.slow
    @pytest.mark.parametrize("scene", ["read", "full", "look", "close"])
    def test_another_stream_whose_permit_goes_to_a_waiter(self, sim, scene):
        """The thread may be in the midst of the pool, or of urllib3's."""
        url = sim.base_url
        for strike in moments(NEAR):
            pool = PrioritySemaphore(2, max_queue=1)
            with Client(
                "sk-0123456789", base_url=url, model="sim", pool=pool
            ) as client:
                idle = client.stream("hello", extra_headers=played("stall_at=0"))
                while not isinstance(next(idle), Connected):
                    pass
                stream = client.stream("hello")
                if scene != "read":
                    stream.open()
                with strike.by(idle.cancel):
                    if scene == "read":
                        stream.get_final_text()
                    elif scene == "look":
                        pool.statistics()
                    elif scene == "close":
                        stream.close()
                    else:
                        with contextlib.suppress(QueueFull, QueueTimeout):
                            pool.acquire(timeout=0).release()
                if strike.struck:
                    assert idle.state is StreamState.CLOSED
                idle.cancel()
                stream.close()
                now = pool.statistics()
                assert (now.in_use, now.queued) == (0, 0)

    @pytest.mark.parametrize("work", ["statistics", "release", "acquire"])
    def test_what_it_gives_back_wakes_a_waiter(self, work):
        for strike in moments(OURS):
            pool = PrioritySemaphore(2, max_queue=2)
            given, other = pool.acquire(), pool.acquire()
            waiter = threading.Thread(target=take, args=[pool])
            waiter.start()
            while not pool.statistics().queued:
                pass
            with strike.by(given.release):
                if work == "acquire":
                    with contextlib.suppress(QueueTimeout):
                        pool.acquire(timeout=0).release()
                elif work == "release":
                    other.release()
                else:
                    pool.statistics()
            if strike.struck:
                waiter.join(SOON)
                assert not waiter.is_alive(), "nobody woke it"
            given.release()
            other.release()
            waiter.join(SOON)

    def test_in_the_wait_of_a_token(self):
        for strike in moments(NEAR):
            token = CancelToken()
            with strike.by(token.cancel):
                assert token.wait(0.0) is strike.struck


@pytest.mark.slow
@pytest.mark.parametrize("scene", ["read", "backoff", "queue", "wait", "cancel"])
def test_real_signals_at_seeded_moments(scene):
    rounds = Path(__file__).with_name("signal_rounds.py")
    done = subprocess.run(
        [sys.executable, rounds, scene, "200", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=55,
    )
    assert (done.returncode, done.stdout) == (0, "200\n"), done.stderr
