"""How an answer that goes on must not end, whatever servers do: one test for each."""

from __future__ import annotations

import itertools
from contextlib import contextmanager

import pytest

from holystream import (
    BadRequest,
    Client,
    DeadlineExceeded,
    Endpoint,
    NotAnEventStream,
    RetryBudget,
    RetryPolicy,
)
from holystream.simulator import Script, Simulator

KEY = "sk-0123456789abcdef"
ALWAYS = 10**9
SOON = RetryPolicy(base=0.001, cap=0.002)


def text_of(prompt):
    return f"The answer to {prompt!r}: " + " ".join(f"{prompt}-{n}" for n in range(30))


def answer_to(body):
    return text_of(body["messages"][0]["content"])


@contextmanager
def two_regions(script, **options):
    """A client of two simulators that do the same, with a budget that ends nothing."""
    options.setdefault("retry", SOON)
    with (
        Simulator(script=script, text=answer_to) as one,
        Simulator(script=script, text=answer_to) as two,
        Client(
            KEY,
            endpoints=[
                Endpoint(one.base_url, name="a"),
                Endpoint(two.base_url, name="b", priority=1),
            ],
            model="sim",
            retry_budget=RetryBudget(floor=1e6),
            **options,
        ) as client,
    ):
        yield client, one, two


class TestFinalErrorsOfOneRegion:
    """What another region would say as well is not asked there."""

    def test_a_bad_request_is_sent_once(self):
        # Bounded, or it would go round for ever.
        bad = Script(status=400, times=50)
        with two_regions(bad) as (client, one, two):
            with pytest.raises(BadRequest):
                client.complete("hello")
            assert (len(one.requests), len(two.requests)) == (1, 0)

    def test_a_deadline_ends_the_stream_wherever_it_is(self):
        with (
            two_regions(Script(stall_at=500, times=ALWAYS)) as (client, _, _),
            client.stream("hello", temperature=0, deadline=0.2) as stream,
        ):
            # Bounded, or it would go round for ever.
            events = itertools.islice(stream, 100)
            with pytest.raises(DeadlineExceeded):
                list(events)

    def test_what_is_wrong_with_each_region_is_found_out_once(self):
        # Bounded, or it would go round for ever.
        wrong = Script(content_type="text/html", times=50)
        with two_regions(wrong) as (client, one, two):
            with pytest.raises(NotAnEventStream):
                client.complete("hello")
            assert (len(one.requests), len(two.requests)) == (1, 1)
