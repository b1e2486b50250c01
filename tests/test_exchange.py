"""One answer without a socket: what is tried again, joined, proven, and given up."""

import pytest
import tenacity
from exchange_player import (
    DONE,
    KEY,
    PROMPT,
    STEADY,
    Player,
    call,
    choice,
    chunk,
    error_event,
    finish,
    refusal,
    role,
    text,
    thought,
    usage,
    whole_call,
)

from holystream.clocks import TAIL, Clock, Timeouts
from holystream.errors import (
    AuthenticationError,
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    FirstTokenTimeout,
    GuaranteeNotMet,
    IncompleteAnswer,
    MalformedEvent,
    Overloaded,
    Phase,
    QuotaExceeded,
    RateLimited,
    ServerError,
    StreamCancelled,
    StreamInterrupted,
    Verdict,
)
from holystream.events import (
    Connected,
    Finished,
    Guarantee,
    Interrupted,
    Resumed,
    Started,
    TextDelta,
    Usage,
    UsageReport,
    Waiting,
)
from holystream.resilience.retry import RetryPolicy
from holystream.wire.faults import Answer, FaultKind
from holystream.wire.sse import ServerSentEvent

WHOLE = (text("Hello"), text(" world"), finish(), DONE)


class TestAnUndisturbedAnswer:
    def test_its_events_come_in_order(self):
        player = Player().answer(role(), *WHOLE)
        assert player.names == [
            "Started",
            "Connected",
            "TextDelta",
            "TextDelta",
            "Finished",
        ]
        assert player.log[0] == Started(stream_id="stream-1", model="m")
        assert player.log[1] == Connected(
            endpoint="here", attempt=1, request_id="req_1"
        )
        assert player.log[2] == TextDelta("Hello", 0, 0, 0, WHOLE[0])

    def test_its_completion_says_everything(self):
        player = Player()
        player.now += 2.0
        player.connect()
        player.now += 3.0
        player.send(text("Hi"))
        player.now += 4.0
        player.send(finish(), usage(9, 3), DONE)
        completion = player.completion
        assert player.log[-1] == Finished(completion=completion)
        assert completion.text == "Hi" == str(completion)
        assert completion.finish_reason == "stop"
        assert completion.guarantee is Guarantee.SINGLE
        assert completion.usage == Usage(
            prompt_tokens=9, completion_tokens=3, total_tokens=12
        )
        assert (completion.attempts, completion.interruptions) == (1, 0)
        assert (completion.ttft, completion.duration) == (5.0, 9.0)
        assert completion.model == "m-2024"
        assert completion.response_id == "chatcmpl-1"
        assert completion.request_id == "req_1"
        assert completion.endpoint == "here"
        assert completion.stream_id == "stream-1"

    def test_the_answering_begins_with_the_first_chunk_that_is_no_error(self):
        player = Player().connect()
        assert not player.exchange.answering
        player.send(error_event())
        assert not player.exchange.answering
        player.connect().send(role())
        assert player.exchange.answering

    def test_several_choices_come_side_by_side(self):
        player = Player(n=2).answer(
            text("a0", 0),
            text("b0", 1),
            text("a1", 0),
            finish("stop", 0),
            text("b1", 1),
            finish("length", 1),
            DONE,
        )
        first, second = player.completion.choices
        assert (first.text, first.finish_reason) == ("a0a1", "stop")
        assert (second.text, second.finish_reason) == ("b0b1", "length")
        assert player.completion.text == "a0a1"

    def test_reasoning_and_refusal_are_channels_of_their_own(self):
        player = Player().answer(
            thought("hm"), thought("m"), refusal("I will not"), finish(), DONE
        )
        (only,) = player.completion.choices
        assert (only.text, only.reasoning, only.refusal) == ("", "hmm", "I will not")

    def test_an_answer_may_be_empty(self):
        player = Player().answer(role(), finish("length"), DONE)
        assert player.completion.text == ""
        assert player.completion.ttft is None


