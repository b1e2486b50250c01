"""The stores, each of which meets the same promises."""

from __future__ import annotations

import pytest
from journal_events import Now

from holystream.journal import MemoryJournal
from holystream.journal.sqlite import SQLiteJournal


@pytest.fixture
def now():
    return Now()


@pytest.fixture(params=["memory", "sqlite"])
def journal(request, now):
    """An empty journal of either kind."""
    if request.param == "memory":
        made = MemoryJournal(now=now)
    else:
        folder = request.getfixturevalue("tmp_path")
        made = SQLiteJournal(folder / "journal.db", now=now)
    yield made
    made.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


@pytest.fixture
def on_disk(path):
    """A journal in a file."""
    with SQLiteJournal(path) as made:
        yield made
