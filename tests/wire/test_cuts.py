"""A body that breaks off at any byte: every event that was complete, then the truth.

First without sockets, at every byte: the parser's events and a fault go into an
`Exchange`. Then on real connections, by FIN, by RST and by a clean early end, in every
framing: at the end of every event, two bytes around it, and at 300 other places.
"""

import itertools
import json
import random

import pytest
from hypothesis import given, strategies as st
from lockstep import FRAMINGS, Lockstep, Reply, chat_events, lay_out
from naive_events import interpret

from holystream import (
    Client,
    Finished,
    Guarantee,
    Interrupted,
    Resumed,
    RetryBudget,
    RetryPolicy,
    StreamInterrupted,
    TextDelta,
)
from holystream.clocks import Timeouts
from holystream.errors import ConnectionLost, IncompleteAnswer, Phase
from holystream.exchange import Exchange
from holystream.providers.chat_request import chat_request
from holystream.providers.registry import provider
from holystream.resume import strategies
from holystream.simulator import Script, Simulator
from holystream.wire.faults import Fault, FaultKind
from holystream.wire.sse import EventParser, LineSplitter

TEXT = 'Ünïcode 🚀 "quoted"\n東京\u2028👩‍🚀 𝛑 end'
CUTS = ("fin", "rst", "end")
AT_ONCE = RetryPolicy(base=0.0001, cap=0.0002)
ONCE = RetryPolicy(attempts=1)
QUESTION = {
    "model": "m",
    "messages": [{"role": "user", "content": "hello"}],
    "temperature": 0,
    "stream": True,
    "stream_options": {"include_usage": True, "include_obfuscation": False},
}


def bodies(sim, count):
    """Return the same answer in other pieces each time, as a server may send it."""
    prompts = [[{"role": "user", "content": "?" * number}] for number in range(count)]
    made = [sim.body({**QUESTION, "messages": messages}) for messages in prompts]
    assert len({*map(len, made)}) > 1 or count == 1
    return made


def fold(body, *, clean):
    """Return the text of the events that are complete, and whether the answer is."""
    text, whole = "", False
    for data, *_ in interpret(body, at_end=clean).events:
        if data == "[DONE]":
            break
        for choice in json.loads(data)["choices"]:
            text += choice["delta"].get("content") or ""
            whole = whole or choice["finish_reason"] is not None
    return text, whole


@pytest.fixture(scope="module")
def sim():
    with Simulator(text=TEXT) as simulator:
        yield simulator


def new_exchange(*, deterministic, resume=("replay",)):
    dialect = provider("openai-compatible")
    return Exchange(
        chat_request(
            "hello", profile=dialect.profile, model="m", deterministic=deterministic
        ),
        dialect,
        stream_id="stream",
        endpoint="somewhere",
        timeouts=Timeouts(),
        deadline=None,
        retry=AT_ONCE,
        resume=strategies(resume),
        min_guarantee=None,
        secrets=(),
    )


def attempt(exchange, body, *, clean, size):
    """Play one connection that brings `body`, in reads of `size`, and then ends."""
    exchange.attempt()
    events = exchange.connected("request", 0.0)
    splitter, parser = LineSplitter(100_000), EventParser(100_000)

    def receive(batch):
        if batch and exchange.completion is None and exchange.failure is None:
            events.extend(exchange.receive(batch, 0.0))

    for at in range(0, len(body), size):
        receive(parser.feed(splitter.feed(body[at : at + size]).split(b"\n")[:-1]))
    if clean and (last := parser.close(splitter.rest)):
        receive([last])
    if exchange.completion is None:
        kind = FaultKind.ENDED if clean else FaultKind.LOST
        fault = exchange.failure or Fault(kind, Phase.BODY)
        events += exchange.fault(fault, 0.0)
    return events


def text_of(events):
    """Fold the text, which must come gapless and in order."""
    text = ""
    for event in events:
        if isinstance(event, TextDelta):
            assert event.offset == len(text)
            text += event.text
    return text


