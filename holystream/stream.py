"""The blocking driver: an `Exchange` carried out by reads in the caller's thread.

Nothing happens between reads: no background thread, no timer. The loop's state lives
in the `Stream`, not in a generator, so that it can be iterated in pieces and by
different threads in turn, and let go of from any thread at any moment.
"""

from __future__ import annotations

import enum
import threading
import time
import warnings
from typing import TYPE_CHECKING, Self

from holystream.clocks import CancelToken
from holystream.errors import (
    PoolError,
    RestartRequired,
    StreamCancelled,
    StreamClosed,
    StreamError,
    StreamInUse,
)
from holystream.events import Guarantee, Rewound, TextDelta
from holystream.wire.faults import Fault, FaultKind
from holystream.wire.socketio import SocketGuard

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from holystream.events import Completion, StreamEvent, Usage
    from holystream.exchange import Exchange
    from holystream.resilience.pool import Permit, Priority, PrioritySemaphore
    from holystream.wire.http import HttpConnection


class StreamState(enum.Enum):
    """Where a stream stands."""

    IDLE = "idle"
    """Not opened yet: nothing was sent."""
    QUEUED = "queued"
    """Waiting for a permit of the pool."""
    CONNECTING = "connecting"
    """Connecting, or waiting for the headers of the answer."""
    STREAMING = "streaming"
    """Reading the answer."""
    WAITING = "waiting"
    """Waiting to try again."""
    DONE = "done"
    """The answer is complete."""
    CLOSED = "closed"
    """Ended without a complete answer."""


