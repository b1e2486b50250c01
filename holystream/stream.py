"""What the caller holds: an answer as it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from holystream.driven import StreamState
from holystream.errors import RestartRequired
from holystream.events import Guarantee, Rewound, TextDelta

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from holystream.driver import Driver
    from holystream.events import Completion, StreamEvent, Usage
    from holystream.exchange import Exchange
    from holystream.wire.sse import ServerSentEvent


class Stream:
    """One answer as it arrives: an iterator of events and a context manager.

    Nothing is sent before it is opened, by `open` or by iterating. One thread iterates
    it at a time; any thread may read its properties, `cancel` or `close` it. It must
    be closed, which ``with`` does; iterating to the end closes it as well.

    Attributes:
        stream_id: The stream's own id, for logs.
    """

    def __init__(
        self, exchange: Exchange, driver: Driver[ServerSentEvent, StreamEvent]
    ) -> None:
        self.stream_id = exchange.stream_id
        self._exchange = exchange
        self._driver = driver

    def __iter__(self) -> Iterator[StreamEvent]:
        """Iterate over the events that are still to come."""
        driver = self._driver
        while True:
            # The position is the stream's: a loop that breaks leaves the rest to the
            # next one, and what `open` put there meanwhile comes first.
            pending = driver.pending
            yield from pending
            if driver.pending is pending and not driver.advance():
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
        after which a new ``text_stream`` yields the new text from its start. Like the
        stream, it yields what is still to come: after the end, nothing.
        """
        return TextStream(self._exchange, self._driver)

    def open(self) -> Self:
        """Wait for the first event of the server and return the stream.

        For code that wants to know of a refusal before it starts an answer of its own.

        Raises:
            StreamError: No answer comes.
        """
        driver = self._driver
        if self._exchange.answering:
            return self
        events: list[StreamEvent] = []
        try:
            while not self._exchange.answering:
                events += driver.pending
                if not driver.advance():
                    break
        finally:
            driver.hold([*events, *driver.pending])
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
        assert completion is not None, "iteration ends cleanly only when complete"  # noqa: S101 - an invariant
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
        is waiting for. Harmless once the stream has ended. A signal handler may do it
        as well: nothing in it waits, whatever its thread was doing, but for the journal
        of a stream that nobody is reading. Its end is written at once; where the
        handler struck a call of that journal, when this call is over.
        """
        self._driver.cancel()

    def close(self) -> None:
        """Let go of the connection, from any thread; safe to call again.

        A thread that is reading is woken; reading on raises `StreamClosed` unless the
        answer was complete.
        """
        self._driver.close()

    @property
    def state(self) -> StreamState:
        """Where the stream stands."""
        return self._driver.state

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
        if self._driver.state is StreamState.CLOSED:
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
    def resume_token(self) -> str | None:
        """What `Client.resume` takes to go on without a journal, with the same text.

        It holds digests, no text, prompt, URL or key. Meaningful once the stream has
        ended early: every piece that comes makes another one. None where more than one
        text, or a tool call, was delivered.
        """
        return self._exchange.resume_token

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
            f"<Stream {self.stream_id} {self._driver.state.value} "
            f"model={self._exchange.request.model!r} attempts={self.attempts}>"
        )


class TextStream:
    """The text of a stream, piece by piece; only appends. As thread-safe as it."""

    def __init__(
        self, exchange: Exchange, driver: Driver[ServerSentEvent, StreamEvent]
    ) -> None:
        self._exchange = exchange
        self._driver = driver

    def __iter__(self) -> Iterator[str]:
        """Iterate over the pieces that are still to come.

        Raises:
            RestartRequired: The text so far was withdrawn.
            StreamError: The answer will not be completed.
        """
        driver = self._driver
        while True:
            pending = driver.pending
            for event in pending:
                if type(event) is TextDelta:
                    if event.index == 0:
                        yield event.text
                elif type(event) is Rewound:
                    raise self._exchange.describe(
                        RestartRequired(
                            "the answer was begun anew and the text so far is void; "
                            "iterate text_stream again for the new text, or iterate "
                            "the stream and apply its Rewound events"
                        )
                    )
            if driver.pending is pending and not driver.advance():
                return

    def __next__(self) -> str:
        return next(iter(self))

    def close(self) -> None:
        """Close the stream."""
        self._driver.close()
