"""Where JSON that comes in pieces may end: the look before the costly one.

Whether a text is JSON only its parser knows, and to ask it at each piece is quadratic.
What is looked for here, at each character once, is the bracket that closes the first
one: before it nothing is whole, and behind it there is nothing but white space.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["JSONEnd"]

_MARKS: Final = re.compile(r'["\\{}\[\]]')
_SPACE: Final = " \t\r\n"


class JSONEnd:
    """Follows the brackets of a text. Not thread-safe.

    Attributes:
        reached: The text may be a JSON object or array, and is nothing more.
    """

    __slots__ = ("_depth", "_escaped", "_in_string", "_over", "reached")

    def __init__(self) -> None:
        self.reached = False
        self._depth = 0
        self._in_string = False
        # The next character stands behind a backslash.
        self._escaped = False
        # Something follows the end: it will never be JSON.
        self._over = False

    def feed(self, piece: str) -> None:
        """Take the next piece."""
        start = 0
        if self.reached or self._over:
            self._end(piece)
            return
        if piece and self._escaped:
            start, self._escaped = 1, False
        for mark in _MARKS.finditer(piece, start):
            place, char = mark.start(), mark[0]
            if place < start:
                continue
            if char == "\\":
                # Outside of a string it is an error, which the parser will find.
                start = place + 2
                self._escaped = start > len(piece)
            elif char == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += 1 if char in "{[" else -1
                if self._depth <= 0:
                    self._end(piece[place + 1 :])
                    return

    def _end(self, rest: str) -> None:
        self._over = self._over or bool(rest.strip(_SPACE))
        self.reached = not self._over
