"""llama-server's sessions: any byte of a body again, also while it is written."""

import json
import threading

import pytest
from simulator_client import (
    dial,
    events,
    fetch,
    question,
    read_all,
    read_until,
    request_bytes,
    text_of,
)

from holystream.simulator import Script


def start(sim, name="a", body=None, **headers):
    return fetch(sim, body, X_Conversation_Id=name, **headers)


def go_on(sim, offset, name="a", **headers):
    path = f"/v1/stream?conv_id={name}&from={offset}"
    return fetch(sim, b"", path=path, method="GET", **headers)


def stop(sim, query="?conv_id=a"):
    return fetch(sim, b"", path=f"/v1/stream{query}", method="DELETE")


def look_up(sim, *names):
    body = {"conversation_ids": list(names)}
    got = fetch(sim, body, path="/v1/streams/lookup")
    assert got.status == 200
    return json.loads(got.body)


def is_done(sim):
    return look_up(sim, "a")[0]["is_done"]


def test_it_goes_on_at_any_byte(sim):
    whole = sim.body(question())
    assert start(sim).body == whole
    for offset in (*range(0, len(whole), 977), 1, len(whole) - 1, len(whole)):
        got = go_on(sim, offset)
        assert (got.status, got.body, got.whole) == (200, whole[offset:], True)
        assert got.headers["content-type"].startswith("text/event-stream")
    assert go_on(sim, len(whole) + 9).body == b""
    assert fetch(sim, b"", path="/v1/stream?conv_id=a", method="GET").body == whole
    assert len(sim.generations) == 1


@pytest.mark.parametrize("framing", ["chunked", "one-chunk", "close", "length"])
@pytest.mark.parametrize("cut", ["fin", "rst", "end"])
def test_it_can_be_cut_again_and_again(sim, framing, cut):
    whole = sim.body(question(temperature=None), Script(newline="\r\n"))
    script = Script(cut_at=700, cut=cut, framing=framing, times=0)
    sim.play(Script(newline="\r\n", cut_at=700, framing=framing, gzip=False), script)
    got = start(sim, body=question(temperature=None)).body
    while len(got) < len(whole):
        more = go_on(sim, len(got)).body
        assert more
        got += more
    assert got == whole


def test_the_offset_counts_what_gzip_hides(sim):
    sim.play(Script(gzip=True))
    start(sim)
    assert go_on(sim, 500).body == sim.body(question())[500:]


def test_it_is_written_on_although_nobody_reads(sim):
    whole = sim.body(question())
    sim.play(Script(pace=0.01, cut_at=300))
    assert start(sim).body == whole[:300]
    # It waits for what is not written yet.
    assert go_on(sim, 300).body == whole[300:]
    assert is_done(sim)


def test_two_can_read_what_is_being_written(sim):
    whole = sim.body(question())
    sim.play(Script(pace=0.005))
    found = []

    def read():
        found.append(go_on(sim, 0).body)

    with dial(sim) as sock:
        headers = {"X_Conversation_Id": "a", "Connection": "close"}
        sock.sendall(request_bytes(question(), **headers))
        got = read_until(sock, lambda got: b"data: " in got.raw)
        reader = threading.Thread(target=read)
        reader.start()
        assert read_all(sock, got).body == whole
        reader.join()
    assert found == [whole]


def test_pings_are_part_of_the_body(sim):
    sim.play(Script(pace=0.02, pings=0.003, ping_text="still here"))
    got = start(sim, body=question(max_tokens=9)).body
    assert got.count(b": still here\n\n") > 9
    for offset in range(0, len(got), 97):
        assert go_on(sim, offset).body == got[offset:]
    text = b"".join(
        block + b"\n\n"
        for block in got.split(b"\n\n")[:-1]
        if not block.startswith(b":")
    )
    assert text == sim.body(question(max_tokens=9))


def test_a_reader_gets_no_pings_that_are_not_in_it(sim):
    whole = sim.body(question(max_tokens=5))
    start(sim, body=question(max_tokens=5))
    sim.play(Script(pace=0.02, pings=0.001))
    assert go_on(sim, 7).body == whole[7:]


@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
def test_a_delete_stops_it(sim, framing):
    sim.play(Script(pace=600, framing=framing))
    with dial(sim) as sock:
        headers = {"X_Conversation_Id": "a", "Connection": "close"}
        sock.sendall(request_bytes(question(), **headers))
        got = read_until(sock, lambda got: b"\n\n" in got.body)
        assert not is_done(sim)
        assert stop(sim).status == 204
        got = read_all(sock, got)
    assert got.end == "fin"
    assert sim.body(question()).startswith(got.body)
    assert got.whole == (framing == "chunked")
    assert go_on(sim, 0).status == 404
    assert look_up(sim, "a") == []
    assert stop(sim).status == 204


