"""What a stream yields and what it ends with: frozen records, no behaviour.

The text of an answer is a fold over its events. ``str(event)`` is the text that an
event adds, so that printing every event prints the answer. Offsets are absolute, per
choice and channel, in code points. ``segment`` counts the connections that delivered
something: 0 for the first one, and one more after each interruption that was joined.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from holystream.errors import StreamError


class Guarantee(enum.IntEnum):
    """How sure it is that a text is one answer; a higher value is a stronger one.

    A completion's guarantee is that of its weakest segment.
    """

    PARTIAL = 0
    """Given up; the text is a true prefix of an answer."""
    RESTARTED = 1
    """The delivered text was withdrawn and the answer written anew."""
    STITCHED = 2
    """A new turn was asked to go on; an anchored overlap was dropped."""
    CONTINUED = 3
    """Continued from a prefix; the seam is not proven."""
    VERIFIED = 4
    """Continued from a prefix; the model produced the rewound tail again."""
    REPLAYED = 5
    """Generated again; the new text matched every delivered character."""
    VERBATIM = 6
    """Joined by a server's cursor: the same generation."""
    SINGLE = 7
    """One connection, no interruption."""

    def __str__(self) -> str:
        return self.name


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens that were read and written.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens of the answer, reasoning included.
        total_tokens: Both together.
        reasoning_tokens: Hidden or shown reasoning, part of ``completion_tokens``.
        cached_tokens: Tokens of the prompt that came from the provider's cache.
        estimated: True when the server reported none and they were counted here: one
            token for each content event, and one for four characters of the prompt.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    estimated: bool = False


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all events; ``str()`` of it is the text it adds."""

    def __str__(self) -> str:
        return ""


class Started(Event, frozen=True, kw_only=True):
    """The stream was opened; comes first, once."""

    stream_id: str
    model: str


class Connected(Event, frozen=True, kw_only=True):
    """An endpoint accepted the request and an event stream begins."""

    endpoint: str
    attempt: int
    request_id: str


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of the answer's text.

    ``raw`` is the data of the server's event it came from, undecoded.
    """

    text: str
    offset: int
    index: int = 0
    segment: int = 0
    raw: bytes = b""

    def __str__(self) -> str:
        return self.text


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of the model's shown reasoning: a channel of its own.

    What its channel had from ``offset`` on is void: a later segment thinks anew. One
    with an empty text only withdraws.
    """

    text: str
    offset: int
    index: int = 0
    segment: int = 0
    raw: bytes = b""

    def __str__(self) -> str:
        return ""


class RefusalDelta(msgspec.Struct, frozen=True, gc=False):
    """A piece of the model's refusal, which some APIs send in place of the text.

    What its channel had from ``offset`` on is void, as with `ReasoningDelta`.
    """

    text: str
    offset: int
    index: int = 0
    segment: int = 0
    raw: bytes = b""

    def __str__(self) -> str:
        return ""


class ToolCallDelta(Event, frozen=True, kw_only=True):
    """A piece of a tool call's arguments, for display only.

    A new ``segment`` begins the call's arguments anew; act on `ToolCall` alone.
    """

    call_index: int
    id: str
    name: str
    arguments: str
    index: int = 0
    segment: int = 0


class ToolCall(Event, frozen=True, kw_only=True):
    """A whole tool call, delivered once, its arguments parsed.

    Attributes:
        call_index: Its place among the calls of this choice.
        id: The provider's id of the call.
        name: The tool's name.
        arguments: The parsed JSON arguments.
        arguments_json: The arguments as the model wrote them.
        index: The choice.
    """

    call_index: int
    id: str
    name: str
    arguments: Any
    arguments_json: str
    index: int = 0


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How likely one token was.

    Attributes:
        token: The token's text; U+FFFD stands for part of a character.
        logprob: The natural logarithm of its probability.
        bytes: Its bytes, where the server tells them: those of several tokens may
            make one character.
        top: The likeliest tokens in its place, where they were asked for.
    """

    token: str
    logprob: float
    bytes: bytes | None = None
    top: tuple[TokenLogprob, ...] = ()


class Logprobs(Event, frozen=True, kw_only=True):
    """How likely the tokens of the delta before it were, if the request asked.

    After an interruption that was joined, the tokens on either side of the seam may
    differ from those of an unbroken answer; where a delta had been delivered before,
    even in part, those of its second coming are left out.

    Attributes:
        tokens: The tokens, in order.
        offset: Where their text begins, in code points of its channel.
        channel: What they are the tokens of: "text", "reasoning" or "refusal".
        index: The choice.
        segment: As on the delta.
    """

    tokens: tuple[TokenLogprob, ...]
    offset: int
    channel: str = "text"
    index: int = 0
    segment: int = 0


class UsageReport(Event, frozen=True, kw_only=True):
    """The server reported the tokens used so far."""

    usage: Usage


class Interrupted(Event, frozen=True, kw_only=True):
    """An attempt failed; what was received before it is kept."""

    error: StreamError
    attempt: int


