"""Makes the streams of a map's items: new ones, or what a journal has of them."""

from __future__ import annotations

import dataclasses
import logging
import reprlib
from typing import TYPE_CHECKING, Any, Final, Protocol

from holystream.errors import InvalidRequest, JournalError
from holystream.journal import Outcome
from holystream.mapping.options import check_own
from holystream.resume.checkpoint import Recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holystream.journal import Journal, StreamMeta
    from holystream.mapping.items import MapItem
    from holystream.mapping.options import MapOptions
    from holystream.resilience.pool import Priority, PrioritySemaphore
    from holystream.settings import Settings
    from holystream.stream import Stream

_log = logging.getLogger("holystream")

_RESUMED: Final = (
    *("priority", "timeout", "deadline", "retry", "extra_headers", "on_event"),
    *("journal", "checkpoint_every", "checkpoint_interval"),
)
"""The options that a stream has anew when it is resumed."""


class Streams(Protocol):
    """Makes streams: a `holystream.Client`."""

    @property
    def pool(self) -> PrioritySemaphore:
        """Bounds the connections."""
        ...

    # What each takes is checked there, for it may come from a user as it is.
    @property
    def stream(self) -> Callable[..., Stream]:
        """Return a stream that asks."""
        ...

    @property
    def resume(self) -> Callable[..., Stream]:
        """Return a stream that goes on with a recorded one."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Beginner:
    """Makes the streams of one map. Thread-safe.

    Attributes:
        client: Makes them.
        settings: What the client has as its default.
        priority: That of the items.
        options: Those of all items.
        map_id: What the ids of the streams begin with.
    """

    client: Streams
    settings: Settings
    priority: Priority
    options: MapOptions
    map_id: str

    def check(self) -> None:
        """Refuse options that no item could be asked with; makes no item.

        Raises:
            InvalidRequest: One of them is wrong.
            ConfigurationError: One of them that a client has too is wrong.
            TypeError: There is no such option.
        """
        options = self._options({}, 0)
        # An item may name its own model.
        options["model"] = options.get("model") or self.settings.model or "any"
        self.client.stream("any", **options)

    def begin(self, index: int, item: MapItem) -> Stream:
        """Return the stream of an item; what a journal has of it is gone on with.

        Raises:
            InvalidRequest: The item is wrong, or the journal has another one.
            HolystreamError: It cannot be gone on with.
        """
        named = f"item {index}"
        if item.id is not None:
            # Of any kind, and as long as it likes.
            named += f" (id={reprlib.repr(item.id)})"
        check_own(item.options, named)
        options = self._options(item.options, index)
        journal = self.settings.journal
        if options.get("journal") is not None:
            journal = self.settings.journals.of(options["journal"])
            options["journal"] = journal
        stream = self.client.stream(item.prompt, **options)
        if journal is None:
            return stream
        try:
            meta = journal.meta(stream.stream_id)
            if meta is None:
                return stream
            self._check_same(meta, stream)
            if meta.outcome in {Outcome.FAILED, Outcome.CANCELLED}:
                # Its end was no answer, and this is another try.
                journal.delete(stream.stream_id)
                return stream
        except JournalError as error:
            if not self.settings.recording.best_effort:
                raise
            _log.warning("an item goes on without its journal: %s", error)
            return stream
        return self.client.resume(
            stream.stream_id,
            **{name: options[name] for name in _RESUMED if name in options},
        )

    def _options(self, own: Mapping[str, Any], index: int) -> dict[str, Any]:
        return {
            "priority": self.priority,
            "stream_id": f"{self.map_id}.{index}",
            **self.options,
            **own,
        }

    def _check_same(self, meta: StreamMeta, stream: Stream) -> None:
        """Refuse to hand over what was the answer to something else."""
        there = Recorded.decode(meta.request)
        asked = stream._exchange.request  # noqa: SLF001 - what its own recorder is told
        # Whether the provider is the same is seen when it is gone on with.
        if not there.is_of(asked, provider=there.provider):
            raise InvalidRequest(
                f"the journal has stream {stream.stream_id!r} as the answer to another "
                "request: give another map_id=, or the prompts and options of then"
            )


def with_journal(options: MapOptions, settings: Settings) -> MapOptions:
    """Return options in which a journal that is a path is open, once for all items.

    Raises:
        ConfigurationError: It is no journal.
        JournalError: It cannot be opened.
    """
    journal: str | Journal | Any = options.get("journal")
    if journal is None:
        return options
    return {**options, "journal": settings.journals.of(journal)}
