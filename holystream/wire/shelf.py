"""Where a pool of urllib3's keeps its idle connections."""

from __future__ import annotations

import collections
import queue


class Shelf:
    """A stack of connections, with the face of `queue.LifoQueue`. Thread-safe.

    Without a lock: a queue's own is not re-entrant, and a signal handler that lets go
    of a connection may strike in the thread that is taking another. In a race it holds
    a few more than it should.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self._maxsize = maxsize
        self._items: collections.deque[object] = collections.deque()

    def qsize(self) -> int:
        """Return how many it holds."""
        return len(self._items)

    def put(self, item: object, **_waiting: object) -> None:
        """Put one on top; it never waits for room.

        Raises:
            queue.Full: There is none.
        """
        if 0 < self._maxsize <= len(self._items):
            raise queue.Full
        self._items.append(item)

    def get(self, **_waiting: object) -> object:
        """Take the one on top; it never waits for one.

        Raises:
            queue.Empty: There is none.
        """
        try:
            return self._items.pop()
        except IndexError:
            raise queue.Empty from None
