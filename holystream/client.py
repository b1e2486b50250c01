"""The client: what it may be set to, and what may be asked of it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Self

from holystream.arguments import (
    checked_callback,
    checked_headers,
    checked_priority,
    checked_stream_id,
)
from holystream.building import Builder
from holystream.clocks import SystemTime, Timeouts
from holystream.destinations import endpoints_of
from holystream.feed import FEED_RETRY, FEED_TIMEOUTS
from holystream.finding import find_stream
from holystream.journal.shared import Journals
from holystream.mapping import mapped, whole
from holystream.mapping.options import check_names
from holystream.providers.chat_request import chat_request
from holystream.providers.registry import (
    COMPATIBLE,
    DEFAULT,
    provider as find_provider,
)
from holystream.recovery import let_go
from holystream.resilience.budget import RetryBudget
from holystream.resilience.circuit import BreakerPolicy
from holystream.resilience.endpoints import APIKey
from holystream.resilience.pool import PrioritySemaphore
from holystream.resilience.routing import Router
from holystream.settings import (
    Recording,
    Settings,
    checked,
    checked_retry,
    checked_verify,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType
    from typing import Unpack

    from holystream.building import ClientMetrics
    from holystream.event_source import EventSource
    from holystream.events import Completion, Failed, Guarantee, StreamEvent
    from holystream.journal import Journal
    from holystream.mapping import (
        Map,
        MapItem,
        MapOptions,
        Prompt,
        ResultOrder,
        StreamOptions,
    )
    from holystream.providers.profile import Profile
    from holystream.resilience.breaker import CircuitBreaker
    from holystream.resilience.endpoints import Endpoint
    from holystream.resilience.pool import Priority
    from holystream.resilience.retry import RetryPolicy
    from holystream.stream import Stream

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
        endpoints: Several places that serve the same API, in place of ``base_url``:
            each attempt goes to the one that does best, and an answer that breaks off
            at one goes on at another. One without a key of its own gets ``api_key``.
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
        breaker: When an endpoint is left alone for a while; by default after 5 failures
            in a row, for 60 s.
        retry_budget: Bounds the retries of all streams together; share one between
            clients to bound them together. By default a fifth of the requests of the
            last 10 s, and 25 a second.
        journal: Where streams are recorded, prompts and texts included, so that
            `resume` can go on with them after a crash: the path of an SQLite database,
            or a journal. By default nowhere.
        checkpoint_every: Characters of text that may be handed over before they are
            recorded. By default everything is recorded before it is handed over.
        checkpoint_interval: Seconds that may pass before what was handed over is
            recorded, at the next event that comes.
        journal_ttl: Seconds to keep a recorded stream, a day by default.
        journal_best_effort: A stream whose journal fails goes on without it, with a
            warning in the log "holystream"; by default the journal's error ends it.
        allow_http: Send the key over ``http://`` to other hosts than this one.
        verify: As in requests: the path of a CA bundle, or True for the default.

    Attributes:
        telemetry: Hands a record of each attempt and each stream to your hooks.

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
        endpoints: Iterable[Endpoint] | None = None,
        timeout: Timeouts | float | tuple[float, float] | None = None,
        deadline: float | None = None,
        retry: RetryPolicy | None = None,
        resume: Sequence[str] | None = None,
        min_guarantee: Guarantee | None = None,
        pool: PrioritySemaphore | None = None,
        breaker: BreakerPolicy | None = None,
        retry_budget: RetryBudget | None = None,
        journal: str | os.PathLike[str] | Journal | None = None,
        checkpoint_every: int = 0,
        checkpoint_interval: float = 0.0,
        journal_ttl: float = 86400.0,
        journal_best_effort: bool = False,
        allow_http: bool = False,
        verify: bool | str = True,
    ) -> None:
        key = None if api_key is None else APIKey(api_key)
        # An error's traceback may be shown with its variables.
        del api_key
        if provider is None:
            elsewhere = base_url is not None or endpoints is not None
            provider = COMPATIBLE if elsewhere else DEFAULT
        self._provider = find_provider(provider)
        self._router = Router(
            endpoints_of(
                self._provider.profile, key, base_url, endpoints, allow_http=allow_http
            ),
            breaker=checked(breaker, BreakerPolicy, "breaker="),
            clock=_now,
            rng=self._time.rng,
        )
        journals = Journals(journal)
        self._settings = Settings(
            journals=journals,
            journal=journals.own,
            recording=Recording(
                every=checkpoint_every,
                interval=checkpoint_interval,
                ttl=journal_ttl,
                best_effort=journal_best_effort,
            ),
        ).changed(
            model=model,
            timeout=timeout,
            deadline=deadline,
            retry=retry,
            resume=resume,
            min_guarantee=min_guarantee,
        )
        self._builder = Builder.of(
            self._provider,
            self._router,
            pool=checked(pool, PrioritySemaphore, "pool=")
            or PrioritySemaphore(DEFAULT_PERMITS),
            budget=checked(retry_budget, RetryBudget, "retry_budget=")
            or RetryBudget(clock=_now),
            verify=checked_verify(verify),
            # Asked for each stream: a test may change it while the client lives.
            time=lambda: Client._time,
        )
        self.telemetry = self._builder.telemetry

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
        journal: str | os.PathLike[str] | Journal | None = None,
        checkpoint_every: int | None = None,
        checkpoint_interval: float | None = None,
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
            journal: Where the stream is recorded, as for the client.
            checkpoint_every: As for the client, for this stream.
            checkpoint_interval: As for the client, for this stream.

        Raises:
            InvalidRequest: An argument is wrong.
            ConfigurationError: One of those that a client has too is wrong.
            JournalError: The journal cannot be opened.
        """
        self._builder.close_abandoned()
        settings = self._settings.changed(
            model=model,
            timeout=timeout,
            deadline=deadline,
            retry=retry,
            resume=resume,
            min_guarantee=min_guarantee,
        ).recorded(journal, checkpoint_every, checkpoint_interval)
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
        return self._builder.stream(
            request,
            settings,
            stream_id=checked_stream_id(stream_id),
            headers=checked_headers(extra_headers, "extra_headers"),
            priority=checked_priority(priority),
            tell=checked_callback(on_event),
        )

    def complete(
        self,
        prompt: str | Sequence[Mapping[str, Any]],
        **options: Unpack[StreamOptions],
    ) -> Completion:
        """Wait for the whole answer and return it.

        Unless ``resume`` was set, an answer that breaks off and cannot be gone on with
        is written anew, for nobody has read it yet; its guarantee is RESTARTED then.

        Args:
            prompt: As for `stream`.
            options: All that `stream` takes.

        Raises:
            StreamError: The answer is not complete; what was received is in it.
            InvalidRequest: An argument is wrong.
            ConfigurationError: One of those that a client has too is wrong.
            JournalError: It cannot be recorded.
        """
        check_names(options, "complete")
        with self.stream(prompt, **whole(options, self._settings.ways)) as stream:
            return stream.get_final_completion()

    def map(
        self,
        prompts: Iterable[Prompt | MapItem],
        *,
        concurrency: int | None = None,
        order: ResultOrder = "done",
        priority: Priority = "low",
        on_progress: Callable[[int, int, int | None], object] | None = None,
        progress: bool = False,
        map_id: str | None = None,
        **options: Unpack[MapOptions],
    ) -> Map:
        """Return the results of many prompts, as they finish; nothing is sent yet.

        Each prompt has one result, a completion or an error: one that fails does not
        end the others. Prompts are pulled in the thread that asks for results, a little
        ahead of it and no more, so there may be any number of them. docs/map.md says
        more.

        Unless ``resume`` was set, an answer that breaks off and cannot be gone on with
        is written anew.

        Args:
            prompts: Texts, lists of messages, or `MapItem` objects, which have an id
                and options of their own.
            concurrency: Streams at a time, each in a thread; by default as many as the
                client's pool has permits. They wait for those like any other, for as
                long as one of them gets any within ``Timeouts.queue`` seconds.
            order: "done": the result that is there first comes first. "input": in the
                order of the prompts.
            priority: As for `stream`; by default after everything else.
            on_progress: Is called in the thread that iterates, when an item has ended,
                with the number of items that have an answer, of those that failed, and
                of all, or None where ``prompts`` has no length.
            progress: Show a bar on stderr, by rich or tqdm where one is installed.
            map_id: Your own id, with a journal only: item 7 is stream ``map_id.7``, and
                a map that was interrupted goes on by the same id, prompts and options.
                Up to 115 letters, digits and ``._:-``.
            options: All else that `stream` takes, for every item.

        Raises:
            InvalidRequest: An argument is wrong. What is wrong with a prompt or its own
                options is its result.
            ConfigurationError: One of those that a client has too is wrong.
            JournalError: The journal cannot be opened.
        """
        check_names(options, "map")
        self._builder.close_abandoned()
        # Its items are many, and nobody waits for one alone.
        patient = dataclasses.replace(self._settings, patient=True)
        return mapped(
            self._with(patient, self._builder),
            patient,
            self._builder.time,
            prompts,
            concurrency=concurrency,
            order=order,
            priority=priority,
            on_progress=on_progress,
            progress=progress,
            map_id=map_id,
            options=options,
        )

    def resume(
        self,
        stream: str,
        *,
        after: int = 0,
        partial_text: str | None = None,
        messages: str | Sequence[Mapping[str, Any]] | None = None,
        stop: str | Sequence[str] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        response_format: Mapping[str, Any] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        priority: Priority = "normal",
        timeout: Timeouts | float | tuple[float, float] | None = None,
        deadline: float | None = None,
        retry: RetryPolicy | None = None,
        resume: Sequence[str] | None = None,
        min_guarantee: Guarantee | None = None,
        extra_headers: Mapping[str, str] | None = None,
        on_event: Callable[[StreamEvent | Failed], object] | None = None,
        journal: str | os.PathLike[str] | Journal | None = None,
        checkpoint_every: int | None = None,
        checkpoint_interval: float | None = None,
    ) -> Stream:
        """Return a stream that goes on with one that was broken off, here or elsewhere.

        With the id of a stream that was recorded in a journal: it is claimed at once,
        and hands over everything behind ``after``, what was recorded first. One that
        has ended is only handed over again. Nothing is sent before it is opened; to
        close it lets another resume it.

        With a resume token: ``messages`` and ``partial_text`` have to be those of the
        stream that it was made for, and so have ``stop``, ``tools``, ``tool_choice``,
        ``response_format`` and ``extra_body`` if it had them. What comes is what
        follows the text. With a journal it is recorded there, text and all, or goes on
        as it was recorded.

        Args:
            stream: The id of a recorded stream, or ``stream.resume_token``.
            after: Characters of the text that the caller has; the default hands over
                the whole text. Whole tool calls are always handed over again.
            partial_text: The text that the caller has, in place of its length: needed
                where the recording may lag behind it (``checkpoint_every``), and with
                a token.
            messages: The prompt or the messages; with a token only.
            stop: As for `stream`; with a token only.
            tools: As for `stream`; with a token only.
            tool_choice: As for `stream`; with a token only.
            response_format: As for `stream`; with a token only.
            extra_body: As for `stream`; with a token only.
            priority: As for `stream`.
            timeout: As for `stream`.
            deadline: As for `stream`; counts from the opening of this stream.
            retry: As for `stream`.
            resume: By default what the stream was begun with.
            min_guarantee: By default what the stream was begun with.
            extra_headers: As for `stream`: headers are never recorded.
            on_event: As for `stream`.
            journal: As for `stream`.
            checkpoint_every: As for `stream`.
            checkpoint_interval: As for `stream`.

        Raises:
            StreamUnknown: The journal has no such stream.
            StreamBusy: A process that is alive has it.
            JournalError: The journal cannot be read.
            ResumeTokenInvalid: The token is damaged, or of another request or text.
            InvalidRequest: An argument is wrong.
            ConfigurationError: One of those that a client has too is wrong, or the
                stream was begun with another provider.
        """
        self._builder.close_abandoned()
        settings = self._settings.changed(
            timeout=timeout,
            deadline=deadline,
            retry=retry,
            resume=resume,
            min_guarantee=min_guarantee,
        ).recorded(journal, checkpoint_every, checkpoint_interval)
        headers = checked_headers(extra_headers, "extra_headers")
        checked_priority(priority)
        tell = checked_callback(on_event)
        found = find_stream(
            stream,
            self._provider,
            journal=settings.journal,
            recording=settings.recording,
            after=after,
            partial_text=partial_text,
            messages=messages,
            arguments={
                "stop": stop,
                "tools": tools,
                "tool_choice": tool_choice,
                "response_format": response_format,
                "extra_body": extra_body,
            },
        )
        try:
            return self._builder.stream(
                found.request,
                settings.changed(
                    resume=found.resume if resume is None else None,
                    min_guarantee=(
                        found.min_guarantee if min_guarantee is None else None
                    ),
                ),
                stream_id=found.stream_id,
                headers=headers,
                priority=priority,
                tell=tell,
                recovered=found,
            )
        except BaseException:
            let_go(settings.journal, found.claim)
            raise

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
        self._builder.close_abandoned()
        limits = timeout if isinstance(timeout, Timeouts) else self._settings.timeouts
        return self._builder.event_source(
            url,
            method=method,
            json=json,
            headers=headers,
            last_event_id=last_event_id,
            timeouts=FEED_TIMEOUTS if timeout is None else Timeouts.of(timeout),
            retry=FEED_RETRY if retry is None else checked_retry(retry),
            queue_timeout=limits.queue,
        )

    @property
    def pool(self) -> PrioritySemaphore:
        """The pool: how many permits are in use, and who waits for one."""
        return self._builder.pool

    @property
    def breakers(self) -> Mapping[str, CircuitBreaker]:
        """The breaker of each endpoint, by its name: to open one by hand, say.

        `force_open()` keeps all streams away from an endpoint, `disable()` lets all of
        them through whatever fails, and `reset()` ends either.
        """
        return self._router.breakers

    def metrics(self) -> ClientMetrics:
        """Return how things stand: streams, pool, endpoints, breakers and budget.

        Streams that were dropped without being closed are counted by now.
        """
        return self._builder.metrics()

    def with_options(
        self,
        *,
        model: str | None = None,
        timeout: Timeouts | float | tuple[float, float] | None = None,
        deadline: float | None = None,
        retry: RetryPolicy | None = None,
        resume: Sequence[str] | None = None,
        min_guarantee: Guarantee | None = None,
        pool: PrioritySemaphore | None = None,
        retry_budget: RetryBudget | None = None,
    ) -> Client:
        """Return a client with other defaults that shares everything else.

        An argument that is None stays as it is. Connections, endpoints, breakers,
        journal and telemetry are shared, and so are pool and retry budget unless
        another is given: a batch may be more patient than a page, and bounded apart
        from it.

        Args:
            model: As for the client.
            timeout: As for the client.
            deadline: As for the client.
            retry: As for the client.
            resume: As for the client.
            min_guarantee: As for the client.
            pool: Bounds the connections of the client that is returned, in place of
                this one's pool. No more idle ones are kept than that was made for.
            retry_budget: Bounds the retries of the client that is returned, in place of
                this one's budget.

        Raises:
            ConfigurationError: A setting is wrong.
        """
        return self._with(
            self._settings.changed(
                model=model,
                timeout=timeout,
                deadline=deadline,
                retry=retry,
                resume=resume,
                min_guarantee=min_guarantee,
            ),
            dataclasses.replace(
                self._builder,
                pool=checked(pool, PrioritySemaphore, "pool=") or self._builder.pool,
                budget=checked(retry_budget, RetryBudget, "retry_budget=")
                or self._builder.budget,
            ),
        )

    def _with(self, settings: Settings, builder: Builder) -> Client:
        """Return a client that differs in these alone."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._settings = settings
        other._builder = builder
        return other

    def close(self) -> None:
        """Close the connections that are idle; streams that are open go on.

        A journal that was opened by its path is closed with the last of these. A client
        that is used afterwards connects anew and opens its journal anew: close it
        again then.
        """
        self._builder.close_abandoned()
        self._builder.transport.close()
        self._settings.journals.close()

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
        endpoints = self._router.endpoints
        where = (
            f"base_url={endpoints[0].base_url!r}"
            if len(endpoints) == 1
            else f"endpoints={[endpoint.name for endpoint in endpoints]}"
        )
        return (
            f"<Client provider={self._provider.profile.name!r} {where} "
            f"model={self._settings.model!r}>"
        )


def _now() -> float:
    """Return monotonic seconds, by the clock that a test may have put in place."""
    return Client._time.now()  # noqa: SLF001 - of this module
