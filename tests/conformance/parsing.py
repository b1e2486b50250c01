"""Our parser over bytes that come in pieces, as a connection of a feed reads them."""

from __future__ import annotations

from dataclasses import dataclass, field

from holystream import Comment, ServerSentEvent
from holystream.clocks import Timeouts
from holystream.event_source import FeedConnection
from holystream.feed import Feed
from holystream.resilience.retry import RetryPolicy
from holystream.wire.sse import LineSplitter


@dataclass
class Parsed:
    """What bytes mean: ``events`` are (data, type, last event id)."""

    events: list = field(default_factory=list)
    last_id: str = ""
    retry: int | None = None
    comments: list = field(default_factory=list)


class _Pieces:
    """What an HTTP connection is to a feed: lines, as its reads bring them."""

    request_id = "request-id"

    def __init__(self, pieces):
        self._pieces = iter(pieces)
        self._splitter = LineSplitter(1 << 30)

    def resume(self):
        """Nothing is waited for."""

    def next_lines(self):
        for piece in self._pieces:
            if block := self._splitter.feed(piece):
                return block.split(b"\n")[:-1]
        return None


def parse(pieces):
    """Return what the pieces mean to a feed that read them and met the end."""
    feed = Feed(
        stream_id="s",
        endpoint="here",
        timeouts=Timeouts(),
        retry=RetryPolicy(),
        refusal=None,
        secrets=(),
        last_event_id="",
    )
    connection = FeedConnection(_Pieces(pieces), feed)
    parsed = Parsed()
    while (batch := connection.next_batch()) is not None:
        for notice in batch:
            if isinstance(notice, ServerSentEvent):
                parsed.events.append((notice.data, notice.event, notice.id))
            elif isinstance(notice, Comment):
                parsed.comments.append(notice.text)
    parsed.last_id = feed.last_event_id
    if feed.reconnection_time is not None:
        parsed.retry = round(feed.reconnection_time * 1000)
    return parsed
