"""Ids and cursors: what goes on behind a Last-Event-ID, and in which wrong ways."""

import json

import pytest
from simulator_client import events, fetch, question, text_of

from holystream.simulator import Answer, Choice, Generation, Script
from holystream.simulator.generations import Generations

STYLES = ["plain", "named"]
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def rows(body):
    """Return id and data of each event."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        assert name.startswith("id: ")
        assert data.startswith("data: ")
        found.append((name.removeprefix("id: "), data.removeprefix("data: ")))
    return found


def numbers(found):
    return [int(name.rpartition(":")[2]) for name, _ in found]


def chunks(found):
    return [json.loads(data) for _, data in found if data != "[DONE]"]


def resume(sim, found, at, body=None, **headers):
    """Ask for what comes behind the first `at` events."""
    return fetch(sim, body, Last_Event_ID=found[at - 1][0], **headers)


@pytest.mark.parametrize("ids", STYLES)
@pytest.mark.parametrize(
    "body",
    [
        question(),
        question(n=3, stream_options={"include_usage": True}),
        question(model="sim-reasoner", temperature=None),
        question("call:f {}", tools=TOOLS),
        question(logprobs=True, top_logprobs=2),
    ],
    ids=["text", "choices", "reasoning", "tools", "logprobs"],
)
def test_every_event_has_an_id_and_can_be_gone_on_behind(sim, ids, body):
    sim.play(Script(ids=ids))
    found = rows(fetch(sim, body).body)
    assert numbers(found) == list(range(1, len(found) + 1))
    name = chunks(found)[0]["id"]
    begin = f"{name}:" if ids == "named" else ""
    assert [one for one, _ in found] == [f"{begin}{n}" for n in numbers(found)]
    for at in range(1, len(found) + 1, 7):
        assert rows(resume(sim, found, at, body).body) == found[at:]
    assert resume(sim, found, len(found), body).body == b""
    assert len(sim.generations) == 1


def test_the_body_with_ids_is_foretold(sim):
    script = Script(ids="named", newline="\r\n", malformed_at=0)
    body = sim.body(question(), script)
    sim.play(script)
    assert fetch(sim).body == body
    first = body.split(b"\r\n")[:3]
    assert first[0] == f"id: {sim.answer(question()).id}:1".encode()
    assert first[1].startswith(b'data: {"id":')
    assert first[2] == b""


def test_what_goes_on_can_be_cut_again(sim):
    whole = sim.body(question(), Script(ids="plain"))
    sim.play(Script(ids="plain", cut_at=2000))
    got = fetch(sim).body
    for cut in (1000, 1500, None):
        got = got[: got.rindex(b"\n\n") + 2]
        sim.play(Script(cut_at=cut, cut="rst"))
        got += resume(sim, rows(got), 0).body
    assert got == whole
    assert len(sim.requests) == 4
    assert [text_of(chunks(rows(got)))] == [one.text for one in sim.generations]


def test_two_generations_are_told_apart(sim):
    sim.play(Script(ids="named", times=2))
    one, two = rows(fetch(sim).body), rows(fetch(sim).body)
    assert text_of(chunks(one)) == text_of(chunks(two))
    assert chunks(one)[0]["id"] != chunks(two)[0]["id"]
    assert rows(resume(sim, one, 5).body) == one[5:]
    assert rows(resume(sim, two, 5).body) == two[5:]


def test_a_plain_id_means_the_latest_answer_to_an_equal_request(sim):
    body = question(temperature=None)
    sim.play(Script(ids="plain", times=3))
    one, two = rows(fetch(sim, body).body), rows(fetch(sim, body).body)
    rows(fetch(sim, question("else")).body)
    assert one[5:] != two[5:]
    assert rows(resume(sim, one, 5, body).body) == two[5:]


class TestOtherWays:
    @pytest.fixture(params=STYLES)
    def found(self, sim, request):
        sim.play(Script(ids=request.param))
        return rows(fetch(sim).body)

    def test_inclusive(self, sim, found):
        sim.play(Script(cursor="inclusive"))
        assert rows(resume(sim, found, 9).body) == found[8:]

    def test_gap(self, sim, found):
        sim.play(Script(cursor="gap"))
        assert rows(resume(sim, found, 9).body) == found[10:]

    @pytest.mark.parametrize("sampling", [None, True])
    def test_ignore(self, sim, found, sampling):
        # The first sample of a greedy question is the greedy text.
        sim.play(Script(cursor="ignore", sampling=True))
        resume(sim, found, 9)
        sim.play(Script(cursor="ignore", sampling=sampling))
        other = rows(resume(sim, found, 9).body)
        assert numbers(other)[:3] == [1, 2, 3]
        assert chunks(other)[0]["id"] != chunks(found)[0]["id"]
        same = text_of(chunks(other)) == text_of(chunks(found))
        assert same == (sampling is None)

    def test_other(self, sim, found):
        sim.play(Script(cursor="other"))
        other = rows(resume(sim, found, 9).body)
        assert numbers(other)[0] == 10
        assert chunks(other)[0]["id"] != chunks(found)[0]["id"]
        assert text_of(chunks(other)) not in text_of(chunks(found))
        # What goes on goes on with the latest.
        assert rows(resume(sim, other, 4).body) == other[4:]

    def test_another_text_although_it_is_given(self, simulate):
        sim = simulate(text="always the same " * 9)
        sim.play(Script(ids="plain"))
        found = rows(fetch(sim).body)
        sim.play(Script(cursor="other"))
        other = text_of(chunks(rows(resume(sim, found, 2).body)))
        assert other
        assert other not in "always the same " * 9

    @pytest.mark.parametrize(("cursor", "status"), [("missing", 404), ("refuse", 400)])
    def test_refusals(self, sim, found, cursor, status):
        sim.play(Script(cursor=cursor))
        got = resume(sim, found, 9)
        assert got.status == status
        assert "Last-Event-ID" in json.loads(got.body)["error"]["message"]

    def test_empty(self, sim, found):
        sim.play(Script(cursor="empty"))
        got = resume(sim, found, 9)
        assert (got.status, got.body, got.whole) == (200, b"", True)
        assert got.headers["content-type"].startswith("text/event-stream")

    def test_some_again(self, sim, found):
        sim.play(*[Script(replay_events=4)] * 2, Script(replay_events=4, cursor="gap"))
        assert rows(resume(sim, found, 9).body) == found[5:]
        assert rows(resume(sim, found, 2).body) == found
        assert rows(resume(sim, found, 9).body) == found[6:]

    @pytest.mark.parametrize("window", [2, 5])
    def test_out_of_order(self, sim, found, window):
        sim.play(Script(shuffle=window))
        mixed = rows(resume(sim, found, 9).body)
        rest = found[9:]
        assert mixed != rest
        for at in range(0, len(rest), window):
            run, expected = mixed[at : at + window], rest[at : at + window]
            assert sorted(run, key=lambda row: numbers([row])) == expected
            assert run != expected or len(run) == 1


def test_without_ids_a_cursor_is_not_looked_at(sim):
    for cursor in ("5", "x:5", "abc"):
        assert fetch(sim, Last_Event_ID=cursor).body == sim.body(question())


@pytest.mark.parametrize("cursor", ["5", "900", "chatcmpl-none:5", "abc", "-1"])
def test_with_ids_an_unknown_one_is_not_found(sim, cursor):
    sim.play(*[Script(ids="plain")] * 2)
    if cursor != "5":
        fetch(sim)
    assert fetch(sim, Last_Event_ID=cursor).status == 404


def test_a_generation_counts_its_events_in_one_way(sim):
    body = question("echo:🚀🚀🚀🚀🚀🚀")
    sim.play(Script(ids="plain", split_surrogates=True))
    found = rows(fetch(sim, body).body)
    assert rows(resume(sim, found, 3, body).body) == found[3:]


def test_generations_are_remembered_in_order_and_within_bounds(simulate):
    sim = simulate(length=10)
    fetch(sim, question("first"))
    for n in range(256):
        fetch(sim, question(f"{n}", stream=False))
    kept = sim.generations
    assert len(kept) == 256
    assert [one.request["messages"][0]["content"] for one in kept[:2]] == ["0", "1"]
    assert kept[5].text == sim.answer(question("5")).text
    assert kept[5].id == sim.answer(question("5")).id


def test_generations_are_remembered_by_their_tokens_too():
    def made(name, size):
        choice = Choice(("x",) * size, (), (), "stop")
        return Generation({}, Answer(name, 0, "m", (choice,), {}))

    memory = Generations()
    for name, size in (("a", 9), ("b", 199_991), ("c", 200_001)):
        memory.add(made(name, size), b"")
    assert [one.id for one in memory.all()] == ["a", "b"]
    memory.add(made("d", 1), b"")
    assert [one.id for one in memory.all()] == ["b", "d"]


def test_sampling_is_what_the_script_says(sim):
    texts = []
    for script, body in (
        (Script(sampling=True), question()),
        (Script(sampling=True), question(seed=4)),
        (Script(sampling=False), question(temperature=1)),
    ):
        sim.play(script, script)
        texts.append([text_of(events(fetch(sim, body).body)) for _ in range(2)])
    assert [one == two for one, two in texts] == [False, False, True]
    again = [sim.answer(question(), n, Script(sampling=True)).text for n in (0, 1)]
    assert again == texts[0]