class TestBeforeTheFirstCharacter:
    """An interruption is retried, and nothing of it is in the answer."""

    @pytest.mark.parametrize(
        ("fault", "phase", "error"),
        [
            (FaultKind.REFUSED, Phase.CONNECT, ConnectionFailed),
            (FaultKind.LOST, Phase.SENT, ConnectionLost),
            (FaultKind.LOST, Phase.HEADERS, ConnectionLost),
            (FaultKind.ENDED, Phase.BODY, IncompleteAnswer),
            (FaultKind.FIRST_TOKEN, Phase.SENT, FirstTokenTimeout),
        ],
    )
    def test_it_is_tried_again(self, fault, phase, error):
        player = Player(temperature=1)
        player.attempt().end(fault, phase)
        interrupted = player.last(Interrupted)
        assert type(interrupted.error) is error
        assert interrupted.error.phase is phase
        assert interrupted.attempt == 1
        player.answer(*WHOLE)
        assert player.completion.text == "Hello world"
        assert player.completion.guarantee is Guarantee.SINGLE
        assert (player.completion.attempts, player.completion.interruptions) == (2, 1)
        assert "Resumed" not in player.names

    def test_the_events_come_in_order(self):
        player = Player().answer(role()).cut().answer(*WHOLE)
        assert player.names[:5] == [
            "Started",
            "Connected",
            "Interrupted",
            "Waiting",
            "Connected",
        ]
        assert player.last(Waiting) == Waiting(
            delay=1.0, reason="backoff", attempt=2, attempts_left=4
        )

    def test_reasoning_alone_is_thought_anew(self):
        player = Player(temperature=1).answer(thought("first")).cut()
        player.answer(thought("second"), *WHOLE)
        assert player.reader.reasoning == {0: ["first", "second"]}
        assert player.completion.reasoning == "second"
        assert player.completion.guarantee is Guarantee.SINGLE

    def test_what_an_abandoned_answer_thought_is_not_in_the_next_one(self):
        player = Player(temperature=1).answer(thought("old"), refusal("no")).cut()
        player.answer(*WHOLE)
        (only,) = player.completion.choices
        assert (only.text, only.reasoning, only.refusal) == ("Hello world", "", "")

    def test_nor_is_it_in_a_choice_of_which_nothing_was_delivered(self):
        player = Player(n=2).answer(thought("old", 1), text("Hi")).cut()
        player.answer(text("Hi"), text("you", 1), finish(), finish(index=1), DONE)
        assert player.completion.choices[1].reasoning == ""

    def test_a_refusal_is_begun_anew(self):
        player = Player(temperature=1).answer(refusal("I ca")).cut()
        player.answer(refusal("I cannot"), finish(), DONE)
        assert player.completion.choices[0].refusal == "I cannot"

    def test_half_a_tool_call_is_discarded(self):
        half = whole_call(0, "look", {"at": "the sky"}, prefix="old")[:2]
        player = Player(temperature=1).answer(*half).cut()
        again = whole_call(0, "look", {"at": "the sea"}, prefix="new")
        player.answer(*again, finish("tool_calls"), DONE)
        (found,) = player.completion.tool_calls
        assert (found.id, found.arguments) == ("new_0", {"at": "the sea"})
        assert list(player.reader.half_calls) == [(0, 0, 0), (0, 0, 1)]

    def test_half_a_character_is_discarded(self):
        player = Player(temperature=1).answer(text("\ud83d")).cut()
        assert player.text == ""
        player.answer(text("Hi"), finish(), DONE)
        assert player.completion.text == "Hi"


class TestEvidence:
    """Completion is judged by what the server says, never by how the body ends."""

    @pytest.mark.parametrize("reason", ["stop", "length", "content_filter", "whatever"])
    @pytest.mark.parametrize("how", [FaultKind.ENDED, FaultKind.LOST, FaultKind.TAIL])
    def test_a_finish_reason_makes_it_whole_however_it_ends(self, reason, how):
        player = Player(temperature=1).answer(text("Hi"), finish(reason)).end(how)
        assert player.completion.text == "Hi"
        assert player.completion.finish_reason == reason
        assert player.completion.interruptions == 0
        assert player.names[-1] == "Finished"

    @pytest.mark.parametrize(
        "reason", ["error", "abort", "insufficient_system_resource"]
    )
    def test_some_finish_reasons_are_failures(self, reason):
        player = Player(temperature=1).answer(text("Hi"), finish(reason), DONE)
        assert isinstance(player.error, StreamInterrupted)
        assert repr(reason) in str(player.error)
        assert player.error.partial_text == "Hi"

    def test_done_alone_proves_nothing_and_is_not_waited_behind(self):
        player = Player().answer(text("Hi"), DONE)
        assert isinstance(player.last(Interrupted).error, IncompleteAnswer)
        assert player.exchange.wait is not None
        player.answer(*[text("Hi there"), finish(), DONE])
        assert player.completion.text == "Hi there"

    def test_a_clean_end_alone_proves_nothing(self):
        player = Player(temperature=1).answer(text("Hi")).close()
        assert isinstance(player.error, StreamInterrupted)
        assert isinstance(player.error.cause, IncompleteAnswer)

    def test_every_choice_needs_its_own(self):
        player = Player(n=2, temperature=1)
        player.answer(text("a", 0), text("b", 1), finish("stop", 0)).close()
        assert isinstance(player.error, StreamInterrupted)
        player = Player(n=2, temperature=1).answer(text("a"), finish()).close()
        assert isinstance(player.error, StreamInterrupted), "the second never began"

    def test_an_error_object_is_an_interruption(self):
        player = Player().answer(text("Hi"), error_event("it fell over"))
        assert isinstance(player.last(Interrupted).error, ServerError)
        assert "it fell over" in str(player.last(Interrupted).error)

    def test_an_error_behind_the_finish_reason_counts(self):
        player = Player(temperature=1).answer(text("Hi"), finish(), error_event())
        assert isinstance(player.error, StreamInterrupted)

    def test_text_in_the_batch_of_an_error_is_delivered(self):
        player = Player(temperature=1).answer([text("Hi"), text(" you"), error_event()])
        assert player.error.partial_text == "Hi you" == player.text

    def test_what_does_not_parse_is_an_interruption(self):
        player = Player().answer(text("Hi"), b'{"choices":[{"ind')
        assert isinstance(player.last(Interrupted).error, MalformedEvent)
        player.answer(*[text("Hi"), finish(), DONE])
        assert player.completion.guarantee is Guarantee.REPLAYED

    def test_an_open_tool_call_is_no_answer(self):
        player = Player(temperature=1)
        player.answer(call(0, "look", '{"at":', "id"), finish("tool_calls"))
        assert isinstance(player.last(Interrupted).error, MalformedEvent)

    def test_an_early_stop_profile_also_needs_the_end(self):
        early = {"early_stop": True}
        player = Player(profile=early).answer(text("Hi"), finish()).cut()
        assert isinstance(player.last(Interrupted).error, ConnectionLost)
        for end in (DONE, None):
            player = Player(profile=early).answer(text("Hi"), finish())
            player.send(DONE) if end else player.close()
            assert player.completion.text == "Hi"

    @pytest.mark.parametrize("together", [True, False])
    def test_a_finish_reason_that_content_follows_proves_nothing(self, together):
        batches = [text("Hi"), finish(), text(" there")]
        player = Player().answer(*([batches] if together else batches)).cut()
        assert isinstance(player.last(Interrupted).error, ConnectionLost)
        player.answer(*batches).close()
        assert isinstance(player.last(Interrupted).error, IncompleteAnswer)
        player.answer(*batches, finish()).close()
        assert player.completion.text == "Hi there"

    def test_a_finish_reason_that_usage_follows_proves_all(self):
        player = Player().answer(text("Hi"), finish(), usage()).cut()
        assert player.completion.usage.total_tokens == 12

    def test_the_finish_reason_ends_a_wait_for_the_deadline(self):
        player = Player(deadline=9).answer(text("Hi"), finish())
        assert player.end(FaultKind.DEADLINE).completion.text == "Hi"

    def test_a_cancelled_answer_is_not_whole(self):
        player = Player().answer(text("Hi"), finish()).end(FaultKind.STOPPED)
        assert player.completion is None
        assert isinstance(player.error, StreamCancelled)
        assert player.exchange.wait is None
        assert "Interrupted" not in player.names

    def test_nothing_is_read_behind_the_end(self):
        player = Player().answer([*WHOLE, text("more"), error_event()])
        assert player.completion.text == "Hello world"


