"""What was counted, as of one moment: frozen, and added up where it is asked for."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

BUCKETS: Final = tuple(round(0.01 * 2.0**step, 2) for step in range(17))
"""Upper bounds of the histograms in seconds: 0.01, twice as much each time, 655.36."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long something took, in seconds.

    Attributes:
        count: How often it was measured.
        total: All of them together.
        longest: The longest, or 0 without any.
        buckets: How many there were up to each of `BUCKETS` and above the one before;
            the last number is of those above all.
    """

    count: int
    total: float
    longest: float
    buckets: tuple[int, ...]

    @property
    def mean(self) -> float | None:
        """The mean, or None without any."""
        return self.total / self.count if self.count else None

    @property
    def p50(self) -> float | None:
        """Half of them were shorter: an estimate, at most one bucket off."""
        return self.quantile(0.5)

    @property
    def p99(self) -> float | None:
        """All but one in a hundred were shorter: an estimate as for `p50`."""
        return self.quantile(0.99)

    def quantile(self, share: float) -> float | None:
        """Return how long the given share of them took at most, or None without any.

        Within a bucket they are taken to lie evenly.
        """
        if not self.count:
            return None
        rank = share * self.count
        below = 0
        for (low, high), within in zip(
            itertools.pairwise((0.0, *BUCKETS, self.longest)), self.buckets, strict=True
        ):
            if within and below + within >= rank:
                high = min(high, self.longest)  # noqa: PLW2901 - nothing was longer
                return low + (high - low) * (rank - below) / within
            below += within
        return self.longest


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Numbers:
    """What was counted of some streams and of their attempts.

    Tokens are those of streams that are done, and include those of their interrupted
    attempts; they are estimates where the server reported none.

    Attributes:
        opened: Streams that were opened.
        streams: Streams that ended, by outcome: "done", "error", "cancelled", "closed"
            and "abandoned".
        stream_errors: Streams that ended with an error, by the name of its class; those
            that their callers ended are not among them.
        attempts: Attempts that ended, by outcome: "finished", "failed", "cancelled",
            "closed" and "abandoned".
        attempt_errors: Attempts that failed, by the name of the error's class.
        retries: Attempts after the first of their stream, by the name of the error
            that made them necessary; "unknown" where nobody said.
        strategies: Attempts that went on with a text, by how they did.
        interruptions: Faults that streams met on their way: attempts that failed, but
            for the last one of a stream that ends with an error, if it brought no
            content.
        recoveries: How often new content came after an interruption, or after several
            in a row, whether there had been any before or not.
        recovery_seconds: From the first of them to that content, all together.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens written.
        wasted_tokens: Tokens, read or written, that interruptions wasted.
        saved_tokens: Tokens that would have been written again without resuming.
        ttft: Opening to first content, of the streams that had any.
        duration: Opening to end.
        queue_wait: Waiting in the pool's queue, all attempts of a stream together.
    """

    opened: int
    streams: Mapping[str, int]
    stream_errors: Mapping[str, int]
    attempts: Mapping[str, int]
    attempt_errors: Mapping[str, int]
    retries: Mapping[str, int]
    strategies: Mapping[str, int]
    interruptions: int
    recoveries: int
    recovery_seconds: float
    prompt_tokens: int
    completion_tokens: int
    wasted_tokens: int
    saved_tokens: int
    ttft: Timing
    duration: Timing
    queue_wait: Timing

    @property
    def ended(self) -> int:
        """Streams that ended, in whichever way."""
        return sum(self.streams.values())

    @property
    def success_rate(self) -> float | None:
        """Share of the streams that were not ended by the caller and are done.

        None as long as there is none: a stream that was cancelled, closed or abandoned
        says nothing of the provider.
        """
        decided = self.streams["done"] + self.streams["error"]
        return self.streams["done"] / decided if decided else None

    @property
    def reconnects(self) -> int:
        """Attempts after the first of their stream."""
        return sum(self.retries.values())

    @property
    def mean_time_to_recover(self) -> float | None:
        """Mean seconds of the recoveries, or None if there was none."""
        return self.recovery_seconds / self.recoveries if self.recoveries else None

    @property
    def summary(self) -> str:
        """Its most important numbers, for a person: the fields have all of them."""
        ended = ", ".join(
            # The other outcomes are said of one stream as of many.
            f"{number} {outcome}{_s(number) if outcome == 'error' else ''}"
            for outcome, number in self.streams.items()
            if number
        )
        return (
            f"{self.opened} stream{_s(self.opened)} opened, {self.ended} ended"
            + (f" ({ended})" if ended else "")
            + f", {self.reconnects} reconnect{_s(self.reconnects)}"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.summary}>"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Metrics(Numbers):
    """What was counted of all streams of a client, as of one moment.

    Attributes:
        endpoints: The same by endpoint, which is called by its configured name. A
            stream counts where its last attempt went, an attempt where it went.
        models: The same by provider and model.
        active_by_model: Streams that are open, by provider and model; 0 is left out.
    """

    endpoints: Mapping[str, Numbers]
    models: Mapping[tuple[str, str], Numbers]
    active_by_model: Mapping[tuple[str, str], int]

    @property
    def active(self) -> int:
        """Streams that are open."""
        return sum(self.active_by_model.values())


def _s(number: int) -> str:
    """Return the ending of a noun of which there are so many."""
    return "" if number == 1 else "s"
