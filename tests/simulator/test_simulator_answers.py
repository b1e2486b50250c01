"""What a healthy simulator answers: OpenAI's shapes, from a pure function."""

import json

import pytest
from simulator_client import (
    dial,
    events,
    fetch,
    question,
    read_all,
    read_one,
    request_bytes,
    text_of,
)

from holystream.simulator import Script

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "unit": {"type": "string", "enum": ["C", "F"]},
                },
            },
        },
    },
    {"type": "function", "function": {"name": "time"}},
]


def answered(sim, body, **headers):
    got = fetch(sim, body, **headers)
    assert got.status == 200
    assert got.whole
    return events(got.body)


def test_the_body_is_the_one_foretold(sim):
    body = question(stream_options={"include_usage": True})
    assert fetch(sim, body).body == sim.body(body)


def test_chunks_look_like_openais(sim):
    chunks = answered(sim, question())
    first, second, *_, last = chunks
    assert list(first)[:5] == ["id", "object", "created", "model", "system_fingerprint"]
    assert first["object"] == "chat.completion.chunk"
    assert first["model"] == "m"
    assert first["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": "", "refusal": None},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
    assert list(second["choices"][0]["delta"]) == ["content"]
    assert last["choices"][0]["delta"] == {}
    assert last["choices"][0]["finish_reason"] == "stop"
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert not any("usage" in chunk for chunk in chunks)
    assert all("obfuscation" in chunk for chunk in chunks)
    assert fetch(sim).body.endswith(b"\n\ndata: [DONE]\n\n")


def logprobs_of(chunks):
    return [
        token
        for chunk in chunks
        for token in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]
    ]


@pytest.mark.parametrize("most", [0, 1, 3])
def test_logprobs_come_if_they_are_asked_for(sim, most):
    body = question(model="sim-reasoner", logprobs=True, top_logprobs=most)
    tokens = logprobs_of(answered(sim, body))
    assert "".join(token["token"] for token in tokens) == sim.answer(body).text
    for token in tokens:
        assert bytes(token["bytes"]).decode() == token["token"]
        assert -1 <= token["logprob"] <= 0
        top = token["top_logprobs"]
        assert len(top) == most
        assert {**token, "top_logprobs": None} == {
            **(top[0] if top else token),
            "top_logprobs": None,
        }
        assert [one["logprob"] for one in top] == sorted(
            (one["logprob"] for one in top), reverse=True
        )
    whole = json.loads(fetch(sim, {**body, "stream": False}).body)
    assert whole["choices"][0]["logprobs"]["content"] == tokens
    assert not logprobs_of(answered(sim, question()))


def test_half_a_character_has_logprobs_but_no_bytes(sim):
    sim.play(Script(split_surrogates=True))
    tokens = logprobs_of(answered(sim, question("echo:🚀", logprobs=True)))
    assert [token["token"] for token in tokens] == ["\ud83d", "\ude80"]
    assert [token["bytes"] for token in tokens] == [None, None]


def test_padding_can_be_switched_off(sim):
    options = {"include_obfuscation": False}
    chunks = answered(sim, question(stream_options=options))
    assert not any("obfuscation" in chunk for chunk in chunks)


def test_the_text_is_hard_to_carry(simulate):
    sim = simulate(length=2000)
    answer = sim.answer(question())
    body = sim.body(question())
    assert answer.text == text_of(events(body))
    assert all(1 <= len(delta) <= 8 for delta in answer.deltas)
    assert 1900 <= len(answer.deltas) <= 2100
    assert "\n" in answer.text
    assert "\u2028" in answer.text
    assert max(answer.text) > "\uffff"
    assert "\u2028".encode() in body
    assert b"\\u2028" in body
    assert b"\\ud83d\\u" in body
    assert "🚀".encode() in body


def test_usage_comes_last_when_asked_for(sim):
    body = question(stream_options={"include_usage": True})
    *chunks, last = answered(sim, body)
    assert last["choices"] == []
    assert last["usage"] == sim.answer(body).usage
    assert last["usage"]["completion_tokens"] == len(sim.answer(body).deltas)
    assert all(chunk["usage"] is None for chunk in chunks)


def test_temperature_0_and_a_seed_give_the_same_again(sim, simulate):
    for body in (question(), question(temperature=1, seed=7)):
        first, second = answered(sim, body), answered(sim, body)
        assert first == second
        assert first == answered(simulate(), body)
    assert answered(sim, question(temperature=1, seed=8)) != second
    assert answered(sim, question("else")) != answered(sim, question())
    assert answered(sim, question(model="n")) != answered(sim, question())


def test_sampling_gives_something_else_each_time(sim):
    body = question(temperature=None)
    foretold = [sim.answer(body, sample).text for sample in range(3)]
    assert len(set(foretold)) == 3
    assert sim.answer(body).text == foretold[0]
    for text in foretold:
        assert text_of(answered(sim, body)) == text
        # What is asked in between does not count.
        answered(sim, question("else", temperature=None))


