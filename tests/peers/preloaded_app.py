"""A WSGI application for ``gunicorn --preload``: its client is older than the workers.

``GET ?q=PROMPT`` streams the answer, ``GET ?id=STREAM`` that of a recorded stream. Both
say in their headers which process answers, and so does each request to the upstream.

With ``UNDER_WAY`` in the environment the client has also been used before the fork: it
keeps a connection, and a thread of the first process reads a stream all the while; the
text of that goes to the file of this name.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from urllib.parse import parse_qs

from holystream import Client, PrioritySemaphore, RetryPolicy

client = Client(
    "test-key-0123456789abcdef",
    provider="openai-compatible",
    base_url=os.environ["UPSTREAM"],
    model="sim",
    pool=PrioritySemaphore(int(os.environ["PERMITS"])),
    retry=RetryPolicy(attempts=3, base=0.001, cap=0.002),
    journal=os.environ.get("JOURNAL"),
)


def app(environ, start_response):
    """Answer one request."""
    query = {name: some[0] for name, some in parse_qs(environ["QUERY_STRING"]).items()}
    if "id" in query:
        stream = client.resume(query["id"], extra_headers=us())
    else:
        stream = ask(query["q"])
    stream.open()
    headers = {"Content-Type": "text/plain", "X-Stream": stream.stream_id, **us()}
    start_response("200 OK", list(headers.items()))
    return pieces(stream)


def pieces(stream):
    """Yield the text as it comes; left early, it closes the stream."""
    with stream:
        for text in stream.text_stream:
            yield text.encode()


def ask(prompt):
    """Return the stream of a question; nothing is sent yet."""
    return client.stream(prompt, temperature=0, extra_headers=us())


def us():
    """Return who asks: this is called in every process."""
    return {"X-Worker": str(os.getpid())}


def use_it_before_the_fork(path):
    """Leave a stream under way, and keep the connection of another one."""
    begun = threading.Event()

    def read():
        text = ""
        for piece in ask("through the fork").text_stream:
            text += piece
            begun.set()
        unfinished = path.with_suffix(".part")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.rename(path)

    threading.Thread(target=read, daemon=True).start()
    begun.wait()
    ask("before the fork").get_final_text()


if "UNDER_WAY" in os.environ:
    use_it_before_the_fork(Path(os.environ["UNDER_WAY"]))
