"""The site of workers.py: one client for all threads of a worker, and 503 when busy.

It is what docs/concurrency.md recommends, as a WSGI application without a framework.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from holystream import (
    CircuitOpen,
    Client,
    Overloaded,
    PoolError,
    PrioritySemaphore,
    RateLimited,
    Timeouts,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holystream import Stream

client = Client(
    "sk-loopback-0123456789abcdef",
    provider="openai-compatible",
    base_url=os.environ["UPSTREAM"],
    model="m",
    pool=PrioritySemaphore(
        int(os.environ["PERMITS"]), max_queue=int(os.environ["QUEUE"])
    ),
    timeout=Timeouts(queue=5.0),
)


def app(_, start_response) -> Iterable[bytes]:
    try:
        stream = client.stream("Tell me a story").open()
    except (PoolError, CircuitOpen, RateLimited, Overloaded):
        start_response("503 Service Unavailable", [("Retry-After", "5")])
        return [b"busy"]
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return pieces(stream)


def pieces(stream: Stream) -> Iterator[bytes]:
    with stream:
        for text in stream.text_stream:
            yield text.encode()
