"""An answer without anything, where the rest of one was asked for.

That is what a server sends that kept nothing, and what comes of a connection that broke
at once, where nothing tells a broken body from a whole one.
"""

import pytest

from holystream import Client, Guarantee, RetryPolicy, StreamInterrupted
from holystream.simulator import Script, Simulator

HASTY = RetryPolicy(base=0.001, cap=0.001, attempts=6)
CUT = Script(ids="named", cut_at=6000, cut="end")
AT_ONCE = Script(ids="named", cut_at=0, cut="end")
KEPT_NOTHING = Script(ids="named", cursor="empty", times=0)


def client(simulator, *ways):
    return Client(base_url=simulator.base_url, model="m", retry=HASTY, resume=ways)


@pytest.mark.parametrize("temperature", [0, 1])
def test_connections_that_break_at_once_are_no_reason_to_give_up(temperature):
    with Simulator(script=(CUT, *[AT_ONCE] * 4, Script(ids="named"))) as simulator:
        stream = client(simulator, "cursor").stream("?", temperature=temperature)
        completion = stream.get_final_completion()
        assert completion.text == simulator.generations[0].text
        assert completion.guarantee is Guarantee.VERBATIM
        assert len(simulator.generations) == 1


def test_a_server_that_keeps_nothing_is_asked_in_another_way():
    with Simulator(script=(CUT, KEPT_NOTHING)) as simulator:
        stream = client(simulator, "cursor", "replay").stream("?", temperature=0)
        completion = stream.get_final_completion()
        assert completion.text == simulator.generations[0].text
        assert completion.guarantee is Guarantee.REPLAYED
        assert completion.attempts == 4


def test_one_that_keeps_nothing_is_asked_anew_if_nothing_was_delivered():
    first = Script(ids="named", cut_at=600, cut="end")
    with Simulator(script=(first, KEPT_NOTHING)) as simulator:
        stream = client(simulator, "cursor").stream("?")
        completion = stream.get_final_completion()
        assert completion.text == simulator.generations[-1].text
        assert completion.guarantee is Guarantee.SINGLE


def test_where_there_is_no_other_way_it_ends_with_what_came():
    with Simulator(script=(CUT, KEPT_NOTHING)) as simulator:
        stream = client(simulator, "cursor").stream("?")
        with pytest.raises(StreamInterrupted) as caught:
            stream.get_final_completion()
        assert caught.value.partial_text
        assert simulator.generations[0].text.startswith(caught.value.partial_text)
        assert len(simulator.requests) == 6
