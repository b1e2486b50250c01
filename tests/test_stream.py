"""The public shape of a stream, over real sockets: the simulator is the other side."""

import contextlib
import gc
import itertools
import pickle
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from holystream import (
    AuthenticationError,
    Connected,
    ConnectionLost,
    DeadlineExceeded,
    Finished,
    Guarantee,
    Interrupted,
    Phase,
    PrioritySemaphore,
    QueueFull,
    QueueTimeout,
    QuotaExceeded,
    RestartRequired,
    Resumed,
    RetryPolicy,
    Rewound,
    Started,
    Stream,
    StreamCancelled,
    StreamClosed,
    StreamInterrupted,
    StreamInUse,
    StreamState,
    TextDelta,
    Timeouts,
    Waiting,
)
from holystream.exchange import Exchange
from holystream.simulator import Script

SOON = 25.0
"""Seconds within which another thread has done what takes it no time."""
NEVER = 300.0
"""Seconds that no test waits."""


def answer(simulator, prompt="Hello", **fields):
    """What the simulator answers to a prompt."""
    messages = [{"role": "user", "content": prompt}]
    return simulator.answer({"model": "sim", "messages": messages, **fields})


@contextlib.contextmanager
def elsewhere(work, *arguments):
    """Do some work in another thread; its future must be done at the end."""
    with ThreadPoolExecutor(1) as executor:
        future = executor.submit(work, *arguments)
        yield future
        future.exception(SOON)


def until(condition):
    """Wait until something holds that nobody tells us of."""
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "in vain"
        time.sleep(0)


def held(simulator):
    """Make the next answer wait for a release before each of its events."""
    gate = threading.Semaphore(0)
    simulator.play(Script(gate=gate))
    return gate


class TestIterating:
    def test_the_events_print_as_the_text(self, simulator, client):
        with client.stream("Hello", temperature=0) as stream:
            events = list(stream)
        expected = answer(simulator, temperature=0)
        assert "".join(map(str, events)) == expected.text
        assert type(events[0]) is Started
        assert type(events[1]) is Connected
        assert type(events[-1]) is Finished
        deltas = [event for event in events if type(event) is TextDelta]
        assert [delta.text for delta in deltas] == list(expected.deltas)

    def test_nothing_is_sent_before_it_is_opened(self, simulator, client):
        stream = client.stream("Hello")
        assert stream.state is StreamState.IDLE
        with stream:
            assert simulator.connections == 0
            assert isinstance(next(stream), Started)
            assert simulator.connections == 0
        assert stream.state is StreamState.CLOSED
        assert simulator.requests == ()

    def test_text_stream_is_the_text(self, simulator, client):
        stream = client.stream("Hello", temperature=0)
        assert list(stream.text_stream) == list(answer(simulator, temperature=0).deltas)
        assert stream.state is StreamState.DONE

    def test_a_loop_that_breaks_leaves_the_rest_to_the_next(self, simulator, client):
        stream = client.stream("Hello", temperature=0)
        texts = []
        for turn in itertools.count():
            rest = stream if turn % 2 else stream.text_stream
            for count, event in enumerate(rest):
                texts.append(str(event))
                if count == turn:
                    break
            else:
                break
        assert "".join(texts) == answer(simulator, temperature=0).text

    def test_next_takes_one_event_at_a_time(self, simulator, client):
        stream = client.stream("Hello", temperature=0)
        assert isinstance(next(stream), Started)
        assert isinstance(next(stream), Connected)
        texts = [next(stream.text_stream), next(stream.text_stream), str(next(stream))]
        assert texts == list(answer(simulator, temperature=0).deltas[:3])
        stream.close()

    def test_the_end_is_the_end(self, client):
        stream = client.stream("Hello").until_done()
        assert list(stream) == list(stream.text_stream) == []
        with pytest.raises(StopIteration):
            next(stream)
        with pytest.raises(StopIteration):
            next(stream.text_stream)

    def test_a_loop_in_a_loop_takes_what_is_left(self, simulator, client):
        stream = client.stream("Hello", temperature=0)
        texts = []
        for event in stream:
            texts.append(str(event))
            if isinstance(event, TextDelta):
                texts += stream.text_stream
        assert "".join(texts) == answer(simulator, temperature=0).text

    def test_opening_it_in_a_loop_loses_nothing(self, simulator, client):
        texts = []
        stream = client.stream("Hello", temperature=0)
        for event in stream:
            stream.open()
            texts.append(str(event))
        assert "".join(texts) == answer(simulator, temperature=0).text

    def test_only_the_first_choice_is_in_the_text_stream(self, simulator, client):
        stream = client.stream("Hello", temperature=0, n=2)
        text = "".join(stream.text_stream)
        expected = answer(simulator, temperature=0, n=2)
        assert text == expected.choices[0].text == stream.completion.text
        assert stream.completion.choices[1].text == expected.choices[1].text

    def test_the_final_text_and_completion(self, simulator, client):
        stream = client.stream("Hello", temperature=0)
        expected = answer(simulator, temperature=0)
        assert stream.get_final_text() == expected.text
        completion = stream.get_final_completion()
        assert completion is stream.completion
        assert completion.usage.completion_tokens == expected.usage["completion_tokens"]
        assert completion.finish_reason == "stop"

    def test_until_done_returns_the_stream(self, client):
        stream = client.stream("Hello")
        assert stream.until_done() is stream
        assert stream.completion is not None

    def test_reasoning_and_tool_calls_come_whole(self, client):
        tools = [{"type": "function", "function": {"name": "look"}}]
        stream = client.stream(
            'call:look {"at": "sky"}', model="sim-reasoner", tools=tools
        )
        completion = stream.get_final_completion()
        (call,) = completion.tool_calls
        assert (call.name, call.arguments) == ("look", {"at": "sky"})
        assert completion.reasoning
        assert completion.text == ""


