"""Follow a recorded answer that another program writes, or list what is recorded.

With the id of a stream its text is printed, what is there at once and the rest as it
comes, until it ends. Nothing is asked of any server. Without an id the streams of the
journal are listed, the newest first: id, how it stands, when it was last written (UTC)
and how many events it has, with tabs between them.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from typing import TYPE_CHECKING, Final, NoReturn

from holystream.cli.answer import kept
from holystream.cli.console import Output, say
from holystream.cli.exits import DONE, FAILED, INTERRUPTED, exit_status, reworded, table
from holystream.cli.recorded import add_journal, needed_journal, needs_address

if TYPE_CHECKING:
    import argparse

    from holystream.journal import Journal, StreamInfo, StreamMeta

HELP = "follow a recorded answer while it is written, or list the recorded ones"

_EPILOG: Final = """\
Nothing is asked of any server. The list has the newest first: id, how it stands (live;
abandoned: its program is gone; damaged; or how it ended), when it was last written, in
UTC, and the number of its events.
"""

_LOOK: Final = 0.5
"""Seconds after which it is looked whether the writer is still alive."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``holystream tail``."""
    parser.epilog = f"{_EPILOG}\n{table()}"
    add = parser.add_argument
    add("stream_id", metavar="ID", nargs="?", help="the stream's; none: list them")
    add_journal(add, "else it must be given")
    add(
        "--wait",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="how long to wait for another writer when one is gone (default: 5)",
    )


def run(options: argparse.Namespace) -> int:
    """Print what is recorded; return the exit status."""
    output = Output()
    with contextlib.closing(needed_journal(options)) as journal:
        if options.stream_id is None:
            for info in journal.streams(limit=10**6):
                output.write(f"{_row(info)}\n")
            return DONE
        follower = _Follower(
            journal,
            options.stream_id,
            output,
            wait=options.wait,
            path=options.journal,
        )
        try:
            status = follower.follow()
        except KeyboardInterrupt:
            output.end_line()
            say(f"stopped by Ctrl-C; {kept(output.written)}")
            return INTERRUPTED
        output.end_line()
        return status


class _Follower:
    """Prints the text of one stream. Not thread-safe."""

    def __init__(
        self,
        journal: Journal,
        stream_id: str,
        output: Output,
        *,
        wait: float,
        path: str,
    ) -> None:
        self._journal = journal
        self._stream_id = stream_id
        self._output = output
        self._wait = wait
        self._path = path
        self._alone_since: float | None = None
        self._endpoint = ""

    def follow(self) -> int:
        """Print until it ends or nobody writes it; return the exit status."""
        from holystream.journal import Entries  # noqa: PLC0415 - only when it runs

        after = 0
        while True:
            reading = self._journal.read(self._stream_id, after=after, wait=_LOOK)
            if not isinstance(reading, Entries):
                self._gone()
            after = reading.last_seq
            if not all(map(self._show, reading.events)):
                return FAILED
            if reading.events:
                self._alone_since = None
            elif (status := self._look(after)) is not None:
                return status

    def _look(self, after: int) -> int | None:
        """Find out why nothing comes; return the exit status if nothing will."""
        from holystream.journal import JournalState  # noqa: PLC0415 - as above

        meta = self._journal.meta(self._stream_id)
        if meta is None:
            self._gone()
        if meta.next_seq > after + 1:
            return None
        if meta.state is JournalState.FINISHED:
            return self._ended(meta)
        if meta.state is JournalState.LIVE:
            self._alone_since = None
            return None
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since = now
        return self._alone() if now - self._alone_since >= self._wait else None

    def _show(self, event: object) -> bool:
        """Show an event; return False if what was printed became void."""
        from holystream.events import (  # noqa: PLC0415 - as above
            Connected,
            Rewound,
            TextDelta,
        )

        output = self._output
        if isinstance(event, TextDelta) and event.index == 0:
            output.write(event.text)
        elif isinstance(event, Connected):
            self._endpoint = event.endpoint
        elif isinstance(event, Rewound) and output.written:
            if not output.is_terminal:
                output.end_line()
                say(
                    "error: the answer was begun anew, and what was written to a pipe "
                    f"or a file cannot be taken back: {output.written} characters are "
                    "void"
                )
                return False
            output.remark("the answer is begun anew: the text above is void")
            output.written = 0
        return True

    def _ended(self, meta: StreamMeta) -> int:
        from holystream.events import Failed  # noqa: PLC0415 - as above
        from holystream.journal import Outcome  # noqa: PLC0415 - as above
        from holystream.journal.codec import decode  # noqa: PLC0415 - as above

        if meta.outcome is Outcome.DONE:
            return DONE
        self._output.end_line()
        if meta.outcome is Outcome.CANCELLED:
            say(f"the stream was cancelled; {kept(self._output.written)}")
            return FAILED
        for event in decode(meta.final) if meta.final else ():
            if isinstance(event, Failed):
                say(f"error: {reworded(event.error.message)}")
                return exit_status(event.error)
        say(f"error: the stream failed; {kept(self._output.written)}")
        return FAILED

    def _alone(self) -> int:
        self._output.end_line()
        written = self._output.written
        say(f"nobody writes the stream; {kept(written)}")
        words = ["holystream", "resume", self._stream_id, "--journal", self._path]
        if written:
            words += ["--after", str(written)]
        meta = self._journal.meta(self._stream_id)
        where = needs_address(meta) if meta is not None else False
        if where:
            words += ["--base-url", "URL"]
        say(f"to go on: {shlex.join(words)}")
        if where:
            say(
                f"URL is the --base-url or base_url= that {self._begun_with()}: a "
                "journal holds no addresses"
            )
        return FAILED

    def _begun_with(self) -> str:
        from holystream.providers.registry import PROFILES  # noqa: PLC0415 - as above

        # One that nobody named has the provider's name.
        if self._endpoint and self._endpoint not in PROFILES:
            return f"the endpoint {self._endpoint!r} has"
        return "it was begun with"

    def _gone(self) -> NoReturn:
        from holystream.journal import refusals  # noqa: PLC0415 - as above

        self._output.end_line()
        raise refusals.unknown(self._stream_id)


def _row(info: StreamInfo) -> str:
    from holystream.journal import JournalState  # noqa: PLC0415 - as above

    ended = info.outcome is not None and info.state is JournalState.FINISHED
    stands = str(info.outcome if ended else info.state)
    written = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(info.updated))
    return "\t".join((info.stream_id, stands, written, str(info.next_seq - 1)))


def _seconds(text: str) -> float:
    from holystream.cli.asked import seconds  # noqa: PLC0415 - as above

    return 0.0 if text == "0" else seconds(text)
