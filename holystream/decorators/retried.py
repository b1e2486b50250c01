"""A generator that goes on where it broke: what a decorated function returns.

`RetriedStream` calls the function again after a failure, with a `ResumePoint` that says
how far the caller has got. The loop's state lives in the `RetriedStream`, one for each
call of the function, so that the function can be shared by threads and a stream can be
handed from one to the next.

Invariants: an item is handed over once, in the order of the yields; only an `Exception`
that came out of the function by itself is tried again, never one that the caller threw
in, and nothing after a cancel; whatever leaves the stream has closed the function's
generator before.
"""

from __future__ import annotations

import collections
import dataclasses
import sys
import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from holystream.clocks import CancelToken, Deadline, SystemTime
from holystream.errors import StreamCancelled, StreamError, StreamInUse, Verdict
from holystream.resilience.progress import GiveUp
from holystream.wire.faults import chain_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TypeAlias

    from holystream.resilience.progress import RetryProgress, Wait
    from holystream.resilience.retry import RetryPolicy

Item = TypeVar("Item")
Sent = TypeVar("Sent")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ResumePoint:
    """How far the caller has got: what a retried generator function goes on from.

    Thread-safe, as it never changes.

    Attributes:
        attempt: The number of this attempt, from 1.
        count: Items that were yielded, by all attempts before this one.
        items: The last of them, as many as ``keep=`` says, oldest first.
        last_id: The last id that an item had; None if none had one.
        error: What ended the attempt before this one, without its traceback, whose
            frames would hold that attempt's response; None in the first.
        cancel: Cancelled when the stream is: ``cancel.on_cancel(response.close)`` or
            the like ends a wait that only the function knows of. Each attempt has its
            own.
    """

    attempt: int = 1
    count: int = 0
    items: tuple[Any, ...] = ()
    last_id: Any = None
    error: Exception | None = None
    cancel: CancelToken = dataclasses.field(
        default_factory=CancelToken, repr=False, compare=False
    )

    @property
    def last(self) -> Any:
        """The last item that was yielded; None if there was none, or it is not kept."""
        return self.items[-1] if self.items else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retrial:
    """How the calls of one decorated function are carried out.

    Attributes:
        policy: When to try again.
        id_of: Returns the id of an item, or None if it has none.
        keep: Items that a `ResumePoint` holds; None for all.
    """

    policy: RetryPolicy
    id_of: Callable[[Any], object]
    keep: int | None


Beginning: TypeAlias = "Callable[[ResumePoint], Generator[Item, Sent, Result]]"


