"""Runs an answer with a fault in it, through holystream and through openai-python.

Each run has a simulator of its own; only openai-python's connections are shared,
because making a client of it takes longer than a run. What a run returns says how it
ended and, in brackets, how many requests the server got.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

from fault_list import SHORT, Fault

from holystream import (
    Client,
    Guarantee,
    RetryPolicy,
    StreamError,
    StreamInterrupted,
    Timeouts,
)
from holystream.simulator import Simulator

try:
    import openai
except ImportError:
    openai = None

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "sk-0123456789abcdef"
PROMPT = "What is lost when a connection breaks?"
HUNG = 4 * SHORT
"""Seconds after which openai-python is not waited for, where its timeout is short."""
NEVER = 30.0


def request(temperature: float) -> dict[str, Any]:
    """Return what both clients ask for."""
    return {
        "model": "sim",
        "messages": [{"role": "user", "content": PROMPT}],
        "temperature": temperature,
        "stream_options": {"include_usage": True},
    }


@contextlib.contextmanager
def server(
    fault: Fault, framing: str, body: dict[str, Any], times: int
) -> Iterator[tuple[str, Simulator]]:
    """Yield the base URL of a server with the fault, and the server."""
    with Simulator(length=12) as simulator, socket.socket() as nobody:
        if fault.name == "nobody listens":
            nobody.bind(("127.0.0.1", 0))
            yield f"http://127.0.0.1:{nobody.getsockname()[1]}/v1", simulator
        else:
            simulator.play(fault.script(framing, body, simulator, times))
            yield simulator.base_url, simulator


def run_holystream(
    fault: Fault, framing: str, *, temperature: float, times: int
) -> str:
    """Read one answer to its end; so many requests meet the fault, all if 0."""
    seconds = SHORT if fault.waits else NEVER
    body = request(temperature)
    with (
        server(fault, framing, body, times) as (url, simulator),
        Client(
            KEY,
            provider="openai-compatible",
            base_url=url,
            model="sim",
            timeout=Timeouts(
                connect=NEVER,
                first_token=seconds,
                idle=seconds,
                token_idle=1.5 * seconds,
            ),
            retry=RetryPolicy(attempts=3, base=0.001, cap=0.002),
        ) as client,
    ):
        known = [simulator.answer(body, sample).text for sample in range(4)]
        text = ""
        try:
            with client.stream(PROMPT, temperature=temperature) as stream:
                for piece in stream.text_stream:
                    text += piece
            completion = stream.get_final_completion()
            exact = text == completion.text and text in known
            said = "exact" if exact else "WRONG TEXT"
            if completion.guarantee is not Guarantee.SINGLE:
                said += f", {completion.guarantee.name}"
        except StreamError as error:
            said = _told(error, text, fault.arriving(body, simulator))
        assert client.pool.statistics().in_use == 0
        return f"{said} ({len(simulator.requests)})"


def _told(error: StreamError, text: str, arrived: str) -> str:
    said = type(error).__name__
    if isinstance(error, StreamInterrupted):
        said += f": {type(error.cause).__name__}"
    said += f" in {error.phase.name}"
    if not text == error.partial_text == arrived:
        return f"{said}, WRONG TEXT"
    shown = f"{error}{error.__cause__!r}"
    if KEY in shown or PROMPT in shown:
        return f"{said}, A SECRET IS TOLD"
    return f"{said}, prefix" if text else f"{said}, no text"


def run_openai(fault: Fault, framing: str, http: Any) -> str:
    """Read the same answer as openai-python's documentation does."""
    body = request(0.0)
    with server(fault, framing, body, 1) as (url, simulator):
        client = openai.OpenAI(
            api_key=KEY,
            base_url=url,
            http_client=http,
            timeout=SHORT if fault.waits else NEVER,
        )
        whole = simulator.answer(body).text
        text, hung = "", []

        def give_up() -> None:
            hung.append(len(simulator.requests))
            simulator.drop_all()

        timer = threading.Timer(HUNG if fault.waits else NEVER, give_up)
        timer.start()
        try:
            with client.chat.completions.create(**body, stream=True) as stream:
                for chunk in stream:
                    if chunk.choices:
                        text += chunk.choices[0].delta.content or ""
        except Exception as error:  # noqa: BLE001 - whichever it is, it is written down
            said = _name(error)
        else:
            said = "exact" if text == whole else "**wrong text**"
            if text != whole and whole.startswith(text):
                said = f"**{'short' if text else 'no'} text, no error**"
        finally:
            timer.cancel()
            timer.join()
        if hung:
            return f"**waits beyond its timeout** ({hung[0]})"
        return f"{said} ({len(simulator.requests)})"


def _name(error: Exception) -> str:
    home = type(error).__module__.partition(".")[0]
    name = type(error).__qualname__
    return name if home in ("openai", "builtins") else f"{home}.{name}"
