"""One answer on its way: messages and faults in, events and decisions out, no I/O.

An `Exchange` decides; its driver (driver.py) carries out. For each attempt the driver
calls `attempt`, then `connected`, then `receive` for every batch, and ends it with
`fault`: a clean end of the body is a fault as well, for a clean end proves nothing.
After `receive` or `fault`, one of three things is true: `completion` is set, `error` is
set, or another attempt follows, after `wait` if that is set.

Invariants: an event that was returned is never taken back, except by `Rewound`; every
character of one answer is returned once; `completion` is set only on the provider's
own evidence. Not thread-safe; any thread may read `transcript`.
"""

from __future__ import annotations

import dataclasses
import math
import uuid
from typing import TYPE_CHECKING

from holystream.clocks import Deadline, ReadClocks, Timeouts
from holystream.errors import Phase, RateLimited, StreamError, Verdict
from holystream.events import (
    CONTENT,
    Completion,
    Connected,
    Finished,
    Guarantee,
    Interrupted,
    Resumed,
    Started,
    TextDelta,
    Waiting,
)
from holystream.resilience.classify import error_from
from holystream.resilience.patience import is_told_when, until_wanted, until_willing
from holystream.resilience.redact import fit_for_an_id
from holystream.resilience.retry import GiveUp, Wait
from holystream.resume import SeamMismatch
from holystream.resume.checkpoint import Checkpoint, Left
from holystream.resume.endings import broken_off, how_to_go_on, sentence, too_weak
from holystream.resume.joining import Joining
from holystream.resume.ledger import Ledger
from holystream.resume.token import token_of
from holystream.transcript import Transcript
from holystream.wire.faults import Fault, FaultKind

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence

    from holystream.events import StreamEvent
    from holystream.providers.base import ChatRequest, Decoder, Provider
    from holystream.resilience.retry import RetryPolicy
    from holystream.resume import ResumeStrategy
    from holystream.wire.sse import ServerSentEvent


