"""Where records go: they are counted, and handed to hooks.

Records come from anywhere: from any thread, from a signal handler, from the garbage
collector in the middle of our own work. So handing one in is a single append, which
waits for nobody; the counting is done for many at once, by whoever finds nobody at it.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import math
import os
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

from holystream.errors import ConfigurationError
from holystream.gapless import keep
from holystream.telemetry.records import AttemptRecord, StreamRecord
from holystream.telemetry.tally import Ledger, Opened

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from holystream.telemetry.metrics import Metrics
    from holystream.telemetry.tally import Note

    Hook: TypeAlias = Callable[[AttemptRecord | StreamRecord], object]
    OpenedHook: TypeAlias = Callable[[str, str, str], object]

Due: TypeAlias = "dict[type[Note], bool]"
"""Which notes of one stream or of one attempt are still to be handed in."""
BATCH: Final = 256
"""Records that wait before they are counted; more if somebody is counting."""
_log = logging.getLogger("holystream")


class Telemetry:
    """Counts attempts and streams, and tells hooks of them. Thread-safe.

    No method waits for a hook or for another thread, but `metrics` and `active`, which
    wait while another one counts. A forked child counts from zero, keeps the hooks, and
    says nothing of the end of streams that its parent opened.

    Args:
        clock: Seconds since 1970, as in `StreamRecord.started_at`.
        batch: Records that wait before they are counted.
    """

    __slots__ = (
        "__weakref__",
        "_batch",
        "_clock",
        "_counting",
        "_hooks",
        "_ledger",
        "_lock",
        "_since",
        "_taken",
        "_telling",
        "_waiting",
    )

    def __init__(
        self, *, clock: Callable[[], float] = time.time, batch: int = BATCH
    ) -> None:
        self._clock = clock
        self._batch = batch
        # Each of its methods is one step: an append here, a removal there.
        self._hooks: dict[object, tuple[Hook, OpenedHook | None]] = {}
        self._begin(-math.inf)
        _alive.add(self)

    def _begin(self, since: float) -> None:
        """Count from zero the streams that were opened ``since``."""
        self._since = since
        # Whoever has the lock takes from it; anybody appends to it.
        self._waiting: deque[Note] = deque()
        # What threads that are in a hook have to tell next, by thread; each touches its
        # own alone.
        self._telling: dict[int, deque[tuple[int, tuple[object, ...]]]] = {}
        # Guards everything below. The thread that counts may come again: a signal
        # handler asks for metrics.
        self._lock = threading.RLock()
        self._counting = False
        self._taken: list[Note] = []
        self._ledger = Ledger()

    def opened(
        self, provider: str, endpoint: str, model: str, due: Due | None = None
    ) -> None:
        """Count a stream as open, until `stream` is told of its end.

        Args:
            provider: The provider's name; the stream's record must have the same.
            endpoint: The name of an endpoint, where it may go first.
            model: The model that is asked for; the stream's record must have the same.
            due: What `due_of_a_stream` returned, kept by whoever tells of the stream:
                should an exception out of a signal handler strike him, he may tell
                again, and nothing is counted twice. So for the records.
        """
        if self._hand_in(Opened(provider, endpoint, model), due) and self._hooks:
            self._tell(1, provider, endpoint, model)

    def attempt(self, record: AttemptRecord, due: Due | None = None) -> None:
        """Count an attempt that has ended, and tell the hooks."""
        if self._hand_in(record, due) and self._hooks:
            self._tell(0, record)

    def stream(self, record: StreamRecord, due: Due | None = None) -> None:
        """Count a stream that has ended, and tell the hooks: once for each opened."""
        if record.started_at < self._since:
            # The parent's, which tells of it.
            if due is not None:
                due.clear()
            return
        if self._hand_in(record, due) and self._hooks:
            self._tell(0, record)

    def metrics(self) -> Metrics:
        """Return what was counted: all that was handed in before, and as of one moment.

        Asked by a signal handler that struck while its own thread was counting, it may
        be the moment before.
        """
        return self._counted().metrics()

    def active(self) -> dict[tuple[str, str], int]:
        """Return `Metrics.active_by_model`, and nothing else: it is quick."""
        return self._counted().active()

    def _counted(self) -> Ledger:
        with self._lock:
            self._count()
            return self._ledger

    def add_hook(
        self, hook: Hook, *, opened: OpenedHook | None = None
    ) -> Callable[[], None]:
        """Have ``hook`` called with each record from now on.

        It is called by the thread that ended the attempt or the stream, which waits for
        it: it should be quick. Several threads may be in it at once, but none twice:
        what a signal handler ends meanwhile is told next. What it raises is logged, and
        harms nobody.

        Args:
            hook: Gets each record.
            opened: Gets provider, endpoint and model of each stream that is opened.

        Returns:
            Removes the hook; may be called again.

        Raises:
            ConfigurationError: One of them cannot be called so.
        """
        return self.set_hook(object(), hook, opened=opened)

    def set_hook(
        self, key: Hashable, hook: Hook, *, opened: OpenedHook | None = None
    ) -> Callable[[], None]:
        """Do as `add_hook`, in the place of what was set by an equal key before.

        For exporters: one that is attached twice would count everything twice.

        Returns:
            Removes what is set by the key; may be called again.

        Raises:
            ConfigurationError: One of them cannot be called so.
        """
        _check_call("hook", hook, "record")
        if opened is not None:
            _check_call("opened=", opened, "provider", "endpoint", "model")
        self._hooks[key] = (hook, opened)

        def remove() -> None:
            self._hooks.pop(key, None)

        return remove

    def _hand_in(self, note: Note, due: Due | None) -> bool:
        """Have a note counted, unless it is not due any more."""
        waiting = self._waiting
        if due is None:
            waiting.append(note)
        elif type(note) not in due:
            return False
        else:
            # Taken off what is due and appended in one instruction: no signal handler
            # sees the one without the other.
            taken = itertools.starmap(due.pop, ((type(note), False),))
            waiting.extend(itertools.compress((note,), taken))
        if len(waiting) >= self._batch:
            self._try_to_count()
        return True

    def _try_to_count(self) -> None:
        """Count what waits, unless another thread is at it."""
        locked: list[bool] = []
        try:
            keep(locked, self._lock.acquire, False)
            if locked[0]:
                self._count()
        finally:
            # No call before it: a signal handler could raise there.
            if locked and locked[0]:
                self._lock.release()

    def _count(self) -> None:
        """Count what waits; with the lock held."""
        if self._counting:
            return  # we have struck ourselves: it goes on when we return
        try:
            self._counting = True
            # All in this instruction: none is lost to a signal between two.
            calls = itertools.repeat((), len(self._waiting))
            self._taken += itertools.starmap(self._waiting.popleft, calls)
            ledger = self._ledger.after(self._taken)
            # No signal handler runs between the two: nothing is counted twice.
            self._ledger, self._taken = ledger, []
        finally:
            self._counting = False

    def _tell(self, which: int, *what: str | AttemptRecord | StreamRecord) -> None:
        """Call all hooks, or later if this thread is in one of them.

        A signal handler may strike in a hook, and end a stream: a hook with a lock
        would wait for itself for ever.
        """
        thread = threading.get_ident()
        waiting = self._telling.get(thread)
        if waiting is not None:
            waiting.append((which, what))
            return
        waiting = deque([(which, what)])
        while waiting:
            try:
                self._telling[thread] = waiting
                each, told = waiting.popleft()
                for hooks in self._hooks.copy().values():
                    _call(hooks[each], told)
            finally:
                self._telling.pop(thread, None)

    def after_fork_in_child(self) -> None:
        """Begin anew: what was counted is the parent's, and so are the open streams."""
        self._begin(self._clock())

    def __repr__(self) -> str:
        return f"<Telemetry with {len(self._hooks)} hooks>"


