"""Prints an answer as it arrives, and what there is to say about it and its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holystream.cli.console import Status, is_watched, say
from holystream.cli.exits import reworded
from holystream.errors import StreamInterrupted

if TYPE_CHECKING:
    from holystream import Completion, Stream, StreamError, StreamEvent, Waiting
    from holystream.cli.console import Output

_WHOLE: Final = (None, "stop", "eos", "end_turn")
"""Finish reasons that leave nothing to say."""

_HELD: Final = {
    "circuit open": " or sooner, as the host is left alone for now",
    "server hint": ", as the server asks",
}
"""What holds an attempt back, where it is no plain backoff."""


class Printer:
    """Prints a stream, and what happens to it. Not thread-safe.

    Args:
        output: Where its text goes.
        verbose: Tell on stderr what happens.
        after: Characters of the text that whoever reads the output has already.
    """

    def __init__(self, output: Output, *, verbose: bool, after: int = 0) -> None:
        self._output = output
        self._after = after
        self._verbose = verbose
        self._status = Status(output)
        self._interrupted_by = ""

    @property
    def position(self) -> int:
        """Characters of the text that the reader of the output has."""
        return self._after + self._output.written

    def print(self, stream: Stream) -> Completion:
        """Print the stream; return its answer."""
        try:
            for event in stream:
                self._status.clear()
                self._show(event)
        finally:
            self._status.clear()
        return stream.get_final_completion()

    def _show(self, event: StreamEvent) -> None:
        import holystream as hs  # noqa: PLC0415 - if it runs

        output = self._output
        if isinstance(event, hs.TextDelta):
            output.write(event.text)
        elif isinstance(event, hs.Interrupted):
            self._interrupted_by = reworded(event.error.message)
        elif isinstance(event, hs.Waiting) and event.delay > 0 and not self._verbose:
            self._status.show(again(event, self._interrupted_by))
        if self._verbose and (line := line_of(event)):
            output.remark(line)
        # Only on a terminal: checked_ways() forbids it elsewhere.
        if isinstance(event, hs.Rewound) and self.position:
            output.remark("the answer is begun anew: the text above is void")
            output.written = self._after = 0


def line_of(event: object) -> str | None:
    """Return the line that ``--verbose`` prints for an event."""
    import holystream as hs  # noqa: PLC0415 - if it runs

    match event:
        case hs.Connected():
            return (
                f"connected to {event.endpoint}, attempt {event.attempt}, "
                f"request {event.request_id}"
            )
        case hs.Interrupted():
            error = event.error
            return f"interrupted: {type(error).__name__}: {reworded(error.message)}"
        case hs.Waiting():
            return (
                f"waiting {event.delay:.2f} s ({event.reason}) for attempt "
                f"{event.attempt}"
            )
        case hs.Resumed():
            return (
                f"resumed by {event.strategy} at character {event.offset}: "
                f"{event.guarantee}"
            )
        case _:
            return None


def again(waiting: Waiting, why: str) -> str:
    """Say when the next attempt is made, and why."""
    held = _HELD.get(waiting.reason, "")
    return f"attempt {waiting.attempt} in {waiting.delay:.2f} s{held}: {why}"


def conclude(completion: Completion, *, verbose: bool) -> None:
    """Say what a whole answer leaves to say."""
    choice = completion.choices[0]
    if choice.refusal:
        say(f"the model refused: {choice.refusal}")
    if choice.finish_reason not in _WHOLE:
        say(f"the model ended its answer early: {choice.finish_reason}")
    if verbose or is_watched():
        say(_summary(completion))


def _summary(completion: Completion) -> str:
    usage, ttft = completion.usage, completion.ttft
    facts = []
    if ttft is not None:
        facts.append(f"first text after {ttft:.2f} s")
        writing = completion.duration - ttft
        if writing > 0 and usage.completion_tokens > 1:
            facts.append(f"{usage.completion_tokens / writing:.1f} tokens/s")
    about = "about " if usage.estimated else ""
    facts += [
        f"{about}{usage.completion_tokens} tokens",
        f"guarantee {completion.guarantee}",
        f"attempts {completion.attempts}",
    ]
    return ", ".join(facts)


def explain(
    error: StreamError, *, advice: str, kept: str, verbose: bool, cause: str = ""
) -> None:
    """Say why there is no whole answer.

    Args:
        error: What ended the stream.
        advice: What helps against a break that could not be mended; empty to leave
            that to the library, which names arguments that a command may not have.
        kept: What there is instead; empty if nothing.
        verbose: Tell more.
        cause: What broke it, where more is known than ``error`` says.
    """
    message = error.message
    if isinstance(error, StreamInterrupted) and error.cause is not None and advice:
        cause = cause or error.cause.message
        message = f"the answer broke off: {cause.rstrip('.')}. {advice}"
    say(f"error: {reworded(message)}")
    if kept:
        say(kept)
    if verbose:
        say(
            f"{type(error).__name__}, attempts: {error.attempts}, "
            f"phase: {error.phase.name if error.phase is not None else 'none'}, "
            f"request: {error.request_id}"
        )


def kept(characters: int) -> str:
    """Say how much of an answer there is."""
    if not characters:
        return "nothing had arrived"
    return f"the answer is partial: {characters} characters were kept"
