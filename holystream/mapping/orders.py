"""Which result of a map comes next."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from holystream.mapping.items import MapResult


class Order(Protocol):
    """Says which result comes next."""

    def add(self, result: MapResult) -> None:
        """Take a result."""
        ...

    def take(self) -> MapResult | None:
        """Return the next one, if it is there."""
        ...


class AsTheyFinish:
    """The result that was there first comes first. Not thread-safe."""

    def __init__(self) -> None:
        self._there: collections.deque[MapResult] = collections.deque()

    def add(self, result: MapResult) -> None:
        """Take a result."""
        self._there.append(result)

    def take(self) -> MapResult | None:
        """Return the next one, if it is there."""
        return self._there.popleft() if self._there else None


class AsTheyCame:
    """The results come in the order of the prompts. Not thread-safe."""

    def __init__(self) -> None:
        self._there: dict[int, MapResult] = {}
        self._next = 0

    def add(self, result: MapResult) -> None:
        """Take a result."""
        self._there[result.index] = result

    def take(self) -> MapResult | None:
        """Return the next one, if it is there."""
        found = self._there.pop(self._next, None)
        self._next += found is not None
        return found
