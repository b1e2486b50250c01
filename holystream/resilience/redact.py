"""Text from outside, made fit for an error message.

A server's words may hold anything: the key that it refuses, the prompt that it found
too long, escape sequences for the terminal that shows them. What leaves this module is
one printable line of at most `UPSTREAM_LIMIT` characters, with ``***`` in place of
every secret that the caller named and of what looks like a key.
"""

from __future__ import annotations

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

_SHORTEST_SECRET: Final = 6
"""A shorter one is a word, and taking it out would only spoil the message."""

_KEY_LIKE: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:sk|rk|hs)-[\w*-]{8,}|(?<=Bearer )\S{8,})", re.ASCII
)
"""Keys that we were not told of, in the shape that the providers give them."""


def one_line_each(secrets: Collection[str]) -> list[str]:
    """Return secrets as `fit_for_a_message` takes them."""
    # Longest first: a key may begin like another one.
    return sorted(map(_one_line, secrets), key=len, reverse=True)


def fit_for_a_message(text: str, secrets: Sequence[str] = ()) -> str:
    """Return text from outside on one line, printable, short and without secrets.

    Of a secret as long as a prompt, any part that is quoted is taken out, too.

    Args:
        text: What a server said.
        secrets: What it must not repeat, as `one_line_each` returns it.
    """
    text = _one_line(text)
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    text = _KEY_LIKE.sub("***", text)[:_LOOKED_AT]
    for secret in secrets:
        if len(secret) > _QUOTE:
            text = _without_quotes(text, secret)
    text = text.strip()
    if len(text) > UPSTREAM_LIMIT:
        return text[: UPSTREAM_LIMIT - 3].rstrip() + "..."
    return text


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    if text.isprintable():
        return text
    return _one_line("".join(char if char.isprintable() else " " for char in text))


def _without_quotes(text: str, secret: str) -> str:
    kept = []
    start = 0
    while start < len(text):
        end = start + _QUOTE
        if end <= len(text) and text[start:end] in secret:
            while end < len(text) and text[start : end + 1] in secret:
                end += 1
            kept.append("***")
            start = end
        else:
            kept.append(text[start])
            start += 1
    return "".join(kept)
