"""What a server's headers say about the next attempt: how soon, and whether at all.

Headers are text from outside: whatever cannot be read counts as absent, and nothing
here raises. The order of the hints is that of the OpenAI and Anthropic SDKs; moments
are compared with the server's own ``Date``, because a caller's clock may be wrong.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_NUMBER = re.compile(r"\d{1,20}(?:\.\d{0,20})?", re.ASCII)
_DURATION = re.compile(r"(?:\d{1,12}(?:\.\d{1,12})?(?:ms|us|µs|ns|h|m|s))+", re.ASCII)
_DURATION_PART = re.compile(r"([\d.]+)(ms|us|µs|ns|h|m|s)", re.ASCII)
_UNITS = {
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
}

_RESET = re.compile(
    r"(?P<family>x-ratelimit|ratelimit|anthropic-ratelimit)-"
    r"(?:reset(?:-(?P<suffix>[\w-]+))?|(?P<infix>[\w-]+)-reset)",
    re.ASCII,
)
"""``[x-]ratelimit-reset[-tokens]`` and ``anthropic-ratelimit-tokens-reset``."""

_EPOCH_SECONDS = 1e9
_EPOCH_MILLISECONDS = 1e12
"""From here on a plain number is a moment, not a duration: the year 2001 in each."""

_TOO_MANY_REQUESTS = 429


def server_hint(
    headers: Mapping[str, str], wall_now: float, *, status: int | None = None
) -> float | None:
    """Return the seconds that the server asks to wait, or None if it does not.

    The first of these that can be read counts: ``retry-after-ms``; ``retry-after`` in
    seconds or as an HTTP date; on a 429 the rate limits' reset headers, of those
    limits whose ``remaining`` is 0 or not given, the longest.

    Args:
        headers: The response's headers; the case of their names does not matter.
        wall_now: Seconds since 1970, used where the server sent no ``Date``.
        status: The response's status.
    """
    names = {name.lower(): value.strip() for name, value in headers.items()}
    server_now = _http_date(names.get("date", ""))
    now = wall_now if server_now is None else server_now
    milliseconds = _number(names.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000.0
    retry_after = _retry_after(names.get("retry-after", ""), now)
    if retry_after is not None:
        return retry_after
    if status != _TOO_MANY_REQUESTS:
        # A healthy response carries these headers too, and a 500 says nothing by them.
        return None
    return max(_resets(names, now), default=None)


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return what ``x-should-retry`` says, or None if it says nothing."""
    for name, value in headers.items():
        if name.lower() == "x-should-retry":
            return {"true": True, "false": False}.get(value.strip().lower())
    return None


def _retry_after(text: str, now: float) -> float | None:
    seconds = _number(text)
    if seconds is not None:
        return seconds
    moment = _http_date(text)
    return None if moment is None else _until(moment, now)


def _resets(names: Mapping[str, str], now: float) -> Iterator[float]:
    for name, value in names.items():
        match = _RESET.fullmatch(name)
        if match is None:
            continue
        remaining = _number(names.get(name.replace("reset", "remaining"), ""))
        if remaining:
            continue
        seconds = _reset(value, now)
        if seconds is not None:
            yield seconds


def _reset(text: str, now: float) -> float | None:
    number = _number(text)
    if number is not None:
        if number >= _EPOCH_MILLISECONDS:
            return _until(number / 1000.0, now)
        return _until(number, now) if number >= _EPOCH_SECONDS else number
    duration = _duration(text)
    if duration is not None:
        return duration
    moment = _rfc3339(text)
    return None if moment is None else _until(moment, now)


def _until(moment: float, now: float) -> float | None:
    seconds = moment - now
    return seconds if math.isfinite(seconds) and seconds >= 0.0 else None


def _number(text: str) -> float | None:
    """Read ``12`` or ``12.5``; a sign, an exponent, "nan" and "inf" are garbage."""
    return float(text) if _NUMBER.fullmatch(text) else None


def _duration(text: str) -> float | None:
    """Read a Go duration, such as ``6m0s``, ``1.5s`` or ``120ms``, in seconds."""
    if not _DURATION.fullmatch(text):
        return None
    parts = _DURATION_PART.findall(text)
    return math.fsum(float(number) * _UNITS[unit] for number, unit in parts)


def _http_date(text: str) -> float | None:
    # Absurd fields end in any of these: a month 13, a zone of a million hours.
    try:
        moment = email.utils.parsedate_to_datetime(text)
        return _timestamp(moment)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _rfc3339(text: str) -> float | None:
    try:
        return _timestamp(dt.datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None


def _timestamp(moment: dt.datetime) -> float:
    if moment.tzinfo is None:  # "-0000", or no zone at all: UTC is meant
        moment = moment.replace(tzinfo=dt.UTC)
    return moment.timestamp()