class Exchange:
    """The state of one answer. Not thread-safe, but for its transcript.

    Attributes:
        transcript: What has been returned so far.
        clocks: The clocks of the current attempt.
        answering: The server has sent something of an answer.
        attempts: Connections that were tried.
        interruptions: Attempts that failed.
        guarantee: What the text so far is worth.
        completion: The finished answer, once it is.
        complete: Whether it is.
        own_key: The key is the endpoint's own, and not the client's.
        error: Why no answer will come, once that is so.
        failure: The fault that the last batch brought, to be passed to `fault`.
        folds: Reads whose content is in the transcript.
        wait: What to wait for before the next attempt; without meaning once there is
            an error.
        patient: It waits for a breaker and for whoever asks for quiet, as far as its
            deadline allows, instead of being sent away: nobody waits for it alone.
        bidden: It is patient, and the last attempt that failed was told when to come
            back, or lacks what another stream will give back: the next one is none
            against the policy or the budget.
        others_free_in: Tells in how many seconds an endpoint other than that of a name
            would take an attempt.
        others_under_way: Tells whether another stream of the client makes an attempt.
        next_request: What the present attempt asks for.
        fault_error: How the last attempt that failed did.
        request_id: The server's id of the last request, else ours.
        ttft: Seconds from the start to the first content.
    """

    def __init__(
        self,
        request: ChatRequest,
        provider: Provider,
        *,
        stream_id: str,
        endpoint: str,
        timeouts: Timeouts,
        deadline: float | None,
        retry: RetryPolicy,
        resume: tuple[ResumeStrategy, ...],
        min_guarantee: Guarantee | None,
        secrets: tuple[str, ...],
        patient: bool = False,
        rng: random.Random | None = None,
    ) -> None:
        self.request = request
        self.stream_id = stream_id
        self.endpoint = endpoint
        self.own_key = False
        self.transcript = Transcript()
        self.answering = False
        self.attempts = 0
        self.interruptions = 0
        self.guarantee = Guarantee.SINGLE
        self.completion: Completion | None = None
        self.complete = False
        self.error: StreamError | None = None
        self.wait: Wait | None = None
        self.patient = patient
        self.bidden = False
        self.others_free_in: Callable[[str], float] = lambda _: math.inf
        self.others_under_way: Callable[[], bool] = lambda: False
        self.next_request = request
        self.request_id: str | None = None
        self.ttft: float | None = None
        self._provider = provider
        self._timeouts = timeouts
        self._seconds = deadline
        self.deadline = Deadline()
        # What a stream leaves a server for, if it may go elsewhere.
        self._longest_hint = retry.retry_after_cap
        self._policy = retry
        if patient:
            self._policy = dataclasses.replace(retry, retry_after_cap=math.inf)
        self._rng = rng
        self._ways = tuple(dict.fromkeys(way.name for way in resume))
        # A stream's id may be used again; what a server keeps must have one name.
        name = f"{stream_id}.{uuid.uuid4().hex}"
        self._joining = Joining(request, provider, resume, name=name)
        self._decoder: Decoder = provider.decoder(request, segment=0)
        self._ledger = Ledger(request.prompts)
        self._min_guarantee = min_guarantee
        self._unsaid = (*secrets, *request.prompts)
        self._started_at = 0.0
        self._furthest = 0
        self._counted = 0
        self._swallowed = 0
        self.folds = 0
        self._tailing = False
        self.failure: Fault | None = None
        self._fault: Fault | None = None
        self.fault_error: StreamError | None = None
        self._restored = False
        # Content has come over the only connection, and what comes goes straight on.
        self._unbroken = False
        # What was decoded is not in the transcript yet.
        self._folding = False

    def start(self, now: float) -> list[StreamEvent]:
        """Begin: the deadline counts from here."""
        self._started_at = now
        self.deadline = Deadline.after(self._seconds, now)
        self._progress = self._policy.start(now, self._rng)
        if self._restored:
            return self._take_over(now)
        return [self.started]

    @property
    def started(self) -> Started:
        """The event that comes first, once."""
        return Started(stream_id=self.stream_id, model=self.request.model)

    def restore(self, left: Left) -> None:
        """Stand where another process stood, before `start`."""
        self._restored = True
        self.transcript = left.transcript
        self.completion = left.completion
        self.complete = left.completion is not None
        self.error = left.error
        checkpoint = left.checkpoint
        self._furthest = left.transcript.extent
        self.guarantee = Guarantee(checkpoint.guarantee)
        self.attempts = checkpoint.attempts
        self.interruptions = checkpoint.interruptions
        self._ledger.restore(checkpoint.spent)
        if checkpoint.generated is not None:
            self._counted = self.transcript.content_events - checkpoint.generated
        self._decoder = self._joining.restore(checkpoint)

    def checkpoint(self) -> Checkpoint:
        """Return where the exchange stands, for another process to go on."""
        joining = self._joining
        decoder, cursor = joining.checkpoint()
        checkpoint = Checkpoint(
            segment=joining.segment,
            guarantee=self.guarantee,
            attempts=self.attempts,
            interruptions=self.interruptions,
            model=joining.model,
            half_call=joining.half_call,
            decoder=decoder,
            cursor=cursor,
            endpoint=self.endpoint,
            spent=self._ledger.spent,
            generated=self.generated,
            written=self.transcript.written,
        )
        # A Ctrl-C between the two steps of taking a read leaves a place in the answer
        # that the text has not come to.
        return checkpoint.without_place() if self._folding else checkpoint

    @property
    def resume_token(self) -> str | None:
        """What `holystream.resume.token` makes of this stream.

        None where a token cannot hold what it takes: tool calls that were delivered, or
        several answers.
        """
        return token_of(
            self.request,
            self.transcript,
            self.checkpoint(),
            stream_id=self.stream_id,
            profile=self._provider.profile,
            endpoint=self.endpoint,
            resume=self._ways,
            min_guarantee=self._min_guarantee,
        )

    def _take_over(self, now: float) -> list[StreamEvent]:
        """Go on with what another process read, or find that it was all."""
        if self.error is not None:
            return []
        if self._decoder.complete(clean_end=False):
            return self._finish(now)
        if not self.attempts and not self.transcript.extent:
            # Nothing was sent, and so nothing has to be gone on with.
            return []
        fault = Fault(FaultKind.LOST, Phase.BODY, "the process that read it is gone")
        error = self.fault_error = self._error_of(fault)
        self._fault = fault
        self.interruptions = self.attempts
        self._find_way(fault, error)
        return []

    def attempt(self) -> ReadClocks:
        """Begin the next attempt; return its clocks."""
        self.attempts += 1
        self.wait = None
        self.failure = None
        self._ledger.began()
        self.next_request, self._decoder = self._joining.attempt(self.attempts)
        self._counted = self.transcript.content_events
        self._swallowed = 0
        self._tailing = False
        self._unbroken = self._folding = False
        self.clocks = ReadClocks(self._timeouts, self.deadline)
        return self.clocks

    def connected(
        self,
        request_id: str,
        now: float,
        taken: Callable[[], int | None] = lambda: None,
    ) -> list[StreamEvent]:
        """Take note that an event stream begins.

        Args:
            request_id: The server's id of the request, else ours.
            now: Monotonic seconds.
            taken: Tells how many bytes of the body its whole events had so far.
        """
        self.request_id = request_id = fit_for_an_id(request_id, self._unsaid)
        self._joining.connected(taken)
        self._progress.connected(now)
        return [
            Connected(
                endpoint=self.endpoint, attempt=self.attempts, request_id=request_id
            )
        ]

    def receive(
        self, batch: Sequence[ServerSentEvent], now: float
    ) -> list[StreamEvent]:
        """Take the messages of one read; return what is new for the caller.

        Sets ``failure`` where the stream itself reports an error, does not parse, or
        turns out to be another answer: what came before it is returned.
        """
        self._folding = True
        if self._unbroken and len(batch) == 1 and not batch[0].id:
            decoder = self._decoder
            events = decoder.decode(batch)
            if len(events) == 1 and not (
                decoder.finish_reasons or decoder.ended or decoder.failure
            ):
                event = events[0]
                if type(event) is TextDelta and not event.index:
                    # Nearly every token, and a token waits for all that is done here.
                    self.clocks.content_came = True
                    self._furthest = self.transcript.add_text(event.text)
                    self.folds += 1
                    self._folding = False
                    return events
            self._set_clocks(events)
            self._fold(events, now)
            return self._conclude(events, now)
        joining = self._joining
        joined = joining.joined
        try:
            events = self._decode(batch)
            if not joined:
                events = self._join(events)
        except SeamMismatch as mismatch:
            self._mismatch(mismatch)
            return []
        self._fold(events, now)
        if not joined:
            joining.placed(self.transcript.length)
        return self._conclude(events, now)

    def _fold(self, events: list[StreamEvent], now: float) -> None:
        """Fold in what is new for the caller."""
        if self.transcript.add(events):
            if self.ttft is None:
                self.ttft = now - self._started_at
            extent = self.transcript.extent
            if extent > self._furthest:
                self._furthest = extent
                self._progress.progressed(now)
        self.folds += 1
        self._folding = False

    def _conclude(self, events: list[StreamEvent], now: float) -> list[StreamEvent]:
        """Find out where that leads; return it with the end, if this was it."""
        self.failure = self._decoder.failure
        if self.failure is None:
            events += self._end(now)
        if events or self.failure is None:
            self.answering = True
        self._unbroken = (
            self.ttft is not None
            and not self.interruptions
            and not self._tailing
            and self.failure is None
            and self._joining.idle
        )
        return events

    def _decode(self, batch: Sequence[ServerSentEvent]) -> list[StreamEvent]:
        """Decode what of the batch is new."""
        decoder = self._decoder
        batch = self._joining.admit(batch)
        events = decoder.decode(batch)
        self._joining.note(batch, decoder)
        self._set_clocks(events)
        return events

    def _end(self, now: float) -> list[StreamEvent]:
        """Complete the answer, if this was its end."""
        if self._joining.stopped:
            return self._finish(now, {0: _STOPPED})
        decoder = self._decoder
        if decoder.ended:
            if decoder.finished:
                return self._finish(now)
            # Nothing more will come, and nothing proves that this was all.
            self.failure = Fault(FaultKind.ENDED, Phase.BODY)
        return []

    def fault(self, fault: Fault, now: float) -> list[StreamEvent]:
        """End the attempt; decide whether the answer is whole, lost, or tried again."""
        if self.attempts and self._is_whole(fault):
            finished = self._finish(now)
            if self.completion is not None:
                return finished
            fault = self.failure or fault
        fault = self._joining.interpret(fault)
        if fault.request_id:
            self.request_id = fit_for_an_id(fault.request_id, self._unsaid)
        error = self.fault_error = self._error_of(fault)
        self._fault = fault
        if error.verdict is Verdict.CANCELLED:
            self.error = error
            return []
        # One of each attempt, whichever process made it; one at most, for a deadline
        # may have passed behind it.
        self.interruptions = self.attempts
        events: list[StreamEvent] = [Interrupted(error=error, attempt=self.attempts)]
        elsewhere = math.inf
        if error.retry_after is not None:
            elsewhere = self.others_free_in(self.endpoint)
        self.bidden = self.patient and (
            is_told_when(error)
            or (fault.kind is FaultKind.NO_DESCRIPTOR and self.others_under_way())
        )
        decision = self._progress.failed(
            error,
            now,
            self.deadline,
            reused=fault.reused,
            elsewhere=elsewhere,
            bidden=self.bidden,
        )
        if isinstance(decision, GiveUp):
            self.error = self._given_up(error, decision.reason)
        elif self._find_way(fault, error):
            self.wait = self._where_it_is_kept(decision, error, now)
            if self.wait is not None:
                events.append(self._waiting(self.wait))
        return events

    def _where_it_is_kept(
        self, decision: Wait, error: StreamError, now: float
    ) -> Wait | None:
        """Wait for a server that keeps the rest and asks for it, if not for too long.

        The decision may have been not to, since another endpoint is free.
        """
        hint = error.retry_after
        if not self.keeps or hint is None or decision.delay >= hint:
            return decision
        if hint <= self._longest_hint and now + hint < self.deadline.at:
            return dataclasses.replace(decision, delay=hint, reason="server hint")
        self.moved()
        return None if self.error is not None else decision

    @property
    def keeps(self) -> bool:
        """Whether the next attempt asks a server for what that server kept."""
        strategy = self._joining.strategy
        return strategy is not None and strategy.keeps

    @property
    def strategy(self) -> str | None:
        """The name of the way in which the next attempt joins on, if it does."""
        strategy = self._joining.strategy
        return None if strategy is None else strategy.name

    def moved(self) -> None:
        """Take note that the next attempt goes to another server than the last."""
        self._joining.forget_cursor()
        self._ledger.retract()
        if self._fault is not None and self.fault_error is not None:
            self._find_way(self._fault, self.fault_error)

    def elsewhere(self) -> list[StreamEvent]:
        """Try again at once at another endpoint, which has another key."""
        if self._fault is None or self.fault_error is None:
            return []
        self.error = None
        if not self._find_way(self._fault, self.fault_error):
            return []
        self.wait = Wait(
            delay=0.0,
            reason="immediate",
            attempts_left=None,
        )
        return [self._waiting(self.wait)]

    def shut_out(self, error: StreamError, now: float) -> list[StreamEvent]:
        """Take note that no endpoint takes the attempt, or none yet; decide on."""
        self.describe(error)
        error.__cause__ = self.fault_error
        if not self.attempts:
            error.args = (f"{sentence(error.message)} Nothing was sent.",)
        left = self.deadline.left(now)
        held = self.wait is not None and self.wait.attempts_left is not None
        if isinstance(error, RateLimited):
            # None but a patient one is told so.
            decision = until_wanted(
                error.retry_after, left, share=self._policy.hint_share, rng=self._rng
            )
        elif self.patient and error.retry_after is not None and not held:
            decision = until_willing(error.retry_after, left)
        elif self.transcript.delivered:
            decision = self._progress.failed(error, now, self.deadline)
        else:
            self.error = error
            return []
        if isinstance(decision, GiveUp):
            self.error = self._given_up(error, decision.reason)
            return []
        self.wait = decision
        return [self._waiting(decision)]

    def give_up(self, reason: str) -> None:
        """Make no other attempt, though one was decided on."""
        if self.fault_error is not None:
            self.wait = None
            self.error = self._given_up(self.fault_error, reason)

    def _waiting(self, wait: Wait) -> Waiting:
        return Waiting(
            delay=wait.delay,
            reason=wait.reason,
            attempt=self.attempts + 1,
            attempts_left=wait.attempts_left,
        )

    def describe(self, error: StreamError) -> StreamError:
        """Tell an error from outside which stream it ended and what was kept."""
        return error.describe(
            partial_text=self.transcript.text,
            stream_id=self.stream_id,
            request_id=self.request_id,
            endpoint=self.endpoint,
            attempts=self.attempts,
        )

    def _set_clocks(self, events: list[StreamEvent]) -> None:
        """Tell the clocks what came, whatever the seam will make of it."""
        if self._tailing:
            # Content behind a finish reason: it came too early, and proves nothing.
            self._tailing = not any(isinstance(event, CONTENT) for event in events)
        if not self._tailing and _content_events(events):
            self.clocks.content_came = True
        if not self._tailing and self._decoder.complete(clean_end=False):
            self._tailing = True
            self.clocks.tail()

    def _join(self, events: list[StreamEvent]) -> list[StreamEvent]:
        """Pass events through the seam."""
        joined = self._joining.join(events, self.transcript)
        self._swallowed += _content_events(events) - _content_events(joined)
        self._lower_guarantee(joined)
        return joined

    def _finish(
        self, now: float, reasons: Mapping[int, str] | None = None
    ) -> list[StreamEvent]:
        """Complete the answer, unless the seam finds that it is another one."""
        try:
            events = self._joining.finish(self.transcript)
        except SeamMismatch as mismatch:
            self._mismatch(mismatch)
            return []
        self.transcript.add(events)
        self._swallowed -= _content_events(events)
        self._lower_guarantee(events)
        decoder = self._decoder
        usage = self._ledger.usage(decoder.usage, generated=self.generated)
        self.completion = Completion(
            stream_id=self.stream_id,
            model=decoder.model or self.request.model,
            choices=tuple(
                self.transcript.choices(
                    self.request.choices, reasons or decoder.finish_reasons
                )
            ),
            guarantee=self.guarantee,
            usage=usage,
            total_usage=self._ledger.total(usage),
            interruption_costs=self._ledger.costs(usage),
            attempts=self.attempts,
            interruptions=self.interruptions,
            request_id=self.request_id,
            response_id=decoder.response_id,
            endpoint=self.endpoint,
            ttft=self.ttft,
            duration=now - self._started_at,
        )
        self.complete = True
        return [*events, Finished(completion=self.completion)]

    @property
    def generated(self) -> int:
        """Tokens that this attempt brought, about."""
        return self.transcript.content_events - self._counted + self._swallowed

    def _lower_guarantee(self, events: Sequence[StreamEvent]) -> None:
        for event in events:
            if isinstance(event, Resumed):
                self.guarantee = min(self.guarantee, event.guarantee)

    def _mismatch(self, mismatch: SeamMismatch) -> None:
        self.failure = Fault(FaultKind.SEAM_MISMATCH, Phase.BODY, str(mismatch))

    def _is_whole(self, fault: Fault) -> bool:
        """Whether the attempt's end leaves a complete answer all the same."""
        return (
            self.failure is None
            and fault.kind is not FaultKind.STOPPED
            and self._joining.whole
            and self._decoder.complete(clean_end=fault.kind is FaultKind.ENDED)
        )

    def _error_of(self, fault: Fault) -> StreamError:
        refusal = None
        if fault.answer is not None:
            refusal = self._provider.refusal(fault.answer)
        error = error_from(
            fault,
            refusal,
            key_variable=self._provider.profile.key_variable,
            timeouts=self._timeouts,
            provider=self.endpoint,
            own_key=self.own_key,
            secrets=self._unsaid,
        )
        error.__cause__ = fault.__cause__
        return self.describe(error)

    def _given_up(self, error: StreamError, reason: str) -> StreamError:
        """Return the error that the stream ends with."""
        if error.verdict is Verdict.FATAL:
            return error
        if self.transcript.delivered:
            error = self._broken_off(error, f"Gave up: {reason}.")
        else:
            error.args = (f"{sentence(error.message)} Gave up: {reason}.",)
        error.exhausted = True
        return error

    def _find_way(self, fault: Fault, error: StreamError) -> bool:
        """Decide how the next attempt joins on; without a way, set ``error``."""
        transcript, joining = self.transcript, self._joining
        if transcript.content_events > self._counted:
            joining.segment += 1
        weak = joining.find(
            transcript, at_least=self._min_guarantee or Guarantee.PARTIAL
        )
        if joining.continuation is not None:
            self._ledger.interrupted(
                error.verdict,
                strategy=joining.strategy,
                continuation=joining.continuation,
                generated=self.generated,
                standing=transcript.written,
                usage=self._decoder.usage,
            )
            if joining.strategy is None or not joining.strategy.keeps:
                transcript.forget_undelivered()
            return True
        if weak is not None and self._min_guarantee is not None:
            self.error = self.describe(too_weak(error, weak, self._min_guarantee))
        else:
            mismatched = fault.kind is FaultKind.SEAM_MISMATCH
            profile = self._provider.profile.for_model(self.request.model)
            self.error = self._broken_off(
                error, "" if mismatched else how_to_go_on(profile, self._ways)
            )
        return False

    def _broken_off(self, error: StreamError, explanation: str) -> StreamError:
        interrupted = broken_off(error, explanation)
        interrupted.resume_token = self.resume_token
        return self.describe(interrupted)


_STOPPED = "stop"
"""The finish reason of an answer that a stop string ended at a seam."""


def _content_events(events: Sequence[StreamEvent]) -> int:
    return sum(isinstance(event, CONTENT) for event in events)
