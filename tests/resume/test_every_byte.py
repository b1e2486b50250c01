"""Every place at once: an answer is cut at each byte, and goes on in each way.

Through parser and Exchange, without a socket. Of all cuts that leave the same events,
and the same count of bytes in them, one is played: an Exchange cannot tell them apart.
Each is played alone, once with a clean end instead of a broken one, and as the first of
several in a row, which are drawn. Framing is the business of the wire; see
`test_every_boundary`.
"""

from __future__ import annotations

from random import Random

import pytest
from laboratory import Laboratory, changed, places
from ways import EXACT, SAMPLED, TEXT

from holystream.events import Guarantee
from holystream.wire.faults import FaultKind

NEWLINES = {"LF": "\n", "CRLF": "\r\n", "CR": "\r"}
OTHERS = (
    "named ids",
    "out of order",
    "verified prefix, echo pieces",
    "replay of calls",
)
"""Ways that are tried with other endings of lines too: no way looks at them."""


def laboratory(way):
    return Laboratory(text=None if way.calls else TEXT, **way.asked)


def spelled(calls):
    return [(call.call_index, call.name, call.arguments_json) for call in calls]


def cuts(way, script, seed):
    """Play every cut, alone and with others; yield what came of each."""
    random = Random(seed)
    whole = laboratory(way).run(script)
    assert whole.completion is not None
    data = whole.bodies[0]
    runs = [(place, FaultKind.LOST, more) for place in places(data) for more in (0, 2)]
    runs += [(place, FaultKind.ENDED, 0) for place in places(data, clean=True)]
    assert len(runs) > len(data) // 200
    for place, end, more in runs:
        lab = laboratory(way)
        lab.run(script, place, end, sizes=[random.randint(1, 4000), 77])
        for _ in range(more):
            if lab.over:
                break
            lab.run(script, random.random(), sizes=[random.randint(1, 4000), 77])
        yield whole, lab.finish(script)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "newline"),
    [
        *((way, "LF") for way in EXACT),
        *(
            (way, newline)
            for way in EXACT
            for newline in ("CRLF", "CR")
            if way.name in OTHERS
        ),
    ],
    ids=str,
)
def test_the_answer_is_the_uncut_one(way, newline):
    script = changed(way.script, newline=NEWLINES[newline])
    for whole, lab in cuts(way, script, f"{way} {newline}"):
        lab.check(whole.text)
        assert spelled(lab.completion.tool_calls) == spelled(
            whole.completion.tool_calls
        )
        assert spelled(lab.reader.calls.values()) == spelled(
            whole.completion.tool_calls
        )
        worth = {event.guarantee for event in lab.resumptions}
        assert worth <= way.worth


@pytest.mark.slow
@pytest.mark.parametrize("way", SAMPLED, ids=str)
def test_a_sampled_answer_goes_on_from_exactly_what_was_delivered(way):
    continued = 0
    for _, lab in cuts(way, way.script, str(way)):
        assert lab.is_true, lab.text
        lab.check(lab.text)
        continued += lab.completion.guarantee is Guarantee.CONTINUED
    assert continued