class Stream:
    """One answer as it arrives: an iterator of events and a context manager.

    Nothing is sent before it is opened, by `open` or by iterating. One thread iterates
    it at a time; any thread may read its properties, `cancel` or `close` it. It must
    be closed, which ``with`` does; iterating to the end closes it as well.

    Attributes:
        stream_id: The stream's own id, for logs.
    """

    def __init__(
        self,
        exchange: Exchange,
        *,
        connect: Callable[[SocketGuard], HttpConnection],
        pool: PrioritySemaphore,
        priority: Priority,
        queue_timeout: float,
        abandoned: deque[HttpConnection],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stream_id = exchange.stream_id
        self._exchange = exchange
        self._connect_to = connect
        self._pool = pool
        self._priority = priority
        self._queue_timeout = queue_timeout
        self._abandoned = abandoned
        self._now = now
        self._token = CancelToken()
        self._ended_by: type[StreamCancelled | StreamClosed] = StreamClosed
        # Held by the thread that advances the stream; never waited for.
        self._reading = threading.Lock()
        self._batch: list[StreamEvent] = []
        self._pending = iter(self._batch)
        self._state = StreamState.IDLE
        self._error: StreamError | None = None
        self._resume_at = 0.0
        self._guard: SocketGuard | None = None
        self._permit: Permit | None = None
        self._connection: HttpConnection | None = None
        self._unregister: Callable[[], None] | None = None

    def __iter__(self) -> Iterator[StreamEvent]:
        """Iterate over the events that are still to come."""
        while True:
            # The position is the stream's: a loop that breaks leaves the rest to the
            # next one.
            yield from self._pending
            if not self._advance():
                return

    def __next__(self) -> StreamEvent:
        """Return the next event.

        Raises:
            StopIteration: The answer is complete.
            StreamError: It will not be completed.
        """
        return next(iter(self))

    @property
    def text_stream(self) -> TextStream:
        """The text of the first choice, piece by piece; closing it closes the stream.

        It only appends: where the answer is written anew it raises `RestartRequired`,
        after which a new ``text_stream`` yields the new text from its start.
        """
        return TextStream(self)

    def open(self) -> Self:
        """Wait for the first event of the server and return the stream.

        For code that wants to know of a refusal before it starts an answer of its own.

        Raises:
            StreamError: No answer comes.
        """
        events: list[StreamEvent] = []
        try:
            while not self._exchange.answering:
                events += self._pending
                if not self._advance():
                    break
        finally:
            self._hold([*events, *self._pending])
        return self

    def until_done(self) -> Self:
        """Read to the end and return the stream.

        Raises:
            StreamError: The answer is not complete.
        """
        for _ in self:
            pass
        return self

    def get_final_completion(self) -> Completion:
        """Read to the end and return the completion.

        Raises:
            StreamError: The answer is not complete.
        """
        self.until_done()
        completion = self._exchange.completion
        if completion is None:
            raise self._ended()
        return completion

    def get_final_text(self) -> str:
        """Read to the end and return the whole text of the first choice.

        Raises:
            StreamError: The answer is not complete.
        """
        return self.get_final_completion().text

    def cancel(self) -> None:
        """End the answer for good, from any thread: whoever reads it is told so.

        The reading thread's next step raises `StreamCancelled`, at once, whatever it
        is waiting for. Harmless once the stream has ended.
        """
        if not self._token.cancelled:
            self._ended_by = StreamCancelled
        self._stop()

    def close(self) -> None:
        """Let go of the connection, from any thread; safe to call again.

        A thread that is reading is woken; reading on raises `StreamClosed` unless the
        answer was complete.
        """
        self._stop()

    @property
    def state(self) -> StreamState:
        """Where the stream stands."""
        return self._state

    @property
    def partial_text(self) -> str:
        """The text of the first choice that has arrived so far."""
        return self._exchange.transcript.text

    @property
    def completion(self) -> Completion | None:
        """The finished answer, or None before the end."""
        return self._exchange.completion

    @property
    def guarantee(self) -> Guarantee:
        """What the text that has arrived is worth."""
        if self._state is StreamState.CLOSED:
            return Guarantee.PARTIAL
        return self._exchange.guarantee

    @property
    def usage(self) -> Usage | None:
        """The tokens used, or None before the end."""
        completion = self._exchange.completion
        return completion.usage if completion else None

    @property
    def attempts(self) -> int:
        """Connections that were tried."""
        return self._exchange.attempts

    @property
    def ttft(self) -> float | None:
        """Seconds from opening to the first content, or None before it."""
        return self._exchange.ttft

    @property
    def request_id(self) -> str | None:
        """The server's id of the last request, else ours."""
        return self._exchange.request_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"<Stream {self.stream_id} {self._state.value} "
            f"model={self._exchange.request.model!r} attempts={self.attempts}>"
        )

    def __del__(self) -> None:
        # May run inside any allocation, in a thread that holds any lock: only queue
        # what the next stream of the client gives back, and wake the server.
        permit, connection = self._permit, self._connection
        if permit is None and connection is None:
            return
        if self._guard is not None:
            self._guard.stop()
        if connection is not None:
            self._abandoned.append(connection)
        if permit is not None:
            permit.release_later()
        warnings.warn(
            f"{self!r} was dropped unread; close it, or use it with 'with'",
            ResourceWarning,
            source=self,
            stacklevel=2,
        )

    def _hold(self, events: list[StreamEvent]) -> None:
        """Make these the events that come next."""
        self._batch = events
        self._pending = iter(events)

    def _advance(self) -> bool:
        """Hold the next events; return False at the end of a complete answer."""
        if not self._reading.acquire(blocking=False):
            raise StreamInUse(
                "another thread is reading this stream: one reads, any may cancel"
            )
        try:
            events = self._next_events()
            if events is None:
                return False
            self._hold(events)
            # A cancel either emptied what we hold now or is seen here.
            self._check_cancelled()
        except BaseException as error:
            self._let_go()
            if self._state is not StreamState.DONE:
                self._state = StreamState.CLOSED
            if self._error is None and isinstance(error, StreamError):
                self._error = error
            raise
        else:
            return True
        finally:
            self._reading.release()
            # A close that found us reading left the rest to us.
            if self._token.cancelled:
                self._let_go_if_idle()

    def _check_cancelled(self) -> None:
        if self._token.cancelled and self._exchange.completion is None:
            raise self._ended()

    def _next_events(self) -> list[StreamEvent] | None:
        exchange = self._exchange
        while True:
            if self._state is StreamState.DONE:
                return None
            if self._error is not None:
                raise self._error
            if self._token.cancelled or self._state is StreamState.CLOSED:
                raise self._ended()
            if self._state is StreamState.IDLE:
                self._state = StreamState.QUEUED
                return exchange.start(self._now())
            if exchange.completion is not None:
                self._drain()
                return None
            if exchange.error is not None:
                raise exchange.error
            events = self._read() if self._connection else self._connect()
            if events:
                return events

    def _connect(self) -> list[StreamEvent]:
        """Make the next attempt, up to the headers of its answer."""
        exchange = self._exchange
        if exchange.wait is not None:
            self._token.wait(max(0.0, self._resume_at - self._now()))
            if self._token.cancelled:
                raise self._ended()
        self._state = StreamState.QUEUED
        seconds = min(self._queue_timeout, exchange.deadline.left(self._now()))
        try:
            self._permit = self._pool.acquire(
                priority=self._priority, timeout=seconds, cancel=self._token
            )
        except StreamCancelled:
            raise self._ended() from None
        except PoolError as error:
            raise exchange.describe(error) from None
        self._state = StreamState.CONNECTING
        self._guard = guard = SocketGuard(exchange.attempt(), now=self._now)
        self._unregister = self._token.on_cancel(guard.stop)
        try:
            self._connection = self._connect_to(guard)
        except Fault as fault:
            return self._failed(fault)
        self._state = StreamState.STREAMING
        return exchange.connected(self._connection.request_id, self._now())

    def _read(self) -> list[StreamEvent]:
        """Read once."""
        exchange, connection, guard = self._exchange, self._connection, self._guard
        if exchange.failure is not None:
            return self._failed(exchange.failure)
        if connection is None or guard is None:
            return []
        try:
            batch = connection.next_batch()
        except Fault as fault:
            return self._failed(fault)
        if batch is None:
            return self._failed(guard.fault(FaultKind.ENDED))
        return exchange.receive(batch, self._now())

    def _failed(self, fault: Fault) -> list[StreamEvent]:
        """End the attempt and find out what follows."""
        if self._token.cancelled:
            raise self._ended()
        now = self._now()
        events = self._exchange.fault(fault, now)
        if self._exchange.completion is None:
            self._let_go()
        if self._exchange.wait is not None:
            self._resume_at = now + self._exchange.wait.delay
            self._state = StreamState.WAITING
        return events

    def _drain(self) -> None:
        """Let the connection be used again, and leave."""
        if self._connection is not None:
            self._connection.drain()
        self._state = StreamState.DONE
        self._let_go()

    def _let_go(self) -> None:
        """Give back the connection and the permit."""
        connection, self._connection = self._connection, None
        permit, self._permit = self._permit, None
        unregister, self._unregister = self._unregister, None
        self._guard = None
        if unregister is not None:
            unregister()
        if connection is not None:
            connection.close()
        if permit is not None:
            permit.release()

    def _stop(self) -> None:
        self._token.cancel()
        if self._exchange.completion is None:
            # What the reader has not taken yet it shall not get, and it will be told.
            # After a completion it must get it all: its loop will end cleanly.
            self._batch.clear()
        self._let_go_if_idle()

    def _let_go_if_idle(self) -> None:
        """Let go, unless a thread is reading: then that thread does, as it leaves."""
        if self._reading.acquire(blocking=False):
            try:
                if self._exchange.completion is not None:
                    self._state = StreamState.DONE
                elif self._state is not StreamState.DONE:
                    self._state = StreamState.CLOSED
                self._let_go()
            finally:
                self._reading.release()

    def _withdrawn(self) -> StreamError:
        """Return the error for a reader that cannot take text back."""
        return self._exchange.describe(
            RestartRequired(
                "the answer was begun anew and the text so far is void; iterate "
                "text_stream again for the new text, or iterate the stream and apply "
                "its Rewound events"
            )
        )

    def _ended(self) -> StreamError:
        """Return the error for reading a stream that was cancelled or closed."""
        if self._ended_by is StreamCancelled:
            error: StreamError = StreamCancelled("the stream was cancelled")
        else:
            error = StreamClosed("the stream was closed before its answer was complete")
        error.phase = self._guard.phase if self._guard else None
        return self._exchange.describe(error)


class TextStream:
    """The text of a stream, piece by piece; only appends. As thread-safe as it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[str]:
        """Iterate over the pieces that are still to come.

        Raises:
            RestartRequired: The text so far was withdrawn.
        """
        stream = self._stream
        while True:
            for event in stream._pending:  # noqa: SLF001 - two views of one stream
                if type(event) is TextDelta:
                    if event.index == 0:
                        yield event.text
                elif type(event) is Rewound:
                    raise stream._withdrawn()  # noqa: SLF001 - the same
            if not stream._advance():  # noqa: SLF001 - the same
                return

    def __next__(self) -> str:
        return next(iter(self))

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()
