"""Failures that are said out loud: statuses, error bodies, error events."""

import json

import pytest
from simulator_client import (
    dial,
    events,
    fetch,
    question,
    read_all,
    read_one,
    read_until,
    request_bytes,
    text_of,
)

from holystream.simulator import ERROR_EVENTS, Script


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503, 529])
def test_a_status_has_openais_body(sim, status):
    sim.play(
        Script(status=status, headers={"Retry-After": "2", "retry-after-ms": "50"})
    )
    got = fetch(sim)
    assert got.status == status
    assert got.headers["retry-after"] == "2"
    assert got.headers["retry-after-ms"] == "50"
    assert got.headers["content-type"] == "application/json"
    error = json.loads(got.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}


def test_a_refusal_keeps_the_connection(sim):
    sim.play(Script(status=429))
    with dial(sim) as sock:
        for status in (429, 200):
            sock.sendall(request_bytes(question()))
            assert read_one(sock).status == status
    assert sim.connections == 1


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"detail": "no"}, "application/json"),
        (b'{"error": ', "application/json"),
        (b"<html>busy</html>", "text/html; charset=utf-8"),
        (b"upstream error", "text/plain; charset=utf-8"),
        (b"", "text/plain; charset=utf-8"),
    ],
)
@pytest.mark.parametrize("status", [200, 502])
def test_an_error_body_of_ones_own(sim, error, kind, status):
    sim.play(Script(status=status, error=error))
    got = fetch(sim)
    assert (got.status, got.headers["content-type"]) == (status, kind)
    same = json.loads(got.body) if isinstance(error, dict) else got.body
    assert same == error


def test_headers_and_content_type_are_replaced(sim):
    sim.play(
        Script(
            content_type="text/html", headers={"cache-CONTROL": "no-store", "X": "1"}
        )
    )
    got = fetch(sim)
    assert got.headers["content-type"] == "text/html"
    assert got.headers["cache-control"] == "no-store"
    assert got.headers["x"] == "1"
    assert got.head.lower().count(b"cache-control") == 1
    assert got.body == sim.body(question())


@pytest.mark.parametrize(("given", "sent"), [(200, 307), (308, 308), (302, 302)])
def test_redirects(sim, given, sent):
    sim.play(Script(redirect="http://127.0.0.1:1/v1", status=given))
    got = fetch(sim)
    assert (got.status, got.headers["location"]) == (sent, "http://127.0.0.1:1/v1")
    assert (got.body, got.whole) == (b"", True)


def test_no_content_has_no_body(sim):
    sim.play(Script(status=204))
    with dial(sim) as sock:
        sock.sendall(request_bytes(question()))
        got = read_until(sock, lambda got: got.raw.endswith(b"\r\n\r\n"))
        assert got.status == 204
        assert not any(name.startswith("content-") for name in got.headers)
        sock.sendall(request_bytes(question(), Connection="close"))
        assert read_all(sock).body == sim.body(question())


def test_a_success_that_is_not_200(sim):
    sim.play(Script(status=201))
    got = fetch(sim)
    assert (got.status, got.body) == (201, sim.body(question()))


def test_the_key_can_be_echoed(sim):
    sim.play(Script(echo_key=True), Script(echo_key=True, status=400))
    for status in (401, 400):
        got = fetch(sim, Authorization="Bearer sk-secret")
        assert got.status == status
        assert "Bearer sk-secret" in json.loads(got.body)["error"]["message"]


@pytest.mark.parametrize("name", ERROR_EVENTS)
def test_error_events_end_the_stream_in_the_providers_shape(sim, name):
    body = sim.body(question())
    blocks = body.split(b"\n\n")
    sim.play(Script(error_event_at=5, error_event=name))
    got = fetch(sim)
    assert got.whole
    before = b"\n\n".join(blocks[:5]) + b"\n\n"
    assert got.body == before + ERROR_EVENTS[name]
    assert (b"[DONE]" in got.body) == (name == "vllm")
    data = ERROR_EVENTS[name].split(b"data: ")[1].split(b"\n")[0]
    assert "error" in json.loads(data)


