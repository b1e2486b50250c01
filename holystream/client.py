"""The client: configuration, checked at once, and the wiring of a stream."""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from holystream.clocks import Timeouts, check_seconds
from holystream.errors import ConfigurationError, InvalidAPIKey, InvalidRequest
from holystream.events import Guarantee
from holystream.exchange import Exchange
from holystream.providers.chat_request import chat_request, encode
from holystream.providers.registry import DEFAULT, provider as find_provider
from holystream.resilience.endpoints import Endpoint, check_base_url, check_key
from holystream.resilience.pool import PRIORITIES, Priority, PrioritySemaphore
from holystream.resilience.retry import RetryPolicy
from holystream.resume import DEFAULT_STRATEGIES, strategies
from holystream.stream import Stream
from holystream.wire.http import HttpConnection, HttpRequest, HttpTransport

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from holystream.providers.base import Profile
    from holystream.resilience.endpoints import APIKey
    from holystream.resume import ResumeStrategy
    from holystream.wire.socketio import SocketGuard

DEFAULT_PERMITS = 50
"""Connections that one client holds at once, unless ``pool=`` says otherwise."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"(?:[!-~\x80-\xff]+(?:[ \t]+[!-~\x80-\xff]+)*)?")
_STREAM_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """What `Client.with_options` may change; checked when it is made."""

    model: str | None
    timeouts: Timeouts
    deadline: float | None
    retry: RetryPolicy
    resume: tuple[ResumeStrategy, ...]
    min_guarantee: Guarantee | None


class Client:
    """Streams completions from one provider. Thread-safe and fork-safe.

    One client serves a whole program: it keeps connections for re-use and bounds how
    many are open at once. It may be made before a fork; a child starts with no
    connection of its parent's.

    Args:
        api_key: The API key; by default the provider's environment variable is read:
            ``HOLYSHEEP_API_KEY``, or ``HOLYSTREAM_API_KEY`` for "openai-compatible".
        provider: "holysheep", or "openai-compatible" for any server that speaks
            OpenAI's chat completions.
        model: The model of streams that name none.
        base_url: Where the API is, ``/v1`` or the like included; by default the
            provider's own.
        timeout: Seconds of silence, (connect, read) seconds as in requests, or
            `Timeouts`.
        deadline: Seconds for a whole stream, retries included; none by default.
        retry: When to try again.
        resume: The ways in which an interrupted answer may go on, in order of
            preference: "replay" (the default), "restart".
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

    def __init__(
        self,
        api_key: str | None = None,
        *,
        provider: str = DEFAULT,
        model: str | None = None,
        base_url: str | None = None,
        timeout: Timeouts | float | tuple[float, float] | None = None,
        deadline: float | None = None,
        retry: RetryPolicy | None = None,
        resume: Sequence[str] = DEFAULT_STRATEGIES,
        min_guarantee: Guarantee | None = None,
        pool: PrioritySemaphore | None = None,
        allow_http: bool = False,
        verify: bool | str = True,
    ) -> None:
        self._provider = find_provider(provider)
        self._endpoint = _endpoint(
            self._provider.profile, api_key, base_url, allow_http=allow_http
        )
        self._settings = _Settings(
            model=model,
            timeouts=Timeouts.of(timeout),
            deadline=_deadline(deadline),
            retry=_retry(retry),
            resume=strategies(resume),
            min_guarantee=_guarantee(min_guarantee),
        )
        self.pool = PrioritySemaphore(DEFAULT_PERMITS) if pool is None else _pool(pool)
        self._transport = HttpTransport(
            connections=self.pool.limit, user_agent=_user_agent(), verify=verify
        )
        # Connections of streams that were dropped unread; closed by the next stream.
        self._abandoned: collections.deque[HttpConnection] = collections.deque()

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
            n: How many answers to give.
            tools: Tools that the model may call, in OpenAI's shape.
            tool_choice: "auto", "none", "required", or one tool.
            response_format: A JSON mode or schema.
            deterministic: Whether the same request gives the same answer, so that it
                can be replayed; by default it does at temperature 0 or with a seed.
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

        Raises:
            InvalidRequest: An argument is wrong.
            ConfigurationError: One of those that a client has too is wrong.
        """
        while self._abandoned:
            self._abandoned.popleft().close()
        settings = self._changed(model, timeout, deadline, retry, resume, min_guarantee)
        request = chat_request(
            prompt,
            profile=self._provider.profile,
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
        if priority not in PRIORITIES:
            raise InvalidRequest(
                f"priority must be one of {', '.join(sorted(PRIORITIES))}, "
                f"not {priority!r}"
            )
        key = self._endpoint.key
        http_request = HttpRequest(
            url=self._endpoint.base_url + request.path,
            body=encode(request),
            headers={
                "Content-Type": "application/json",
                **_checked_headers(extra_headers),
            },
            secrets=_authorization(key),
        )
        transport = self._transport

        def connect(guard: SocketGuard) -> HttpConnection:
            return transport.open(http_request, guard)

        exchange = Exchange(
            request,
            self._provider,
            stream_id=_checked_stream_id(stream_id),
            endpoint=self._endpoint.name,
            timeouts=settings.timeouts,
            deadline=settings.deadline,
            retry=settings.retry,
            resume=settings.resume,
            min_guarantee=settings.min_guarantee,
            secrets=(key.reveal(),) if key else (),
        )
        return Stream(
            exchange,
            connect=connect,
            pool=self.pool,
            priority=priority,
            queue_timeout=settings.timeouts.queue,
            abandoned=self._abandoned,
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
        other._settings = self._changed(
            model, timeout, deadline, retry, resume, min_guarantee
        )
        return other

    def close(self) -> None:
        """Close the connections that are idle; streams that are open go on."""
        while self._abandoned:
            self._abandoned.popleft().close()
        self._transport.close()

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
        return (
            f"<Client provider={self._provider.profile.name!r} "
            f"base_url={self._endpoint.base_url!r} model={self._settings.model!r}>"
        )

    def _changed(  # noqa: PLR0917 - two callers, the same order
        self,
        model: str | None,
        timeout: Timeouts | float | tuple[float, float] | None,
        deadline: float | None,
        retry: RetryPolicy | None,
        resume: Sequence[str] | None,
        min_guarantee: Guarantee | None,
    ) -> _Settings:
        old = self._settings
        return _Settings(
            model=old.model if model is None else model,
            timeouts=old.timeouts if timeout is None else Timeouts.of(timeout),
            deadline=old.deadline if deadline is None else _deadline(deadline),
            retry=old.retry if retry is None else _retry(retry),
            resume=old.resume if resume is None else strategies(resume),
            min_guarantee=(
                old.min_guarantee
                if min_guarantee is None
                else _guarantee(min_guarantee)
            ),
        )


def _endpoint(
    profile: Profile, api_key: str | None, base_url: str | None, *, allow_http: bool
) -> Endpoint:
    url = profile.base_url if base_url is None else base_url
    if url is None:
        raise ConfigurationError(
            f"provider={profile.name!r} needs base_url=, such as "
            "'http://localhost:8000/v1'"
        )
    key = None
    if api_key is not None:
        key = check_key(api_key, "api_key=")
    elif variable := os.environ.get(profile.key_variable):
        key = check_key(variable, profile.key_variable)
    elif profile.key_required:
        raise InvalidAPIKey(
            f"no API key: set the environment variable {profile.key_variable} or pass "
            "api_key="
        )
    return Endpoint(
        name=profile.name,
        base_url=check_base_url(url, allow_http=allow_http, has_key=key is not None),
        key=key,
    )


def _is(value: object, kind: type) -> bool:
    """Check at run time what the annotations promise: not every caller has mypy."""
    return isinstance(value, kind)


def _authorization(key: APIKey | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key.reveal()}"}


def _deadline(seconds: float | None) -> float | None:
    if seconds is not None:
        check_seconds(seconds, "deadline")
    return seconds


def _retry(policy: RetryPolicy | None) -> RetryPolicy:
    if policy is None:
        return RetryPolicy()
    if not _is(policy, RetryPolicy):
        raise ConfigurationError(
            "retry= takes a RetryPolicy; tenacity objects go into it: "
            f"RetryPolicy(wait=..., stop=..., retry=...), not {type(policy).__name__}"
        )
    return policy


def _guarantee(guarantee: Guarantee | None) -> Guarantee | None:
    if guarantee is not None and not _is(guarantee, Guarantee):
        raise ConfigurationError(
            "min_guarantee= takes a Guarantee, such as Guarantee.REPLAYED, not "
            f"{guarantee!r}"
        )
    return guarantee


def _pool(pool: PrioritySemaphore) -> PrioritySemaphore:
    if not _is(pool, PrioritySemaphore):
        raise ConfigurationError(
            f"pool= takes a PrioritySemaphore, not {type(pool).__name__}"
        )
    return pool


def _checked_stream_id(stream_id: str | None) -> str:
    if stream_id is None:
        return uuid.uuid4().hex
    if not _is(stream_id, str) or not _STREAM_ID.fullmatch(stream_id):
        raise InvalidRequest(
            "stream_id must be 1 to 128 letters, digits and ._:- characters"
        )
    return stream_id


def _checked_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    if headers is None:
        return {}
    if not _is(headers, Mapping):
        raise InvalidRequest(
            f"extra_headers must be a mapping, not {type(headers).__name__}"
        )
    for name, value in headers.items():
        if not _is(name, str) or not _HEADER_NAME.fullmatch(name):
            raise InvalidRequest("extra_headers has a name that no header can have")
        if not _is(value, str) or not _HEADER_VALUE.fullmatch(value):
            # Not shown: it may be a secret.
            raise InvalidRequest(
                f"extra_headers[{name!r}] must be a str without line breaks, control "
                "characters or white space at its ends"
            )
        if name.lower() in _OUR_HEADERS:
            raise InvalidRequest(
                f"extra_headers must not set {name}: holystream needs its own"
            )
    return dict(headers)


_OUR_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
    }
)


@functools.cache
def _user_agent() -> str:
    from importlib import metadata  # noqa: PLC0415 - slow to import, wanted only here

    return f"holystream/{metadata.version('holystream')}"
