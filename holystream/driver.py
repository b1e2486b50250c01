"""The blocking loop: an exchange carried out by reads in the caller's thread.

The exchange decides and does no I/O: an answer on its way (exchange.py) or a feed that
reconnects (feed.py). Nothing happens between reads: no background thread, no timer. The
loop's state lives in the `Driver`, not in a generator, so that a stream can be iterated
in pieces and by different threads in turn, and let go of from any thread at any moment.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

from holystream.clocks import CancelToken
from holystream.driven import StreamState
from holystream.errors import (
    CircuitOpen,
    JournalError,
    Phase,
    PoolError,
    QueueTimeout,
    RateLimited,
    StreamCancelled,
    StreamClosed,
    StreamError,
    StreamInUse,
)
from holystream.events import Failed
from holystream.gapless import keep
from holystream.wire.faults import Fault, FaultKind
from holystream.wire.guard import SocketGuard

if TYPE_CHECKING:
    from collections.abc import Callable

    from holystream.clocks import SystemTime
    from holystream.driven import (
        Attending,
        Closable,
        Connection,
        Exchangeable,
        Recording,
    )
    from holystream.resilience.pool import Permit, Priority, PrioritySemaphore


_LEAVING = 5.0
"""Seconds in which a thread that was told to leave a stream has left it."""


Event = TypeVar("Event")
Message = TypeVar("Message")


class Driver(Generic[Message, Event]):
    """Drives one exchange. One thread advances it; any thread may cancel or close it.

    Attributes:
        state: Where the stream stands.
        pending: The events that were received and not taken yet.
    """

    def __init__(
        self,
        exchange: Exchangeable[Message, Event],
        *,
        attempts: Attending[Message, Event],
        pool: PrioritySemaphore,
        priority: Priority,
        queue_timeout: float,
        abandoned: deque[Closable],
        time: SystemTime,
        tell: Callable[[Event | Failed], object] | None = None,
        recorder: Recording[Event] | None = None,
    ) -> None:
        self._exchange = exchange
        self._tell = tell
        self._recorder = recorder
        self.state = StreamState.IDLE
        self._attempts = attempts
        # What the present attempt brings is still to be told.
        self._attended = False
        self._pool = pool
        self._priority = priority
        self._queue_timeout = queue_timeout
        self._abandoned = abandoned
        self._time = time
        self._now = time.now
        self._token = CancelToken()
        self._ended_by: type[StreamCancelled | StreamClosed] = StreamClosed
        # Held by the thread that advances; waited for only as that thread leaves. Taken
        # by `keep`, for a Ctrl-C must not come between taking it and knowing that.
        self._reading = threading.Lock()
        self._error: StreamError | JournalError | None = None
        self._failed_at = 0.0
        # Tells that the wait may end before its time, if it may.
        self._over: Callable[[], bool] | None = None
        self._guard: SocketGuard | None = None
        self._permit: Permit | None = None
        self._had_permit = False
        self._used_at = 0.0
        self._connection: Connection[Message] | None = None
        self._unregister: Callable[[], None] | None = None
        # A step has begun, and its events are not held yet.
        self._unheld = False
        # What was received and not told yet; only what was told is handed over.
        self._untold: deque[Event] = deque()
        self.hold([])

    def hold(self, events: list[Event]) -> None:
        """Make these the events that come next."""
        self._batch = events
        self.pending = iter(events)

    def advance(self) -> bool:
        """Hold the next events; return False at the end of a complete answer.

        Raises:
            StreamError: The answer will not be completed.
            StreamInUse: Another thread is advancing.
        """
        tell = self._tell
        if tell is None:
            return self._step()
        before = self._error
        if self._untold:
            self.hold([])
        else:
            try:
                if not self._step():
                    return False
            except StreamError as error:
                if before is None:
                    tell(Failed(error=error))
                raise
        untold, told = self._untold, self._batch
        while untold:
            try:
                event = untold[0]
                # One instruction: what an exception leaves is told when reading goes
                # on, and what was told is handed over.
                keep(told, untold.popleft)
            except IndexError:
                break  # ended meanwhile, from elsewhere
            tell(event)
        return True

    def _step(self) -> bool:
        """Advance, alone."""
        taken: list[bool] = []
        try:
            keep(taken, self._reading.acquire, False)
            # Whoever holds the lock of a stream that is over is about to leave.
            if True not in taken and (self._token.cancelled or self._exchange.complete):
                keep(taken, self._reading.acquire, True, _LEAVING)
            if True not in taken:
                raise StreamInUse(
                    "another thread is reading this stream: one reads, any may cancel"
                )
            return self._step_alone()
        finally:
            # No call before the release: signal handlers run behind calls.
            if True in taken:
                self._reading.release()
            # A close that found us reading left the rest to us.
            if self._token.cancelled:
                self._if_idle(self._leave)

    def _step_alone(self) -> bool:
        try:
            exchange, connection = self._exchange, self._connection
            events: list[Event] | None
            # In the midst of an answer nothing else is to be asked.
            if (
                connection is not None
                and self.state is StreamState.STREAMING
                and not exchange.complete
                and exchange.failure is None
                and not self._token.cancelled
            ):
                self._unheld = True
                events = self._read(connection)
            else:
                events = self._next_events()
            if events is None:
                return False
            if self._recorder is not None or exchange.complete:
                self._settle(events)
            guard = self._guard
            if events and guard is not None:
                # The caller's time begins; that of what brought him nothing counts.
                guard.reading_since = None
            if self._tell is None:
                # As `hold`, which is a call more: a token waits for what is done here.
                self._batch = events
                self.pending = iter(events)
                self._unheld = False
            else:
                self.take(events)
            if self._token.cancelled:
                # It either emptied what we hold now or is seen here.
                self._check_cancelled()
        except BaseException as error:
            # First and without a call, should another Ctrl-C come.
            self.state = StreamState.CLOSED
            if self._error is None and isinstance(error, (StreamError, JournalError)):
                self._error = error
            self._end(error)
            raise
        else:
            return True

    def _settle(self, events: list[Event]) -> None:
        """Record what is about to be handed over; if it is all, tell of that."""
        if self._recorder is not None:
            self._recorder.record(events, self._now())
        if self._exchange.complete:
            # Not before it is recorded: else it has failed.
            self._attempts.finished(self._now())

    def take(self, events: list[Event]) -> None:
        """Hold events that are to be handed over, or keep them to be told first."""
        if self._tell is None:
            self.hold(events)
        else:
            self._untold = deque(events)
            self.hold([])
        self._unheld = False

    def _check_cancelled(self) -> None:
        if not self._exchange.complete:
            raise self._ended()

    def _next_events(self) -> list[Event] | None:
        """Return what the next step brings, maybe nothing; None at the end."""
        exchange = self._exchange
        if self._error is not None:
            # Without the frames of the last time, or they would add up.
            raise self._error.with_traceback(None)
        if exchange.complete and self._unheld:
            # A Ctrl-C took the last events with it: no reader may end cleanly.
            raise exchange.describe(
                StreamClosed(
                    "the read that completed the answer was interrupted; the whole "
                    "text is in .completion"
                )
            )
        if self.state is StreamState.DONE:
            return None
        if exchange.complete:
            self._drain()
            return None
        self._unheld = True
        if self._token.cancelled or self.state is StreamState.CLOSED:
            raise self._ended()
        if self.state is StreamState.IDLE:
            return self._begin()
        if exchange.error is not None:
            raise exchange.error
        if self._connection is None:
            return self._connect()
        if exchange.failure is not None:
            return self._failed(exchange.failure)
        return self._read(self._connection)

    def _begin(self) -> list[Event]:
        self.state = StreamState.QUEUED
        now = self._now()
        if self._recorder is not None:
            self._recorder.begin(now)
        self._attempts.opened(now)
        return self._exchange.start(now)

    def _connect(self) -> list[Event]:
        """Make the next attempt, up to the headers of its answer."""
        exchange = self._exchange
        waited, early = self._wait() if exchange.wait is not None else (None, False)
        self.state = StreamState.QUEUED
        try:
            self._attempts.admit(early=early)
            if not self._acquire():
                return self._failed(Fault(FaultKind.DEADLINE, Phase.CONNECT))
            self._attempts.choose(early=early)
        except (CircuitOpen, RateLimited) as error:
            if early:
                # Another one was faster: it waits on, as it was told.
                self._let_go()
                self.state = StreamState.WAITING
                return []
            if waited is not None:
                self._attempts.waited(waited)
            return self._shut_out(error)
        if waited is not None:
            self._attempts.waited(waited)
        if exchange.error is not None:
            # The endpoint that kept the rest of the answer is out.
            return []
        self.state = StreamState.CONNECTING
        self._guard = guard = SocketGuard(exchange.attempt(), now=self._now)
        self._unregister = self._token.on_cancel(guard.stop)
        self._attended = True
        try:
            self._connection = self._attempts.connect(guard)
        except Fault as fault:
            return self._failed(fault)
        self.state = StreamState.STREAMING
        return exchange.connected(
            self._connection.request_id, self._now(), self._connection.taken
        )

    def _wait(self) -> tuple[float, bool]:
        """Wait for the next attempt; return how long, and whether it ended early."""
        wait = self._exchange.wait
        assert wait is not None, "asked before"  # noqa: S101 - an invariant
        since = self._failed_at
        early = self._time.sleep(wait.delay, since, self._token, self._over)
        if self._token.cancelled:
            raise self._ended()
        return (self._now() - since if early else wait.delay), early

    def _acquire(self) -> bool:
        """Wait for a permit; return False if the deadline passes meanwhile."""
        began = self._now()
        seconds = self._exchange.deadline.left(began)
        if seconds <= 0:
            return False
        self._used_at = began
        deadline = None if seconds == math.inf else seconds
        try:
            if self._had_permit:
                # It gave the permit back to wait for its retry: it does not queue anew.
                self._permit = self._pool.reacquire(
                    priority=self._priority,
                    deadline=deadline,
                    cancel=self._token,
                    holder=self,
                )
            else:
                self._permit = self._pool.acquire(
                    priority=self._priority,
                    timeout=self._queue_timeout,
                    deadline=deadline,
                    cancel=self._token,
                    holder=self,
                )
                self._had_permit = True
        except StreamCancelled:
            raise self._ended() from None
        except QueueTimeout as error:
            if self._exchange.deadline.left(self._now()) > 0:
                raise self._exchange.describe(error) from None
            return False
        except PoolError as error:
            raise self._exchange.describe(error) from None
        finally:
            self._attempts.queued(self._now() - began)
        return True

    def _shut_out(self, error: CircuitOpen | RateLimited) -> list[Event]:
        """Find out what follows where no endpoint takes the attempt, or none yet."""
        now = self._now()
        events = self._exchange.shut_out(error, now)
        self._pause(now)
        return events

    def _read(self, connection: Connection[Message]) -> list[Event]:
        """Read once."""
        exchange = self._exchange
        try:
            batch = connection.next_batch()
        except Fault as fault:
            return self._failed(fault)
        if batch is None:
            guard = self._guard
            assert guard is not None, "it came with the connection"  # noqa: S101 - an invariant
            return self._failed(guard.fault(FaultKind.ENDED))
        self._used_at = now = self._now()
        events = exchange.receive(batch, now)
        if self._attended:
            self._attended = self._attempts.received(now)
        return events

    def _failed(self, fault: Fault) -> list[Event]:
        """End the attempt and find out what follows."""
        if self._token.cancelled:
            # Told by the next step: the fault is no part of what the caller is told.
            return []
        now = self._now()
        events = self._attempts.failed(fault, self._exchange.fault(fault, now), now)
        if not self._exchange.complete:
            self._pause(now)
        return events

    def _pause(self, now: float) -> None:
        """Give everything back until the next attempt, if there is one."""
        self._let_go()
        exchange = self._exchange
        if exchange.error is None and exchange.wait is not None:
            self._failed_at = now
            self._over = self._attempts.watch()
            self.state = StreamState.WAITING

    def _drain(self) -> None:
        """Let the connection be used again, and leave."""
        if self._connection is not None:
            self._connection.drain()
        self._end()

    def _end(self, error: BaseException | None = None) -> None:
        done = self._exchange.complete and not isinstance(self._error, JournalError)
        self.state = StreamState.DONE if done else StreamState.CLOSED
        self._let_go()
        self._attempts.ended(error, self._now())
        if self._recorder is not None:
            self._recorder.end(error)
            if self._recorder.owns and self._recorder not in self._abandoned:
                # It could not be let go of: the client's next stream tries again.
                self._abandoned.append(self._recorder)

    def _let_go(self) -> None:
        """Give back the connection and the permit."""
        # Each is forgotten when it is done: should a Ctrl-C come between, the next
        # close does the rest.
        if self._unregister is not None:
            self._unregister()
            self._unregister = None
        try:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            self._guard = None
        finally:
            if self._permit is not None:
                self._permit.release()
                self._permit = None

    @property
    def stream_id(self) -> str:
        """The stream's id, by which its pool knows it."""
        return self._exchange.stream_id

    def idle(self) -> float:
        """Return the seconds since the connection was last read from."""
        return self._now() - self._used_at

    def cancel(self) -> None:
        """End the answer for good: reading on raises `StreamCancelled`."""
        if not self._token.cancelled:
            self._ended_by = StreamCancelled
        self._stop()

    def close(self) -> None:
        """Let go: reading on raises `StreamClosed`, unless the answer is complete."""
        if self._exchange.complete:
            self._if_idle(self._drain)
        self._stop()

    def _stop(self) -> None:
        self._token.cancel()
        # In this order: a batch that holds a completion is held after it was made.
        untold = self._untold
        batch = self._batch
        if not self._exchange.complete:
            # What the reader has not taken yet it shall not get, and it will be told.
            # After a completion it must get it all: its loop will end cleanly.
            untold.clear()
            batch.clear()
        self._if_idle(self._leave)

    def _leave(self) -> None:
        self._end(self._ended() if self._token.cancelled else None)

    def _if_idle(self, work: Callable[[], None]) -> None:
        """Do this, unless a thread is reading: then that thread does, as it leaves."""
        taken: list[bool] = []
        try:
            keep(taken, self._reading.acquire, False)
            if True in taken:
                work()
        finally:
            if True in taken:
                self._reading.release()

    def dismiss(self) -> None:
        """Have the reading thread leave as after `close`; for finalisers: no lock."""
        self._token.cancel()

    def interrupt(self) -> None:
        """End the current attempt, from any thread; its exchange decides on another."""
        guard = self._guard
        if guard is not None:
            guard.stop()

    def _ended(self) -> StreamError:
        """Return the error for reading a stream that was cancelled or closed."""
        if self._ended_by is StreamCancelled:
            error: StreamError = StreamCancelled("the stream was cancelled")
        else:
            error = StreamClosed("the stream was closed before its answer was complete")
        guard = self._guard
        error.phase = guard.phase if guard else None
        return self._exchange.describe(error)

    def __del__(self) -> None:
        if not hasattr(self, "pending"):
            # An exception out of a signal handler struck in the midst of __init__.
            return
        if self._recorder is not None:
            self._recorder.drop()
        if self._attempts.open:
            self._attempts.abandon(self._now())
            self._abandoned.append(self._attempts)
        if self._permit is None and self._connection is None:
            return
        # This may run inside any allocation, in a thread that holds any lock: end the
        # TCP connection, so that the server knows, and queue the rest for the client's
        # next stream.
        if self._guard is not None:
            self._guard.stop()
        if self._connection is not None:
            self._abandoned.append(self._connection)
        if self._permit is not None:
            self._permit.release()
        if self._exchange.complete:
            return
        warnings.warn(
            f"stream {self._exchange.stream_id} was dropped before its end; use it in "
            "a 'with' block, or close it",
            ResourceWarning,
            source=self,
            stacklevel=2,
        )
