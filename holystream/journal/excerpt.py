"""Which of a stream's events a reader gets: the same of every store."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from holystream.journal.base import Entries

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holystream.events import StreamEvent


class Excerpt(NamedTuple):
    """The events behind ``after``, up to ``last``.

    Attributes:
        after: The number of the last event that the reader has.
        last: That of the last one that it gets.
        finished: The stream has ended, and none follows.
    """

    after: int
    last: int
    finished: bool

    @classmethod
    def of(cls, next_seq: int, *, ended: bool, after: int, limit: int) -> Excerpt:
        """Return what a reader gets of a stream, of so many events at most."""
        last = min(next_seq - 1, after + limit)
        return cls(after, last, ended and last >= next_seq - 1)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing new."""
        return self.last <= self.after

    def nothing(self) -> Entries:
        """Return that there is nothing new."""
        return Entries(events=(), next_seq=self.after + 1, finished=self.finished)

    def out_of(self, events: Sequence[StreamEvent], first: int) -> Entries:
        """Return the events, out of some of which the first has this number."""
        skip = self.after + 1 - first
        wanted = tuple(events[skip : skip + self.last - self.after])
        return Entries(events=wanted, next_seq=self.last + 1, finished=self.finished)
