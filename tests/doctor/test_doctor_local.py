"""Versions, key, base URL and proxy settings: found without the network."""

import importlib.metadata
import ssl
import sys

import pytest

from holystream.cli.doctor import local
from holystream.cli.doctor.findings import Status

URL = "https://api.example/v1"


def test_versions_are_listed(case):
    finding = local.versions(case(URL))
    assert finding.status is Status.OK
    for name in ("python", "holystream", "requests", "urllib3", "tenacity", "msgspec"):
        assert finding.facts[name] in finding.text
    assert ssl.OPENSSL_VERSION in finding.text


@pytest.mark.parametrize("installed", ["2.2.9", "1.26.20", "is missing"])
def test_an_old_or_missing_package_is_named_with_what_is_needed(
    case, monkeypatch, installed
):
    real = importlib.metadata.version

    def version(name):
        if name != "urllib3":
            return real(name)
        if installed == "is missing":
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(importlib.metadata, "version", version)
    finding = local.versions(case(URL))
    assert finding.problem == "versions.old"
    assert f"urllib3 {installed}" in finding.text
    assert finding.advice.endswith("pip install --upgrade 'urllib3>=2.3'.")


@pytest.mark.parametrize("version", ["2.3", "2.3.0", "2.10.1", "3.0.0rc1"])
def test_a_version_that_is_new_enough_is_fine(case, monkeypatch, version):
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    requires = ["urllib3>=2.3.0", "flask>=99; extra == 'test'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: requires)
    assert local.versions(case(URL)).status is Status.OK


def test_a_package_that_is_not_installed_says_so(case, monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    finding = local.versions(case(URL))
    assert finding.problem == "versions.old"
    assert "holystream is not installed" in finding.text


def test_an_old_python_is_named(case, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    finding = local.versions(case(URL))
    assert finding.problem == "versions.python"
    assert "3.11" in finding.advice


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("OpenSSL 1.1.1w  11 Sep 2023", (1, 1, 1, 23, 15)),
        ("LibreSSL 3.8", (3, 8, 0)),
    ],
)
def test_an_old_openssl_is_named(case, monkeypatch, text, numbers):
    monkeypatch.setattr(ssl, "OPENSSL_VERSION", text)
    monkeypatch.setattr(ssl, "OPENSSL_VERSION_INFO", numbers)
    finding = local.versions(case(URL))
    assert finding.problem == "versions.openssl"
    assert text in finding.text


def test_a_good_key_is_kept_and_not_shown(case):
    made = case(URL)
    finding = local.key(made)
    assert finding.status is Status.OK
    assert "HOLYSTREAM_API_KEY" in finding.text
    key = made.key.reveal()
    pieces = {key[start : start + 4] for start in range(len(key) - 3)}
    assert not any(piece in repr(finding) for piece in pieces)


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (" sk-4711", "white space"),
        ('"sk-4711"', "quotes"),
        ("Bearer sk-4711", "Bearer"),
        ("your-api-key", "placeholder"),
        ("sk-47\u00e411", "printable ASCII"),
    ],
)
def test_a_bad_key_is_explained_and_not_shown(case, environment, value, complaint):
    environment.setenv("HOLYSTREAM_API_KEY", value)
    made = case(URL)
    finding = local.key(made)
    assert (finding.problem, made.key) == ("key.malformed", None)
    assert complaint in finding.text
    assert "HOLYSTREAM_API_KEY" in finding.advice
    assert "4711" not in repr(finding)


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_key_fails_only_where_one_is_needed(case, environment, value):
    for name in ("HOLYSTREAM_API_KEY", "OPENAI_API_KEY"):
        environment.delenv(name, raising=False)
        if value is not None:
            environment.setenv(name, value)
    how = "is not set" if value is None else "is empty"
    finding = local.key(case(URL))
    assert finding.status is Status.OK
    assert f"HOLYSTREAM_API_KEY {how}" in finding.text
    finding = local.key(case(None, "openai"))
    assert (finding.problem, finding.stops) == ("key.missing", True)
    assert f"OPENAI_API_KEY {how}" in finding.text


@pytest.mark.parametrize(
    ("url", "problem", "said"),
    [
        ("api.example/v1", "base-url.unusable", "--base-url must begin with https://"),
        (None, "base-url.unusable", "none of its own"),
        ("http://api.example/v1", "base-url.unusable", "--allow-http"),
        (f"{URL}/chat/completions", "base-url.endpoint", URL),
        (f"{URL}/", None, URL),
        ("http://127.0.0.1:8000/v1", None, "127.0.0.1"),
    ],
)
def test_the_base_url_is_judged(case, url, problem, said):
    made = case(url)
    local.key(made)
    finding = local.base_url(made)
    assert finding.problem == problem
    assert said in finding.text
    assert bool(made.base_url) == (problem is None)


@pytest.mark.parametrize("allow_http", [False, True])
def test_a_url_that_anybody_can_read_along_is_warned_of(case, environment, allow_http):
    if not allow_http:
        environment.delenv("HOLYSTREAM_API_KEY")
    made = case("http://api.example/v1", allow_http=allow_http)
    local.key(made)
    finding = local.base_url(made)
    assert finding.problem == "base-url.unencrypted"
    assert not finding.stops


def proxy_of(case, url):
    made = case(url)
    local.key(made)
    local.base_url(made)
    return local.proxy(made)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", "https://", ""])
def test_a_proxy_is_shown_without_its_password(case, environment, name, scheme):
    environment.setenv(name, f"{scheme}me:secret@proxy.example:3128")
    finding = proxy_of(case, URL)
    assert finding.status is Status.OK
    assert finding.text == f"{scheme or 'http://'}proxy.example:3128, from {name}"
    assert "secret" not in repr(finding)


@pytest.mark.parametrize(
    "value",
    [
        "socks5://me:secret@proxy.example:1080",
        "socks5h://proxy.example",
        "ftp://proxy.example",
        "http://:3128",
        "http://proxy.example:99999",
        "http://[proxy",
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(case, environment, value):
    environment.setenv("HTTPS_PROXY", value)
    finding = proxy_of(case, URL)
    assert finding.problem == "proxy.unsupported"
    assert "HTTPS_PROXY" in finding.text
    assert "HTTPS_PROXY" in finding.advice
    assert "secret" not in repr(finding)


@pytest.mark.parametrize(
    ("url", "settings", "said"),
    [
        (URL, {}, "none is set"),
        (URL, {"HTTP_PROXY": "http://p:1"}, "HTTP_PROXY does not apply to https://"),
        (
            URL,
            {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".example"},
            "HTTPS_PROXY does not apply: NO_PROXY names api.example",
        ),
        (
            "http://localhost:8000/v1",
            {"HTTP_PROXY": "http://p:1"},
            "HTTP_PROXY does not apply to what stays on this machine",
        ),
    ],
)
def test_why_no_proxy_is_used(case, environment, url, settings, said):
    for name, value in settings.items():
        environment.setenv(name, value)
    finding = proxy_of(case, url)
    assert (finding.status, finding.text) == (Status.OK, said)
