"""What the demo claims: each function shows one stream and says what it found.

A `Finding` holds the claims with their truth, judged by texts, guarantees and types of
errors alone: a slow machine changes what was measured, and no verdict. The clocks that
are not to run out here are therefore generous, and every stream has a deadline.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from typing import TYPE_CHECKING, Final

from holystream import (
    Client,
    Guarantee,
    Interrupted,
    Resumed,
    RetryPolicy,
    StreamCancelled,
    StreamError,
    TextDelta,
    Timeouts,
    TokenIdleTimeout,
    Waiting,
)
from holystream.simulator import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holystream import Completion, Stream, StreamEvent
    from holystream.cli.screen import Screen
    from holystream.cli.server_process import ServerProcess
    from holystream.simulator import Simulator

_PROMPT: Final = "How does an answer arrive?"
_MODEL: Final = "demo"
_DEADLINE: Final = 60.0
_PATIENT: Final = Timeouts(first_token=30, idle=30, token_idle=30)
_FIRST_TOKEN: Final = 0.2
_KILL_AFTER: Final = 180
"""Characters of the answer after which its server is killed."""
_DOOMED_BYTES: Final = 16000
"""What the server that is to be killed sends at most: more than it takes to see
`_KILL_AFTER` characters and less than the whole, however late the kill comes."""
_STALL_BYTES: Final = 8000
_PING_EVERY: Final = 0.1
_STALL: Final = Timeouts(first_token=30, idle=1.3, token_idle=1.8)
"""``idle`` is the shorter one: unless the pings keep coming it runs out first, and the
error is another one."""
_STOP_AFTER: Final = 0.4
"""Seconds without text after which the other thread stops the stream."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a part of the demo found.

    Attributes:
        measured: Facts to show.
        claims: What is claimed, and whether it holds.
    """

    measured: tuple[str, ...]
    claims: Mapping[str, bool]


@dataclasses.dataclass(slots=True)
class Seen:
    """What was seen of one stream; ``text`` is what its pieces add up to."""

    text: str = ""
    last_text_at: float = 0.0
    interruptions: list[tuple[StreamError, float]] = dataclasses.field(
        default_factory=list
    )
    completion: Completion | None = None
    error: StreamError | None = None
    ended_at: float = 0.0

    @property
    def guarantee(self) -> Guarantee | None:
        """What the finished answer is worth."""
        return self.completion.guarantee if self.completion else None

    def is_all_of(self, text: str) -> bool:
        """Whether what was shown, and what was returned, is exactly ``text``."""
        return self.completion is not None and self.text == self.completion.text == text


def whole(
    screen: Screen, simulator: Simulator, client: Client, text: str, pace: float
) -> Finding:
    """Show a stream that nothing disturbs."""
    simulator.play(Script(pace=pace, first_token=_FIRST_TOKEN))
    seen = watch(screen, ask(client, _PATIENT))
    measured: tuple[str, ...] = ()
    if seen.completion is not None and seen.completion.ttft is not None:
        done, ttft = seen.completion, seen.completion.ttft
        speed = done.usage.completion_tokens / max(done.duration - ttft, 0.001)
        measured = (f"first text after {ttft * 1000:.0f} ms, {speed:.0f} tokens/s",)
    return Finding(
        measured=measured,
        claims={
            f"all {len(text)} characters arrived": seen.is_all_of(text),
            "on one connection": seen.guarantee is Guarantee.SINGLE,
        },
    )


def doomed(pace: float) -> tuple[str, ...]:
    """Return the faults of the server that `killed` kills."""
    return (f"pace={pace}, stall_at={_DOOMED_BYTES}, times=0",)


def killed(
    screen: Screen, server: ServerProcess, client: Client, text: str, pace: float
) -> Finding:
    """Kill the server in the middle of its answer, and start it again."""
    was_alive: bool | None = None
    before = 0

    def kill(seen: Seen) -> None:
        nonlocal was_alive, before
        if was_alive is None and len(seen.text) >= _KILL_AFTER:
            pid = server.pid
            was_alive = server.kill()
            before = len(seen.interruptions)
            server.start_again((f"pace={pace}, times=0",))
            screen.remark(
                f"kill -9 {pid}: the server is dead, {len(seen.text)} characters came"
            )

    # The new process takes as long to start as the machine makes it take.
    patient = RetryPolicy(
        attempts=1000, total_attempts=None, base=0.2, cap=0.4, jitter="equal"
    )
    stream = ask(client, _PATIENT, patient)
    seen = watch(screen, stream, kill)
    return Finding(
        measured=(f"{stream.attempts} attempts to connect in all",),
        claims={
            "the server was killed in the middle": bool(was_alive)
            and len(seen.interruptions) > before,
            "the text is the same, to the last character": seen.is_all_of(text),
            "and proven to be one answer": seen.guarantee is Guarantee.REPLAYED,
        },
    )


def stalled(
    screen: Screen, simulator: Simulator, client: Client, text: str, pace: float
) -> Finding:
    """Let the server fall silent for ever, but for its pings."""
    simulator.play(
        Script(pace=pace, stall_at=_STALL_BYTES, pings=_PING_EVERY),
        Script(pace=pace / 4),
    )
    screen.line(
        f"  After some words this server sends a ping every {_PING_EVERY:g} s and "
        "nothing else."
    )
    seen = watch(screen, ask(client, _STALL))
    first, silence = seen.interruptions[0] if seen.interruptions else (None, 0.0)
    return Finding(
        measured=(f"noticed after {silence:.1f} s without text",),
        claims={
            "pings do not pass for an answer": isinstance(first, TokenIdleTimeout),
            "the text is whole all the same": seen.is_all_of(text),
        },
    )


def stopped(
    screen: Screen, simulator: Simulator, client: Client, text: str, pace: float
) -> Finding:
    """Cancel a stream whose reader is blocked, from another thread."""
    simulator.play(Script(pace=pace, stall_at=_STALL_BYTES))
    stream = ask(client, _PATIENT)
    stopper: threading.Thread | None = None
    pressed_at = 0.0

    def stop_in_silence(seen: Seen) -> None:
        nonlocal pressed_at
        while (left := seen.last_text_at + _STOP_AFTER - time.monotonic()) > 0:
            time.sleep(left)
        pressed_at = time.monotonic()
        stream.cancel()

    def on_text(seen: Seen) -> None:
        nonlocal stopper
        if stopper is None:
            stopper = threading.Thread(
                target=stop_in_silence, args=(seen,), name="stopper", daemon=True
            )
            stopper.start()

    seen = watch(screen, stream, on_text)
    if stopper is not None:
        stopper.join()
    kept = seen.error.partial_text if seen.error else ""
    milliseconds = (seen.ended_at - pressed_at) * 1000
    return Finding(
        measured=(f"the blocked reader was free after {milliseconds:.1f} ms",),
        claims={
            "the reader was told: StreamCancelled": type(seen.error) is StreamCancelled,
            f"the {len(kept)} characters that had come are kept": bool(kept)
            and kept == seen.text
            and text.startswith(kept),
        },
    )


def client_of(base_url: str) -> Client:
    """Return a client for one of the demo's servers."""
    return Client("demo-key", provider="openai-compatible", base_url=base_url)


