"""The names under which Prometheus sees the metrics: one table, for all who show them.

Every family has the labels ``provider`` and ``model``, and at most one more, whose
values are a fixed few or the names of error classes. Ids, users, endpoints and URLs are
never labels.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from holystream.telemetry.metrics import Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holystream.telemetry.metrics import Numbers

Kind: TypeAlias = Literal["counter", "gauge", "histogram", "summary"]

COMMON_LABELS: Final = ("provider", "model")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric.

    Attributes:
        name: As Prometheus shows it; a histogram and a summary have parts beside it.
        kind: Its type.
        help: What it counts, for a person.
        label: The label it has beside provider and model, or None.
        read: Its values by that label; by "" without one.
    """

    name: str
    kind: Kind
    help: str
    label: str | None = None
    read: Callable[[Numbers], Mapping[str, float | Timing]]

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of its labels."""
        return (*COMMON_LABELS, self.label) if self.label else COMMON_LABELS


def _recovery(numbers: Numbers) -> Timing:
    return Timing(
        count=numbers.recoveries, total=numbers.recovery_seconds, longest=0, buckets=()
    )


ACTIVE: Final = Family(
    name="holystream_streams_active",
    kind="gauge",
    help="Streams that are open",
    read=lambda numbers: {"": max(0, numbers.opened - numbers.ended)},
)
STREAMS: Final = Family(
    name="holystream_streams_total",
    kind="counter",
    help="Streams that ended, by outcome",
    label="outcome",
    read=lambda numbers: numbers.streams,
)
ERRORS: Final = Family(
    name="holystream_stream_errors_total",
    kind="counter",
    help="Streams that ended with an error, by the class of the error",
    label="reason",
    read=lambda numbers: numbers.stream_errors,
)
ATTEMPTS: Final = Family(
    name="holystream_attempts_total",
    kind="counter",
    help="Attempts that ended, by outcome",
    label="outcome",
    read=lambda numbers: numbers.attempts,
)
RETRIES: Final = Family(
    name="holystream_retries_total",
    kind="counter",
    help="Attempts after the first, by the class of the error before them",
    label="reason",
    read=lambda numbers: numbers.retries,
)
RESUMPTIONS: Final = Family(
    name="holystream_resumptions_total",
    kind="counter",
    help="Attempts that went on with a text, by how they did",
    label="strategy",
    read=lambda numbers: numbers.strategies,
)
INTERRUPTIONS: Final = Family(
    name="holystream_interruptions_total",
    kind="counter",
    help="Faults that streams met on their way; a refusal that ends one is none",
    read=lambda numbers: {"": numbers.interruptions},
)
RECOVERY: Final = Family(
    name="holystream_recovery_seconds",
    kind="summary",
    help="Seconds from a fault, or the first in a row, to new content",
    read=lambda numbers: {"": _recovery(numbers)},
)
TOKENS: Final = Family(
    name="holystream_tokens_total",
    kind="counter",
    help="Tokens read (input) and written (output) for whole answers, by all attempts; "
    "may be estimates",
    label="direction",
    read=lambda numbers: {
        "input": numbers.prompt_tokens,
        "output": numbers.completion_tokens,
    },
)
WASTED: Final = Family(
    name="holystream_wasted_tokens_total",
    kind="counter",
    help="Tokens that interruptions wasted; they are part of holystream_tokens_total",
    read=lambda numbers: {"": numbers.wasted_tokens},
)
SAVED: Final = Family(
    name="holystream_saved_tokens_total",
    kind="counter",
    help="Tokens that would have been written again without resuming",
    read=lambda numbers: {"": numbers.saved_tokens},
)
DURATION: Final = Family(
    name="holystream_stream_duration_seconds",
    kind="histogram",
    help="Seconds from opening a stream to its end",
    read=lambda numbers: {"": numbers.duration},
)
TTFT: Final = Family(
    name="holystream_time_to_first_token_seconds",
    kind="histogram",
    help="Seconds from opening a stream to its first content",
    read=lambda numbers: {"": numbers.ttft},
)
QUEUE_WAIT: Final = Family(
    name="holystream_queue_wait_seconds",
    kind="histogram",
    help="Seconds that a stream waited in the queue of the connection pool",
    read=lambda numbers: {"": numbers.queue_wait},
)

FAMILIES: Final = (
    ACTIVE,
    STREAMS,
    ERRORS,
    ATTEMPTS,
    RETRIES,
    RESUMPTIONS,
    INTERRUPTIONS,
    RECOVERY,
    TOKENS,
    WASTED,
    SAVED,
    DURATION,
    TTFT,
    QUEUE_WAIT,
)
"""All of them, in the order in which they are shown."""
