"""Metrics agree with what happened: 200 streams by a script, and every counter."""

from __future__ import annotations

import collections
import random
from typing import NamedTuple

import pytest
from loopback import KEY

from holystream import (
    AttemptRecord,
    BreakerPolicy,
    Client,
    Endpoint,
    HolystreamError,
    PrioritySemaphore,
    RetryBudget,
    RetryPolicy,
    StreamRecord,
    TextDelta,
    Timeouts,
)
from holystream.simulator import Script, Simulator

CUT = {"cut_at": 4000, "cut": "rst"}
KEPT = {"ids": "named"}
PERMITS = 2


class Kind(NamedTuple):
    """How a stream goes, and what must be counted of it.

    An attempt is its endpoint and its end: "finished", how the caller ended it, or the
    error that it failed with.
    """

    outcome: str
    attempts: tuple[tuple[str, str], ...] = ()
    scripts: tuple[Script, ...] = ()
    error: str | None = None
    strategy: str | None = None
    text: bool = True
    options: dict[str, object] = {}  # noqa: RUF012 - nobody changes it


MAIN, SPARE = ("main", "finished"), ("spare", "finished")
LOST = ("main", "ConnectionLost")
KINDS = {
    "done": Kind("done", (MAIN,)),
    "tried again": Kind("done", (("main", "Overloaded"), SPARE), (Script(status=503),)),
    "replayed": Kind("done", (LOST, SPARE), (Script(**CUT),), strategy="replay"),
    "rest": Kind(
        "done",
        (LOST, MAIN),
        (Script(**CUT, **KEPT), Script(**KEPT)),
        strategy="cursor",
        options={"temperature": 1},
    ),
    "lost": Kind(
        "error",
        (LOST,),
        (Script(**CUT),),
        error="StreamInterrupted",
        options={"resume": ("cursor",)},
    ),
    "refused": Kind(
        "error",
        (("main", "BadRequest"),),
        (Script(status=400),),
        error="BadRequest",
        text=False,
    ),
    "no permit": Kind(
        "error",
        error="QueueTimeout",
        text=False,
        options={"timeout": Timeouts(queue=0.001)},
    ),
    "cancelled": Kind("cancelled", (("main", "cancelled"),)),
    "closed": Kind("closed", (("main", "closed"),)),
    "abandoned": Kind("abandoned", (("main", "abandoned"),)),
}
EACH = 20
"""Streams of each kind."""
ENDS = {"finished", "cancelled", "closed", "abandoned"}


def play(client, main, name, prompt):
    """Let one stream go as its kind says; return its completion, if it has one."""
    kind = KINDS[name]
    main.play(*kind.scripts)
    stream = client.stream(prompt, **{"temperature": 0, **kind.options})
    if kind.outcome == "done":
        return stream.get_final_completion()
    if name == "no permit":
        with (
            client.pool.acquire(),
            client.pool.acquire(),
            pytest.raises(HolystreamError),
        ):
            stream.until_done()
    elif kind.outcome == "error":
        with pytest.raises(HolystreamError):
            stream.until_done()
    else:
        while not isinstance(next(stream), TextDelta):
            pass
        assert client.metrics().streams.active == 1
        if kind.outcome == "cancelled":
            stream.cancel()
        elif kind.outcome == "closed":
            stream.close()
        else:
            with pytest.warns(ResourceWarning):
                del stream
    return None


def counted(numbers):
    """Return a counter of what there is of each, zeros left out."""
    return {key: number for key, number in numbers.items() if number}


@pytest.fixture(scope="module")
def played():
    """Return the metrics of the script, the records and the completions."""
    names = [name for name in KINDS for _ in range(EACH)]
    random.Random(7).shuffle(names)
    records, completions = [], []
    with (
        Simulator(length=30) as main,
        Simulator(length=30) as spare,
        Client(
            KEY,
            endpoints=[
                Endpoint(main.base_url, name="main"),
                Endpoint(spare.base_url, name="spare", priority=1),
            ],
            model="sim",
            retry=RetryPolicy(base=0.001, cap=0.002),
            retry_budget=RetryBudget(floor=1e6),
            breaker=BreakerPolicy(failures=1_000_000),
            pool=PrioritySemaphore(PERMITS),
        ) as client,
    ):
        client.telemetry.add_hook(records.append)
        for number, name in enumerate(names):
            completions.append(play(client, main, name, f"question {number}"))
            client.stream("a stream that nobody reads")
        metrics = client.metrics()
        asked = {"main": len(main.requests), "spare": len(spare.requests)}
    return metrics, records, [each for each in completions if each], asked


