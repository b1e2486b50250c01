"""The policies that are compared: each jitter, with a client that never gives up.

Times are seconds; base and cap are the defaults of `RetryPolicy` unless said otherwise.
"""

from __future__ import annotations

from typing import Any, Final

from _herd_outage import UNAVAILABLE, Outage

from holystream.errors import ConnectionFailed, Overloaded
from holystream.resilience.retry import JitterName, RetryPolicy

JITTERS: Final[dict[str, JitterName | None]] = {
    "none": None,
    "additive 0.25": "additive",
    "plusminus 0.25": "plusminus",
    "equal": "equal",
    "full": "full",
    "decorrelated": "decorrelated",
}
"""By the names that the tables have, from the least random to the most."""

PATIENT: Final = 1_000_000
"""Attempts of a client that does not give up: the waits are compared, not the stops."""

HINT: Final = 5.0
"""Seconds that the server asks for in the rows with ``Retry-After``."""


def patient(jitter: JitterName | None, **others: Any) -> RetryPolicy:
    """Return the policy of a client that tries until it is accepted."""
    return RetryPolicy(jitter=jitter, attempts=PATIENT, total_attempts=None, **others)


def scenario(clients: int, seconds: float = 5.0) -> Outage:
    """Return the outage of the tables: 2 % of the clients are taken back per window."""
    return Outage(clients=clients, seconds=seconds, capacity=max(1, clients // 50))


def refused(outage: Outage) -> Outage:
    """Return the same outage with refused connections in place of 503."""
    return _with(outage, ConnectionFailed("connection refused"))


def hinted(outage: Outage) -> Outage:
    """Return the same outage with ``Retry-After`` in every 503."""
    error = Overloaded(str(UNAVAILABLE), status=503)
    error.retry_after = HINT
    return _with(outage, error)


def _with(outage: Outage, refusal: Any) -> Outage:
    return Outage(
        clients=outage.clients,
        seconds=outage.seconds,
        capacity=outage.capacity,
        refusal=refusal,
    )
