"""The client: configuration, checked at once, and the wiring of a stream."""

from __future__ import annotations

import collections
import functools
from typing import TYPE_CHECKING, Any, ClassVar, Self

from holystream.clocks import SystemTime, Timeouts
from holystream.connector import Connector
from holystream.driver import Driver
from holystream.event_source import EventSource, FeedConnector
from holystream.exchange import Exchange
from holystream.feed import FEED_RETRY, FEED_TIMEOUTS, Feed
from holystream.providers.chat_request import chat_request
from holystream.providers.registry import (
    COMPATIBLE,
    DEFAULT,
    provider as find_provider,
)
from holystream.resilience.endpoints import APIKey
from holystream.resilience.pool import PrioritySemaphore
from holystream.settings import (
    OUR_HEADERS,
    Settings,
    checked_body,
    checked_callback,
    checked_event_id,
    checked_headers,
    checked_method,
    checked_pool,
    checked_priority,
    checked_retry,
    checked_stream_id,
    checked_url,
    checked_verify,
    endpoint_of,
)
from holystream.stream import Stream
from holystream.wire.http import HttpTransport
from holystream.wire.request import HttpRequest, as_a_browser, origin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from holystream.driven import Closable
    from holystream.events import Failed, Guarantee, StreamEvent
    from holystream.providers.profile import Profile
    from holystream.resilience.pool import Priority
    from holystream.resilience.retry import RetryPolicy

DEFAULT_PERMITS = 50
"""Connections that one client holds at once, unless ``pool=`` says otherwise."""