class TestOpening:
    def test_it_loses_no_event(self, simulator, client):
        with client.stream("Hello", temperature=0).open() as stream:
            events = list(stream)
        assert isinstance(events[0], Started)
        assert "".join(map(str, events)) == answer(simulator, temperature=0).text

    def test_it_returns_at_the_first_event_of_the_server(self, simulator, client):
        gate = held(simulator)
        gate.release()
        with client.stream("Hello") as stream:
            assert stream.open() is stream, "the first chunk holds no text"
            assert stream.state is StreamState.STREAMING
            assert stream.partial_text == ""
            assert stream.open() is stream

    def test_a_refusal_raises_there(self, simulator, client):
        simulator.play(Script(status=401))
        stream = client.stream("Hello")
        with pytest.raises(AuthenticationError) as caught:
            stream.open()
        assert caught.value.status == 401
        assert stream.state is StreamState.CLOSED
        with pytest.raises(AuthenticationError):
            stream.open()

    def test_an_error_in_place_of_the_first_event_raises_there(self, simulator, client):
        simulator.play(Script(error_event_at=0, error_event="insufficient_quota"))
        with pytest.raises(QuotaExceeded):
            client.stream("Hello").open()

    def test_what_is_retried_unseen_does_not(self, simulator, client):
        simulator.play(Script(status=503), Script(error_event_at=0))
        with client.stream("Hello", temperature=0) as stream:
            stream.open()
            assert stream.attempts == 3
            assert stream.get_final_text() == answer(simulator, temperature=0).text

    def test_an_empty_answer_can_be_opened(self, simulator, client):
        stream = client.stream("echo:").open()
        assert stream.get_final_text() == ""

    def test_a_stream_that_is_done_can_be_opened(self, client):
        stream = client.stream("Hello").until_done()
        assert stream.open() is stream


