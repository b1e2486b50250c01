"""What an answer cost: the tokens of all attempts, and what interruptions did to them.

Tokens that no server reported are counted: one for each content event, and one for
every four characters of the prompt. All figures are estimates then, and say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from holystream.errors import Verdict
from holystream.events import InterruptionCost, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holystream.resume.base import Continuation, ResumeStrategy

_CHARACTERS_PER_TOKEN = 4
_BILLED = (Verdict.NO_ANSWER, Verdict.INTERRUPTED)
"""After these the prompt was read, and may have been billed."""


class _Interruption(msgspec.Struct, frozen=True, array_like=True):
    strategy: str
    reads_prompt: bool
    """The next attempt has to read the prompt again."""
    reads_more: int
    """Tokens that it reads beside the prompt."""
    wasted: int
    saved: int


class _Attempt(msgspec.Struct, frozen=True, array_like=True):
    usage: Usage | None
    read_more: int
    written: int


class Spent(msgspec.Struct, frozen=True, array_like=True):
    """What a ledger holds, for the one that goes on with the answer elsewhere."""

    attempts: tuple[_Attempt, ...]
    interruptions: tuple[_Interruption, ...]
    kept: int
    read_more: int


class Ledger:
    """Counts the tokens of one answer. Not thread-safe: its exchange's own."""

    __slots__ = (
        "_attempts",
        "_interruptions",
        "_kept",
        "_prompt",
        "_read_more",
        "_settled",
    )

    def __init__(self, prompts: Sequence[str]) -> None:
        self._prompt = -(-sum(map(len, prompts)) // _CHARACTERS_PER_TOKEN)
        self._attempts: list[_Attempt] = []
        self._interruptions: list[_Interruption] = []
        # Tokens of earlier attempts that the present one builds on.
        self._kept = 0
        # What the present attempt read beside the prompt.
        self._read_more = 0
        # What stood when the last attempt began.
        self._settled = (0, 0, 0, 0)

    def began(self) -> None:
        """Note that an attempt begins, as was noted how it joins on."""
        self._settled = (
            len(self._attempts),
            len(self._interruptions),
            self._kept,
            self._read_more,
        )

    def interrupted(
        self,
        verdict: Verdict,
        *,
        strategy: ResumeStrategy | None,
        continuation: Continuation | None,
        generated: int,
        standing: int,
        usage: Usage | None,
    ) -> None:
        """Note how an attempt ended and how the next one joins on.

        Args:
            verdict: What the fault means.
            strategy: The way to go on; None for a plain retry.
            continuation: What it asks for.
            generated: Tokens that this attempt brought.
            standing: Tokens that the caller holds.
            usage: What the server reported of this attempt.
        """
        invested = self._kept + generated
        billed = verdict in _BILLED or generated > 0
        if strategy is not None and strategy.keeps:
            self._kept = invested
            self._note(strategy.name, reads_prompt=False, saved=invested)
            return
        if billed:
            self._attempts.append(_Attempt(usage, self._read_more, generated))
        name = "retry" if strategy is None else strategy.name
        if strategy is not None and strategy.extends and continuation is not None:
            self._kept = max(0, min(standing, invested) - continuation.rewound)
            self._read_more = self._kept + continuation.asked
            self._note(
                name,
                reads_prompt=billed,
                reads_more=self._read_more if billed else 0,
                wasted=invested - self._kept,
                saved=self._kept,
            )
        else:
            self._kept = self._read_more = 0
            self._note(name, reads_prompt=billed, wasted=invested)

    def retract(self) -> None:
        """Forget how the next attempt joins on: it goes another way."""
        attempts, interruptions, self._kept, self._read_more = self._settled
        del self._attempts[attempts:], self._interruptions[interruptions:]

    @property
    def spent(self) -> Spent | None:
        """What it held when the last attempt began; None before any interruption.

        How that attempt ended is for the one to note who makes the next.
        """
        attempts, interruptions, kept, read_more = self._settled
        if not interruptions:
            return None
        return Spent(
            tuple(self._attempts[:attempts]),
            tuple(self._interruptions[:interruptions]),
            kept,
            read_more,
        )

    def restore(self, spent: Spent | None) -> None:
        """Hold what another ledger held."""
        if spent is not None:
            self._attempts = list(spent.attempts)
            self._interruptions = list(spent.interruptions)
            self._kept, self._read_more = spent.kept, spent.read_more
            self.began()

    def usage(self, reported: Usage | None, *, generated: int) -> Usage:
        """Return the tokens of the last attempt."""
        if reported is not None:
            return reported
        # Of a generation that was joined by a cursor all attempts are one.
        kept = 0 if self._read_more else self._kept
        return _estimated(self._prompt + self._read_more, kept + generated)

    def total(self, last: Usage) -> Usage:
        """Return the tokens of all attempts, the last one's usage given."""
        if not self._attempts:
            return last
        prompt = self._prompt_of(last)
        spent = [
            _estimated(prompt + attempt.read_more, attempt.written)
            if attempt.usage is None
            else attempt.usage
            for attempt in self._attempts
        ]
        everything = (*spent, last)
        return Usage(
            prompt_tokens=sum(usage.prompt_tokens for usage in everything),
            completion_tokens=sum(usage.completion_tokens for usage in everything),
            total_tokens=sum(usage.total_tokens for usage in everything),
            reasoning_tokens=sum(usage.reasoning_tokens for usage in everything),
            cached_tokens=sum(usage.cached_tokens for usage in everything),
            estimated=any(usage.estimated for usage in everything),
        )

    def costs(self, last: Usage) -> tuple[InterruptionCost, ...]:
        """Return what each interruption cost, the last attempt's usage given."""
        prompt = self._prompt_of(last)
        return tuple(
            InterruptionCost(
                strategy=each.strategy,
                wasted_prompt_tokens=each.reads_prompt * prompt + each.reads_more,
                wasted_completion_tokens=each.wasted,
                saved_completion_tokens=each.saved,
            )
            for each in self._interruptions
        )

    def _prompt_of(self, last: Usage) -> int:
        if last.estimated or not last.prompt_tokens:
            return self._prompt
        return max(0, last.prompt_tokens - self._read_more)

    def _note(
        self,
        strategy: str,
        *,
        reads_prompt: bool,
        reads_more: int = 0,
        wasted: int = 0,
        saved: int = 0,
    ) -> None:
        self._interruptions.append(
            _Interruption(strategy, reads_prompt, reads_more, wasted, saved)
        )


def _estimated(prompt: int, completion: int) -> Usage:
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        estimated=True,
    )
