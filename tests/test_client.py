"""The client: what it refuses before it connects, what it sends, how it is shared."""

import importlib.metadata
import json
import math
import re
import threading
import traceback
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
import tenacity

from holystream import (
    AuthenticationError,
    Client,
    ConfigurationError,
    Endpoint,
    Guarantee,
    HolystreamError,
    InvalidAPIKey,
    InvalidRequest,
    PrioritySemaphore,
    RetryBudget,
    RetryPolicy,
    StreamState,
    Timeouts,
)
from holystream.building import user_agent
from holystream.simulator import Script, Simulator

KEY = "sk-0123456789abcdef"
HELLO = [{"role": "user", "content": "Hello"}]
SECRET = "the launch code is 4711"


def at(simulator, key=KEY, **options):
    defaults = {"base_url": simulator.base_url, "model": "sim"}
    return Client(key, **{**defaults, **options})


BAD_STREAMS = {
    "no prompt": {"prompt": ""},
    "a blank prompt": {"prompt": " \n"},
    "None for a prompt": {"prompt": None},
    "bytes for a prompt": {"prompt": b"Hello"},
    "one message instead of a list": {"prompt": HELLO[0]},
    "a generator of messages": {"prompt": (message for message in HELLO)},
    "no messages": {"prompt": []},
    "a message that is a text": {"prompt": [SECRET]},
    "a message without a role": {"prompt": [{"content": SECRET}]},
    "an unknown role": {"prompt": [{"role": "me", "content": SECRET}]},
    "a message without content": {"prompt": [{"role": "user"}]},
    "content of another type": {"prompt": [{"role": "user", "content": 4711}]},
    "NaN as temperature": {"temperature": math.nan},
    "infinity as temperature": {"temperature": math.inf},
    "a negative temperature": {"temperature": -0.1},
    "a text as temperature": {"temperature": "0"},
    "top_p beyond 1": {"top_p": 1.1},
    "no tokens": {"max_tokens": 0},
    "half a token": {"max_tokens": 0.5},
    "a seed that is none": {"seed": "7"},
    "an empty stop": {"stop": ""},
    "no answers": {"n": 0},
    "tools in a mapping": {"tools": {"type": "function"}},
    "a tool without a name": {"tools": [{"type": "function", "function": {}}]},
    "an unknown priority": {"priority": "urgent"},
    "a priority in a list": {"priority": ["high"]},
    "a stream id with a space": {"stream_id": "my stream"},
    "a stream id with a line break": {"stream_id": "mine\n"},
    "an empty stream id": {"stream_id": ""},
    "a stream id that is too long": {"stream_id": "x" * 129},
    "a number as stream id": {"stream_id": 7},
    "no model": {"model": ""},
    "a header with a line break": {"extra_headers": {"X-A": f"a\r\n{SECRET}"}},
    "a header with a bare line feed": {"extra_headers": {"X-A": "a\nb"}},
    "a header name with a colon": {"extra_headers": {"X-A: b": "c"}},
    "a header name with a line break": {"extra_headers": {"X-A\r\nB": "c"}},
    "an empty header name": {"extra_headers": {"": "c"}},
    "a header of bytes": {"extra_headers": {"X-A": b"c"}},
    "a header that is cut by white space": {"extra_headers": {"X-A": " a"}},
    "a header beyond Latin-1": {"extra_headers": {"X-A": "\u20ac"}},
    "headers in a list": {"extra_headers": [("X-A", "b")]},
    "a key of one's own": {"extra_headers": {"authorization": "Bearer x"}},
    "a host of one's own": {"extra_headers": {"Host": "elsewhere"}},
    "a length of one's own": {"extra_headers": {"Content-Length": "1"}},
    "messages in the extra body": {"extra_body": {"messages": HELLO}},
    "a stream that is none": {"extra_body": {"stream": False}},
    "an extra body in a list": {"extra_body": [1]},
    "an extra body that is not JSON": {"extra_body": {"a": {1, 2}}},
    "NaN in the extra body": {"extra_body": {"a": math.nan}},
}

