"""Claims that nobody holds: a Ctrl-C behind a commit must not leave a stream taken."""

from __future__ import annotations

import pytest
from journal_events import DAY, REQUEST, Child, text_events
from strikes import interrupt, moments

from holystream.journal import JournalState
from holystream.journal.commits import GroupCommit
from holystream.journal.later import Later
from holystream.journal.sqlite import SQLiteJournal

FILES = (
    *("journal/sqlite.py", "journal/holding.py", "journal/commits.py"),
    *("journal/database.py", "journal/tables.py", "journal/owners.py"),
    *("journal/memory.py", "journal/watching.py", "journal/later.py"),
    "test_lost_claims.py",
)


def create(journal):
    return journal.create("s", request=REQUEST, ttl=DAY)


def take_over(journal):
    return journal.claim("s")


def let_go(journal):
    claim = journal.claim("s")
    journal.release(claim)
    return claim


def struck(strike, work, journal):
    """Whether a Ctrl-C ended it, before its claim was in its caller's hands."""
    try:
        with strike.by(interrupt):
            claim = work(journal)
    except KeyboardInterrupt:
        return True
    journal.release(claim)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("work", [create, take_over, let_go])
def test_a_stream_whose_taking_was_struck_can_be_claimed(journal, work):
    for strike in moments(FILES):
        if work is not create:
            journal.release(create(journal))
        if struck(strike, work, journal) and journal.meta("s") is not None:
            assert journal.meta("s").state is JournalState.ABANDONED
            claim = journal.claim("s")
            journal.append(claim, text_events(1, 1))
        journal.delete("s")


@pytest.mark.slow
@pytest.mark.parametrize("work", [create, take_over])
def test_another_owner_can_claim_it(on_disk, path, work):
    """As soon as the call is over, without another one of the struck journal."""
    with SQLiteJournal(path) as other:
        for strike in moments(("journal/commits.py",)):
            if work is take_over:
                on_disk.release(create(on_disk))
            if struck(strike, work, on_disk) and other.meta("s") is not None:
                other.release(other.claim("s"))
            other.delete("s")


@pytest.fixture
def struck_behind_the_commit(monkeypatch):
    """Every transaction is: its work is done, and nobody is told."""
    transact = GroupCommit._transact

    def struck(*arguments):
        transact(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(GroupCommit, "_transact", struck)
    return monkeypatch


def test_a_process_that_goes_on_keeps_it_from_nobody(
    on_disk, path, struck_behind_the_commit
):
    with pytest.raises(KeyboardInterrupt):
        create(on_disk)
    struck_behind_the_commit.undo()

    def work(say):
        with SQLiteJournal(path) as journal:
            say(journal.claim("s").fence)

    with Child(work) as child:
        assert int(child.says.readline()) == 2


def test_a_fence_that_was_given_back_is_of_the_next(on_disk, monkeypatch):
    """What is let go is the claim that was lost, not another of the same fence."""
    grip, taken, fences = Later.grip, [], []
    monkeypatch.setattr(
        Later, "grip", lambda self, claim: taken.append(claim) or grip(self, claim)
    )
    for strike in moments(("journal/commits.py", "journal/holding.py")):
        if not struck(strike, create, on_disk):
            break
        lost = [claim.fence for claim in taken]
        # Noted, and not seen to before another may have its fence.
        taken.clear()
        claim = on_disk.create("t", request=REQUEST, ttl=DAY)
        fences += [claim.fence in lost]
        assert on_disk.meta("t").state is JournalState.LIVE
        on_disk.append(claim, text_events(1, 1))
        on_disk.delete("s")
        on_disk.delete("t")
    assert True in fences


def test_a_retired_journal_is_closed_when_a_claim_is_lost(
    path, struck_behind_the_commit
):
    """For nobody may use it again."""
    with SQLiteJournal(path) as retired, SQLiteJournal(path) as other:
        retired.retire()
        with pytest.raises(KeyboardInterrupt):
            create(retired)
        struck_behind_the_commit.undo()
        assert not list(path.parent.glob("*.owners/*"))
        assert other.meta("s").state is JournalState.ABANDONED
