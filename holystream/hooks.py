"""Callbacks by name over `on_event=`, for those who would rather be called.

The names are those in use elsewhere for streams that reconnect; each is one kind of
event, and nothing is said here that iterating the stream would not say as well.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from holystream.errors import (
    InvalidRequest,
    MalformedEvent,
    StreamCancelled,
    StreamClosed,
)
from holystream.events import (
    Connected,
    Failed,
    Finished,
    Interrupted,
    Resumed,
    TextDelta,
    Waiting,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from holystream.errors import StreamError
    from holystream.events import Completion, StreamEvent


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Callbacks by name: pass it as ``on_event=``. As thread-safe as its callbacks.

    They are called in the thread that reads, before the event is handed over.

    Attributes:
        connected: Each time an event stream begins.
        content: Each piece of text of the first choice.
        retry: Before each wait: the number of the next attempt, and how many may fail
            in all until progress is made (None where a tenacity ``stop`` decides).
        reconnect: The answer goes on after an interruption.
        parse_error: An event could not be parsed; a retry follows, or `error`.
        done: The answer is complete.
        stopped: The stream was cancelled or closed.
        error: It ended without a complete answer, in any other way.
        max_retries_reached: It did so because no attempt is left; before `error`.

    Raises:
        InvalidRequest: One of them cannot be called.
    """

    connected: Callable[[Connected], Any] | None = None
    content: Callable[[str], Any] | None = None
    retry: Callable[[int, int | None], Any] | None = None
    reconnect: Callable[[Resumed], Any] | None = None
    parse_error: Callable[[StreamError], Any] | None = None
    done: Callable[[Completion], Any] | None = None
    stopped: Callable[[StreamError], Any] | None = None
    error: Callable[[StreamError], Any] | None = None
    max_retries_reached: Callable[[StreamError], Any] | None = None

    def __post_init__(self) -> None:
        """Refuse here what would else fail in the middle of an answer."""
        for field in dataclasses.fields(self):
            callback = getattr(self, field.name)
            if callback is not None and not callable(callback):
                raise InvalidRequest(
                    f"Hooks.{field.name} must be callable, not "
                    f"{type(callback).__name__}"
                )

    def __call__(self, event: StreamEvent | Failed) -> None:
        """Call the callback that this event is for, if there is one."""
        match event:
            case TextDelta(index=0):
                _call(self.content, event.text)
            case Connected():
                _call(self.connected, event)
            case Waiting():
                left = event.attempts_left
                limit = None if left is None else event.attempt + left
                _call(self.retry, event.attempt, limit)
            case Resumed():
                _call(self.reconnect, event)
            case Interrupted(error=MalformedEvent()):
                _call(self.parse_error, event.error)
            case Finished():
                _call(self.done, event.completion)
            case Failed(error=StreamCancelled() | StreamClosed()):
                _call(self.stopped, event.error)
            case Failed():
                if event.error.exhausted:
                    _call(self.max_retries_reached, event.error)
                _call(self.error, event.error)


def _call(callback: Callable[..., Any] | None, *arguments: Any) -> None:
    if callback is not None:
        callback(*arguments)
