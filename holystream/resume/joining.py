"""How the attempts at one answer join on: which ways are left, and the present seam.

An `Exchange` has one `Joining`. Before each attempt it says what to ask for and who
decodes; while the attempt lasts, messages pass its gate and events its seam; after a
fault it finds the next way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holystream.events import Guarantee
from holystream.resume.asides import Void
from holystream.resume.base import BegunAnew, Continuation, SeamMismatch, Trail
from holystream.resume.tracker import CursorTracker
from holystream.wire.faults import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holystream.events import StreamEvent
    from holystream.providers.base import ChatRequest, Cursor, Decoder, Provider
    from holystream.resume.base import Gate, ResumeStrategy, Seam
    from holystream.resume.checkpoint import Checkpoint
    from holystream.transcript import Transcript
    from holystream.wire.sse import ServerSentEvent

_NOT_SO: Final = frozenset({400, 404, 405, 409, 410, 415, 422, 501})
"""Statuses that mean: not in this way."""
_NO_STREAM: Final = frozenset({FaultKind.NOT_EVENT_STREAM, FaultKind.REDIRECT})
_EMPTY_ANSWERS: Final = 2
"""Answers without anything new, after which a server is taken to have kept nothing."""


class Joining:
    """Finds ways to go on, and holds the seam of the present one. Not thread-safe.

    Attributes:
        strategy: The way that the present attempt goes; None for a plain one.
        continuation: What that way asks for; None where there is no way.
        segment: The number of the present segment.
    """

    def __init__(
        self,
        request: ChatRequest,
        provider: Provider,
        strategies: Sequence[ResumeStrategy],
        *,
        name: str,
    ) -> None:
        self._request = request
        self._provider = provider
        self._strategies = tuple(strategies)
        self._name = name
        self.strategy: ResumeStrategy | None = None
        self.continuation: Continuation | None = Continuation(request=request)
        self.segment = 0
        self._decoder: Decoder | None = None
        # What the generation that the decoder reads was asked with.
        self._asked = request
        self._seam: Seam | None = None
        # The way that has this seam; a cursor goes on behind the seam of another way.
        self._seam_of: ResumeStrategy | None = None
        self._gate: Gate | None = None
        # The ways that a mismatch has ruled out.
        self._refuted: tuple[ResumeStrategy | None, ...] = ()
        self._void = Void()
        # Nothing has to be told of how the present attempt joined on.
        self._announced = True
        self._tracker = CursorTracker()
        self._taken: Callable[[], int | None] | None = None
        self._before = 0
        self._model: str | None = None
        # A later attempt, cut before it came so far, knows nothing of it.
        self._half_call = False
        self._received = False
        self._empty_answers = 0

    def attempt(self, number: int) -> tuple[ChatRequest, Decoder]:
        """Begin an attempt: return what to ask for, and who reads the answer."""
        way = self.continuation
        assert way is not None, "without a way there is no other attempt"  # noqa: S101 - an invariant
        request = way.request
        self._received = False
        self._gate = way.gate
        self._announced = way.gate is None
        if way.decoder is not None:
            # The same generation: a seam that is open still has to be passed.
            self._decoder = way.decoder
            self._decoder.go_on(segment=self.segment)
            self._tracker.reconnected()
        else:
            self._seam = way.seam
            self._seam_of = self.strategy
            request = self._provider.conversing(request, f"{self._name}.{number}")
            self._decoder = self._provider.decoder(self._request, segment=self.segment)
            self._tracker = CursorTracker(request.conversation)
            self._asked = request
        return request, self._decoder

    def connected(self, taken: Callable[[], int | None]) -> None:
        """Take note of a connection, and of what counts the bytes taken from it."""
        self._taken = taken
        self._before = self._tracker.offset

    def admit(self, batch: Sequence[ServerSentEvent]) -> Sequence[ServerSentEvent]:
        """Return what of these messages is new.

        Raises:
            SeamMismatch: They do not belong to the answer.
        """
        if self._gate is None:
            self._received = self._received or bool(batch)
            return batch
        try:
            admitted = self._gate.admit(batch)
        except SeamMismatch:
            self._refuted = (self.strategy,)
            raise
        if admitted:
            self._received = True
            self._empty_answers = 0
        if self._gate.passed_over:
            self._tracker.passed_over(self._gate.passed_over)
        return admitted

    def note(self, batch: Sequence[ServerSentEvent], decoder: Decoder) -> None:
        """Note where in the answer these messages, which were decoded, have led."""
        if self._tracker.keeps_bytes:
            if batch:
                self._tracker.began(batch[0])
            taken = self._taken() if self._taken is not None else None
            self._tracker.reached(None if taken is None else self._before + taken)
        elif batch and (batch[-1].id or self._tracker.keeps_ids):
            self._tracker.note(batch[: decoder.taken])

    @property
    def joined(self) -> bool:
        """Whether nothing stands between the decoder and the caller."""
        told = self._announced and not self._void
        return told and (self._seam is None or not self._seam.open)

    @property
    def idle(self) -> bool:
        """Whether messages without an id go to the decoder and on without it."""
        keeps = self._tracker.keeps_bytes or self._tracker.keeps_ids
        return self.joined and self._gate is None and not keeps

    @property
    def stopped(self) -> bool:
        """Whether a stop string ended the answer at the seam."""
        return self._seam is not None and self._seam.stopped

    def join(
        self, events: list[StreamEvent], transcript: Transcript
    ) -> list[StreamEvent]:
        """Return what of these events is new to the caller.

        Raises:
            SeamMismatch: They do not belong to the answer.
        """
        joined = self._announce(transcript)
        joined += self._void.withdraw(events, segment=self.segment)
        seam = self._seam
        if seam is None or not seam.open:
            return [*joined, *events]
        return [*joined, *self._through(seam, lambda: seam.join(events))]

    def placed(self, length: int) -> None:
        """Tell the decoder of a text that goes on how long it is by now."""
        if self._seam is not None and not self._seam.open and self._decoder is not None:
            self._decoder.rebase(length)

    def finish(self, transcript: Transcript) -> list[StreamEvent]:
        """Take the end of the answer; return what it adds.

        Raises:
            SeamMismatch: The answer that ended is another one.
        """
        joined = self._announce(transcript)
        joined += self._void.withdraw((), segment=self.segment, ended=True)
        seam = self._seam
        if seam is not None and seam.open:
            joined += self._through(seam, seam.finish)
        return joined

    @property
    def whole(self) -> bool:
        """Whether nothing is missing between the messages that came."""
        return self._gate is None or self._gate.whole

    def _through(
        self, seam: Seam, join: Callable[[], list[StreamEvent]]
    ) -> list[StreamEvent]:
        """Pass the seam, if the model is the one that wrote what was delivered."""
        try:
            self._check_model()
            joined = join()
        except SeamMismatch as mismatch:
            self._refuted = self._ruled_out_by(mismatch)
            # Of this generation nothing will be delivered, on any connection.
            self._tracker = CursorTracker()
            raise
        way = self._seam_of
        if way is not None and not (seam.open or way.extends):
            # All that stands was written, or written again, on this connection.
            self._model = None
            if way.guarantee is Guarantee.RESTARTED:
                self._half_call = False
        return joined

    def _ruled_out_by(
        self, mismatch: SeamMismatch
    ) -> tuple[ResumeStrategy | None, ...]:
        """Return the way that did not join, and those that the server will not go."""
        way = self._seam_of
        if way is None or not isinstance(mismatch, BegunAnew):
            return (way,)
        return tuple(each for each in self._strategies if each.name == way.name)

    def interpret(self, fault: Fault) -> Fault:
        """Return the fault, or that the server does not go on in the way it was asked.

        The way is ruled out then, as it is by a seam that does not join.
        """
        way = self.strategy
        if way is None:
            return fault
        if fault.kind is FaultKind.SEAM_MISMATCH:
            self._strategies = tuple(
                each for each in self._strategies if each not in self._refuted
            )
        elif self._is_refused(way, fault):
            self._strategies = tuple(
                each for each in self._strategies if each.name != way.name
            )
            status = fault.answer.status if fault.answer is not None else 200
            detail = f"{way.name!r} was answered {status}"
            refused = Fault(FaultKind.NOT_CONTINUED, fault.phase, detail)
            refused.request_id = fault.request_id
            return refused
        return fault

    def forget_cursor(self) -> None:
        """Take note that the server that kept the answer is not the next one."""
        self._tracker = CursorTracker()

    def checkpoint(self) -> tuple[bytes, Cursor | None]:
        """Return what the decoder knows, and where the server could go on.

        Nothing of an attempt that has not come as far as the one before it.
        """
        decoder = self._decoder
        open_seam = self._seam is not None and self._seam.open
        if decoder is None or decoder.torn or open_seam:
            return b"", None
        return decoder.state(), self._cursor()

    @property
    def model(self) -> str | None:
        """The model that wrote what was delivered, as the server names it."""
        if self._model is None and self._decoder is not None:
            return self._decoder.model
        return self._model

    @property
    def half_call(self) -> bool:
        """Whether a tool call had begun behind what was delivered."""
        decoder = self._decoder
        return self._half_call or (decoder is not None and decoder.half_call)

    def restore(self, checkpoint: Checkpoint) -> Decoder:
        """Stand where another process stood; return who has read the answer so far."""
        self.segment = checkpoint.segment
        self._model = checkpoint.model
        self._half_call = checkpoint.half_call
        if checkpoint.decoder:
            self._decoder = self._provider.restored(
                self._request, checkpoint.decoder, segment=self.segment
            )
        else:
            self._decoder = self._provider.decoder(self._request, segment=self.segment)
        if checkpoint.cursor is not None and checkpoint.decoder:
            self._tracker = CursorTracker.behind(checkpoint.cursor)
        return self._decoder

    def find(
        self, transcript: Transcript, *, at_least: Guarantee
    ) -> ResumeStrategy | None:
        """Find the next way, and return the best that is too weak if there is none.

        ``continuation`` is None then, as it is where there is no way at all.
        """
        decoder = self._decoder
        open_seam = self._seam is not None and self._seam.open
        if decoder is not None and transcript.delivered and not open_seam:
            self._model = self._model or decoder.model
            self._half_call = self._half_call or decoder.half_call
        trail = Trail(
            request=self._request,
            provider=self._provider,
            transcript=transcript,
            decoder=decoder,
            cursor=self._cursor(),
            asked=self._asked,
            half_call=self.half_call,
        )
        too_weak: ResumeStrategy | None = None
        # A server that seems to have kept nothing is asked for it when there is no
        # other way: it may as well be one whose connections broke at once.
        doubted = self._empty_answers >= _EMPTY_ANSWERS
        for strategy in sorted(self._strategies, key=lambda way: doubted and way.keeps):
            if not transcript.delivered and (doubted or not strategy.keeps):
                continue
            continuation = strategy.join(trail)
            if continuation is None:
                continue
            if strategy.guarantee >= at_least:
                self._choose(strategy, continuation, transcript)
                return None
            too_weak = too_weak or strategy
        self._choose(
            None,
            None if transcript.delivered else Continuation(request=self._request),
            transcript,
        )
        return too_weak

    def _choose(
        self,
        strategy: ResumeStrategy | None,
        continuation: Continuation | None,
        transcript: Transcript,
    ) -> None:
        self.strategy = strategy
        self.continuation = continuation
        if continuation is not None and (strategy is None or not strategy.keeps):
            self._void.note(transcript)

    def _announce(self, transcript: Transcript) -> list[StreamEvent]:
        """Tell once that the server goes on with what it kept."""
        if self._announced or self._gate is None or not self._gate.proven:
            return []
        self._announced = True
        return [self._gate.resumed(transcript.length)]

    def _check_model(self) -> None:
        """Refuse to let one model go on with what another one wrote."""
        way, decoder = self._seam_of, self._decoder
        if way is None or not way.extends or decoder is None:
            return
        if self._model and decoder.model and decoder.model != self._model:
            raise SeamMismatch("another model would go on")

    def _is_refused(self, way: ResumeStrategy, fault: Fault) -> bool:
        if not (way.keeps or way.extends):
            return False
        if fault.kind is FaultKind.STATUS and fault.answer is not None:
            return fault.answer.status in _NOT_SO
        if fault.kind in _NO_STREAM:
            return True
        if way.keeps and fault.kind is FaultKind.ENDED and not self._received:
            # A connection that was cut before anything new looks the same.
            self._empty_answers += 1
        return False

    def _cursor(self) -> Cursor | None:
        """Return where the server could go on with this generation, if it could."""
        decoder = self._decoder
        if decoder is None or decoder.torn:
            return None
        failure = decoder.failure
        if failure is not None and (
            # What the server itself gave up it does not go on with, and where within
            # the bytes of a read an event was damaged is not known.
            failure.kind is FaultKind.ERROR_EVENT or self._tracker.keeps_bytes
        ):
            return None
        return self._tracker.cursor(decoder.response_id)
