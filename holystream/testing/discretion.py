"""What a recording must not hold: keys, and prompts that nobody asked to record.

What is hidden is replaced byte for byte by asterisks, so that every piece keeps its
length. A secret may arrive in two reads: a piece whose end could be the beginning of
one is held back until the next shows what it was.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from holystream.resilience.redact import may_be_secret, secrets_in_query

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SHORTEST_SECRET = 6
_QUOTE = 24
"""As many bytes in common with a prompt are a quote of it, not a coincidence."""
_NOT_PROMPTS = ("model", "role", "type")
_BLOCK = _QUOTE // 2
"""A quote holds one of these whole, wherever it begins."""
_SCHEMES = ("bearer", "basic", "digest", "apikey", "negotiate")
_KEY_LIKE = re.compile(
    rb"(?<![A-Za-z0-9])(?:(?:sk|rk|hs)-[\w*-]{8,}|(?<=Bearer )\S{8,})"
)
_HARMLESS = re.compile(
    r"content-(?:type|length|encoding)|transfer-encoding|cache-control|date|server|via|"
    r"retry-after(?:-ms)?|x-should-retry|(?:[\w-]+-)?ratelimit-[\w-]+|"
    r"(?:x-)?request-id|[\w-]+-processing-ms|x-accel-buffering|location"
)


def shown_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a response's headers as they are recorded, names in lower case.

    Those that are not known to be harmless have only asterisks for a value; of a
    redirect's target the path is left.
    """
    shown = {}
    for name, value in ((name.lower(), value) for name, value in headers.items()):
        if not _HARMLESS.fullmatch(name):
            shown[name] = "***"
        elif name == "location":
            shown[name] = urlsplit(value).path
        else:
            shown[name] = value
    return shown


class Discretion:
    """Hides the secrets of one request in what is answered. Not thread-safe.

    Args:
        headers: The request's own headers: their values may be secrets.
        prompt: The request's body, if it is one.
        url: The request's URL: a key may be in its query.
    """

    def __init__(
        self, headers: Mapping[str, str], prompt: bytes | None, url: str = ""
    ) -> None:
        secrets = set(_of_headers(headers)) | set(secrets_in_query(url))
        self._secrets = _longest_first({each.encode() for each in secrets})
        self._prompt = prompt
        self._is_answer = True
        self._held: list[tuple[float, bytes]] = []

    def begin(self, *, is_answer: bool) -> None:
        """Say what comes: an answer, or an error, which may quote the request."""
        self._is_answer = is_answer

    def hide(self, data: bytes) -> bytes:
        """Return ``data`` without the keys."""
        for secret in self._secrets:
            data = data.replace(secret, b"*" * len(secret))
        return data

    def take(self, at: float, data: bytes) -> Iterator[tuple[float, bytes]]:
        """Take what a read brought; yield the pieces that can be recorded now."""
        self._held.append((at, data))
        if self._is_answer and not self._may_go_on():
            yield from self.rest()

    def rest(self) -> Iterator[tuple[float, bytes]]:
        """Yield what is still held."""
        whole = self.hide(b"".join(data for _, data in self._held))
        if not self._is_answer:
            whole = _hide_prompt(_KEY_LIKE.sub(_asterisks, whole), self._prompt)
        held, self._held = self._held, []
        start = 0
        for at, data in held:
            yield at, whole[start : start + len(data)]
            start += len(data)

    def _may_go_on(self) -> bool:
        end = b"".join(data for _, data in self._held)
        return any(
            end.endswith(secret[:length])
            for secret in self._secrets
            for length in range(1, len(secret))
        )


def _of_headers(headers: Mapping[str, str]) -> Iterator[str]:
    for name, value in headers.items():
        for word in re.split(r"[\s;,]+", value):
            # Of "Bearer" and the key, the key; of a cookie, its value as well.
            for part in (word, word.partition("=")[2]):
                if may_be_secret(name, part) and part.lower() not in _SCHEMES:
                    yield part


def _longest_first(words: set[bytes]) -> list[bytes]:
    # A key may begin like another one.
    kept = [word for word in words if len(word) >= _SHORTEST_SECRET]
    return sorted(kept, key=len, reverse=True)


def _asterisks(match: re.Match[bytes]) -> bytes:
    return b"*" * len(match[0])


def _hide_prompt(data: bytes, body: bytes | None) -> bytes:
    """Hide what an error quotes of the request, whole or in part."""
    try:
        texts = set(_texts(json.loads(body or b"")))
    except (ValueError, RecursionError):
        texts = {(body or b"").decode("utf-8", "replace")}
    # As they are in JSON as well.
    written = texts.union(
        *(
            {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
            for text in texts
        )
    )
    quotable = _longest_first({text.encode("utf-8", "replace") for text in written})
    for text in quotable:
        data = data.replace(text, b"*" * len(text))
    blocks = {data[start : start + _BLOCK] for start in range(len(data) - _BLOCK + 1)}
    quotes = {quote for text in quotable for quote in _quotes(text, blocks)}
    hidden = bytearray(data)
    for start in range(len(data) - _QUOTE + 1):
        if data[start : start + _QUOTE] in quotes:
            hidden[start : start + _QUOTE] = b"*" * _QUOTE
    return bytes(hidden)


def _quotes(text: bytes, said: set[bytes]) -> Iterator[bytes]:
    """Yield the pieces of ``text`` that may be quoted where these blocks are said.

    A prompt may be megabytes long, and an error is short: only where one of its blocks
    is in the error does every piece have to be looked at.
    """
    behind = 0
    for block in range(0, len(text) - _BLOCK + 1, _BLOCK):
        if text[block : block + _BLOCK] in said:
            begin = max(behind, block + _BLOCK - _QUOTE)
            behind = min(block + 1, len(text) - _QUOTE + 1)
            for start in range(begin, behind):
                yield text[start : start + _QUOTE]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            if name not in _NOT_PROMPTS:
                yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
