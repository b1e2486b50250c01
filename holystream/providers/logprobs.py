"""Log probabilities of tokens, as servers report them beside the text.

Nothing here fails, and nothing is made up: a report of which any part cannot be read is
none, for a list with a gap would be taken for the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from holystream.events import (
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TokenLogprob,
)
from holystream.providers.surrogates import mend_whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holystream.providers.chunks import Delta

__all__ = ["Channel", "read_tokens", "weigh"]

Channel: TypeAlias = type[TextDelta] | type[ReasoningDelta] | type[RefusalDelta]
"""A text of an answer, by the event that brings a piece of it."""

_BYTE_LIMIT = 256


def weigh(
    report: Any,
    delta: Delta,
    index: int,
    segment: int,
    lengths: Mapping[Channel, Mapping[int, int]],
) -> list[Logprobs]:
    """Return the log probabilities of what a delta is about to add.

    Those of a tool call are left out: they belong to no text.

    Args:
        report: The ``logprobs`` beside the delta.
        delta: What is added.
        index: The choice that it is added to.
        segment: The segment that it is part of.
        lengths: How long each text of each choice is before that.
    """
    if not report:
        return []
    if not delta.content and (delta.reasoning_content or delta.reasoning):
        said: tuple[str, Channel] | None = "reasoning", ReasoningDelta
    elif delta.content or not (delta.tool_calls or delta.function_call):
        said = "text", TextDelta
    else:
        said = None
    weights = []
    for key, channel in (("content", said), ("refusal", ("refusal", RefusalDelta))):
        tokens = read_tokens(report, key)
        if tokens and channel is not None:
            name, kind = channel
            weights.append(
                Logprobs(
                    tokens=tokens,
                    offset=lengths[kind].get(index, 0),
                    channel=name,
                    index=index,
                    segment=segment,
                )
            )
    return weights


def read_tokens(report: Any, key: str) -> tuple[TokenLogprob, ...]:
    """Read one list of a choice's ``logprobs``: "content" or "refusal"."""
    if not isinstance(report, dict):
        return ()
    return _tokens(report.get(key)) or ()


def _tokens(listed: Any) -> tuple[TokenLogprob, ...] | None:
    """Return the tokens of a list; None if there is no such list."""
    if not isinstance(listed, list):
        return None
    tokens = [_token(each) for each in listed]
    read = tuple(token for token in tokens if token is not None)
    return read if len(read) == len(tokens) else None


def _token(report: Any) -> TokenLogprob | None:
    if not isinstance(report, dict):
        return None
    text, logprob = report.get("token"), report.get("logprob")
    if not isinstance(text, str) or not _is_number(logprob):
        return None
    return TokenLogprob(
        token=mend_whole(text),
        logprob=float(logprob),
        bytes=_bytes(report.get("bytes")),
        top=_tokens(report.get("top_logprobs")) or (),
    )


def _bytes(listed: Any) -> bytes | None:
    if not isinstance(listed, list):
        return None
    if not all(
        isinstance(each, int) and not isinstance(each, bool) and 0 <= each < _BYTE_LIMIT
        for each in listed
    ):
        return None
    return bytes(listed)


def _is_number(value: Any) -> TypeGuard[int | float]:
    # Wider than any float: it could not be made one.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, float) or abs(value) < 2**63