class TestStates:
    def test_a_life_without_faults(self, simulator, client):
        gate = held(simulator)
        stream = client.stream("Hello", temperature=0, stream_id="mine-1")
        assert stream.state is StreamState.IDLE
        assert (stream.attempts, stream.request_id, stream.ttft) == (0, None, None)
        next(stream)
        assert stream.state is StreamState.QUEUED
        connected = next(stream)
        assert stream.state is StreamState.STREAMING
        assert stream.request_id == connected.request_id == "req_00000001"
        assert (stream.attempts, stream.ttft, stream.usage) == (1, None, None)
        gate.release(2)
        delta = next(stream)
        assert stream.partial_text == delta.text
        assert stream.ttft > 0
        assert stream.completion is None
        assert stream.guarantee is Guarantee.SINGLE
        gate.release(1000)
        stream.until_done()
        assert stream.state is StreamState.DONE
        assert stream.stream_id == stream.completion.stream_id == "mine-1"
        assert stream.usage == stream.completion.usage
        assert stream.ttft == stream.completion.ttft
        assert repr(stream) == "<Stream mine-1 done model='sim' attempts=1>"

    def test_connecting_while_there_are_no_headers(self, simulator, client):
        simulator.play(Script(stall_headers=True))
        stream = client.stream("Hello")
        with elsewhere(stream.until_done) as reading:
            assert simulator.wait_until(lambda: simulator.requests)
            assert stream.state is StreamState.CONNECTING
            stream.cancel()
        error = reading.exception()
        assert isinstance(error, StreamCancelled)
        assert error.phase is Phase.SENT
        assert stream.state is StreamState.CLOSED

    def test_queued_while_there_is_no_permit(self, simulator):
        gate = held(simulator)
        gate.release()
        with make_client(simulator, pool=PrioritySemaphore(1)) as client:
            first = client.stream("Hello").open()
            second = client.stream("Hello")
            with elsewhere(second.get_final_text) as reading:
                until(lambda: client.pool.statistics().queued)
                assert second.state is StreamState.QUEUED
                assert second.attempts == 0
                first.close()
            assert reading.result() == second.partial_text
            assert second.state is StreamState.DONE

    def test_waiting_before_another_attempt(self, simulator, client):
        simulator.play(Script(cut_at=0))
        stream = client.stream("Hello", retry=RetryPolicy(base=NEVER, cap=NEVER))
        waiting = next(event for event in stream if isinstance(event, Waiting))
        assert stream.state is StreamState.WAITING
        assert (waiting.attempt, waiting.reason) == (2, "backoff")
        stream.close()
        assert stream.state is StreamState.CLOSED
        assert stream.guarantee is Guarantee.PARTIAL

    def test_while_it_waits_the_permit_is_given_back(self, simulator, client):
        simulator.play(Script(cut_at=0))
        stream = client.stream("Hello", retry=RetryPolicy(base=NEVER, cap=NEVER))
        next(event for event in stream if isinstance(event, Waiting))
        assert client.pool.statistics().in_use == 0
        stream.close()


def make_client(simulator, **options):
    from holystream import Client

    key = "sk-0123456789abcdef"
    return Client(key, base_url=simulator.base_url, model="sim", **options)


class TestGoingOn:
    """What exchange.py decides, as it is seen over real sockets."""

    @pytest.mark.parametrize("cut", ["fin", "rst", "end"])
    def test_a_replay_joins(self, simulator, client, cut):
        simulator.play(Script(cut_at=2500, cut=cut), Script(cut_at=4000, cut=cut))
        events = list(client.stream("Hello", temperature=0))
        assert "".join(map(str, events)) == answer(simulator, temperature=0).text
        completion = events[-1].completion
        assert completion.guarantee is Guarantee.REPLAYED
        assert (completion.attempts, completion.interruptions) == (3, 2)
        kinds = [type(event) for event in events]
        assert kinds.count(Interrupted) == kinds.count(Resumed) == 2

    def test_sampled_text_is_not_joined(self, simulator, client):
        simulator.play(Script(cut_at=2500))
        stream = client.stream("Hello")
        with pytest.raises(StreamInterrupted) as caught:
            stream.until_done()
        assert caught.value.partial_text == stream.partial_text != ""
        assert answer_starts_with(simulator, stream.partial_text)
        assert stream.guarantee is Guarantee.PARTIAL
        assert len(simulator.requests) == 1

    def test_a_restart_writes_the_text_anew(self, simulator, client):
        simulator.play(Script(cut_at=2500))
        text = ""
        for event in client.stream("Hello", resume=("restart",)):
            if isinstance(event, Rewound):
                assert event.discarded == text
                text = text[: event.offset]
            text += str(event)
        assert text == event.completion.text
        assert event.completion.guarantee is Guarantee.RESTARTED

    def test_text_stream_cannot_take_text_back(self, simulator, client):
        simulator.play(Script(cut_at=2500))
        stream = client.stream("Hello", resume=("restart",))
        first = []
        with pytest.raises(RestartRequired, match="text_stream again"):
            first.extend(stream.text_stream)
        assert first
        second = "".join(stream.text_stream)
        assert second == stream.completion.text
        assert not second.startswith("".join(first))
        assert stream.completion.guarantee is Guarantee.RESTARTED


def answer_starts_with(simulator, text):
    messages = [{"role": "user", "content": "Hello"}]
    body = {"model": "sim", "messages": messages}
    return simulator.answer(body, sample=0).text.startswith(text)


