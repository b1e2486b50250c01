"""``@retry_stream``: a generator function goes on where it broke."""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import itertools
import logging
import operator
import random
import socket
import struct
import sys
import threading
import weakref

import pytest
import requests
import tenacity
from hypothesis import given, strategies as st
from loopback import SOON, Peer, Reader, answer, read_request, until, wait_for_end

from holystream import (
    AuthenticationError,
    ConfigurationError,
    ConnectionLost,
    InvalidRequest,
    RateLimited,
    ResumePoint,
    RetriedStream,
    RetryPolicy,
    ServerSentEvent,
    StreamCancelled,
    StreamInUse,
    retry_stream,
)
from holystream.testing import SleeplessClock

ALWAYS = tenacity.retry_always
HOURS = RetryPolicy(base=3600.0, cap=7200.0, jitter=None)


@pytest.fixture
def clock():
    with SleeplessClock() as clock:
        yield clock


def scripted(*attempts, points=None, **options):
    """A function of which each attempt yields what is its own, and raises the last.

    An attempt is (how many items it yields, what it then raises or None).
    """

    @retry_stream(**options)
    def items(*, resume: ResumePoint):
        if points is not None:
            points.append(resume)
        count, error = attempts[resume.attempt - 1]
        yield from range(resume.count, resume.count + count)
        if error is not None:
            raise error
        return "the end"

    return items


def taken(stream):
    """What a stream hands over, and what it returns or raises."""
    items = []
    try:
        while True:
            items.append(next(stream))
    except StopIteration as end:
        return items, end.value
    except BaseException as error:  # noqa: BLE001 - it is returned
        return items, error


class TestGoingOn:
    def test_each_attempt_is_told_how_far_the_caller_got(self, clock):
        points, one, two = [], ConnectionResetError("1"), TimeoutError("2")
        items = scripted((2, one), (0, two), (3, None), points=points)
        stream = items()
        assert taken(stream) == ([0, 1, 2, 3, 4], "the end")
        assert points == [
            ResumePoint(),
            ResumePoint(attempt=2, count=2, items=(1,), error=one),
            ResumePoint(attempt=3, count=2, items=(1,), error=two),
        ]
        assert [point.last for point in points] == [None, 1, 1]
        assert (stream.attempts, stream.count) == (3, 5)
        assert stream.waited == sum(clock.waits) == 0.5 + 1.0

    def test_bare_and_with_options(self, clock):
        def items(resume):
            yield resume.attempt
            if resume.attempt < 3:
                raise ConnectionResetError

        assert list(retry_stream(items)()) == [1, 2, 3]
        assert list(retry_stream()(items)()) == [1, 2, 3]
        assert list(retry_stream(policy=RetryPolicy(attempts=2))(items)()) == [1, 2, 3]

    def test_the_last_id_is_kept_until_there_is_another(self, clock):
        points = []

        @retry_stream
        def events(*, resume):
            points.append(resume)
            if resume.attempt == 1:
                yield ServerSentEvent(b"a", id="1")
                yield "without an id"
                raise ConnectionResetError

        list(events())
        assert [point.last_id for point in points] == [None, "1"]

    def test_ids_as_the_function_says(self, clock):
        ids = []

        @retry_stream(id_of=operator.itemgetter("key"))
        def rows(*, resume):
            ids.append(resume.last_id)
            yield {"key": resume.attempt * 10}
            yield {"key": None}
            if resume.attempt < 3:
                raise ConnectionResetError

        list(rows())
        assert ids == [None, 10, 20]

    @pytest.mark.parametrize(
        ("keep", "kept"), [(0, ()), (1, (4,)), (3, (2, 3, 4)), (None, (0, 1, 2, 3, 4))]
    )
    def test_as_many_items_are_kept_as_asked_for(self, clock, keep, kept):
        points = []
        error = ConnectionResetError()
        list(scripted((5, error), (0, None), points=points, keep=keep)())
        assert points[1].items == kept
        assert points[1].count == 5

    def test_the_parameter_may_have_another_name(self, clock):
        @retry_stream(parameter="since")
        def items(resume, *, since):
            yield resume, since.attempt
            if since.attempt == 1:
                raise ConnectionResetError

        assert list(items("mine")) == [("mine", 1), ("mine", 2)]

    def test_what_it_returns_passes_through_yield_from(self, clock):
        def outer():
            return (yield from scripted((1, ConnectionResetError()), (1, None))())

        assert taken(outer()) == ([0, 1], "the end")

    def test_a_caller_may_begin_at_a_point(self, clock):
        points = []
        error = ConnectionResetError()
        items = scripted((1, error), (2, ValueError()), points=points, keep=2)
        stream = items(resume=ResumePoint(attempt=7, count=5, items=(3, 4), last_id=9))
        assert taken(stream)[0] == [5, 6, 7]
        assert points == [
            ResumePoint(count=5, items=(3, 4), last_id=9),
            ResumePoint(attempt=2, count=6, items=(4, 5), last_id=9, error=error),
        ]
        again = items(resume=stream.point)
        assert next(again) == 8
        assert points[-1] == ResumePoint(count=8, items=(6, 7), last_id=9)

    def test_only_a_point_is_a_point(self):
        with pytest.raises(InvalidRequest, match="resume= must be a ResumePoint"):
            scripted((1, None))(resume=3)

    def test_wrong_arguments_are_complained_of_at_the_call(self):
        with pytest.raises(TypeError, match="nothing"):
            scripted((1, None), retry=ALWAYS)(nothing=1)

    def test_nothing_runs_before_the_first_next(self):
        points = []
        scripted((1, None), points=points)()
        assert points == []

    def test_it_looks_like_the_function(self):
        @retry_stream
        def rows(url: str, *, resume: ResumePoint):
            """Return rows."""
            yield url

        assert (rows.__name__, rows.__doc__) == ("rows", "Return rows.")
        assert list(inspect.signature(rows).parameters) == ["url", "resume"]
        stream = rows("u")
        assert isinstance(stream, RetriedStream)
        assert next(stream) == "u"
        assert repr(stream) == "<RetriedStream attempts=1 count=1>"


