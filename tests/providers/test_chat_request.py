"""What a caller may ask for, and how each mistake is named before anything is sent."""

import dataclasses
import enum
import json
import re
from types import MappingProxyType

import pytest
from hypothesis import given, strategies as st

from holystream.errors import ConfigurationError, InvalidRequest
from holystream.providers.chat_request import chat_request, encode
from holystream.providers.registry import PROFILES, provider

PROFILE = PROFILES["holysheep"]
SECRET = "the-secret-prompt"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def build(prompt="Hi", **arguments):
    return chat_request(prompt, **{"profile": PROFILE, "model": "m", **arguments})


def message(**fields):
    return [{"role": "user", "content": SECRET, **fields}]


class Color(enum.StrEnum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 3


class Odd:
    def __repr__(self):
        return SECRET


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


def endless():
    value = {}
    value["again"] = value
    return value


def test_a_text_becomes_a_message_of_the_user():
    request = build("Tell me")
    assert request.path == "/chat/completions"
    assert json.loads(encode(request)) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Tell me"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert (request.choices, request.deterministic, request.model) == (1, False, "m")


def test_every_argument_is_sent_under_its_own_name():
    arguments = {
        "temperature": 0.5,
        "top_p": 1,
        "max_tokens": 10,
        "seed": -3,
        "stop": ["a", "b"],
        "n": 2,
        "tools": [TOOL, {"type": "custom", "custom": {"name": "g"}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_object"},
    }
    request = build(**arguments)
    body = json.loads(encode(request))
    assert {name: body[name] for name in arguments} == arguments
    assert request.choices == 2


@pytest.mark.parametrize(
    ("name", "value"), [("stop", "\n"), ("tool_choice", "auto"), ("temperature", 0)]
)
def test_the_short_form_is_sent_as_it_is(name, value):
    assert build(**{name: value}).body[name] == value


def test_a_profile_without_usage_is_not_asked_for_it():
    profile = dataclasses.replace(PROFILE, usage_option=False)
    assert "stream_options" not in build(profile=profile).body


CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": ""},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
        ],
    },
    {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
    {"role": "tool", "tool_call_id": "1", "content": "42"},
    {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}},
    {"role": "function", "name": "f", "content": "43"},
    {"role": "assistant", "content": None, "refusal": "No."},
    {"role": "user", "content": "And now? \U0001f600"},
]


@pytest.mark.parametrize("kind", [list, tuple])
def test_messages_are_sent_as_they_are(kind):
    assert build(kind(CONVERSATION)).body["messages"] == CONVERSATION


def test_the_body_is_a_deep_copy():
    conversation = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"a": 1}}}]
    extra = {"metadata": {"tags": ["x"]}}
    request = build(conversation, tools=tools, extra_body=extra)
    before = encode(request)
    conversation[0]["content"][0]["text"] = "b"
    conversation.append({})
    tools[0]["function"]["parameters"]["a"] = 2
    extra["metadata"]["tags"].append("y")
    assert encode(request) == before


def test_subclasses_become_plain_json():
    extra = {
        "text": Color.RED,
        "number": Size.BIG,
        "mapping": MappingProxyType({"a": (1, 2)}),
        "nothing": [None, True, 1.5],
    }
    body = build(extra_body=extra).body
    assert json.loads(json.dumps(body))["text"] == "red"
    assert body["mapping"] == {"a": [1, 2]}
    assert body["nothing"] == [None, True, 1.5]
    assert type(body["text"]) is str
    assert type(body["number"]) is int
    assert type(body["mapping"]) is dict


