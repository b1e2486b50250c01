"""Whether a pool is nearly full, with hysteresis, and who is told of it."""

from __future__ import annotations

import collections
import logging
import math
import threading
from typing import TYPE_CHECKING, Final

from holystream.gapless import keep

if TYPE_CHECKING:
    from collections.abc import Callable

HIGH: Final = 0.8
"""The share of its permits in use with which a pool comes under pressure."""
LOW: Final = 0.6
"""The share at which the pressure is over. Between the two it stays as it was."""

_LOG = logging.getLogger("holystream")


class Pressure:
    """Follows the use of a pool.

    `fit` and `note` need the pool's mutex; `tell` is for any thread that has none.

    Args:
        listener: Is called with True when the pressure begins and False when it ends.

    Attributes:
        on: Whether there is pressure.
        rises_at: Permits in use with which it begins.
        falls_at: Permits in use with which it ends.
        untold: Changes that the listener has not heard of.
    """

    __slots__ = ("_listener", "_telling", "falls_at", "on", "rises_at", "untold")

    def __init__(self, listener: Callable[[bool], object] | None) -> None:
        self._listener = listener
        self.on = False
        self.untold: collections.deque[bool] = collections.deque()
        # Held by the thread that tells, so that changes are told in their order. It is
        # never waited for: whoever finds it taken leaves the telling to its owner.
        self._telling = threading.Lock()
        self.fit(1)

    def fit(self, limit: int) -> None:
        """Follow a pool of ``limit`` permits."""
        self.rises_at = math.ceil(limit * HIGH)
        self.falls_at = math.floor(limit * LOW)

    def note(self, in_use: int) -> None:
        """Take note of how many permits are in use."""
        if (in_use > self.falls_at) if self.on else (in_use < self.rises_at):
            return
        self.on = not self.on
        if self._listener is not None:
            self.untold.append(self.on)

    def tell(self) -> None:
        """Tell the listener what it has not heard. What it raises is logged."""
        while self.untold:
            taken: list[bool] = []
            try:
                keep(taken, self._telling.acquire, False)
                if True not in taken:
                    # Another thread tells, or this one does, further down its stack.
                    return
                self._tell_alone()
            finally:
                if True in taken:
                    self._telling.release()

    def mute(self) -> None:
        """Tell nobody any more."""
        self._listener = None
        self.untold.clear()

    def _tell_alone(self) -> None:
        while self.untold:
            change = self.untold.popleft()
            try:
                if self._listener is not None:
                    self._listener(change)
            except Exception:  # noqa: BLE001 - it is the caller's code, and it is logged
                # Whoever acquires or releases has no part in it.
                _LOG.exception("the listener of the pool's backpressure failed")