class TestGivingUp:
    def test_what_the_function_raised_is_raised(self, clock):
        error = ConnectionResetError("last")
        others = [(0, ConnectionResetError()) for _ in range(2)]
        items = scripted(*others, (0, error), policy=RetryPolicy(attempts=3))
        stream = items()
        assert taken(stream) == ([], error)
        (note,) = error.__notes__
        assert note == (
            "retry_stream gave up in attempt 3: 3 attempts without progress "
            "(items handed over: 0)"
        )
        assert error.__traceback__ is not None
        assert stream.attempts == 3
        # As with any generator.
        assert list(stream) == []

    def test_an_item_sets_the_count_back(self, clock):
        script = [(1, ConnectionResetError()) for _ in range(20)] + [(1, None)]
        items, end = taken(scripted(*script, policy=RetryPolicy(attempts=2))())
        assert (items, end) == (list(range(21)), "the end")
        assert clock.waits == [0.5] * 20

    def test_unless_the_attempt_was_too_short(self, clock):
        script = [(1, ConnectionResetError()) for _ in range(4)]
        policy = RetryPolicy(attempts=4, reset_after=1000.0)
        items, error = taken(scripted(*script, policy=policy)())
        assert (items, error) == ([0, 1, 2, 3], script[-1][1])
        assert clock.waits == [0.5, 1.0, 2.0]

    def test_an_attempt_that_lived_long_enough_sets_it_back(self, clock):
        @retry_stream(policy=RetryPolicy(reset_after=1000.0))
        def items(*, resume):
            clock.advance(1001.0 if resume.attempt == 3 else 0.0)
            yield resume.attempt
            raise ConnectionResetError

        assert list(itertools.islice(items(), 5)) == [1, 2, 3, 4, 5]
        assert clock.waits == [0.5, 1.0, 0.5, 1.0]

    def test_the_total_holds_whatever_the_progress(self, clock):
        script = [(1, ConnectionResetError()) for _ in range(9)]
        policy = RetryPolicy(total_attempts=5, stop=tenacity.stop_never)
        items, error = taken(scripted(*script, policy=policy)())
        assert (items, error) == ([0, 1, 2, 3, 4], script[4][1])

    @pytest.mark.parametrize(
        "error",
        [ValueError("a bug"), FileNotFoundError(), AuthenticationError("401")],
        ids=repr,
    )
    def test_what_is_not_worth_it_is_raised_at_once(self, error):
        stream = scripted((2, error))()
        assert taken(stream) == ([0, 1], error)
        assert stream.attempts == 1

    @pytest.mark.parametrize(
        "kind", [KeyboardInterrupt, SystemExit, GeneratorExit, StreamCancelled]
    )
    def test_who_wants_out_is_let_out_whatever_the_predicate(self, kind):
        error = kind("out")
        stream = scripted((1, error), (1, None), retry=ALWAYS)()
        assert taken(stream) == ([0], error)
        assert stream.attempts == 1

    def test_our_errors_are_tried_again_by_their_verdict_and_hint(self, clock):
        limited = RateLimited("429")
        limited.retry_after = 20.0
        lost = ConnectionLost("cut")
        policy = RetryPolicy(jitter=None, attempts=3)
        items = scripted((0, limited), (0, limited), (0, lost), policy=policy)
        assert taken(items()) == ([], lost)
        assert clock.waits == [20.0, 20.0]
        assert lost.exhausted

    def test_try_again_is_tried_again(self, clock):
        items = scripted((1, tenacity.TryAgain()), (1, None))
        assert taken(items()) == ([0, 1], "the end")

    def test_what_a_strategy_or_an_id_raises_is_raised(self, clock):
        error = ConnectionResetError()
        stream = scripted((1, error), wait=lambda _: 1 / 0)()
        assert isinstance(taken(stream)[1], ZeroDivisionError)
        stream = scripted((1, None), id_of=lambda _: 1 / 0, retry=ALWAYS)()
        assert isinstance(taken(stream)[1], ZeroDivisionError)
        assert stream.attempts == 1


