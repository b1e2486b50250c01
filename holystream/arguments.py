"""What a caller gives with a single call, checked before anything is sent.

What a client has as its default is in settings.py. Whatever is wrong here is an
`InvalidRequest`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from holystream.errors import InvalidRequest
from holystream.providers.jsonvalues import kind, plain, wrong
from holystream.resilience.pool import PRIORITIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from holystream.resilience.pool import Priority

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"(?:[!-~\x80-\xff]+(?:[ \t]+[!-~\x80-\xff]+)*)?")
_STREAM_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
OUR_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "host",
        "transfer-encoding",
    }
)


def _is(value: object, kind: type) -> bool:
    """Check at run time what the annotations promise: not every caller has mypy."""
    return isinstance(value, kind)


def checked_priority(priority: Priority) -> Priority:
    """Return ``priority``, if it is one."""
    if not _is(priority, str) or priority not in PRIORITIES:
        known = ", ".join(map(repr, sorted(PRIORITIES)))
        raise InvalidRequest(f"priority must be one of {known}, not {priority!r}")
    return priority


def checked_stream_id(stream_id: str | None) -> str:
    """Return ``stream_id`` if it can be one, or a new one for None."""
    if stream_id is None:
        return uuid.uuid4().hex
    if not _is(stream_id, str) or not _STREAM_ID.fullmatch(stream_id):
        raise InvalidRequest(
            "stream_id must be 1 to 128 letters, digits and ._:- characters"
        )
    return stream_id


def checked_url(url: str) -> str:
    """Return ``url``, if it can be requested; it may have a query."""
    if not _is(url, str):
        raise InvalidRequest(f"url must be a str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        usable = (
            parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        )
    except ValueError:
        usable = False
    if not usable or any(char.isspace() or not char.isprintable() for char in url):
        raise InvalidRequest(
            "url must be a whole one, such as 'https://example.com/events'"
        )
    if parts.username or parts.password:
        raise InvalidRequest("url must not hold a user name or password: use headers=")
    return url


def checked_method(method: str) -> str:
    """Return ``method`` in upper case, if it can be one."""
    if not _is(method, str) or not _HEADER_NAME.fullmatch(method):
        raise InvalidRequest(f"method must be an HTTP method, not {method!r}")
    return method.upper()


def checked_event_id(event_id: str) -> str:
    """Return ``event_id``, if a server can have given it."""
    if not _is(event_id, str) or any(char in event_id for char in "\0\r\n"):
        raise InvalidRequest("last_event_id must be a str without NUL, CR and LF")
    return str(plain(event_id, "last_event_id"))


def checked_body(
    content: object | Callable[[str], object],
) -> Callable[[str], bytes | None]:
    """Return what makes a body of JSON from the last event id; None for no body.

    What a function makes is checked each time, and may raise `InvalidRequest` then.
    """
    if callable(content):
        make = content
        return lambda last_event_id: _json(make(last_event_id))
    body = _json(content)
    return lambda _: body


def _json(content: object) -> bytes | None:
    if content is None:
        return None
    try:
        built = msgspec.to_builtins(content, str_keys=True, enc_hook=_builtin)
    except UnicodeEncodeError:
        # Not chained: the cause holds the text.
        raise wrong("json", "or holds a text with a lone surrogate", "UTF-8") from None
    except TypeError:
        raise wrong("json", "a mapping with a strange key", "texts as keys") from None
    except RecursionError:
        raise InvalidRequest("json is nested too deeply, or in itself") from None
    return msgspec.json.encode(plain(built, "json"))


def _builtin(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise wrong("json", f"or holds {kind(value)}", "what JSON can hold")


def checked_offset(after: int) -> int:
    """Return ``after``, if it can be a number of characters."""
    if not _is(after, int) or isinstance(after, bool) or after < 0:
        raise InvalidRequest(f"after must be characters, 0 or more, not {after!r}")
    return after


def checked_callback(
    callback: Callable[..., object] | None,
) -> Callable[..., object] | None:
    """Return ``callback``, if it can be called."""
    if callback is not None and not callable(callback):
        raise InvalidRequest(
            f"on_event must be callable, not {type(callback).__name__}"
        )
    return callback


def checked_headers(
    headers: Mapping[str, str] | None,
    argument: str,
    *,
    reserved: frozenset[str] = OUR_HEADERS,
) -> dict[str, str]:
    """Return a copy of ``headers``, if they can be sent and are not ``reserved``."""
    if headers is None:
        return {}
    if not _is(headers, Mapping):
        raise InvalidRequest(
            f"{argument} must be a mapping, not {type(headers).__name__}"
        )
    for name, value in headers.items():
        if not _is(name, str) or not _HEADER_NAME.fullmatch(name):
            raise InvalidRequest(f"{argument} has a name that no header can have")
        if not _is(value, str) or not _HEADER_VALUE.fullmatch(value):
            # Not shown: it may be a secret.
            raise InvalidRequest(
                f"{argument}[{name!r}] must be a str without line breaks, control "
                "characters or white space at its ends"
            )
        if name.lower() in reserved:
            raise InvalidRequest(
                f"{argument} must not set {name}: holystream needs its own"
            )
    return dict(headers)