@pytest.mark.parametrize("clean", [False, True], ids=["cut", "clean"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
def test_cut_at_every_byte_the_exchange_has_what_was_complete(sim, newline, clean):
    body = sim.body(QUESTION, Script(newline=newline))
    for end in range(len(body) + 1):
        text, whole = fold(body[:end], clean=clean)
        exchange = new_exchange(deterministic=False)
        events = exchange.start(0.0)
        events += attempt(exchange, body[:end], clean=clean, size=700)
        assert text_of(events) == exchange.transcript.text == text
        assert isinstance(events[-1], Finished) == whole
        assert sum(isinstance(event, Finished) for event in events) == whole
        if whole:
            assert exchange.completion.text == text == TEXT
            assert exchange.completion.guarantee is Guarantee.SINGLE
            assert exchange.error is None
            continue
        assert exchange.completion is None
        if text:
            assert type(exchange.error) is StreamInterrupted
            assert exchange.error.partial_text == text
            assert exchange.wait is None
            cause = exchange.error.cause
        else:
            assert exchange.error is None
            assert exchange.wait is not None
            cause = next(e.error for e in events if isinstance(e, Interrupted))
        assert type(cause) is (IncompleteAnswer if clean else ConnectionLost)


@pytest.mark.parametrize("size", [17, 100_000])
def test_cut_at_every_byte_and_asked_again_the_text_is_exact(sim, size):
    body, again = bodies(sim, 2)
    for end in range(len(body) + 1):
        clean = end % 2 == 0
        text, whole = fold(body[:end], clean=clean)
        exchange = new_exchange(deterministic=True)
        events = exchange.start(0.0)
        events += attempt(exchange, body[:end], clean=clean, size=size)
        if exchange.completion is None:
            assert not whole
            assert exchange.error is None
            events += attempt(exchange, again, clean=True, size=size)
        assert text_of(events) == exchange.completion.text == TEXT
        joins = [event for event in events if isinstance(event, Resumed)]
        if text and not whole:
            assert exchange.completion.guarantee is Guarantee.REPLAYED
            assert [join.offset for join in joins] == [len(text)]
        else:
            assert exchange.completion.guarantee is Guarantee.SINGLE
            assert not joins


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.booleans()), max_size=5),
    st.sampled_from([1, 50, 700, 100_000]),
)
def test_cut_again_and_again_the_text_is_exact(sim, cuts, size):
    exchange = new_exchange(deterministic=True)
    events = exchange.start(0.0)
    *cut, whole = bodies(sim, len(cuts) + 1)
    for body, (end, clean) in zip(cut, cuts, strict=True):
        if exchange.completion is None:
            came = body[: end % (len(body) + 1)]
            events += attempt(exchange, came, clean=clean, size=size)
            assert exchange.error is None
            assert TEXT.startswith(text_of(events))
    if exchange.completion is None:
        events += attempt(exchange, whole, clean=True, size=size)
    assert text_of(events) == exchange.completion.text == TEXT


def event_ends(body):
    end = 0
    while end := body.find(b"\n\n", end) + 2:
        if end == 1:
            return
        yield end


def places(body, framing):
    """Yield (cut, offset): all around each event's end, and at 300 other places.

    Never all of a body whose length was announced: that is no cut.
    """
    around = {
        end + near
        for end in event_ends(body)
        for near in (-2, -1, 0, 1, 2)
        if end + near < len(body) + (framing != "length")
    }
    yield from itertools.product(CUTS, sorted(around))
    chance = random.Random(framing)
    for offset in chance.choices(range(len(body)), k=300):
        yield chance.choice(CUTS), offset


def ask(client, *, deterministic):
    return client.stream(
        "hello",
        temperature=0,
        deterministic=deterministic,
        extra_body={"stream_options": QUESTION["stream_options"]},
    )


def read(stream):
    """Read to the end; return what came before and behind the first fault."""
    parts = [[], []]
    error = None
    interrupted = False
    try:
        for event in stream:
            interrupted = interrupted or isinstance(event, Interrupted)
            parts[interrupted].append(event)
    except StreamInterrupted as caught:
        error = caught
    return *parts, error


@pytest.fixture(scope="module")
def client(sim):
    with Client(
        "sk-test",
        base_url=sim.base_url,
        model="m",
        retry=AT_ONCE,
        # It is cut more often than any client should put up with.
        retry_budget=RetryBudget(floor=1e6),
    ) as client:
        yield client


@pytest.fixture(scope="module")
def body(sim, client):
    """The body that this client is sent, byte for byte."""
    assert ask(client, deterministic=True).get_final_text() == TEXT
    return sim.body(sim.requests[-1].json)


def expect(body, framing, cut, offset):
    # On TCP alone, a FIN is all that ends a body without a length: it looks clean.
    clean = cut == "end" or (cut == "fin" and framing == "close")
    return fold(body[:offset], clean=clean)


