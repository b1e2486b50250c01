"""What the caller of `Client.map` holds: the results, as he asks for them.

Nothing is done ahead of him but a little: prompts are pulled in the caller's own thread
while he asks for a result, and the streams run in those of a `Runner`. Each prompt that
was pulled has one result, whatever becomes of it, and what ends the results early
raises once they have all been handed over; only `Map.close` lets go of them. A host
that never comes back, or never has room, is such an end, and so is a pool whose permits
others keep: the streams wait for it, and somebody must not.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import warnings
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Self

from holystream.errors import (
    CircuitOpen,
    PoolError,
    StreamCancelled,
    StreamClosed,
    StreamError,
    StreamInUse,
)
from holystream.events import Completion
from holystream.gapless import keep
from holystream.mapping.items import MapItem, MapResult
from holystream.resilience.circuit import VOTES, Vote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import TypeAlias

    from holystream.mapping.items import Prompt
    from holystream.mapping.orders import Order
    from holystream.mapping.progress import Bar
    from holystream.mapping.runner import Runner
    from holystream.stream import Stream

    # An item's index, the item, and its end; None only wakes the reader.
    _End: TypeAlias = tuple[int, MapItem, Completion | BaseException] | None

AHEAD = 2
"""Prompts that are pulled at most and not handed over, for each stream at a time: so
many that the streams go on while the caller is busy with a result."""

OUTAGE: Final = 1800.0
"""Seconds of waiting, without the end of an item that a host had a part in, after which
a map ends. A breaker asks again every ten minutes at the latest."""

LATER: Final[Any] = object()
"""What prompts of our own yield that have none now: results are handed over meanwhile,
and `Map._wake` has the prompts asked again."""

_OUT_OF_REACH: Final = (
    "",
    "See why the last of them failed, and ask the others again when the host is back",
)
_KEPT_OFF: Final = (
    ", for a host asks to wait",
    "Ask the others again when its limit allows it, and fewer at a time",
)
"""What a map that gave up says: why, and what to do."""

_IN_USE: Final = "another thread is iterating this map: one does, any may cancel"


class Map:
    """The results of many prompts: an iterator and a context manager.

    Nothing is asked before the first result is. One thread iterates it at a time; any
    thread may read its properties, `cancel` or `close` it. It must be closed, which
    ``with`` does; iterating to the end closes it as well. It stays in its process: a
    forked child cannot iterate it.

    Attributes:
        map_id: What the ids of its streams begin with; a dot and the index follow.
        total: How many prompts there are, or None where they do not say.
    """

    def __init__(
        self,
        prompts: Iterator[Prompt | MapItem],
        *,
        begin: Callable[[int, MapItem], Stream],
        runner: Runner,
        concurrency: int,
        slack: Callable[[MapItem], float],
        order: Order,
        on_progress: Callable[[int, int, int | None], object] | None,
        bar: Bar | None,
        total: int | None,
        map_id: str,
    ) -> None:
        self.map_id = map_id
        self.total = total
        self._begin = begin
        self._runner = runner
        self._concurrency = concurrency
        # Seconds that are no outage yet beyond `OUTAGE`: an item may be silent so long.
        self._slack_of = slack
        self._slack = 0.0
        self._on_progress = on_progress
        self._bar = bar
        self._process = os.getpid()
        # Held by the thread that iterates; nobody waits for it.
        self._iterating = threading.Lock()
        # From the runner's threads, and from whoever sets `_closed`.
        self._ends: SimpleQueue[_End] = SimpleQueue()
        # Set by any thread, and never unset.
        self._cancelled = False
        self._closed = False
        # The rest is the iterating thread's own; others may read the counts.
        self._prompts: Iterator[Prompt | MapItem] | None = prompts
        self._error: Exception | None = None
        self._order = order
        self._pulled = 0
        self._done = 0
        self._failed = 0
        self._handed = 0
        self._cut = False
        # Seconds waited since a host last had a part in the end of an item.
        self._in_vain = 0.0
        self._gave_up = False
        # When it gave up: what a stream met that had no permit; a host asked for quiet.
        self._starved: PoolError | None = None
        self._kept_off = False
        self._over = False
        # Whoever ended it, it needs no finaliser.
        self._released = False

    @property
    def done(self) -> int:
        """Items that have an answer, handed over or not."""
        return self._done

    @property
    def failed(self) -> int:
        """Items that ended without one."""
        return self._failed

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> MapResult:
        """Return the next result, and keep the streams busy meanwhile.

        Raises:
            StopIteration: All prompts have had their results.
            StreamCancelled: It was cancelled, and all it had begun is handed over.
            StreamClosed: It was closed.
            CircuitOpen: No item was answered for half an hour, or for the seconds of
                ``first_token`` if those are more, because no host could be reached or
                all of them asked for quiet; as if cancelled then.
            PoolError: None of its streams had a permit for ``Timeouts.queue`` seconds;
                as if cancelled then.
            StreamInUse: Another thread is iterating it.
            Exception: What the prompts raised, behind the results of those before, or
                ``on_progress``; after the latter it can be iterated on. A
                `RuntimeError` where the system has no thread for a single stream.
        """
        if os.getpid() != self._process:
            raise StreamClosed(
                "this map belongs to the process that forked: make another one here"
            )
        taken: list[bool] = []
        try:
            keep(taken, self._iterating.acquire, False)
            if True not in taken:
                raise StreamInUse(_IN_USE)  # noqa: TRY301 - released by this `finally`
            return self._next()
        except Exception:
            raise
        except BaseException:
            # Ctrl-C, wherever it struck: nothing is sent on behalf of who has left.
            self.close()
            raise
        finally:
            if True in taken:
                self._iterating.release()

    def _next(self) -> MapResult:
        while True:
            self._check_open()
            while not self._ends.empty():
                self._receive()
            hungry = self._may_pull and self._unfinished < self._concurrency
            if hungry and self._pull():
                continue
            result = self._order.take()
            if result is not None:
                self._handed += 1
                return result
            if self._may_pull:
                if not self._pull():
                    self._receive()
            elif self._handed == self._pulled:
                self._finish()
            else:
                self._receive()

    @property
    def _patience(self) -> float:
        """Seconds after which waiting in vain is an outage."""
        return OUTAGE + self._slack

    @property
    def _unfinished(self) -> int:
        return self._pulled - self._done - self._failed

    @property
    def _may_pull(self) -> bool:
        return (
            self._prompts is not None
            and not (self._cancelled or self._gave_up)
            and self._pulled - self._handed < AHEAD * self._concurrency
        )

    def _pull(self) -> bool:
        """Take a prompt and have it asked; return False if there is none yet."""
        if not self._pulled:
            self._show()
        assert self._prompts is not None, "looked at before"  # noqa: S101 - an invariant
        try:
            given: Any = next(self._prompts)
        except StopIteration:
            self._prompts = None
            return True
        except Exception as error:  # noqa: BLE001 - raised when its turn has come
            self._prompts = None
            self._error = error
            return True
        if given is LATER:
            return False
        item = given if isinstance(given, MapItem) else MapItem(given)
        self._slack = max(self._slack, self._slack_of(item))
        index = self._pulled
        # Neither of these holds the map: it must be free to be collected.
        tell = functools.partial(_tell, self._ends, index, item)
        try:
            self._runner.submit(functools.partial(self._begin, index, item), tell)
        except RuntimeError as error:
            # There is not one thread. No other prompt must be asked under its number.
            self._prompts = None
            self._error = error
            return True
        self._pulled += 1
        return True

    def _wake(self) -> None:
        """Have prompts asked again that had none; from any thread."""
        self._ends.put(None)

    def _receive(self) -> None:
        """Wait for the end of an item, if none is there."""
        ends: list[_End] = []
        began = time.monotonic()
        # Without an item under way it is the prompts that are waited for.
        patient = self._gave_up or not self._unfinished
        left = None if patient else max(0.0, self._patience - self._in_vain)
        try:
            keep(ends, self._ends.get, True, left)
        except Empty:
            ends.append(None)
        if not patient:
            self._in_vain += time.monotonic() - began
        (found,) = ends
        if found is not None and not _is_outage(found[2]):
            self._in_vain = 0.0
        starved = self._runner.starved
        if not self._gave_up and (starved or self._in_vain >= self._patience):
            self._give_up(starved)
        if found is None:
            return
        index, item, end = found
        if isinstance(end, Completion):
            self._done += 1
            result = MapResult(index=index, item=item, completion=end)
        else:
            self._failed += 1
            self._cut = self._cut or isinstance(end, StreamCancelled)
            result = MapResult(index=index, item=item, error=end)
        # First, so that nothing is lost by what a callback raises.
        self._order.add(result)
        self._show()
        if self._on_progress is not None:
            try:
                self._on_progress(self._done, self._failed, self.total)
            except StopIteration as error:
                # To a `for` loop it would be the end of the results.
                raise RuntimeError("on_progress raised StopIteration") from error

    def _show(self) -> None:
        """Move the bar."""
        if self._bar is None:
            return
        self._bar.show(self._done, self._failed)
        if self._released:
            # Whoever closed the map meanwhile closed the bar before this opened it.
            self._bar.close()

    def _give_up(self, starved: PoolError | None) -> None:
        """Wait no longer for a host or a permit, unless an answer is under way."""
        if self._runner.answering:
            self._in_vain = 0.0
        else:
            self._gave_up = True
            self._starved = starved
            self._kept_off = self._runner.kept_off
            self._runner.cancel()

    def _finish(self) -> None:
        """End the iteration: everything was handed over."""
        if self._cancelled and (self._cut or self._prompts is not None):
            self._let_go()
            raise StreamCancelled(
                f"the map was cancelled; {self._handed} results were handed over"
            )
        if self._error is not None:
            self._let_go()
            raise self._error
        if self._gave_up and (self._cut or self._prompts is not None):
            self._let_go()
            if self._starved is not None:
                raise type(self._starved)(
                    f"the map ended after {self._handed} results, for others keep all "
                    f"permits: {self._starved.message}"
                )
            why, then = _KEPT_OFF if self._kept_off else _OUT_OF_REACH
            raise CircuitOpen(
                f"no item was answered in {self._patience / 60:g} minutes{why}: the "
                f"map waits no longer; {self._handed} results were handed over. {then}"
            )
        self._over = True
        self._let_go()
        raise StopIteration

    def _check_open(self) -> None:
        if self._over:
            raise StopIteration
        if self._closed:
            raise StreamClosed(
                f"the map was closed after {self._handed} results, and hands over no "
                "more: ask what is left in another one"
            )

    def cancel(self) -> None:
        """End all items for good, from any thread.

        No more prompts are pulled. Those that were have their results still: the ones
        that were cut short a `StreamCancelled` with what was received. Behind them,
        the next step raises `StreamCancelled`. Harmless once the map has ended.
        """
        if os.getpid() == self._process:
            self._cancelled = True
            self._runner.cancel()
            self._wake()

    def close(self) -> None:
        """Let go of all items and threads, from any thread; safe to call again.

        What a journal has of an item can be gone on with. What was not handed over is
        dropped; iterating on raises `StreamClosed` unless the map was at its end.
        """
        if os.getpid() == self._process:
            self._closed = True
            self._wake()
            self._let_go()

    def _unread(self) -> Iterator[MapResult]:
        """Close it; yield the whole answers that had come, in the iterating thread."""
        self.close()
        while not self._ends.empty():
            self._receive()
        while (result := self._order.take()) is not None:
            if result.ok:
                yield result

    def _let_go(self) -> None:
        self._released = True
        self._runner.close()
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Without a lock: this may run inside any allocation, whatever the thread holds.
        if getattr(self, "_released", True) or not self._pulled:
            return
        if os.getpid() != self._process:
            return
        self._runner.abandon()
        if self._bar is not None:
            # Nobody else has it. That of rich would keep the cursor, and stdout.
            self._bar.close()
        warnings.warn(
            f"map {self.map_id} was dropped before its end; use it in a 'with' block, "
            "or close it",
            ResourceWarning,
            source=self,
            stacklevel=2,
        )

    def __repr__(self) -> str:
        of = "" if self.total is None else f" of {self.total}"
        return f"<Map {self.map_id} {self._done} done, {self._failed} failed{of}>"


def _is_outage(end: Completion | BaseException) -> bool:
    """Whether an item ended without a word from a host."""
    return (
        isinstance(end, StreamError)
        and not isinstance(end, PoolError)
        and not end.partial_text
        and VOTES[end.verdict] is Vote.FAILURE
    )


def _tell(
    ends: SimpleQueue[_End],
    index: int,
    item: MapItem,
    end: Completion | BaseException,
) -> None:
    ends.put((index, item, end))
