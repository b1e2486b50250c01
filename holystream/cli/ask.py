"""Ask a model and print its answer as it arrives.

The text goes to stdout and nothing else does, so it can be piped; a line end is added
if the answer has none. Standard input, unless it is a terminal, is appended to the
prompt or is all of it. Everything about the answer goes to stderr.

The API key is never an argument, for every user of a machine can see those: it is read
from the provider's environment variable.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Final

from holystream.cli.console import Output, Status, is_watched, say
from holystream.cli.exits import DONE, FAILED, INTERRUPTED, exit_status, reworded, table
from holystream.errors import (
    ConfigurationError,
    InvalidRequest,
    StreamError,
    StreamInterrupted,
)

if TYPE_CHECKING:
    from holystream import Completion, Stream, StreamEvent

HELP = "ask a model; the answer goes to stdout as it arrives"

_EPILOG: Final = """\
The key is read from the provider's own variable: HOLYSHEEP_API_KEY, OPENAI_API_KEY
and so on, HOLYSTREAM_API_KEY for openai-compatible servers (local ones need none).
Standard input is read to its
end unless it is a terminal: in a loop that reads a file, add </dev/null.
Before a wait for another attempt, stderr is told how long and why: on a terminal in a
line that vanishes when the wait is over.
"""

_WHOLE: Final = (None, "stop", "eos", "end_turn")
"""Finish reasons that leave nothing to say."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``holystream ask``."""
    from holystream.providers.registry import PROFILES  # noqa: PLC0415 - as in run()

    parser.epilog = f"{_EPILOG}\n{table()}"
    add = parser.add_argument
    add("prompt", nargs="*", metavar="PROMPT", help="what to ask; words are joined")
    add("--model", metavar="NAME", required=True, help="such as deepseek-v3.2")
    add(
        "--provider",
        choices=tuple(PROFILES),
        help="default: holysheep, or openai-compatible if --base-url is given",
    )
    add("--base-url", metavar="URL", help="where the API is, /v1 or the like included")
    add(
        "--allow-http",
        action="store_true",
        help="send the key over http:// to another machine, too",
    )
    add("--system", metavar="TEXT", help="instructions that come before the prompt")
    add("--temperature", type=float, metavar="T", help="0: the same answer each time")
    add("--max-tokens", type=int, metavar="N", help="the most the answer may have")
    add("--seed", type=int, metavar="N", help="makes the answer repeatable")
    add(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="the longest silence, before the first text and amid it",
    )
    add(
        "--deadline",
        type=_seconds,
        metavar="SECONDS",
        help="the longest it may take altogether",
    )
    add(
        "--resume",
        type=_strategies,
        metavar="NAMES",
        help="how a broken answer may go on: replay (default), or replay,restart; "
        "restart may take back what was printed, so it needs a terminal",
    )
    add(
        "-v",
        "--verbose",
        action="store_true",
        help="tell on stderr what happens, one line each",
    )


def run(options: argparse.Namespace) -> int:
    """Print the answer; return the exit status."""
    from holystream import Client  # noqa: PLC0415 - only when there is something to ask

    output = Output()
    try:
        prompt = _prompt(options)
        client = Client(
            provider=provider_of(options),
            base_url=options.base_url,
            allow_http=options.allow_http,
        )
        with client, _stream(client, prompt, options) as stream:
            completion = _Printer(output, verbose=options.verbose).print(stream)
    except KeyboardInterrupt:
        output.end_line()
        say(f"stopped by Ctrl-C; {_kept(output)}")
        return INTERRUPTED
    except StreamError as error:
        output.end_line()
        _explain(error, output, options)
        return exit_status(error)
    if completion is None:
        return FAILED
    output.end_line()
    _conclude(completion, options)
    return DONE


def _stream(client: Any, prompt: str, options: argparse.Namespace) -> Stream:
    system = [{"role": "system", "content": options.system}] if options.system else []
    stream: Stream = client.stream(
        [*system, {"role": "user", "content": prompt}],
        model=options.model,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        seed=options.seed,
        timeout=options.timeout,
        deadline=options.deadline,
        resume=options.resume,
    )
    return stream