BAD_SETTINGS = {
    "a negative timeout": {"timeout": -1},
    "no timeout at all": {"timeout": 0},
    "an endless timeout": {"timeout": math.inf},
    "a text as timeout": {"timeout": "5"},
    "True as timeout": {"timeout": True},
    "a timeout in three parts": {"timeout": (1, 2, 3)},
    "half a timeout": {"timeout": (1, -2)},
    "a negative deadline": {"deadline": -5},
    "a deadline that is no number": {"deadline": "soon"},
    "a tenacity object as policy": {"retry": tenacity.Retrying()},
    "a tenacity stop as policy": {"retry": tenacity.stop_after_attempt(3)},
    "a number as policy": {"retry": 3},
    "an unknown way to resume": {"resume": ("rewind",)},
    "a text as ways to resume": {"resume": "replay"},
    "a number as ways to resume": {"resume": 3},
    "lists as ways to resume": {"resume": [["replay"]]},
    "a text as guarantee": {"min_guarantee": "REPLAYED"},
    "a number as guarantee": {"min_guarantee": 5},
}

BAD_CLIENTS = {
    **BAD_SETTINGS,
    "an unknown provider": {"provider": "openhai"},
    "a provider that is no name": {"provider": 5},
    "a number as pool": {"pool": 10},
    "a base URL without a scheme": {"base_url": "api.holysheep.ai/v1"},
    "a base URL with another scheme": {"base_url": "ftp://api.holysheep.ai/v1"},
    "a base URL without a host": {"base_url": "https:///v1"},
    "a base URL with a query": {"base_url": "https://api.holysheep.ai/v1?a=b"},
    "a base URL with a password": {"base_url": f"https://me:{SECRET}@host/v1"},
    "an empty base URL": {"base_url": ""},
    "bytes as base URL": {"base_url": b"https://host/v1"},
    "plain HTTP to another host": {"base_url": "http://example.com/v1"},
    "no base URL where one is needed": {
        "provider": "openai-compatible",
        "base_url": None,
    },
}

BAD_KEYS = {
    "an empty key": "",
    "a key with a newline": f"{KEY}\n",
    "a key with a newline inside": "sk-0123\n4567",
    "a key in quotes": f'"{KEY}"',
    "a key with Bearer": f"Bearer {KEY}",
    "a placeholder": "YOUR_HOLYSHEEP_API_KEY",
    "a variable that was not replaced": "$HOLYSHEEP_API_KEY",
    "a key with a space": "sk-0123 4567",
    "a key beyond ASCII": "sk-0123456789äöü",
    "bytes as key": KEY.encode(),
}


class TestBadInput:
    """Each mistake is named at once, and nothing is sent."""

    @pytest.mark.parametrize("name", BAD_STREAMS)
    def test_a_wrong_request(self, simulator, client, name):
        arguments = {"prompt": "Hello", **BAD_STREAMS[name]}
        with pytest.raises(InvalidRequest) as caught:
            client.stream(arguments.pop("prompt"), **arguments)
        assert_clear(caught.value)
        (argument,) = BAD_STREAMS[name]
        named = {"prompt": r"prompt|messages\[", "extra_body": "extra_body|^a "}
        assert re.search(named.get(argument, argument), str(caught.value))
        assert simulator.connections == 0

    @pytest.mark.parametrize("name", BAD_SETTINGS)
    def test_a_wrong_setting_of_a_stream(self, simulator, client, name):
        with pytest.raises(ConfigurationError) as caught:
            client.stream("Hello", **BAD_SETTINGS[name])
        assert_clear(caught.value)
        with pytest.raises(ConfigurationError, match=re.escape(str(caught.value))):
            client.with_options(**BAD_SETTINGS[name])
        assert simulator.connections == 0

    @pytest.mark.parametrize("name", BAD_CLIENTS)
    def test_a_wrong_client(self, simulator, name):
        options = {"base_url": simulator.base_url, **BAD_CLIENTS[name]}
        with pytest.raises(ConfigurationError) as caught:
            Client(KEY, **options)
        assert_clear(caught.value)
        (argument, *_) = BAD_CLIENTS[name]
        assert argument in str(caught.value) or argument == "provider"

    @pytest.mark.parametrize("name", BAD_KEYS)
    def test_a_wrong_key(self, simulator, monkeypatch, name):
        key = BAD_KEYS[name]
        with pytest.raises(InvalidAPIKey, match="api_key=") as caught:
            Client(key, base_url=simulator.base_url)
        assert_clear(caught.value)
        if isinstance(key, str) and key:
            monkeypatch.setenv("HOLYSHEEP_API_KEY", key)
            with pytest.raises(InvalidAPIKey, match="HOLYSHEEP_API_KEY") as caught:
                Client(provider="holysheep", base_url=simulator.base_url)
            assert_clear(caught.value)

    def test_a_retry_object_of_tenacity_is_told_where_to_go(self, client):
        with pytest.raises(ConfigurationError, match=r"RetryPolicy\(wait="):
            client.stream("Hello", retry=tenacity.wait_fixed(1))

    def test_a_stream_without_a_model_anywhere(self, simulator):
        with (
            at(simulator, model=None) as client,
            pytest.raises(InvalidRequest, match="model"),
        ):
            client.stream("Hello")


