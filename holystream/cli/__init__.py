"""The ``holystream`` command: ``ask``, ``resume``, ``tail``, ``demo`` and others.

Each command is a module with ``configure(parser)`` and ``run(options) -> exit status``;
what a command needs beyond argparse it imports when it runs. How failures become exit
statuses is the table in `holystream.cli.exits`. A failure that a user can meet ends in
a sentence on stderr, never in a traceback.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NoReturn

from holystream.cli import ask, demo, doctor, map as map_file, resume, simulate, tail
from holystream.cli.console import OutputFailed, ReaderGone, say, silence_stdout
from holystream.cli.exits import (
    FAILED,
    INTERRUPTED,
    READER_GONE,
    USAGE,
    exit_status,
    reworded,
    table,
)
from holystream.errors import HolystreamError
from holystream.spelling import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_COMMANDS = {
    "ask": ask,
    "map": map_file,
    "resume": resume,
    "tail": tail,
    "demo": demo,
    "doctor": doctor,
    "simulator": simulate,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status.

    Args:
        arguments: What follows the command's name; by default the process's own.
    """
    parser = _parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        _refuse(options.parser or parser, unknown)
    if options.version:
        from holystream import __version__  # noqa: PLC0415 - reads the disk: if asked

        print(f"holystream {__version__}")
        return 0
    if options.command is None:
        parser.print_help()
        return USAGE
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    """Run the chosen command, and turn how it fails into an exit status."""
    try:
        return int(options.run(options))
    except HolystreamError as error:
        say(f"error: {reworded(str(error))}")
        return exit_status(error)
    except ReaderGone:
        silence_stdout()
        return READER_GONE
    except OutputFailed as failure:
        silence_stdout()
        say(f"error: cannot write to standard output: {failure}")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _refuse(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> NoReturn:
    """Name the option that was meant, under the usage of the command it is of."""
    import re  # noqa: PLC0415 - wanted only here

    there = re.findall(r"--[a-z-]+", parser.format_usage())
    word = next((each for each in unknown if each.startswith("-")), unknown[0])
    meant = did_you_mean(word.partition("=")[0], there, shown=str)
    parser.error(f"unrecognized arguments: {' '.join(unknown)}{meant}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="holystream",
        description="Stream answers of language models, or see how streams break.",
        epilog=table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.set_defaults(command=None, parser=None)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, module in _COMMANDS.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.configure(command)
        command.set_defaults(run=module.run, parser=command)
    return parser
