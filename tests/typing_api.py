"""The public API as mypy --strict sees it: never run, only checked.

`make lint` reads it with the package. What should be an error carries an ignore, and an
ignore that is not needed is an error too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

import tenacity

import holystream
from holystream import (
    Client,
    Completion,
    Connected,
    Finished,
    Guarantee,
    Interrupted,
    Map,
    MapItem,
    MapResult,
    Permit,
    Phase,
    PoolStatistics,
    PrioritySemaphore,
    ReasoningDelta,
    Resumed,
    ResumePoint,
    RetriedStream,
    RetryPolicy,
    Rewound,
    Stream,
    StreamError,
    StreamInterrupted,
    StreamOptions,
    StreamState,
    TextDelta,
    Timeouts,
    ToolCall,
    Usage,
    UsageReport,
    Verdict,
    Waiting,
    retry_stream,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator


def make_clients() -> Client:
    Client()
    Client("sk-1", provider="openai-compatible", base_url="http://localhost:8000/v1")
    Client(timeout=5, deadline=60.0)
    Client(timeout=(3.05, 27))
    Client(timeout=Timeouts(idle=30), resume=["replay", "restart"])
    Client(retry=RetryPolicy(jitter="decorrelated", retry_after_cap=120))
    Client(min_guarantee=Guarantee.REPLAYED, pool=PrioritySemaphore(8), verify="ca.pem")
    Client(retry=tenacity.wait_fixed(1))  # type: ignore[arg-type]
    Client(timeout="5")  # type: ignore[arg-type]
    Client(min_guarantee="REPLAYED")  # type: ignore[arg-type]
    Client(colour="red")  # type: ignore[call-arg]
    with Client() as client:
        assert_type(client, Client)
    assert_type(client.pool, PrioritySemaphore)
    assert_type(client.with_options(pool=client.pool), Client)
    client.with_options(retry_budget=0.2)  # type: ignore[arg-type]
    return client.with_options(model="other", timeout=5)


def make_streams(client: Client) -> Stream:
    client.stream("Hello", model="m", temperature=0, max_tokens=5, stop=["a", "b"])
    client.stream([{"role": "user", "content": "Hello"}], seed=4711, n=2)
    messages: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text"}]}]
    client.stream(messages, priority="critical", stream_id="mine")
    client.stream("Hello", tools=[{"type": "function"}], tool_choice={"type": "auto"})
    client.stream("Hello", extra_headers={"X-A": "b"}, extra_body={"top_k": None})
    client.stream("Hello", priority="urgent")  # type: ignore[arg-type]
    client.stream("Hello", temperature="0")  # type: ignore[arg-type]
    client.stream(b"Hello")  # type: ignore[arg-type]
    return client.stream("Hello", deadline=5, resume=(), retry=RetryPolicy(attempts=1))


def make_maps(client: Client) -> Map:
    assert_type(client.complete("Hello", temperature=0, priority="high"), Completion)
    client.complete("Hello", colour="red")  # type: ignore[call-arg]
    client.complete("Hello", temperature="0")  # type: ignore[arg-type]
    options: StreamOptions = {"model": "m", "resume": ("replay",)}
    client.complete("Hello", **options)
    item = MapItem([{"role": "user", "content": "Hello"}], id=7, options=options)
    for result in client.map(["Hello", item], order="input", model="m"):
        assert_type(result, MapResult)
        assert_type(result.completion, Completion | None)
        assert_type(result.text, str)
    client.map(["Hello"], order="random")  # type: ignore[arg-type]
    client.map(["Hello"], stream_id="one")  # type: ignore[call-arg]
    client.map(["Hello"], on_progress=print)
    return client.map((str(n) for n in range(9)), concurrency=3, progress=True)


def read(stream: Stream) -> str:
    for text in stream.text_stream:
        assert_type(text, str)
    assert_type(next(stream.text_stream), str)
    with stream as same:
        assert_type(same, Stream)
    assert_type(stream.open(), Stream)
    assert_type(stream.until_done(), Stream)
    assert_type(stream.get_final_completion(), Completion)
    assert_type(stream.completion, Completion | None)
    assert_type(stream.usage, Usage | None)
    assert_type(stream.state, StreamState)
    assert_type(stream.guarantee, Guarantee)
    assert_type(stream.ttft, float | None)
    assert_type(stream.request_id, str | None)
    assert_type(stream.attempts, int)
    assert_type(stream.partial_text, str)
    assert_type(stream.stream_id, str)
    stream.text_stream.close()
    stream.state = StreamState.DONE  # type: ignore[misc]
    end_from_a_thread(stream.cancel)
    end_from_a_thread(stream.close)
    return stream.get_final_text()


def end_from_a_thread(end: Callable[[], None]) -> None:
    end()


def frameworks_take(
    pieces: Iterable[str], events: Iterator[holystream.StreamEvent]
) -> None:
    """What web frameworks want: an iterable of text, or an iterator of events."""


def give(client: Client) -> None:
    frameworks_take(client.stream("Hello").text_stream, iter(client.stream("Hello")))


def tell(stream: Stream) -> str:  # noqa: C901 - one branch for each event
    """Every event is told apart by its class, as a type checker sees it too."""
    told = ""
    for event in stream:
        if isinstance(event, (TextDelta, ReasoningDelta)):
            assert_type(event.offset, int)
            told += event.text
        elif isinstance(event, ToolCall):
            assert_type(event.arguments, Any)
            told += event.name
        elif isinstance(event, UsageReport):
            assert_type(event.usage, Usage)
        elif isinstance(event, Connected):
            told += event.request_id
        elif isinstance(event, Interrupted):
            assert_type(event.error, StreamError)
        elif isinstance(event, Waiting):
            assert_type(event.delay, float)
            assert_type(event.attempts_left, int | None)
        elif isinstance(event, Resumed):
            assert_type(event.guarantee, Guarantee)
        elif isinstance(event, Rewound):
            told = told[: event.offset]
        elif isinstance(event, Finished):
            assert_type(event.completion, Completion)
            event.completion = event.completion  # type: ignore[misc]
        assert_type(str(event), str)
    return told


def weigh(completion: Completion) -> float:
    assert_type(completion.text, str)
    assert_type(completion.finish_reason, str | None)
    assert_type(completion.tool_calls, tuple[ToolCall, ...])
    assert_type(completion.choices[0].index, int)
    assert_type(completion.usage.completion_tokens, int)
    assert completion.guarantee >= Guarantee.REPLAYED
    return completion.duration


def fail(client: Client) -> str:
    try:
        return client.stream("Hello").get_final_text()
    except StreamInterrupted as error:
        assert_type(error.cause, StreamError | None)
        return error.partial_text
    except holystream.APIError as error:
        assert_type(error.status, int | None)
        assert_type(error.code, str | None)
        return error.message
    except StreamError as error:
        assert_type(error.verdict, Verdict)
        assert_type(error.phase, Phase | None)
        assert_type(error.retry_after, float | None)
        raise


def hold(pool: PrioritySemaphore) -> None:
    with pool.acquire(
        priority="high", timeout=1, cancel=holystream.CancelToken()
    ) as one:
        assert_type(one, Permit)
    assert_type(pool.statistics(), PoolStatistics)


@retry_stream
def rows(
    url: str,
    *,
    resume: ResumePoint = ResumePoint(),  # noqa: B008 - it is frozen
) -> Generator[bytes, int, str]:
    sent = yield url.encode()
    return str(sent + resume.count)


@retry_stream(retry=tenacity.retry_if_exception_type(OSError), keep=None)
def words(
    *,
    resume: ResumePoint = ResumePoint(),  # noqa: B008 - it is frozen
) -> Iterator[str]:
    yield str(resume.last)


@retry_stream(policy=RetryPolicy(attempts=2))
def plain(url: str) -> int:
    return len(url)


class Table:
    @retry_stream
    def rows(
        self,
        name: str,
        *,
        resume: ResumePoint = ResumePoint(),  # noqa: B008 - it is frozen
    ) -> Iterator[int]:
        yield len(name) + resume.count


def go_on(table: Table) -> str:
    assert_type(rows("u"), RetriedStream[bytes, int, str])
    assert_type(next(words()), str)
    assert_type(table.rows("t"), RetriedStream[int, Any, Any])
    assert_type(plain("u"), int)
    plain.retry_with(reraise=True)
    stream = rows("u", resume=rows("u").point)
    stream.send(1)
    stream.send("1")  # type: ignore[arg-type]
    rows(1)  # type: ignore[arg-type]
    plain(1)  # type: ignore[arg-type]
    table.rows()  # type: ignore[call-arg]
    retry_stream(rows, wait=tenacity.wait_fixed(1))  # type: ignore[call-overload]
    stream.cancel()
    return stream.throw(KeyError).decode()


def policies() -> RetryPolicy:
    """Any of tenacity's objects stands in the place of ours."""
    RetryPolicy(
        wait=tenacity.wait_fixed(1) + tenacity.wait_random(0, 1),
        stop=tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(60),
        retry=tenacity.retry_if_exception_type(holystream.RateLimited),
    )
    RetryPolicy(jitter="none")  # type: ignore[arg-type]
    return RetryPolicy(wait=lambda _state: 1.0)