def assert_clear(error):
    assert isinstance(error, HolystreamError)
    assert isinstance(error, ValueError)
    assert len(str(error)) > 20
    assert KEY not in str(error)
    assert SECRET not in str(error)
    assert error.__cause__ is None


class TestKeys:
    def test_from_the_argument(self, simulator, monkeypatch):
        monkeypatch.setenv("HOLYSHEEP_API_KEY", "sk-from-the-environment")
        with at(simulator) as client:
            client.stream("Hello").until_done()
        assert simulator.requests[0].headers["authorization"] == f"Bearer {KEY}"

    def test_from_the_environment(self, simulator, monkeypatch):
        monkeypatch.setenv("HOLYSHEEP_API_KEY", "sk-from-the-environment")
        with at(simulator, key=None, provider="holysheep") as client:
            client.stream("Hello").until_done()
        (request,) = simulator.requests
        assert request.headers["authorization"] == "Bearer sk-from-the-environment"

    def test_the_key_of_the_default_provider_stays_with_it(
        self, simulator, monkeypatch
    ):
        monkeypatch.setenv("HOLYSHEEP_API_KEY", "sk-from-the-environment")
        monkeypatch.delenv("HOLYSTREAM_API_KEY", raising=False)
        with at(simulator, key=None) as client:
            client.stream("Hello").until_done()
        (request,) = simulator.requests
        assert "authorization" not in request.headers

    @pytest.mark.parametrize("key", ["Bearer sk-shown-9f2c", "sk-shown-9f2c\n", 5])
    def test_a_refused_key_is_in_no_variable_of_the_traceback(self, key):
        with pytest.raises(InvalidAPIKey) as caught:
            Client(key)
        shown = traceback.TracebackException.from_exception(
            caught.value, capture_locals=True
        )
        frames = [frame for frame in shown.stack if "/holystream/" in frame.filename]
        assert frames
        assert not any("9f2c" in str(frame.locals) for frame in frames)

    def test_a_client_that_could_not_be_made_can_be_shown(self):
        with pytest.raises(ConfigurationError) as caught:
            Client("sk-abcdefgh1234", timeout="5")
        shown = traceback.TracebackException.from_exception(
            caught.value, capture_locals=True
        )
        assert "<Client>" in str([frame.locals for frame in shown.stack])
        assert "sk-abcdefgh1234" not in str([f.locals for f in shown.stack[1:]])

    def test_a_ca_bundle_that_does_not_exist_is_told_at_once(self):
        with pytest.raises(ConfigurationError, match=r"verify=.*no-such\.pem"):
            Client("sk-abcdefgh1234", verify="no-such.pem")

    @pytest.mark.parametrize("value", [None, ""])
    def test_none_at_all_names_the_variable(self, monkeypatch, value):
        monkeypatch.delenv("HOLYSHEEP_API_KEY", raising=False)
        if value is not None:
            monkeypatch.setenv("HOLYSHEEP_API_KEY", value)
        with pytest.raises(InvalidAPIKey, match=r"HOLYSHEEP_API_KEY or pass api_key="):
            Client()

    def test_a_server_of_ones_own_needs_none(self, simulator, monkeypatch):
        monkeypatch.delenv("HOLYSTREAM_API_KEY", raising=False)
        options = {"provider": "openai-compatible", "base_url": simulator.base_url}
        with Client(model="sim", **options) as client:
            client.stream("Hello").until_done()
        assert "authorization" not in simulator.requests[0].headers

    def test_plain_http_needs_a_word(self):
        url = "http://gateway.internal/v1"
        with pytest.raises(ConfigurationError, match="allow_http=True"):
            Client(KEY, base_url=url)
        Client(KEY, base_url=url, allow_http=True).close()
        Client(provider="openai-compatible", base_url=url).close()

    @pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
    def test_plain_http_to_this_machine_needs_none(self, host):
        Client(KEY, base_url=f"http://{host}:8000/v1").close()

    def test_it_is_shown_nowhere(self, simulator):
        with at(simulator) as client:
            stream = client.stream(SECRET)
            shown = f"{client!r} {stream!r} {client.pool!r}"
        assert KEY not in shown
        assert SECRET not in shown
        assert simulator.base_url in shown


