"""What can be done to the deltas of a text: cut, alter, count as tokens.

The simulator's model has tokens as real ones do: a word with the space before it,
a number, a sign, one character of CJK. A text that ends within one, or in the
space before the next, is not one that the model would have written.
"""

import re
from collections.abc import Sequence
from itertools import accumulate

from holystream.simulator.prose import prose, seeded

_CJK = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(rf"\s*(?:[^\W\d_{_CJK}]+|\d+|\S)|\s+")


def tokens(text: str) -> tuple[str, ...]:
    """Return the tokens of the text."""
    return tuple(_TOKEN.findall(text))


def ends_whole(text: str, at: int) -> bool:
    """Tell whether a token, and not white space, ends before that character."""
    if not at:
        return True
    ends = accumulate(map(len, tokens(text)))
    return not text[at - 1].isspace() and any(end == at for end in ends)


def behind(deltas: Sequence[str], at: int) -> tuple[str, ...]:
    """Return what comes from that character on; the first may be part of one."""
    for index, delta in enumerate(deltas):
        if at < len(delta):
            return (delta[at:], *deltas[index + 1 :])
        at -= len(delta)
    return ()


def before(deltas: Sequence[str], at: int) -> tuple[str, ...]:
    """Return what comes before that character; the last may be part of one."""
    for index, delta in enumerate(deltas):
        if at <= len(delta):
            rest = (delta[:at],) if at else ()
            return (*deltas[:index], *rest)
        at -= len(delta)
    return tuple(deltas)


def astray(count: int, avoid: str, *seed: object) -> tuple[str, ...]:
    """Return deltas of some text that begins with none of these characters."""
    attempt = 0
    while True:
        text = prose(seeded(*seed, "astray", attempt), max(count, 1))
        if text[0][0] not in avoid:
            return text
        attempt += 1


def altered(deltas: Sequence[str], at: int, *seed: object) -> tuple[str, ...]:
    """Return another text that differs from that character on, if there is one."""
    rest = behind(deltas, at)
    if not rest:
        return tuple(deltas)
    return (*before(deltas, at), *astray(len(rest), rest[0][0], *seed))