class Waiting(Event, frozen=True, kw_only=True):
    """The next attempt is made in ``delay`` seconds.

    Attributes:
        delay: Seconds from the moment the fault was met, at most: it is made sooner
            where somebody who was shut would take it before.
        reason: Why this long: "backoff", "server hint", "circuit open" or "immediate".
        attempt: The number of the next attempt, from 1.
        attempts_left: Attempts without progress that remain after it, or None where
            a custom tenacity ``stop`` decides.
    """

    delay: float
    reason: str
    attempt: int
    attempts_left: int | None = None


class Resumed(Event, frozen=True, kw_only=True):
    """The answer goes on at ``offset`` after an interruption.

    Attributes:
        strategy: "cursor", "prefill", "replay", "stitch" or "restart".
        guarantee: What this seam earned.
        offset: Where the text goes on, in code points of choice 0.
        dropped: What came once more in front of the new text and was left out; empty
            where what came again was compared piece by piece.
    """

    strategy: str
    guarantee: Guarantee
    offset: int
    dropped: str = ""


class Rewound(Event, frozen=True, kw_only=True):
    """Text from ``offset`` on is withdrawn; the next deltas write it anew.

    So are all reasoning and refusals.

    Attributes:
        offset: Code points that stand, in every choice.
        discarded: The withdrawn text of choice 0.
    """

    offset: int
    discarded: str


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One of the ``n`` answers to a request.

    Attributes:
        index: Its number, from 0.
        text: The whole text.
        reasoning: The shown reasoning of the last segment that had any.
        refusal: The model's refusal, where the API sends it apart.
        tool_calls: The whole tool calls, in order.
        finish_reason: Why it ended, in the provider's own word.
    """

    index: int
    text: str
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None


class InterruptionCost(msgspec.Struct, frozen=True, kw_only=True):
    """What one interruption cost, and what going on saved against beginning anew.

    Tokens are estimates where the server reported none; that interrupted attempts are
    billed is assumed, for hardly any provider says so.

    Attributes:
        strategy: How the answer went on; "retry" where nothing had been delivered.
        wasted_prompt_tokens: Read a second time: the prompt, and with "prefill" and
            "stitch" what was written so far.
        wasted_completion_tokens: Written, and written again or not used.
        saved_completion_tokens: Written, and not written again.
    """

    strategy: str
    wasted_prompt_tokens: int = 0
    wasted_completion_tokens: int = 0
    saved_completion_tokens: int = 0


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """One finished answer.

    Attributes:
        stream_id: The stream's own id.
        model: The model the server says it used, else the one asked for.
        choices: The answers, ``n`` of them.
        guarantee: How sure it is that each text is one answer.
        usage: Tokens used by the last attempt.
        total_usage: Tokens used by all attempts; estimated where one was cut before
            it reported them.
        attempts: Connections that were tried.
        interruptions: Faults that were met on the way.
        interruption_costs: What each of them wasted and saved.
        request_id: The server's id of the last request, else ours.
        response_id: The ``id`` of the answer itself, if the server gave one.
        endpoint: The configured name of the endpoint that finished it.
        ttft: Seconds from opening to the first content, or None without any.
        duration: Seconds from opening to the end.
    """

    stream_id: str
    model: str
    choices: tuple[Choice, ...]
    guarantee: Guarantee
    usage: Usage
    attempts: int
    interruptions: int
    request_id: str | None
    response_id: str | None
    endpoint: str
    ttft: float | None
    duration: float
    total_usage: Usage = Usage()
    interruption_costs: tuple[InterruptionCost, ...] = ()

    @property
    def wasted_tokens(self) -> int:
        """Tokens, of prompt and answer, that interruptions wasted."""
        return sum(
            cost.wasted_prompt_tokens + cost.wasted_completion_tokens
            for cost in self.interruption_costs
        )

    @property
    def saved_tokens(self) -> int:
        """Tokens that would have been written again without resuming."""
        return sum(cost.saved_completion_tokens for cost in self.interruption_costs)

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.choices[0].text

    @property
    def reasoning(self) -> str:
        """The reasoning of the first choice."""
        return self.choices[0].reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls of the first choice."""
        return self.choices[0].tool_calls

    @property
    def finish_reason(self) -> str | None:
        """The finish reason of the first choice."""
        return self.choices[0].finish_reason

    def __str__(self) -> str:
        return self.text


class Finished(Event, frozen=True, kw_only=True):
    """The answer is complete; comes last, once."""

    completion: Completion


class Failed(Event, frozen=True, kw_only=True):
    """The stream ended without a complete answer.

    Told to ``on_event=`` alone: whoever iterates meets the error as an exception.
    """

    error: StreamError


StreamEvent = (
    Started
    | Connected
    | TextDelta
    | ReasoningDelta
    | RefusalDelta
    | ToolCallDelta
    | ToolCall
    | Logprobs
    | UsageReport
    | Interrupted
    | Waiting
    | Resumed
    | Rewound
    | Finished
)
"""Any event that a stream yields."""

CONTENT = (TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta, ToolCall)
"""The events that hold something the model generated."""