class Client:
    """Streams completions from one provider. Thread-safe and fork-safe.

    One client serves a whole program: it keeps connections for re-use and bounds how
    many are open at once. It may be made before a fork; a child starts with no
    connection of its parent's.

    Args:
        api_key: The API key; by default the provider's environment variable is read:
            ``HOLYSHEEP_API_KEY``, ``OPENAI_API_KEY`` for "openai" and so on.
        provider: "holysheep", "openai", "azure", "deepseek", "openrouter", "mistral",
            "vllm", "llama.cpp", "ollama", "openai-compatible" for any server that
            speaks OpenAI's chat completions, or a `Profile` of your own. By default
            "holysheep", or "openai-compatible" where ``base_url`` is given, so that
            the key of the one never goes to the other.
        model: The model of streams that name none.
        base_url: Where the API is, ``/v1`` or the like included; by default the
            provider's own.
        timeout: Seconds of silence, (connect, read) seconds as in requests, or
            `Timeouts`.
        deadline: Seconds for a whole stream, retries included; none by default.
        retry: When to try again.
        resume: The ways in which an interrupted answer may go on, in order of
            preference: "cursor", "prefill" and "replay" are the default; "stitch" and
            "restart" can be added. docs/resume.md says what each asks of a provider.
        min_guarantee: An answer that can only be had with less than this is an error.
        pool: Bounds the connections; share one between clients to bound them together.
            By default 50 for this client.
        allow_http: Send the key over ``http://`` to other hosts than this one.
        verify: As in requests: the path of a CA bundle, or True for the default.

    Attributes:
        pool: The pool, for its statistics.

    Raises:
        ConfigurationError: A setting is wrong.
        InvalidAPIKey: The key is missing, or cannot be one.
    """

    # Shared by all clients, so that a test need not know which one its code holds.
    _time: ClassVar[SystemTime] = SystemTime()

    def __init__(
        self,
        api_key: str | None = None,
        *,
        provider: str | Profile | None = None,
        model: str | None = None,
        base_url: str | None = None,
        timeout: Timeouts | float | tuple[float, float] | None = None,
        deadline: float | None = None,
        retry: RetryPolicy | None = None,
        resume: Sequence[str] | None = None,
        min_guarantee: Guarantee | None = None,
        pool: PrioritySemaphore | None = None,
        allow_http: bool = False,
        verify: bool | str = True,
    ) -> None:
        key = None if api_key is None else APIKey(api_key)
        # An error's traceback may be shown with its variables.
        del api_key
        if provider is None:
            provider = DEFAULT if base_url is None else COMPATIBLE
        self._provider = find_provider(provider)
        self._endpoint = endpoint_of(
            self._provider.profile, key, base_url, allow_http=allow_http
        )
        self._settings = Settings().changed(
            model=model,
            timeout=timeout,
            deadline=deadline,
            retry=retry,
            resume=resume,
            min_guarantee=min_guarantee,
        )
        self.pool = (
            PrioritySemaphore(DEFAULT_PERMITS) if pool is None else checked_pool(pool)
        )
        self._transport = HttpTransport(
            connections=self.pool.limit,
            user_agent=_user_agent(),
            verify=checked_verify(verify),
        )
        # Connections of streams that were dropped unread; closed by the next stream.
        self._abandoned: collections.deque[Closable] = collections.deque()

    def stream(
        self,
        prompt: str | Sequence[Mapping[str, Any]],
        *,
        model: str | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        n: int | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        deterministic: bool | None = None,
        priority: Priority = "normal",
        stream_id: str | None = None,
        timeout: Timeouts | float | tuple[float, float] | None = None,
        deadline: float | None = None,
        retry: RetryPolicy | None = None,
        resume: Sequence[str] | None = None,
        min_guarantee: Guarantee | None = None,
        extra_body: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        on_event: Callable[[StreamEvent | Failed], object] | None = None,
    ) -> Stream:
        """Return a stream of the answer; nothing is sent before it is opened.

        Args:
            prompt: The user's text, or the messages of a conversation in OpenAI's
                shape: a list of ``{"role": ..., "content": ...}``.
            model: The model's name.
            temperature: From 0 (always the likeliest word) on.
            top_p: Sample from the likeliest words that have this share together.
            max_tokens: Tokens of the answer at most.
            seed: Makes the answer repeatable where the provider can.
            stop: Texts that end the answer.
            n: How many answers to give, at most 128.
            tools: Tools that the model may call, in OpenAI's shape.
            tool_choice: "auto", "none", "required", or one tool.
            response_format: A JSON mode or schema.
            deterministic: Whether the same request gives the same answer, so that it
                can be replayed; by default it does at temperature 0 or with a seed,
                unless the profile says that this model does not.
            priority: "critical", "high", "normal" or "low".
            stream_id: Your own id for logs; letters, digits and ``._:-``.
            timeout: As for the client, for this stream.
            deadline: As for the client, for this stream.
            retry: As for the client, for this stream.
            resume: As for the client, for this stream.
            min_guarantee: As for the client, for this stream.
            extra_body: Fields to add to the request's JSON, or to replace; a field
                that is None is left out.
            extra_headers: Headers to add to the request.
            on_event: Is called with each event before it is handed over, and with
                `Failed` where an exception is raised, in the thread that reads. What
                it raises ends that step; the stream can be read on. `Hooks` gives its
                callbacks names.

        Raises:
            InvalidRequest: An argument is wrong.
            ConfigurationError: One of those that a client has too is wrong.
        """
        self._close_abandoned()
        settings = self._settings.changed(
            model=model,
            timeout=timeout,
            deadline=deadline,
            retry=retry,
            resume=resume,
            min_guarantee=min_guarantee,
        )
        profile = self._provider.profile
        request = chat_request(
            prompt,
            profile=profile,
            model=settings.model,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            seed=seed,
            stop=stop,
            n=n,
            tools=tools,
            tool_choice=tool_choice,
            response_format=response_format,
            extra_body=extra_body,
            deterministic=deterministic,
        )
        headers = checked_headers(extra_headers, "extra_headers")
        key = self._endpoint.key
        exchange = Exchange(
            request,
            self._provider,
            stream_id=checked_stream_id(stream_id),
            endpoint=self._endpoint.name,
            timeouts=settings.timeouts,
            deadline=settings.deadline,
            retry=settings.retry,
            resume=settings.resume,
            min_guarantee=settings.min_guarantee,
            secrets=(*((key.reveal(),) if key else ()), *headers.values()),
            rng=self._time.rng,
        )
        connect = Connector(
            self._transport,
            self._endpoint,
            secrets=self._key_headers(),
            headers=headers,
            exchange=exchange,
        )
        return Stream(
            exchange,
            Driver(
                exchange,
                connect=connect,
                pool=self.pool,
                priority=checked_priority(priority),
                queue_timeout=settings.timeouts.queue,
                abandoned=self._abandoned,
                time=self._time,
                tell=checked_callback(on_event),
            ),
        )

    def event_source(
        self,
        url: str,
        *,
        method: str = "GET",
        json: object | Callable[[str], object] = None,
        headers: Mapping[str, str] | None = None,
        last_event_id: str = "",
        timeout: Timeouts | float | tuple[float, float] | None = None,
        retry: RetryPolicy | None = None,
    ) -> EventSource:
        """Return a reconnecting reader of any event stream; nothing is sent yet.

        The client's key is sent only to the origin of its base URL.

        Args:
            url: Where the event stream is.
            method: The HTTP method.
            json: A body to send with each request, or a function that makes it anew
                from the last event id; None for no body. What such a function raises
                ends the feed, as the cause of a `StreamError`.
            headers: Headers to add to each request; a ``Content-Type`` among them takes
                the place of ``application/json``.
            last_event_id: Where to go on from; empty to start afresh.
            timeout: As for the client. ``first_token`` bounds the wait for the headers,
                ``idle`` a silence, after which it reconnects; by default 60 s and
                300 s.
            retry: By default 10 attempts in a row without an event, any number in all,
                however long the server asks to wait.

        Raises:
            InvalidRequest: An argument is wrong.
            ConfigurationError: The timeout or the policy is wrong.
        """
        self._close_abandoned()
        place = checked_url(url)
        body = checked_body(json)
        key = self._endpoint.key
        at_home = key is not None and origin(place) == origin(self._endpoint.base_url)
        # The caller's own headers may hold keys too: none follows to another origin.
        secrets = {
            **(self._key_headers() if at_home else {}),
            **checked_headers(
                headers,
                "headers",
                reserved=OUR_HEADERS - {"authorization", "content-type"},
            ),
        }
        feed = Feed(
            stream_id=checked_stream_id(None),
            endpoint=origin(place)[1],
            timeouts=FEED_TIMEOUTS if timeout is None else Timeouts.of(timeout),
            retry=FEED_RETRY if retry is None else checked_retry(retry),
            refusal=self._provider.refusal,
            secrets=tuple(secrets.values()),
            last_event_id=checked_event_id(last_event_id),
            rng=self._time.rng,
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
                connect=FeedConnector(self._transport, request, body, feed),
                pool=self.pool,
                priority="normal",
                queue_timeout=self._settings.timeouts.queue,
                abandoned=self._abandoned,
                time=self._time,
            ),
        )

    def with_options(
        self,
        *,
        model: str | None = None,
        timeout: Timeouts | float | tuple[float, float] | None = None,
        deadline: float | None = None,
        retry: RetryPolicy | None = None,
        resume: Sequence[str] | None = None,
        min_guarantee: Guarantee | None = None,
    ) -> Client:
        """Return a client with other defaults that shares connections and pool.

        An argument that is None stays as it is.

        Raises:
            ConfigurationError: A setting is wrong.
        """
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._settings = self._settings.changed(
            model=model,
            timeout=timeout,
            deadline=deadline,
            retry=retry,
            resume=resume,
            min_guarantee=min_guarantee,
        )
        return other

    def close(self) -> None:
        """Close the connections that are idle; streams that are open go on."""
        self._close_abandoned()
        self._transport.close()

    def _close_abandoned(self) -> None:
        while self._abandoned:
            self._abandoned.popleft().close()

    def _key_headers(self) -> dict[str, str]:
        key = self._endpoint.key
        return self._provider.profile.key_headers(key.reveal()) if key else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if not hasattr(self, "_settings"):
            # Shown by a traceback of its own making.
            return "<Client>"
        return (
            f"<Client provider={self._provider.profile.name!r} "
            f"base_url={self._endpoint.base_url!r} model={self._settings.model!r}>"
        )


@functools.cache
def _user_agent() -> str:
    from importlib import metadata  # noqa: PLC0415 - slow to import, wanted only here

    return f"holystream/{metadata.version('holystream')}"
