"""Every case of every suite: at every cut, and over real connections."""

from __future__ import annotations

import pytest
from contract_streams import CONTRACT
from package_streams import PACKAGES
from parsing import Parsed, parse
from scripted_feed import NO_MORE, STREAM, Server
from wpt_streams import WPT

import holystream
from holystream import Comment, ServerSentEvent
from holystream.testing import SleeplessClock

CASES = [*WPT, *CONTRACT, *PACKAGES]
SMALL = 5000
"""Bodies of so many bytes are cut everywhere; larger ones around the powers of 2."""
CHUNKED = STREAM[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"
every_case = pytest.mark.parametrize("case", CASES, ids=[each.source for each in CASES])


def expected(case):
    return Parsed(list(case.events), case.last_id, case.retry, list(case.comments))


def places(size):
    """Return where a body of this size is cut."""
    if size <= SMALL:
        return range(1, size)
    powers = [1 << bit for bit in range(size.bit_length())]
    near = {power + step for power in powers for step in (-1, 0, 1)}
    return sorted(place for place in near if 0 < place < size)


@every_case
def test_at_every_cut(case):
    body = case.body
    assert parse([body]) == expected(case)
    for place in places(len(body)):
        assert parse([body[:place], body[place:]]) == expected(case), place


@every_case
def test_byte_by_byte(case):
    pieces = [case.body[place : place + 1] for place in range(len(case.body))]
    assert parse(pieces) == expected(case)


def _in_chunks(body):
    """Return the body in chunks: of one byte, if it is small."""
    size = 1 if len(body) <= SMALL else 1000
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    return CHUNKED + b"".join([*chunks, b"0\r\n\r\n"])


def _whole(body):
    return STREAM[:-2] + b"Content-Length: %d\r\n\r\n" % len(body) + body


@every_case
@pytest.mark.parametrize("framed", [STREAM.__add__, _whole, _in_chunks])
def test_over_a_connection(case, framed):
    """What the events are, and what the next request says and waits for."""
    with (
        SleeplessClock() as clock,
        holystream.Client("hs-events-4f9a1c", model="m") as client,
        Server(framed(case.body), NO_MORE) as server,
    ):
        source = client.event_source(server.url)
        notices = list(source.all)
    events = [each for each in notices if isinstance(each, ServerSentEvent)]
    assert [(each.data, each.event, each.id) for each in events] == list(case.events)
    comments = [each.text for each in notices if isinstance(each, Comment)]
    assert comments == list(case.comments)
    assert source.last_event_id == case.last_id
    first, second = server.requests
    assert first.last_event_id is None
    assert second.last_event_id == (case.last_id or None)
    if case.retry is None:
        assert source.reconnection_time is None
    else:
        assert source.reconnection_time == case.retry / 1000
        assert clock.waits[0] >= case.retry / 1000
