"""What goes to stdout and stderr, whatever they are: a terminal, a file, a closed pipe.

The text of an answer goes to stdout exactly as it came, except on a terminal: there,
control characters are made visible, because a model's text must not move the cursor or
set the window's title. Everything else goes to stderr, one line each; what is only true
for a while vanishes again from a terminal. Nothing is coloured.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import unicodedata
from typing import Final

_TO_PICTURES: Final[dict[int, str | None]] = {
    **{code: chr(0x2400 + code) for code in range(0x20)},
    **dict.fromkeys(range(0x7F, 0xA0), "\ufffd"),
    ord("\n"): "\n",
    ord("\t"): "\t",
    # Shown, the CR of a CRLF would be noise; obeyed, a lone one would overwrite a line.
    ord("\r"): None,
}


class ReaderGone(Exception):
    """Whoever reads our output has closed it."""


class OutputFailed(Exception):
    """The output cannot be written: no space, or no standard output at all."""


class Output:
    """Writes to stdout at once, and remembers what it has written. Not thread-safe.

    Attributes:
        written: Characters that were given to `write`.
        is_terminal: A person reads it.
    """

    def __init__(self) -> None:
        self.written = 0
        self.is_terminal = sys.stdout is not None and sys.stdout.isatty()
        self._mid_line = False
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A character that the terminal cannot show must not cost the rest.
            sys.stdout.reconfigure(errors="replace")

    def write(self, text: str) -> None:
        """Write and flush.

        Raises:
            ReaderGone: Nobody reads it any more.
            OutputFailed: It cannot be written.
        """
        if text:
            self._write(text, self.written + len(text))

    def _write(self, text: str, written: int) -> None:
        """Write it; so many characters are written then."""
        if sys.stdout is None:
            raise OutputFailed("it is closed")
        shown = text.translate(_TO_PICTURES) if self.is_terminal else text
        mid_line = not text.endswith("\n")
        try:
            # Counted first: what an interrupt leaves in the buffer is written at the
            # end. No call in between: who goes on behind what was counted would miss
            # what a Ctrl-C there left out.
            self.written, self._mid_line = written, mid_line
            sys.stdout.write(shown)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise ReaderGone from error
        except OSError as error:
            raise OutputFailed(error.strerror or str(error)) from error

    def end_line(self) -> None:
        """Begin a new line, unless one has just begun; not counted as written."""
        if self._mid_line:
            self._write("\n", self.written)

    @property
    def mid_line(self) -> bool:
        """A person reads it, and the last line has no end yet."""
        return self.is_terminal and self._mid_line

    def remark(self, text: str) -> None:
        """Say something on stderr, on a line of its own even amid an answer."""
        if self.is_terminal:
            self.end_line()
        say(text)


class Status:
    """A line on stderr that says what is waited for. Not thread-safe.

    A terminal shows it until `clear`, unless it stands amid an answer: there, a line
    that vanished would leave an answer broken in two, and nothing that says why. In a
    file or a pipe it is a line like all others.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._columns = 0

    def show(self, text: str) -> None:
        """Say something, in place of what was said before."""
        self.clear()
        columns = _columns_of_stderr()
        if not columns or self._output.mid_line:
            self._output.remark(text)
            return
        line = f"holystream: {_on_one_line(text)}"
        # First, so that a Ctrl-C in between leaves nothing behind.
        self._columns = columns
        _to_stderr(_cut(line, columns))

    def clear(self) -> None:
        """Take back what a terminal shows, if it does."""
        if self._columns:
            _to_stderr(f"\r{' ' * self._columns}\r")
            self._columns = 0


def _columns_of_stderr() -> int:
    """Return how long a line may be that is to vanish again; 0 if none can."""
    if sys.stderr is None or not sys.stderr.isatty():
        return 0
    columns = 0
    with contextlib.suppress(OSError, ValueError):
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    # In the last column some terminals begin a new line, which no CR takes back.
    return max((columns or 80) - 1, 0)


def _cut(line: str, columns: int) -> str:
    """Cut a line where a terminal would break it: some characters are two wide."""
    for place, char in enumerate(line):
        columns -= 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if columns < 0:
            return line[:place]
    return line


def is_watched() -> bool:
    """Whether a person sees both the text and what is said about it."""
    return all(
        stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr)
    )


def say(text: str) -> None:
    """Write one line to stderr; it may be closed, for all we care."""
    _to_stderr(f"holystream: {_on_one_line(text)}\n")


def clear_line() -> None:
    """Clear what a terminal shows on the line where the next one is to be said."""
    if columns := _columns_of_stderr():
        _to_stderr(f"\r{' ' * columns}\r")


def _on_one_line(text: str) -> str:
    return " ".join(text.split()).translate(_TO_PICTURES)


def _to_stderr(text: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()


def silence_stdout() -> None:
    """Send what is left in the buffer nowhere: the interpreter flushes it at exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