def ask(client: Client, timeouts: Timeouts, retry: RetryPolicy | None = None) -> Stream:
    """Return the stream that every part shows."""
    return client.stream(
        _PROMPT,
        model=_MODEL,
        temperature=0,
        timeout=timeouts,
        deadline=_DEADLINE,
        retry=retry,
    )


def watch(
    screen: Screen, stream: Stream, on_text: Callable[[Seen], None] | None = None
) -> Seen:
    """Show a stream to its end; return what was seen of it."""
    seen = Seen(last_text_at=time.monotonic())
    try:
        with stream:
            for event in stream:
                _show(screen, event, seen)
                if on_text is not None and isinstance(event, TextDelta):
                    on_text(seen)
    except StreamError as error:
        seen.error = error
    seen.ended_at = time.monotonic()
    seen.completion = stream.completion
    if seen.error is not None:
        screen.remark(f"{type(seen.error).__name__}: {seen.error.message}")
    return seen


def _show(screen: Screen, event: StreamEvent, seen: Seen) -> None:
    match event:
        case TextDelta():
            seen.text += event.text
            seen.last_text_at = time.monotonic()
            screen.piece(event.text)
        case Interrupted():
            silence = time.monotonic() - seen.last_text_at
            seen.interruptions.append((event.error, silence))
            screen.remark(f"Interrupted: {type(event.error).__name__}")
        case Waiting():
            when = f"in {event.delay:.2f} s" if event.delay else "at once"
            screen.remark(f"Waiting: attempt {event.attempt} {when}")
        case Resumed():
            screen.remark(
                f"Resumed by {event.strategy} at character {event.offset}: "
                f"{event.guarantee}"
            )
        case _:
            pass