def test_a_refused_request_takes_no_sample(sim):
    body = question(temperature=None)
    sim.play(Script(status=503))
    fetch(sim, body)
    assert text_of(answered(sim, body)) == sim.answer(body, 0).text


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_max_tokens_cuts_the_same_text_short(sim, field):
    whole = sim.answer(question())
    chunks = answered(sim, question(**{field: 9}))
    assert text_of(chunks) == "".join(whole.deltas[:9])
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert sim.answer(question(**{field: 10_000})) == whole


def test_echo_is_verbatim(sim):
    text = ' a\u2028b\r\n"\\ 👩‍🚀 \ud83d'
    assert text_of(answered(sim, question("echo:" + text))) == text
    parts = [{"type": "text", "text": "echo:"}, {"type": "text", "text": "hi"}]
    body = question()
    body["messages"] = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "echo:no"},
    ]
    assert text_of(answered(sim, body)) == "hi"


def test_no_user_message_is_no_trouble(sim):
    body = {**question(), "messages": [{"role": "system", "content": "x"}]}
    assert sim.answer(body).text


def test_a_fixed_text(simulate):
    assert simulate(text="fixed").answer(question()).text == "fixed"
    sim = simulate(text=lambda body: body["model"] * 3)
    assert text_of(answered(sim, question())) == "mmm"


def test_a_text_function_that_fails_is_told_to_the_client(simulate):
    def text(body):
        raise LookupError(body["model"])

    got = fetch(simulate(text=text))
    assert got.status == 500
    assert "LookupError" in json.loads(got.body)["error"]["message"]


def test_a_reasoner_thinks_first(sim):
    body = question(model="sim-reasoner")
    chunks = answered(sim, body)
    answer = sim.answer(body)
    assert text_of(chunks, key="reasoning_content") == answer.reasoning
    assert text_of(chunks) == answer.text
    kinds = [list(chunk["choices"][0]["delta"]) for chunk in chunks[1:-1]]
    assert kinds == sorted(kinds, reverse=True)
    short = sim.answer({**body, "max_tokens": 10})
    assert (len(short.deltas), short.finish_reason) == (0, "length")
    whole = json.loads(fetch(sim, {**body, "stream": False}).body)
    assert whole["choices"][0]["message"]["reasoning_content"] == answer.reasoning
    details = answer.usage["completion_tokens_details"]
    assert details["reasoning_tokens"] == len(answer.choices[0].reasoning_deltas)


def test_several_choices_are_interleaved(sim):
    body = question(n=3)
    chunks = answered(sim, body)
    texts = [text_of(chunks, index) for index in range(3)]
    assert texts == [choice.text for choice in sim.answer(body).choices]
    assert len(set(texts)) == 3
    assert [chunk["choices"][0]["index"] for chunk in chunks[:6]] == [0, 1, 2] * 2
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons.count("stop") == 3


def calls_of(chunks):
    calls = {}
    for chunk in chunks:
        for part in chunk["choices"][0]["delta"].get("tool_calls", []):
            call = calls.setdefault(part["index"], {"arguments": ""})
            call |= {key: part[key] for key in ("id", "type") if key in part}
            call["arguments"] += part["function"]["arguments"]
            call["name"] = part["function"].get("name", call.get("name"))
    return calls


def test_tools_are_called_as_the_prompt_says(sim):
    arguments = '{"city": "Zürich", "x": {"y": "🚀"}}'
    body = question(f"please call:weather {arguments} and call:time", tools=TOOLS)
    chunks = answered(sim, body)
    calls = calls_of(chunks)
    assert [call["name"] for call in calls.values()] == ["weather", "time"]
    assert [call["arguments"] for call in calls.values()] == [arguments, "{}"]
    assert all(call["type"] == "function" for call in calls.values())
    assert calls[0]["id"] != calls[1]["id"]
    assert chunks[0]["choices"][0]["delta"]["content"] is None
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert len(sim.answer(body).tool_calls[0].deltas) > 3
    assert text_of(chunks) == ""