class TestWhatIsSent:
    def sent(self, simulator, client, prompt="Hello", **options):
        client.stream(prompt, **options).until_done()
        return simulator.requests[-1]

    def test_a_text_is_a_message_of_the_user(self, simulator, client):
        request = self.sent(simulator, client)
        assert (request.method, request.path) == ("POST", "/v1/chat/completions")
        assert request.json == {
            "model": "sim",
            "messages": HELLO,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def test_every_argument_has_its_field(self, simulator, client):
        tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
        fields = {
            "temperature": 0.5,
            "top_p": 0.9,
            "max_tokens": 7,
            "seed": 4711,
            "stop": ["\n"],
            "n": 2,
            "tools": tools,
            "tool_choice": "none",
            "response_format": {"type": "text"},
        }
        body = self.sent(simulator, client, model="other", **fields).json
        assert body["model"] == "other"
        assert {key: body[key] for key in fields} == fields

    def test_messages_go_as_they_are(self, simulator, client):
        messages = [
            {"role": "system", "content": "Sei höflich 🙂"},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "me"},
        ]
        assert self.sent(simulator, client, messages).json["messages"] == messages

    def test_messages_that_change_later_do_not_change_the_request(
        self, simulator, client
    ):
        messages = [dict(HELLO[0])]
        stream = client.stream(messages, temperature=0)
        messages[0]["content"] = "changed"
        messages.append(dict(HELLO[0]))
        simulator.play(Script(cut_at=2000))
        stream.until_done()
        bodies = [json.loads(request.body) for request in simulator.requests]
        assert len(bodies) == 2
        assert all(body["messages"] == HELLO for body in bodies)

    def test_the_extra_body_adds_replaces_and_removes(self, simulator, client):
        extra = {"top_k": 5, "temperature": 1, "stream_options": None}
        body = self.sent(simulator, client, temperature=0, extra_body=extra).json
        assert (body["top_k"], body["temperature"]) == (5, 1)
        assert "stream_options" not in body

    def test_a_copy_that_was_not_installed_sends_no_version(
        self, simulator, monkeypatch
    ):
        def version(name):
            raise importlib.metadata.PackageNotFoundError(name)

        user_agent.cache_clear()
        monkeypatch.setattr(importlib.metadata, "version", version)
        try:
            with at(simulator) as client:
                headers = self.sent(simulator, client).headers
        finally:
            user_agent.cache_clear()
        assert headers["user-agent"] == "holystream"

    def test_the_headers(self, simulator, client):
        headers = self.sent(simulator, client, extra_headers={"X-Trace": "7"}).headers
        version = importlib.metadata.version("holystream")
        assert headers["accept"] == "text/event-stream"
        assert headers["accept-encoding"] == "identity"
        assert headers["cache-control"] == "no-cache"
        assert headers["content-type"] == "application/json"
        assert headers["authorization"] == f"Bearer {KEY}"
        assert headers["user-agent"] == f"holystream/{version}"
        assert headers["x-trace"] == "7"
        assert uuid.UUID(headers["x-request-id"])

    def test_each_attempt_has_an_id_of_its_own(self, simulator, client):
        simulator.play(Script(cut_at=2000), Script(cut_at=2000))
        client.stream("Hello", temperature=0).until_done()
        ids = {request.headers["x-request-id"] for request in simulator.requests}
        assert len(ids) == len(simulator.requests) == 3

    def test_a_stream_has_an_id_of_its_own(self, client):
        assert client.stream("Hello").stream_id != client.stream("Hello").stream_id
        assert client.stream("Hello", stream_id="a.b:c-1_").stream_id == "a.b:c-1_"

    def test_a_path_before_the_version_is_kept(self, simulator):
        base_url = simulator.base_url.replace("/v1", "/gateway/v1/")
        with at(simulator, base_url=base_url) as client:
            stream = client.stream("Hello")
            with pytest.raises(HolystreamError):
                stream.open()
        assert simulator.requests[0].path == "/gateway/v1/chat/completions"