@pytest.mark.parametrize(
    ("event", "block"),
    [
        ({"error": "x\ny"}, b'data: {"error": "x\\ny"}\r\n\r\n'),
        ("string", ERROR_EVENTS["string"].replace(b"\n", b"\r\n")),
        (b"event: x\ndata: {}\n\n", b"event: x\ndata: {}\n\n"),
    ],
)
def test_error_events_of_ones_own(sim, event, block):
    script = Script(error_event_at=0, error_event=event, newline="\r\n")
    sim.play(script)
    assert fetch(sim).body == block == sim.body(question(), script)


def test_an_error_event_behind_the_end_never_comes(sim):
    body = sim.body(question())
    script = Script(error_event_at=body.count(b"\n\n") + 1)
    assert sim.body(question(), script) == body
    at_end = Script(error_event_at=body.count(b"\n\n"))
    assert sim.body(question(), at_end) == body + ERROR_EVENTS["openai"]


def test_one_event_can_be_malformed(sim):
    sim.play(Script(malformed_at=3))
    blocks, whole = fetch(sim).body.split(b"\n\n"), sim.body(question()).split(b"\n\n")
    assert len(blocks) == len(whole)
    assert [i for i, block in enumerate(blocks) if block != whole[i]] == [3]
    assert whole[3].startswith(blocks[3])
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(blocks[3].removeprefix(b"data: ").decode(errors="replace"))
    assert sim.body(question(), Script(malformed_at=10_000)) == sim.body(question())


@pytest.mark.parametrize("reason", ["length", "insufficient_system_resource", ""])
def test_finish_reasons(sim, reason):
    body = sim.body(question(), Script(finish_reason=reason))
    assert events(body)[-1]["choices"][0]["finish_reason"] == reason
    sim.play(Script(finish_reason=reason))
    whole = json.loads(fetch(sim, question(stream=False)).body)
    assert whole["choices"][0]["finish_reason"] == reason


def test_no_finish_and_no_done(sim):
    whole = sim.body(question())
    text = text_of(events(whole))
    unfinished = events(sim.body(question(), Script(finish=False)))
    assert text_of(unfinished) == text
    assert all(c["choices"][0]["finish_reason"] is None for c in unfinished)
    assert sim.body(question(), Script(done=False)) == whole[: -len("data: [DONE]\n\n")]
    sim.play(Script(finish=False))
    value = json.loads(fetch(sim, question(stream=False)).body)
    assert value["choices"][0]["finish_reason"] is None


def test_where_usage_comes(sim):
    body = question(stream_options={"include_usage": True}, n=2)
    usage = sim.answer(body).usage

    def places(script, body=body):
        chunks = events(sim.body(body, script))
        return [i - len(chunks) for i, c in enumerate(chunks) if c.get("usage")]

    assert places(Script()) == [-1]
    assert places(Script(usage="none")) == []
    on_finish = places(Script(usage="finish"))
    last = events(sim.body(body, Script(usage="finish")))[on_finish[0]]
    assert len(on_finish) == 1
    assert last["usage"] == usage
    assert last["choices"][0]["finish_reason"] == "stop"
    assert places(Script(usage="finish"), question()) == [-1]
    sim.play(Script(usage="none"))
    assert "usage" not in json.loads(fetch(sim, question(stream=False)).body)


def test_surrogate_pairs_can_come_in_halves(sim):
    body = question("echo:a🚀b𝛑")
    sim.play(Script(split_surrogates=True))
    chunks = events(fetch(sim, body).body)
    deltas = [chunk["choices"][0]["delta"].get("content") for chunk in chunks]
    halves = [delta for delta in deltas if delta and delta[-1] in "\ud83d\ud835"]
    assert len(halves) == 2
    joined = text_of(chunks).encode("utf-16", "surrogatepass").decode("utf-16")
    assert joined == "a🚀b𝛑"
