"""The journal that a command was given, and the line that goes on with a stream."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from holystream.cli.answer import explain, kept
from holystream.cli.console import say
from holystream.cli.exits import INTERRUPTED, exit_status, reworded
from holystream.cli.host import as_typed
from holystream.errors import (
    ConfigurationError,
    InvalidRequest,
    JournalError,
    StreamError,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from holystream.cli.answer import Printer
    from holystream.cli.console import Output
    from holystream.journal import Journal, StreamMeta

VARIABLE: Final = "HOLYSTREAM_JOURNAL"
"""The environment variable that stands for --journal."""


def add_journal(add: Callable[..., Any], otherwise: str) -> None:
    """Add the argument that says where streams are recorded."""
    add(
        "--journal",
        metavar="PATH",
        default=os.environ.get(VARIABLE) or None,
        help=f"the database of recorded streams; default: {VARIABLE}, {otherwise}",
    )


def needed_journal(options: argparse.Namespace) -> Journal:
    """Open the journal that is there.

    Raises:
        ConfigurationError: There is none, or it cannot be opened.
    """
    if options.journal is None:
        raise ConfigurationError(
            f"which journal? Give --journal PATH, or set the variable {VARIABLE}"
        )
    if not Path(options.journal).expanduser().exists():
        raise ConfigurationError(f"there is no journal at {options.journal}")
    return opened(options.journal)


def opened(path: str) -> Journal:
    """Open a journal in a file, and make it if there is none.

    Raises:
        ConfigurationError: It cannot be opened.
    """
    from holystream.journal.sqlite import SQLiteJournal  # noqa: PLC0415 - if asked for

    try:
        return SQLiteJournal(path)
    except JournalError as error:
        raise ConfigurationError(str(error)) from error


def needs_address(meta: StreamMeta) -> bool:
    """Whether a stream was begun with a provider that its address alone makes known."""
    from holystream.providers.registry import PROFILES  # noqa: PLC0415 - if it runs
    from holystream.resume.checkpoint import Recorded  # noqa: PLC0415 - as above

    name = Recorded.decode(meta.request).provider
    return name in PROFILES and PROFILES[name].base_url is None


def checked_ways(ways: tuple[str, ...] | None, output: Output) -> None:
    """Refuse a way to go on that would make void what the output cannot take back.

    Raises:
        InvalidRequest: There is one.
    """
    if ways is not None and ANEW in ways and not output.is_terminal:
        raise InvalidRequest(
            "--resume restart needs a terminal: what a pipe or a file got of an answer "
            "cannot be taken back"
        )


ANEW: Final = "restart"
"""The way to go on that makes void what was printed."""

BREAKS: Final = (KeyboardInterrupt, StreamError, JournalError)
"""What an answer can break off by."""


def broken_off(
    error: BaseException,
    output: Output,
    printer: Printer,
    journal: Journal | None,
    options: argparse.Namespace,
    *,
    advice: str,
) -> int:
    """Say why an answer has no end, and how to go on; return the exit status.

    Args:
        error: One of `BREAKS`.
        output: Where its text went.
        printer: What printed it.
        journal: Where it is recorded, if it is.
        options: The command's; ``stream_id`` is the answer's.
        advice: As for `explain`.
    """
    # In a file the rest may follow, and the answer has no line end here.
    if journal is None or output.is_terminal:
        output.end_line()
    there = kept(printer.position)
    status = INTERRUPTED
    if isinstance(error, KeyboardInterrupt):
        say(f"stopped by Ctrl-C; {there}")
    elif isinstance(error, StreamError):
        status = exit_status(error)
        explain(
            error,
            advice=advice,
            kept=there if printer.position else "",
            verbose=options.verbose,
        )
    elif isinstance(error, JournalError):
        status = exit_status(error)
        say(f"error: {reworded(str(error))}")
    if journal is not None:
        _tell_how_to_go_on(journal, options.stream_id, printer.position, options)
    return status


def _tell_how_to_go_on(
    journal: Journal, stream_id: str, after: int, options: argparse.Namespace
) -> None:
    """Print the line that goes on with a stream, if another may."""
    from holystream.journal import JournalState  # noqa: PLC0415 - as in opened()

    try:
        meta = journal.meta(stream_id)
    except JournalError:
        return
    if meta is None or meta.state is JournalState.FINISHED:
        return
    words = ["holystream", "resume", stream_id, "--journal", options.journal]
    if after:
        words += ["--after", str(after)]
    host = as_typed(options)
    say(f"to go on: {shlex.join(words)}{' ' if host else ''}{host}")