def due_of_a_stream() -> Due:
    """Return what is to be told of a stream that opens: its opening and its end."""
    return {Opened: True, StreamRecord: True}


def due_of_an_attempt() -> Due:
    """Return what is to be told of an attempt: its end."""
    return {AttemptRecord: True}


def checked(telemetry: object) -> Telemetry:
    """Return the telemetry that an exporter is to be attached to.

    Raises:
        ConfigurationError: It is something else.
    """
    if isinstance(telemetry, Telemetry):
        return telemetry
    raise ConfigurationError(
        "what tells of streams is a client's telemetry: pass client.telemetry, not "
        f"a {type(telemetry).__name__}"
    )


def _check_call(name: str, hook: object, *arguments: str) -> None:
    """Refuse at once what would fail at each stream, and be logged at most."""
    if callable(hook):
        try:
            # As it is called: what a decorator wraps may take something else.
            signature = inspect.signature(hook, follow_wrapped=False)
        except (TypeError, ValueError):
            return  # written in C, and says nothing
        try:
            signature.bind(*arguments)
        except TypeError as error:
            why = str(error)
        else:
            return
    else:
        why = f"{type(hook).__name__} is not callable"
    raise ConfigurationError(
        f"a telemetry {name} is called with ({', '.join(arguments)}): {why}"
    )


def _call(hook: Callable[..., object] | None, what: tuple[object, ...]) -> None:
    if hook is None:
        return
    try:
        hook(*what)
    except Exception:  # noqa: BLE001 - whatever it was
        _log.exception("a telemetry hook failed; the stream goes on")


_alive: weakref.WeakSet[Telemetry] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for telemetry in list(_alive):
        telemetry.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
