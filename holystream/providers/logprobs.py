"""Log probabilities of tokens, as servers report them beside the text.

Nothing here fails, and nothing is made up: a report of which any part cannot be read is
none, for a list with a gap would be taken for the whole.
"""

from __future__ import annotations

from typing import Any, TypeGuard

from holystream.events import TokenLogprob
from holystream.providers.surrogates import mend_whole

__all__ = ["read_tokens"]

_BYTE_LIMIT = 256


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
