"""Adding records up. A `Ledger` never changes: with more records it is another one.

So whoever is struck by a signal while he counts leaves the last sums as they were, and
whoever reads them needs no lock.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, get_args

from holystream.telemetry.metrics import BUCKETS, Metrics, Numbers, Timing
from holystream.telemetry.records import AttemptOutcome, AttemptRecord, StreamOutcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holystream.telemetry.records import StreamRecord

MOST_MODELS: Final = 1_000
"""Models that are told apart: a program may ask for any name."""
OTHER: Final = "other"
"""The name of those that came later."""
LONGEST_LABEL: Final = 200
"""Characters of a provider's or a model's name that are kept."""


class Opened(NamedTuple):
    """A stream was opened."""

    provider: str
    endpoint: str
    model: str


Note: TypeAlias = "Opened | AttemptRecord | StreamRecord"
_Group: TypeAlias = tuple[str, str, str]


def label(name: str) -> str:
    """Return a name that a caller gave as it is shown.

    One that UTF-8 cannot say would spoil the whole page that it is on.
    """
    return name[:LONGEST_LABEL].encode("utf-8", "replace").decode("utf-8")


class Spread:
    """Durations by bucket. Not thread-safe."""

    __slots__ = ("buckets", "longest", "total")

    def __init__(self) -> None:
        self.total = 0.0
        self.longest = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.total += seconds
        self.longest = max(self.longest, seconds)
        self.buckets[bisect_left(BUCKETS, seconds)] += 1

    def merge(self, other: Spread) -> None:
        """Count all of the other's."""
        self.total += other.total
        self.longest = max(self.longest, other.longest)
        self.buckets = [mine + its for mine, its in zip(self.buckets, other.buckets)]  # noqa: B905 - of one length

    def timing(self) -> Timing:
        """Return it frozen."""
        return Timing(
            count=sum(self.buckets),
            total=self.total,
            longest=self.longest,
            buckets=tuple(self.buckets),
        )


_FIELDS: Final = tuple(field.name for field in dataclasses.fields(Numbers))


class Tally:
    """The sums of one kind of streams, named as in `Numbers`. Not thread-safe."""

    __slots__ = _FIELDS

    def __init__(self) -> None:
        self.opened = 0
        self.streams: dict[str, int] = dict.fromkeys(get_args(StreamOutcome), 0)
        self.stream_errors: dict[str, int] = {}
        self.attempts: dict[str, int] = dict.fromkeys(get_args(AttemptOutcome), 0)
        self.attempt_errors: dict[str, int] = {}
        self.retries: dict[str, int] = {}
        self.strategies: dict[str, int] = {}
        self.interruptions = 0
        self.recoveries = 0
        self.recovery_seconds = 0.0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.wasted_tokens = 0
        self.saved_tokens = 0
        self.ttft = Spread()
        self.duration = Spread()
        self.queue_wait = Spread()

    def add_attempt(self, record: AttemptRecord, cause: str | None) -> None:
        """Count one attempt, and the error that made it necessary."""
        _count(self.attempts, record.outcome)
        # What its caller ended has an error too, which is no fault.
        if record.error_type is not None and record.outcome == "failed":
            _count(self.attempt_errors, record.error_type)
        if record.number > 1:
            _count(self.retries, cause or "unknown")
        if record.strategy is not None:
            _count(self.strategies, record.strategy)

    def add_stream(self, record: StreamRecord) -> None:
        """Count one stream."""
        _count(self.streams, record.outcome)
        if record.error_type is not None and record.outcome == "error":
            _count(self.stream_errors, record.error_type)
        self.interruptions += record.interruptions
        if record.recoveries:
            self.recoveries += len(record.recoveries)
            self.recovery_seconds += sum(record.recoveries)
        usage = record.total_usage or record.usage
        if usage is not None:
            self.prompt_tokens += usage.prompt_tokens
            self.completion_tokens += usage.completion_tokens
        self.wasted_tokens += record.wasted_tokens
        self.saved_tokens += record.saved_tokens
        if record.ttft is not None:
            self.ttft.add(record.ttft)
        self.duration.add(record.duration)
        self.queue_wait.add(record.queued)

    def merge(self, other: Tally) -> None:
        """Count all that the other has counted."""
        for name in _FIELDS:
            mine, its = getattr(self, name), getattr(other, name)
            if isinstance(mine, Spread):
                mine.merge(its)
            elif isinstance(mine, dict):
                for key, number in its.items():
                    mine[key] = mine.get(key, 0) + number
            else:
                setattr(self, name, mine + its)

    def fields(self) -> dict[str, Any]:
        """Return the fields of `Numbers`, copied."""
        found = {}
        for name in _FIELDS:
            value = getattr(self, name)
            if isinstance(value, Spread):
                value = value.timing()
            elif isinstance(value, dict):
                value = dict(value)
            found[name] = value
        return found


