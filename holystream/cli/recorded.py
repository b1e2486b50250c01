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
    GuaranteeNotMet,
    InvalidRequest,
    JournalError,
    StreamError,
    StreamInterrupted,
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
            cause=_recorded_cause(journal, options.stream_id),
        )
    elif isinstance(error, JournalError):
        status = exit_status(error)
        say(f"error: {reworded(str(error))}")
    if journal is not None:
        _tell_how_to_go_on(journal, printer.position, options, error, output)
    return status


def _recorded_cause(journal: Journal | None, stream_id: str) -> str:
    """Return what the last reader of a stream met at its end; empty if not known."""
    from holystream.events import Interrupted  # noqa: PLC0415 - as in opened()
    from holystream.journal import Entries  # noqa: PLC0415 - as in opened()

    try:
        meta = None if journal is None else journal.meta(stream_id)
        if journal is None or meta is None:
            return ""
        reading = journal.read(stream_id, after=max(0, meta.next_seq - 2), limit=1)
    except JournalError:
        return ""
    events = reading.events if isinstance(reading, Entries) else ()
    last = events[-1] if events else None
    return last.error.message if isinstance(last, Interrupted) else ""


def _tell_how_to_go_on(
    journal: Journal,
    after: int,
    options: argparse.Namespace,
    error: BaseException,
    output: Output,
) -> None:
    """Print the line that goes on with a stream, if there is one."""
    from holystream.journal import JournalState  # noqa: PLC0415 - as in opened()

    try:
        meta = journal.meta(options.stream_id)
    except JournalError:
        return
    if meta is None or meta.state is JournalState.FINISHED:
        return
    words = ["holystream", "resume", options.stream_id, "--journal", options.journal]
    if after:
        words += ["--after", str(after)]
    wider = None
    if isinstance(error, _NO_WAY) and not error.exhausted:
        # All that is allowed has been tried: the same again would fail again.
        wider = _wider(meta, options.resume, output)
        if wider is None:
            say("there is no other way to go on with it here: ask again")
            return
        words += ["--resume", ",".join(wider)]
    host = as_typed(options)
    say(f"to go on: {shlex.join(words)}{' ' if host else ''}{host}")
    if wider is not None:
        say(_WORTH[wider[-1]])


_NO_WAY: Final = (StreamInterrupted, GuaranteeNotMet)
"""What a stream ends with that can be gone on with in none of the ways allowed."""

_WORTH: Final = {
    "stitch": "stitch asks the model to go on where its text ends: the seam may show",
    ANEW: "restart has the answer written anew: the text above becomes void",
}
"""What each way costs that is not allowed unless it is asked for."""


def _wider(
    meta: StreamMeta, given: tuple[str, ...] | None, output: Output
) -> tuple[str, ...] | None:
    """Return the ways that were allowed and one more that may help, if there is one."""
    from holystream.events import Guarantee  # noqa: PLC0415 - as in opened()
    from holystream.resume.checkpoint import Recorded  # noqa: PLC0415 - as above

    recorded = Recorded.decode(meta.request)
    ways = recorded.resume if given is None else given
    least = recorded.min_guarantee or Guarantee.PARTIAL
    if not output.is_terminal:
        ways = tuple(way for way in ways if way != ANEW)
    if "stitch" not in ways and least <= Guarantee.STITCHED:
        return (*ways, "stitch")
    if output.is_terminal and ANEW not in ways and least <= Guarantee.RESTARTED:
        return (*ways, ANEW)
    return None
