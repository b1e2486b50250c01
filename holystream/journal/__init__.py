"""The append-only record of streams: what survives a crash, and what others read.

`open_journal` takes a path; `MemoryJournal` lasts as long as its process. What every
store promises is in `holystream.journal.base`.
"""

from holystream.journal.base import (
    Claim,
    Durability,
    Entries,
    Gone,
    Journal,
    JournalState,
    Outcome,
    Reading,
    StreamInfo,
    StreamMeta,
    Trimmed,
)
from holystream.journal.memory import MemoryJournal
from holystream.journal.opening import open_journal

__all__ = [
    "Claim",
    "Durability",
    "Entries",
    "Gone",
    "Journal",
    "JournalState",
    "MemoryJournal",
    "Outcome",
    "Reading",
    "StreamInfo",
    "StreamMeta",
    "Trimmed",
    "open_journal",
]
