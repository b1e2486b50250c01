"""Strings that can be encoded, from JSON that escapes a character in two halves.

JSON may escape a character beyond U+FFFF as two surrogates, and a server that cuts its
text at UTF-16 units sends one at the end of a delta and the other at the start of the
next. Python keeps a half as a lone surrogate, and the caller's ``.encode()`` raises.
"""

from __future__ import annotations

__all__ = ["REPLACEMENT", "mend", "mend_whole"]

REPLACEMENT = "\ufffd"
"""Stands for what cannot be read."""


def mend(text: str) -> tuple[str, str]:
    """Join halves of pairs and replace what stays alone by U+FFFD.

    Returns:
        The text that can be encoded, and the high surrogate at its end that must wait
        for the next piece; empty if there is none.
    """
    if text.isascii():
        return text, ""
    waiting = ""
    if "\ud800" <= text[-1] <= "\udbff":
        text, waiting = text[:-1], text[-1]
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole, waiting


def mend_whole(text: str) -> str:
    """Do the same to a text that no other piece follows."""
    whole, waiting = mend(text)
    return whole + REPLACEMENT if waiting else whole
