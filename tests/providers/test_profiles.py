"""The table of hosts: every fact dated, resolved by model, changed by whoever likes."""

import copy
import dataclasses
import datetime as dt
import json
import pickle
import subprocess
import sys

import pytest

import holystream
from holystream.errors import ConfigurationError, InvalidAPIKey
from holystream.providers.base import ChatRequest
from holystream.providers.chat_request import chat_request
from holystream.providers.profile import Prefill, Profile
from holystream.providers.registry import PROFILES, profile, provider, table
from holystream.wire.sse import ServerSentEvent

NAMES = [
    "holysheep",
    "openai",
    "azure",
    "deepseek",
    "openrouter",
    "mistral",
    "vllm",
    "llama.cpp",
    "ollama",
    "openai-compatible",
]
ROWS = {
    f"{name} {pattern}".strip(): row
    for name, host in table().items()
    for pattern, row in {"": host, **host.get("models", {})}.items()
}


def make(**fields):
    return Profile(**{"name": "mine", "key_variable": "MY_KEY", **fields})


def body(name, model="m", **arguments):
    chosen = profile(name) if isinstance(name, str) else name
    request = chat_request("Hi", profile=chosen, model=model, **arguments)
    return request.body | {"deterministic": request.deterministic}


def test_the_hosts_are_known_by_name():
    assert list(PROFILES) == NAMES
    assert len(PROFILES) == len(NAMES)
    assert all(PROFILES[name] is profile(name) for name in NAMES)
    assert [known.name for known in PROFILES.values()] == NAMES


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_row_has_a_date_and_a_source(row):
    assert isinstance(row["checked"], dt.date)
    assert row["source"].strip()


@pytest.mark.parametrize("name", NAMES)
def test_a_profile_holds_what_its_row_says(name):
    row, known = table()[name], profile(name)
    assert known.source == row["source"]
    assert known.checked == row["checked"].isoformat()
    assert known.base_url == row.get("base_url")
    assert known.models.keys() == row.get("models", {}).keys()
    for pattern, changes in row.get("models", {}).items():
        assert known.models[pattern].keys() == changes.keys() - {"checked", "source"}
    assert pickle.loads(pickle.dumps(known)) == copy.deepcopy(known) == known


