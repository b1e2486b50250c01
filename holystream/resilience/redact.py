"""Text from outside, made fit for an error message.

A server's words may hold anything: the key that it refuses, the prompt that it found
too long, escape sequences for the terminal that shows them. What leaves this module is
one printable line of at most `UPSTREAM_LIMIT` characters, with ``***`` in place of
every secret that the caller named, however it is written, in whatever case, and of what
looks like a key.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import msgspec

from holystream.resilience.disguises import decoded, views

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

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

_SHORTEST_VALUE: Final = 20
"""The same for a value whose name is not that of a secret."""

_LONGEST_KEY: Final = 512
"""A longer one is a prompt, which an id repeats as it stands if at all."""

_KEY_LIKE: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:(?i:sk|rk|hs)-[\w*-]{8,}|(?<=Bearer )\S{8,})"
    r"|(?<![\w-])[\w-]+\*{3,}[\w-]*",
    re.ASCII,
)
"""Keys that we were not told of, in the shape that the providers give or mask them."""

_SECRET_NAME: Final = re.compile(
    "auth|key|token|secret|cookie|pass|pwd|credential|session|sig", re.IGNORECASE
)

_PROMPT_NAME: Final = re.compile(
    "content|input|instruction|message|prompt|query|question|text", re.IGNORECASE
)


def may_be_secret(name: str, value: str) -> bool:
    """Whether the value of a header, or in a query, should not be repeated."""
    named = _SECRET_NAME.search(name) is not None
    return len(value) >= (_SHORTEST_SECRET if named else _SHORTEST_VALUE)


def secrets_in_query(url: str) -> list[str]:
    """Return what may be secret in the query of a URL: as it means, and as written."""
    try:
        query = urlsplit(url).query
    except ValueError:
        return []
    pairs = parse_qsl(query)
    written = (pair.partition("=") for pair in query.split("&"))
    pairs += [(unquote_plus(name), value) for name, _, value in written]
    return [value for name, value in pairs if may_be_secret(name, value)]


def secrets_in_body(body: bytes | None) -> list[str]:
    """Return what may be secret in a request's JSON: keys, prompts and long texts."""
    if body is None:
        return []
    try:
        # The whole may be one text, and that a prompt.
        waiting: list[tuple[str, Any]] = [("text", msgspec.json.decode(body))]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    found: list[str] = []
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, str):
            prompts = len(value) >= _SHORTEST_SECRET and _PROMPT_NAME.search(name)
            if prompts or may_be_secret(name, value):
                found.append(value)
        elif isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += ((name, each) for each in value)
    return found


def fit_for_an_id(said: str, secrets: Collection[str]) -> str:
    """Return an id that a server gave, without the secrets that it may hold.

    Quick, where it holds none: an answer waits for it.
    """
    if any(
        len(secret) >= _SHORTEST_SECRET and _may_be_of(said, secret)
        for secret in secrets
    ):
        return fit_for_a_message(said, one_line_each(secrets))
    return said


def _may_be_of(said: str, secret: str) -> bool:
    if len(secret) > _LONGEST_KEY:
        return _may_quote(said, secret)
    return _may_quote(in_one_case(said), in_one_case(secret))


def one_line_each(secrets: Collection[str]) -> list[str]:
    """Return secrets as `fit_for_a_message` takes them: on one line, in one case."""
    # Longest first: a key may begin like another one.
    found = {in_one_case(_one_line(secret)) for secret in secrets}
    return sorted(found, key=len, reverse=True)


def in_one_case(text: str) -> str:
    """Return text for comparing: without its case, each character in its place."""
    # The one letter that becomes two, and the one that looks at its neighbours.
    text = text.replace("\u0130", "i")
    return text.replace("\u03a3", "\u03c3").replace("\u03c2", "\u03c3").lower()


def fit_for_a_message(text: str, secrets: Sequence[str] = ()) -> str:
    """Return text from outside on one line, printable, short and without secrets.

    Any part of a secret that is long enough to be a quote is taken out, too, and so is
    one in JSON, percent signs, HTML, Base64 or hex.

    Args:
        text: What a server said.
        secrets: What it must not repeat, as `one_line_each` returns it.
    """
    text = _one_line(text)
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = _without(text, secret)
    text = _KEY_LIKE.sub("***", text)[:_LOOKED_AT]
    if secrets:
        text = _without_quotes(text, secrets)
    text = text.strip()
    if len(text) > UPSTREAM_LIMIT:
        return text[: UPSTREAM_LIMIT - 3].rstrip() + "..."
    return text


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    if text.isprintable():
        return text
    return _one_line("".join(char if char.isprintable() else " " for char in text))


def _without(text: str, secret: str) -> str:
    compared = in_one_case(text)
    kept = []
    behind = 0
    while (start := compared.find(secret, behind)) >= 0:
        kept.append(text[behind:start])
        behind = start + len(secret)
    return "***".join([*kept, text[behind:]])


def _shortest_quote(secret: str) -> int:
    if len(secret) <= _SHORTEST_QUOTE:
        return max(_SHORTEST_SECRET, len(secret))
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
    hidden: list[tuple[int, int]] = []
    for view in views(text):
        quotes = _quotes(in_one_case(view.text), secrets)
        hidden += (view.place(*quote) for quote in quotes)
        hidden += (
            place
            for said, place in decoded(view)
            if any(_quotes(in_one_case(_one_line(said)), secrets))
        )
    kept = []
    behind = 0
    for start, end in sorted(hidden):
        if start >= behind:
            kept += [text[behind:start], "***"]
        behind = max(behind, end)
    return "".join([*kept, text[behind:]])


def _quotes(text: str, secrets: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield where ``text``, in one case, repeats enough of a secret: from, to."""
    named = [each for each in secrets if _may_quote(text, each)]
    start = 0
    while named and start < len(text):
        end = max(_end_of_quote(text, start, each) for each in named)
        if end > start:
            yield start, end
        start = max(end, start + 1)


def _end_of_quote(text: str, start: int, secret: str) -> int:
    """Return where a quote of ``secret`` from ``start`` on ends: there, if none is."""
    end = start + _shortest_quote(secret)
    if end > len(text) or text[start:end] not in secret:
        return start
    while end < len(text) and text[start : end + 1] in secret:
        end += 1
    return end
