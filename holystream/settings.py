"""What a client may be set to, checked before anything is sent.

Where it sends its requests is in destinations.py, what is given with a single call in
arguments.py. Whatever is wrong here is a `ConfigurationError`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from holystream.clocks import Timeouts, check_seconds
from holystream.errors import ConfigurationError
from holystream.events import Guarantee
from holystream.journal.shared import Journals
from holystream.resilience.retry import RetryPolicy
from holystream.resume import DEFAULT_STRATEGIES, ResumeStrategy, strategies

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from holystream.journal import Journal

_Given = TypeVar("_Given")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """How streams are recorded.

    Attributes:
        every: Characters of text that may come before they are stored; 0 stores what
            one read brought before the first of it is handed over.
        interval: Seconds that may pass before what came is stored; 0 as above.
        ttl: Seconds to keep a stream.
        best_effort: A stream goes on where it cannot be recorded.
    """

    every: int = 0
    interval: float = 0.0
    ttl: float = 86400.0
    best_effort: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.every, bool) or not _is(self.every, int) or self.every < 0:
            raise ConfigurationError(
                f"checkpoint_every= takes characters, 0 or more, not {self.every!r}"
            )
        if self.interval:
            check_seconds(self.interval, "checkpoint_interval")
        check_seconds(self.ttl, "journal_ttl")
        if not _is(self.best_effort, bool):
            raise ConfigurationError("journal_best_effort= takes True or False")

    def changed(self, *, every: int | None, interval: float | None) -> Recording:
        """Return a recording in which what is not None has changed.

        Raises:
            ConfigurationError: A value is wrong.
        """
        if every is None and interval is None:
            return self
        return dataclasses.replace(
            self,
            every=self.every if every is None else every,
            interval=self.interval if interval is None else interval,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a client has as its default and a stream may have otherwise.

    Attributes:
        patient: A stream waits for a breaker, and for whoever asks for quiet, instead
            of being sent away: it is one of many, and nobody waits for it alone.
    """

    model: str | None = None
    timeouts: Timeouts = dataclasses.field(default_factory=Timeouts)
    deadline: float | None = None
    retry: RetryPolicy = dataclasses.field(default_factory=RetryPolicy)
    resume: tuple[ResumeStrategy, ...] = strategies(DEFAULT_STRATEGIES)
    min_guarantee: Guarantee | None = None
    journals: Journals = dataclasses.field(default_factory=Journals)
    journal: Journal | None = None
    recording: Recording = dataclasses.field(default_factory=Recording)
    patient: bool = False

    @property
    def ways(self) -> tuple[str, ...]:
        """The names of the strategies, as ``resume=`` takes them."""
        return tuple(dict.fromkeys(way.name for way in self.resume))

    def changed(
        self,
        *,
        model: str | None = None,
        timeout: Timeouts | float | tuple[float, float] | None = None,
        deadline: float | None = None,
        retry: RetryPolicy | None = None,
        resume: Sequence[str] | None = None,
        min_guarantee: Guarantee | None = None,
    ) -> Settings:
        """Return settings in which what is not None has changed.

        Raises:
            ConfigurationError: A value is wrong.
        """
        changes: dict[str, Any] = {}
        if model is not None:
            changes["model"] = model
        if timeout is not None:
            changes["timeouts"] = Timeouts.of(timeout)
        if deadline is not None:
            changes["deadline"] = _deadline(deadline)
        if retry is not None:
            changes["retry"] = checked_retry(retry)
        if resume is not None:
            changes["resume"] = strategies(resume)
        if min_guarantee is not None:
            changes["min_guarantee"] = _guarantee(min_guarantee)
        return dataclasses.replace(self, **changes) if changes else self

    def recorded(
        self,
        journal: str | os.PathLike[str] | Journal | None,
        every: int | None,
        interval: float | None,
    ) -> Settings:
        """Return settings in which how a stream is recorded has changed.

        Raises:
            ConfigurationError: A value is wrong.
            JournalError: The journal cannot be opened.
        """
        changes: dict[str, Any] = {}
        if journal is not None:
            changes["journal"] = self.journals.of(journal)
        recording = self.recording.changed(every=every, interval=interval)
        if recording is not self.recording:
            changes["recording"] = recording
        return dataclasses.replace(self, **changes) if changes else self


def checked(given: _Given | None, kind: type[_Given], argument: str) -> _Given | None:
    """Return what was given for an argument, if it is of its kind, or None.

    Raises:
        ConfigurationError: It is something else.
    """
    if given is not None and not _is(given, kind):
        raise ConfigurationError(
            f"{argument} takes a {kind.__name__}, not {type(given).__name__}"
        )
    return given


def _is(value: object, kind: type) -> bool:
    """Check at run time what the annotations promise: not every caller has mypy."""
    return isinstance(value, kind)


def _deadline(seconds: float) -> float:
    check_seconds(seconds, "deadline")
    return seconds


def checked_retry(policy: RetryPolicy) -> RetryPolicy:
    """Return ``policy``, if it is one.

    Raises:
        ConfigurationError: It is something else.
    """
    if not _is(policy, RetryPolicy):
        raise ConfigurationError(
            "retry= takes a RetryPolicy; tenacity objects go into it: "
            f"RetryPolicy(wait=..., stop=..., retry=...), not {type(policy).__name__}"
        )
    return policy


def _guarantee(guarantee: Guarantee) -> Guarantee:
    if not _is(guarantee, Guarantee):
        raise ConfigurationError(
            "min_guarantee= takes a Guarantee, such as Guarantee.REPLAYED, not "
            f"{guarantee!r}"
        )
    return guarantee


def checked_verify(verify: bool | str) -> bool | str:  # noqa: FBT001 - as in requests
    """Return ``verify``, if it is a switch or the path of a CA bundle that exists.

    Raises:
        ConfigurationError: It is neither.
    """
    if _is(verify, bool) or (_is(verify, str) and Path(str(verify)).exists()):
        return verify
    raise ConfigurationError(
        f"verify= takes True, or the path of a CA bundle that exists, not {verify!r}"
    )