def test_importing_reads_no_table():
    code = (
        "import holystream; from holystream.providers.registry import _profiles; "
        "assert not _profiles.cache_info().currsize; "
        "holystream.profile('vllm'); assert _profiles.cache_info().currsize"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


MODELS = [
    ("openai", "gpt-4.1", {"repeatable_by": {"temperature", "seed"}}),
    ("openai", "o3-mini", {"repeatable_by": set()}),
    ("openai", "gpt-5.1", {"repeatable_by": set()}),
    ("azure", "gpt-4o", {"spellings": {}, "query": {"api-version": "2024-10-21"}}),
    (
        "azure",
        "o4-mini",
        {
            "spellings": {"max_tokens": "max_completion_tokens"},
            "query": {"api-version": "2025-04-01-preview"},
        },
    ),
    ("holysheep", "deepseek-v3.2", {"repeatable_by": {"temperature", "seed"}}),
    ("holysheep", "deepseek-v3.2", {"prefill": None, "early_stop": False}),
    ("holysheep", "claude-sonnet-4-5", {"prefill": None, "early_stop": False}),
    ("holysheep", "gemini-2.5-pro", {"early_stop": True}),
    ("holysheep", "GPT-5", {"spellings": {"max_tokens": "max_completion_tokens"}}),
    ("holysheep", "gpt-4o", {"spellings": {}}),
    ("openrouter", "openai/gpt-5-mini:free", {"repeatable_by": set(), "spellings": {}}),
    ("openrouter", "google/gemini-3-pro", {"early_stop": True, "prefill": None}),
    (
        "openrouter",
        "anthropic/claude-3.5-haiku",
        {"prefill": Prefill(spelling="trailing")},
    ),
    (
        "openrouter",
        "anthropic/claude-sonnet-4",
        {"prefill": Prefill(spelling="trailing")},
    ),
    (
        "openrouter",
        "anthropic/claude-opus-4.5",
        {"prefill": Prefill(spelling="trailing")},
    ),
    ("openrouter", "anthropic/claude-opus-4.6", {"prefill": None}),
    ("openrouter", "anthropic/claude-sonnet-5", {"prefill": None}),
    ("openrouter", "anthropic/claude-3.7-sonnet:thinking", {"prefill": None}),
    ("openrouter", "deepseek/deepseek-v3.2", {"prefill": None}),
    ("deepseek", "deepseek-v4-pro", {"repeatable_by": set()}),
    ("deepseek", "deepseek-chat", {"repeatable_by": {"temperature"}}),
    (
        "deepseek",
        "deepseek-chat",
        {"prefill": Prefill(spelling="prefix", path="/beta/chat/completions")},
    ),
    ("mistral", "mistral-small", {"prefill": Prefill(spelling="prefix", echo=True)}),
    ("vllm", "any", {"prefill": Prefill(spelling="continue_final_message")}),
    (
        "llama.cpp",
        "any",
        {"prefill": Prefill(spelling="continue_final_message", echo=True)},
    ),
    ("ollama", "any", {"prefill": None}),
    ("openai", "any", {"prefill": None}),
]


@pytest.mark.parametrize(("name", "model", "expected"), MODELS)
def test_what_a_host_can_do_depends_on_the_model(name, model, expected):
    resolved = profile(name).for_model(model)
    assert {field: getattr(resolved, field) for field in expected} == expected
    assert resolved.name == name
    assert resolved.for_model(model) is resolved


def test_a_later_pattern_has_the_last_word():
    mine = make(
        models={
            "a*": {"early_stop": True, "usage_option": False},
            "*b": {"early_stop": False},
        }
    )
    resolved = mine.for_model("ab")
    assert (resolved.early_stop, resolved.usage_option) == (False, False)
    assert mine.for_model("c") is mine


BODIES = [
    ("openai", "gpt-4.1", {"max_tokens": 5}, {"max_completion_tokens": 5}),
    ("azure", "my-deployment", {"max_tokens": 5}, {"max_tokens": 5}),
    ("azure", "o3", {"max_tokens": 5}, {"max_completion_tokens": 5}),
    ("holysheep", "o3", {"max_tokens": 5}, {"max_completion_tokens": 5}),
    ("holysheep", "m", {"max_tokens": 5, "seed": 0}, {"max_tokens": 5, "seed": 0}),
    ("mistral", "m", {"seed": 0}, {"random_seed": 0, "deterministic": True}),
    ("mistral", "m", {"temperature": 0}, {"temperature": 0, "deterministic": True}),
    ("mistral", "m", {"extra_body": {"random_seed": 1}}, {"deterministic": True}),
    ("vllm", "m", {"seed": 1}, {"seed": 1, "deterministic": True}),
    ("deepseek", "deepseek-v4-pro", {"temperature": 0}, {"deterministic": False}),
    ("deepseek", "deepseek-chat", {"temperature": 0}, {"deterministic": True}),
    ("deepseek", "deepseek-chat", {"seed": 1}, {"seed": 1, "deterministic": False}),
    (
        "deepseek",
        "deepseek-v4-pro",
        {"temperature": 0, "deterministic": True},
        {"deterministic": True},
    ),
    ("openai", "gpt-5", {"seed": 1}, {"deterministic": False}),
    (
        "openrouter",
        "m",
        {"extra_body": {"model": "openai/o3"}, "seed": 1},
        {"deterministic": False, "model": "openai/o3"},
    ),
]


@pytest.mark.parametrize(("name", "model", "arguments", "expected"), BODIES)
def test_a_request_is_spelled_as_the_model_wants_it(name, model, arguments, expected):
    built = body(name, model, **arguments)
    assert {key: built[key] for key in expected} == expected
    spelled = {"max_tokens", "max_completion_tokens", "seed", "random_seed"}
    wanted = {key for key in expected if key in spelled}
    assert not wanted or spelled & built.keys() == wanted


def test_only_mistral_is_not_asked_for_usage():
    silent = [name for name in NAMES if "stream_options" not in body(name)]
    assert silent == ["mistral"]


def test_the_decoder_goes_by_the_model_too():
    request = ChatRequest(
        path="/", body={}, model="quick-1", choices=1, deterministic=False
    )
    mine = make(models={"quick*": {"failed_finish_reasons": ["stop"]}})
    decoder = provider(mine).decoder(request, segment=0)
    chunk = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    decoder.decode([ServerSentEvent(json.dumps(chunk).encode())])
    assert decoder.failure is not None


def test_a_model_in_the_path_is_quoted():
    azure = profile("azure")
    assert azure.target("a b/c?d") == (
        "/openai/deployments/a%20b%2Fc%3Fd/chat/completions?api-version=2024-10-21"
    )


def test_the_key_is_a_bearer_token_or_all_of_its_header():
    assert make().key_headers("k") == {"Authorization": "Bearer k"}
    assert make(key_header="authorization").key_headers("k") == {
        "authorization": "Bearer k"
    }
    assert profile("azure").key_headers("k") == {"api-key": "k"}


def test_a_profile_can_be_changed_and_given_to_a_client():
    mine = dataclasses.replace(
        holystream.profile("vllm"), base_url="http://127.0.0.1:9/v1", early_stop=True
    )
    with holystream.Client(provider=mine) as client:
        assert "base_url='http://127.0.0.1:9/v1'" in repr(client)
        assert "provider='vllm'" in repr(client)


def test_a_profile_of_ones_own(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    mine = make(base_url="https://llm.example/v1")
    with pytest.raises(InvalidAPIKey, match="MY_KEY"):
        holystream.Client(provider=mine)
    monkeypatch.setenv("MY_KEY", "sk-0123456789")
    with holystream.Client(provider=mine) as client:
        assert "provider='mine'" in repr(client)


def test_a_key_in_place_of_its_variable_is_not_repeated():
    with pytest.raises(ConfigurationError, match="not the key itself") as caught:
        make(key_variable="sk-0123456789")
    assert "0123" not in str(caught.value)


def test_a_host_without_an_address_says_what_one_looks_like():
    with pytest.raises(ConfigurationError, match=r"RESOURCE\.openai\.azure\.com"):
        holystream.Client("sk-0123456789", provider="azure")


def test_a_name_that_is_none_is_told_those_that_are():
    with pytest.raises(ConfigurationError, match=r"'llama\.cpp', 'ollama'"):
        profile("vLLM")


WRONG = [
    ({"name": ""}, "name must be a text"),
    ({"name": None}, "name must be a text"),
    ({"key_variable": 3}, "key_variable must be a text"),
    ({"key_variable": "MY KEY"}, "key_variable must be the name of an environment"),
    ({"key_variable": "$MY_KEY"}, "key_variable must be the name of an environment"),
    ({"key_variable": "7TH"}, "key_variable must be the name of an environment"),
    ({"base_url": 3}, "base_url must be a text or None"),
    ({"base_url": ""}, "a Profile's base_url is empty"),
    ({"base_url": "llm.example/v1"}, "a Profile's base_url must begin with https://"),
    ({"base_url": "https://"}, "a Profile's base_url has no host"),
    ({"base_url": "https://a:b@llm.example"}, "base_url must not contain a user name"),
    ({"base_url": "https://llm.example?a=b"}, "base_url must end with its path"),
    ({"path": "chat"}, "path must be a path that begins with a slash"),
    ({"path": None}, "path must be a path"),
    ({"path": "/a b"}, "path must be a path"),
    ({"path": "/a?b=c"}, "path must be a path without"),
    ({"query": {"a": 1}}, "query must be a mapping from text to text"),
    ({"query": "a=1"}, "query must be a mapping"),
    ({"key_required": None}, "key_required must be True or False"),
    ({"key_header": "x y"}, "key_header must be the name of a header"),
    ({"key_header": ""}, "key_header must be a text"),
    ({"usage_option": 1}, "usage_option must be True or False"),
    ({"early_stop": "no"}, "early_stop must be True or False"),
    ({"failed_finish_reasons": "error"}, "failed_finish_reasons must be a set"),
    ({"failed_finish_reasons": 3}, "failed_finish_reasons must be a set"),
    ({"failed_finish_reasons": [3]}, "failed_finish_reasons must be a set"),
    ({"spellings": {"n": "count"}}, "spellings must be for some of 'max_tokens'"),
    ({"spellings": ["n"]}, "spellings must be a mapping"),
    ({"repeatable_by": {"luck"}}, "repeatable_by must be some of 'seed', 'temp"),
    ({"prefill": "prefix"}, "prefill must be a Prefill or None"),
    ({"models": ["a*"]}, "models must be a mapping"),
    ({"models": {"a*": "b"}}, "models must be a mapping"),
    ({"models": {3: {}}}, "models must be a mapping"),
    ({"models": {"a*": {"base_url": "b"}}}, r"models\['a\*'\] must be some of"),
    ({"models": {"a*": {"early_stop": 1}}}, "early_stop must be True or False"),
]


@pytest.mark.parametrize(("fields", "complaint"), WRONG)
def test_a_mistake_in_a_profile_is_named_at_once(fields, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        make(**fields)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"spelling": "echo"}, "spelling must be one of 'continue_final_message'"),
        ({"spelling": "prefix", "path": "beta"}, "prefill.path must be a path"),
    ],
)
def test_a_mistake_in_a_prefill_is_named_at_once(fields, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        Prefill(**fields)