class TestErrors:
    def test_an_error_stays(self, simulator, client):
        simulator.play(Script(cut_at=2500))
        stream = client.stream("Hello")
        for _ in range(3):
            with pytest.raises(StreamInterrupted):
                list(stream)
            with pytest.raises(StreamInterrupted):
                list(stream.text_stream)
            with pytest.raises(StreamInterrupted):
                next(stream)
            with pytest.raises(StreamInterrupted):
                stream.get_final_text()
        stream.close()
        stream.cancel()
        with pytest.raises(StreamInterrupted):
            stream.get_final_completion()
        assert stream.state is StreamState.CLOSED

    def test_what_came_before_it_is_delivered_first(self, simulator, client):
        simulator.play(Script(error_event_at=9))
        events = []
        with pytest.raises(StreamInterrupted) as caught:
            events.extend(client.stream("Hello"))
        text = "".join(map(str, events))
        assert text == caught.value.partial_text
        assert text == answer_text(simulator, sample=0, pieces=8)

    def test_it_can_be_pickled_as_it_was_raised(self, simulator, client):
        simulator.play(Script(cut_at=2500))
        with pytest.raises(StreamInterrupted) as caught:
            client.stream("Hello").until_done()
        copy = pickle.loads(pickle.dumps(caught.value))
        assert str(copy) == str(caught.value)
        assert type(copy.cause) is ConnectionLost

    def test_a_full_queue(self, simulator):
        pool = PrioritySemaphore(1, max_queue=0)
        with make_client(simulator, pool=pool) as client, pool.acquire():
            stream = client.stream("Hello")
            with pytest.raises(QueueFull) as caught:
                stream.open()
        assert caught.value.stream_id == stream.stream_id
        assert stream.state is StreamState.CLOSED
        assert simulator.requests == ()

    def test_a_wait_in_the_queue_that_takes_too_long(self, simulator):
        pool = PrioritySemaphore(1)
        timeouts = Timeouts(queue=0.01)
        with make_client(simulator, pool=pool, timeout=timeouts) as client:
            with pool.acquire(), pytest.raises(QueueTimeout, match=r"0\.01 s"):
                client.stream("Hello").open()
            with pool.acquire(), pytest.raises(DeadlineExceeded):
                client.stream("Hello", timeout=60, deadline=0.01).open()


def answer_text(simulator, *, sample, pieces):
    messages = [{"role": "user", "content": "Hello"}]
    body = {"model": "sim", "messages": messages}
    return "".join(simulator.answer(body, sample=sample).deltas[:pieces])


