"""The general EventSource: any event stream, read in blocking code, that reconnects."""

from __future__ import annotations

import codecs
import dataclasses
from typing import TYPE_CHECKING, Self

from holystream.errors import InvalidRequest, StreamClosed, StreamError
from holystream.feed import Comment
from holystream.wire.faults import Fault, FaultKind
from holystream.wire.http import MAX_LINE_BYTES
from holystream.wire.request import origin
from holystream.wire.sse import EventParser, ServerSentEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from holystream.driven import StreamState
    from holystream.driver import Driver
    from holystream.feed import Feed, Notice
    from holystream.wire.guard import SocketGuard
    from holystream.wire.http import HttpConnection, HttpTransport
    from holystream.wire.request import HttpRequest


class EventSource:
    """An event stream that reconnects: an iterator of events and a context manager.

    It does what a browser's EventSource does
    (https://html.spec.whatwg.org/multipage/server-sent-events.html): sends the last
    event id when it reconnects, honours ``retry:``, ends on 204. Beside that it tries
    again after a 5xx or 429, by its `RetryPolicy`, and raises what does not pass.

    Nothing is sent before the first iteration. One thread iterates it at a time; any
    thread may read its properties, `restart` or `close` it. It holds a permit of the
    client's pool while it is connected.
    """

    def __init__(self, feed: Feed, driver: Driver[Notice, Notice]) -> None:
        self._feed = feed
        self._driver = driver
        self._last_event_id = feed.last_event_id

    def __iter__(self) -> Iterator[ServerSentEvent]:
        """Iterate over the events; it ends when the server says so, or on `close`.

        Raises:
            StreamError: It cannot go on.
        """
        for notice in self.all:
            if isinstance(notice, ServerSentEvent):
                yield notice

    def __next__(self) -> ServerSentEvent:
        return next(iter(self))

    @property
    def all(self) -> Iterator[Notice]:
        """Everything there is to tell: events, comments, and the connection's fate.

        Yields `ServerSentEvent`, `Comment`, `Connected`, `Interrupted` and `Waiting`.

        Raises:
            StreamError: It cannot go on.
        """
        driver = self._driver
        while True:
            pending = driver.pending
            for notice in pending:
                if isinstance(notice, ServerSentEvent):
                    self._last_event_id = notice.id
                yield notice
            if driver.pending is not pending:
                continue
            self._last_event_id = self._feed.last_event_id
            try:
                if not driver.advance():
                    return
            except StreamClosed:
                return

    @property
    def last_event_id(self) -> str:
        """The id of the last event that was handed over; empty for none."""
        return self._last_event_id

    @property
    def reconnection_time(self) -> float | None:
        """Seconds the server asked to wait before reconnecting; None if it did not."""
        return self._feed.reconnection_time

    @property
    def state(self) -> StreamState:
        """Where it stands."""
        return self._driver.state

    def restart(self) -> None:
        """Drop the connection and connect again, from any thread.

        What had arrived is still handed over. Without a connection nothing happens.
        """
        self._driver.interrupt()

    def close(self) -> None:
        """End it, from any thread; whoever iterates leaves the loop."""
        self._driver.close()

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
        return f"<EventSource {self._feed.stream_id} {self._driver.state.value}>"


class FeedConnector:
    """Makes the connections of a feed, each with what the last one left behind."""

    def __init__(
        self,
        transport: HttpTransport,
        request: HttpRequest,
        body: Callable[[str], bytes | None],
        feed: Feed,
    ) -> None:
        self._transport = transport
        self._request = request
        self._body = body
        self._feed = feed

    def __call__(self, guard: SocketGuard) -> FeedConnection:
        """Connect.

        Raises:
            Fault: There is no event stream.
            StreamError: There is no body to send.
        """
        request = self._request
        headers = dict(request.headers)
        body = self._feed.body = self._next_body()
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = self._transport.open(
            dataclasses.replace(
                request,
                headers=headers,
                body=body,
                last_event_id=self._feed.last_event_id,
            ),
            guard,
        )
        if connection.moved_to is not None:
            at_home = origin(connection.moved_to) == origin(request.url)
            self._request = dataclasses.replace(
                request,
                url=connection.moved_to,
                secrets=request.secrets if at_home else {},
            )
        return FeedConnection(connection, self._feed)

    def _next_body(self) -> bytes | None:
        try:
            return self._body(self._feed.last_event_id)
        except InvalidRequest as error:
            said: str = str(error)
            cause: Exception = error
        except Exception as error:  # noqa: BLE001 - the caller's function
            said, cause = f"json= raised {type(error).__name__}", error
        raise self._feed.describe(
            StreamError(f"There is no body for the next request: {said}.")
        ) from cause


class FeedAttempts:
    """Attends the attempts of a feed, which nothing has to be told of."""

    open = False

    def __init__(self, connector: FeedConnector) -> None:
        self.connect = connector

    def opened(self, now: float) -> None:
        """Nobody counts it."""

    def watch(self) -> None:
        """It waits for nobody who could come sooner."""

    def waited(self, seconds: float) -> None:
        """Nobody counts it."""

    def admit(self, *, early: bool) -> None:
        """There is no breaker."""

    def queued(self, seconds: float) -> None:
        """Nobody counts it."""

    def choose(self, *, early: bool) -> None:
        """There is one place to go."""

    def received(self, now: float) -> bool:  # noqa: ARG002 - of the protocol
        """Nothing is waited for."""
        return False

    def failed(
        self,
        fault: Fault,  # noqa: ARG002 - of the protocol
        events: list[Notice],
        now: float,  # noqa: ARG002 - of the protocol
    ) -> list[Notice]:
        """Nobody counts it."""
        return events

    def finished(self, now: float) -> None:
        """Nobody counts it."""

    def ended(self, error: BaseException | None, now: float) -> None:
        """Nobody counts it."""

    def abandon(self, now: float) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing is held."""


class FeedConnection:
    """One connection of a feed: what the driver reads. Not thread-safe."""

    def __init__(self, connection: HttpConnection, feed: Feed) -> None:
        self.request_id = connection.request_id
        self._connection = connection
        self._feed = feed
        self._parser = EventParser(MAX_LINE_BYTES, last_event_id=feed.last_event_id)
        self._begun = False

    def next_batch(self) -> list[Notice] | None:
        """Return what one read brings; None at a clean end.

        Raises:
            Fault: The connection broke, or an event exceeds its limit.
        """
        if self._parser.exceeded:
            raise self._connection.fault(
                FaultKind.TOO_LARGE, f"an event exceeds {MAX_LINE_BYTES} bytes"
            )
        self._connection.resume()
        lines = self._connection.next_lines()
        if lines is None:
            return None
        notices: list[Notice] = []
        start = 0
        for place, line in enumerate(lines):
            whole = line if self._begun else line.removeprefix(codecs.BOM_UTF8)
            self._begun = True
            if whole[:1] == b":":
                # With the comment: the parser must know which line was the first.
                notices += self._parser.feed(lines[start : place + 1])
                text = whole[1:].removeprefix(b" ").decode("utf-8", "replace")
                notices.append(Comment(text))
                start = place + 1
        notices += self._parser.feed(lines[start:])
        self._feed.last_event_id = self._parser.last_event_id
        if self._parser.reconnection_time is not None:
            self._feed.reconnection_time = self._parser.reconnection_time / 1000
        return notices

    def taken(self) -> int | None:
        """Return None: a feed goes on by ids alone."""
        return None

    def drain(self) -> None:
        """Nothing to do: a feed is never complete while a connection is open."""

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()
