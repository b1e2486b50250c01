"""Many prompts, a bounded number at a time: what `Client.map` returns and consists of.

`Map` pulls the prompts in its caller's thread and hands over the results; a `Runner` in
`runner.py` runs the streams, and `Beginner` makes them.
"""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from holystream.arguments import checked_stream_id
from holystream.errors import ConfigurationError, InvalidRequest
from holystream.mapping.begin import Beginner, with_journal
from holystream.mapping.items import MapItem, MapResult, Prompt
from holystream.mapping.mapped import OUTAGE, Map
from holystream.mapping.options import MapOptions, StreamOptions, check_own, whole
from holystream.mapping.orders import AsTheyCame, AsTheyFinish, Order
from holystream.mapping.progress import progress_bar
from holystream.mapping.runner import ThreadRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from holystream.clocks import SystemTime
    from holystream.mapping.begin import Streams
    from holystream.resilience.pool import Priority, PrioritySemaphore
    from holystream.settings import Settings

__all__ = [
    "Map",
    "MapItem",
    "MapOptions",
    "MapResult",
    "Prompt",
    "ResultOrder",
    "StreamOptions",
    "mapped",
    "whole",
]

ResultOrder: TypeAlias = Literal["done", "input"]
"""Which result comes next: the one that was there first, or that of the next prompt."""

_ORDERS: Final[dict[str, type[Order]]] = {"done": AsTheyFinish, "input": AsTheyCame}
_LAST: Final = 10**12 - 1


def mapped(
    client: Streams,
    settings: Settings,
    time: Callable[[], SystemTime],
    prompts: Iterable[Prompt | MapItem],
    *,
    concurrency: int | None,
    order: ResultOrder,
    priority: Priority,
    on_progress: Callable[[int, int, int | None], object] | None,
    progress: bool,
    map_id: str | None,
    options: MapOptions,
) -> Map:
    """Return a map; `holystream.Client.map` says of what.

    Raises:
        InvalidRequest: An argument is wrong.
        ConfigurationError: One of those that a client has too is wrong.
        JournalError: The journal cannot be opened.
    """
    limit = _checked_concurrency(
        client.pool.limit if concurrency is None else concurrency
    )
    if order not in _ORDERS:
        raise InvalidRequest(f"order must be 'done' or 'input', not {order!r}")
    if not isinstance(progress, bool):
        raise InvalidRequest(f"progress must be True or False, not {progress!r}")
    if "stream_id" in options:
        raise InvalidRequest(
            "stream_id is the id of one stream, and a map has many: give map_id=, or "
            "an item its own by MapItem(options=...)"
        )
    if on_progress is not None and not callable(on_progress):
        raise InvalidRequest(
            f"on_progress must be callable, not {type(on_progress).__name__}"
        )
    total = len(prompts) if isinstance(prompts, Sized) else None
    pulled = _checked_prompts(prompts)
    if map_id is None:
        map_id = uuid.uuid4().hex
    else:
        _check_map_id(map_id)
        if settings.journal is None and options.get("journal") is None:
            raise InvalidRequest(
                "map_id needs a journal: without one nothing is recorded by that id, "
                "and no other process can go on with the map; give journal= too"
            )
    beginner = Beginner(
        client=client,
        settings=settings,
        priority=priority,
        options=whole(with_journal(options, settings), settings.ways),
        map_id=map_id,
    )
    beginner.check()
    usual = settings.changed(timeout=options.get("timeout"))
    return Map(
        pulled,
        begin=beginner.begin,
        runner=ThreadRunner(
            limit,
            patience=usual.timeouts.queue,
            has_room=functools.partial(_has_room, client.pool),
            time=time,
        ),
        concurrency=limit,
        slack=functools.partial(_slack, usual),
        order=_ORDERS[order](),
        on_progress=on_progress,
        bar=progress_bar(total) if progress else None,
        total=total,
        map_id=map_id,
    )


def _has_room(pool: PrioritySemaphore) -> bool:
    """Whether a pool has a permit, or a place in its queue."""
    now = pool.statistics()
    return now.in_use < now.limit or now.queued < now.max_queue


def _slack(usual: Settings, item: MapItem) -> float:
    """Return the seconds beyond `OUTAGE` for which an item may be silent."""
    # Wrong options are the end of the item, which its stream tells.
    with contextlib.suppress(InvalidRequest, ConfigurationError):
        check_own(item.options, "an item")
        usual = usual.changed(timeout=item.options.get("timeout"))
    return max(0.0, usual.timeouts.first_token - OUTAGE)


def _check_map_id(map_id: str) -> None:
    try:
        checked_stream_id(f"{map_id}.{_LAST}" if map_id else "")
    except InvalidRequest:
        raise InvalidRequest(
            "map_id must be 1 to 115 letters, digits and ._:- characters"
        ) from None


def _checked_concurrency(concurrency: Any) -> int:
    if (
        not isinstance(concurrency, int)
        or isinstance(concurrency, bool)
        or concurrency < 1
    ):
        raise InvalidRequest(
            f"concurrency must be a whole number of at least 1, not {concurrency!r}"
        )
    return concurrency


def _checked_prompts(prompts: Any) -> Any:
    """Return an iterator over the prompts, if they can be several."""
    if isinstance(prompts, (str, bytes, Mapping)):
        raise InvalidRequest(
            "prompts takes several of them, such as a list of texts, not "
            f"{type(prompts).__name__}; for a single one there is complete()"
        )
    try:
        return iter(prompts)
    except TypeError:
        raise InvalidRequest(
            f"prompts must be iterable, not {type(prompts).__name__}"
        ) from None
