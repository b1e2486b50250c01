"""Builds streams and feeds out of checked requests, from what one client shares."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Self

from holystream.arguments import (
    OUR_HEADERS,
    checked_body,
    checked_event_id,
    checked_headers,
    checked_method,
    checked_stream_id,
    checked_url,
)
from holystream.attempts import Attempts
from holystream.connector import Connector, key_headers
from holystream.driver import Driver
from holystream.event_source import EventSource, FeedAttempts, FeedConnector
from holystream.exchange import Exchange
from holystream.feed import Feed
from holystream.recorder import Recorder
from holystream.resilience.redact import secrets_in_query
from holystream.resume.checkpoint import Recorded
from holystream.stream import Stream
from holystream.telemetry import Telemetry
from holystream.telemetry.logging import log_from_environment
from holystream.wire.http import HttpTransport
from holystream.wire.request import HttpRequest, as_a_browser, origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holystream.clocks import SystemTime, Timeouts
    from holystream.driven import Closable
    from holystream.providers.base import ChatRequest, Provider
    from holystream.recovered import Recovered
    from holystream.resilience.budget import BudgetStatistics, RetryBudget
    from holystream.resilience.health import EndpointStatistics
    from holystream.resilience.pool import PoolStatistics, Priority, PrioritySemaphore
    from holystream.resilience.retry import RetryPolicy
    from holystream.resilience.routing import Router
    from holystream.settings import Settings
    from holystream.telemetry import Metrics


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ClientMetrics:
    """How things stand with a client, at one moment.

    Attributes:
        streams: What became of its attempts and streams.
        pool: Its permits, and who waits for them; of all clients that share the pool.
        endpoints: How each endpoint does, its breaker included.
        budget: Its retry budget; of all clients that share it.
    """

    streams: Metrics
    pool: PoolStatistics
    endpoints: tuple[EndpointStatistics, ...]
    budget: BudgetStatistics

    def __repr__(self) -> str:
        pool = self.pool
        endpoints = ", ".join(
            f"{each.name} {each.breaker.state.value}" for each in self.endpoints
        )
        return (
            f"<ClientMetrics: {self.streams.summary}; "
            f"{pool.in_use} of {pool.limit} permits in use, {pool.queued} waiting; "
            f"breakers: {endpoints}; {_retries(self.budget.balance)} to spend>"
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """What all streams of a client share. Thread-safe.

    Attributes:
        provider: The dialect.
        router: Picks where each attempt goes.
        budget: Bounds the retries of all streams together.
        telemetry: Keeps the records.
        pool: Bounds the connections.
        transport: Opens them.
        time: Tells clock, sleep and random.
        abandoned: What streams that were dropped unread held; closed by the next one.
    """

    provider: Provider
    router: Router
    budget: RetryBudget
    telemetry: Telemetry
    pool: PrioritySemaphore
    transport: HttpTransport
    time: Callable[[], SystemTime]
    abandoned: collections.deque[Closable]

    @classmethod
    def of(
        cls,
        provider: Provider,
        router: Router,
        *,
        pool: PrioritySemaphore,
        budget: RetryBudget,
        verify: bool | str,
        time: Callable[[], SystemTime],
    ) -> Self:
        """Return a builder with connections and records of its own."""
        telemetry = Telemetry()
        log_from_environment(telemetry)
        return cls(
            provider=provider,
            router=router,
            budget=budget,
            telemetry=telemetry,
            pool=pool,
            transport=HttpTransport(
                connections=pool.limit, user_agent=user_agent(), verify=verify
            ),
            time=time,
            abandoned=collections.deque(),
        )

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
        time = self.time()
        endpoints = self.router.endpoints
        keys = [endpoint.key.reveal() for endpoint in endpoints if endpoint.key]
        exchange = Exchange(
            request,
            self.provider,
            stream_id=stream_id,
            endpoint=self._begun_at(recovered),
            timeouts=settings.timeouts,
            deadline=settings.deadline,
            retry=settings.retry,
            resume=settings.resume,
            min_guarantee=settings.min_guarantee,
            secrets=(*keys, *headers.values()),
            patient=settings.patient,
            rng=time.rng,
        )
        attempts = Attempts(
            exchange,
            Connector(
                self.transport,
                self.provider.profile,
                headers=headers,
                exchange=exchange,
            ),
            router=self.router,
            budget=self.budget,
            telemetry=self.telemetry,
            provider=self.provider.profile.name,
            priority=priority,
        )
        driver = Driver(
            exchange,
            attempts=attempts,
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
        url: str,
        *,
        method: str,
        json: object | Callable[[str], object],
        headers: Mapping[str, str] | None,
        last_event_id: str,
        timeouts: Timeouts,
        retry: RetryPolicy,
        queue_timeout: float,
    ) -> EventSource:
        """Return a reader of a feed; `holystream.Client.event_source` says of which.

        Raises:
            InvalidRequest: An argument is wrong.
        """
        place = checked_url(url)
        body = checked_body(json)
        home = next(
            (
                endpoint
                for endpoint in self.router.endpoints
                if origin(place) == origin(endpoint.base_url)
            ),
            None,
        )
        # The caller's own headers may hold keys too: none follows to another origin.
        secrets = {
            **(key_headers(self.provider.profile, home) if home else {}),
            **checked_headers(
                headers,
                "headers",
                reserved=OUR_HEADERS - {"authorization", "content-type"},
            ),
        }
        time = self.time()
        feed = Feed(
            stream_id=checked_stream_id(None),
            endpoint=origin(place)[1],
            timeouts=timeouts,
            retry=retry,
            refusal=self.provider.refusal,
            secrets=(*secrets.values(), *secrets_in_query(place)),
            last_event_id=checked_event_id(last_event_id),
            rng=time.rng,
        )
        request = HttpRequest(
            url=place,
            body=None,
            method=checked_method(method),
            secrets=secrets,
            redirected=as_a_browser,
        )
        return EventSource(
            feed,
            Driver(
                feed,
                attempts=FeedAttempts(
                    FeedConnector(self.transport, request, body, feed)
                ),
                pool=self.pool,
                priority="normal",
                queue_timeout=queue_timeout,
                abandoned=self.abandoned,
                time=time,
            ),
        )

    def metrics(self) -> ClientMetrics:
        """Return how things stand, dropped streams included."""
        self.close_abandoned()
        return ClientMetrics(
            streams=self.telemetry.metrics(),
            pool=self.pool.statistics(),
            endpoints=self.router.statistics(),
            budget=self.budget.statistics(),
        )

    def close_abandoned(self) -> None:
        """Close what dropped streams have left."""
        while self.abandoned:
            self.abandoned.popleft().close()

    def _begun_at(self, recovered: Recovered | None) -> str:
        """Return the endpoint that may have kept the rest of an answer."""
        names = [endpoint.name for endpoint in self.router.endpoints]
        noted = "" if recovered is None else recovered.checkpoint.endpoint
        return noted if noted in names else names[0]

    def _recorder(
        self, exchange: Exchange, settings: Settings, recovered: Recovered | None
    ) -> Recorder | None:
        """Return what records the stream, if it is recorded and has not ended."""
        claim = None if recovered is None else recovered.claim
        journal = settings.journal
        if journal is None or (recovered is not None and recovered.ended):
            return None
        before = None
        if recovered is not None and claim is None:
            # By a token: what it stands for has not been recorded here.
            before = recovered.transcript.text, recovered.checkpoint.encode()
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
            before=before,
        )


def _retries(balance: float) -> str:
    """Say how many retries a balance is: a part of one cannot be spent."""
    if balance == math.inf:
        return "any number of retries"
    whole = math.floor(balance)
    return "1 retry" if whole == 1 else f"{whole} retries"


@functools.cache
def user_agent() -> str:
    """Return the ``User-Agent`` header; what was not installed has no version."""
    from importlib import metadata  # noqa: PLC0415 - slow to import, wanted only here

    try:
        return f"holystream/{metadata.version('holystream')}"
    except metadata.PackageNotFoundError:
        return "holystream"
