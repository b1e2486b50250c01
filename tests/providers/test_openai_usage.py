"""Token counts, wherever a server puts them."""

import json

import pytest
from chat_chunks import COUNTED, USAGE, choice, chunk, finish, run, said, text

from holystream.events import TextDelta, Usage, UsageReport

USAGES = {
    "OpenAI": ([finish(), chunk(usage=USAGE)], COUNTED),
    "on the finish chunk": ([finish(usage=USAGE)], COUNTED),
    "litellm: choices with an empty delta": (
        [finish(), chunk(choice(), usage={**USAGE, "cost": 0.001})],
        COUNTED,
    ),
    "Moonshot: in the choice": ([chunk({**choice(), "usage": USAGE})], COUNTED),
    "without choices at all": ([b'{"usage":%b}' % json.dumps(USAGE).encode()], COUNTED),
    "cumulative": (
        [text("a", usage={**USAGE, "completion_tokens": 1}), text("b", usage=USAGE)],
        COUNTED,
    ),
    "details": (
        [
            finish(
                usage={
                    **USAGE,
                    "prompt_tokens_details": {"cached_tokens": 4},
                    "completion_tokens_details": {"reasoning_tokens": 2},
                }
            )
        ],
        Usage(
            prompt_tokens=9,
            completion_tokens=3,
            total_tokens=12,
            cached_tokens=4,
            reasoning_tokens=2,
        ),
    ),
    "DeepSeek": (
        [
            finish(
                usage={
                    **USAGE,
                    "prompt_cache_hit_tokens": 8,
                    "prompt_cache_miss_tokens": 1,
                    "prompt_tokens_details": None,
                }
            )
        ],
        Usage(prompt_tokens=9, completion_tokens=3, total_tokens=12, cached_tokens=8),
    ),
    "no total": (
        [finish(usage={"prompt_tokens": 9, "completion_tokens": 3})],
        COUNTED,
    ),
    "other names": ([finish(usage={"input_tokens": 9, "output_tokens": 3})], COUNTED),
    "floats": (
        [finish(usage={"prompt_tokens": 9.0, "completion_tokens": 3.0})],
        COUNTED,
    ),
    "nonsense in between": (
        [
            finish(
                usage={
                    "prompt_tokens": "9",
                    "completion_tokens": 3,
                    "total_tokens": -1,
                    "completion_tokens_details": 5,
                }
            )
        ],
        Usage(completion_tokens=3, total_tokens=3),
    ),
    "more than any store holds": (
        [finish(usage={"prompt_tokens": 10**40, "total_tokens": 1})],
        Usage(prompt_tokens=2**53, total_tokens=1),
    ),
    "NaN": (
        [b'{"choices":[],"usage":{"prompt_tokens":NaN,"completion_tokens":3}}'],
        Usage(completion_tokens=3, total_tokens=3),
    ),
}


@pytest.mark.parametrize(("data", "expected"), USAGES.values(), ids=USAGES)
def test_usage_is_found_wherever_it_is(data, expected):
    decoder, events = run(*data)
    assert decoder.failure is None
    assert decoder.usage == expected
    assert events[-1] == UsageReport(usage=expected)


@pytest.mark.parametrize("usage", [None, {}, [], "many", 3, {"prompt_tokens": None}])
def test_usage_that_counts_nothing_is_not_reported(usage):
    decoder, events = run(text("a", usage=usage), finish(usage=usage))
    assert said(events) == "a"
    assert len(events) == 1
    assert decoder.usage is None
    assert decoder.finished


def test_the_same_usage_is_reported_once():
    _, events = run(text("a", usage=USAGE), text("b", usage=USAGE))
    assert [type(event) for event in events] == [TextDelta, UsageReport, TextDelta]


def test_a_report_without_counts_does_not_undo_one():
    decoder, events = run(text("a", usage=USAGE), finish(usage={}))
    assert decoder.usage == COUNTED
    assert len(events) == 2


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 9}, Usage(prompt_tokens=9, total_tokens=9)),
        ({"completion_tokens": 3}, Usage(completion_tokens=3, total_tokens=3)),
        ({"total_tokens": 5}, Usage(total_tokens=5)),
        (
            {"completion_tokens": 3, "reasoning_tokens": 2},
            Usage(completion_tokens=3, total_tokens=3, reasoning_tokens=2),
        ),
        ({"prompt_tokens": 0}, Usage()),
        ({"prompt_tokens": True, "total_tokens": 5}, Usage(total_tokens=5)),
    ],
)
def test_one_count_is_a_report(usage, expected):
    assert run(finish(usage=usage))[0].usage == expected