class TestTenacity:
    @pytest.mark.parametrize(
        ("wait", "waits"),
        [
            (tenacity.wait_fixed(7), [7, 7, 7]),
            (tenacity.wait_none(), [0, 0, 0]),
            (tenacity.wait_incrementing(1, 2), [1, 3, 5]),
            (tenacity.wait_exponential(multiplier=2), [2, 4, 8]),
            (tenacity.wait_fixed(1) + tenacity.wait_fixed(2), [3, 3, 3]),
            (
                tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(9)),
                [1, 9, 9],
            ),
            (tenacity.wait_exception(lambda error: len(str(error))), [1, 2, 3]),
            (lambda state: state.attempt_number * 10, [10, 20, 30]),
        ],
    )
    def test_waits(self, clock, wait, waits):
        script = [(0, ConnectionResetError("x" * n)) for n in (1, 2, 3)]
        assert taken(scripted(*script, (0, None), wait=wait)()) == ([], "the end")
        assert clock.waits == waits

    @pytest.mark.parametrize(
        ("stop", "calls"),
        [
            (tenacity.stop_after_attempt(3), 3),
            (tenacity.stop_after_delay(25), 4),
            (tenacity.stop_before_delay(25), 3),
            (tenacity.stop_after_attempt(9) | tenacity.stop_after_delay(15), 3),
            (tenacity.stop_after_attempt(2) & tenacity.stop_after_delay(15), 3),
            (lambda state: state.idle_for >= 30, 4),
        ],
    )
    def test_stops(self, clock, stop, calls):
        script = [(0, ConnectionResetError()) for _ in range(9)]
        stream = scripted(*script, wait=tenacity.wait_fixed(10), stop=stop)()
        assert taken(stream) == ([], script[calls - 1][1])
        assert stream.attempts == calls

    @pytest.mark.parametrize(
        ("retry", "calls"),
        [
            (tenacity.retry_if_exception_type(KeyError), 2),
            (tenacity.retry_if_exception_type((KeyError, ValueError)), 3),
            (tenacity.retry_unless_exception_type(ValueError), 2),
            (tenacity.retry_if_not_exception_type(KeyError), 1),
            (tenacity.retry_if_exception(lambda error: "a" in str(error)), 2),
            (tenacity.retry_if_exception_message(match=".*a"), 2),
            (tenacity.retry_never, 1),
            (RetryPolicy().retry | tenacity.retry_if_exception_type(KeyError), 2),
        ],
    )
    def test_predicates(self, clock, retry, calls):
        script = [(1, KeyError("a")), (1, ValueError("b")), (1, RuntimeError("c"))]
        stream = scripted(*script, retry=retry)()
        assert taken(stream) == (list(range(calls)), script[calls - 1][1])

    def test_options_stand_in_for_the_policys(self, clock):
        script = [(0, ConnectionResetError()) for _ in range(9)]
        policy = RetryPolicy(attempts=3)
        taken(scripted(*script, policy=policy, wait=tenacity.wait_fixed(4))())
        assert clock.waits == [4, 4]


