"""`open_journal`: from what a caller gives to a journal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from holystream.errors import ConfigurationError
from holystream.journal.memory import MemoryJournal

if TYPE_CHECKING:
    from holystream.journal.base import Durability, Journal


def open_journal(
    journal: str | os.PathLike[str] | Journal, *, durability: Durability = "process"
) -> Journal:
    """Return the journal that is meant.

    Args:
        journal: The path of an SQLite database, which is made if there is none;
            ":memory:"; or a journal, which is returned as it is.
        durability: "process": what was stored survives a killed process. "power": a cut
            of the power too, for one fsync per commit. Of a path only.

    Raises:
        ConfigurationError: It is none of these.
        JournalUnavailable: The database cannot be opened or made.
        JournalCorrupt: It is damaged, or of something else.
        JournalVersion: A newer holystream made it.
    """
    if durability not in ("process", "power"):
        raise ConfigurationError('durability= must be "process" or "power"')
    if journal == ":memory:":
        return MemoryJournal()
    if isinstance(journal, (str, os.PathLike)):
        # Not before it is needed: few programs keep a journal in a file.
        try:
            from holystream.journal.sqlite import SQLiteJournal  # noqa: PLC0415
        except ImportError as error:
            raise ConfigurationError(
                f"a journal in a file needs Python's {error.name}, which this system "
                'does not have: give ":memory:"'
            ) from error
        return SQLiteJournal(journal, durability=durability)
    if not hasattr(journal, "claim"):
        raise ConfigurationError(
            'journal= must be a path, ":memory:" or a journal, not '
            f"{type(journal).__name__}"
        )
    return journal
