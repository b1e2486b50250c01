"""What a driver drives, the exchange and the connection, and where that stands."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holystream.clocks import Deadline, ReadClocks
    from holystream.errors import StreamError
    from holystream.resilience.progress import Wait
    from holystream.wire.faults import Fault
    from holystream.wire.guard import SocketGuard

Read_co = TypeVar("Read_co", covariant=True)
Taken_contra = TypeVar("Taken_contra", contravariant=True)
Told = TypeVar("Told")


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


class Closable(Protocol):
    """What holds something until it is closed."""

    def close(self) -> None:
        """Let go of it."""
        ...


class Recording(Closable, Protocol[Taken_contra]):
    """Keeps what a driver hands over; `holystream.recorder.Recorder` says how."""

    @property
    def owns(self) -> bool:
        """Whether there is something to let go of."""
        ...

    def begin(self, now: float) -> None:
        """Begin, before anything is sent."""
        ...

    def record(self, events: Sequence[Taken_contra], now: float) -> None:
        """Take what is about to be handed over."""
        ...

    def end(self, error: BaseException | None) -> None:
        """Take the end, and what it ended with."""
        ...

    def drop(self) -> None:
        """Let go of it soon; for a finaliser: it takes no lock."""
        ...


class Attending(Closable, Protocol[Read_co, Told]):
    """Attends the attempts of a stream; `holystream.attempts.Attempts` says how."""

    @property
    def open(self) -> bool:
        """Whether the stream was opened, and its end was not told yet."""
        ...

    def opened(self, now: float) -> None:
        """Take note that the stream begins."""
        ...

    def watch(self) -> Callable[[], bool] | None:
        """Return what tells that the wait may end before its time, if it may."""
        ...

    def waited(self, seconds: float) -> None:
        """Take note of a wait that is over."""
        ...

    def admit(self, *, early: bool) -> None:
        """Refuse to queue where nobody would serve the attempt."""
        ...

    def queued(self, seconds: float) -> None:
        """Take note of a wait for a permit, in vain or not."""
        ...

    def choose(self, *, early: bool) -> None:
        """Pick where the next attempt goes."""
        ...

    def connect(self, guard: SocketGuard) -> Connection[Read_co]:
        """Open the connection of the attempt."""
        ...

    def received(self, now: float) -> bool:
        """Take note of a read; return whether the next one is to be told as well."""
        ...

    def failed(self, fault: Fault, events: list[Told], now: float) -> list[Told]:
        """Take note of a failed attempt; return the events that are told."""
        ...

    def finished(self, now: float) -> None:
        """Take note that the answer is complete."""
        ...

    def ended(self, error: BaseException | None, now: float) -> None:
        """Take note that the stream is over."""
        ...

    def abandon(self, now: float) -> None:
        """Let go of the endpoint, without a lock."""
        ...


class Connection(Closable, Protocol[Read_co]):
    """One HTTP response or WebSocket: opened once, read once."""

    @property
    def request_id(self) -> str:
        """The server's id of the request, else the one we sent."""
        ...

    def next_batch(self) -> Sequence[Read_co] | None:
        """Return what one read completes; None at a clean end.

        Raises:
            Fault: The connection broke.
        """
        ...

    def taken(self) -> int | None:
        """Return the bytes of the body in what was returned, if they can be counted."""
        ...

    def drain(self) -> None:
        """Read what is left, briefly, so that the connection can be re-used."""
        ...


class Exchangeable(Protocol[Taken_contra, Told]):
    """What can be driven; `holystream.exchange.Exchange` says what each means."""

    stream_id: str
    deadline: Deadline
    wait: Wait | None
    error: StreamError | None

    @property
    def complete(self) -> bool:
        """Nothing more will come, and nothing is missing."""
        ...

    @property
    def failure(self) -> Fault | None:
        """The fault that the last batch brought."""
        ...

    def start(self, now: float) -> list[Told]:
        """Begin."""
        ...

    def attempt(self) -> ReadClocks:
        """Begin the next attempt; return its clocks."""
        ...

    def connected(
        self, request_id: str, now: float, taken: Callable[[], int | None]
    ) -> list[Told]:
        """Take note of a connection, and of what counts the bytes taken from it."""
        ...

    def receive(self, batch: Sequence[Taken_contra], now: float) -> list[Told]:
        """Take what one read brought."""
        ...

    def shut_out(self, error: StreamError, now: float) -> list[Told]:
        """Take note that no endpoint takes the attempt."""
        ...

    def fault(self, fault: Fault, now: float) -> list[Told]:
        """End the attempt; decide what follows."""
        ...

    def describe(self, error: StreamError) -> StreamError:
        """Tell an error which stream it ended."""
        ...