class TestEnding:
    """close() lets go, cancel() ends it for good; from any thread, at any time."""

    @pytest.mark.parametrize(
        ("end", "error"),
        [(Stream.close, StreamClosed), (Stream.cancel, StreamCancelled)],
    )
    def test_reading_on_is_an_error_and_never_a_short_end(self, client, end, error):
        for ended_after in range(4):
            with client.stream("Hello") as stream:
                for _ in range(ended_after):
                    next(stream)
                end(stream)
                end(stream)
                assert stream.state is StreamState.CLOSED
                assert client.pool.statistics().in_use == 0
                kept = stream.partial_text
                for read in (list, next, Stream.get_final_text, Stream.open):
                    if read is Stream.open and ended_after == 3:
                        continue
                    with pytest.raises(error) as caught:
                        read(stream)
                    assert caught.value.partial_text == kept

    def test_the_first_of_the_two_counts(self, client):
        stream = client.stream("Hello")
        stream.close()
        stream.cancel()
        with pytest.raises(StreamClosed):
            next(stream)

    @pytest.mark.parametrize("end", [Stream.close, Stream.cancel])
    def test_a_complete_answer_stays_complete(self, client, end):
        stream = client.stream("Hello").until_done()
        end(stream)
        assert stream.state is StreamState.DONE
        assert stream.get_final_text() == stream.partial_text
        assert list(stream) == []

    def test_an_answer_that_is_complete_but_not_read_can_be_read(self, simulator):
        with make_client(simulator) as client:
            stream = client.stream("Hello", temperature=0)
            events = []
            while stream.completion is None:
                events.append(next(stream))
            stream.close()
            events += stream
        assert "".join(map(str, events)) == answer(simulator, temperature=0).text
        assert stream.state is StreamState.DONE

    def test_closing_the_text_closes_the_stream(self, client):
        stream = client.stream("Hello")
        text = stream.text_stream
        next(text)
        text.close()
        assert stream.state is StreamState.CLOSED
        with pytest.raises(StreamClosed):
            next(text)

    def test_leaving_the_block_closes_it(self, simulator, client):
        held(simulator)
        with client.stream("Hello") as stream:
            next(stream)
            assert isinstance(next(stream), Connected)
        assert stream.state is StreamState.CLOSED
        assert simulator.wait_until(lambda: simulator.open_connections == 0)

    @pytest.mark.parametrize(
        ("end", "error"),
        [(Stream.close, StreamClosed), (Stream.cancel, StreamCancelled)],
    )
    def test_a_thread_that_reads_is_woken(self, simulator, client, end, error):
        gate = held(simulator)
        gate.release(5)
        stream = client.stream("Hello")
        read = threading.Event()

        def take():
            for event in stream:
                if isinstance(event, TextDelta):
                    read.set()

        with elsewhere(take) as reading:
            assert read.wait(SOON)
            end(stream)
        assert type(reading.exception()) is error
        assert reading.exception().partial_text == stream.partial_text != ""
        assert client.pool.statistics().in_use == 0
        assert simulator.wait_until(lambda: simulator.open_connections == 0)

    def test_a_cancel_between_two_events_takes_what_is_left(self, simulator, client):
        stream = client.stream("Hello", temperature=0)
        assert next(stream.text_stream)
        stream.cancel()
        with pytest.raises(StreamCancelled):
            next(stream)

    def test_whoever_reads_while_it_is_closed_waits_to_be_told_so(self, client):
        """Not that another thread reads it, though one holds it while closing it."""
        stream = client.stream("Hello").open()
        # White box: this is what a close does, stopped in the middle.
        stream._driver._token.cancel()
        with ThreadPoolExecutor(1) as executor:
            with stream._driver._reading:
                reading = executor.submit(stream.get_final_text)
                with pytest.raises(TimeoutError):
                    reading.result(0.05)
            assert isinstance(reading.exception(SOON), StreamClosed)


class TestThreads:
    def test_different_threads_may_read_in_turn(self, simulator, client):
        stream = client.stream("Hello", temperature=0)
        texts = []
        rest = iter(stream)
        with ThreadPoolExecutor(2) as executor:
            while executor.submit(lambda: texts.append(next(rest, None))).result(SOON):
                pass
            while texts[-1] is not None:
                executor.submit(lambda: texts.append(next(rest, None))).result(SOON)
        assert "".join(map(str, texts[:-1])) == answer(simulator, temperature=0).text

    def test_a_second_thread_is_told_that_one_is_reading(self, simulator, client):
        gate = held(simulator)
        stream = client.stream("Hello", temperature=0)
        connected = threading.Event()

        def take():
            text = ""
            for event in stream:
                text += str(event)
                if isinstance(event, Connected):
                    connected.set()
            return text

        with elsewhere(take) as reading:
            assert connected.wait(SOON)
            # White box: nothing else tells that the other thread is in its read.
            until(stream._driver._reading.locked)
            for read in (next, list, Stream.get_final_text, Stream.open):
                with pytest.raises(StreamInUse, match="any may cancel"):
                    read(stream)
            gate.release(1000)
        assert reading.result() == answer(simulator, temperature=0).text


