"""What a text says behind its escapes and encodings, and where.

A server that repeats a key may do so in JSON, in a URL, in HTML, in Base64 or in hex,
and in several of them at once. What is found here is for comparison only: the text that
is shown stays as it came, but for the places that these views of it give away.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import html
import re
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEVELS: Final = 3
"""How many escapes around each other are undone: JSON in JSON in a URL."""

_ESCAPE: Final = re.compile(
    r"""
    (?P<pair>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})
    | \\(?:u(?P<four>[0-9a-fA-F]{4})|U(?P<eight>00[01][0-9a-fA-F]{5}))
    | (?P<bytes>(?:\\x[0-9a-fA-F]{2})+)
    | \\(?P<letter>[\\"'/bfnrt])
    | (?P<percent>(?:%[0-9a-fA-F]{2})+)
    | (?P<entity>&\#?\w{1,10};)
    """,
    re.VERBOSE | re.ASCII,
)
_LETTERS: Final = dict.fromkeys("bfnrt", " ")
"""The white space that a letter stands for; any other character stands for itself."""

_BASE64: Final = re.compile(r"([A-Za-z0-9+/_-]{8,})={0,2}")
_HEX: Final = re.compile(r"[0-9a-fA-F](?:[ :.,-]?[0-9a-fA-F]){11,}")
_NO_HEX: Final = re.compile(r"[^0-9a-fA-F]")
_NO_TEXT: Final = re.compile(r"[\ufffd\x00-\x08\x0e-\x1f\x7f-\x9f]")
_SHORTEST: Final = 6
"""Characters; what is shorter may be read out of any word."""
_TO_STANDARD: Final = str.maketrans("-_", "+/")


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """A reading of a text.

    Attributes:
        text: On one line and printable, as `redact` makes its secrets.
        spans: For each character, where the original says it: from, to.
    """

    text: str
    spans: list[tuple[int, int]]

    @classmethod
    def of(cls, text: str) -> Self:
        """Return a text as it stands."""
        return cls(text, [(place, place + 1) for place in range(len(text))])

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Return where the original says what is from ``start`` to ``end`` here."""
        return self.spans[start][0], self.spans[end - 1][1]


def views(text: str) -> Iterator[View]:
    """Yield a text as it stands, and with each layer of its escapes undone."""
    view = View.of(text)
    for _ in range(_LEVELS + 1):
        yield view
        if "+" in view.text:
            # A space, to a form that was sent by a browser.
            yield View(view.text.replace("+", " "), view.spans)
        plainer = _unescaped(view)
        if plainer.text == view.text:
            return
        view = plainer


def decoded(view: View) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield what each run of Base64 or hex may say, and where the original has it."""
    for run in _BASE64.finditer(view.text):
        place = view.place(*run.span())
        # What stands before it without a space may be of the same letters.
        for skipped in range(4):
            data = _from_base64(run[1][skipped:].translate(_TO_STANDARD))
            yield from ((said, place) for said in _texts(data))
    for run in _HEX.finditer(view.text):
        place = view.place(*run.span())
        digits = _NO_HEX.sub("", run[0])
        for skipped in range(2):
            even = digits[skipped : len(digits) - (len(digits) - skipped) % 2]
            yield from ((said, place) for said in _texts(bytes.fromhex(even)))


def _from_base64(letters: str) -> bytes:
    if len(letters) % 4 == 1:
        letters = letters[:-1]
    try:
        return base64.b64decode(letters + "=" * (-len(letters) % 4))
    except binascii.Error:
        return b""


def _texts(data: bytes) -> Iterator[str]:
    """Yield what in these bytes may be text: most letters are no Base64."""
    for said in _NO_TEXT.split(data.decode("utf-8", "replace")):
        if len(said) >= _SHORTEST:
            yield said


def _unescaped(view: View) -> View:
    """Undo one layer of escapes."""
    chars: list[str] = []
    spans: list[tuple[int, int]] = []

    def add(char: str, start: int, end: int) -> None:
        first, last = view.place(start, end)
        if char.isspace() or not char.isprintable():
            char = " "
            if chars and chars[-1] == " ":
                spans[-1] = (spans[-1][0], last)
                return
        chars.append(char)
        spans.append((first, last))

    behind = 0
    for escape in _ESCAPE.finditer(view.text):
        for place in range(behind, escape.start()):
            add(view.text[place], place, place + 1)
        for char, start, end in _meaning(escape):
            add(char, start, end)
        behind = escape.end()
    for place in range(behind, len(view.text)):
        add(view.text[place], place, place + 1)
    return View("".join(chars), spans)


def _meaning(escape: re.Match[str]) -> Iterator[tuple[str, int, int]]:
    """Yield the characters that an escape stands for, and which part of it does."""
    start, end = escape.span()
    kind, said = escape.lastgroup, escape[escape.lastgroup or 0]
    if kind in {"percent", "bytes"}:
        mark = "%" if kind == "percent" else "\\x"
        data = bytes.fromhex(said.replace(mark, ""))
        for char in data.decode("utf-8", "surrogateescape"):
            size = (len(mark) + 2) * len(char.encode("utf-8", "surrogateescape"))
            yield char, start, start + size
            start += size
        return
    if kind == "pair":
        units = bytes.fromhex(said.replace("\\u", ""))
        text = units.decode("utf-16-be")
    elif kind == "letter":
        text = _LETTERS.get(said, said)
    elif kind == "entity":
        text = html.unescape(said)
    else:
        number = int(said, 16)
        text = chr(number) if number <= 0x10FFFF else said  # noqa: PLR2004 - Unicode's last
    for char in text:
        yield char, start, end
