"""What went wrong on an attempt, as a typed error: `error_from` goes by the tables.

Where the server said itself what is wrong, by status or by an event inside the stream,
these are the tables of refusals.py; else it is that of mishaps.py. A message says what
happened and what to do, in that order. Text from upstream is untrusted: it is cut,
stripped of control characters and of every secret that the caller names.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Final

from holystream.errors import (
    APIError,
    AuthenticationError,
    StreamError,
    Verdict,
)
from holystream.resilience.hints import server_hint, should_retry
from holystream.resilience.mishaps import FAULTS, PROXY_LOGIN, UNSTREAMED
from holystream.resilience.redact import fit_for_a_message, one_line_each
from holystream.resilience.refusals import (
    OWN_KEY,
    is_api_error,
    meaning_of,
    overruled,
    status_of,
)
from holystream.wire.faults import FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from holystream.clocks import Timeouts
    from holystream.resilience.mishaps import Row
    from holystream.wire.faults import Fault, Refusal


def error_from(
    fault: Fault,
    refusal: Refusal | None,
    *,
    key_variable: str,
    timeouts: Timeouts,
    provider: str,
    own_key: bool = False,
    secrets: Collection[str] = (),
    reworded: Callable[[str], str] = str,
    wall_now: float | None = None,
) -> StreamError:
    """Build the typed error that a fault means, ready to be described and raised.

    ``verdict``, ``phase`` and ``retry_after`` are set; what only the stream knows is
    left to `StreamError.describe`.

    Args:
        fault: What ended the attempt.
        refusal: What the server said, read by the provider; None if it said nothing.
        key_variable: The environment variable that holds the API key.
        timeouts: The limits that the message may name.
        provider: What the message calls who answered: the endpoint's name.
        own_key: The key is its `Endpoint`'s own.
        secrets: Configured keys, and whatever else must not be in a message.
        reworded: Puts an advice into words that suit the caller.
        wall_now: Seconds since 1970, for hints that are moments where the server sent
            no ``Date``; the machine's clock by default.
    """
    unsaid = one_line_each(secrets)
    if refusal is not None and _speaks_for_the_api(fault, refusal):
        now = time.time() if wall_now is None else wall_now
        return _api_error(
            fault,
            refusal,
            key_variable=key_variable,
            provider=provider,
            own_key=own_key,
            secrets=unsaid,
            reworded=reworded,
            wall_now=now,
        )
    row = _row(fault, refusal)
    happened = f"{provider}: " + reworded(row.happened).format(
        connect=timeouts.connect,
        first_token=timeouts.first_token,
        idle=timeouts.idle,
        token_idle=timeouts.token_idle,
    )
    detail = fault.detail
    if refusal is not None and fault.kind is FaultKind.NOT_EVENT_STREAM:
        # What it is, and what it says. The body of a redirect says nothing.
        said = "it holds a whole answer" if refusal.whole_answer else refusal.message
        detail = ": ".join(filter(None, (detail, said)))
    detail = fit_for_a_message(detail, unsaid)
    if detail and detail != fault.kind.value:
        happened = f"{happened}: {detail}"
    error = row.error(_sentences(happened, reworded(row.advice)))
    error.verdict = row.verdict
    error.phase = fault.phase
    return error


def _row(fault: Fault, refusal: Refusal | None) -> Row:
    """Return what the table says of a fault, or what its particulars say better."""
    if fault.kind is FaultKind.NOT_EVENT_STREAM and refusal and refusal.whole_answer:
        return UNSTREAMED
    if fault.kind is FaultKind.PROXY and _PROXY_STATUS.search(fault.detail):
        return PROXY_LOGIN
    return FAULTS[fault.kind][fault.phase]


_PROXY_STATUS: Final = re.compile(r"\b407\b")


def _speaks_for_the_api(fault: Fault, refusal: Refusal) -> bool:
    if fault.kind in {FaultKind.STATUS, FaultKind.ERROR_EVENT}:
        return True
    # Some gateways answer 200 with an error in JSON and the true status inside it.
    return fault.kind is FaultKind.NOT_EVENT_STREAM and is_api_error(refusal)


def _api_error(
    fault: Fault,
    refusal: Refusal,
    *,
    key_variable: str,
    provider: str,
    own_key: bool,
    secrets: list[str],
    reworded: Callable[[str], str],
    wall_now: float,
) -> APIError:
    status = status_of(refusal)
    in_stream = fault.kind is FaultKind.ERROR_EVENT
    headers = fault.answer.headers if fault.answer is not None else {}
    hint = None
    if not in_stream:
        # The headers of a 200 speak of the request that was accepted, not of an error.
        hint = server_hint(headers, wall_now, status=status)
    if hint is None:
        hint = refusal.retry_after
    meaning = meaning_of(refusal, hinted=hint is not None, in_stream=in_stream)
    verdict = meaning.verdict
    if in_stream and verdict is Verdict.SERVER_ERROR:
        verdict = Verdict.INTERRUPTED
    elif not in_stream:
        verdict = overruled(verdict, by=should_retry(headers))
    code = fit_for_a_message(refusal.code or "", secrets) or None
    kind = fit_for_a_message(refusal.type or "", secrets) or None
    named = code or kind
    if in_stream:
        happened = f"{provider} reported an error inside the stream"
        named = named or (str(status) if status is not None else None)
    else:
        happened = f"{provider} answered {'' if status is None else status}".rstrip()
    if named is not None and named != str(status):
        happened += f" ({named})"
    said = fit_for_a_message(refusal.message, secrets)
    if said:
        happened += f": {said}"
    advice = reworded(meaning.advice).format(key_variable=key_variable)
    if own_key and meaning.error is AuthenticationError:
        advice = OWN_KEY
    error = meaning.error(
        _sentences(happened, advice), status=status, code=code, type=kind
    )
    error.verdict = verdict
    error.phase = fault.phase
    error.retry_after = hint
    return error


def _sentences(happened: str, advice: str) -> str:
    if not advice:
        return happened
    return f"{happened}{'' if happened.endswith(('.', '!', '?')) else '.'} {advice}"
