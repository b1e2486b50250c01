"""Runs streams to their ends: the interface, and a runner that has a thread for each.

A thread waits for its permit in the client's pool like anybody else, so a map takes no
more connections than it may, and at most as many places in the queue as it has threads.

Nothing here knows the `Map` that its caller holds: dropped unread, it must be free to
be collected, and its finaliser calls `Runner.abandon`.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import math
import threading
import time as system
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from holystream.clocks import CancelToken
from holystream.driven import StreamState
from holystream.errors import (
    PoolError,
    QueueFull,
    RateLimited,
    StreamCancelled,
    StreamClosed,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holystream.clocks import SystemTime
    from holystream.events import Completion
    from holystream.stream import Stream

    Begin: TypeAlias = Callable[[], Stream]
    Tell: TypeAlias = Callable[[Completion | BaseException], object]

_log = logging.getLogger("holystream")

_LEAVING: Final = 5.0
"""Seconds in which threads that were told to leave have left."""

_FULL: Final = 0.1
"""Seconds until another look, where the pool's queue was full."""

_EARLY: Final = 0.1
"""The share by which a pool lets a wait end early, unless it was told otherwise."""

_HOLDING: Final = (StreamState.CONNECTING, StreamState.STREAMING)
"""What a stream that has a permit does."""


class Runner(Protocol):
    """Runs the streams of one map. One thread submits and closes; any may cancel."""

    def submit(self, begin: Begin, tell: Tell) -> None:
        """Run one stream to its end, as soon as there is room.

        Args:
            begin: Makes the stream; may be called again where it had no permit. What
                it raises is the end.
            tell: Is told of the end, once, in any thread: the completion or the error.

        Raises:
            RuntimeError: It never will, for there is no thread to be had; nobody is
                told.
        """
        ...

    def cancel(self) -> None:
        """End all of them for good, from any thread; each end is told."""
        ...

    @property
    def answering(self) -> bool:
        """Whether one of them is in the midst of its answer."""
        ...

    @property
    def kept_off(self) -> bool:
        """Whether one of them waits because a host asked for that."""
        ...

    @property
    def starved(self) -> PoolError | None:
        """Why one gave up waiting for a permit, unless another had one since."""
        ...

    def close(self) -> None:
        """Let go of all of them and of the threads; safe to call again."""
        ...

    def abandon(self) -> None:
        """Let go of all of them, out of a finaliser: without a lock or a wait."""
        ...