WRONG = [
    # prompt
    ({"prompt": ""}, "prompt is empty"),
    ({"prompt": " \n"}, "prompt is empty"),
    ({"prompt": []}, "prompt is an empty list: expected at least one message"),
    ({"prompt": None}, "prompt is None: expected a text or a list of messages"),
    ({"prompt": SECRET.encode()}, "prompt is a bytes"),
    ({"prompt": message()[0]}, "prompt is a dict"),
    ({"prompt": (each for each in message())}, "prompt is a generator"),
    ({"prompt": {SECRET}}, "prompt is a set"),
    ({"prompt": 3}, "prompt is an int"),
    ({"prompt": [SECRET]}, "messages[0] is a str: expected a mapping"),
    ({"prompt": [*message(), None]}, "messages[1] is None"),
    ({"prompt": [{"content": SECRET}]}, "messages[0].role is missing"),
    ({"prompt": message(role=SECRET)}, "messages[0].role is unknown"),
    ({"prompt": message(role=["user"])}, "messages[0].role is unknown"),
    ({"prompt": [{"role": "user"}]}, "messages[0].content is missing"),
    ({"prompt": message(content=None)}, "messages[0].content is missing"),
    (
        {"prompt": message(role="assistant", content=None, tool_calls=[])},
        "messages[0].content is missing",
    ),
    ({"prompt": message(content=None, tool_calls=[1])}, "messages[0].content is m"),
    ({"prompt": message(content=SECRET.encode())}, "messages[0].content is a bytes"),
    ({"prompt": message(content={})}, "messages[0].content is a dict"),
    ({"prompt": message(content=[])}, "messages[0].content is an empty list"),
    ({"prompt": message(content=[SECRET])}, "messages[0].content[0] is a str"),
    (
        {"prompt": message(content=[{"text": SECRET}])},
        "messages[0].content[0].type is None",
    ),
    ({"prompt": message(content=[{"type": ""}])}, "messages[0].content[0].type is e"),
    ({"prompt": SECRET + "\ud83d"}, "messages[0].content is a text with a lone"),
    ({"prompt": message(name=float("nan"))}, "messages[0].name is nan"),
    ({"prompt": message(name=Odd())}, "messages[0].name is an Odd"),
    ({"prompt": message(**{SECRET: b""})}, "messages[0][...] is a bytes"),
    ({"prompt": [{**message()[0], 3: 4}]}, "messages[0] is a mapping with a key"),
    ({"prompt": [{**message()[0], "\ude00": 4}]}, "a key of messages[0] is a text"),
    ({"prompt": message(name=nested(120))}, "messages is more than 100 levels deep"),
    ({"prompt": message(name=endless())}, "messages is more than 100 levels deep"),
    # model
    ({"model": None}, "model is None: expected the name of a model: give model="),
    ({"model": " "}, "model is empty"),
    ({"model": b"m"}, "model is a bytes"),
    # numbers
    ({"temperature": float("nan")}, "temperature is nan: expected a number from 0"),
    ({"temperature": float("inf")}, "temperature is inf"),
    ({"temperature": -0.1}, "temperature is -0.1"),
    ({"temperature": -(10**5000)}, "temperature is far out of range"),
    ({"temperature": 10**5000}, "temperature is too large"),
    ({"temperature": True}, "temperature is a bool"),
    ({"temperature": "0"}, "temperature is a str"),
    ({"top_p": 0}, "top_p is 0: expected a number above 0 up to 1"),
    ({"top_p": 1.01}, "top_p is 1.01"),
    ({"top_p": float("nan")}, "top_p is nan"),
    ({"top_p": False}, "top_p is a bool"),
    ({"max_tokens": 0}, "max_tokens is 0: expected an integer from 1"),
    ({"max_tokens": 1.0}, "max_tokens is a float"),
    ({"max_tokens": True}, "max_tokens is a bool"),
    ({"n": 0}, "n is 0"),
    ({"n": "2"}, "n is a str"),
    ({"n": 129}, "n is 129: expected an integer from 1 to 128"),
    ({"n": 10**9}, "n is 1000000000: expected an integer from 1 to 128"),
    ({"n": 10**5000}, "n is far out of range"),
    ({"seed": 1.5}, "seed is a float"),
    ({"seed": True}, "seed is a bool"),
    ({"seed": 2**64}, "seed is too large an integer"),
    # the rest
    ({"stop": ""}, "stop is empty"),
    ({"stop": []}, "stop is an empty list"),
    ({"stop": ["a", ""]}, "stop[1] is empty"),
    ({"stop": ["a", 3]}, "stop[1] is an int"),
    ({"stop": 3}, "stop is an int"),
    ({"tools": TOOL}, "tools is a dict: expected a list of mappings"),
    ({"tools": []}, "tools is an empty list"),
    ({"tools": ["f"]}, "tools[0] is a str"),
    ({"tools": [TOOL, {}]}, "tools[1].type is None"),
    ({"tools": [None]}, "tools[0] is None"),
    (
        {"tools": [{"type": "function", "name": "f"}]},
        "tools[0].function is not a mapping with a name",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": ""}}]},
        "tools[0].function is not a mapping with a name",
    ),
    (
        {"tools": [{"type": "function", "function": {"name": 3}}]},
        "tools[0].function is not a mapping with a name",
    ),
    ({"tools": [{**TOOL, "x": print}]}, "tools[0].x is a builtin_function"),
    ({"tool_choice": ""}, "tool_choice is empty"),
    ({"tool_choice": 3}, "tool_choice is an int"),
    ({"tool_choice": {}}, "tool_choice.type is None"),
    ({"response_format": "json"}, "response_format is a str"),
    ({"response_format": {"type": 1}}, "response_format.type is an int"),
    ({"deterministic": 1}, "deterministic is an int"),
    ({"extra_body": [1]}, "extra_body is a list: expected a mapping"),
    ({"extra_body": {"stream": False}}, "extra_body must not set 'stream'"),
    ({"extra_body": {"stream": None}}, "extra_body must not set 'stream'"),
    ({"extra_body": {"messages": []}}, "extra_body must not set 'messages': use p"),
    ({"extra_body": {"model": None}}, "model is None"),
    ({"extra_body": {"model": ""}}, "model is empty"),
    ({"extra_body": {"n": 0}}, "extra_body.n is 0"),
    ({"extra_body": {"n": 10**9}}, "extra_body.n is 1000000000"),
    ({"extra_body": {"n": "3"}}, "extra_body.n is a str"),
    ({"extra_body": {"x": [{"y": float("-inf")}]}}, "x[0].y is -inf"),
    ({"extra_body": {"x": object()}}, "x is an object"),
    ({"extra_body": {3: 1}}, "extra_body is a mapping with a key that is an int"),
]


