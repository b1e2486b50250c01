"""Token counts, as the many dialects report them.

Nothing here fails: a server that reports nonsense still gave an answer.
"""

from __future__ import annotations

from typing import Any, Final

from holystream.events import Usage

__all__ = ["read_usage"]

_LIMIT: Final = 2**53
"""No count is taken for larger than this, so that every store can hold it."""


def read_usage(report: Any) -> Usage | None:
    """Read a ``usage`` object; return None where it counts nothing.

    A count that is absent or unreadable is 0; the total is computed where absent.
    """
    if not isinstance(report, dict):
        return None
    prompt = _count(report, "prompt_tokens", "input_tokens")
    completion = _count(report, "completion_tokens", "output_tokens")
    total = _count(report, "total_tokens")
    if prompt is None and completion is None and total is None:
        return None
    prompt = prompt or 0
    completion = completion or 0
    cached = _count(
        _details(report, "prompt_tokens_details", "input_tokens_details"),
        "cached_tokens",
    )
    if cached is None:  # DeepSeek, Moonshot
        cached = _count(report, "prompt_cache_hit_tokens", "cached_tokens")
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion if total is None else total,
        reasoning_tokens=_count(
            _details(report, "completion_tokens_details", "output_tokens_details"),
            "reasoning_tokens",
        )
        or _count(report, "reasoning_tokens")
        or 0,
        cached_tokens=cached or 0,
    )


def _details(report: dict[str, Any], *keys: str) -> dict[str, Any]:
    for key in keys:
        details = report.get(key)
        if isinstance(details, dict):
            return details
    return {}


def _count(report: dict[str, Any], *keys: str) -> int | None:
    """Return the first of these that is a count of tokens."""
    for key in keys:
        value = report.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return min(value, _LIMIT)
    return None