class TestOptions:
    def test_what_is_given_is_changed_and_the_rest_stays(self, simulator, client):
        other = client.with_options(model="other", resume=())
        other.stream("Hello").until_done()
        client.stream("Hello").until_done()
        models = [request.json["model"] for request in simulator.requests]
        assert models == ["other", "sim"]

    def test_connections_and_permits_are_shared(self, simulator, client):
        other = client.with_options(timeout=5)
        assert other.pool is client.pool
        client.stream("Hello").until_done()
        other.stream("Hello").until_done()
        assert simulator.connections == 1

    def test_a_pool_of_its_own_bounds_it_and_all_else_is_shared(
        self, simulator, client
    ):
        pool = PrioritySemaphore(1)
        batch = client.with_options(pool=pool)
        again = batch.with_options(model="other")
        assert batch.pool is again.pool is pool
        assert client.pool is not pool
        with batch.stream("Hello").open() as stream:
            assert pool.statistics().in_use == 1
            assert batch.metrics().pool.in_use == 1
            assert client.metrics().pool.in_use == 0
            assert client.metrics().streams.active == 1
            stream.until_done()
        client.stream("Hello").until_done()
        again.stream("Hello").until_done()
        assert simulator.connections == 1
        assert client.metrics().streams == batch.metrics().streams
        assert batch.telemetry is client.telemetry

    def test_a_budget_of_its_own_is_spent_alone(self, simulator):
        spent = RetryBudget(ratio=0, floor=0)
        with at(
            simulator,
            retry=RetryPolicy(attempts=2, base=0.001, cap=0.002),
            retry_budget=spent,
        ) as client:
            batch = client.with_options(retry_budget=RetryBudget(floor=math.inf))
            simulator.play(Script(status=503))
            assert batch.stream("Hello").get_final_completion().attempts == 2
            assert client.metrics().budget.requests == 0
            assert batch.metrics().budget.spent == 1
            simulator.play(Script(status=503))
            with pytest.raises(HolystreamError, match="retry budget is spent"):
                client.stream("Hello").open()
            assert client.metrics().budget == spent.statistics()

    @pytest.mark.parametrize(
        ("floor", "left"),
        [
            (0.18, "1 retry to spend"),
            (0.28, "2 retries to spend"),
            (math.inf, "any number of retries to spend"),
        ],
    )
    def test_how_things_stand_is_told_in_whole_numbers(self, simulator, floor, left):
        budget = RetryBudget(ratio=0, floor=floor)
        with at(simulator, retry_budget=budget) as client:
            for _ in range(2):
                simulator.play(Script(status=400))
                with pytest.raises(HolystreamError):
                    client.stream("Hello").open()
            told = repr(client.metrics())
        assert told.startswith(
            "<ClientMetrics: 2 streams opened, 2 ended (2 errors), 0 reconnects; "
        )
        assert told.endswith(f"; {left}>")

    @pytest.mark.parametrize("option", ["pool", "retry_budget"])
    def test_another_pool_or_budget_has_to_be_one(self, client, option):
        with pytest.raises(ConfigurationError, match=f"{option}= takes a"):
            client.with_options(**{option: 5})

    def test_a_stream_may_differ_from_its_client(self, simulator, client):
        simulator.play(*[Script(status=503)] * 9)
        with pytest.raises(HolystreamError) as caught:
            client.stream("Hello", retry=RetryPolicy(attempts=1)).open()
        assert caught.value.attempts == 1
        with pytest.raises(HolystreamError) as caught:
            client.stream("Hello").open()
        assert caught.value.attempts == 3

    def test_a_subclass_stays_one(self, simulator):
        class Ours(Client):
            pass

        with Ours(KEY, base_url=simulator.base_url) as client:
            assert type(client.with_options(model="a")) is Ours

    def test_everything_can_be_set_once_for_all_streams(self, simulator):
        client = at(
            simulator,
            timeout=Timeouts(idle=5),
            deadline=60,
            retry=RetryPolicy(attempts=2),
            resume=["restart"],
            min_guarantee=Guarantee.RESTARTED,
        )
        simulator.play(Script(cut_at=2000))
        with client:
            completion = client.stream("Hello").get_final_completion()
        assert completion.guarantee is Guarantee.RESTARTED