def expected(*of, at=None):
    """Count what the script says, of streams or of attempts."""
    found = collections.Counter()
    for kind in KINDS.values():
        for number, (endpoint, end) in enumerate(kind.attempts):
            outcome = end if end in ENDS else "failed"
            cause = kind.attempts[number - 1][1] if number else None
            if at in {None, endpoint}:
                found["attempts", outcome] += EACH
                found["errors", None if outcome == end else end] += EACH
                found["causes", cause] += EACH
                found["strategies", kind.strategy if number else None] += EACH
        last = kind.attempts[-1][0] if kind.attempts else "main"
        if at in {None, last}:
            found["streams", kind.outcome] += EACH
            found["stream errors", kind.error] += EACH
    return {
        key: number
        for (what, key), number in found.items()
        if what in of and key is not None
    }


@pytest.mark.parametrize("at", [None, "main", "spare"])
def test_streams_and_attempts(played, at):
    streams = played[0].streams
    numbers = streams if at is None else streams.endpoints[at]
    assert counted(numbers.streams) == expected("streams", at=at)
    assert numbers.stream_errors == expected("stream errors", at=at)
    assert counted(numbers.attempts) == expected("attempts", at=at)
    assert numbers.attempt_errors == expected("errors", at=at)
    assert numbers.retries == expected("causes", at=at)
    assert numbers.strategies == expected("strategies", at=at)


def test_the_sums(played):
    metrics, _, completions, _ = played
    streams = metrics.streams
    outcomes = expected("streams")
    assert streams.opened == streams.ended == sum(outcomes.values()) == 200
    assert streams.active == 0
    assert streams.models.keys() == {("openai-compatible", "sim")}
    assert streams.success_rate == outcomes["done"] / (
        outcomes["done"] + outcomes["error"]
    )
    assert streams.reconnects == sum(expected("causes").values())
    # One kind is refused, which interrupts nothing.
    assert streams.interruptions == sum(expected("errors").values()) - EACH
    assert streams.recoveries == sum(expected("causes").values())
    assert streams.mean_time_to_recover > 0
    assert streams.duration.count == streams.queue_wait.count == 200
    assert streams.ttft.count == EACH * sum(kind.text for kind in KINDS.values())
    assert len(completions) == outcomes["done"]
    used = [each.total_usage for each in completions]
    assert streams.prompt_tokens == sum(each.prompt_tokens for each in used) > 0
    assert streams.completion_tokens == sum(each.completion_tokens for each in used)
    assert streams.wasted_tokens == sum(each.wasted_tokens for each in completions) > 0
    assert streams.saved_tokens == sum(each.saved_tokens for each in completions) > 0


def test_one_record_for_each(played):
    _, records, _, _ = played
    attempts = [each for each in records if isinstance(each, AttemptRecord)]
    streams = [each for each in records if isinstance(each, StreamRecord)]
    assert len(attempts) + len(streams) == len(records)
    assert collections.Counter(each.outcome for each in streams) == expected("streams")
    assert collections.Counter(each.outcome for each in attempts) == expected(
        "attempts"
    )
    assert len({each.stream_id for each in streams}) == 200


def test_pool_budget_and_endpoints(played):
    metrics, _, _, asked = played
    attempts = expected("attempts")
    pool = metrics.pool
    assert (pool.in_use, pool.queued) == (0, 0)
    assert pool.granted == sum(attempts.values()) + PERMITS * EACH
    assert pool.timeouts == EACH
    assert (pool.refused, pool.cancels) == (0, 0)
    budget = metrics.budget
    assert (budget.requests, budget.refused) == (200, 0)
    assert budget.spent == sum(expected("causes").values())
    for endpoint in metrics.endpoints:
        at = expected("attempts", at=endpoint.name)
        failed = expected("errors", at=endpoint.name)
        fatal = failed.get("BadRequest", 0)
        breaker = endpoint.breaker
        assert endpoint.picked == breaker.granted == sum(at.values())
        assert asked[endpoint.name] == endpoint.picked
        assert (endpoint.in_flight, breaker.refused, breaker.stale) == (0, 0, 0)
        assert breaker.successes == at["finished"]
        assert breaker.failed == at.get("failed", 0) - fatal
        assert breaker.ignored == fatal + sum(
            at.get(end, 0) for end in ENDS - {"finished"}
        )
