"""Base URLs, checked before anything is sent there.

One without a scheme costs an hour when it fails as a name that does not resolve, and a
second when it is named where it is given.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import Final

from holystream.errors import ConfigurationError
from holystream.wire.request import is_loopback

_HOST: Final = re.compile(r"[\w.~-]+|\[[0-9A-Fa-f:.]+\]")


def check_base_url(
    url: str, *, allow_http: bool, has_key: bool, called: str = "base_url"
) -> str:
    """Return a base URL without its trailing slash, fit to append a path to.

    Args:
        url: Such as ``https://api.holysheep.ai/v1``.
        allow_http: Send the key unencrypted to other machines, too.
        has_key: A key will be sent there.
        called: What a message calls it.

    Raises:
        ConfigurationError: It cannot be used; the message says why.
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"{called} must be a str, not {type(url).__name__}")
    # The only white space that is printable is the space.
    if not url or " " in url or not url.isprintable():
        raise ConfigurationError(
            f"{called} is empty or contains white space or control characters"
        )
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        # Not chained: urllib's message may quote a password.
        raise ConfigurationError(
            f"{called} is not a URL: check its host and port"
        ) from None
    if "@" in parts.netloc:
        raise ConfigurationError(
            f"{called} must not contain a user name or password: use api_key="
        )
    if "?" in url or "#" in url:
        raise ConfigurationError(
            f"{called} must end with its path, without '?' or '#': pass queries with "
            "the request"
        )
    # Without a scheme, "user:password@host" is no netloc.
    shown = "" if "@" in url else f" (it is {url!r})"
    if parts.scheme not in {"http", "https"}:
        raise ConfigurationError(
            f"{called} must begin with https://, as in https://api.holysheep.ai/v1, or "
            "for a server on this machine with http://" + shown
        )
    if not host or port == 0 or not _HOST.fullmatch(_bare(parts.netloc)):
        raise ConfigurationError(f"{called} has no host that could be called" + shown)
    if parts.scheme == "http" and has_key and not (allow_http or is_loopback(host)):
        raise ConfigurationError(
            f"{called} with http:// would send the API key unencrypted: use https://, "
            "or say allow_http=True if the network is your own" + shown
        )
    netloc = parts.netloc.lower().rstrip(":")
    return f"{parts.scheme}://{netloc}{parts.path}".rstrip("/")


def _bare(netloc: str) -> str:
    """Cut the port off."""
    return re.sub(r":\d*\Z", "", netloc)
