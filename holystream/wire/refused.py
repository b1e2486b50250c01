"""An answer that is no event stream: what it is instead, and what it says."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from holystream.wire.chunked import READ_BYTES
from holystream.wire.faults import LIBRARY_ERRORS, Answer, Fault, FaultKind
from holystream.wire.request import origin, place

if TYPE_CHECKING:
    from collections.abc import Mapping

    import requests

    from holystream.wire.guard import SocketGuard

ERROR_BODY_BYTES = 65536
"""How much of an error body is read."""
ERROR_BODY_SECONDS = 5.0
"""How long to wait for an error body, in all."""

_OK = 200
_CODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})
_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
_MIME_TYPE = re.compile(r"[^\s/;\"]+/[^\s/;\"]+")


def refused(response: requests.Response, url: str, guard: SocketGuard) -> Fault:
    """Read why ``response`` is no event stream, and let go of it."""
    guard.clocks.drain(ERROR_BODY_SECONDS)
    body = b""
    legible = is_legible(response)
    with (
        contextlib.closing(response),
        contextlib.suppress(Fault, *LIBRARY_ERRORS),
    ):
        while (
            legible
            and len(body) < ERROR_BODY_BYTES
            and (data := response.raw.read1(READ_BYTES, decode_content=True))
        ):
            body += data
    guard.release()
    guard.check()
    headers = lower(response.headers)
    answer = Answer(
        status=response.status_code, headers=headers, body=body[:ERROR_BODY_BYTES]
    )
    if 300 <= response.status_code < 400:  # noqa: PLR2004 - HTTP's redirects
        kind = FaultKind.REDIRECT
        target = redirect_target(url, response)
        detail = f"{response.status_code} to {place(target) or 'no URL'}"
    elif response.status_code == _OK and not legible:
        kind = FaultKind.CODING
        detail = f"Content-Encoding {headers['content-encoding']}"
    elif response.status_code < 300:  # noqa: PLR2004 - HTTP's successes
        kind = FaultKind.NOT_EVENT_STREAM
        detail = (
            f"{response.status_code} with "
            f"Content-Type {headers.get('content-type', '(none)')}"
        )
    else:
        kind, detail = FaultKind.STATUS, str(response.status_code)
    return Fault(kind, guard.phase, detail, reused=guard.reused, answer=answer)


def redirect_target(url: str, response: requests.Response) -> str:
    """Return the URL that a redirect names; empty if it is none."""
    # Nothing, joined to the URL, would be the URL itself.
    if not (location := response.headers.get("location", "")):
        return ""
    try:
        target = urljoin(url, location)
        origin(target)
    except ValueError:
        return ""
    return target


def server_request_id(headers: Mapping[str, str]) -> str | None:
    """Return the server's id of a request, under the names that are in use."""
    said = headers.get("x-request-id") or headers.get("request-id") or ""
    return said if _REQUEST_ID.fullmatch(said) else None


def is_event_stream(response: requests.Response) -> bool:
    """Tell whether an answer claims to be an event stream, or nothing at all."""
    said = response.headers.get("content-type", "")
    # Of several types the last one counts; a part of a parameter is none.
    kinds = [part.partition(";")[0].strip().lower() for part in said.split(",")]
    kind = next(filter(_MIME_TYPE.fullmatch, reversed(kinds)), kinds[-1])
    # Some servers send no type at all; what claims to be something else is not ours.
    return kind in ("text/event-stream", "")


def is_legible(response: requests.Response) -> bool:
    """Tell whether its body is not compressed, or once, in a way that is read here.

    None was asked for. Twice compressed, a few bytes inflate without any bound, and of
    a coding that is not known the bytes would pass for the text.
    """
    said = response.headers.get("content-encoding", "")
    return said.strip().lower() in _CODINGS


def lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with names in lower case."""
    return {name.lower(): value for name, value in headers.items()}