@pytest.mark.parametrize(("arguments", "complaint"), WRONG)
def test_a_mistake_is_named_and_the_prompt_is_not_quoted(arguments, complaint):
    with pytest.raises(InvalidRequest, match=re.escape(complaint)) as caught:
        build(**arguments)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_extra_body_adds_overrides_and_removes():
    body = build(
        temperature=1,
        extra_body={
            "temperature": 0,
            "stream_options": None,
            "absent": None,
            "top_k": 5,
            "max_tokens": -1,
        },
    ).body
    assert body["temperature"] == 0
    assert body["top_k"] == 5
    assert body["max_tokens"] == -1, "what a server takes is the caller's business here"
    assert "stream_options" not in body
    assert "absent" not in body


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, False),
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": 0.1}, False),
        ({"seed": 0}, True),
        ({"deterministic": True}, True),
        ({"deterministic": False, "temperature": 0, "seed": 1}, False),
        ({"extra_body": {"temperature": 0}}, True),
        ({"extra_body": {"seed": 7}}, True),
        ({"seed": 7, "extra_body": {"seed": None}}, False),
        ({"temperature": 0, "extra_body": {"temperature": 1}}, False),
    ],
)
def test_whether_it_is_deterministic_is_read_off_the_body(arguments, expected):
    assert build(**arguments).deterministic is expected


def test_model_and_choices_are_read_off_the_body():
    request = build(n=2, extra_body={"model": "other", "n": 3})
    assert (request.model, request.choices) == ("other", 3)
    assert build(n=2, extra_body={"n": None}).choices == 1


def test_its_repr_does_not_show_the_prompt():
    assert SECRET not in repr(build(SECRET))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(prompt=json_values, extra=st.dictionaries(st.text(), json_values, max_size=3))
def test_a_request_is_refused_or_can_be_encoded(prompt, extra):
    try:
        request = build(prompt, extra_body=extra)
    except InvalidRequest:
        return
    assert json.loads(encode(request)) == request.body


@given(value=json_values, name=st.sampled_from(["tools", "stop", "tool_choice", "n"]))
def test_no_argument_fails_in_another_way(value, name):
    try:
        request = build(**{name: value})
    except InvalidRequest:
        return
    assert json.loads(encode(request)) == request.body


def test_the_providers_are_known_by_name():
    assert provider() is not None
    assert provider().profile.base_url == "https://api.holysheep.ai/v1"
    assert provider("holysheep").profile.key_variable == "HOLYSHEEP_API_KEY"
    generic = provider("openai-compatible").profile
    assert (generic.base_url, generic.key_required) == (None, False)
    assert generic.key_variable == "HOLYSTREAM_API_KEY"
    assert repr(provider()) == "<OpenAIChat profile='holysheep'>"


@pytest.mark.parametrize("name", ["open-ai", "", None, ["holysheep"]])
def test_an_unknown_provider_is_told_the_known_ones(name):
    with pytest.raises(
        ConfigurationError, match="use one of 'holysheep', 'openai', 'azure'"
    ):
        provider(name)