class _Printer:
    """Prints a stream, and what happens to it. Not thread-safe."""

    def __init__(self, output: Output, *, verbose: bool) -> None:
        self._output = output
        self._verbose = verbose
        self._status = Status(output)
        self._interrupted_by = ""

    def print(self, stream: Stream) -> Completion | None:
        """Print the stream; return None if what was printed became void."""
        try:
            for event in stream:
                self._status.clear()
                if not self._show(event):
                    return None
        finally:
            self._status.clear()
        return stream.completion

    def _show(self, event: StreamEvent) -> bool:
        """Show an event; return False if what was printed became void."""
        import holystream as hs  # noqa: PLC0415 - as in run()

        output = self._output
        if isinstance(event, hs.TextDelta):
            output.write(event.text)
        elif isinstance(event, hs.Interrupted):
            self._interrupted_by = reworded(event.error.message)
        elif isinstance(event, hs.Waiting) and event.delay > 0 and not self._verbose:
            asked = ", as the server asks" if event.reason == "server hint" else ""
            self._status.show(
                f"attempt {event.attempt} in {event.delay:.2f} s{asked}: "
                f"{self._interrupted_by}"
            )
        if self._verbose and (line := _line(event)):
            output.remark(line)
        if isinstance(event, hs.Rewound) and output.written:
            if not output.is_terminal:
                output.end_line()
                say(
                    "error: the answer was begun anew, and what was written to a pipe "
                    f"or a file cannot be taken back: {output.written} characters are "
                    "void. Use --resume restart on a terminal only."
                )
                return False
            output.remark("the answer is begun anew: the text above is void")
            output.written = 0
        return True


def _line(event: StreamEvent) -> str | None:
    """Return the line that ``--verbose`` prints for an event."""
    import holystream as hs  # noqa: PLC0415 - as in run()

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


def _conclude(completion: Completion, options: argparse.Namespace) -> None:
    choice = completion.choices[0]
    if choice.refusal:
        say(f"the model refused: {choice.refusal}")
    if choice.finish_reason not in _WHOLE:
        say(f"the model ended its answer early: {choice.finish_reason}")
    if options.verbose or is_watched():
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


def _explain(error: StreamError, output: Output, options: argparse.Namespace) -> None:
    message = error.message
    advice = ""
    if isinstance(error, StreamInterrupted) and error.cause is not None:
        repeatable = options.temperature == 0 or options.seed is not None
        if not repeatable:
            # The library's own advice names arguments that a command does not have.
            message = f"the answer broke off: {error.cause.message.rstrip('.')}."
            advice = " With --temperature 0 or --seed such a break can be mended."
    say(f"error: {reworded(message)}{advice}")
    if output.written:
        say(_kept(output))
    if options.verbose:
        say(
            f"{type(error).__name__}, attempts: {error.attempts}, "
            f"phase: {error.phase.name if error.phase is not None else 'none'}, "
            f"request: {error.request_id}"
        )


def _kept(output: Output) -> str:
    if not output.written:
        return "nothing had arrived"
    return f"the answer is partial: {output.written} characters were kept"


def provider_of(options: argparse.Namespace) -> str:
    """Return the provider's name: the one that was given, or what goes without."""
    # A key for the default provider is not sent to a URL that somebody typed.
    named: str | None = options.provider
    return named or ("openai-compatible" if options.base_url else "holysheep")


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


def _seconds(text: str) -> float:
    from holystream.clocks import check_seconds  # noqa: PLC0415 - as in run()

    try:
        seconds = float(text)
        check_seconds(seconds, "it")
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be a positive number of seconds, not {text!r}"
        ) from error
    return seconds


def _strategies(text: str) -> tuple[str, ...]:
    from holystream.resume import strategies  # noqa: PLC0415 - as in run()

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    try:
        strategies(names)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return names