class RetriedStream(Generator[Item, Sent, Result]):
    """The generator that a function under ``@retry_stream`` returns.

    One thread advances it at a time, not always the same; any thread may `cancel` it
    and read ``attempts``, ``count`` and ``waited``.

    Attributes:
        attempts: Calls of the function so far.
        count: Items handed over so far, those before a given `ResumePoint` included.
        waited: Seconds that the waits between attempts took, or would have taken.
    """

    _default_time: ClassVar[SystemTime] = SystemTime()
    _progress: RetryProgress  # made by the first advance: its time starts then

    def __init__(
        self,
        begin: Beginning[Item, Sent, Result],
        retrial: Retrial,
        start: ResumePoint,
    ) -> None:
        self.attempts = 1
        self.count = start.count
        self.waited = 0.0
        self._retrial = retrial
        self._id_of = retrial.id_of
        self._items = collections.deque(start.items, retrial.keep)
        self._last_id = start.last_id
        self._error: Exception | None = None
        self._time = RetriedStream._default_time
        self._token = CancelToken()
        # Held by the thread that advances or ends it; never waited for.
        self._advancing = threading.Lock()
        self._started = False
        self._failed_at = 0.0
        self._unlink: Callable[[], None] | None = None
        self._over = False
        self._begin = begin
        # Wrong arguments are complained of here, as any generator function does.
        self._inner = self._attempt()

    @property
    def point(self) -> ResumePoint:
        """How far it has got; for the thread that advances it.

        Given to another call as its ``resume`` argument, it makes that one go on here.
        """
        return self._point(CancelToken())

    def __next__(self) -> Item:
        """Return the next item.

        Raises:
            StopIteration: The function returned; ``value`` is what it returned.
            StreamCancelled: `cancel` was called.
            StreamInUse: Another thread is advancing it.
            Exception: What the function raised and is not tried again.
        """
        return self._advance(None, None)

    def send(self, value: Sent | None) -> Item:
        """Resume the function's ``yield`` with ``value``; return the next item.

        If the function fails before it yields again, the next attempt begins from its
        `ResumePoint`: ``value`` is not sent a second time.
        """
        if value is not None and not self._started:
            raise TypeError("can't send non-None value to a just-started generator")
        return self._advance(value, None)

    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: object = None,
        tb: TracebackType | None = None,
    ) -> Item:
        """Raise an exception at the function's ``yield``; return the next item.

        If it comes out again, or another one raised because of it, the stream is over:
        whoever throws means to be heard, so it is not tried again.
        """
        try:
            return self._advance(None, _thrown(typ, val, tb))
        finally:
            del typ, val, tb  # a raised exception holds this frame: do not hold it too

    def close(self) -> None:
        """Close the function's generator and end the stream; nothing is tried again.

        While another thread advances the stream it cannot be closed under its hands:
        then this is `cancel`.
        """
        if not self._end_if_idle():
            self.cancel()

    def cancel(self) -> None:
        """End the stream, from any thread: advancing it raises `StreamCancelled`.

        A wait between two attempts ends at once. A function that is running is told by
        ``ResumePoint.cancel``; its generator is closed when it next yields, fails or,
        if nobody advances the stream, now. A stream that is over stays as it is.
        """
        if not self._over:
            self._token.cancel()
            self._end_if_idle()

    def __repr__(self) -> str:
        return f"<RetriedStream attempts={self.attempts} count={self.count}>"

    def _advance(self, value: Sent | None, thrown: BaseException | None) -> Item:
        if not self._advancing.acquire(blocking=False):
            raise StreamInUse(
                "another thread is advancing this stream: one does, any may cancel"
            )
        # What the caller is handling is the context of whatever is raised below.
        handled = sys.exception()
        try:
            self._check(thrown)
            while True:
                try:
                    if thrown is None:
                        item = self._inner.send(value)  # type: ignore[arg-type]  # None
                    else:
                        item = self._inner.throw(thrown)
                except StopIteration:
                    # A body whose socket was shut down ends as a whole one does.
                    self._check_cancelled()
                    raise
                except Exception as error:
                    wait = self._failed(error, thrown)
                    if wait is None:
                        raise
                    _let_go_of_frames(error, handled)
                    self._error = error
                else:
                    self._note(item)
                    return item
                value = thrown = None
                self._again(wait)
        except BaseException:
            self._end()
            raise
        finally:
            del thrown, handled  # a raised exception holds this frame
            self._advancing.release()
            # A cancel that found it being advanced left the rest to us.
            if self._token.cancelled:
                self._end_if_idle()

    def _check(self, thrown: BaseException | None) -> None:
        """Refuse to advance what is over; make a beginning."""
        self._check_cancelled()
        if self._over:
            raise StopIteration if thrown is None else thrown
        if not self._started:
            self._started = True
            policy, time = self._retrial.policy, self._time
            self._progress = policy.start(time.now(), time.rng)

    def _note(self, item: Item) -> None:
        """Take note of what is about to be handed over."""
        self._check_cancelled()
        item_id = self._id_of(item)
        if item_id is not None:
            self._last_id = item_id
        self._items.append(item)
        self.count += 1
        if self._error is not None:
            self._progress.progressed(self._time.now())

    def _failed(self, error: Exception, thrown: BaseException | None) -> Wait | None:
        """Say what follows a failure; None if it is to be raised."""
        if self._token.cancelled:
            raise self._cancelled() from error
        if thrown is not None and any(link is thrown for link in chain_of(error)):
            return None
        self._failed_at = now = self._time.now()
        decision = self._progress.failed(error, now, Deadline())
        if not isinstance(decision, GiveUp):
            return decision
        if isinstance(error, StreamError) and error.verdict is not Verdict.FATAL:
            error.exhausted = True
        error.add_note(
            f"retry_stream gave up in attempt {self.attempts}: {decision.reason} "
            f"(items handed over: {self.count})"
        )
        return None

    def _again(self, wait: Wait) -> None:
        """Wait, and begin the next attempt."""
        self.waited += wait.delay
        self._time.sleep(wait.delay, self._failed_at, self._token)
        self._check_cancelled()
        self.attempts += 1
        self._inner = self._attempt()
        self._progress.connected(self._time.now())

    def _attempt(self) -> Generator[Item, Sent, Result]:
        token = CancelToken()
        if self._unlink is not None:
            self._unlink()
        self._unlink = self._token.on_cancel(token.cancel)
        return self._begin(self._point(token))

    def _point(self, token: CancelToken) -> ResumePoint:
        return ResumePoint(
            attempt=self.attempts,
            count=self.count,
            items=tuple(self._items),
            last_id=self._last_id,
            error=self._error,
            cancel=token,
        )

    def _end_if_idle(self) -> bool:
        """End it unless it is being advanced: then the thread that does so will."""
        if not self._advancing.acquire(blocking=False):
            return False
        try:
            self._end()
        finally:
            self._advancing.release()
        return True

    def _end(self) -> None:
        if not self._over:
            self._over = True
            del self._begin  # which holds the arguments
        unlink, self._unlink = self._unlink, None
        if unlink is not None:
            unlink()
        self._inner.close()

    def _check_cancelled(self) -> None:
        if self._token.cancelled:
            raise self._cancelled() from None

    def _cancelled(self) -> StreamCancelled:
        error = StreamCancelled("the stream was cancelled")
        error.attempts = self.attempts
        return error


def _thrown(
    typ: type[BaseException] | BaseException, val: object, tb: TracebackType | None
) -> BaseException:
    """Read what `throw` takes, in its old form too."""
    if isinstance(typ, BaseException):
        error = typ
    elif isinstance(val, BaseException):
        error = val
    else:
        error = typ() if val is None else typ(val)
    if not isinstance(error, BaseException):
        raise TypeError("exceptions must derive from BaseException")
    return error if tb is None else error.with_traceback(tb)


def _let_go_of_frames(error: Exception, handled: BaseException | None) -> None:
    """Take off tracebacks: their frames keep the failed attempt's response alive.

    Those of ``handled``, which the caller was handling before, are the caller's own.
    """
    for link in chain_of(error, without=handled):
        link.__traceback__ = None