class TestTheCallersSide:
    """close(), send(), throw(), and letting go."""

    def watched(self, told, **options):
        """A function that tells what happens to it, and yields what it is sent."""

        @retry_stream(**options)
        def items(*, resume):
            told.append("begun")
            got = None
            try:
                while True:
                    try:
                        got = yield got
                    except KeyError:
                        got = "caught"
                    if isinstance(got, Exception):
                        raise got
            finally:
                told.append("ended")

        return items

    def test_close_closes_at_once_and_is_not_tried_again(self):
        told = []
        stream = self.watched(told, retry=ALWAYS)()
        next(stream)
        stream.close()
        assert told == ["begun", "ended"]
        stream.close()
        assert list(stream) == []
        assert told == ["begun", "ended"]

    def test_close_before_the_beginning(self):
        told = []
        stream = self.watched(told)()
        stream.close()
        assert list(stream) == told == []

    def test_what_the_function_raises_at_close_is_raised(self):
        @retry_stream(retry=ALWAYS)
        def items(*, resume):
            try:
                yield 1
            finally:
                raise OSError("flush failed")

        stream = items()
        next(stream)
        with pytest.raises(OSError, match="flush failed"):
            stream.close()
        assert stream.attempts == 1

    def test_a_function_that_will_not_close_is_told_on(self):
        @retry_stream(retry=ALWAYS)
        def items(*, resume):
            while True:
                with contextlib.suppress(GeneratorExit):
                    yield 1

        stream = items()
        next(stream)
        with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
            stream.close()
        # Or it would be told a second time, by its finaliser.
        with contextlib.suppress(ValueError):
            stream._inner.throw(ValueError)

    def test_a_dropped_stream_is_closed(self):
        told = []
        stream = self.watched(told)()
        next(stream)
        gc.disable()
        try:
            del stream
            assert told == ["begun", "ended"]
        finally:
            gc.enable()

    def test_what_is_sent_arrives(self):
        stream = self.watched([])()
        with pytest.raises(TypeError, match="just-started"):
            stream.send(1)
        assert stream.send(None) is None
        assert stream.send("a") == "a"
        assert next(stream) is None

    def test_what_was_sent_is_not_sent_again(self, clock):
        told = []
        stream = self.watched(told)()
        next(stream)
        assert stream.send(ConnectionResetError()) is None  # the first of the second
        assert told == ["begun", "ended", "begun"]
        assert stream.send("b") == "b"

    def test_what_is_thrown_in_and_comes_out_is_not_tried_again(self):
        told = []
        stream = self.watched(told, retry=ALWAYS)()
        next(stream)
        error = ConnectionResetError("the caller's own")
        with pytest.raises(ConnectionResetError) as caught:
            stream.throw(error)
        assert caught.value is error
        assert told == ["begun", "ended"]
        assert list(stream) == []

    def test_nor_what_is_raised_because_of_it(self):
        @retry_stream(retry=ALWAYS)
        def items(*, resume):
            try:
                yield 1
            except ConnectionError as error:
                raise LookupError from error
            except StopIteration:
                raise

        for thrown in (ConnectionResetError(), StopIteration()):
            stream = items()
            next(stream)
            with pytest.raises((LookupError, RuntimeError)):
                stream.throw(thrown)
            assert stream.attempts == 1

    def test_what_is_thrown_in_and_caught_is_over(self, clock):
        told = []
        stream = self.watched(told)()
        next(stream)
        assert stream.throw(KeyError("k")) == "caught"
        assert stream.send(ConnectionResetError()) is None
        assert told == ["begun", "ended", "begun"]

    def test_a_failure_after_catching_it_is_tried_again(self, clock):
        @retry_stream
        def items(*, resume):
            if resume.attempt == 1:
                with contextlib.suppress(KeyError):
                    yield 1
                raise ConnectionResetError
            yield 2

        stream = items()
        next(stream)
        assert stream.throw(KeyError()) == 2

    @pytest.mark.parametrize(
        "arguments",
        [(KeyError,), (KeyError, "k"), (KeyError, KeyError("k")), (KeyError("k"),)],
    )
    def test_throw_takes_what_a_generator_takes(self, arguments):
        stream = self.watched([])()
        next(stream)
        assert stream.throw(*arguments) == "caught"

    def test_throw_takes_no_other(self):
        stream = self.watched([], retry=ALWAYS)()
        next(stream)
        with pytest.raises(TypeError, match="must derive from BaseException"):
            stream.throw(int)
        assert next(stream) is None

    def test_throwing_before_the_beginning_or_after_the_end(self):
        told = []
        stream = self.watched(told, retry=ALWAYS)()
        for _ in range(2):
            with pytest.raises(KeyError):
                stream.throw(KeyError("k"))
        assert told == []

    def test_it_serves_as_a_context_manager_function(self, clock):
        told = []

        @contextlib.contextmanager
        @retry_stream
        def connection(*, resume):
            if resume.attempt == 1:
                raise ConnectionResetError
            yield resume.attempt
            told.append("left")

        with connection() as attempt:
            assert attempt == 2
        assert told == ["left"]
        with pytest.raises(ConnectionResetError, match="mine"), connection():
            raise ConnectionResetError("mine")
        assert told == ["left"]


