"""Times that double: of a backoff, of an open breaker, of a credential left aside."""

from __future__ import annotations


def doubled(seconds: float, times: int, *, cap: float) -> float:
    """Return seconds that were doubled so many times, and ``cap`` at most."""
    # Beyond 2 ** 1023 a float overflows with an exception instead of with inf.
    return min(cap, seconds * 2.0 ** min(times, 1000))
