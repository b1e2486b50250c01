"""Go on with a recorded answer that was broken off, and print the rest of it.

The answer is that of ``holystream ask --journal``, or of any program that records its
streams in a journal; whoever had it must have ended or let go of it. What is printed
follows the first ``--after`` characters: the whole answer, unless told otherwise. An
answer that is complete is printed again. Nothing but text goes to stdout.
"""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING, Final

from holystream.cli.answer import Printer, conclude
from holystream.cli.asked import add_limits, strategies
from holystream.cli.console import Output
from holystream.cli.exits import DONE, table
from holystream.cli.host import add_host, add_verbose, client_for
from holystream.cli.recorded import (
    ANEW,
    BREAKS,
    add_journal,
    broken_off,
    checked_ways,
    needed_journal,
)
from holystream.errors import ConfigurationError, InvalidRequest

if TYPE_CHECKING:
    from holystream import Client, Stream
    from holystream.journal import Journal
    from holystream.resume.checkpoint import Recorded

HELP = "go on with a recorded answer that was broken off"

_EPILOG: Final = """\
A repeatable answer (--temperature 0, --seed) can always be gone on with; any other one
if its server kept it or goes on with what it began. Where that does not help, --resume
stitch asks the model to go on where the text ends, and --resume restart has it written
anew: on a terminal, for what was printed becomes void.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``holystream resume``."""
    parser.epilog = f"{_EPILOG}\n{table()}"
    add = parser.add_argument
    add("stream_id", metavar="ID", help="the answer's; `holystream tail` lists them")
    add(
        "--after",
        type=_characters,
        default=0,
        metavar="N",
        help="characters of its text that are there already; behind a whole answer "
        "its line end may be counted",
    )
    add_journal(add, "else it must be given")
    add_host(add, "the one it was begun with, unless --base-url is given")
    add_limits(add)
    add(
        "--resume",
        type=strategies,
        metavar="NAMES",
        help="how it may go on; default: as it was begun, but restart on a terminal "
        "only",
    )
    add_verbose(add)


def run(options: argparse.Namespace) -> int:
    """Print the rest; return the exit status."""
    output = Output()
    checked_ways(options.resume, output)
    journal = needed_journal(options)
    with contextlib.closing(journal), _client(journal, options) as client:
        stream = _resumed(client, journal, output, options)
        printer = Printer(output, verbose=options.verbose, after=options.after)
        try:
            with stream:
                completion = printer.print(stream)
        except BREAKS as error:
            return broken_off(error, output, printer, journal, options, advice=_ADVICE)
    output.end_line()
    conclude(completion, verbose=options.verbose)
    return DONE


_ADVICE: Final = (
    "If another text will do, ask again; on a terminal, --resume restart has it "
    "written anew."
)


def _resumed(
    client: Client, journal: Journal, output: Output, options: argparse.Namespace
) -> Stream:
    """Return what is left of a stream.

    Raises:
        InvalidRequest: The caller has more of it than there is.
        HolystreamError: It cannot be gone on with.
    """
    ways = options.resume
    if ways is None and not output.is_terminal:
        ways = tuple(
            way for way in _recorded(journal, options.stream_id).resume if way != ANEW
        )

    def behind(after: int) -> Stream:
        return client.resume(
            options.stream_id,
            after=after,
            timeout=options.timeout,
            deadline=options.deadline,
            resume=ways,
        )

    try:
        return behind(options.after)
    except InvalidRequest:
        meta = journal.meta(options.stream_id)
        if meta is not None and meta.outcome is not None and options.after:
            # Behind a whole answer `ask` adds a line end, and a file's length has it.
            with contextlib.suppress(InvalidRequest):
                return behind(options.after - 1)
        raise


def _client(journal: Journal, options: argparse.Namespace) -> Client:
    from holystream import Client  # noqa: PLC0415 - only when there is one

    provider = None
    if options.provider is None and options.base_url is None:
        begun_with = _begun_with(journal, options.stream_id)
        if begun_with is not None and _has_ended(journal, options.stream_id):
            # It is only handed over: there is nobody to ask, and nothing to ask with.
            return Client(
                _NO_KEY, provider=begun_with, base_url=_NOWHERE, journal=journal
            )
        provider = _addressed(begun_with)
    return client_for(options, provider=provider, journal=journal)


_NO_KEY: Final = "none-for-nothing-is-sent"
_NOWHERE: Final = "http://127.0.0.1:9"


def _has_ended(journal: Journal, stream_id: str) -> bool:
    meta = journal.meta(stream_id)
    return meta is not None and meta.outcome is not None


def _begun_with(journal: Journal, stream_id: str) -> str | None:
    """Return the provider that a stream was begun with, if it is known here.

    Raises:
        StreamUnknown: There is no such stream.
    """
    from holystream.providers.registry import PROFILES  # noqa: PLC0415 - as above

    name = _recorded(journal, stream_id).provider
    return name if name in PROFILES else None


def _recorded(journal: Journal, stream_id: str) -> Recorded:
    """Return what a stream was asked for.

    Raises:
        StreamUnknown: There is no such stream.
    """
    from holystream.journal import refusals  # noqa: PLC0415 - as above
    from holystream.resume.checkpoint import Recorded  # noqa: PLC0415 - as above

    meta = journal.meta(stream_id)
    if meta is None:
        raise refusals.unknown(stream_id)
    return Recorded.decode(meta.request)


def _addressed(name: str | None) -> str | None:
    """Return the provider again.

    Raises:
        ConfigurationError: It is known by its address alone, which no journal holds.
    """
    from holystream.providers.registry import PROFILES  # noqa: PLC0415 - as above

    if name is not None and PROFILES[name].base_url is None:
        raise ConfigurationError(
            f"the answer was begun with {name}, and its address is not recorded: give "
            "--base-url"
        )
    return name


def _characters(text: str) -> int:
    if text.isascii() and text.isdigit():
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a number of characters, not {text!r}")
