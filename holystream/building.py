"""Builds streams and feeds out of checked requests, from what one client shares."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from holystream.connector import Connector
from holystream.driver import Driver
from holystream.event_source import EventSource, FeedConnector
from holystream.exchange import Exchange
from holystream.recorder import Recorder
from holystream.resume.checkpoint import Recorded
from holystream.stream import Stream

if TYPE_CHECKING:
    import collections
    from collections.abc import Callable, Mapping

    from holystream.clocks import SystemTime
    from holystream.driven import Closable
    from holystream.feed import Feed
    from holystream.providers.base import ChatRequest, Provider
    from holystream.recovered import Recovered
    from holystream.resilience.endpoints import Endpoint
    from holystream.resilience.pool import Priority, PrioritySemaphore
    from holystream.settings import Settings
    from holystream.wire.http import HttpTransport
    from holystream.wire.request import HttpRequest


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """What all streams of a client share. Thread-safe.

    Attributes:
        provider: The dialect.
        endpoint: Where requests go.
        pool: Bounds the connections.
        transport: Opens them.
        time: Tells clock, sleep and random.
        abandoned: What streams that were dropped unread held; closed by the next one.
    """

    provider: Provider
    endpoint: Endpoint
    pool: PrioritySemaphore
    transport: HttpTransport
    time: Callable[[], SystemTime]
    abandoned: collections.deque[Closable]

    def stream(
        self,
        request: ChatRequest,
        settings: Settings,
        *,
        stream_id: str,
        headers: Mapping[str, str],
        priority: Priority,
        tell: Callable[..., object] | None,
        recovered: Recovered | None = None,
    ) -> Stream:
        """Return a stream of the answer to ``request``, or of what is left of it."""
        key = self.endpoint.key
        time = self.time()
        exchange = Exchange(
            request,
            self.provider,
            stream_id=stream_id,
            endpoint=self.endpoint.name,
            timeouts=settings.timeouts,
            deadline=settings.deadline,
            retry=settings.retry,
            resume=settings.resume,
            min_guarantee=settings.min_guarantee,
            secrets=(*((key.reveal(),) if key else ()), *headers.values()),
            rng=time.rng,
        )
        connect = Connector(
            self.transport,
            self.endpoint,
            secrets=self.key_headers(),
            headers=headers,
            exchange=exchange,
        )
        driver = Driver(
            exchange,
            connect=connect,
            pool=self.pool,
            priority=priority,
            queue_timeout=settings.timeouts.queue,
            abandoned=self.abandoned,
            time=time,
            tell=tell,
            recorder=self._recorder(exchange, settings, recovered),
        )
        if recovered is not None:
            exchange.restore(recovered)
            driver.take([exchange.started, *recovered.events])
        return Stream(exchange, driver)

    def event_source(
        self,
        feed: Feed,
        request: HttpRequest,
        body: Callable[[str], bytes | None],
        *,
        queue_timeout: float,
    ) -> EventSource:
        """Return a reader of a feed."""
        return EventSource(
            feed,
            Driver(
                feed,
                connect=FeedConnector(self.transport, request, body, feed),
                pool=self.pool,
                priority="normal",
                queue_timeout=queue_timeout,
                abandoned=self.abandoned,
                time=self.time(),
            ),
        )

    def key_headers(self) -> dict[str, str]:
        """Return the headers that carry the key, if there is one."""
        key = self.endpoint.key
        return self.provider.profile.key_headers(key.reveal()) if key else {}

    def close_abandoned(self) -> None:
        """Close what dropped streams have left."""
        while self.abandoned:
            self.abandoned.popleft().close()

    def _recorder(
        self, exchange: Exchange, settings: Settings, recovered: Recovered | None
    ) -> Recorder | None:
        """Return what records the stream, if it is recorded and has not ended."""
        claim = None if recovered is None else recovered.claim
        journal = settings.journal
        if journal is None or (recovered is not None and claim is None):
            return None
        recorded = Recorded.of(
            exchange.request,
            provider=self.provider.profile.name,
            resume=settings.ways,
            min_guarantee=settings.min_guarantee,
        )
        return Recorder(
            journal,
            settings.recording,
            exchange,
            request=recorded.encode(),
            claim=claim,
        )
