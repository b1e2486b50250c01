"""What became of each stream of completion.py, and the sums of a row."""

from __future__ import annotations

import collections
import dataclasses
import math
from typing import TYPE_CHECKING

from holystream import StreamError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import _askers
    import _cutting

EXACT, SHORT, MIXED, LABELLED, ERROR, FALSE = KINDS = (
    "exact",
    "short",
    "doubled or spliced",
    "inexact and labelled so",
    "error",
    "false error",
)
WRONG = (SHORT, MIXED, FALSE)
"""What nobody can tell from a right answer, or from an error that tells the truth."""


def judge(answer: _askers.Answer, account: _cutting.Account) -> str:
    """Compare an answer with those that the server wrote from the start."""
    if answer.text in account.texts:
        return EXACT
    if not answer.proven:
        return LABELLED
    return SHORT if _begins(answer.text, account) else MIXED


def judge_error(error: Exception, account: _cutting.Account) -> str:
    """Say whether an error tells the truth: ours also say what had come."""
    if not isinstance(error, StreamError):
        return FALSE if isinstance(error, AssertionError) else ERROR
    partial = error.partial_text
    return ERROR if not partial or _begins(partial, account) else FALSE


def _begins(text: str, account: _cutting.Account) -> bool:
    return any(whole.startswith(text) for whole in account.texts)


@dataclasses.dataclass(slots=True)
class Tally:
    """The sums over many streams.

    ``server_wasted`` and what follows count answered streams only, and of these only
    those whose client says what it wasted.
    """

    streams: int = 0
    kinds: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    connections: int = 0
    cuts: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    unbroken_tokens: int = 0
    server_wasted: int = 0
    server_saved: int = 0
    said_wasted: int = 0
    said_saved: int = 0
    said: int = 0

    def enter(
        self, kind: str, account: _cutting.Account, answer: _askers.Answer | None
    ) -> None:
        """Add one stream."""
        self.streams += 1
        self.kinds[kind] += 1
        self.connections += account.connections
        self.cuts += account.cuts
        self.prompt_tokens += account.prompt_tokens
        self.generated_tokens += account.generated_tokens
        self.unbroken_tokens += account.unbroken
        if answer is not None and answer.wasted is not None:
            self.said += 1
            self.server_wasted += account.paid - account.unbroken
            self.server_saved += account.saved_tokens
            self.said_wasted += answer.wasted
            self.said_saved += answer.saved or 0

    def share(self, *kinds: str) -> float:
        """Return the share of these kinds, in percent."""
        return 100 * sum(self.kinds[kind] for kind in kinds) / max(self.streams, 1)

    def per_stream(self, name: str) -> float:
        """Return the mean of a sum."""
        return getattr(self, name) / max(self.streams, 1)

    def record(self) -> dict[str, object]:
        """Return all numbers as JSON has them."""
        names = [field.name for field in dataclasses.fields(self)]
        return {name: getattr(self, name) for name in names}


def total(tallies: Iterable[Tally]) -> Tally:
    """Add tallies up."""
    everything = Tally()
    for tally in tallies:
        for field in dataclasses.fields(Tally):
            value = getattr(everything, field.name) + getattr(tally, field.name)
            setattr(everything, field.name, value)
    return everything


def percent(share: float) -> str:
    """Write a share so that only all is 100 and only none is 0."""
    if 0 < share < 0.1:
        return "<0.1"
    return "0" if not share else f"{math.floor(share * 10) / 10:.1f}".removesuffix(".0")
