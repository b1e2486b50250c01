"""How far a map has got, on stderr: a bar by rich or tqdm, or a line.

None of them starts a thread: a bar moves when a result comes.
"""

from __future__ import annotations

import contextlib
import sys
from importlib.util import find_spec
from typing import Any, Final, Protocol

_LINES: Final = 10
"""Lines that a file gets of a map whose length is known."""
_EVERY: Final = 100
"""Results for each line where it is not."""


class Bar(Protocol):
    """Shows how far it is. One thread at a time uses it."""

    def show(self, done: int, failed: int) -> None:
        """Show that so many items have an answer, and so many have none."""
        ...

    def close(self) -> None:
        """Leave what is shown as it is; safe to call again."""
        ...


def progress_bar(total: int | None) -> Bar:
    """Return the best bar there is: on a terminal rich's or tqdm's, else lines.

    Args:
        total: How many items there are, if that is known.
    """
    if sys.stderr is not None and sys.stderr.isatty():
        if find_spec("rich"):
            return RichBar(total)
        if find_spec("tqdm"):
            return TqdmBar(total)
    return Lines(total)


class Lines:
    """A line now and then; on a terminal always the same one. Not thread-safe."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._every = _EVERY if total is None else max(1, total // _LINES)
        self._same = sys.stderr is not None and sys.stderr.isatty()
        self._open = ""

    def show(self, done: int, failed: int) -> None:
        """Show how far it is, unless a line of late says nearly the same."""
        ended = done + failed
        now = ended and (ended % self._every == 0 or ended == self._total)
        if not (self._same or now):
            return
        line = _counts(done, failed, self._total)
        self._open = "\n" if self._same else ""
        _write(f"\r{line}" if self._same else f"{line}\n")

    def close(self) -> None:
        """End the line."""
        ending, self._open = self._open, ""
        _write(ending)


def _counts(done: int, failed: int, total: int | None) -> str:
    of = "" if total is None else f" of {total}"
    return f"{done}{of} done" + (f", {failed} failed" if failed else "")


def _write(text: str) -> None:
    if sys.stderr is not None and text:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()


class RichBar:
    """The bar of rich. Not thread-safe."""

    def __init__(self, total: int | None) -> None:
        # If it is there, and asked for; mypy may run where it is not.
        from rich.console import Console  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415 - see above
        from rich.progress import Progress  # type: ignore[import-not-found, unused-ignore] # noqa: PLC0415 - see above

        # Without its thread that redraws ten times a second.
        self._progress: Any = Progress(console=Console(stderr=True), auto_refresh=False)
        self._total = total
        self._task = self._progress.add_task("", total=total)

    def show(self, done: int, failed: int) -> None:
        """Move the bar."""
        self._progress.start()
        self._progress.update(
            self._task,
            completed=done + failed,
            description=_counts(done, failed, self._total),
            refresh=True,
        )

    def close(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


class TqdmBar:
    """The bar of tqdm. Not thread-safe."""

    def __init__(self, total: int | None) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped, import-not-found, unused-ignore] # noqa: PLC0415 - as of rich

        class Quiet(tqdm):  # type: ignore[misc, type-arg, unused-ignore]
            monitor_interval = 0  # without its thread

        self._bar: Any = Quiet(total=total)

    def show(self, done: int, failed: int) -> None:
        """Move the bar."""
        if failed:
            self._bar.set_postfix_str(f"{failed} failed", refresh=False)
        self._bar.update(done + failed - self._bar.n)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