def test_broken_arguments_in_a_prompt_are_none(sim):
    body = question("call:weather {nonsense", tools=TOOLS)
    assert sim.answer(body).tool_calls[0].arguments == "{}"


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ("required", "weather"),
        ({"type": "function", "function": {"name": "weather"}}, "weather"),
        ({"type": "function", "function": {"name": "time"}}, "time"),
        ({"type": "function", "function": {"name": "else"}}, "else"),
    ],
)
def test_a_forced_tool_gets_plausible_arguments(sim, choice, name):
    body = question(tools=TOOLS, tool_choice=choice)
    (call,) = calls_of(answered(sim, body)).values()
    assert call["name"] == name
    arguments = json.loads(call["arguments"])
    if name == "weather":
        assert isinstance(arguments["city"], str)
        assert isinstance(arguments["days"], int)
        assert arguments["unit"] == "C"
    whole = json.loads(fetch(sim, {**body, "stream": False}).body)["choices"][0]
    assert whole["message"]["tool_calls"][0]["function"]["name"] == name
    assert whole["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("fields", [{}, {"tools": TOOLS, "tool_choice": "none"}])
def test_no_call_without_tools(sim, fields):
    assert sim.answer(question("call:weather {}", **fields)).tool_calls == ()
    assert not sim.answer(question("hello", tools=TOOLS)).tool_calls


def test_an_answer_in_one_piece(sim):
    body = question(stream=False, n=2)
    got = fetch(sim, body)
    assert got.headers["content-type"] == "application/json"
    assert int(got.headers["content-length"]) == len(got.body)
    value = json.loads(got.body)
    assert value["object"] == "chat.completion"
    texts = [choice["message"]["content"] for choice in value["choices"]]
    assert texts == [choice.text for choice in sim.answer(body).choices]
    assert value["usage"] == sim.answer(body).usage


def test_connections_are_kept(sim):
    with dial(sim) as sock:
        for _ in range(3):
            sock.sendall(request_bytes(question()))
            got = read_one(sock)
            assert got.headers["connection"] == "keep-alive"
            assert got.body == sim.body(question())
        sock.sendall(request_bytes(question(), Connection="close"))
        got = read_all(sock)
        assert (got.headers["connection"], got.end) == ("close", "fin")
    assert sim.connections == 1
    assert [request.connection for request in sim.requests] == [1] * 4


def test_pipelined_requests_are_answered_in_turn(sim):
    with dial(sim) as sock:
        sock.sendall(
            request_bytes(question("one", stream=False))
            + request_bytes(question("two", stream=False), Connection="close")
        )
        raw = read_all(sock).raw
    texts = [json.dumps(sim.answer(question(text)).text) for text in ("one", "two")]
    assert raw.count(b"HTTP/1.1 200 OK") == 2
    assert raw.index(texts[0].encode()) < raw.index(texts[1].encode())


def test_what_came_is_remembered(sim):
    body = question()
    fetch(sim, body, X_Request_ID="abc")
    fetch(sim, b"\xff", path="/v1/models?x=1", method="GET")
    one, two = sim.requests
    assert (one.method, one.path, one.connection) == ("POST", "/v1/chat/completions", 1)
    assert one.json == body
    assert json.loads(one.body) == body
    assert one.headers["x-request-id"] == one.headers["X-Request-Id"] == "abc"
    assert "X-REQUEST-ID" in one.headers
    assert "abc" not in repr(one.headers)
    assert len(one.headers) == len(list(one.headers))
    assert (two.path, two.route, two.json) == ("/v1/models?x=1", "/v1/models", None)
    assert two.connection == 2
    assert one.at <= two.at


def test_every_response_has_its_own_id(sim):
    ids = {fetch(sim).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


def test_request_bodies_may_come_in_chunks(sim):
    data = json.dumps(question()).encode()
    chunks = b"".join(
        b"%x;e=1\r\n%b\r\n" % (1, data[i : i + 1]) for i in range(len(data))
    )
    with dial(sim) as sock:
        sock.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nExpect: 100-continue\r\n"
            b"Transfer-Encoding: chunked\r\nA: 1\r\na: 2\r\n\r\n"
        )
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(chunks + b"0\r\nTrailer: x\r\n\r\n")
        assert read_one(sock).body == sim.body(question())
    assert sim.requests[0].body == data
    assert sim.requests[0].headers["a"] == "1, 2"


def test_models(sim):
    def get(path):
        got = fetch(sim, b"", path=path, method="GET")
        return got.status, json.loads(got.body)

    status, listed = get("/v1/models")
    assert (status, listed["object"]) == (200, "list")
    first = listed["data"][0]
    assert get(f"/v1/models/{first['id']}") == (200, first)
    assert get("/v1/models/none")[0] == 404


@pytest.mark.parametrize(
    ("body", "options", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        ({"messages": [{}]}, {}, 400),
        ({"model": "m"}, {}, 400),
        ({"model": "m", "messages": ["hi"]}, {}, 400),
        (b"", {"path": "/v2/nothing"}, 404),
        (b"", {"path": "/v1/models"}, 405),
        (b"", {"method": "GET"}, 405),
    ],
)
def test_bad_requests_get_openais_errors(sim, body, options, status):
    got = fetch(sim, body, **options)
    assert got.status == status
    assert got.headers["content-type"] == "application/json"
    error = json.loads(got.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100_000,
    ],
)
def test_what_is_not_http_is_refused(sim, data):
    with dial(sim) as sock:
        sock.sendall(data)
        got = read_all(sock)
    assert got.status == 400
    assert not sim.requests


def test_old_http_closes(sim):
    with dial(sim) as sock:
        sock.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert read_all(sock).end == "fin"


def test_keys_are_checked_when_there_are_any(simulate):
    sim = simulate(api_keys=("sk-right-key", "sk-other"))
    for key in ("sk-right-key", "sk-other"):
        assert fetch(sim, Authorization=f"Bearer {key}").status == 200
    for header in ("Bearer sk-wrong-long-key", "Bearer x", "Basic abc", "Bearer", ""):
        got = fetch(sim, Authorization=header)
        assert got.status == 401
        error = json.loads(got.body)["error"]
        assert error["code"] == "invalid_api_key"
        assert "sk-wrong-long-key" not in error["message"]
    assert fetch(sim, b"", path="/v1/models", method="GET").status == 401