class TestMemory:
    @pytest.fixture(autouse=True)
    def _without_the_collector(self):
        gc.collect()
        gc.disable()
        yield
        gc.enable()

    class Response:
        """What an attempt holds."""

    def holding(self, held, **options):
        @retry_stream(**options)
        def items(*, resume):
            response = self.Response()
            held.append(weakref.ref(response))
            yield resume.attempt
            try:
                raise ConnectionResetError("inner")
            except ConnectionError as error:
                raise ConnectionResetError(response) from error

        return items

    def test_a_failed_attempt_is_let_go_before_the_next(self, clock):
        held = []

        @retry_stream
        def items(*, resume):
            response = self.Response()
            held.append(weakref.ref(response))
            assert [ref() for ref in held[:-1]] == [None] * (resume.attempt - 1)
            yield resume.attempt
            try:
                {}["missing"]
            except LookupError as error:
                raise ConnectionResetError from error

        assert list(itertools.islice(items(), 5)) == [1, 2, 3, 4, 5]
        assert len(held) == 5

    def test_giving_up_leaves_no_cycle(self, clock):
        held = []
        stream = self.holding(held, policy=RetryPolicy(attempts=1))()
        next(stream)
        with contextlib.suppress(ConnectionResetError):
            next(stream)
        del stream
        assert held[0]() is None

    def test_nor_does_throwing(self):
        held = []
        stream = self.holding(held)()
        next(stream)
        error = KeyError("k")
        ref = weakref.ref(stream)
        with contextlib.suppress(KeyError):
            stream.throw(error)
        del stream, error
        assert (held[0](), ref()) == (None, None)

    def test_what_the_caller_is_handling_keeps_its_traceback(self, clock):
        items = scripted((1, ConnectionResetError()), (1, None))
        mine = LookupError("the caller's own")
        try:
            raise mine
        except LookupError:
            assert list(items()) == [0, 1]
        assert mine.__traceback__ is not None

    def test_a_stream_that_is_over_holds_no_arguments(self):
        @retry_stream
        def items(argument, *, resume):
            yield 1

        argument = self.Response()
        stream = items(argument)
        assert list(stream) == [1]
        ref = weakref.ref(argument)
        del argument
        assert ref() is None


