"""The demo's page: text that streams in, remarks that break into it, verdicts.

Plain text of at most 80 columns, the same on a terminal and in a file. After a remark
amid the text, the text goes on in the column where it stopped, so that one sees that
nothing is missing and nothing came twice.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from holystream.cli.console import Output

WIDTH: Final = 80
_TEXT_INDENT: Final = "    "
_REMARK_INDENT: Final = "  > "


class Screen:
    """Writes the demo's lines. Not thread-safe: one thread shows what it sees."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._column = 0
        self._resume_at = 0

    def line(self, text: str = "") -> None:
        """Write a paragraph; what is too long for a line is wrapped."""
        self._end_line()
        self._output.write(f"{textwrap.fill(text, WIDTH)}\n")

    def verbatim(self, text: str) -> None:
        """Write lines as they are, indented."""
        self._end_line()
        self._output.write(f"{textwrap.indent(text.strip(), '  ')}\n")

    def verdict(self, claim: str, *, holds: bool) -> None:
        """Write whether a claim holds."""
        self._end_line()
        mark = "ok" if holds else "FAILED"
        self._output.write(f"  [{mark}] {claim}\n")

    def piece(self, text: str) -> None:
        """Write a piece of streamed text, its own line ends included."""
        first, *others = text.split("\n")
        self._stretch(first)
        for part in others:
            self._output.write("\n")
            self._column = self._resume_at = 0
            self._stretch(part)

    def remark(self, text: str) -> None:
        """Break into the text with something that has just happened."""
        column = self._column or self._resume_at
        self._end_line()
        self._resume_at = column
        self._output.write(
            textwrap.fill(
                text,
                WIDTH,
                initial_indent=_REMARK_INDENT,
                subsequent_indent=" " * len(_REMARK_INDENT),
            )
            + "\n"
        )

    def _stretch(self, text: str) -> None:
        if not text:
            return
        if not self._column:
            indent = " " * self._resume_at if self._resume_at else _TEXT_INDENT
            self._output.write(indent)
            self._column, self._resume_at = len(indent), 0
        self._output.write(text)
        self._column += len(text)

    def _end_line(self) -> None:
        if self._column:
            self._output.write("\n")
        self._column = self._resume_at = 0
