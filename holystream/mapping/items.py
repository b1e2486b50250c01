"""What goes into a map and what comes out of it: frozen records."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from holystream.errors import StreamError

if TYPE_CHECKING:
    from holystream.events import Completion
    from holystream.mapping.options import StreamOptions

Prompt: TypeAlias = str | Sequence[Mapping[str, Any]]
"""The user's text, or the messages of a conversation."""


def _no_options() -> StreamOptions:
    return {}


@dataclasses.dataclass(frozen=True, slots=True)
class MapItem:
    """A prompt with what only it has.

    Attributes:
        prompt: The user's text, or the messages of a conversation.
        id: By what you know it again, of any kind; nothing is done with it.
        options: Arguments of `Client.stream`, before those of the map.
    """

    prompt: Prompt
    id: Any = None
    options: StreamOptions = dataclasses.field(default_factory=_no_options)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MapResult:
    """What became of one item: a completion, or the error that it ended with.

    Attributes:
        index: Its place among the prompts, from 0.
        item: The item; a prompt that came without options has become one.
        completion: The whole answer, or None.
        error: Why there is none, or None. Mostly a `HolystreamError`; what a callback
            of yours raised is here as well.
    """

    index: int
    item: MapItem
    completion: Completion | None = None
    error: BaseException | None = None

    @property
    def id(self) -> Any:
        """The item's own id."""
        return self.item.id

    @property
    def ok(self) -> bool:
        """Whether there is a whole answer."""
        return self.completion is not None

    @property
    def text(self) -> str:
        """The whole text of the first choice.

        Raises:
            HolystreamError: There is none: the item's own error.
        """
        if self.completion is None:
            assert self.error is not None, "there is one or the other"  # noqa: S101 - an invariant
            raise self.error
        return self.completion.text

    @property
    def partial_text(self) -> str:
        """The text, whole or not: what was received before the item failed."""
        if self.completion is not None:
            return self.completion.text
        return self.error.partial_text if isinstance(self.error, StreamError) else ""
