"""What the tests of the journal share: all kinds of events, a clock, children."""

from __future__ import annotations

import contextlib
import os
import signal
import traceback

from hypothesis import strategies as st

from holystream import errors
from holystream.errors import Phase, StreamError, Verdict
from holystream.events import (
    Choice,
    Completion,
    Connected,
    Finished,
    Guarantee,
    Interrupted,
    Logprobs,
    ReasoningDelta,
    RefusalDelta,
    Resumed,
    Rewound,
    Started,
    TextDelta,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
    UsageReport,
    Waiting,
)

DAY = 86_400.0
REQUEST = b'{"model": "m"}'


def text_events(first: int, count: int) -> list[TextDelta]:
    """Events that tell their own numbers."""
    return [TextDelta(f"{seq} ", seq) for seq in range(first, first + count)]


def numbers(events) -> list[int]:
    """The numbers that such events tell."""
    return [int(event.text) for event in events]


class Now:
    """The time, set by hand."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0

    def __call__(self) -> float:
        return self.seconds


class Child:
    """A forked process that does something and says what came of it, line by line."""

    def __init__(self, work) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            status = 0
            try:
                os.close(reading)
                work(lambda line: os.write(writing, f"{line}\n".encode()))
            except BaseException:  # noqa: BLE001 - it must not get out of the child
                status = 1
                os.write(writing, traceback.format_exc().encode()[-60_000:])
            finally:
                os._exit(status)
        os.close(writing)
        self.says = os.fdopen(reading)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def ended(self) -> str:
        """Wait for its end; return what it said. It must have ended well."""
        said = self.says.read()
        _, status = os.waitpid(self.pid, 0)
        self.says.close()
        assert status == 0, said
        return said

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            self.kill()
        self.says.close()


texts = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)
whole_numbers = st.integers(0, 2**31) | st.integers(2**63, 2**70)
small = st.integers(0, 5)
seconds = st.floats(0, 1e6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=5,
)


def built(kind, **fields):
    """What `st.builds` does, which would look at types made for checkers alone."""
    return st.fixed_dictionaries(fields).map(lambda drawn: kind(**drawn))


usages = built(
    Usage,
    prompt_tokens=whole_numbers,
    completion_tokens=whole_numbers,
    total_tokens=whole_numbers,
    reasoning_tokens=whole_numbers,
    cached_tokens=whole_numbers,
    estimated=st.booleans(),
)
tool_calls = built(
    ToolCall,
    call_index=small,
    id=texts,
    name=texts,
    arguments=json_values,
    arguments_json=texts,
    index=small,
)


def deltas(kind):
    return st.builds(kind, texts, whole_numbers, small, small)


def token_logprobs(top):
    return built(
        TokenLogprob,
        token=texts,
        logprob=st.floats(-100, 0),
        bytes=st.none() | st.binary(max_size=4),
        top=top,
    )


KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, StreamError)
]


@st.composite
def stream_errors(draw):
    error = draw(st.sampled_from(KINDS))(draw(texts.filter(bool)))
    error.describe(
        partial_text="",
        stream_id=draw(texts),
        request_id=draw(st.none() | texts),
        endpoint=draw(st.none() | texts),
        attempts=draw(small),
    )
    error.phase = draw(st.none() | st.sampled_from(Phase))
    error.verdict = draw(st.sampled_from(Verdict))
    error.retry_after = draw(st.none() | seconds)
    error.exhausted = draw(st.booleans())
    if isinstance(error, errors.APIError):
        error.status = draw(st.none() | st.integers(100, 599))
        error.code, error.type = draw(st.none() | texts), draw(st.none() | texts)
    return error


choices = built(
    Choice,
    index=small,
    text=texts,
    reasoning=texts,
    refusal=texts,
    tool_calls=st.lists(tool_calls, max_size=2).map(tuple),
    finish_reason=st.none() | texts,
)
completions = built(
    Completion,
    stream_id=texts,
    model=texts,
    choices=st.lists(choices, min_size=1, max_size=2).map(tuple),
    guarantee=st.sampled_from(Guarantee),
    usage=usages,
    attempts=small,
    interruptions=small,
    request_id=st.none() | texts,
    response_id=st.none() | texts,
    endpoint=texts,
    ttft=st.none() | seconds,
    duration=seconds,
)
BY_KIND = {
    Started: built(Started, stream_id=texts, model=texts),
    Connected: built(Connected, endpoint=texts, attempt=small, request_id=texts),
    TextDelta: deltas(TextDelta),
    ReasoningDelta: deltas(ReasoningDelta),
    RefusalDelta: deltas(RefusalDelta),
    ToolCallDelta: built(
        ToolCallDelta,
        call_index=small,
        id=texts,
        name=texts,
        arguments=texts,
        index=small,
        segment=small,
    ),
    ToolCall: tool_calls,
    Logprobs: built(
        Logprobs,
        tokens=st.lists(
            token_logprobs(
                st.lists(token_logprobs(st.just(())), max_size=2).map(tuple)
            ),
            max_size=2,
        ).map(tuple),
        offset=whole_numbers,
        channel=st.sampled_from(["text", "reasoning", "refusal"]),
        index=small,
        segment=small,
    ),
    UsageReport: built(UsageReport, usage=usages),
    Interrupted: built(Interrupted, error=stream_errors(), attempt=small),
    Waiting: built(
        Waiting,
        delay=seconds,
        reason=texts,
        attempt=small,
        attempts_left=st.none() | small,
    ),
    Resumed: built(
        Resumed,
        strategy=texts,
        guarantee=st.sampled_from(Guarantee),
        offset=whole_numbers,
    ),
    Rewound: built(Rewound, offset=whole_numbers, discarded=texts),
    Finished: built(Finished, completion=completions),
}
all_events = st.one_of(*BY_KIND.values())
