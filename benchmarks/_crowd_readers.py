"""The readers of concurrency.py, and the child process that measures one of them.

``python _crowd_readers.py READER PORT STREAMS EVENTS PACE`` prints one line of JSON:
how many ms after it was sent a token was in its caller's hands, KB of memory per
stream, and us of CPU per token. ``python _crowd_readers.py long PORT EVENTS`` reads one
long stream.
"""

# ruff: noqa: PLC0415 - a child imports the library of its reader, and no other

from __future__ import annotations

import array
import asyncio
import gc
import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from _arrivals import READERS as ALONE
from _crowd_server import cores, raise_limit, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

_MESSAGES = [{"role": "user", "content": "What time is it?"}]
_KEY = "sk-loopback-0123456789abcdef"
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SAMPLES = 0.25
"""Seconds between two looks at the memory."""


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def raw(url: str, streams: int) -> Callable[[], Iterator[str]]:
    del streams

    def read() -> Iterator[str]:
        # A reader for each stream: it has one socket.
        yield from ALONE["raw"](url)()

    return read


def openai(url: str, streams: int) -> Callable[[], Iterator[str]]:
    del streams
    return ALONE["openai"](url)


def openai_async(url: str, streams: int) -> Callable[[], AsyncIterator[str]]:
    del streams
    from openai import AsyncOpenAI

    client = AsyncOpenAI(api_key=_KEY, base_url=url, max_retries=0)

    async def read() -> AsyncIterator[str]:
        async for chunk in await client.chat.completions.create(
            model="m", messages=_MESSAGES, stream=True
        ):
            if chunk.choices:
                yield chunk.choices[0].delta.content

    return read


def holystream(url: str, streams: int) -> Callable[[], Iterator[str]]:
    from holystream import Client, PrioritySemaphore

    client = Client(
        provider="openai-compatible",
        base_url=url,
        model="m",
        pool=PrioritySemaphore(streams),
    )

    def read() -> Iterator[str]:
        with client.stream(_MESSAGES) as stream:
            yield from stream.text_stream

    return read


THREADED = {function.__name__: function for function in (raw, openai, holystream)}
ASYNC = {"openai_async": openai_async}


class Crowd:
    """What the readers of all streams report.

    The room for the numbers is taken before memory is measured.
    """

    def __init__(self, streams: int, events: int) -> None:
        self.events = events
        self.streams = streams
        self.late = array.array("q", bytes(8 * streams * events))
        self.ends = array.array("q", bytes(8 * streams))
        self.begun = array.array("b", bytes(streams))

    def threads(self, read: Callable[[], Iterator[str]]) -> None:
        """Read all streams, a thread each."""

        def follow(number: int) -> None:
            at = number * self.events
            try:
                for text in read():
                    now = time.monotonic_ns()
                    if text:
                        self.late[at] = now - int(text)
                        at += 1
                        self.begun[number] = 1
            except BaseException:  # noqa: BLE001 - one that fails ends the measurement
                traceback.print_exc()
                os._exit(1)
            self.ends[number] = at

        readers = [
            threading.Thread(target=follow, args=(number,), daemon=True)
            for number in range(self.streams)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()

    def tasks(self, read: Callable[[], AsyncIterator[str]]) -> None:
        """Read all streams in one event loop."""

        async def follow(number: int) -> None:
            at = number * self.events
            async for text in read():
                now = time.monotonic_ns()
                if text:
                    self.late[at] = now - int(text)
                    at += 1
                    self.begun[number] = 1
            self.ends[number] = at

        async def all_of_them() -> None:
            await asyncio.gather(*map(follow, range(self.streams)))

        asyncio.run(all_of_them())

    def complete(self) -> int:
        """Return how many streams brought all events."""
        return sum(
            end == (number + 1) * self.events for number, end in enumerate(self.ends)
        )


def measure(name: str, port: str, streams: int, events: int, pace: int) -> dict:
    """Read a crowd of streams."""
    raise_limit()
    settle()
    make = THREADED.get(name) or ASYNC[name]
    follow = Crowd.threads if name in THREADED else Crowd.tasks
    follow(Crowd(1, 5), make(f"http://127.0.0.1:{port}/1/1000/5", 1))
    crowd = Crowd(streams, events)
    read = make(f"http://127.0.0.1:{port}/{streams}/{pace}/{events}", streams)
    gc.collect()
    before = resident()
    found = {"open": 0, "peak": 0}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLES):
            found["peak"] = max(found["peak"], resident())
            if not found["open"] and all(crowd.begun):
                found["open"] = resident()

    watching = threading.Thread(target=watch)
    watching.start()
    cpu = time.process_time()
    follow(crowd, read)
    cpu = time.process_time() - cpu
    done.set()
    watching.join()
    late = sorted(crowd.late)
    return {
        "complete": crowd.complete(),
        "p50": late[len(late) // 2] / 1e6,
        "p99": late[len(late) * 99 // 100] / 1e6,
        "worst": late[-1] / 1e6,
        "open": max(0, found["open"] - before) / streams / 1e3,
        "peak": max(0, found["peak"] - before) / streams / 1e3,
        "cpu": cpu / (streams * events) * 1e6,
        "cores": cores(),
    }


def long(port: str, events: int) -> dict:
    """Read one long stream at full speed; look how memory grows with its text."""
    list(holystream(f"http://127.0.0.1:{port}/chunked/0/1000", 1)())
    read = holystream(f"http://127.0.0.1:{port}/chunked/0/{events}", 1)
    gc.collect()
    before = most = resident()
    size = 0
    for number, text in enumerate(read()):
        size += len(text.encode())
        if number % 1000 == 0:
            most = max(most, resident())
    return {"grown": max(most, resident()) - before, "text": size}


def main(name: str, port: str, *numbers: str) -> None:
    if name == "long":
        found = long(port, *map(int, numbers))
    else:
        found = measure(name, port, *map(int, numbers))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
