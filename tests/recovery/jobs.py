"""What the children of a `nursery.Nursery` do."""

from __future__ import annotations

import os
import signal
import sys
import traceback

import holystream
import holystream.journal.sqlite
from holystream import Client, ReasoningDelta, RetryPolicy, TextDelta, ToolCallDelta

SOON = RetryPolicy(attempts=4, base=0.001, cap=0.002)
holystream.profile("vllm")  # read once, before the forks
KEY = "sk-4711-do-not-show-me"
ENDED, BROKE_OFF = 0, 3
MARK = "\0"
"""Stands for a piece of something that is no text."""


def run(job, output, options) -> int:
    """Do a job; return the exit status."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return job(lambda text: _write(output, text), **options)
    except holystream.HolystreamError as error:
        _write(output, f"\n!{type(error).__name__}")
        return BROKE_OFF
    except KeyboardInterrupt:
        return -signal.SIGINT % 256
    except BaseException:  # noqa: BLE001 - shown by the test run
        traceback.print_exc(file=sys.stderr)
        return 1


def _write(output: int, text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    while data:
        data = data[os.write(output, data) :]


def client_for(base_url, **options):
    options = {"retry": SOON, "timeout": 20.0, "model": "sim", **options}
    return Client(KEY, base_url=base_url, **options)


def stream(write, *, client, prompt, **options):
    """Stream an answer and write its text as it is handed over."""
    with client_for(**client) as made, made.stream(prompt, **options) as stream:
        _print(write, stream)
    return ENDED


def resume(write, *, client, which, **options):
    """Go on with a stream and write its text."""
    with client_for(**client) as made, made.resume(which, **options) as stream:
        _print(write, stream)
    return ENDED


def _print(write, stream) -> None:
    for event in stream:
        if isinstance(event, TextDelta) and event.index == 0:
            write(event.text)
        elif isinstance(event, (ReasoningDelta, ToolCallDelta)):
            write(MARK)
