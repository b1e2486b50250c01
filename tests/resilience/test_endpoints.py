"""Keys and base URLs: what is refused, what is said, and that no key is shown."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
from hypothesis import given, strategies as st

from holystream.errors import ConfigurationError, InvalidAPIKey
from holystream.resilience.endpoints import APIKey, Endpoint, check_key
from holystream.wire.base_url import check_base_url

GOOD_KEY = "hs-4f9Kq2ZpTr81LmXv"


@pytest.mark.parametrize(
    "key",
    [
        GOOD_KEY,
        "sk-proj-Ab3_xxxx-9",
        "EMPTY",
        "test",
        "not-needed",
        "0123456789abcdef",
        "eyJhbGciOi.J9.x/y+z==",
        "yourself-3f9a8b7c",
        "x",
    ],
)
def test_a_key_that_can_be_one_is_kept_as_it_is(key):
    assert check_key(key, "api_key=").reveal() == key


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ("", "is empty"),
        ("   ", "is empty"),
        ("\n", "is empty"),
        (GOOD_KEY + "\n", "contains a line break"),
        (GOOD_KEY[:5] + "\r\n" + GOOD_KEY[5:], "contains a line break"),
        (" " + GOOD_KEY, "begins or ends with white space"),
        (GOOD_KEY + "\t", "begins or ends with white space"),
        (f'"{GOOD_KEY}"', "is wrapped in quotes"),
        (f"'{GOOD_KEY}'", "is wrapped in quotes"),
        (f"\u201c{GOOD_KEY}\u201d", "is wrapped in quotes"),
        (f"Bearer {GOOD_KEY}", 'begins with "Bearer"'),
        (f"bearer\t{GOOD_KEY}", 'begins with "Bearer"'),
        ("Bearer", 'begins with "Bearer"'),
        ("your-api-key", "is a placeholder"),
        ("YOUR_API_KEY", "is a placeholder"),
        ("YOUR_HOLYSHEEP_API_KEY", "is a placeholder"),
        ("put your key here", "is a placeholder"),
        ("sk-your-key-here", "is a placeholder"),
        ("sk-xxxx", "is a placeholder"),
        ("sk-xxxx-xxxx", "is a placeholder"),
        ("sk-...", "is a placeholder"),
        ("***", "is a placeholder"),
        ("<API_KEY>", "is a placeholder"),
        ("{{ api_key }}", "is a placeholder"),
        ("$HOLYSHEEP_API_KEY", "is a placeholder"),
        ("${HOLYSHEEP_API_KEY}", "is a placeholder"),
        ("%HOLYSHEEP_API_KEY%", "is a placeholder"),
        ("changeme", "is a placeholder"),
        ("CHANGE_ME", "is a placeholder"),
        (f"{GOOD_KEY} {GOOD_KEY}", "contains white space"),
        (GOOD_KEY + "\u200b", "beyond printable ASCII"),
        (GOOD_KEY + "\x00", "beyond printable ASCII"),
        ("sk-ключ", "beyond printable ASCII"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused_with_its_source(key, complaint):
    with pytest.raises(InvalidAPIKey) as caught:
        check_key(key, "HOLYSHEEP_API_KEY")
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("the API key from HOLYSHEEP_API_KEY ")


@pytest.mark.parametrize("key", [None, 7, b"sk-abc"])
def test_a_key_that_is_no_text_is_refused(key):
    with pytest.raises(InvalidAPIKey, match="must be a str"):
        check_key(key, "api_key=")


@given(st.text())
def test_any_text_is_a_printable_key_or_refused_without_being_shown(text):
    said = ""
    try:
        key = check_key(text, "api_key=")
    except InvalidAPIKey as error:
        said = str(error)
    else:
        assert all("!" <= char <= "~" for char in key.reveal())
    assert len(text.strip()) <= 20 or text.strip() not in said


def test_a_key_does_not_show_itself():
    key = APIKey(GOOD_KEY)
    endpoint = Endpoint(name="main", base_url="https://a.example/v1", key=key)
    for shown in (repr(key), str(key), f"{key}", f"{key!s:>9}", repr(endpoint)):
        assert GOOD_KEY not in shown
        assert GOOD_KEY[-4:] not in shown
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(endpoint)
    assert not hasattr(key, "__dict__")


def test_keys_are_compared_by_their_text():
    assert APIKey("ключ") == APIKey("ключ")
    assert APIKey("a") != APIKey("b")
    assert APIKey("a") != "a"
    assert len({APIKey("a"), APIKey("a"), APIKey("b")}) == 2


def test_an_endpoint_as_a_user_writes_it():
    endpoint = Endpoint(
        "https://EU.example/v1/", key=GOOD_KEY, region="eu", priority=1, name="eu-1"
    )
    assert endpoint.base_url == "https://eu.example/v1"
    assert endpoint.key == APIKey(GOOD_KEY)
    assert (endpoint.name, endpoint.region, endpoint.priority) == ("eu-1", "eu", 1)
    assert endpoint == dataclasses.replace(endpoint)
    assert dataclasses.replace(endpoint, region="us").key == endpoint.key


def test_an_endpoint_without_a_name_is_called_by_its_host():
    assert Endpoint("https://a.example:8443/v1").name == "a.example:8443"


@pytest.mark.parametrize(
    ("models", "model", "has"),
    [
        (None, "anything", True),
        (["gpt-4o"], "gpt-4o", True),
        (["gpt-4o"], "gpt-4o-mini", False),
        (["gpt-*", "o?"], "GPT-4o", True),
        (["GPT-*", "o?"], "o3", True),
        (["gpt-*", "o?"], "claude", False),
    ],
)
def test_an_endpoint_has_the_models_that_its_patterns_name(models, model, has):
    assert Endpoint("https://a.example", models=models).has(model) is has


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"base_url": "a.example"}, "^the base_url of an Endpoint must begin with"),
        (
            {"base_url": "a.example", "name": "eu"},
            "^the base_url of the endpoint 'eu' must begin with https://",
        ),
        ({"key": " "}, "the API key from key= is empty"),
        ({"key": 7}, "the API key from key= must be a str"),
        ({"key": APIKey("")}, "the API key from key= is empty"),
        ({"name": ""}, "name must be a printable str"),
        ({"name": 1}, "name must be a printable str"),
        ({"name": "a\nb"}, "name must be a printable str"),
        ({"region": ""}, "region must be a printable str"),
        ({"priority": True}, "priority must be a whole number"),
        ({"priority": 1.0}, "priority must be a whole number"),
        ({"models": "gpt-4o"}, "models must be the names or patterns"),
        ({"models": []}, "models must be the names or patterns"),
        ({"models": ["a", 1]}, "models must be the names or patterns"),
        ({"models": ["a", ""]}, "models must be the names or patterns"),
    ],
)
def test_a_wrong_setting_of_an_endpoint_is_named(options, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        Endpoint(**({"base_url": "https://a.example"} | options))


def test_a_wrong_key_of_an_endpoint_is_in_no_variable_of_the_traceback():
    with pytest.raises(InvalidAPIKey) as caught:
        Endpoint("https://a.example", key=f"{GOOD_KEY}\n")
    frames = [entry.frame.f_locals for entry in caught.traceback][1:]
    assert frames
    assert not any(GOOD_KEY in repr(variables) for variables in frames)


def test_an_endpoint_is_a_value():
    endpoint = Endpoint(name="main", base_url="https://a.example/v1")
    assert endpoint == copy.copy(endpoint)
    with pytest.raises(AttributeError):
        endpoint.name = "other"


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://api.holysheep.ai/v1", "https://api.holysheep.ai/v1"),
        ("https://api.holysheep.ai/v1/", "https://api.holysheep.ai/v1"),
        ("https://api.holysheep.ai/", "https://api.holysheep.ai"),
        ("HTTPS://API.HolySheep.ai:8443/V1", "https://api.holysheep.ai:8443/V1"),
        ("https://host:/v1", "https://host/v1"),
        ("https://[2001:db8::1]:8443/v1", "https://[2001:db8::1]:8443/v1"),
        ("https://bücher.example/v1", "https://bücher.example/v1"),
        ("https://llm_gateway/v1", "https://llm_gateway/v1"),
        ("https://host/@team/v1", "https://host/@team/v1"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
        ("http://api.localhost/v1", "http://api.localhost/v1"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://127.8.9.10", "http://127.8.9.10"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_a_good_base_url_loses_only_its_trailing_slash(url, normal):
    assert check_base_url(url, allow_http=False, has_key=True) == normal


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("", "is empty or contains white space"),
        (" https://host", "white space"),
        ("https://host/v1\n", "white space"),
        ("https://ho st/v1", "white space"),
        ("https://host/\u200bv1", "control characters"),
        ("api.holysheep.ai/v1", "must begin with https://"),
        ("api.holysheep.ai:443/v1", "must begin with https://"),
        ("//host/v1", "must begin with https://"),
        ("ftp://host/v1", "must begin with https://"),
        ("file:///etc/passwd", "must begin with https://"),
        ("https://", "no host"),
        ("https:///v1", "no host"),
        ("https://:8080/v1", "no host"),
        ("https://host:0/v1", "no host"),
        ("https://ho,st/v1", "no host"),
        ("https://host:port/v1", "is not a URL"),
        ("https://host:99999/v1", "is not a URL"),
        ("https://[::1/v1", "is not a URL"),
        ("https://host/v1?key=x", "without '?' or '#'"),
        ("https://host/v1?", "without '?' or '#'"),
        ("https://host/v1#x", "without '?' or '#'"),
        ("http://host/v1", "would send the API key unencrypted"),
        ("http://10.0.0.1/v1", "would send the API key unencrypted"),
        ("http://localhost.example.com/v1", "would send the API key unencrypted"),
        ("http://[::2]/v1", "would send the API key unencrypted"),
    ],
)
def test_a_base_url_that_cannot_be_used_is_refused(url, complaint):
    with pytest.raises(ConfigurationError) as caught:
        check_base_url(url, allow_http=False, has_key=True)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://user:hunter2@host/v1",
        "https://user:hunter2@host:port/v1",
        "user:hunter2@host/v1",
        "http://user:hunter2@localhost/v1",
        "https://user:hunter2@/v1?x",
    ],
)
def test_a_password_in_a_base_url_is_not_repeated(url):
    with pytest.raises(ConfigurationError) as caught:
        check_base_url(url, allow_http=False, has_key=True)
    assert "hunter2" not in f"{caught.value}{caught.value.__cause__}"


@pytest.mark.parametrize("options", [(True, True), (False, False), (True, False)])
def test_http_is_allowed_on_request_or_without_a_key(options):
    allow_http, has_key = options
    url = "http://10.0.0.1:8000/v1"
    assert check_base_url(url, allow_http=allow_http, has_key=has_key) == url


def test_a_base_url_that_is_no_text_is_refused():
    with pytest.raises(ConfigurationError, match="must be a str, not bytes"):
        check_base_url(b"https://host", allow_http=False, has_key=True)


@given(st.text() | st.from_regex(r"https?://[^/]*/?.*"))
def test_any_text_is_a_base_url_or_refused(text):
    try:
        url = check_base_url(text, allow_http=False, has_key=True)
    except ConfigurationError:
        return
    assert url.startswith(("http://", "https://"))
    assert not url.endswith("/")


def test_the_path_of_a_request_is_no_part_of_a_base_url():
    for url in ("https://host/v1/chat/completions", "https://host/chat/completions/"):
        with pytest.raises(ConfigurationError, match="leave that out"):
            Endpoint(url)
