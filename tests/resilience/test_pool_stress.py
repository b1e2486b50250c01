"""Nothing is lost, and nothing is granted twice, whatever happens in whatever order."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import sys
import threading

import pytest
from conditions import in_child
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)
from pool_callers import SOON, Acquirer, Holder, Returner, in_use

from holystream.clocks import CancelToken
from holystream.errors import QueueFull, QueueTimeout, StreamCancelled
from holystream.resilience.lanes import WEIGHTS
from holystream.resilience.pool import PrioritySemaphore

PRIORITIES = list(WEIGHTS)


class Model:
    """What a pool in strict order does, in the plainest words."""

    def __init__(self, limit, kept, room):
        self.limit, self.kept, self.room = limit, kept, room
        self.common = self.reserved = 0
        self.queue = []

    def may(self, priority):
        if priority == "critical" and self.reserved < self.kept:
            return "reserved"
        return "common" if self.common < self.limit - self.kept else None

    def take(self, priority):
        where = self.may(priority)
        setattr(self, where, getattr(self, where) + 1)
        return where

    def settle(self):
        """Grant what may be granted; return who was."""
        granted = []
        while True:
            urgent = sorted(
                self.queue,
                key=lambda it: (PRIORITIES.index(it[1]), it[2], self.queue.index(it)),
            )
            entry = next((it for it in urgent if self.may(it[1])), None)
            if entry is None:
                return granted
            self.queue.remove(entry)
            granted.append((entry[0], self.take(entry[1])))

    def shed_by(self, priority):
        """The newest of the least urgent who wait, and never had a permit."""
        below = PRIORITIES[PRIORITIES.index(priority) + 1 :]
        for lane in reversed(below):
            for entry in reversed(self.queue):
                if entry[1:] == (lane, True):
                    return entry
        return None


class PoolMachine(RuleBasedStateMachine):
    """Threads wait, one by one; everything else is done by this one."""

    def __init__(self):
        super().__init__()
        self.pool = PrioritySemaphore(3, reserve=0.34, order="strict", max_queue=4)
        self.model = Model(3, 1, 4)
        self.held = []
        self.released = []

    def grant(self):
        for waiter, where in self.model.settle():
            permit = waiter.outcome()
            waiter.permit = None  # it may be for us to lose
            assert permit.held
            self.held.append((permit, where))

    def waiting(self, data):
        return data.draw(st.sampled_from(self.model.queue))

    @rule(priority=st.sampled_from(PRIORITIES), again=st.booleans())
    def acquire(self, priority, again):
        if self.model.may(priority):
            take = self.pool.reacquire if again else self.pool.acquire
            permit = take(priority=priority)
            self.held.append((permit, self.model.take(priority)))
        elif again:
            waiter = Returner(self.pool, priority=priority)
            self.model.queue.append((waiter, priority, False))
        elif len(self.model.queue) < self.model.room:
            waiter = Acquirer(self.pool, priority=priority)
            self.model.queue.append((waiter, priority, True))
        elif shed := self.model.shed_by(priority):
            self.model.queue.remove(shed)
            waiter = Acquirer(self.pool, priority=priority)
            assert isinstance(shed[0].outcome(), QueueFull)
            self.model.queue.append((waiter, priority, True))
        else:
            with pytest.raises(QueueFull):
                self.pool.acquire(priority=priority)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), lose=st.booleans())
    def release(self, data, lose):
        number = data.draw(st.integers(0, len(self.held) - 1))
        permit, where = self.held.pop(number)
        setattr(self.model, where, getattr(self.model, where) - 1)
        if not lose:
            permit.release()
            self.released.append(permit)
        del permit
        self.grant()

    @precondition(lambda self: self.released)
    @rule(data=st.data())
    def release_again(self, data):
        data.draw(st.sampled_from(self.released)).release()

    @precondition(lambda self: self.model.queue)
    @rule(data=st.data())
    def cancel(self, data):
        entry = self.waiting(data)
        self.model.queue.remove(entry)
        entry[0].token.cancel()
        assert isinstance(entry[0].outcome(), StreamCancelled)

    @rule(priority=st.sampled_from(PRIORITIES))
    def run_out_of_time(self, priority):
        if self.model.may(priority):
            return
        full = len(self.model.queue) >= self.model.room
        with pytest.raises(QueueFull if full else QueueTimeout):
            self.pool.acquire(priority=priority, timeout=0)

    @precondition(lambda self: not self.model.common and not self.model.reserved)
    @rule(limit=st.integers(1, 6))
    def resize(self, limit):
        self.pool.resize(limit)
        self.model.limit = limit
        self.model.kept = min(limit - 1, round(limit * 0.34))
        self.grant()

    @rule(more=st.integers(0, 3))
    def grow(self, more):
        self.pool.resize(self.model.limit + more)
        self.model.limit += more
        kept = min(self.model.limit - 1, round(self.model.limit * 0.34))
        # What shrinks or moves while it is held is another test's matter.
        self.model.kept = kept
        self.grant()

    @invariant()
    def it_counts_right(self):
        now = self.pool.statistics()
        assert now.in_use == len(self.held)
        assert now.queued == len(self.model.queue)
        assert all(permit.held for permit, _ in self.held)
        assert not any(permit.held for permit in self.released)

    def teardown(self):
        for permit, _ in self.held:
            permit.release()
        for waiter, _, _ in self.model.queue:
            waiter.token.cancel()
            waiter.outcome()
            if waiter.permit is not None:
                waiter.permit.release()
        assert in_use(self.pool) == 0


PoolMachine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None
)
TestPoolMachine = PoolMachine.TestCase


class Inside:
    """Counts the threads between an acquire and its release."""

    def __init__(self):
        self.lock = threading.Lock()
        self.now = self.most = 0

    def __enter__(self):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_):
        with self.lock:
            self.now -= 1


def impatient(pool, inside, rng):
    """Acquire once, somehow, and let go of it, somehow."""
    mine = Holder(f"s{rng.randrange(20)}")
    cancel = mine.token if rng.random() < 0.7 else CancelToken()
    if rng.random() < 0.2:
        threading.Thread(target=cancel.cancel).start()
    priority = rng.choice(PRIORITIES)
    try:
        if rng.random() < 0.3:
            permit = pool.reacquire(
                priority=priority, deadline=SOON, cancel=cancel, holder=mine
            )
        else:
            permit = pool.acquire(
                priority=priority,
                timeout=rng.choice([0, 1e-4, SOON]),
                cancel=cancel,
                holder=mine,
            )
    except (QueueFull, QueueTimeout, StreamCancelled):
        return
    with inside:
        assert permit.held
    end = rng.random()
    if end < 0.2:
        with contextlib.suppress(ZeroDivisionError), permit:
            1 // 0  # noqa: B018
        return
    if end < 0.6:
        mine.permit = permit
        pool.abort(f"s{rng.randrange(20)}")
    if end < 0.3:
        mine.itself = mine  # it is for the collector to give it back
    elif end < 0.8:
        permit.release()


@contextlib.contextmanager
def collecting():
    """Switch threads and collect garbage all the time."""
    over = threading.Event()

    def collect():
        while not over.wait(0.001):
            gc.collect()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    gc.freeze()  # what there is already need not be looked at
    collector = threading.Thread(target=collect)
    collector.start()
    try:
        yield
    finally:
        over.set()
        collector.join(SOON)
        sys.setswitchinterval(before)
        gc.unfreeze()
        gc.collect()
        gc.freeze()  # as it was


@pytest.mark.filterwarnings("ignore:a thread waits:RuntimeWarning")
@pytest.mark.parametrize(("limit", "reserve"), [(1, 0.0), (3, 0.0), (5, 0.4)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12: threads and fork
def test_a_crowd_of_impatient_callers_loses_nothing(limit, reserve):
    pool = PrioritySemaphore(limit, max_queue=8, reserve=reserve)
    inside, failures = Inside(), []
    barrier = threading.Barrier(12)

    def run(seed):
        rng = random.Random(seed)
        try:
            barrier.wait(SOON)
            for _ in range(120):
                impatient(pool, inside, rng)
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(12)]
    with collecting():
        for thread in threads:
            thread.start()
        if hasattr(os, "fork"):
            for _ in range(3):
                assert forked(pool, limit) == 0
        for thread in threads:
            thread.join(2 * SOON)
            assert not thread.is_alive()
    assert not failures
    assert 1 <= inside.most <= limit
    gc.collect()
    everything_is_there(pool, limit)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:a thread waits:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12: threads and fork
def test_sizes_that_change_under_a_crowd():
    pool, over = PrioritySemaphore(4, max_queue=50, reserve=0.3), threading.Event()
    inside, failures = Inside(), []

    def run(seed):
        rng = random.Random(seed)
        try:
            while not over.is_set():
                impatient(pool, inside, rng)
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(10)]
    with collecting():
        for thread in threads:
            thread.start()
        rng = random.Random(0)
        for granted in (2000, 4000, 6000):
            while pool.statistics().granted < granted and not failures:
                pool.resize(rng.randint(1, 6))
            if hasattr(os, "fork"):
                assert forked(pool, pool.limit) == 0
        over.set()
        for thread in threads:
            thread.join(2 * SOON)
            assert not thread.is_alive()
    assert not failures
    assert 1 <= inside.most <= 6
    pool.resize(4)
    gc.collect()
    everything_is_there(pool, 4)


def everything_is_there(pool, limit):
    now = pool.statistics()
    assert (now.in_use, now.queued) == (0, 0)
    permits = [pool.acquire(priority="critical", timeout=0) for _ in range(limit)]
    with pytest.raises(QueueTimeout):
        pool.acquire(priority="critical", timeout=0)
    assert in_use(pool) == len(permits)


def forked(pool, limit):
    """Use the pool in a child, in the middle of everything; return its status."""

    def check():
        everything_is_there(pool, limit)
        return True

    return in_child(check)