class TestCarelessness:
    def test_a_dropped_stream_is_let_go_with_a_warning(self, simulator, client):
        gate = held(simulator)
        gate.release(5)
        stream = client.stream("Hello", stream_id="forgotten").open()
        with pytest.warns(ResourceWarning, match="forgotten was dropped"):  # noqa: PT031 - one thing
            del stream
            gc.collect()
        assert client.pool.statistics().in_use == 0
        assert simulator.wait_until(lambda: simulator.open_connections == 0)
        assert client.stream("Hello").get_final_text()

    def test_one_that_was_never_opened_needs_no_warning(self, client):
        client.stream("Hello")
        gc.collect()

    @pytest.mark.parametrize(
        ("script", "state"),
        [
            (Script(stall_headers=True), StreamState.CONNECTING),
            (Script(stall_at=1000), StreamState.STREAMING),
            (Script(status=503, headers={"Retry-After": "50"}), StreamState.WAITING),
        ],
    )
    def test_ctrl_c_ends_any_wait(self, simulator, client, script, state):
        simulator.play(script)
        stream = client.stream("Hello", timeout=NEVER)
        main = threading.get_ident()
        interrupted = threading.Event()

        def press():
            assert simulator.wait_until(lambda: simulator.requests)
            until(lambda: stream.state is state)
            # More than once, because a signal that comes just before a system call
            # does not end it.
            while not interrupted.wait(0.01):
                signal.pthread_kill(main, signal.SIGINT)

        def pressed(_signal, _frame):
            if not interrupted.is_set():
                interrupted.set()
                raise KeyboardInterrupt

        previous = signal.signal(signal.SIGINT, pressed)
        try:
            with elsewhere(press), pytest.raises(KeyboardInterrupt), stream:
                stream.until_done()
        finally:
            signal.signal(signal.SIGINT, previous)
        assert stream.state is StreamState.CLOSED
        assert client.pool.statistics().in_use == 0
        with pytest.raises(StreamClosed):
            next(stream)


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_a_close_that_drains_leaves_the_reader_its_clean_end(
    simulator, client, framing
):
    """The closing thread holds the stream for as long as the server lingers."""
    simulator.play(Script(linger=20, framing=framing))
    stream = client.stream("hello")
    finished, closing = threading.Event(), threading.Event()
    seen = []

    def read():
        for event in stream:
            seen.append(event)
            if isinstance(event, Finished):
                finished.set()
                closing.wait(20)

    reader = threading.Thread(target=read)
    reader.start()
    assert finished.wait(20)
    closer = threading.Thread(target=stream.close)
    closer.start()
    while not stream._driver._reading.locked() and closer.is_alive():
        pass
    closing.set()
    reader.join(20)
    closer.join(20)
    assert isinstance(seen[-1], Finished)
    assert stream.state is StreamState.DONE
    assert list(stream) == []


def test_an_interrupt_that_takes_the_last_events_leaves_no_clean_end(
    client, monkeypatch
):
    stream = client.stream("hello")
    receive = Exchange.receive

    def interrupted(exchange, batch, now):
        events = receive(exchange, batch, now)
        if any(isinstance(event, Finished) for event in events):
            monkeypatch.undo()
            raise KeyboardInterrupt
        return events

    monkeypatch.setattr(Exchange, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        stream.until_done()
    for _ in range(2):
        with pytest.raises(StreamClosed, match="completion"):
            stream.until_done()
    assert stream.completion.text == stream.partial_text
    assert client.pool.statistics().in_use == 0


class TestACallbackThatRaises:
    """Each event is told once and before it is handed over, whatever happens."""

    @pytest.mark.parametrize("together", [False, True])
    def test_what_follows_is_told_when_reading_goes_on(
        self, simulator, client, together
    ):
        """At each event in turn; most of them come in one batch."""
        for place in itertools.count():
            told, taken = [], []

            def tell(event, told=told, place=place):
                told.append(event)
                if len(told) == place + 1:
                    raise ZeroDivisionError

            stream = client.stream("Hello", temperature=0, on_event=tell)
            raised = 0
            while True:
                try:
                    if together:
                        stream.open()
                    for event in stream:
                        taken.append(event)
                        assert event in told
                    break
                except ZeroDivisionError:
                    raised += 1
            assert told == taken
            text = answer(simulator, temperature=0).text
            assert "".join(map(str, taken)) == text
            assert isinstance(taken[-1], Finished)
            if not raised:
                break
        assert place == len(taken) > 10

    def test_after_a_cancel_nothing_is_told_or_handed_over(self, client):
        told = []

        def tell(event):
            told.append(event)
            if isinstance(event, TextDelta):
                stream.cancel()
                raise ZeroDivisionError

        stream = client.stream("Hello", on_event=tell)
        with pytest.raises(ZeroDivisionError):
            stream.until_done()
        for _ in range(2):
            with pytest.raises((StreamCancelled, StopIteration)):
                next(stream)
        texts = [event for event in told if isinstance(event, TextDelta)]
        assert len(texts) == 1 or stream.completion


def test_an_error_that_is_raised_again_does_not_grow(simulator, client):
    simulator.play(Script(error_event_at=0, error_event="insufficient_quota"))
    stream = client.stream("Hello")
    depths = []
    for _ in range(4):
        with pytest.raises(QuotaExceeded) as caught:
            stream.until_done()
        depths.append(len(caught.traceback))
    assert depths[1] == depths[2] == depths[3]
