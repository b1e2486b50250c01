"""Time and cancellation: the limits, the clocks that run while we wait, the token.

All times are monotonic seconds. Timeouts are relative; a `Deadline` is absolute. The
clocks of an attempt run only while its thread waits in a read: the time that a caller
takes to look at what arrived is the caller's own.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
import random
import threading
import time
from typing import TYPE_CHECKING

from holystream.errors import ConfigurationError
from holystream.gapless import keep, unlock

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST = 1e9
"""The longest time that can be set, in seconds: some thirty years."""
TAIL = 5.0
"""Seconds to wait for usage and ``[DONE]`` once every choice has its finish reason."""
LOOK = 1.0
"""Seconds, more or less, after which a sleeper looks whether it may get up."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Bounds on every wait of a stream, in seconds.

    Attributes:
        connect: Name resolution, all addresses and the TLS handshake together.
        first_token: From the request to the first content, the headers included: a
            queue or hidden reasoning may be silent for minutes.
        idle: Silence, not one byte, once content has come.
        token_idle: No content once content has come, whatever pings arrive.
        queue: A place in the connection pool's queue.

    Raises:
        ConfigurationError: A value is not a positive, finite number.
    """

    connect: float = 5.0
    first_token: float = 300.0
    idle: float = 60.0
    token_idle: float = 120.0
    queue: float = 60.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            check_seconds(getattr(self, field.name), f"Timeouts.{field.name}")

    @classmethod
    def of(cls, timeout: Timeouts | float | tuple[float, float] | None) -> Timeouts:
        """Read a timeout as requests does: seconds of silence, or (connect, read).

        A number bounds connecting and any silence, the one before the first token
        included; None means the defaults.
        """
        if timeout is None:
            return cls()
        if isinstance(timeout, Timeouts):
            return timeout
        if isinstance(timeout, tuple):
            if len(timeout) != 2:  # noqa: PLR2004 - (connect, read)
                raise ConfigurationError(
                    "timeout= is seconds, (connect, read) seconds, or Timeouts(...); "
                    f"this tuple has {len(timeout)} items"
                )
            connect, read = timeout
        else:
            connect = read = timeout
        if isinstance(timeout, tuple):
            check_seconds(connect, "timeout= (connect)")
            check_seconds(read, "timeout= (read)")
        else:
            check_seconds(read, "timeout=")
        return cls(
            connect=connect,
            first_token=read,
            idle=read,
            token_idle=max(read, cls().token_idle),
        )


def check_seconds(value: object, name: str) -> None:
    """Refuse anything but a positive, finite number of seconds.

    Raises:
        ConfigurationError: It is none; the message names the setting.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigurationError(
            f"{name} must be a number of seconds, not {type(value).__name__}"
        )
    if not 0 < value <= LONGEST:
        raise ConfigurationError(
            f"{name} must be a positive, finite number of seconds, at most "
            f"{LONGEST:g}, not {str(value)[:20]}"
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Deadline:
    """A moment that bounds everything a stream does; ``inf`` when there is none."""

    at: float = math.inf

    @classmethod
    def after(cls, seconds: float | None, now: float) -> Deadline:
        """Return the deadline ``seconds`` from ``now``; None never comes."""
        return cls() if seconds is None else cls(now + seconds)

    def left(self, now: float) -> float:
        """Seconds that remain, never below 0."""
        return max(0.0, self.at - now)


class Clock(enum.Enum):
    """The clocks by name; the value is what ran out."""

    CONNECT = "connect"
    FIRST_TOKEN = "first_token"
    IDLE = "idle"
    TOKEN_IDLE = "token_idle"
    TAIL = "tail"
    DRAIN = "drain"
    DEADLINE = "deadline"


class ReadClocks:
    """The clocks of one attempt. Not thread-safe: the reading thread's own.

    Before the first content only ``first_token`` runs; after it ``idle``, which any
    byte resets, and ``token_idle``, which only content resets. The deadline always
    runs. Each of the others counts the seconds spent waiting in reads.

    What a wait brought is only noted, and counted before the next one: it is on its way
    to the caller.

    Attributes:
        waited: Seconds spent in waits that ended with bytes, and not counted yet.
        content_came: Content has arrived since the last wait.
    """

    __slots__ = (
        "_clock",
        "_deadline",
        "_seconds",
        "_timeouts",
        "_token_idle",
        "content_came",
        "waited",
    )

    def __init__(self, timeouts: Timeouts, deadline: Deadline) -> None:
        self._timeouts = timeouts
        self._deadline = deadline
        # The one that always runs, and what is left of it; token_idle beside it.
        self._clock = Clock.FIRST_TOKEN
        self._seconds = timeouts.first_token
        self._token_idle = math.inf
        self.waited = 0.0
        self.content_came = False

    @property
    def connect(self) -> float:
        """Seconds in which the connection must be made."""
        return self._timeouts.connect

    def left(self, now: float) -> tuple[float, Clock]:
        """Return the least time left on any running clock, and which one it is."""
        if self.waited or self.content_came:
            self._count()
        seconds, clock = self._seconds, self._clock
        if self._token_idle < seconds:
            seconds, clock = self._token_idle, Clock.TOKEN_IDLE
        until_deadline = self._deadline.at - now
        if until_deadline < seconds:
            seconds, clock = until_deadline, Clock.DEADLINE
        return (seconds if seconds > 0 else 0.0), clock

    def spent(self, seconds: float) -> None:
        """Count time spent on bytes that brought the caller nothing."""
        if self.waited or self.content_came:
            self._count()
        self._token_idle -= seconds
        if self._clock is not Clock.IDLE:
            self._seconds -= seconds

    def open(self) -> None:
        """Note that a feed is open: from now on only silence is bounded."""
        self._run(Clock.IDLE, self._timeouts.idle)

    def tail(self) -> None:
        """Note that the answer seems complete: only its trailer may follow, and soon.

        Saying it again does not lengthen the wait.
        """
        if self.waited or self.content_came:
            self._count()
        if self._clock is not Clock.TAIL:
            self._run(Clock.TAIL, min(TAIL, self._timeouts.idle))

    def drain(self, seconds: float) -> None:
        """Read on for at most ``seconds``; what comes is no part of the answer."""
        self._run(Clock.DRAIN, seconds)

    def _count(self) -> None:
        """Count what was noted."""
        if self.content_came:
            self.content_came = False
            self._clock, self._seconds = Clock.IDLE, self._timeouts.idle
            self._token_idle = self._timeouts.token_idle
        else:
            self._token_idle -= self.waited
            if self._clock is Clock.IDLE:
                self._seconds = self._timeouts.idle
            else:
                self._seconds -= self.waited
        self.waited = 0.0

    def _run(self, clock: Clock, seconds: float) -> None:
        self._clock, self._seconds, self._token_idle = clock, seconds, math.inf
        self.waited, self.content_came = 0.0, False


class CancelToken:
    """Ends every wait of a stream, from any thread. Thread-safe, without a lock.

    ``cancel()`` happens once and for good; callbacks run in whatever calls it, a signal
    handler included, so they must not block, nor wait for what its thread may hold. A
    callback whose ``cancel()`` an exception out of a signal handler cut short may run
    again with the next.

    Attributes:
        cancelled: `cancel` was called.
    """

    def __init__(self) -> None:
        self.cancelled = False
        # Who takes one out, in one step, is the one to call it or to drop it.
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._keys = itertools.count()

    def cancel(self) -> None:
        """End every wait that listens to this token."""
        self.cancelled = True
        # Those that come after this look see the flag.
        for key in list(self._callbacks):
            self._call(key)

    def wait(self, seconds: float) -> bool:
        """Sleep for ``seconds`` or until cancelled; return True if cancelled."""
        # A lock of our own, for an Event has one that our own thread might hold when
        # its signal handler cancels. It stays locked until somebody wakes us.
        turn = threading.Lock()
        turn.acquire()
        take_back = self.on_cancel(lambda: unlock(turn))
        try:
            turn.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
        finally:
            take_back()
        return self.cancelled

    def on_cancel(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` on cancellation, at once if it happened already.

        Returns:
            A function that takes the callback back; calling it twice is harmless.
        """
        key = next(self._keys)
        self._callbacks[key] = callback
        # After it is in place: a cancel either called it or is seen here.
        if self.cancelled:
            self._call(key)

        def take_back() -> None:
            self._callbacks.pop(key, None)

        return take_back

    def _call(self, key: int) -> None:
        taken: list[Callable[[], object] | None] = []
        try:
            keep(taken, self._callbacks.pop, key, None)
            if taken[0] is not None:
                taken[0]()
            taken[0] = None
        finally:
            if taken and taken[0] is not None:
                # It was not called, or not to its end: the next cancel does.
                self._callbacks[key] = taken[0]


class SystemTime:
    """The time that streams live by; `holystream.testing` puts another in its place.

    Attributes:
        rng: Where jitter comes from; None for the generator of `random`.
        now: Returns monotonic seconds.
    """

    rng: random.Random | None = None
    now: Callable[[], float] = staticmethod(time.monotonic)

    def sleep(
        self,
        seconds: float,
        since: float,
        token: CancelToken,
        over: Callable[[], bool] | None = None,
    ) -> bool:
        """Wait until ``seconds`` after the moment ``since``, or until cancelled.

        Args:
            seconds: How long.
            since: The monotonic moment from which they count.
            token: Ends the wait.
            over: Tells whether it may end before its time. It is asked about once a
                second, by each who waits at moments of his own.

        Returns:
            Whether ``over`` ended it.
        """
        left = max(0.0, since + seconds - self.now())
        if over is None:
            token.wait(left)
            return False
        uniform = random.uniform if self.rng is None else self.rng.uniform
        while left > 0.0:
            nap = LOOK * uniform(0.5, 1.5)
            if token.wait(min(nap, left)):
                return False
            left = since + seconds - self.now()
            if left > 0.0 and over():
                return True
        return False
