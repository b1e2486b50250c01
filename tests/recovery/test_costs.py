"""What interruptions cost is carried over into the process that goes on."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from holystream import (
    Interrupted,
    PrioritySemaphore,
    QueueTimeout,
    RetryBudget,
    RetryPolicy,
    StreamInterrupted,
    Timeouts,
)
from holystream.resume.checkpoint import Checkpoint
from holystream.simulator import Script

QUESTION = "How does an answer arrive?"
CUTS = (2600, 5200)
WAYS = {
    "replay": ("openai-compatible", Script()),
    "restart": ("openai-compatible", Script()),
    "cursor": ("openai-compatible", Script(ids="named")),
    "prefill": ("vllm", Script(prefill="continue")),
}


def cuts(script):
    return [dataclasses.replace(script, cut_at=at) for at in CUTS]


# With a token the pieces of the text are not known, by which a prefill goes back.
@pytest.mark.parametrize(
    ("name", "by"),
    [(name, by) for name in WAYS for by in ("journal", "token")][:-1],
)
def test_as_if_one_process_had_done_it_all(sim, connect, name, by):
    provider, script = WAYS[name]
    client = connect(provider=provider, resume=(name,))
    sim.play(*cuts(script), script)
    whole = client.stream(QUESTION, temperature=0).get_final_completion()
    assert [cost.strategy for cost in whole.interruption_costs] == [name, name]

    sim.play(*cuts(script), script)
    with client.stream(QUESTION, stream_id="s", temperature=0) as stream:
        faults = (event for event in stream if isinstance(event, Interrupted))
        for _ in CUTS:
            next(faults)
    if by == "journal":
        stream = client.resume("s")
    else:
        text = stream.partial_text
        stream = client.resume(
            stream.resume_token, messages=QUESTION, partial_text=text
        )
    completion = stream.get_final_completion()
    assert completion.interruption_costs == whole.interruption_costs
    assert completion.interruptions == whole.interruptions == 2
    assert completion.total_usage == whole.total_usage


@pytest.mark.parametrize("by", ["journal", "token"])
def test_what_the_budget_could_not_pay_for_is_counted_once(sim, connect, by):
    client = connect(resume=("replay",), retry_budget=RetryBudget(ratio=0, floor=0))
    sim.play(Script(cut_at=CUTS[0]), Script())
    stream = client.stream(QUESTION, stream_id="s", temperature=0)
    with pytest.raises(StreamInterrupted, match="the retry budget is spent") as caught:
        stream.until_done()
    if by == "journal":
        stream = client.resume("s")
    else:
        text = caught.value.partial_text
        stream = client.resume(
            caught.value.resume_token, messages=QUESTION, partial_text=text
        )
    completion = stream.get_final_completion()
    assert [cost.strategy for cost in completion.interruption_costs] == ["replay"]
    assert (completion.attempts, completion.interruptions) == (2, 1)


def test_who_came_no_further_than_the_queue_has_noted_nothing(sim, connect):
    client = connect(
        resume=("replay",),
        retry=RetryPolicy(attempts=1),
        pool=PrioritySemaphore(1),
        timeout=Timeouts(queue=0.01),
        journal=None,
    )
    sim.play(Script(cut_at=CUTS[0]), Script())
    stream = client.stream(QUESTION, temperature=0)
    with pytest.raises(StreamInterrupted):
        stream.until_done()

    def again():
        return client.resume(
            stream.resume_token, messages=QUESTION, partial_text=stream.partial_text
        )

    with ThreadPoolExecutor(1) as other, other.submit(client.pool.acquire).result():
        stream = again()
        with pytest.raises(QueueTimeout):
            stream.until_done()
    completion = again().get_final_completion()
    (cost,) = completion.interruption_costs
    assert cost.wasted_completion_tokens > 0
    assert (completion.attempts, completion.interruptions) == (2, 1)


@pytest.mark.parametrize("by", ["journal", "token"])
def test_what_was_never_sent_has_cost_nothing(sim, connect, by):
    client = connect(pool=PrioritySemaphore(1), timeout=Timeouts(queue=0.01))
    stream = client.stream(QUESTION, stream_id="s", temperature=0)
    with (
        ThreadPoolExecutor(1) as other,
        other.submit(client.pool.acquire).result(),
        pytest.raises(QueueTimeout),
    ):
        stream.until_done()
    if by == "journal":
        stream = client.resume("s")
    else:
        stream = client.resume(stream.resume_token, messages=QUESTION, journal=None)
    completion = stream.get_final_completion()
    assert len(sim.requests) == 1
    assert (completion.attempts, completion.interruptions) == (1, 0)
    assert completion.interruption_costs == ()
    assert completion.total_usage == completion.usage


def test_what_an_older_version_wrote_can_be_gone_on_with(sim, client, journal):
    stream = client.stream(QUESTION, stream_id="s", temperature=0)
    with stream:
        for _ in stream.text_stream:
            if len(stream.partial_text) > 20:
                break
    claim = journal.claim("s")
    fields = msgspec.msgpack.decode(journal.meta("s").cursor)
    old = fields[: Checkpoint.__struct_fields__.index("spent")]
    journal.append(claim, [], cursor=msgspec.msgpack.encode(old))
    journal.release(claim)
    completion = client.resume("s").get_final_completion()
    (cost,) = completion.interruption_costs
    assert cost.wasted_completion_tokens > 0