class TestClocks:
    """What the reading thread is told to wait for."""

    TIMEOUTS = Timeouts(connect=1, first_token=50, idle=20, token_idle=30)

    def left(self, player):
        seconds, clock = player.exchange.clocks.left(player.now)
        return clock, seconds

    def test_first_token_runs_until_content_comes(self):
        player = Player(timeouts=self.TIMEOUTS).connect()
        assert self.left(player) == (Clock.FIRST_TOKEN, 50)
        player.send(role())
        assert self.left(player) == (Clock.FIRST_TOKEN, 50)
        player.send(text("Hi"))
        assert self.left(player) == (Clock.IDLE, 20)

    def test_what_is_swallowed_counts_as_content(self):
        player = Player(timeouts=self.TIMEOUTS).answer(text("Hi"), text(" you")).cut()
        player.connect()
        assert self.left(player) == (Clock.FIRST_TOKEN, 50)
        player.send(text("Hi"))
        assert self.left(player) == (Clock.IDLE, 20)

    def test_the_tail_is_short(self):
        player = Player(timeouts=self.TIMEOUTS).answer(text("Hi"), finish())
        assert self.left(player) == (Clock.TAIL, TAIL)

    @pytest.mark.parametrize(
        "trailer", [chunk(), usage(), chunk(choice()), ServerSentEvent(b"", "ping")]
    )
    def test_nothing_but_content_makes_the_tail_longer(self, trailer):
        player = Player(timeouts=self.TIMEOUTS).answer(text("Hi"), finish())
        player.exchange.clocks.waited += 4.0
        player.send(trailer)
        assert self.left(player) == (Clock.TAIL, TAIL - 4.0)

    def test_content_behind_a_finish_reason_gets_the_usual_time(self):
        player = Player(timeouts=self.TIMEOUTS).answer(text("Hi"), finish())
        player.send(text(" there"))
        assert self.left(player) == (Clock.IDLE, 20)
        player.send(finish())
        assert self.left(player) == (Clock.IDLE, 20), "the server is not believed twice"

    def test_an_early_stop_profile_has_no_short_tail(self):
        player = Player(timeouts=self.TIMEOUTS, profile={"early_stop": True})
        player.answer(text("Hi"), finish())
        assert self.left(player) == (Clock.IDLE, 20)

    def test_the_deadline_is_that_of_the_stream(self):
        player = Player(timeouts=self.TIMEOUTS, deadline=60).connect()
        player.now += 45
        assert self.left(player) == (Clock.DEADLINE, 15)
        player.cut().connect()
        assert self.left(player) == (Clock.DEADLINE, 14), "a wait of 1 s lies between"


