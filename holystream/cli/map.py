"""Ask every prompt of a file, and write a line of JSON for each as it finishes.

Each line of FILE is a JSON text, or an object with "prompt" or "messages", and with an
"id" and options of its own if you like. With --out, the same command goes on where it
was ended: what is done is not asked again, what failed is. Each item has one line.
"""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from holystream.cli import prompts
from holystream.cli.asked import (
    add_limits,
    add_sampling,
    asked,
    sampling,
    strategies,
    whole_number,
)
from holystream.cli.console import Output, say
from holystream.cli.exits import DONE, FAILED, INTERRUPTED, exit_status, reworded, table
from holystream.cli.feeder import Feeder
from holystream.cli.host import add_host, add_verbose, client_for, provider_of
from holystream.cli.results import Results, record
from holystream.cli.retries import Retries
from holystream.errors import (
    CircuitOpen,
    HolystreamError,
    InvalidRequest,
    StreamError,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Sequence

    from holystream import Map, MapItem
    from holystream.mapping.progress import Bar

HELP = "ask every prompt of a file; results are lines of JSON, and can be gone on with"

_STDOUT: Final = "-"
_EPILOG: Final = """\
The key is read from the provider's own variable, as for `holystream ask`.
Every item without an answer makes the exit status 1, and the same command tries those
again; with --fail-fast the first of them ends it, with the status of its error.
Another --model, --temperature, --max-tokens, --seed or --provider needs another --out.
When an item is tried again stderr is told, the first time and not more often than once
a second.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``holystream map``."""
    parser.epilog = f"{_EPILOG}\n{table()}"
    add = parser.add_argument
    add("file", metavar="FILE", help="the prompts, a JSON value a line; - is stdin")
    add("--out", metavar="OUT", help="the results, and what to go on from; else stdout")
    add("--model", metavar="NAME", help="the model of the items that name none")
    add_host(add)
    add(
        "--concurrency",
        type=whole_number,
        metavar="N",
        default=10,
        help="answers at a time; default: 10",
    )
    add_sampling(add)
    add_limits(add)
    add(
        "--resume",
        type=strategies,
        metavar="NAMES",
        help="how a broken answer may go on; default: cursor,prefill,replay,restart",
    )
    add("--fail-fast", action="store_true", help="end with the first failure")
    add_verbose(add)


def run(options: argparse.Namespace) -> int:
    """Ask all of them; return the exit status."""
    if options.out == _STDOUT:
        options.out = None
    if options.out is not None and _same(options.file, options.out):
        raise InvalidRequest("--out is the file of the prompts: give another one")
    work = _Work(options)
    again = "; the same command goes on" if options.out is not None else ""
    try:
        with contextlib.ExitStack() as stack:
            return work.run(stack)
    except CircuitOpen as error:
        say(f"error: {error.message}; {work.summary()}{again}")
        return FAILED
    except KeyboardInterrupt:
        say(f"stopped by Ctrl-C: {work.summary()}{again}")
        return INTERRUPTED
    except OSError as error:
        if isinstance(error, HolystreamError):
            raise
        name = f": {error.filename}" if error.filename else ""
        say(f"error: {error.strerror or error}{name}; {work.summary()}")
        return FAILED


class _Work:
    """One run of the command. Not thread-safe."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._asked = {"provider": provider_of(options), **sampling(options)}
        self._retries = Retries(verbose=options.verbose)
        self._output: Output | None = None
        self._results: Results | None = None
        # Items, and perhaps word that the next one has not come yet.
        self._lines: Iterable[Any] = ()
        self._bar: Bar | None = None
        self._done = 0
        self._failed = 0
        self._before = 0
        self._first: BaseException | None = None
        self._first_line = 0

    def run(self, stack: contextlib.ExitStack) -> int:
        """Ask all of them; return the exit status."""
        from holystream import PrioritySemaphore  # noqa: PLC0415 - if it runs
        from holystream.mapping.mapped import LATER  # noqa: PLC0415 - as above
        from holystream.mapping.progress import progress_bar  # noqa: PLC0415 - as above

        options = self._options
        total = prompts.count(options.file)
        if total is None and options.file != prompts.STDIN:
            _check_there(options.file)
        if total is not None:
            # Two with one id are refused as well, before anything is asked.
            for line in prompts.read(options.file):
                self._check_model(line)
        lines = prompts.read(options.file)
        ahead: Sequence[prompts.Line] = ()
        if options.out is None:
            self._output = Output()
        else:
            self._results = stack.enter_context(self._opened(options.out, lines))
            ahead, self._before = self._results.ahead, self._results.before
        pool = PrioritySemaphore(options.concurrency)
        client = stack.enter_context(client_for(options, pool=pool))
        if self._output is None or not self._output.is_terminal:
            self._bar = progress_bar(total)
            stack.callback(self._bar.close)
        results = stack.enter_context(client.map(self._items(), **asked(options)))
        if total is None:
            wake = results._wake  # noqa: SLF001 - it is there for this
            self._lines = itertools.chain(ahead, Feeder(lines, LATER, wake))
        else:
            self._lines = itertools.chain(ahead, lines)
        self._take_all(results)
        if self._bar is not None:
            self._bar.close()
        return self._conclude()

    def _opened(self, path: str, lines: Iterator[prompts.Line]) -> Results:
        """Return the results in a file.

        Raises:
            InvalidRequest: It cannot be written, or not gone on with.
        """
        try:
            return Results(path, self._asked, lines)
        except OSError as error:
            raise InvalidRequest(
                f"--out cannot be written: {error.strerror or error}: {path}"
            ) from error

    def _check_model(self, line: prompts.Line) -> None:
        """Refuse an item that no model is named for, for there are as many more."""
        named = self._options.model or line.options.get("model")
        if line.mistake is None and not named:
            raise InvalidRequest(f"line {line.number} names no model: give --model")

    def _items(self) -> Iterator[MapItem]:
        """Yield what is still to be asked."""
        from holystream import MapItem  # noqa: PLC0415 - as in run()
        from holystream.mapping.mapped import LATER  # noqa: PLC0415 - as in run()

        for line in self._lines:
            if line is LATER:
                yield LATER
            elif line.mistake is not None:
                self._take(line, None, line.mistake)
            else:
                self._check_model(line)
                options: Any = {
                    **line.options,
                    "on_event": self._retries.of(line.number),
                }
                yield MapItem(line.prompt, id=line, options=options)
            if self._first is not None and self._options.fail_fast:
                return

    def _take_all(self, results: Map) -> None:
        """Write all results; after a Ctrl-C those that had come."""
        try:
            for result in results:
                self._take(result.id, result.completion, result.error)
                if self._first is not None and self._options.fail_fast:
                    return
        except KeyboardInterrupt:
            for result in results._unread():  # noqa: SLF001 - as above
                self._take(result.id, result.completion, result.error)
            raise

    def _take(self, line: prompts.Line, completion: Any, error: Any) -> None:
        """Write what became of an item, and show that."""
        data = record(line, completion, error, self._asked)
        if self._results is not None:
            self._results.write(data)
        elif self._output is not None:
            self._output.write(data.decode("ascii"))
        if completion is not None:
            self._done += 1
        else:
            self._failed += 1
            if self._first is None:
                self._first = error
                self._first_line = line.number
        if self._bar is not None:
            self._bar.show(self._before + self._done, self._failed)

    def summary(self) -> str:
        """Say how far it came."""
        found = f"{self._done} done"
        if self._before:
            found += f", {self._before} done before"
        if self._failed:
            found += f", {self._failed} failed"
        return found + self._retries.summary()

    def _conclude(self) -> int:
        """Say how it went; return the exit status."""
        if self._first is not None:
            say(f"line {self._first_line} failed: {_why(self._first)}")
        say(self.summary())
        if self._first is None:
            return DONE
        if self._options.fail_fast and isinstance(self._first, HolystreamError):
            return exit_status(self._first)
        return FAILED


def _why(error: BaseException) -> str:
    message = error.message if isinstance(error, StreamError) else str(error)
    return f"{type(error).__name__}: {reworded(message)}"


def _check_there(path: str) -> None:
    """Refuse a file that is not there, or a folder, before anything is opened."""
    if not Path(path).exists() or Path(path).is_dir():
        raise InvalidRequest(f"there is no file of prompts at {path}")


def _same(one: str, other: str) -> bool:
    with contextlib.suppress(OSError):
        return Path(one).samefile(other)
    return False
