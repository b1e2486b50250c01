"""What may be asked of a stream, as types: the keyword arguments of `Client.stream`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypedDict, TypeVar

from holystream.errors import InvalidRequest
from holystream.resume import DEFAULT_STRATEGIES
from holystream.spelling import did_you_mean

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from holystream.clocks import Timeouts
    from holystream.events import Failed, Guarantee, StreamEvent
    from holystream.journal import Journal
    from holystream.resilience.pool import Priority
    from holystream.resilience.retry import RetryPolicy


class MapOptions(TypedDict, total=False):
    """What all items of a map may have in common; `Client.stream` says what each is."""

    model: str | None
    temperature: float | None
    top_p: float | None
    max_tokens: int | None
    seed: int | None
    stop: str | Sequence[str] | None
    n: int | None
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    response_format: Mapping[str, Any] | None
    deterministic: bool | None
    timeout: Timeouts | float | tuple[float, float] | None
    deadline: float | None
    retry: RetryPolicy | None
    resume: Sequence[str] | None
    min_guarantee: Guarantee | None
    extra_body: Mapping[str, Any] | None
    extra_headers: Mapping[str, str] | None
    on_event: Callable[[StreamEvent | Failed], object] | None
    journal: str | os.PathLike[str] | Journal | None
    checkpoint_every: int | None
    checkpoint_interval: float | None


class StreamOptions(MapOptions, total=False):
    """The keyword arguments of `Client.stream`, which says what each of them is."""

    priority: Priority
    stream_id: str | None


_NAMES: Final = frozenset(StreamOptions.__annotations__)

_Options = TypeVar("_Options", MapOptions, StreamOptions)

_ANEW: Final = (*DEFAULT_STRATEGIES, "restart")


def whole(options: _Options, ways: tuple[str, ...]) -> _Options:
    """Return the options of a caller who gets the answer only when it is whole.

    Such a one has no text that could become void, so that an answer that cannot be
    gone on with is written anew, unless somebody has said how it may go on.

    Args:
        options: What was asked for.
        ways: How the client's streams may go on.
    """
    if options.get("resume") is None and ways == DEFAULT_STRATEGIES:
        return {**options, "resume": _ANEW}
    return options


def check_own(options: object, item: str) -> None:
    """Refuse what an item cannot have as options of its own.

    Args:
        options: Whatever the caller gave it.
        item: What a message calls the item.

    Raises:
        InvalidRequest: It is no mapping, or has a name that no option has.
    """
    if not isinstance(options, Mapping):
        raise InvalidRequest(
            f"{item}: options must be a mapping, not {type(options).__name__}"
        )
    if unknown := _unknown(options):
        raise InvalidRequest(f"{item}: there is no option {unknown}")


def check_names(options: Mapping[str, object], verb: str) -> None:
    """Refuse a keyword argument that there is not, as Python does.

    Raises:
        TypeError: There is one; the message names the nearest that there is.
    """
    if unknown := _unknown(options):
        raise TypeError(f"{verb}() got an unexpected keyword argument {unknown}")


def _unknown(options: Mapping[str, object]) -> str:
    """Return the first name that no option has, and the nearest; empty if none."""
    unknown = next((name for name in options if name not in _NAMES), None)
    if unknown is None:
        return ""
    return f"{unknown!r}{did_you_mean(str(unknown), _NAMES)}"
