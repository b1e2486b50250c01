"""Ask a model and print its answer as it arrives.

The text goes to stdout and nothing else does, so it can be piped; a line end is added
if the answer has none. Standard input, unless it is a terminal, is appended to the
prompt or is all of it. Everything about the answer goes to stderr.

The API key is never an argument, for every user of a machine can see those: it is read
from the provider's environment variable.
"""

from __future__ import annotations

import contextlib
import sys
import uuid
from typing import TYPE_CHECKING, Final

from holystream.cli.answer import Printer, conclude
from holystream.cli.asked import add_limits, add_sampling, asked, strategies
from holystream.cli.console import Output
from holystream.cli.exits import DONE, table
from holystream.cli.host import add_host, add_verbose, client_for
from holystream.cli.recorded import (
    BREAKS,
    add_journal,
    broken_off,
    checked_ways,
    opened,
)
from holystream.errors import InvalidRequest

if TYPE_CHECKING:
    import argparse

    from holystream import Client, Stream
    from holystream.journal import Journal

HELP = "ask a model; the answer goes to stdout as it arrives"

_EPILOG: Final = """\
The key is read from the provider's own variable: HOLYSHEEP_API_KEY, OPENAI_API_KEY
and so on, HOLYSTREAM_API_KEY for openai-compatible servers (local ones need none).
Standard input is read to its end unless it is a terminal: in a loop that reads a file,
add </dev/null.
Before a wait for another attempt, stderr is told how long and why: on a terminal in a
line that vanishes when the wait is over.
With --journal, prompt and answer are recorded; if the answer does not end, the command
that goes on with it is printed, and no line end is added to what a file got of it, so
that the rest can be appended.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``holystream ask``."""
    parser.epilog = f"{_EPILOG}\n{table()}"
    add = parser.add_argument
    add("prompt", nargs="*", metavar="PROMPT", help="what to ask; words are joined")
    add("--model", metavar="NAME", required=True, help="such as deepseek-v3.2")
    add_host(add)
    add("--system", metavar="TEXT", help="instructions that come before the prompt")
    add_sampling(add)
    add_limits(add)
    add(
        "--resume",
        type=strategies,
        metavar="NAMES",
        help="how a broken answer may go on, such as replay,restart; default: "
        "cursor,prefill,replay; restart may take back what was printed, so it needs a "
        "terminal",
    )
    add_journal(add, "else nothing is recorded")
    add("--stream-id", metavar="ID", help="its name in the journal; default: a new one")
    add_verbose(add)


def run(options: argparse.Namespace) -> int:
    """Print the answer; return the exit status."""
    output = Output()
    checked_ways(options.resume, output)
    if options.stream_id is not None and options.journal is None:
        raise InvalidRequest(
            "--stream-id needs --journal: without one nothing is recorded by that name"
        )
    with contextlib.ExitStack() as stack:
        journal = None
        if options.journal is not None:
            journal = opened(options.journal)
            stack.callback(journal.close)
        options.stream_id = options.stream_id or uuid.uuid4().hex
        printer = Printer(output, verbose=options.verbose)
        try:
            prompt = _prompt(options)
            with (
                client_for(options) as client,
                _stream(client, prompt, journal, options) as stream,
            ):
                completion = printer.print(stream)
        except BREAKS as error:
            repeatable = options.temperature == 0 or options.seed is not None
            advice = "" if repeatable else _REPEATABLE
            return broken_off(error, output, printer, journal, options, advice=advice)
    output.end_line()
    conclude(completion, verbose=options.verbose)
    return DONE


_REPEATABLE: Final = "With --temperature 0 or --seed such a break can be mended."


def _stream(
    client: Client, prompt: str, journal: Journal | None, options: argparse.Namespace
) -> Stream:
    system = [{"role": "system", "content": options.system}] if options.system else []
    arguments = asked(options)
    arguments["journal"] = journal
    return client.stream(
        [*system, {"role": "user", "content": prompt}],
        stream_id=options.stream_id,
        **arguments,
    )


def _prompt(options: argparse.Namespace) -> str:
    """Join the words of the command line and what comes on standard input.

    Raises:
        InvalidRequest: There is no prompt, or it is not text.
    """
    parts = [" ".join(options.prompt)]
    if sys.stdin is not None and not sys.stdin.isatty():
        try:
            parts.append(sys.stdin.buffer.read().decode("utf-8-sig").rstrip("\r\n"))
        except UnicodeDecodeError:
            raise InvalidRequest("standard input is not UTF-8 text") from None
    prompt = "\n\n".join(part for part in parts if part.strip())
    if not prompt:
        raise InvalidRequest(
            "there is no prompt: give it as an argument or on standard input"
        )
    if not (_is_text(prompt) and _is_text(options.system or "")):
        raise InvalidRequest("an argument is not UTF-8 text")
    return prompt


def _is_text(argument: str) -> bool:
    # Bytes of an argument that are not UTF-8 come as lone surrogates.
    return not any("\ud800" <= char <= "\udfff" for char in argument)
