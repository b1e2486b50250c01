"""What can be found without the network: versions, key, base URL, proxy settings."""

from __future__ import annotations

import os
import re
import ssl
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Final

from holystream.cli.doctor.case import port_is_valid, shown
from holystream.cli.doctor.findings import Finding, fine, found
from holystream.cli.exits import reworded
from holystream.errors import ConfigurationError, InvalidAPIKey
from holystream.resilience.endpoints import check_key
from holystream.wire.base_url import check_base_url
from holystream.wire.request import is_loopback

if TYPE_CHECKING:
    from holystream.cli.doctor.case import Case

_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9._-]+)>=([0-9.]+)$")
_OPENSSL: Final = (3, 0)
_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy")


def versions(_case: Case) -> Finding:
    """Compare what is installed with what the package's own metadata requires."""
    try:
        ours = metadata.version("holystream")
        requirements = metadata.requires("holystream") or []
        minimum = metadata.metadata("holystream")["Requires-Python"].removeprefix(">=")
    except metadata.PackageNotFoundError:
        text = "holystream is not installed, only found"
        words = {"requirements": "holystream"}
        return found("versions.old", text, words=words)
    python = ".".join(map(str, sys.version_info[:3]))
    installed = {"python": python, "holystream": ours}
    old = []
    for requirement in filter(None, map(_REQUIREMENT.match, requirements)):
        name, least = requirement.groups()
        installed[name] = _version_of(name)
        if _numbers(installed[name]) < _numbers(least):
            old.append(requirement[0])
    facts = {**installed, "openssl": ssl.OPENSSL_VERSION}
    text = ", ".join(f"{name} {version}" for name, version in installed.items())
    text = f"{text}, {ssl.OPENSSL_VERSION}"
    if old:
        words = {"requirements": " ".join(f"'{each}'" for each in old)}
        return found("versions.old", text, facts, words)
    if _numbers(python) < _numbers(minimum):
        return found("versions.python", text, facts, {"minimum": minimum})
    if ssl.OPENSSL_VERSION_INFO < _OPENSSL or "OpenSSL" not in ssl.OPENSSL_VERSION:
        return found("versions.openssl", text, facts)
    return fine(text, facts)


def key(case: Case) -> Finding:
    """Look whether there is a key that can be one; nothing of it is shown."""
    variable = case.profile.key_variable
    facts = {"variable": variable, "set": variable in os.environ}
    words = {"variable": variable}
    text = os.environ.get(variable)
    if not text:
        how = "is empty" if variable in os.environ else "is not set"
        if case.profile.key_required:
            return found("key.missing", f"{variable} {how}", facts, words)
        return fine(f"{variable} {how}; {case.profile.name} may need none", facts)
    try:
        case.key = check_key(text, variable)
    except InvalidAPIKey as error:
        return found("key.malformed", str(error), facts, words)
    return fine(f"{variable} is set and well-formed", facts)


def base_url(case: Case) -> Finding:
    """Look whether the base URL can be used."""
    profile = case.profile
    words = {"example": profile.base_url or profile.base_url_example}
    if case.typed_url is None:
        text = f"{profile.name} has none of its own"
        return found("base-url.unusable", text, words=words)
    try:
        url = check_base_url(
            case.typed_url, allow_http=case.allow_http, has_key=case.key is not None
        )
    except ConfigurationError as error:
        return found("base-url.unusable", reworded(str(error)), words=words)
    facts = {"url": url}
    if url.endswith(profile.path):
        return found("base-url.endpoint", url, facts, {"path": profile.path})
    case.base_url = url
    if not case.is_tls and not is_loopback(case.host):
        return found("base-url.unencrypted", url, facts)
    return fine(url, facts)


def proxy(case: Case) -> Finding:
    """Look which proxy the environment asks for, and whether it can be used."""
    route = case.route
    if route.proxy is None:
        return fine(_why_direct(case), {"proxy": None})
    address = case.clean(shown(route.proxy))
    facts = {"proxy": address, "variable": route.variable}
    text = f"{address}, from {route.variable}"
    scheme = route.proxy.partition(":")[0].lower()
    if scheme not in {"http", "https"} or not port_is_valid(route.proxy):
        words = {"variable": route.variable}
        return found("proxy.unsupported", text, facts, words)
    return fine(text, facts)


def _why_direct(case: Case) -> str:
    names = [
        name
        for lower in _PROXIES
        for name in (lower, lower.upper())
        if os.environ.get(name)
    ]
    if not names:
        return "none is set"
    scheme = "https" if case.is_tls else "http"
    listed = ", ".join(names)
    if not any(name.lower() in {f"{scheme}_proxy", "all_proxy"} for name in names):
        return f"{listed} does not apply to {scheme}://"
    if is_loopback(case.host) and not case.is_tls:
        return f"{listed} does not apply to what stays on this machine"
    return f"{listed} does not apply: NO_PROXY names {case.host}"


def _version_of(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "is missing"


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with, without zeros at the end."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    numbers = [int(part) for part in match[0].split(".")] if match else []
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
