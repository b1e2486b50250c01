"""The journals that a client opened: one for each file, closed with the client."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

from holystream.journal.opening import open_journal

if TYPE_CHECKING:
    from holystream.journal.base import Journal

_MOST: Final = 8
"""Files that are kept open beside the client's own while nothing is written."""


class _Retiring(Protocol):
    def close(self) -> None: ...

    def retire(self) -> None: ...


class Journals:
    """Opens journals, each file once. Thread-safe.

    A journal that was given open is its giver's, and stays open.

    Args:
        own: The one that the client has by default.

    Attributes:
        own: It, open.
    """

    __slots__ = ("_opened", "own")

    def __init__(self, own: str | os.PathLike[str] | Journal | None = None) -> None:
        # By path; each change is one step.
        self._opened: dict[str, Journal] = {}
        self.own: Journal | None = None
        if own is not None:
            self.own = self.of(own)

    def of(self, journal: str | os.PathLike[str] | Journal) -> Journal:
        """Return the journal that is meant, opened if no other call has.

        Raises:
            ConfigurationError: It is none.
            JournalError: It cannot be opened.
        """
        if journal == ":memory:" or not isinstance(journal, (str, os.PathLike)):
            return open_journal(journal)
        path = os.path.realpath(Path(journal).expanduser())
        found = self._opened.get(path)
        if found is not None:
            return found
        opened = open_journal(journal)
        found = self._opened.setdefault(path, opened)
        if found is not opened:
            # Another thread was quicker.
            opened.close()
        opened_here = self._opened.copy().items()
        others = [key for key, each in opened_here if each is not self.own]
        for key in others[:-_MOST]:
            self._retire(key)
        return found

    def close(self) -> None:
        """Close them, those that streams are recorded in with the last of these."""
        for path in list(self._opened):
            self._retire(path)

    def _retire(self, path: str) -> None:
        journal = self._opened.pop(path, None)
        if journal is not None:
            cast("_Retiring", journal).retire()