class TestSharing:
    def test_connections_are_used_again(self, simulator, client):
        for _ in range(5):
            client.stream("Hello").until_done()
        assert simulator.connections == 1

    def test_closing_it_closes_what_is_idle(self, simulator):
        with at(simulator) as client:
            client.stream("Hello").until_done()
            assert simulator.open_connections == 1
        assert simulator.wait_until(lambda: simulator.open_connections == 0)

    def test_an_open_stream_outlives_the_close(self, simulator, client):
        stream = client.stream("Hello", temperature=0).open()
        client.close()
        assert stream.get_final_text()
        assert stream.state is StreamState.DONE

    @pytest.mark.slow
    def test_many_threads_share_one(self, simulator):
        """32 threads, 20 streams each, a quarter of them cut: every text is exact."""
        limit, threads, each = 8, 32, 20
        barrier = threading.Barrier(threads)
        most = []

        def work(number):
            barrier.wait()
            for turn in range(each):
                script = Script(cut_at=3000 + turn) if turn % 4 == 0 else Script()
                prompt = f"{number} {turn}"
                stream = client.stream(
                    prompt,
                    temperature=0,
                    extra_headers={"X-Simulator": str(script)} if turn % 4 == 0 else {},
                    stream_id=f"{number}.{turn}",
                    retry=RetryPolicy(attempts=1),
                )
                try:
                    text = stream.get_final_text()
                except HolystreamError as error:
                    text = error.partial_text
                    assert turn % 4 == 0
                most.append(client.pool.statistics().in_use)
                messages = [{"role": "user", "content": prompt}]
                expected = simulator.answer(
                    {"model": "sim", "messages": messages, "temperature": 0}
                ).text
                assert text == expected if turn % 4 else expected.startswith(text)

        pool = PrioritySemaphore(limit, max_queue=threads)
        with (
            at(simulator, pool=pool) as client,
            ThreadPoolExecutor(threads) as executor,
        ):
            for done in [executor.submit(work, number) for number in range(threads)]:
                done.result()
            assert pool.statistics().in_use == 0
            assert pool.statistics().granted == threads * each
            assert max(most) <= limit
            cut = threads * each // 4
            assert simulator.connections <= limit + cut, "whole ones are used again"
        assert len(simulator.requests) == threads * each


def test_a_refused_key_is_called_by_where_it_was_given():
    with Simulator(api_keys=["hs-right-4f9a1c"]) as sim:
        there = Endpoint(sim.base_url, key="hs-wrong-4f9a1c", name="east")
        for arguments, said in (
            ({"endpoints": [there]}, "Check the key= of its Endpoint."),
            (
                {"api_key": "hs-wrong-4f9a1c", "base_url": sim.base_url},
                "HOLYSTREAM_API_KEY, or the argument api_key=",
            ),
        ):
            with (
                Client(**arguments, model="m") as client,
                pytest.raises(AuthenticationError) as caught,
            ):
                client.complete("hello")
            assert said in caught.value.message


def test_a_closed_client_that_is_used_connects_and_records_anew(simulator, tmp_path):
    with at(simulator, journal=tmp_path / "streams.db") as client:
        assert client.complete("echo:before").text == "before"
        client.close()
        with client.stream("echo:after", stream_id="after") as stream:
            assert stream.get_final_text() == "after"
        assert client.resume("after").get_final_text() == "after"


@pytest.mark.parametrize(
    ("name", "meant"),
    [("temprature", "temperature"), ("max_completion_tokens", "max_tokens")],
)
def test_a_misspelt_argument_is_told_with_the_nearest(simulator, name, meant):
    with at(simulator) as client:
        for ask in (lambda **more: client.map(["a"], **more), client.complete):
            prompt = ("a",) if ask == client.complete else ()
            with pytest.raises(TypeError, match=f"{name!r}: did you mean '{meant}'"):
                ask(*prompt, **{name: 0})
