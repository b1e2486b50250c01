"""Watch a stream arrive, break and come back; needs no key and no network.

Servers on this machine play the other side: the simulator of the package. What the
demo claims it verifies, by texts and by the types of errors and never by durations, and
it fails if a claim does not hold. The seconds it shows are measured on the way.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import TYPE_CHECKING, Final

from holystream.cli.console import Output, say
from holystream.cli.exits import DONE, FAILED
from holystream.cli.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Callable

    from holystream.cli.claims import Finding

HELP = "see a stream break and go on; no key, no network"

TEXT: Final = """\
An answer travels in a thousand small pieces, and between any two of them
the line may drop, the server may die, or both may just fall silent. Who
only joins what arrives ends with half a sentence, or with one half of it
twice; a naïve loop cannot tell. Here every piece has its place, and what
comes again is compared and dropped until something new begins. So what
you read is one answer, from first letter to last, and no déjà vu."""

CODE: Final = """\
import holystream
client = holystream.Client()  # the key is in HOLYSHEEP_API_KEY
question = "Why is the sky blue?"
with client.stream(question, model="deepseek-v3.2", temperature=0) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
"""

_PACE: Final = 0.018
_SLOWEST: Final = 1.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``holystream demo``."""
    parser.add_argument(
        "--pace",
        type=_pace,
        default=_PACE,
        metavar="SECONDS",
        help=f"between two pieces of text; default: {_PACE}",
    )


def run(options: argparse.Namespace) -> int:
    """Show everything; return the exit status."""
    from holystream.cli.claims import (  # noqa: PLC0415 - only for this command
        client_of,
        doomed,
        killed,
        stalled,
        stopped,
        whole,
    )
    from holystream.cli.server_process import ServerProcess  # noqa: PLC0415 - the same
    from holystream.simulator import Simulator  # noqa: PLC0415 - the same

    # A proxy of the environment would be asked for 127.0.0.1, and could not know it.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"
    screen = Screen(Output())
    screen.line("holystream demo: four streams, no key, no network.")
    with contextlib.ExitStack() as opened:
        # Started first, so that it is ready when its turn comes.
        child = opened.enter_context(ServerProcess(TEXT, doomed(options.pace)))
        near = opened.enter_context(Simulator(text=TEXT))
        client = opened.enter_context(client_of(near.base_url))
        shown = (screen, near, client, TEXT, options.pace)

        def show_killed() -> Finding:
            child.wait_until_ready()
            with client_of(child.base_url) as far:
                return killed(screen, child, far, TEXT, options.pace)

        broken = [
            *_part(screen, "1. A stream, undisturbed", lambda: whole(*shown)),
            *_part(screen, "2. The same, and its server is killed", show_killed),
            *_part(screen, "3. Silence, but for pings", lambda: stalled(*shown)),
            *_part(screen, "4. A stop from another thread", lambda: stopped(*shown)),
        ]
    screen.line()
    if broken:
        for claim in broken:
            say(f"demo: this claim failed: {claim}")
        return FAILED
    screen.line("All claims hold. Six lines of your own:")
    screen.line()
    screen.verbatim(CODE)
    return DONE


def _pace(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= _SLOWEST:
        raise argparse.ArgumentTypeError(
            f"must be seconds from 0 to {_SLOWEST:g}, not {text!r}"
        )
    return seconds


def _part(screen: Screen, title: str, show: Callable[[], Finding]) -> list[str]:
    """Show one part; return the claims that do not hold."""
    screen.line()
    screen.line(title)
    finding = show()
    for fact in finding.measured:
        screen.line(f"  {fact}")
    for claim, holds in finding.claims.items():
        screen.verdict(claim, holds=holds)
    return [claim for claim, holds in finding.claims.items() if not holds]