class TestThreads:
    def test_one_function_for_fifty_threads(self, clock):
        start = threading.Barrier(50)
        policy = RetryPolicy(attempts=2)

        @retry_stream(policy=policy, keep=None)
        def items(seed, *, resume):
            rng = random.Random(f"{seed} {resume.attempt}")
            assert resume.items == tuple((seed, n) for n in range(resume.count))
            for number in range(resume.count, 200):
                yield seed, number
                if rng.random() < 0.1:
                    raise ConnectionResetError
            return resume.attempt

        def read(seed):
            start.wait(SOON)
            stream = items(seed)
            read, attempts = taken(stream)
            assert attempts == stream.attempts <= 50
            return read

        policy_of_the_function = RetryPolicy(attempts=2)
        readers = [Reader(lambda seed=seed: read(seed)) for seed in range(50)]
        for seed, reader in enumerate(readers):
            assert reader.ended() is None
            assert reader.result == [(seed, number) for number in range(200)]
        assert policy == policy_of_the_function

    def test_it_may_be_advanced_on_one_thread_after_the_other(self, clock):
        script = [(1, ConnectionResetError()) for _ in range(5)] + [(1, None)]
        stream = scripted(*script)()
        for number in range(6):
            reader = Reader(stream.__next__)
            assert reader.ended() is None
            assert reader.result == number

    def test_two_at_once_are_refused(self):
        entered, go = threading.Event(), threading.Event()

        @retry_stream(retry=ALWAYS)
        def items(*, resume):
            entered.set()
            go.wait(SOON)
            yield resume.attempt

        stream = items()
        reader = Reader(stream.__next__)
        assert entered.wait(SOON)
        with pytest.raises(StreamInUse, match="another thread is advancing"):
            next(stream)
        go.set()
        assert reader.ended() is None
        assert reader.result == 1

    @pytest.mark.parametrize("end", ["cancel", "close"])
    def test_a_wait_of_hours_ends_at_once_and_is_not_followed(self, end):
        called = []

        @retry_stream(policy=HOURS)
        def items(*, resume):
            called.append(resume.attempt)
            yield 1
            raise ConnectionResetError

        stream = items()
        next(stream)
        reader = Reader(stream.__next__)
        until(lambda: stream.waited)
        getattr(stream, end)()
        error = reader.ended()
        assert isinstance(error, StreamCancelled)
        assert error.attempts == 1
        assert called == [1]
        with pytest.raises(StreamCancelled):
            next(stream)

    def test_a_blocked_read_is_told(self):
        def serve(sock):
            read_request(sock)
            sock.sendall(answer(b"x" * 10)[:-5])
            wait_for_end(sock)

        def shut(response):
            response.raw.shutdown()

        @retry_stream(policy=HOURS)
        def pieces(url, *, resume):
            with requests.get(url, stream=True, timeout=60) as response:
                resume.cancel.on_cancel(lambda: shut(response))
                yield response.raw.read1(5)
                yield response.raw.read1(5)

        with Peer(serve) as peer:
            stream = pieces(peer.url)
            assert next(stream) == b"xxxxx"
            reader = Reader(stream.__next__)
            until(stream._advancing.locked)
            stream.cancel()
            assert isinstance(reader.ended(), StreamCancelled)
            assert peer.idle.wait(SOON)

    def test_an_idle_stream_is_closed_by_its_cancel(self):
        told = []

        @retry_stream
        def items(*, resume):
            resume.cancel.on_cancel(lambda: told.append("told"))
            try:
                yield 1
            finally:
                told.append("closed")

        stream = items()
        next(stream)
        stream.cancel()
        assert told == ["told", "closed"]
        with pytest.raises(StreamCancelled):
            next(stream)

    def test_a_past_attempt_is_not_told(self, clock):
        told = []

        @retry_stream
        def items(*, resume):
            resume.cancel.on_cancel(lambda: told.append(resume.attempt))
            yield resume.attempt
            raise ConnectionResetError

        stream = items()
        assert [next(stream), next(stream), next(stream)] == [1, 2, 3]
        stream.cancel()
        assert told == [3]

    def test_what_comes_after_a_cancel_is_not_handed_over(self):
        @retry_stream
        def items(*, resume):
            stream.cancel()
            yield 1

        stream = items()
        with pytest.raises(StreamCancelled):
            next(stream)
        assert stream.count == 0

    def test_a_cancel_while_an_item_is_handed_over_closes_after_it(self):
        told = []

        @retry_stream(id_of=lambda _: stream.cancel())
        def items(*, resume):
            try:
                yield 1
            finally:
                told.append("closed")

        stream = items()
        assert next(stream) == 1
        assert told == ["closed"]
        with pytest.raises(StreamCancelled):
            next(stream)

    def test_a_failure_that_a_cancel_caused_is_only_its_cause(self):
        @retry_stream
        def items(*, resume):
            stream.cancel()
            raise ValueError("read of closed file")
            yield

        stream = items()
        with pytest.raises(StreamCancelled) as caught:
            next(stream)
        assert isinstance(caught.value.__cause__, ValueError)

    def test_an_end_that_a_cancel_caused_is_none(self):
        @retry_stream
        def items(*, resume):
            yield 1
            stream.cancel()

        stream = items()
        assert next(stream) == 1
        with pytest.raises(StreamCancelled):
            next(stream)

    def test_a_cancel_after_the_end_changes_nothing(self):
        stream = scripted((1, None))()
        assert list(stream) == [0]
        stream.cancel()
        assert list(stream) == []


def fine(*, resume):
    yield resume.attempt


def without():
    yield 1


def positional(resume, /):
    yield resume


def anything(**resume):
    yield resume


async def coroutine(resume):
    return resume


async def asynchronous(resume):
    yield resume


class Async:
    async def __call__(self):
        return 1


@functools.wraps(fine)
def passing_on(*args, **kwargs):
    return fine(*args, **kwargs)


