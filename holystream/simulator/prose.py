"""Seeded prose: text that looks like an answer and is hard to carry whole.

Invariants: the same seed gives the same pieces for ever, and the first N pieces
do not depend on how many are asked for. Among the words are multi-byte
characters, clusters of several code points, characters beyond U+FFFF, line
feeds and U+2028 (which is a line end to `str.splitlines` and to nothing else).
"""

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from random import Random

_WORDS = tuple(
    """
    the a of and to in that it is for with as on by this an answer stream reads
    token after token while network drops bytes never lost twice writer holds
    one true text every reader trusts quiet engine turns slow river carries long
    letters across small bridge wind falls silent until morning light returns
    naïve café Zürich straße façade jalapeño Ångström λόγος слово мир
    東京 言葉 가나다 שלום e\u0301te\u0301 1024 3.14 `code` "quoted" back\\slash
    """.split()  # noqa: SIM905 - prose is read as prose
)
_RARE = ("🚀", "🎉", "👩‍🚀", "🇨🇭", "𝛑", "✅", "日本語🗾")
_RARE_SHARE = 0.06
_BREAKS = ((0.015, "\u2028"), (0.05, "\n\n"), (0.09, ".\n"), (0.17, ". "), (0.25, ", "))
_LONGEST = 8


def seeded(*parts: object) -> Random:
    """Return a generator that depends on the parts and on nothing else."""
    text = json.dumps(parts, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
    return Random(int.from_bytes(digest[:8], "big"))  # noqa: S311 - prose, no secret


def prose(random: Random, count: int) -> tuple[str, ...]:
    """Return the first `count` pieces of an endless text."""
    return tuple(islice(_cut(_words(random), random), count))


def pieces(text: str, random: Random) -> tuple[str, ...]:
    """Split a given text into pieces of one to eight characters."""
    return tuple(_cut(iter((text,)), random))


def _words(random: Random) -> Iterator[str]:
    while True:
        rare = random.random() < _RARE_SHARE
        words = _RARE if rare else _WORDS
        word = words[int(random.random() * len(words))]
        draw = random.random()
        yield word + next((text for limit, text in _BREAKS if draw < limit), " ")


def _cut(words: Iterator[str], random: Random) -> Iterator[str]:
    waiting, at = "", 0
    for word in words:
        waiting, at = waiting[at:] + word, 0
        while len(waiting) - at >= _LONGEST:
            size = 1 + int(random.random() * _LONGEST)
            yield waiting[at : at + size]
            at += size
    while at < len(waiting):
        size = 1 + int(random.random() * _LONGEST)
        yield waiting[at : at + size]
        at += size
