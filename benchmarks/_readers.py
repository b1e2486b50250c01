"""The readers that are compared, and the child process that measures one of them.

``python _readers.py NAME URL EVENTS STREAMS`` prints one line of JSON. A reader is made
once from the base URL of an API; what it returns reads one answer the way the
documentation of its library shows, and appends each piece of text to a list.
"""

# ruff: noqa: PLC0415 - a child imports the library of its reader, and no other

from __future__ import annotations

import json
import resource
import sys
import time
from typing import TYPE_CHECKING

import _answer

if TYPE_CHECKING:
    from collections.abc import Callable

    Read = Callable[[], list[str]]

WARM_UP_EVENTS = 2000
_MESSAGES = [{"role": "user", "content": "Tell me about streams."}]
_REQUEST = {
    "model": _answer.MODEL,
    "messages": _MESSAGES,
    "stream": True,
    "stream_options": {"include_usage": True},
}
_KEY = "sk-loopback-0123456789abcdef"


def floor(url: str) -> Read:
    import _floor

    return _floor.reader(url, _REQUEST)


def naive(url: str) -> Read:
    import requests

    session = requests.Session()
    headers = {"Authorization": f"Bearer {_KEY}"}

    def read() -> list[str]:
        texts: list[str] = []
        with session.post(
            f"{url}/chat/completions", json=_REQUEST, headers=headers, stream=True
        ) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if not line.startswith(b"data: "):
                    continue
                data = line[6:]
                if data == b"[DONE]":
                    break
                chunk = json.loads(data)
                if chunk["choices"]:
                    text = chunk["choices"][0]["delta"].get("content")
                    if text:
                        texts.append(text)
        return texts

    return read


def httpx_sse(url: str) -> Read:
    import httpx
    from httpx_sse import connect_sse

    client = httpx.Client(timeout=60, headers={"Authorization": f"Bearer {_KEY}"})

    def read() -> list[str]:
        texts: list[str] = []
        with connect_sse(
            client, "POST", f"{url}/chat/completions", json=_REQUEST
        ) as source:
            source.response.raise_for_status()
            for event in source.iter_sse():
                if event.data == "[DONE]":
                    break
                chunk = json.loads(event.data)
                if chunk["choices"]:
                    text = chunk["choices"][0]["delta"].get("content")
                    if text:
                        texts.append(text)
        return texts

    return read


def openai(url: str) -> Read:
    from openai import OpenAI

    client = OpenAI(api_key=_KEY, base_url=url, max_retries=0)

    def read() -> list[str]:
        texts: list[str] = []
        stream = client.chat.completions.create(
            model=_answer.MODEL,
            messages=_MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        )
        for chunk in stream:
            if chunk.choices:
                text = chunk.choices[0].delta.content
                if text:
                    texts.append(text)
        return texts

    return read


def holystream_text(url: str) -> Read:
    client = _holystream_client(url)

    def read() -> list[str]:
        texts: list[str] = []
        with client.stream(_MESSAGES) as stream:
            for text in stream.text_stream:
                texts.append(text)  # noqa: PERF402 - a caller has a loop
        return texts

    return read


def holystream_events(url: str) -> Read:
    from holystream import TextDelta

    client = _holystream_client(url)

    def read() -> list[str]:
        texts: list[str] = []
        with client.stream(_MESSAGES) as stream:
            for event in stream:
                if isinstance(event, TextDelta):
                    texts.append(event.text)  # noqa: PERF401 - the same
        return texts

    return read


def _holystream_client(url: str):
    import holystream

    return holystream.Client(
        _KEY, provider="openai-compatible", base_url=url, model=_answer.MODEL
    )


READERS: dict[str, Callable[[str], Read]] = {
    "floor": floor,
    "naive": naive,
    "httpx-sse": httpx_sse,
    "openai": openai,
    "text_stream": holystream_text,
    "events": holystream_events,
}


def measure(make: Callable[[str], Read], url: str, events: int, streams: int) -> dict:
    """Read ``streams`` answers after a warm-up; return the CPU seconds of all."""
    # The URL says how many events are wanted.
    make(f"{url}/{min(events, WARM_UP_EVENTS)}/v1")()
    read = make(f"{url}/{events}/v1")
    digests = []
    cpu = user = wall = 0.0
    for _ in range(streams):
        started = time.perf_counter()
        user_before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        before = time.process_time()
        texts = read()
        cpu += time.process_time() - before
        user += resource.getrusage(resource.RUSAGE_SELF).ru_utime - user_before
        wall += time.perf_counter() - started
        digests.append(_answer.digest("".join(texts)))
        del texts
    tokens = events * streams
    return {
        "cpu": cpu / tokens * 1e6,
        "user": user / tokens * 1e6,
        "wall": wall / tokens * 1e6,
        "right": digests == [_answer.expected(events)] * streams,
    }


def main() -> None:
    name, url, events, streams = sys.argv[1:]
    print(json.dumps(measure(READERS[name], url, int(events), int(streams))))


if __name__ == "__main__":
    main()