class TestWhatIsDecorated:
    def test_methods(self, clock):
        class Table:
            name = "table"

            @retry_stream
            def rows(self, *, resume):
                yield self.name, resume.attempt
                if resume.attempt == 1:
                    raise ConnectionResetError

            @classmethod
            @retry_stream
            def of_the_class(cls, *, resume):
                yield cls, resume.attempt

            @staticmethod
            @retry_stream
            def of_none(*, resume):
                yield resume.attempt

        assert list(Table().rows()) == [("table", 1), ("table", 2)]
        assert list(Table.of_the_class()) == [(Table, 1)]
        assert list(Table.of_none()) == [1]

    def test_objects_that_are_called(self):
        class Rows:
            def __call__(self, *, resume):
                yield resume.attempt

        assert list(retry_stream(Rows())()) == [1]

    @pytest.mark.parametrize(
        ("function", "complaint"),
        [
            (without, "without a parameter 'resume'"),
            (positional, "without a parameter 'resume'"),
            (anything, "without a parameter 'resume'"),
            (coroutine, "is async"),
            (asynchronous, "is async"),
            (Async(), "is async"),
            (classmethod(fine), "under @classmethod"),
            (staticmethod(fine), "under @staticmethod"),
            (passing_on, "directly over the function"),
            (RetryPolicy(), "its options go by name"),
            (tenacity.stop_after_attempt(3), "its options go by name"),
        ],
    )
    def test_what_cannot_be_retried_is_refused(self, function, complaint):
        with pytest.raises(ConfigurationError, match=complaint):
            retry_stream(function)

    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"policy": tenacity.Retrying()}, "must be a RetryPolicy"),
            ({"wait": 3}, "wait must be a tenacity wait object"),
            ({"stop": tenacity.stop_after_attempt}, "stop must be a tenacity stop"),
            ({"parameter": "not one"}, "parameter=. must be the name"),
            ({"id_of": "id"}, "id_of=. must be a function"),
            ({"keep": -1}, "keep=. must be a number of items"),
            ({"keep": True}, "keep=. must be a number of items"),
            ({"keep": 1.5}, "keep=. must be a number of items"),
        ],
    )
    def test_wrong_options_are_refused(self, options, complaint):
        with pytest.raises(ConfigurationError, match=complaint):
            retry_stream(**options)


class TestPlainFunctions:
    """They are tenacity's."""

    FAST = RetryPolicy(attempts=3, wait=tenacity.wait_none(), jitter=None)

    def failing(self, *errors, **options):
        pending = list(errors)

        @retry_stream(**{"policy": self.FAST, **options})
        def call(result):
            if pending:
                raise pending.pop(0)
            return result

        return call

    def test_it_is_tried_again(self):
        call = self.failing(ConnectionResetError(), TimeoutError())
        assert call("text") == "text"
        assert call.statistics["attempt_number"] == 3

    def test_tenacitys_own_error_at_the_end(self):
        call = self.failing(*[ConnectionResetError() for _ in range(3)])
        with pytest.raises(tenacity.RetryError):
            call("text")

    def test_tenacitys_own_options(self, caplog):
        call = self.failing(*[ConnectionResetError() for _ in range(9)])
        log = tenacity.before_sleep_log(logging.getLogger("calls"), logging.WARNING)
        other = call.retry_with(
            stop=tenacity.stop_after_attempt(2), reraise=True, before_sleep=log
        )
        with pytest.raises(ConnectionResetError):
            other("text")
        assert len(caplog.records) == 1
        assert isinstance(call.retry, tenacity.Retrying)

    @pytest.mark.parametrize(
        "kind", [KeyboardInterrupt, SystemExit, GeneratorExit, StreamCancelled]
    )
    def test_who_wants_out_is_let_out(self, kind):
        retry = tenacity.retry_if_not_exception_type(ValueError)
        call = self.failing(kind("out"), retry=retry)
        with pytest.raises(kind):
            call("text")
        assert call("text") == "text"

    def test_predicates_of_results_serve(self):
        calls = []

        @retry_stream(policy=self.FAST, retry=tenacity.retry_if_result(lambda r: r < 3))
        def count():
            calls.append(1)
            return len(calls)

        assert count() == 3

    def test_one_function_for_many_threads(self):
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)

        @retry_stream(policy=self.FAST, stop=tenacity.stop_after_attempt(9))
        def call(failures):
            if failures:
                raise failures.pop()
            return "text"

        def work():
            for _ in range(100):
                assert call([ConnectionResetError() for _ in range(5)]) == "text"

        try:
            for reader in [Reader(work) for _ in range(16)]:
                assert reader.ended() is None
        finally:
            sys.setswitchinterval(interval)
        call([])
        assert call.statistics["attempt_number"] == 1
        call([TimeoutError()])
        assert call.statistics["attempt_number"] == 2

    def test_options_of_generators_are_refused(self):
        for options in ({"id_of": str}, {"keep": None}):
            with pytest.raises(ConfigurationError, match="no generator function"):
                self.failing(**options)


