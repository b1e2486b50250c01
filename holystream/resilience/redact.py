"""Text from outside, made fit for an error message.

A server's words may hold anything: the key that it refuses, the prompt that it found
too long, escape sequences for the terminal that shows them. What leaves this module is
one printable line of at most `UPSTREAM_LIMIT` characters, with ``***`` in place of
every secret that the caller named and of what looks like a key.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

UPSTREAM_LIMIT: Final = 300
"""Characters of the server's own words that a message holds."""

_LOOKED_AT: Final = 2_000
"""Characters of the server's words in which quotes of a prompt are looked for."""

_QUOTE: Final = 24
"""As many characters in common with a prompt are a quote of it, not a coincidence."""

_SHORTEST_QUOTE: Final = 8
"""The same, for a key or a short prompt: at least half of it, and this many."""

_SHORTEST_SECRET: Final = 6
"""A shorter one is a word, and taking it out would only spoil the message."""

_KEY_LIKE: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|rk|hs)-[\w*-]{8,}|(?<=Bearer )\S{8,})"
    r"|(?<![\w-])[\w-]+\*{3,}[\w-]*",
    re.ASCII,
)
"""Keys that we were not told of, in the shape that the providers give or mask them."""


def one_line_each(secrets: Collection[str]) -> list[str]:
    """Return secrets as `fit_for_a_message` takes them."""
    forms = {form for secret in secrets for form in _forms(secret)}
    # Longest first: a key may begin like another one.
    return sorted(forms, key=len, reverse=True)


def _forms(secret: str) -> set[str]:
    """Return what a secret looks like in a message that may quote JSON, even twice."""
    escaped = json.dumps(secret)[1:-1]
    forms = (secret, escaped, json.dumps(escaped)[1:-1], repr(secret)[1:-1])
    return set(map(_one_line, forms))


def fit_for_a_message(text: str, secrets: Sequence[str] = ()) -> str:
    """Return text from outside on one line, printable, short and without secrets.

    Any part of a secret that is long enough to be a quote is taken out, too.

    Args:
        text: What a server said.
        secrets: What it must not repeat, as `one_line_each` returns it.
    """
    text = _one_line(text)
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    text = _KEY_LIKE.sub("***", text)[:_LOOKED_AT]
    text = _without_quotes(text, [each for each in secrets if _may_quote(text, each)])
    text = text.strip()
    if len(text) > UPSTREAM_LIMIT:
        return text[: UPSTREAM_LIMIT - 3].rstrip() + "..."
    return text


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    if text.isprintable():
        return text
    return _one_line("".join(char if char.isprintable() else " " for char in text))


def _shortest_quote(secret: str) -> int:
    return min(_QUOTE, max(_SHORTEST_QUOTE, len(secret) // 2))


def _may_quote(text: str, secret: str) -> bool:
    """Tell, quickly for a huge secret, whether ``text`` may hold a quote of it."""
    # Wherever a quote begins, one of these pieces lies in it whole.
    size = _shortest_quote(secret) // 2
    return any(
        text[start : start + size] in secret
        for start in range(0, len(text) - size + 1, size)
    )


def _without_quotes(text: str, secrets: Sequence[str]) -> str:
    kept = []
    start = 0
    while start < len(text):
        end = max((_end_of_quote(text, start, each) for each in secrets), default=start)
        kept.append("***" if end > start else text[start])
        start = max(end, start + 1)
    return "".join(kept)


def _end_of_quote(text: str, start: int, secret: str) -> int:
    """Return where a quote of ``secret`` from ``start`` on ends: there, if none is."""
    end = start + _shortest_quote(secret)
    if end > len(text) or text[start:end] not in secret:
        return start
    while end < len(text) and text[start : end + 1] in secret:
        end += 1
    return end
