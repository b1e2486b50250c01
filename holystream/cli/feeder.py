"""Reads the lines of a pipe in a thread of its own: a quiet one holds up no result.

A map pulls its prompts in the thread that writes its results. Here it is told that
there is none yet, and is woken when there is.
"""

from __future__ import annotations

import threading
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holystream.cli.prompts import Line

_AHEAD: Final = 16
"""Lines that are read at most before they are asked for."""


class Feeder:
    """The items of a pipe. One thread iterates it.

    Its own thread is a daemon: nobody can end a read of a pipe.

    Args:
        lines: Items; nobody else reads them from now on.
        later: What is yielded where none has come yet.
        wake: Is called when one has come, or the end.
    """

    def __init__(
        self, lines: Iterator[Line], later: Any, wake: Callable[[], object]
    ) -> None:
        self._lines = lines
        self._later = later
        self._wake = wake
        self._read: Queue[Line | Exception | None] = Queue(_AHEAD)
        threading.Thread(target=self._work, name="holystream-feed", daemon=True).start()

    def _work(self) -> None:
        end: Exception | None = None
        try:
            for line in self._lines:
                self._read.put(line)
                self._wake()
        except Exception as error:  # noqa: BLE001 - raised where they are iterated
            end = error
        self._read.put(end)
        self._wake()

    def __iter__(self) -> Iterator[Any]:
        while True:
            try:
                found = self._read.get_nowait()
            except Empty:
                yield self._later
                continue
            if found is None:
                return
            if isinstance(found, Exception):
                raise found
            yield found
