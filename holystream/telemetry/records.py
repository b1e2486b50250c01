"""What is recorded of each attempt and of each stream: numbers and names, no content.

A record never holds a prompt, a word of an answer, a key, a header or a URL; endpoints
are called by their configured names, errors by the names of their classes.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from holystream.events import Usage

AttemptOutcome: TypeAlias = Literal[
    "finished", "failed", "cancelled", "closed", "abandoned"
]
StreamOutcome: TypeAlias = Literal["done", "error", "cancelled", "closed", "abandoned"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One attempt of a stream, once it has ended. Times are seconds.

    Attributes:
        stream_id: The stream's own id.
        number: Which attempt of its stream it was, from 1.
        provider: The provider's name.
        endpoint: The configured name of the endpoint.
        model: The model that was asked for.
        strategy: How it went on with the answer: "cursor", "prefill", "replay",
            "stitch" or "restart"; None for a first try and for a plain retry.
        outcome: "finished", "failed", or how the caller ended it: "cancelled",
            "closed", as by a Ctrl-C too, or "abandoned" to the garbage collector.
        error_type: The name of the error's class, or None without an error.
        verdict: The name of the `Verdict`, or None without an error.
        phase: The name of the `Phase` it failed in, or None without an error.
        queued: How long it waited in the pool's queue.
        connect: From its start to the headers of the answer, or None without any.
        first_content: From its start to its first content, or None without any.
        duration: From its start to its end.
        delay: How long was waited before it, for whatever reason but the queue; None
            without a wait, as before most first ones.
    """

    stream_id: str
    number: int
    provider: str
    endpoint: str
    model: str
    strategy: str | None
    outcome: AttemptOutcome
    error_type: str | None
    verdict: str | None
    phase: str | None
    queued: float
    connect: float | None
    first_content: float | None
    duration: float
    delay: float | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StreamRecord:
    """One stream, once it has ended, in whichever way. Times are seconds.

    Attributes:
        stream_id: The stream's own id.
        provider: The provider's name.
        model: The model that was asked for.
        response_model: The model that the server says it used, if it said so.
        endpoint: The configured name of the endpoint of the last attempt.
        priority: The priority's name.
        outcome: "done", "error", or how the caller ended it: "cancelled", "closed",
            as by a Ctrl-C too, or "abandoned" to the garbage collector.
        error_type: The name of the error's class, or None without an error.
        attempts: Connections that were tried.
        interruptions: Faults that were met on the way: attempts that failed, but for
            the last one of a stream that ends with an error, if it brought no content.
        strategies: How each attempt after them was made: as an attempt's strategy, and
            "retry" where there was no text to go on with.
        guarantee: The name of the `Guarantee` of what was delivered.
        finish_reason: Why the first choice ended, or None.
        queued: How long it waited in the pool's queue, all attempts together.
        ttft: From opening to the first content, or None without any.
        duration: From opening to the end.
        recoveries: From each interruption after which new content came, or from the
            first of several in a row, to that content.
        usage: Tokens used by the last attempt; None without a whole answer.
        total_usage: Tokens used by all attempts; None without a whole answer.
        wasted_tokens: Tokens, of prompt and answer, that interruptions wasted.
        saved_tokens: Tokens that would have been written again without resuming.
        request_id: The server's id of the last request, else ours.
        started_at: When it was opened, in seconds since 1970.
    """

    stream_id: str
    provider: str
    model: str
    response_model: str | None
    endpoint: str
    priority: str
    outcome: StreamOutcome
    error_type: str | None
    attempts: int
    interruptions: int
    strategies: tuple[str, ...]
    guarantee: str
    finish_reason: str | None
    queued: float
    ttft: float | None
    duration: float
    recoveries: tuple[float, ...]
    usage: Usage | None
    total_usage: Usage | None
    wasted_tokens: int
    saved_tokens: int
    request_id: str | None
    started_at: float