ERRORS = (ConnectionResetError, TimeoutError, ValueError)


@given(
    script=st.lists(st.tuples(st.integers(0, 4), st.sampled_from(ERRORS)), max_size=12),
    last=st.integers(0, 4),
    attempts=st.integers(1, 4),
    total=st.none() | st.integers(1, 8),
)
def test_any_script(script, last, attempts, total):
    """Each item once and in order; then the end, or the error that the policy says."""
    errors = [(count, kind("broke")) for count, kind in script]
    expected, fruitless, end, calls = 0, 0, "the end", 0
    for count, error in [*errors, (last, None)]:
        calls += 1
        expected += count
        if error is None:
            break
        fruitless = 1 if count else fruitless + 1
        if (
            isinstance(error, ValueError)
            or fruitless >= attempts
            or (total is not None and calls >= total)
        ):
            end = error
            break
    points = []
    policy = RetryPolicy(attempts=attempts, total_attempts=total)
    items = scripted(*errors, (last, None), points=points, policy=policy, keep=None)
    with SleeplessClock() as clock:
        stream = items()
        assert taken(stream) == (list(range(expected)), end)
    assert [point.attempt for point in points] == list(range(1, calls + 1))
    assert all(point.items == tuple(range(point.count)) for point in points)
    assert (stream.attempts, stream.count) == (calls, expected)
    assert len(clock.waits) == calls - 1


class Cutter:
    """A server of one body that honours Range and cuts every answer but some."""

    def __init__(self, body, seed, cuts):
        self.body = body
        self.cuts = cuts
        self.ranges = []
        self._rng = random.Random(seed)

    def __call__(self, sock):
        request = read_request(sock).decode()
        start = int(request.lower().partition("range: bytes=")[2].partition("-")[0])
        self.ranges.append(start)
        rest = self.body[start:]
        content = f"Content-Range: bytes {start}-{len(self.body) - 1}/{len(self.body)}"
        response = answer(rest, content, status="206 Partial Content")
        if len(self.ranges) <= self.cuts:
            response = response[: self._rng.randrange(len(response))]
        sock.sendall(response)
        if len(self.ranges) <= self.cuts and self._rng.random() < 0.5:
            # A reset instead of an end: what is unsent is thrown away as well.
            linger = struct.pack("ii", 1, 0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


@pytest.mark.parametrize("seed", range(20))
def test_a_download_that_is_cut_anywhere_is_whole(clock, seed):
    body = random.Random(seed).randbytes(40_000)

    @retry_stream(id_of=operator.itemgetter(0))
    def pieces(url, *, resume: ResumePoint):
        offset = resume.last_id or 0
        headers = {"Range": f"bytes={offset}-"}
        with requests.get(url, headers=headers, stream=True, timeout=SOON) as response:
            response.raise_for_status()
            for piece in response.iter_content(1000):
                offset += len(piece)
                yield offset, piece

    serve = Cutter(body, seed, cuts=5)
    with Peer(serve) as peer:
        stream = pieces(peer.url)
        assert b"".join(piece for _, piece in stream) == body
    assert len(serve.ranges) == stream.attempts == 6
    assert serve.ranges == sorted(serve.ranges)
    assert serve.ranges[-1] > 0


def test_a_refusal_is_waited_out_as_long_as_it_says(clock):
    answers = iter(
        [
            answer(b"", "Retry-After: 30", status="429 Too Many Requests"),
            answer(b"busy", status="503 Busy"),
            answer(b"text"),
        ]
    )

    def serve(sock):
        read_request(sock)
        sock.sendall(next(answers))

    @retry_stream(policy=RetryPolicy(jitter=None))
    def pieces(url, *, resume):
        with requests.get(url, stream=True, timeout=SOON) as response:
            response.raise_for_status()
            yield from response.iter_content(100)

    with Peer(serve) as peer:
        assert list(pieces(peer.url)) == [b"text"]
    assert clock.waits == [30.0, 1.0]
