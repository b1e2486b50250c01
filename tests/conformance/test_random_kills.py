"""A server that kills every connection at random: nothing is lost, nothing repeated.

What an id covers, that is. An event without an id of its own comes again if the
connection ends before the next id, and its id says so: it is the one to go on from.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from scripted_feed import NO_MORE, STREAM, Reset, Server

import holystream
from holystream import Connected, ServerSentEvent
from holystream.testing import SleeplessClock

COUNT = 150
STUBBORN = holystream.RetryPolicy(attempts=200, total_attempts=None)
ODD = "aZ09 \t,;:=\"'\\%<>{}~\x01\x0b\x0c\x1f\x7f\x80\x85\xa0é…\u2028\u3000\ufeff豆🥌"
"""What ids are made of; white space at their ends HTTP would strip."""


@dataclass
class Block:
    """A block of the stream; its id is None if it has none."""

    body: bytes
    id: str | None
    data: str | None


def script(rng):
    """Return a stream of blocks: with an id, without one, with an id alone."""
    blocks = []
    for number in range(COUNT):
        odd = "".join(rng.choices(ODD, k=rng.randrange(12)))
        own = f"{number}{odd}." if number == 0 or rng.random() < 0.6 else None
        # An event after it tells the caller of an id that has none.
        alone = own is not None and rng.random() < 0.1
        for at, data in (
            ((own, None), (f"{number}b", f"b{number}"))
            if alone
            else ((own, f"{number}{odd}" + "x" * rng.randrange(60)),)
        ):
            end = rng.choice(["\n", "\r\n", "\r"])
            lines = [f"data: {data}"] if data is not None else []
            lines += [f"id: {at}"] if at is not None else []
            lines += rng.choices([":ping", "retry: 1", "event: e", "other"], k=2)
            rng.shuffle(lines)
            body = end.join([*lines, "", ""]).encode()
            blocks.append(Block(body, at, data))
    return blocks


def unframed(body):
    return STREAM + body


def sized(body):
    return STREAM[:-2] + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body):
    pieces = [body[start : start + 37] for start in range(0, len(body), 37)]
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    head = STREAM[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
    return head + b"".join([*chunks, b"0\r\n\r\n"])


class Killer:
    """Serves the blocks after the id it is asked for, or from the first; kills."""

    def __init__(self, rng, blocks, framed, *, honours=True, connections=0):
        self._rng = rng
        self._blocks = blocks
        self._framed = framed
        self._honours = honours
        self._left = connections
        self._places = {block.id: place for place, block in enumerate(blocks)}
        del self._places[None]
        self._last = max(self._places.values())

    def __call__(self, request):
        last_id = request.last_event_id
        start = 0
        if self._honours and last_id is not None:
            start = self._places[last_id] + 1
        if start > self._last or (not self._honours and self._left == 0):
            return NO_MORE
        self._left -= 1
        answer = self._framed(b"".join(block.body for block in self._blocks[start:]))
        answer = answer[: self._rng.randrange(1200)]
        return self._rng.choice([bytes, Reset])(answer)


@dataclass
class Caller:
    """What a careful caller does with what comes: it believes the ids alone."""

    events: list
    told: int = 0
    again: int = 0

    def take(self, source):
        fresh = set()
        for notice in source.all:
            if isinstance(notice, Connected):
                resumed = source.last_event_id
                known = {event.id for event in self.events}
                fresh = known - {resumed}
                self._forget_after(resumed)
            elif isinstance(notice, ServerSentEvent):
                self.told += notice.id in fresh
                self.events.append(notice)

    def _forget_after(self, last_id):
        """Drop the events that have no id of their own, and so come again."""
        ids = [event.id for event in self.events]
        keep = ids.index(last_id) + 1 if last_id in ids else len(ids)
        self.again += len(ids) - keep
        del self.events[keep:]


def run(seed, framed, **options):
    rng = random.Random(seed)
    blocks = script(rng)
    # The last id is the end: whatever follows could come again for ever.
    while blocks[-1].id is None or blocks[-1].data is None:
        blocks.pop()
    caller = Caller([])
    with (
        SleeplessClock(),
        holystream.Client("hs-events-4f9a1c", model="m") as client,
        Server(Killer(rng, blocks, framed, **options)) as server,
    ):
        caller.take(client.event_source(server.url, retry=STUBBORN))
    return blocks, caller, server.requests


@pytest.mark.slow
@pytest.mark.parametrize("framed", [unframed, sized, chunked])
@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_lost_or_repeated(seed, framed):
    blocks, caller, requests = run(seed, framed)
    expected = [block.data for block in blocks if block.data is not None]
    assert [event.data for event in caller.events] == expected
    own = [block.id for block in blocks if block.id is not None]
    seen = list(dict.fromkeys(event.id for event in caller.events))
    assert seen == [each for each in own if each in set(seen)]
    assert caller.told == 0
    assert len(requests) > 10


def test_the_test_meets_what_comes_again():
    """Or the careful caller would not be needed."""
    assert sum(run(seed, unframed)[1].again for seed in range(4))


@pytest.mark.slow
@pytest.mark.parametrize("framed", [unframed, sized, chunked])
@pytest.mark.parametrize("seed", range(4))
def test_a_server_that_ignores_the_id_is_told_by_its_ids(seed, framed):
    _, caller, requests = run(seed, framed, honours=False, connections=20)
    assert len(requests) > 15
    assert caller.told
