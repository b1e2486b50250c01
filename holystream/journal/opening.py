"""`open_journal`: from what a caller gives to a journal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, TypeAlias

from holystream.errors import ConfigurationError, JournalUnavailable
from holystream.journal.memory import MemoryJournal

if TYPE_CHECKING:
    from holystream.journal.base import Journal

Durability: TypeAlias = Literal["process", "power"]
"""What a commit survives: the end of the process, or that of the power as well."""


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
        raise JournalUnavailable("a journal in a file is still to come")
    if not hasattr(journal, "claim"):
        raise ConfigurationError(
            'journal= must be a path, ":memory:" or a journal, not '
            f"{type(journal).__name__}"
        )
    return journal