class ThreadRunner:
    """A thread for each stream that runs, started when it is first needed.

    The threads are daemons: a program that ends does not wait for them.

    Args:
        limit: Threads at most.
        patience: Seconds to go on asking for a permit while no stream of this runner
            gets one; the pool's jitter makes them fewer.
        has_room: Says whether the pool has a permit, or a place in its queue.
        time: Tells the clock.
    """

    def __init__(
        self,
        limit: int,
        *,
        patience: float,
        has_room: Callable[[], bool],
        time: Callable[[], SystemTime],
    ) -> None:
        self._limit = limit
        self._patience = patience * (1 - _EARLY)
        self._has_room = has_room
        self._time = time
        # When a stream was last seen to have a permit, or to have had one.
        self._served = -math.inf
        self._starved: PoolError | None = None
        self._token = CancelToken()
        # How streams are ended; set before the token is cancelled, and not again.
        self._end: Callable[[Stream], None] = _close
        self._ended_by: type[StreamCancelled | StreamClosed] = StreamClosed
        self._jobs: SimpleQueue[tuple[contextvars.Context, Begin, Tell] | None] = (
            SimpleQueue()
        )
        # The submitting thread's own.
        self._threads: list[threading.Thread] = []
        # Those that threads are reading. Each step with it is a single one.
        self._running: set[Stream] = set()

    @property
    def answering(self) -> bool:
        """Whether one of them is in the midst of its answer."""
        running = list(self._running)
        return any(stream.state is StreamState.STREAMING for stream in running)

    @property
    def kept_off(self) -> bool:
        """Whether one of them waits because a host asked for that."""
        return any(map(_is_kept_off, list(self._running)))

    @property
    def starved(self) -> PoolError | None:
        """Why one gave up waiting for a permit, unless another had one since."""
        return self._starved

    def submit(self, begin: Begin, tell: Tell) -> None:
        """Run one stream to its end, as soon as there is room."""
        # Before it is queued: where there is no thread at all, nobody may do it later.
        if len(self._threads) < self._limit:
            self._start()
        self._jobs.put((contextvars.copy_context(), begin, tell))

    def _start(self) -> None:
        thread = threading.Thread(
            target=self._work,
            name=f"holystream-map-{len(self._threads) + 1}",
            daemon=True,
        )
        # Before it is started: a Ctrl-C in the midst of that must not lose it.
        self._threads.append(thread)
        try:
            thread.start()
        except RuntimeError:
            self._threads.remove(thread)
            if not self._threads:
                raise
            # The system has no more threads: those that there are do the work.
            self._limit = len(self._threads)

    def cancel(self) -> None:
        """End all of them for good, from any thread; each end is told."""
        if not self._token.cancelled:
            self._end, self._ended_by = _cancel, StreamCancelled
        self._token.cancel()

    def close(self) -> None:
        """Let go of all of them and of the threads; safe to call again."""
        self._token.cancel()
        self._jobs.put(None)
        until = system.monotonic() + _LEAVING
        for thread in self._threads:
            # One that was interrupted before it began never will; one of ours may
            # close its own map, in a callback.
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(max(0.0, until - system.monotonic()))
                if thread.is_alive():
                    _log.warning("%s is held up by a callback", thread.name)

    def abandon(self) -> None:
        """Let go of all of them, out of a finaliser: without a lock or a wait."""
        if not self._token.cancelled:
            self._end = _dismiss
        self._token.cancel()
        self._jobs.put(None)

    def _work(self) -> None:
        """Run one stream after the other; what each thread does."""
        while True:
            job = self._jobs.get()
            if job is None:
                # There for all threads, however many there are.
                self._jobs.put(None)
                return
            context, begin, tell = job
            try:
                end: Completion | BaseException = context.run(self._finish, begin)
            except BaseException as error:  # noqa: BLE001 - it is told
                end = error
            if not isinstance(end, PoolError):
                self._served, self._starved = self._now(), None
            tell(end)
            # What was told is no longer ours, nor what its frames hold.
            del job, context, begin, tell, end

    def _finish(self, begin: Begin) -> Completion:
        """Run one stream to its end, however long it takes to get a permit.

        A map is meant to be patient: while one of its streams has a permit, the next
        one will. While none has, it may be for ever.
        """
        waited = 0.0
        while True:
            with contextlib.ExitStack() as stack:
                stream = self._begun(stack, begin)
                try:
                    return stream.get_final_completion()
                except PoolError as error:
                    # Not what it waited for before, such as a breaker.
                    queued = stream._driver.idle()  # noqa: SLF001 - as below
                    waited = self._unserved(waited + queued)
                    if waited >= self._patience:
                        # Without the frames that a traceback would keep.
                        self._starved = type(error)(error.message)
                        raise
                    full = isinstance(error, QueueFull)
            while full and not self._token.cancelled and waited < self._patience:
                # To be refused again and again would look like many callers.
                self._time().sleep(_FULL, self._now(), self._token)
                waited += _FULL
                full = not self._has_room()

    def _begun(self, stack: contextlib.ExitStack, begin: Begin) -> Stream:
        """Return a stream that can be ended from outside."""
        if self._token.cancelled:
            raise self._ended_by("the map was ended before this item was begun")
        stream = stack.enter_context(begin())
        stack.callback(self._token.on_cancel(lambda: self._end(stream)))
        self._running.add(stream)
        stack.callback(self._running.discard, stream)
        return stream

    def _unserved(self, waited: float) -> float:
        """Return in how many of the last seconds no stream had a permit."""
        now = self._now()
        if any(stream.state in _HOLDING for stream in list(self._running)):
            self._served = now
        return min(waited, now - self._served)

    def _now(self) -> float:
        return self._time().now()


def _cancel(stream: Stream) -> None:
    stream.cancel()


def _close(stream: Stream) -> None:
    stream.close()


def _is_kept_off(stream: Stream) -> bool:
    """Whether a host asked a stream to wait, or all that might take it asked others."""
    exchange = stream._exchange  # noqa: SLF001 - as below
    wait = exchange.wait
    return wait is not None and (
        wait.reason == "server hint" or isinstance(exchange.fault_error, RateLimited)
    )


def _dismiss(stream: Stream) -> None:
    stream._driver.dismiss()  # noqa: SLF001 - no part of what a caller may do
