"""A request to an event stream, where it may be redirected, and what a URL tells."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_REDIRECTS = (301, 302, 303, 307, 308)
_SAME_METHOD_REDIRECTS = (307, 308)
_SCHEMES = ("http", "https")


def within_origin(request: HttpRequest, status: int, url: str) -> HttpRequest | None:
    """Follow 307 and 308 to the same origin, with everything; else nothing."""
    if status in _SAME_METHOD_REDIRECTS and origin(url) == origin(request.url):
        return dataclasses.replace(request, url=url)
    return None


def as_a_browser(request: HttpRequest, status: int, url: str) -> HttpRequest | None:
    """Follow any redirect of a GET, the keys only to the same origin."""
    secrets = request.secrets if origin(url) == origin(request.url) else {}
    if request.method == "GET" and status in _REDIRECTS and origin(url)[0] in _SCHEMES:
        return dataclasses.replace(request, url=url, secrets=secrets)
    return within_origin(request, status, url)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HttpRequest:
    """A request to an event stream.

    Attributes:
        url: The whole URL.
        body: The body, or None.
        method: The HTTP method.
        headers: Headers beside those that every event stream needs.
        secrets: Headers with keys in them; never shown or logged.
        last_event_id: Where to go on from; empty for no such header.
        redirected: Says what to send when a status redirects to a URL, or None.
    """

    url: str
    body: bytes | None
    method: str = "POST"
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secrets: Mapping[str, str] = dataclasses.field(default_factory=dict)
    last_event_id: str = ""
    redirected: Callable[[HttpRequest, int, str], HttpRequest | None] = within_origin

    def __repr__(self) -> str:
        # The body is the prompt, and a URL may hold a key.
        return f"<HttpRequest {self.method} {place(self.url)}>"


def place(url: str) -> str:
    """Return scheme, host and path of a URL: what may be shown of it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


def origin(url: str) -> tuple[str, str, int | None]:
    """Return the origin of a URL: scheme, host and port."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or ""), port


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
