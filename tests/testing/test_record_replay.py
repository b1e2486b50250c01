"""What came over the wire once comes again: bytes, order, time, and end.

Recorded is against the simulator, whose every byte is known; replayed is to a client
that must end exactly as the first one did.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import random
import resource
import stat
import threading
import time
import tracemalloc
from pathlib import Path

import pytest
import requests
from hypothesis import given, strategies as st
from loopback import nothing_left_behind

from holystream import (
    AuthenticationError,
    Client,
    ConnectionFailed,
    HolystreamError,
    NotFound,
    RetryPolicy,
    ServerError,
    StreamCancelled,
    StreamInterrupted,
    TextDelta,
    Timeouts,
)
from holystream.clocks import Deadline, ReadClocks
from holystream.simulator import Script, Simulator
from holystream.testing import record, replay
from holystream.testing.discretion import Discretion
from holystream.wire import observing
from holystream.wire.faults import Fault, FaultKind
from holystream.wire.guard import SocketGuard
from holystream.wire.http import HttpTransport
from holystream.wire.request import HttpRequest

KEY = "sk-secret-0123456789abcdef"
PROMPT = "Tell nobody that the vault's number is 4711, and be brief about it."
BODY = {"model": "m", "messages": [{"role": "user", "content": PROMPT}]}
TEXT = "One, two \N{GRINNING FACE}, three.\n"
IMPATIENT = Timeouts(connect=20, first_token=20, idle=0.1, token_idle=20)
"""With a silence behind some text. What comes may take its time to begin."""
SPEECHLESS = Timeouts(connect=20, first_token=0.1)
"""Where no text comes at all."""


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def bodies(path):
    """The body of each connection, its reads joined."""
    found = {}
    for line in lines(path):
        found.setdefault(line["n"], b"")
        found[line["n"]] += line.get("text", "").encode()
        found[line["n"]] += base64.b64decode(line.get("base64", ""))
    return list(found.values())


def ends(path):
    return [line["end"] for line in lines(path) if "end" in line]


def ask(base_url, **options):
    """Ask once; return the text that came and the class of what ended it."""
    settings = {"retry": RetryPolicy(attempts=1), "timeout": 20, **options}
    with Client(KEY, base_url=base_url, model="m", **settings) as client:
        stream = client.stream(PROMPT)
        try:
            return stream.get_final_text(), None
        except HolystreamError as error:
            cause = error.__cause__ if isinstance(error, StreamInterrupted) else error
            return stream.partial_text, type(cause)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stream.jsonl"


@pytest.fixture
def recorded(path):
    """Record one question to a simulator that plays a script; return how it ended."""

    def run(script, **options):
        with (
            Simulator(script=script, text=TEXT) as simulator,
            record(path),
        ):
            return ask(simulator.base_url, **options)

    return run


FRAMINGS = ["chunked", "one-chunk", "close", "length"]


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("speed", [None, 1])
def test_a_whole_answer_comes_again(recorded, path, framing, speed):
    assert recorded(Script(framing=framing)) == (TEXT, None)
    assert ends(path) == ["complete"]
    with replay(path, speed) as again:
        assert ask(again.base_url) == (TEXT, None)
        assert again.left == 0


@pytest.mark.parametrize("gzip", [False, True])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_byte_is_recorded(recorded, path, newline, gzip):
    script = Script(newline=newline, rechunk=7, gzip=gzip, bom=True)
    assert recorded(script) == (TEXT, None)
    with Simulator(text=TEXT) as simulator:
        body = {**BODY, "stream": True, "stream_options": {"include_usage": True}}
        assert bodies(path) == [simulator.body(body, script)]
    with replay(path) as again:
        assert ask(again.base_url) == (TEXT, None)
        read = requests.get(again.base_url, timeout=20)
        assert read.status_code == 500
    with replay(path) as again:
        assert requests.get(again.base_url, timeout=20).content == bodies(path)[0]


@pytest.mark.parametrize("cut", [0, 1, 150, 900])
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("how", ["fin", "rst", "end"])
def test_a_broken_answer_breaks_again(recorded, path, how, framing, cut):
    before = recorded(Script(cut=how, cut_at=cut, framing=framing))
    assert before[1] is not None
    with replay(path) as again:
        assert ask(again.base_url) == before


@pytest.mark.parametrize(
    ("script", "ending"),
    [
        (Script(stall_at=0), "silence"),
        (Script(stall_at=900), "silence"),
        (Script(stall_headers=True), "silence"),
        (Script(cut_before_headers="fin"), "cut"),
        (Script(cut_before_headers="rst"), "reset"),
        (Script(cut_at=900, cut="rst"), "reset"),
        (Script(cut_at=900, cut="fin"), "cut"),
        (Script(cut_at=900, cut="end"), "complete"),
    ],
)
def test_the_end_is_named_and_met_again(recorded, path, script, ending):
    silent = script.stall_headers or script.stall_at == 0
    timeout = SPEECHLESS if silent else IMPATIENT
    before = recorded(script, timeout=timeout)
    assert ends(path) == [ending]
    with replay(path) as again:
        assert ask(again.base_url, timeout=timeout) == before


def test_each_attempt_is_a_connection_and_is_met_in_its_turn(path, holystream_clock):
    scripts = [
        Script(status=429, headers={"Retry-After": "7"}),
        Script(cut_at=900, cut="rst"),
        Script(cut_before_headers="fin"),
        Script(),
    ]
    policy = RetryPolicy(attempts=9)

    def events(base_url):
        with Client(KEY, base_url=base_url, model="m", retry=policy) as client:
            stream = client.stream(PROMPT, temperature=0)
            names = [type(event).__name__ for event in stream if str(event) == ""]
            assert stream.completion.text == TEXT
            return names, stream.attempts

    with Simulator(script=scripts, text=TEXT) as simulator, record(path):
        before = events(simulator.base_url)
    waits = [*holystream_clock.waits]
    assert waits[0] == 10.0
    assert [line["n"] for line in lines(path) if "request" in line] == [1, 2, 3, 4]
    with replay(path) as again:
        assert events(again.base_url) == before
        assert again.left == 0
        assert len(again.requests) == 4
    assert holystream_clock.waits == waits * 2


def test_a_request_beyond_the_recording_is_told_so(recorded, path):
    recorded(Script())
    with replay(path) as again, Client(KEY, base_url=again.base_url, model="m") as user:
        assert again.left == 1
        user.stream("anything else").until_done()
        with pytest.raises(ServerError, match="is used up") as caught:
            user.stream(PROMPT).until_done()
        assert "of connections it has 1, and this is request 2" in str(caught.value)
        assert "base_url" not in str(caught.value)
        assert len(again.requests) == 2, "it was not tried again"


def test_an_unreachable_server_is_recorded_as_no_answer(path):
    with record(path), Client(KEY, base_url="http://127.0.0.1:9", model="m") as client:
        stream = client.stream(PROMPT, retry=RetryPolicy(attempts=1))
        with pytest.raises(ConnectionFailed):
            stream.until_done()
    (line,) = lines(path)
    assert line["end"] == "cut"
    assert line["request"] == {
        "method": "POST",
        "place": "http://127.0.0.1:9/chat/completions",
    }


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "https://me:secret@host:8/v1/chat?key=secret#secret",
            "https://host:8/v1/chat",
        ),
        ("https://[secret", None),
    ],
)
def test_of_a_url_only_the_place_is_recorded(path, url, shown):
    with record(path):
        watcher = observing.observer.get().sending("GET", url, None, {})
        watcher.ended(observing.Ending.CUT)
    assert "secret" not in path.read_text("utf-8")
    assert lines(path)[0]["request"].get("place") == shown


def test_a_url_that_is_none_is_told_as_ever():
    with pytest.raises(Fault) as caught:
        HttpTransport(connections=1, user_agent="test").open(
            HttpRequest(url="https://[secret", body=None),
            SocketGuard(ReadClocks(Timeouts(), Deadline())),
        )
    assert caught.value.kind is FaultKind.BAD_URL


def test_a_redirect_is_recorded_and_followed_again(path):
    with Simulator(script=Script(redirect="/v1/chat/completions?k=secret")) as server:
        with record(path):
            first = ask(server.base_url)
        assert len(server.requests) == 2
    assert "secret" not in path.read_text("utf-8")
    with replay(path) as again:
        assert ask(again.base_url) == first
        assert again.left == 0


def test_of_nested_blocks_the_innermost_records(tmp_path):
    outer, inner = tmp_path / "outer.jsonl", tmp_path / "inner.jsonl"
    scripts = [Script(status=400), Script(status=401), Script(status=404)]
    with Simulator(script=scripts) as simulator:
        with record(outer):
            ask(simulator.base_url)
            with record(inner):
                ask(simulator.base_url)
            ask(simulator.base_url)
        ask(simulator.base_url)
    found = {
        path: [line["status"] for line in lines(path) if "status" in line]
        for path in (outer, inner)
    }
    assert found == {outer: [400, 404], inner: [401]}


def test_a_reader_that_leaves_is_recorded_so(path):
    gate = threading.Semaphore(2)
    with (
        Simulator(script=Script(gate=gate), text=TEXT) as simulator,
        record(path),
        Client(KEY, base_url=simulator.base_url, model="m") as client,
        client.stream(PROMPT) as stream,
    ):
        for event in stream:
            if type(event) is TextDelta:
                break
    assert ends(path) == ["left"]
    # Whoever stays will hear nothing more.
    with replay(path) as again:
        assert ask(again.base_url, timeout=IMPATIENT)[0] == stream.partial_text


def test_a_cancelled_read_is_recorded_as_having_left(path):
    with (
        Simulator(script=Script(stall_at=900), text=TEXT) as simulator,
        record(path),
        Client(KEY, base_url=simulator.base_url, model="m", timeout=20) as client,
    ):
        stream = client.stream(PROMPT).open()
        thread = threading.Thread(target=stream.cancel)
        thread.start()
        with pytest.raises(StreamCancelled):
            stream.until_done()
        thread.join()
    assert ends(path) == ["left"]


def test_time_is_recorded_and_kept(path):
    script = Script(latency=0.1, first_token=0.1, pace=0.05)
    with Simulator(script=script, text="One two three") as simulator, record(path):
        ask(simulator.base_url)
    times = [line["t"] for line in lines(path)]
    assert times == sorted(times)
    head, *reads = times
    assert head >= 0.1
    assert reads[0] >= 0.2
    assert times[-1] >= 0.2 + 0.05 * 3
    with replay(path, speed=1) as again:
        begun = time.monotonic()
        ask(again.base_url)
        assert time.monotonic() - begun >= times[-1]


@pytest.mark.parametrize("speed", [None, 1000])
def test_time_can_be_made_short(path, speed):
    path.write_text(
        '{"n":1,"t":3600,"status":200,"headers":{"content-type":"text/event-stream"}}\n'
        '{"n":1,"t":7200,"text":"data: {}\\n\\n"}\n'
        '{"n":1,"t":7201,"end":"complete"}\n',
        "utf-8",
    )
    if speed is not None:
        speed *= 1000
    with replay(path, speed) as again:
        assert requests.get(again.base_url, timeout=20).text == "data: {}\n\n"


def observe(path, status, reads, body=None, **headers):
    """Record what a wire of our own brings."""
    with record(path):
        watcher = observing.observer.get().sending("POST", "https://x/", body, {})
        watcher.answered(status, headers)
        for data in reads:
            watcher.received(data)
        watcher.ended(observing.Ending.COMPLETE)


def test_reads_that_are_no_text_are_kept_as_they_were(path):
    face = "\N{GRINNING FACE}".encode()
    reads = [face[:2], face[2:], b"\xff\x00", b"text"]
    observe(path, 200, reads, None, **{"content-type": "text/event-stream"})
    assert [base64.b64decode(line.get("base64", "")) for line in lines(path)][1:-1] == [
        *reads[:3],
        b"",
    ]
    with replay(path) as again:
        assert requests.get(again.base_url, timeout=20).content == b"".join(reads)


def test_a_prompt_that_is_no_json_is_hidden_as_well(path):
    observe(path, 500, [b"You said: ", b"tell me all"], b"tell me all")
    assert bodies(path) == [b"You said: ***********"]


@pytest.mark.parametrize("framing", ["chunked", "length"])
def test_a_connection_is_used_again_unless_the_client_does_not_want_to(
    recorded, path, framing
):
    recorded(Script(framing=framing))
    with replay(path) as again, requests.Session() as session:
        again_and_again = [session.get(again.base_url, timeout=20) for _ in range(2)]
        assert [response.status_code for response in again_and_again] == [200, 500]
        assert again.connections == 1
    with replay(path) as again:
        response = requests.get(
            again.base_url, headers={"Connection": "close"}, timeout=20
        )
        assert response.content == bodies(path)[0]
        assert again.wait_until(lambda: not again.open_connections)


# What must not be in a recording.


@pytest.mark.parametrize(
    "script",
    [
        Script(),
        Script(echo_key=True),
        Script(echo_key=True, status=429, rechunk=1),
        Script(echo_key=True, rechunk=3, framing="chunked", gzip=True),
        Script(headers={"Set-Cookie": "session=4711abc", "X-Odd": KEY, "Server": KEY}),
    ],
)
def test_no_key_is_recorded(recorded, path, script):
    before = recorded(script)
    text = path.read_text("utf-8")
    assert KEY not in text
    assert KEY not in b"".join(bodies(path)).decode()
    assert "4711abc" not in text
    assert "authorization" not in text.lower()
    with replay(path) as again:
        assert ask(again.base_url) == before


@pytest.mark.parametrize("size", range(1, 40))
def test_a_key_is_hidden_however_the_reads_cut_it(size):
    said = f"data: sk-se {KEY}! {KEY[:9]}{KEY}, {KEY[:-1]}".encode()
    hidden = said.replace(KEY.encode(), b"*" * len(KEY))
    reads = [said[at : at + size] for at in range(0, len(said), size)]
    discretion = Discretion({"Authorization": f"Bearer {KEY}"}, None)
    taken = [
        piece
        for at, data in enumerate(reads)
        for piece in discretion.take(float(at), data)
    ]
    taken += discretion.rest()
    assert b"".join(data for _, data in taken) == hidden
    # Each read keeps its time and its length.
    assert [(at, len(data)) for at, data in taken] == [
        (float(at), len(data)) for at, data in enumerate(reads)
    ]


def test_a_read_is_held_back_only_while_a_key_may_have_begun_in_it():
    discretion = Discretion({"Authorization": f"Bearer {KEY}"}, None)
    assert list(discretion.take(0.0, b"one")) == [(0.0, b"one")]
    assert list(discretion.take(1.0, b"two sk-")) == []
    assert list(discretion.take(2.0, b"secre")) == []
    assert list(discretion.take(3.0, b"cy")) == [
        (1.0, b"two sk-"),
        (2.0, b"secre"),
        (3.0, b"cy"),
    ]
    assert list(discretion.rest()) == []


def test_a_key_in_an_event_stream_is_hidden(path):
    said = f'data: {{"error":{{"message":"Odd key: {KEY}","code":"odd"}}}}\n\n'
    script = Script(error=said.encode(), content_type="text/event-stream", rechunk=5)
    with Simulator(script=script) as simulator, record(path):
        before = ask(simulator.base_url)
    (body,) = bodies(path)
    assert body == said.replace(KEY, "*" * len(KEY)).encode()
    with replay(path) as again:
        assert ask(again.base_url) == before


def test_no_prompt_is_recorded_unless_asked_for(recorded, path):
    recorded(Script())
    text = path.read_text("utf-8")
    assert "4711" not in text
    assert "body" not in lines(path)[0]["request"]


def test_a_prompt_is_recorded_if_asked_for_without_the_key(path):
    with (
        Simulator() as simulator,
        record(path, prompts=True),
        Client(KEY, base_url=simulator.base_url, model="m") as client,
    ):
        client.stream(f"{PROMPT} My key is {KEY}.").until_done()
    body = json.loads(lines(path)[0]["request"]["body"])
    hidden = "*" * len(KEY)
    assert body["messages"][0]["content"] == f"{PROMPT} My key is {hidden}."
    assert KEY not in path.read_text("utf-8")


@pytest.mark.parametrize(
    "quote",
    [PROMPT, PROMPT[5:50], json.dumps(PROMPT)[1:-1], f"x{PROMPT}"],
)
@pytest.mark.parametrize("size", [None, 1, 9])
def test_an_error_that_quotes_the_prompt_is_recorded_without_it(
    recorded, path, quote, size
):
    error = {"error": {"message": f"Too long: {quote!s}!", "code": "odd"}}
    script = Script(status=400, error=error, rechunk=size, framing="chunked")
    recorded(script)
    (body,) = bodies(path)
    assert b"4711" not in body
    assert json.loads(body)["error"]["code"] == "odd"


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"content": "\\ud83d one that has no other half"}',
        b"\xff what is no text, and long enough to be quoted",
    ],
)
def test_a_body_that_cannot_be_read_does_not_disturb(body):
    discretion = Discretion({}, body)
    discretion.begin(is_answer=False)
    assert list(discretion.take(0.0, b"said: one that has no other half")) == []
    ((_, hidden),) = discretion.rest()
    assert len(hidden) == 32
    assert (b"no other" in hidden) == (b"other" not in body)


@given(
    text=st.text("ab ", max_size=80),
    quotes=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)), max_size=3),
)
def test_any_quote_that_is_long_enough_is_hidden(text, quotes):
    said = "|".join(text[start:end] for start, end in quotes)
    discretion = Discretion({}, json.dumps({"content": text}).encode())
    discretion.begin(is_answer=False)
    list(discretion.take(0.0, said.encode()))
    hidden = b"".join(data for _, data in discretion.rest()).decode()
    kept = [
        said[at : at + 24] for at in range(len(said)) if "*" not in hidden[at : at + 24]
    ]
    assert not [piece for piece in kept if len(piece) == 24 and piece in text]
    # Nothing else is: what is hidden lies in something that the prompt holds.
    for part, shown in zip(said.split("|"), hidden.split("|"), strict=True):
        assert len(part) >= 24 or part in (text, shown) or text in part


def test_a_prompt_of_megabytes_is_looked_through_without_holding_its_pieces():
    prompt = random.Random(0).randbytes(3_000_000).hex()
    body = json.dumps({"content": prompt}).encode()
    discretion = Discretion({}, body)
    discretion.begin(is_answer=False)
    list(discretion.take(0.0, b"x" * 60_000 + prompt[999_999:1_000_029].encode()))
    tracemalloc.start()
    (piece,) = discretion.rest()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert piece == (0.0, b"x" * 60_000 + b"*" * 30)
    # Every piece of it would be half a gigabyte.
    assert peak < 100_000_000


def test_an_error_keeps_what_is_not_secret(recorded, path):
    before = recorded(Script(status=401))
    assert before == ("", AuthenticationError)
    (body,) = bodies(path)
    assert json.loads(body)["error"]["code"] == "invalid_api_key"


def test_headers_that_a_client_needs_are_kept(recorded, path):
    needed = {
        "Retry-After": "2",
        "x-ratelimit-reset-requests": "3s",
        "X-Request-ID": "req_1",
        "x-should-retry": "true",
    }
    recorded(Script(status=429, headers={**needed, "X-Account": "acme-4711"}))
    headers = lines(path)[0]["headers"]
    assert {name.lower(): value for name, value in needed.items()}.items() <= (
        headers.items()
    )
    assert headers["x-account"] == "***"
    with replay(path) as again:
        response = requests.get(again.base_url, timeout=20)
    assert response.headers["Retry-After"] == "2"
    assert "x-account" not in response.headers


@pytest.mark.parametrize(
    ("headers", "secret"),
    [
        ({"Cookie": "session=4711-0815-4711; theme=dark"}, "session=4711-0815-4711"),
        ({"Cookie": "session=4711-0815-4711; theme=dark"}, "4711-0815-4711"),
        ({"X-Passphrase": "correct horse battery"}, "correct"),
        ({"X-Session": "abcdef"}, "abcdef"),
        ({"Authorization": "Basic dXNlcjpwdw=="}, "dXNlcjpwdw=="),
    ],
)
def test_every_word_of_a_secret_header_is_one(headers, secret):
    discretion = Discretion(headers, None)
    hidden = discretion.hide(f"Basic: {secret}!".encode())
    assert hidden == f"Basic: {'*' * len(secret)}!".encode()


@pytest.mark.parametrize(
    ("query", "secrets"),
    [
        ("key=AIzaSecret", ["AIzaSecret"]),
        ("a=b&api%5Fkey=AIza%2FSecret", ["AIza%2FSecret", "AIza/Secret"]),
        ("q=a-long-value-of-any-name", ["a-long-value-of-any-name"]),
    ],
)
def test_a_key_in_the_url_is_hidden_where_it_is_repeated(path, query, secrets):
    said = f"no such page: /v1/feed?{query} ({' '.join(secrets)})"
    with (
        Simulator(script=Script(status=404, error=said.encode())) as simulator,
        record(path),
        Client(KEY, base_url=simulator.base_url) as client,
    ):
        url = f"{simulator.base_url}/chat/completions?{query}"
        source = client.event_source(url, method="POST", json=BODY)
        with pytest.raises(NotFound):
            next(source)
    (body,) = bodies(path)
    assert b"no such page: /v1/feed?" in body
    assert not [each for each in secrets if each.encode() in body]


def test_a_word_in_a_url_is_no_secret():
    discretion = Discretion({}, None, "https://example.com/?q=created&key=x&odd=[")
    assert discretion.hide(b"created x [") == b"created x ["
    assert Discretion({}, None, "https://[").hide(b"created") == b"created"


def test_a_word_in_a_header_is_no_secret(path):
    with (
        Simulator(text=TEXT) as simulator,
        record(path),
        Client(KEY, base_url=simulator.base_url, model="m") as client,
    ):
        client.stream(
            PROMPT, extra_headers={"X-Env": "created", "X-Token": "object"}
        ).until_done()
    (body,) = bodies(path)
    assert b'"created"' in body
    assert b'"object"' not in body


def test_only_its_owner_can_read_it(recorded, path):
    recorded(Script())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_only_its_owner_can_read_it_even_where_a_file_was(recorded, path):
    path.write_text("what was there before\n" * 9999, "utf-8")
    path.chmod(0o644)
    recorded(Script())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "before" not in path.read_text("utf-8")


def test_what_is_no_file_keeps_its_mode():
    before = Path("/dev/null").stat().st_mode
    with record("/dev/null"):
        pass
    assert Path("/dev/null").stat().st_mode == before


# Whose connections are recorded, and that nothing else changes.


def test_other_threads_are_not_recorded(path):
    with Simulator(text=TEXT) as simulator:
        with record(path):
            thread = threading.Thread(target=ask, args=[simulator.base_url])
            thread.start()
            thread.join()
            ask(simulator.base_url)
        ask(simulator.base_url)
        assert len(simulator.requests) == 3
    assert {line["n"] for line in lines(path)} == {1}


def test_a_stream_that_outlives_the_recording_goes_on_unrecorded(path):
    with (
        Simulator(text=TEXT) as simulator,
        Client(KEY, base_url=simulator.base_url, model="m") as client,
    ):
        with record(path):
            stream = client.stream(PROMPT).open()
        size = path.stat().st_size
        assert stream.get_final_text() == TEXT
    assert path.stat().st_size == size
    assert observing.observer.get() is None


def test_a_generator_may_record_and_be_left_in_another_thread(path):
    """As a view does whose server closes it elsewhere."""
    with Simulator(text=TEXT) as simulator:

        def view():
            with record(path):
                yield ask(simulator.base_url)

        generator = view()
        assert next(generator) == (TEXT, None)
        thread = threading.Thread(target=generator.close)
        thread.start()
        thread.join()
        size = path.stat().st_size
        # What it left behind here records nothing any more.
        assert ask(simulator.base_url) == (TEXT, None)
        assert path.stat().st_size == size
        observing.observer.set(None)


def test_a_full_disk_ends_the_recording_and_not_the_stream(path):
    with Simulator(text=TEXT) as simulator:
        recording = record("/dev/full")
        recording.__enter__()
        assert ask(simulator.base_url) == (TEXT, None)
        with pytest.warns(RuntimeWarning, match=r"/dev/full is not whole: .*No space"):
            recording.__exit__(None, None, None)


def test_a_line_that_is_not_whole_ends_the_recording(path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Simulator(text=TEXT) as simulator:
        recording = record(path)
        recording.__enter__()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            assert ask(simulator.base_url) == (TEXT, None)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        with pytest.warns(RuntimeWarning, match="is not whole: the disk is full"):
            recording.__exit__(None, None, None)
    assert path.stat().st_size == 100


def test_a_file_that_cannot_be_opened_is_told_at_once(tmp_path):
    recording = record(tmp_path / "missing" / "stream.jsonl")
    with pytest.raises(FileNotFoundError):
        recording.__enter__()
    assert observing.observer.get() is None


def test_nothing_is_left_open(recorded):
    with nothing_left_behind():
        recorded(Script())


# Files that are not whole, or not ours.


def test_a_recording_of_a_killed_program_is_served_as_far_as_it_goes(recorded, path):
    recorded(Script(rechunk=50, pace=0.002))
    whole = path.read_bytes()
    texts = set()
    timeouts = dataclasses.replace(IMPATIENT, first_token=0.5)
    for end in range(whole.index(b"\n") + 1, len(whole), 997):
        path.write_bytes(whole[:end])
        with replay(path) as again:
            texts.add(ask(again.base_url, timeout=timeouts)[0])
    assert len(texts) > 1
    assert all(TEXT.startswith(text) for text in texts)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "holds no recorded connection"),
        ("not JSON\n", ":1 is no line of a recording"),
        ('{"n":1,"t":0,"text":"a"}\n{"n":1}\n', ":2 is no line"),
        ('{"n":1,"t":0,"end":"odd"}\n', ":1 is no line"),
        ('{"n":1,"t":0,"base64":"?"}\n', ":1 is no line"),
        ('{"n":1,"t":0,"status":"odd","headers":{}}\n', ":1 is no line"),
        ("[]\n", ":1 is no line"),
        ("[" * 100_000 + "\n", ":1 is no line"),
        ("\udcff\n", ":1 is no line"),
        ('{"n":1,"t":0,"text":"a"}\n{"n":"b","t":0,"text":"a"}\n', ":2 is no line"),
        ('{"n":1,"t":NaN,"text":"a"}\n', ":1 is no line"),
        ('{"n":1,"t":-1,"text":"a"}\n', ":1 is no line"),
        ('{"n":1,"t":0,"status":99999,"headers":{}}\n', ":1 is no line"),
        ('{"n":1,"t":0,"status":200,"headers":{"a":"b\\r\\nc: d"}}\n', ":1 is no"),
        ('{"n":1,"t":0,"status":200,"headers":{"a:b":"c"}}\n', ":1 is no line"),
    ],
)
def test_what_is_no_recording_is_refused(path, content, complaint):
    path.write_text(content, "utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=complaint):
        replay(path)


def test_a_number_in_a_header_is_sent_as_it_is(path):
    head = '{"n":1,"t":0,"status":200,"headers":{"content-length":2}}\n'
    path.write_text(f'{head}{{"n":1,"t":0,"text":"ab"}}\n', "utf-8")
    with replay(path) as server:
        assert requests.get(server.base_url, timeout=20).text == "ab"


@pytest.mark.parametrize("speed", [0, -1, float("inf"), float("nan")])
def test_a_speed_is_positive(recorded, path, speed):
    recorded(Script())
    with pytest.raises(ValueError, match="speed must be a positive number or None"):
        replay(path, speed)


def test_a_missing_file_is_told(path):
    with pytest.raises(FileNotFoundError):
        replay(path)
