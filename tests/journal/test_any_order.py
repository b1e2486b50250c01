"""Any interleaving of calls, on every store, against a model of a few lines."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
)
from journal_events import DAY, Now, numbers, text_events

from holystream.errors import (
    Fenced,
    JournalError,
    JournalUnavailable,
    StreamBusy,
    StreamExists,
    StreamFinished,
    StreamUnknown,
)
from holystream.journal import Gone, JournalState, MemoryJournal, Outcome
from holystream.journal.sqlite import SQLiteJournal

IDS = st.sampled_from(["a", "b", "c"])


@dataclasses.dataclass
class Expected:
    """What the model knows of a stream."""

    fence: int
    owner: object
    count: int = 0
    cursor: bytes | None = None
    outcome: Outcome | None = None
    stop: str | None = None


class Interleavings(RuleBasedStateMachine):
    """Several journals on one store, each an owner of its own."""

    claims = Bundle("claims")
    owners = 1

    def __init__(self):
        super().__init__()
        self.now = Now()
        # In memory where there is such a place: what a disk does is not looked at here.
        memory = Path("/dev/shm")
        where = memory if os.access(memory, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(dir=where))
        self.journals = [self.open() for _ in range(self.owners)]
        self.model: dict[str, Expected] = {}
        self.last_fence = 0

    def open(self):
        return MemoryJournal(now=self.now)

    def teardown(self):
        for journal in self.journals:
            journal.close()
        shutil.rmtree(self.folder)

    def journal(self, data):
        return data.draw(st.sampled_from(self.journals), "journal")

    def refusal(self, journal, claim):
        """Why a claim cannot be used; None if it can."""
        known = self.model.get(claim.stream_id)
        if journal not in self.journals:
            return JournalUnavailable
        if known is None:
            return StreamUnknown
        if known.fence != claim.fence or known.owner is not journal:
            return Fenced
        return StreamFinished if known.outcome else None

    def attempt(self, refusal, call, *arguments, **named):
        """Call, and meet the refusal that is due; return whether there was none."""
        if refusal is None:
            return call(*arguments, **named)
        with pytest.raises(JournalError) as caught:
            call(*arguments, **named)
        assert type(caught.value) is refusal
        return None

    @rule(target=claims, data=st.data(), stream_id=IDS)
    def create(self, data, stream_id):
        journal = self.journal(data)
        refusal = StreamExists if stream_id in self.model else None
        claim = self.attempt(refusal, journal.create, stream_id, request=b"r", ttl=DAY)
        if claim is None:
            return multiple()
        return self.taken(journal, claim, Expected(fence=claim.fence, owner=journal))

    @rule(target=claims, data=st.data(), stream_id=IDS)
    def claim(self, data, stream_id):
        journal = self.journal(data)
        known = self.model.get(stream_id)
        refusal = None
        if known is None:
            refusal = StreamUnknown
        elif known.outcome is not None:
            refusal = StreamFinished
        elif known.owner is not None:
            refusal = StreamBusy
        claim = self.attempt(refusal, journal.claim, stream_id)
        if claim is None:
            return multiple()
        known.owner, known.fence = journal, claim.fence
        assert claim.next_seq == known.count + 1
        return self.taken(journal, claim, known)

    def taken(self, journal, claim, known):
        assert claim.fence > self.last_fence
        self.last_fence = claim.fence
        self.model[claim.stream_id] = known
        return journal, claim

    @rule(
        taken=claims, count=st.integers(0, 4), cursor=st.none() | st.binary(max_size=2)
    )
    def append(self, taken, count, cursor):
        journal, claim = taken
        refusal = self.refusal(journal, claim)
        events = text_events(claim.next_seq, count)
        self.attempt(refusal, journal.append, claim, events, cursor=cursor)
        if refusal is None:
            known = self.model[claim.stream_id]
            known.count += count
            if cursor is not None:
                known.cursor = cursor

    @rule(taken=claims, outcome=st.sampled_from(Outcome))
    def finish(self, taken, outcome):
        journal, claim = taken
        refusal = self.refusal(journal, claim)
        self.attempt(refusal, journal.finish, claim, outcome, b"end")
        if refusal is None:
            self.model[claim.stream_id].outcome = outcome

    @rule(taken=claims)
    def release(self, taken):
        journal, claim = taken
        journal.release(claim)
        if self.refusal(journal, claim) is None:
            self.model[claim.stream_id].owner = None

    @rule(data=st.data(), stream_id=IDS)
    def request_stop(self, data, stream_id):
        known = self.model.get(stream_id)
        refusal = StreamUnknown if known is None else None
        self.attempt(refusal, self.journal(data).request_stop, stream_id, "by")
        if known is not None and known.outcome is None:
            known.stop = "by"

    @rule(data=st.data(), stream_id=IDS)
    def delete(self, data, stream_id):
        self.journal(data).delete(stream_id)
        self.model.pop(stream_id, None)

    @rule(data=st.data())
    def sweep(self, data):
        self.now.seconds += DAY
        over = {
            stream_id
            for stream_id, known in self.model.items()
            if known.outcome is not None or known.owner is None
        }
        assert self.journal(data).sweep(self.now() + 1) == len(over)
        for stream_id in over:
            del self.model[stream_id]

    @precondition(lambda self: self.owners > 1)
    @rule(data=st.data())
    def crash(self, data):
        """An owner goes, and all that it owned is abandoned."""
        gone = self.journals.index(self.journal(data))
        self.journals[gone].close()
        for known in self.model.values():
            if known.owner is self.journals[gone] and known.outcome is None:
                known.owner = None
        self.journals[gone] = self.open()

    @rule(
        data=st.data(), stream_id=IDS, after=st.integers(0, 9), limit=st.integers(1, 9)
    )
    def read(self, data, stream_id, after, limit):
        found = self.journal(data).read(stream_id, after=after, limit=limit)
        known = self.model.get(stream_id)
        if known is None:
            assert found == Gone()
            return
        wanted = list(range(1, known.count + 1))[after : after + limit]
        assert numbers(found.events) == wanted
        reached = after + len(wanted) >= known.count
        assert found.finished == (known.outcome is not None and reached)

    @invariant()
    def all_is_as_the_model_says(self):
        for journal in self.journals:
            infos = {info.stream_id: info for info in journal.streams()}
            assert infos.keys() == self.model.keys()
            for stream_id, known in self.model.items():
                info = infos[stream_id]
                assert (info.fence, info.next_seq) == (known.fence, known.count + 1)
                assert (info.outcome, info.stop_requested) == (
                    known.outcome,
                    known.stop,
                )
                assert journal.meta(stream_id).cursor == known.cursor
                if known.outcome is not None:
                    assert info.state is JournalState.FINISHED
                elif known.owner is None:
                    assert info.state is JournalState.ABANDONED
                else:
                    assert info.state is JournalState.LIVE
                every = journal.read(stream_id).events
                assert numbers(every) == list(range(1, known.count + 1))


class InterleavingsOnDisk(Interleavings):
    """The same, in one file that three journals share."""

    owners = 3

    def open(self):
        return SQLiteJournal(self.folder / "journal.db", now=self.now)


TestMemory = Interleavings.TestCase
TestMemory.settings = settings(max_examples=100, deadline=None)
TestSQLite = pytest.mark.slow(InterleavingsOnDisk.TestCase)
TestSQLite.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
