"""Run a server that streams like OpenAI and fails like a network.

Its base URL is the first line of stdout, for scripts to read. It ends on Ctrl-C and on
SIGTERM, with status 0. The faults are those of `holystream.simulator.Script`.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Final

from holystream.cli.console import Output, say
from holystream.cli.exits import DONE, FAILED, USAGE

if TYPE_CHECKING:
    import argparse

    from holystream.simulator import Script, Simulator

HELP = "run the fault-injecting server that the tests and the demo use"

FAULTS: Final = {
    "latency=S": "silence before the headers",
    "first_token=S": "silence between the headers and the first event",
    "pace=S": "seconds between events",
    "linger=S": "silence between the last event and the end",
    "cut_at=N": "end the connection after N bytes of the body ...",
    "cut=fin|rst|end": "... with a FIN, a RST, or a clean end of the body",
    "cut_before_headers=fin|rst": "read the request, then hang up",
    "stall_at=N": "fall silent after N bytes",
    "stall_headers": "never answer",
    "pings=S": "a comment after every S seconds of silence",
    "ping_text=TEXT": "what it says",
    "drip=N/S": "N bytes of the body, then S seconds, and so on",
    "drip_headers=N/S": "the same for the headers",
    "drip_chunk_size": "at stall_at, a chunk size that never ends",
    "garbage_status_line": "answer with what is not HTTP",
    "status=N": "an HTTP error",
    "headers.NAME=VALUE": "a response header, such as headers.Retry-After=2",
    "error={...}": "the body of the error, JSON or text",
    "content_type=TEXT": "another content type",
    "redirect=URL": "redirect there",
    "echo_key": "a 401 that repeats the key",
    "error_event_at=N": "an error event after N events ...",
    "error_event=NAME|{...}": "... of this shape, such as openai",
    "malformed_at=N": "break off the JSON of event N",
    "finish_reason=TEXT": "another finish reason",
    "finish=no": "no finish reason",
    "done=no": "no [DONE]",
    "usage=last|finish|none": "where usage is reported",
    "split_surrogates": "emoji in two halves",
    "sampling=yes|no": "another text each time, or the same",
    "tokens": "deltas are whole tokens",
    "differ_at=N": "another text behind N characters",
    "shorter=N": "the text ends there",
    "cached_tokens=N": "so much of the prompt is reported as cached",
    "ids=plain|named": "events have ids; Last-Event-ID goes on behind one",
    "cursor=inclusive|ignore|other|gap|missing|refuse|empty": "what goes wrong with it",
    "replay_events=N": "it brings N old events first",
    "shuffle=N": "it brings events out of order, N at a time",
    "ring=N": "bytes kept for an X-Conversation-Id ...",
    "ttl=S": "... and for how long",
    "prefill=prefix|continue|trailing|none|ignore|refuse": "the prefill it knows",
    "echo=whole|glued|pieces": "the prefix comes again first",
    "stitch=continue|whole": "what a user who asks to go on gets ...",
    "preamble=TEXT": "... behind these words ...",
    "overlap=N": "... and N characters that he has",
    "framing=F": "chunked, one-chunk, close or length",
    "newline=lf|crlf|cr": "the line ending",
    "rechunk=N": "write in pieces of N bytes",
    "bom": "begin with a byte order mark",
    "gzip": "compress",
    "final_blank_line=no": "end without the last blank line",
    "times=N": "serve N requests with it; 0: all that come",
}
"""The faults as they are typed, and what they do. S: seconds, N: a number."""

_EXAMPLE: Final = """\
examples:
  holystream simulator --port 8000 --fault "pace=0.02,times=0"
  holystream simulator --fault "cut_at=900,cut=rst" --fault "status=503"
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``holystream simulator``."""
    rows = (f"  {typed:<27} {meaning}" for typed, meaning in FAULTS.items())
    faults = "\n".join(("faults, separated by commas (N: number, S: seconds):", *rows))
    parser.epilog = f"{faults}\n\n{_EXAMPLE}"
    add = parser.add_argument
    add("--port", type=int, default=0, help="default: a free one")
    add("--host", default="127.0.0.1", help="default: 127.0.0.1")
    add(
        "--fault",
        action="append",
        default=[],
        metavar="FAULTS",
        help="what the next request meets; give it again for the one after that; "
        "when all have been met, answers are healthy",
    )
    add(
        "--times",
        type=int,
        default=1,
        metavar="N",
        help="requests that each --fault without times= of its own serves; 0: all",
    )
    add("--text", help="the text of every answer")
    add(
        "--until-eof",
        action="store_true",
        help="end when standard input does: for a program that starts this one",
    )


def run(options: argparse.Namespace) -> int:
    """Serve until a signal comes; return the exit status."""
    from holystream.simulator import Simulator  # noqa: PLC0415 - only if it is wanted

    if not 0 <= options.port <= _LAST_PORT:
        say(f"error: --port must be from 0 to {_LAST_PORT}, not {options.port}")
        return USAGE
    try:
        scripts = [_script(fault, options.times) for fault in options.fault]
    except ValueError as error:
        say(f"error: --fault: {error}")
        return USAGE
    output = Output()
    try:
        # As Ctrl-C does: the exception ends the wait in serve_forever().
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        simulator = Simulator(
            options.port, options.host, script=scripts, text=options.text
        )
        with simulator:
            output.write(f"{simulator.base_url}\n")
            if options.until_eof:
                _close_at_eof(simulator)
            simulator.serve_forever()
    except KeyboardInterrupt:
        return DONE
    except OSError as error:
        # Python may add the address, which is named already.
        why = (error.strerror or str(error)).partition(" (while ")[0]
        taken = error.errno == errno.EADDRINUSE
        next_step = "; --port 0 takes a free one" if taken else ""
        say(f"error: cannot listen on {options.host}:{options.port}: {why}{next_step}")
        return FAILED
    return DONE


_LAST_PORT: Final = 65535


def _script(fault: str, times: int) -> Script:
    from holystream.simulator import Script  # noqa: PLC0415 - as in run()

    # The last word counts, so that a fault's own times= overrides this one.
    return Script.parse(f"times={times}; {fault}")


def _close_at_eof(simulator: Simulator) -> None:
    def wait() -> None:
        # Not through sys.stdin: its lock, held here, would stop the interpreter's exit.
        while os.read(descriptor, 4096):
            pass
        simulator.close()

    descriptor = sys.stdin.fileno()
    threading.Thread(target=wait, name="until-eof", daemon=True).start()