def _count(numbers: dict[str, int], key: str) -> None:
    numbers[key] = numbers.get(key, 0) + 1


class Ledger:
    """All that was counted. Thread-safe: it never changes once it is made."""

    __slots__ = ("_causes", "_groups", "_models")

    def __init__(self) -> None:
        self._groups: dict[_Group, Tally] = {}
        self._models: set[tuple[str, str]] = set()
        # Why the next attempt of a stream will be made; gone when the stream ends.
        self._causes: dict[str, str] = {}

    def after(self, notes: Iterable[Note]) -> Ledger:
        """Return what it is with these, too, in the order in which they came."""
        ledger = Ledger()
        ledger._groups = self._groups.copy()
        ledger._models = self._models.copy()
        ledger._causes = causes = self._causes.copy()
        ours: dict[_Group, Tally] = {}
        for note in notes:
            named = (note.provider, note.endpoint, note.model)
            tally = ours.get(named) or ledger._own(named, ours)
            if isinstance(note, AttemptRecord):
                tally.add_attempt(note, causes.pop(note.stream_id, None))
                if note.outcome == "failed":
                    causes[note.stream_id] = note.error_type or "unknown"
            elif isinstance(note, Opened):
                tally.opened += 1
            else:
                causes.pop(note.stream_id, None)
                tally.add_stream(note)
        return ledger

    def _own(self, named: _Group, ours: dict[_Group, Tally]) -> Tally:
        """Return a tally that nobody has seen yet, and that may change therefore."""
        provider, endpoint, model = map(label, named)
        if (provider, model) not in self._models:
            if len(self._models) >= MOST_MODELS:
                model = OTHER
            self._models.add((provider, model))
        group = (provider, endpoint, model)
        tally = ours.get(group)
        if tally is None:
            tally = Tally()
            if group in self._groups:
                tally.merge(self._groups[group])
            self._groups[group] = ours[group] = tally
        return tally

    def active(self) -> dict[tuple[str, str], int]:
        """Return how many streams are open, by provider and model; 0 is left out."""
        found: dict[tuple[str, str], int] = {}
        for (provider, _, model), tally in self._groups.items():
            still = tally.opened - sum(tally.streams.values())
            found[provider, model] = found.get((provider, model), 0) + still
        return {who: number for who, number in found.items() if number > 0}

    def metrics(self) -> Metrics:
        """Add it up."""
        total = Tally()
        endpoints: dict[str, Tally] = {}
        models: dict[tuple[str, str], Tally] = {}
        for (provider, endpoint, model), tally in self._groups.items():
            total.merge(tally)
            endpoints.setdefault(endpoint, Tally()).merge(tally)
            models.setdefault((provider, model), Tally()).merge(tally)
        return Metrics(
            **total.fields(),
            endpoints={
                name: Numbers(**tally.fields()) for name, tally in endpoints.items()
            },
            models={name: Numbers(**tally.fields()) for name, tally in models.items()},
            active_by_model=self.active(),
        )