class TestUsage:
    def test_reported_usage_is_that_of_the_last_attempt(self):
        player = Player().answer(text("Hi"), usage(9, 1)).cut()
        player.answer(text("Hi"), text(" you"), finish(), usage(9, 2), DONE)
        assert player.completion.usage.completion_tokens == 2
        assert not player.completion.usage.estimated

    def test_it_is_reported_as_it_comes(self):
        player = Player().answer(text("Hi"), usage(9, 1), finish(), usage(9, 2), DONE)
        reports = [event for event in player.log if isinstance(event, UsageReport)]
        assert [each.usage.completion_tokens for each in reports] == [1, 2]

    def test_without_a_report_each_delta_counts_as_a_token(self):
        player = Player().answer(thought("hm"), text("a"), text("b"), finish(), DONE)
        prompt = -(-len(PROMPT) // 4)
        assert player.completion.usage == Usage(
            prompt_tokens=prompt,
            completion_tokens=3,
            total_tokens=prompt + 3,
            estimated=True,
        )

    def test_the_swallowed_deltas_were_generated_as_well(self):
        player = Player().answer(text("a"), text("b")).cut()
        player.answer(text("a"), text("b"), text("c"), text("d"), finish(), DONE)
        assert player.completion.usage.completion_tokens == 4

    def test_a_restart_counts_what_it_generated(self):
        player = Player(temperature=1, resume=("restart",))
        player.answer(text("a"), text("b")).cut()
        player.answer(text("x"), text("y"), text("z"), finish(), DONE)
        assert player.completion.usage.completion_tokens == 3


class TestAdvice:
    """A stream that cannot go on says what would have let it."""

    def broken(self, resume):
        player = Player(resume=resume, temperature=1, retry=RetryPolicy(attempts=3))
        player.connect().say("Once").cut()
        assert isinstance(player.error, StreamInterrupted)
        return player.error.message

    def test_who_forbade_every_way_is_told_of_no_other(self):
        message = self.broken(())
        assert message.endswith(
            "resume=() forbids to go on with it: leave it out for the default ways, or "
            "name those that are allowed."
        )
        assert "temperature" not in message

    def test_who_allowed_replays_is_told_how_to_get_one(self):
        message = self.broken(("replay",))
        assert "With temperature=0 or seed= or deterministic=True it can be" in message
        assert "resume=('replay', 'restart') allows it to be written anew." in message


class TestTryingAgain:
    """The count of attempts, the waits between them, and the end of patience."""

    def test_the_attempts_without_progress_are_counted(self):
        player = Player()
        for attempt in range(6):
            assert player.exchange.attempts == attempt
            player.connect().cut()
        assert isinstance(player.error, ConnectionLost)
        assert player.error.attempts == 6
        assert player.error.message.endswith(
            "broke. Gave up: 6 attempts without progress."
        )

    def test_new_text_sets_the_count_back(self):
        player = Player()
        whole = "abcdefghijklmnopqrst"
        for end in range(1, 20):
            player.connect().say(*whole[:end]).cut()
            assert player.last(Waiting).attempts_left == 4, end
        player.connect().say(*whole).send(finish(), DONE)
        assert player.completion.text == whole
        assert player.completion.attempts == 20

    def test_swallowed_text_does_not(self):
        player = Player().connect().say("a", "b").cut()
        for _ in range(5):
            assert player.error is None
            player.connect().say("a", "b").cut()
        assert isinstance(player.error, StreamInterrupted)
        assert "6 attempts without progress" in str(player.error)

    def test_reasoning_again_is_no_progress(self):
        player = Player(temperature=1)
        for attempt in range(6):
            assert player.error is None, attempt
            player.answer(thought("Hm")).cut()
        assert isinstance(player.error, ConnectionLost)

    def test_less_text_than_before_a_restart_is_no_progress(self):
        player = Player(temperature=1, resume=("restart",)).connect()
        player.say("abcdef").cut()
        for attempt in range(5):
            assert player.error is None, attempt
            player.connect().say("xyz").cut()
        assert isinstance(player.error, StreamInterrupted)
        assert player.error.partial_text == "xyz" == player.text

    def test_the_total_is_bounded_whatever_the_progress(self):
        policy = RetryPolicy(base=1, jitter=None, total_attempts=3)
        player = Player(retry=policy)
        for end in (1, 2, 3):
            player.connect().say(*"abcdef"[:end]).cut()
        assert "3 attempts in all" in str(player.error)
        assert player.error.partial_text == "abc"

    def test_waits_grow_until_there_is_progress(self):
        player = Player()
        delays = []
        for _ in range(3):
            player.connect().cut()
            delays.append(player.exchange.wait.delay)
        player.connect().say("a").cut()
        delays.append(player.exchange.wait.delay)
        assert delays == [1.0, 2.0, 4.0, 1.0]

    def test_the_first_wait_after_a_refused_connection_is_none(self):
        player = Player().attempt().end(FaultKind.REFUSED, Phase.CONNECT)
        assert player.last(Waiting).delay == 0.0
        assert player.last(Waiting).reason == "immediate"
        player.attempt().end(FaultKind.REFUSED, Phase.CONNECT)
        assert player.last(Waiting).delay == 2.0

    def test_a_connection_that_was_kept_too_long_is_tried_again_at_once(self):
        player = Player().attempt().end(FaultKind.LOST, Phase.SENT, reused=True)
        assert player.last(Waiting).reason == "immediate"

    def test_a_first_token_timeout_is_tried_once_more(self):
        player = Player(timeouts=Timeouts(first_token=30))
        player.attempt().end(FaultKind.FIRST_TOKEN, Phase.SENT)
        assert player.error is None
        player.attempt().end(FaultKind.FIRST_TOKEN, Phase.HEADERS)
        assert isinstance(player.error, FirstTokenTimeout)
        assert "first_token=30 s" in str(player.error)

    def test_a_hint_is_obeyed(self):
        player = Player().refuse(429, retry_after="7")
        assert isinstance(player.last(Interrupted).error, RateLimited)
        assert player.last(Waiting).delay == 7.0
        assert player.last(Waiting).reason == "server hint"
        before = player.now
        player.answer(*WHOLE)
        assert player.now == before + 7.0

    def test_a_hint_beyond_the_cap_ends_it_at_once(self):
        player = Player().refuse(429, retry_after="3600")
        assert isinstance(player.error, RateLimited)
        assert player.error.retry_after == 3600
        assert "retry_after_cap=60" in str(player.error)

    def test_a_hint_beyond_the_deadline_ends_it_at_once(self):
        player = Player(deadline=5).refuse(429, retry_after="6")
        assert isinstance(player.error, RateLimited)
        assert "after the deadline" in str(player.error)

    def test_a_hint_is_obeyed_in_the_middle_of_an_answer(self):
        player = Player().answer(text("Hi")).cut().refuse(503, retry_after="9")
        assert isinstance(player.last(Interrupted).error, Overloaded)
        assert player.exchange.wait.delay == 9.0
        player.answer(text("Hi"), finish(), DONE)
        assert player.completion.text == "Hi"

    def test_the_deadline_counts_from_the_start(self):
        player = Player(deadline=10)
        player.now += 9.5
        player.connect().cut()
        assert isinstance(player.error, ConnectionLost)
        assert "after the deadline" in str(player.error)

    def test_the_deadline_itself_is_final(self):
        player = Player(deadline=10).answer(text("Hi")).end(FaultKind.DEADLINE)
        assert isinstance(player.error, DeadlineExceeded)
        assert player.error.partial_text == "Hi"
        assert player.exchange.wait is None

    @pytest.mark.parametrize("delivered", [True, False])
    def test_what_is_fatal_is_never_tried_again(self, delivered):
        player = Player(resume=("replay", "restart"))
        if delivered:
            player.answer(text("Hi")).cut()
        player.refuse(401, {"error": {"message": f"bad key {KEY}"}})
        assert isinstance(player.error, AuthenticationError)
        assert player.error.verdict is Verdict.FATAL
        assert player.error.partial_text == ("Hi" if delivered else "")
        assert player.exchange.wait is None
        assert player.names[-1] == "Interrupted"
        assert KEY not in str(player.error)
        assert "HOLYSHEEP_API_KEY" in str(player.error)

    def test_a_fatal_error_may_come_inside_the_stream(self):
        player = Player().answer(text("Hi"), error_event(code="insufficient_quota"))
        assert isinstance(player.error, QuotaExceeded)
        assert player.error.partial_text == "Hi"

    def test_a_cancellation_is_no_interruption(self):
        player = Player().answer(text("Hi")).end(FaultKind.STOPPED)
        assert isinstance(player.error, StreamCancelled)
        assert player.error.partial_text == "Hi"
        assert player.exchange.interruptions == 0

    def test_tenacity_decides_where_it_is_asked_to(self):
        policy = RetryPolicy(
            wait=tenacity.wait_fixed(3),
            stop=tenacity.stop_after_attempt(2),
            retry=tenacity.retry_if_exception_type(ConnectionLost),
        )
        player = Player(retry=policy).connect().cut()
        assert player.last(Waiting) == Waiting(
            delay=3.0, reason="backoff", attempt=2, attempts_left=None
        )
        player.connect().cut()
        assert isinstance(player.error, ConnectionLost)
        player = Player(retry=policy).refuse(503)
        assert isinstance(player.error, Overloaded)


class TestRequestIds:
    def test_it_is_that_of_the_last_request(self):
        player = Player().answer(text("a")).cut().answer(text("a"), finish(), DONE)
        assert player.completion.request_id == "req_2"
        assert player.last(Interrupted).error.request_id == "req_1"

    def test_a_fault_before_the_headers_brings_its_own(self):
        player = Player().attempt()
        fault = _fault(FaultKind.REFUSED, Phase.CONNECT)
        fault.request_id = "ours"
        player.end(fault=fault)
        assert player.last(Interrupted).error.request_id == "ours"


class TestReplay:
    def test_the_events_come_in_order(self):
        player = Player().answer(text("Hel")).cut()
        player.answer(text("He"), text("llo"), text("!"), finish(), DONE)
        assert player.names == [
            "Started",
            "Connected",
            "TextDelta",
            "Interrupted",
            "Waiting",
            "Connected",
            "Resumed",
            "TextDelta",
            "TextDelta",
            "Finished",
        ]
        assert player.last(Resumed) == Resumed(
            strategy="replay", guarantee=Guarantee.REPLAYED, offset=3
        )
        assert player.last(TextDelta).segment == 1
        assert player.completion.guarantee is Guarantee.REPLAYED

    def test_the_seam_closes_at_the_last_character_delivered(self):
        player = Player().answer(text("Hel")).cut().answer(text("Hel"))
        assert player.names[-1] == "Resumed"

    def test_an_answer_that_was_delivered_whole_is_proven_by_its_replay(self):
        player = Player().answer(text("Hello")).cut()
        player.answer(text("Hello"), finish(), DONE)
        assert player.names[-2:] == ["Resumed", "Finished"]
        assert player.completion.text == "Hello"
        assert player.completion.ttft is not None

    @pytest.mark.parametrize("end", ["done", "clean", "cut"])
    def test_a_replay_that_ends_early_is_another_answer(self, end):
        player = Player().answer(text("Hello world")).cut()
        player.answer(text("Hello"), finish())
        {"done": lambda: player.send(DONE), "clean": player.close, "cut": player.cut}[
            end
        ]()
        assert isinstance(player.error, StreamInterrupted)
        assert isinstance(player.error.cause, StreamInterrupted)
        assert "ends before" in str(player.error)
        assert player.error.partial_text == "Hello world"
        assert player.completion is None

    def test_a_replay_that_breaks_off_early_is_only_tried_again(self):
        player = Player().answer(text("Hello world")).cut().answer(text("Hello")).cut()
        assert isinstance(player.last(Interrupted).error, ConnectionLost)
        player.answer(text("Hello world!"), finish(), DONE)
        assert player.completion.text == "Hello world!"

    @pytest.mark.parametrize("at", range(5))
    def test_another_text_is_another_answer(self, at):
        player = Player().answer(text("Hello")).cut()
        other = "Hello"[:at] + "#" + "Hello"[at + 1 :]
        player.answer(text(other + " you"), finish(), DONE)
        assert isinstance(player.error, StreamInterrupted)
        assert "is not the answer that was delivered: the" in str(player.error)
        assert "temperature=0" not in str(player.error), "advice that was followed"
        assert player.text == player.error.partial_text == "Hello"

    def test_it_is_not_tried_where_the_request_is_sampled(self):
        player = Player(temperature=0.7).answer(text("Hi")).cut()
        assert isinstance(player.error, StreamInterrupted)
        assert "temperature=0" in str(player.error)
        assert "Waiting" not in player.names
        assert player.error.__cause__ is player.error.cause

    @pytest.mark.parametrize(
        "options",
        [{"temperature": 1, "seed": 7}, {"temperature": 1, "deterministic": True}],
    )
    def test_a_seed_or_the_callers_word_allow_it(self, options):
        player = Player(**options).answer(text("Hi")).cut()
        player.answer(text("Hi"), finish(), DONE)
        assert player.completion.text == "Hi"

    def test_the_callers_word_forbids_it(self):
        player = Player(temperature=0, deterministic=False).answer(text("Hi")).cut()
        assert isinstance(player.error, StreamInterrupted)

    def test_it_is_not_tried_where_it_is_not_allowed(self):
        player = Player(resume=()).answer(text("Hi")).cut()
        assert isinstance(player.error, StreamInterrupted)

    def test_reasoning_is_not_shown_twice(self):
        player = Player().answer(thought("hm"), text("Hel")).cut()
        player.answer(thought("hm"), text("Hello"), finish(), DONE)
        assert player.reader.reasoning == {0: ["hm"]}
        assert player.completion.reasoning == "hm"

    def test_reasoning_behind_the_seam_goes_on(self):
        player = Player().answer(thought("hm"), text("Hel")).cut()
        player.answer(thought("hm"), text("Hello"), thought("so"), finish(), DONE)
        assert player.reader.reasoning == {0: ["hmso"]}
        assert player.completion.reasoning == "hmso"

    def test_segments_count_the_interruptions_that_were_joined(self):
        player = Player().connect().say("a").cut()
        player.connect().say("a", "b").cut()
        player.connect().say("a").cut()
        player.connect().say("a", "b", "c").send(finish(), DONE)
        deltas = [event for event in player.log if isinstance(event, TextDelta)]
        assert [delta.segment for delta in deltas] == [0, 1, 2]

    def test_choices_are_joined_one_by_one(self):
        player = Player(n=2).connect().say("aa").say("bbb", index=1).cut()
        player.connect().say("b", index=1).say("aaA")
        assert "Resumed" not in player.names, "the second is not proven yet"
        player.say("bbB", index=1)
        assert "Resumed" in player.names
        player.send(finish(), finish(index=1), DONE)
        assert [each.text for each in player.completion.choices] == ["aaA", "bbbB"]

    def test_one_differing_choice_spoils_the_answer(self):
        player = Player(n=2).connect().say("aa").say("bbb", index=1).cut()
        player.connect().say("aa").say("bbX", index=1)
        assert isinstance(player.error, StreamInterrupted)

    def test_a_choice_that_had_not_begun_is_new(self):
        player = Player(n=2).connect().say("aa").cut()
        player.connect().say("bb", index=1).say("aa")
        player.send(finish(), finish(index=1), DONE)
        assert [each.text for each in player.completion.choices] == ["aa", "bb"]


class TestToolCalls:
    ONE = whole_call(0, "look", {"at": "sky"}, prefix="old")
    TWO = whole_call(1, "ask", {"whom": "Ada"}, prefix="old")

    def replayed(self, *, prefix="new"):
        return [
            *whole_call(0, "look", {"at": "sky"}, prefix=prefix),
            *whole_call(1, "ask", {"whom": "Ada"}, prefix=prefix),
        ]

    def found(self, player):
        return [
            (each.name, each.arguments, each.id)
            for each in player.completion.tool_calls
        ]

    def test_each_is_delivered_once_and_keeps_its_first_id(self):
        player = Player().answer(text("Let me"), *self.ONE, self.TWO[0]).cut()
        assert list(player.reader.calls) == [(0, 0)]
        player.answer(text("Let me"), *self.replayed(), finish("tool_calls"), DONE)
        assert self.found(player) == [
            ("look", {"at": "sky"}, "old_0"),
            ("ask", {"whom": "Ada"}, "new_1"),
        ]
        assert player.completion.guarantee is Guarantee.REPLAYED
        assert player.names.count("ToolCall") == 2

    def test_half_a_call_is_delivered_whole_from_the_replay(self):
        player = Player().answer(text("Let me"), *self.ONE[:2]).cut()
        assert player.reader.calls == {}
        player.answer(text("Let me"), *self.replayed(), finish("tool_calls"), DONE)
        assert [name for name, _, _ in self.found(player)] == ["look", "ask"]
        assert player.reader.half_calls[0, 0, 1] == '{"at": "sky"}'

    def test_without_text_the_calls_alone_are_compared(self):
        player = Player().answer(*self.ONE, self.TWO[0]).cut()
        player.answer(*self.replayed(), finish("tool_calls"), DONE)
        assert [id for _, _, id in self.found(player)] == ["old_0", "new_1"]  # noqa: A001

    @pytest.mark.parametrize(
        "other",
        [
            whole_call(0, "look", {"at": "sea"}),
            whole_call(0, "peek", {"at": "sky"}),
        ],
    )
    def test_another_call_is_another_answer(self, other):
        player = Player().answer(*self.ONE, self.TWO[0]).cut()
        player.answer(*other, *self.TWO, finish("tool_calls"), DONE)
        assert isinstance(player.error, StreamInterrupted)
        assert "a tool call differs" in str(player.error)
        assert len(player.reader.calls) == 1

    def test_a_missing_call_is_another_answer(self):
        player = Player().answer(*self.ONE, self.TWO[0]).cut()
        player.answer(finish(), DONE)
        assert isinstance(player.error, StreamInterrupted)

    def test_no_call_is_delivered_before_the_text_before_it_is_proven(self):
        player = Player().answer(text("Hello world, let me")).cut()
        player.answer(text("Hello"), *self.replayed(), finish("tool_calls"), DONE)
        assert isinstance(player.error, StreamInterrupted)
        assert player.reader.calls == {}, "it belongs to another answer"

    def test_no_text_is_delivered_before_the_calls_before_it_are_proven(self):
        player = Player().answer(text("ab"), *self.ONE, self.TWO[0]).cut()
        player.answer(text("abXYZ"), finish(), DONE)
        assert isinstance(player.error, StreamInterrupted)
        assert player.text == player.error.partial_text == "ab"

    def test_the_order_holds_for_each_choice_alone(self):
        player = Player(n=2).connect().say("ab").cut()
        calls = [
            *whole_call(0, "look", {}, index=1),
            *whole_call(1, "ask", {}, index=1),
        ]
        player.answer(*calls, finish("tool_calls", 1), text("abc"), finish(), DONE)
        assert player.completion.text == "abc"
        assert len(player.completion.choices[1].tool_calls) == 2

    def test_there_is_no_restart_after_a_delivered_call(self):
        player = Player(temperature=1, resume=("replay", "restart"))
        player.answer(text("Let me"), *self.ONE, self.TWO[0]).cut()
        assert isinstance(player.error, StreamInterrupted)
        assert player.error.partial_text == "Let me"

    def test_there_is_a_restart_after_half_a_call(self):
        player = Player(temperature=1, resume=("restart",))
        player.answer(text("Let me"), *self.ONE[:2]).cut()
        player.answer(*self.replayed(), finish("tool_calls"), DONE)
        assert len(self.found(player)) == 2
        assert player.completion.text == ""


class TestRestart:
    def test_the_text_is_withdrawn_before_the_first_new_piece_and_not_before(self):
        player = Player(temperature=1, resume=("restart",)).answer(text("Hello")).cut()
        player.answer(role())
        assert player.text == "Hello"
        assert "Rewound" not in player.names
        player.send(text("Bye"))
        assert player.names[-4:] == ["Connected", "Rewound", "Resumed", "TextDelta"]
        player.send(finish(), DONE)
        assert player.completion.text == "Bye"
        assert player.completion.guarantee is Guarantee.RESTARTED
        assert player.reader.discarded == ["Hello"]

    def test_an_attempt_without_content_withdraws_nothing(self):
        player = Player(temperature=1, resume=("restart",)).answer(text("Hello")).cut()
        player.answer(role()).cut().refuse(503)
        assert player.text == "Hello"
        player.answer(text("Bye"), finish(), DONE)
        assert player.names.count("Rewound") == 1
        assert player.completion.text == "Bye"

    def test_an_empty_answer_withdraws_it_too(self):
        player = Player(temperature=1, resume=("restart",)).answer(text("Hello")).cut()
        player.answer(role(), finish(), DONE)
        assert player.completion.text == ""
        assert player.reader.discarded == ["Hello"]

    def test_it_can_happen_again(self):
        player = Player(temperature=1, resume=("restart",)).answer(text("Hello")).cut()
        player.answer(text("Good day")).cut().answer(text("Hi"), finish(), DONE)
        assert player.reader.discarded == ["Hello", "Good day"]
        assert player.completion.text == "Hi"

    def test_a_mismatch_restarts_where_that_is_allowed(self):
        player = Player(resume=("replay", "restart")).answer(text("Hello")).cut()
        player.answer(text("Howdy"))
        assert isinstance(player.last(Interrupted).error, StreamInterrupted)
        assert player.text == "Hello"
        player.answer(text("Howdy"), finish(), DONE)
        assert player.completion.text == "Howdy"
        assert player.completion.guarantee is Guarantee.RESTARTED

    def test_the_order_of_the_strategies_is_the_callers(self):
        player = Player(resume=("restart", "replay")).answer(text("Hello")).cut()
        player.answer(text("Hello"), finish(), DONE)
        assert player.completion.guarantee is Guarantee.RESTARTED

    def test_it_withdraws_every_choice(self):
        player = Player(n=2, temperature=1, resume=("restart",))
        player.connect().say("aa").say("bb", index=1).cut()
        player.connect().say("x", index=1).say("y")
        player.send(finish(), finish(index=1), DONE)
        assert [each.text for each in player.completion.choices] == ["y", "x"]


class TestGuarantee:
    def test_a_later_replay_does_not_raise_it_again(self):
        player = Player(resume=("restart", "replay")).answer(text("a")).cut()
        player.answer(text("b"))
        assert player.exchange.guarantee is Guarantee.RESTARTED
        player.cut().answer(text("b"), finish(), DONE)
        assert player.completion.guarantee is Guarantee.RESTARTED

    def test_a_replay_that_was_not_joined_yet_costs_nothing(self):
        player = Player().answer(text("Hello")).cut().answer(text("H"))
        assert player.exchange.guarantee is Guarantee.SINGLE
        player.send(text("ello"))
        assert player.exchange.guarantee is Guarantee.REPLAYED

    def test_a_weaker_way_than_was_asked_for_is_an_error(self):
        player = Player(
            temperature=1, resume=("restart",), min_guarantee=Guarantee.REPLAYED
        )
        player.answer(text("Hello")).cut()
        assert isinstance(player.error, GuaranteeNotMet)
        assert player.error.partial_text == "Hello"
        assert "broke. It could go on by 'restart'" in str(player.error)
        assert isinstance(player.error.__cause__, ConnectionLost)
        assert player.error.phase is Phase.BODY
        assert player.exchange.wait is None

    def test_a_weaker_way_is_passed_over_for_a_stronger_one(self):
        player = Player(
            resume=("restart", "replay"), min_guarantee=Guarantee.REPLAYED
        ).answer(text("Hello"))
        player.cut().answer(text("Hello!"), finish(), DONE)
        assert player.completion.guarantee is Guarantee.REPLAYED

    def test_after_a_mismatch_nothing_good_enough_is_left(self):
        player = Player(
            resume=("replay", "restart"), min_guarantee=Guarantee.REPLAYED
        ).answer(text("Hello"))
        player.cut().answer(text("Howdy"))
        assert isinstance(player.error, GuaranteeNotMet)
        assert player.text == "Hello"

    def test_without_any_way_it_is_an_interruption(self):
        player = Player(temperature=1, min_guarantee=Guarantee.REPLAYED)
        player.answer(text("Hello")).cut()
        assert isinstance(player.error, StreamInterrupted)

    def test_what_was_not_delivered_may_always_be_asked_again(self):
        player = Player(temperature=1, resume=(), min_guarantee=Guarantee.SINGLE)
        player.connect().cut().answer(*WHOLE)
        assert player.completion.guarantee is Guarantee.SINGLE


class TestErrors:
    def test_they_say_what_was_kept_and_where(self):
        player = Player(temperature=1).answer(text("Hello")).cut()
        error = player.error
        assert error.partial_text == "Hello"
        assert error.stream_id == "stream-1"
        assert error.endpoint == "here"
        assert error.request_id == "req_1"
        assert error.attempts == 1
        assert error.phase is Phase.BODY
        assert error.verdict is Verdict.INTERRUPTED
        assert "here: the connection broke. With" in str(error)

    def test_the_prompt_is_not_in_them(self):
        player = Player().refuse(400, {"error": {"message": f"cannot do: {PROMPT}"}})
        assert PROMPT not in str(player.error)

    def test_an_outside_error_is_told_the_same(self):
        player = Player().answer(text("Hello"))
        error = player.exchange.describe(StreamCancelled("stop"))
        assert (error.partial_text, error.stream_id) == ("Hello", "stream-1")

    def test_the_error_of_an_answer_that_gave_up_is_that_of_its_last_attempt(self):
        player = Player(retry=RetryPolicy(attempts=1)).refuse(503)
        assert isinstance(player.error, Overloaded)
        assert player.error.status == 503
        assert player.error is player.last(Interrupted).error


def _fault(kind, phase, **options):
    from holystream.wire.faults import Fault

    return Fault(kind, phase, **options)


def test_an_error_with_headers_of_a_stream_is_not_taken_for_its_hint():
    player = Player().answer(text("Hi"))
    answer = Answer(
        status=200, headers={"retry-after": "50"}, body=error_event("overloaded")
    )
    player.end(FaultKind.ERROR_EVENT, answer=answer)
    assert player.exchange.wait.delay == STEADY.base
