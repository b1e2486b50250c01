"""Calls of a journal out of a signal handler, in the midst of its thread's own call.

The handler must not wait for the call that it interrupted; what it did is stored when
that call is over.
"""

from __future__ import annotations

import pytest
from journal_events import DAY, REQUEST, numbers, text_events
from strikes import moments

from holystream.clocks import CancelToken
from holystream.journal import JournalState, Outcome

FILES = (
    *("journal/sqlite.py", "journal/commits.py", "journal/database.py"),
    *("journal/memory.py", "journal/watching.py", "journal/later.py"),
)

# What is interrupted: it gets the journal and a claim of the stream "ours".
WORKS = {
    "append": lambda journal, claim: journal.append(claim, text_events(2, 1)),
    "finish": lambda journal, claim: journal.finish(claim, Outcome.DONE, b""),
    "release": lambda journal, claim: journal.release(claim),
    "create": lambda journal, _: journal.create("new", request=REQUEST, ttl=DAY),
    "meta": lambda journal, _: journal.meta("ours"),
    "read": lambda journal, _: journal.read(
        "ours", after=1, wait=0.001, cancel=CancelToken()
    ),
}


def finish(journal, claim):
    journal.append(claim, text_events(2, 2), cursor=b"c")
    journal.append(claim, text_events(4, 1))
    journal.finish(claim, Outcome.CANCELLED, b"why")


def let_go(journal, claim):
    journal.append(claim, text_events(2, 3), cursor=b"c")
    journal.release(claim)


@pytest.mark.slow
@pytest.mark.parametrize("handler", [finish, let_go])
@pytest.mark.parametrize("work", WORKS)
def test_a_handler_ends_another_stream(journal, work, handler):
    for strike in moments(FILES):
        ours = journal.create("ours", request=REQUEST, ttl=DAY)
        theirs = journal.create("theirs", request=REQUEST, ttl=DAY)
        for claim in (ours, theirs):
            journal.append(claim, text_events(1, 1))
        with strike.by(lambda theirs=theirs: handler(journal, theirs)):
            WORKS[work](journal, ours)
        if not strike.struck:
            handler(journal, theirs)
        meta = journal.meta("theirs")
        assert numbers(journal.read("theirs").events) == [1, 2, 3, 4]
        assert meta.cursor == b"c"
        if handler is finish:
            assert (meta.outcome, meta.final) == (Outcome.CANCELLED, b"why")
        else:
            assert meta.state is JournalState.ABANDONED
        expected = [1, 2] if work == "append" else [1]
        assert numbers(journal.read("ours").events) == expected
        state = journal.meta("ours").state
        ended = {"finish": JournalState.FINISHED, "release": JournalState.ABANDONED}
        assert state is ended.get(work, JournalState.LIVE)
        for stream_id in ("ours", "theirs", "new"):
            journal.delete(stream_id)