@pytest.mark.slow
@pytest.mark.parametrize("framing", FRAMINGS)
def test_cut_connections_are_replayed_to_the_exact_text(sim, client, body, framing):
    for cut, offset in places(body, framing):
        sim.play(Script(cut_at=offset, cut=cut, framing=framing))
        text, whole = expect(body, framing, cut, offset)
        stream = ask(client, deterministic=True)
        before, behind, error = read(stream)
        where = (cut, offset)
        assert error is None, where
        assert text_of([*before, *behind]) == stream.completion.text == TEXT, where
        seen = text_of(before)
        # A RST may overtake what the kernel has not handed out yet.
        assert seen == text or (cut == "rst" and text.startswith(seen)), where
        interrupted = bool(behind)
        assert interrupted == (not whole) or cut == "rst", where
        joins = [event.offset for event in behind if isinstance(event, Resumed)]
        assert joins == ([len(seen)] if interrupted and seen else []), where
        assert stream.completion.attempts == 1 + interrupted, where
        assert stream.completion.guarantee is (
            Guarantee.REPLAYED if joins else Guarantee.SINGLE
        ), where


@pytest.mark.slow
@pytest.mark.parametrize("framing", FRAMINGS)
def test_cut_connections_that_cannot_be_replayed_keep_their_text(
    sim, client, body, framing
):
    for cut, offset in places(body, framing):
        sim.play(Script(cut_at=offset, cut=cut, framing=framing))
        text, whole = expect(body, framing, cut, offset)
        stream = ask(client, deterministic=False)
        before, behind, error = read(stream)
        where = (cut, offset)
        seen = text_of(before)
        assert seen == text or (cut == "rst" and text.startswith(seen)), where
        if error is None:
            # Whole, or nothing had been delivered and it was simply asked again.
            assert (whole and not behind) or (behind and not seen), where
            assert text_of([*before, *behind]) == stream.completion.text == TEXT, where
            assert stream.completion.guarantee is Guarantee.SINGLE, where
            assert stream.completion.attempts == 1 + bool(behind), where
        else:
            assert seen, where
            assert not whole or cut == "rst", where
            assert error.partial_text == stream.partial_text == seen, where
            assert stream.guarantee is Guarantee.PARTIAL, where
            assert stream.completion is None, where
            assert error.attempts == 1, where
            assert isinstance(error.cause, ConnectionLost), where
            assert error.__cause__ is error.cause, where


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("more", [0, 1, 40], ids=["at-the-edge", "one-more", "half"])
def test_a_reset_after_the_last_hand_over_loses_nothing(framing, more):
    """The RST follows what was consumed, so that no kernel can have dropped it."""
    texts = ["Hel", "lo 🚀", " ", "wörld", "\n"]
    events = [b"data: " + data + b"\n\n" for data in chat_events(texts)]
    for count in range(1, len(texts) + 1):
        parts = [*events[:count], events[count][:more], b"".join(events[count + 1 :])]
        fields, pieces = lay_out(parts, framing)
        reply = Reply(
            pieces=tuple(pieces[: count + bool(more)]), fields=fields, end="rst"
        )
        with (
            Lockstep(reply) as server,
            Client("sk-test", base_url=server.origin, model="m", retry=ONCE) as client,
            client.stream("hello") as stream,
        ):
            seen = []
            error = None
            try:
                for text in stream.text_stream:
                    seen.append(text)
                    server.handed_over()
                    if more and len(seen) == count:
                        server.handed_over()
            except StreamInterrupted as caught:
                error = caught
            assert not server.starved
        assert seen == texts[:count]
        assert error.partial_text == "".join(seen)
        assert type(error.cause) is ConnectionLost


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_clean_early_end_is_no_answer(sim, client, body, framing):
    """Where nothing went wrong below, only the missing evidence tells."""
    for offset in event_ends(body):
        text, whole = fold(body[:offset], clean=True)
        sim.play(Script(cut_at=offset, cut="end", framing=framing))
        _, behind, error = read(ask(client, deterministic=False))
        if whole:
            assert error is None
            assert not behind
        elif text:
            assert type(error.cause) is IncompleteAnswer
            assert error.partial_text == text


@pytest.mark.parametrize("framing", FRAMINGS)
def test_cut_under_tls_the_text_is_exact(tls_server, ca_file, framing):
    chance = random.Random(framing)
    with (
        Simulator(text=TEXT, tls=tls_server) as sim,
        Client(
            "sk-test", base_url=sim.base_url, model="m", verify=ca_file, retry=AT_ONCE
        ) as client,
    ):
        assert ask(client, deterministic=True).get_final_text() == TEXT
        body = sim.body(sim.requests[-1].json)
        for cut in CUTS:
            for offset in chance.sample(range(len(body)), 8):
                sim.play(Script(cut_at=offset, cut=cut, framing=framing))
                text, whole = expect(body, framing, cut, offset)
                stream = ask(client, deterministic=True)
                before, behind, error = read(stream)
                assert error is None
                assert text_of([*before, *behind]) == stream.completion.text == TEXT
                seen = text_of(before)
                assert seen == text or (cut == "rst" and text.startswith(seen))
                assert bool(behind) == (not whole) or cut == "rst"