def test_a_reader_is_ended_by_a_delete_as_well(sim):
    sim.play(Script(pace=600, cut_at=100))
    start(sim)
    with dial(sim) as sock:
        path = "/v1/stream?conv_id=a&from=0"
        sock.sendall(request_bytes(b"", path, "GET", Connection="close"))
        got = read_until(sock, lambda got: b"\n\n" in got.body)
        stop(sim)
        got = read_all(sock, got)
    assert got.whole
    assert len(events(got.body)) == 1


def test_another_post_of_that_id_replaces_it(sim):
    sim.play(Script(pace=600))
    with dial(sim) as sock:
        headers = {"X_Conversation_Id": "a", "Connection": "close"}
        sock.sendall(request_bytes(question(), **headers))
        got = read_until(sock, lambda got: b"\n\n" in got.body)
        start(sim, body=question("else"))
        assert read_all(sock, got).whole
    assert go_on(sim, 0).body == sim.body(question("else"))


def test_a_slow_reader_gets_what_was_written_before_a_replacement(sim):
    gate = threading.Semaphore(0)
    sim.play(Script(gate=gate))
    with dial(sim) as sock:
        headers = {"X_Conversation_Id": "a", "Connection": "close"}
        sock.sendall(request_bytes(question(), **headers))
        got = read_until(sock, lambda got: b"\r\n\r\n" in got.raw)
        start(sim, body=question("else"))
        gate.release(1000)
        assert read_all(sock, got).body == sim.body(question())


def test_what_left_the_ring_is_lost(sim):
    whole = sim.body(question())
    sim.play(Script(ring=1000))
    start(sim)
    oldest = len(whole) - 1000
    assert go_on(sim, oldest).body == whole[oldest:]
    got = go_on(sim, oldest - 1)
    assert got.status == 400
    error = json.loads(got.body)["error"]
    assert error["message"] == "Stream offset lost, please restart"
    assert error["type"] == "invalid_request_error"


def test_it_expires(sim):
    sim.play(Script(ttl=0))
    start(sim)
    got = go_on(sim, 0)
    assert got.status == 404
    error = json.loads(got.body)["error"]
    assert error["message"] == "Stream not found or expired"
    assert error["code"] == 404


@pytest.mark.parametrize("query", ["from=x&conv_id=a", "conv_id=a&from=-1", "from=1"])
def test_bad_questions(sim, query):
    start(sim)
    assert fetch(sim, b"", path=f"/v1/stream?{query}", method="GET").status == 400


def test_a_delete_needs_an_id(sim):
    assert stop(sim, "").status == 400


def test_look_up_tells_of_those_asked_for(sim):
    for name in ("a", "a::m", "ab", "b"):
        start(sim, name)
    found = look_up(sim, "a", "none", "", 7)
    assert [one["conversation_id"] for one in found] == ["a", "a::m"]
    assert found[0]["is_done"] is True
    assert found[0]["total_bytes"] == len(sim.body(question()))
    assert 0 < found[0]["started_at"] <= found[0]["completed_at"]
    sim.play(Script(pace=600, cut_at=9))
    start(sim, "b")
    (one,) = look_up(sim, "b")
    assert (one["is_done"], one["completed_at"]) == (False, 0)
    assert one["total_bytes"] == len(sim.body(question()).partition(b"\n\n")[0]) + 2
    assert fetch(sim, b"[", path="/v1/streams/lookup").status == 400
    assert fetch(sim, {}, path="/v1/streams/lookup").body == b"[]"


def test_a_request_that_fails_leaves_no_session(sim):
    sim.play(Script(status=503))
    start(sim)
    start(sim, body=question(stream=False))
    assert go_on(sim, 0).status == 404


def test_only_answers_take_a_script(sim):
    sim.play(Script(cut_at=500), Script(cut_at=50))
    start(sim)
    look_up(sim, "a")
    assert len(go_on(sim, 500).body) == 50
    sim.play(Script(status=503))
    assert stop(sim).status == 204
    assert go_on(sim, 0).status == 503


def test_ids_are_in_the_body_too(sim):
    sim.play(Script(ids="plain"))
    whole = start(sim).body
    assert whole.startswith(b"id: 1\n")
    assert go_on(sim, 3).body == whole[3:]


def test_memory_is_bounded(simulate):
    sim = simulate(length=9)
    for number in range(65):
        start(sim, f"{number}")
    assert go_on(sim, 0, "0").status == 404
    assert text_of(events(go_on(sim, 0, "1").body)) == sim.answer(question()).text
