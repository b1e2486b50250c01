"""Event streams over HTTP: open one, read it in batches, give its connection back.

requests does the work, on guarded connections (wire/connection.py). What it would do
behind our back it does not: requests are prepared here, so that ``.netrc`` cannot
replace a key, redirects are judged here, and no cookie is kept.
"""

from __future__ import annotations

import contextlib
import functools
import http.cookiejar
import itertools
import os
import uuid
import weakref
from typing import TYPE_CHECKING, Any

import requests

from holystream.errors import Phase
from holystream.wire.connection import GuardedAdapter, current_guard
from holystream.wire.direct import reader_of
from holystream.wire.faults import (
    LIBRARY_ERRORS,
    Fault,
    FaultKind,
    fault_of,
)
from holystream.wire.observing import watched
from holystream.wire.refused import (
    is_event_stream,
    is_legible,
    lower,
    redirect_target,
    refused,
    server_request_id,
)
from holystream.wire.request import is_loopback, origin
from holystream.wire.sse import EventParser, LineSafeRaw, ServerSentEvent

if TYPE_CHECKING:
    from holystream.wire.guard import SocketGuard
    from holystream.wire.request import HttpRequest

DRAIN_SECONDS = 0.25
"""How long a complete answer is read on, so that its connection can be re-used."""
DRAIN_BYTES = 65536
"""How much is read on at most."""
MAX_REDIRECTS = 5
"""Same-origin redirects that one request follows."""
MAX_LINE_BYTES = 8 * 1024 * 1024
"""The longest line, and the largest event, of a stream."""

_OK = 200
_LINES_OF_AN_EVENT = 2
_END_MARK = [b"data: [DONE]", b""]
_LINES_OF_AN_END = 6
"""A finish reason, the usage and the end mark, an event each."""
_URLS_KEPT = 64
_PERMANENT_REDIRECTS = (301, 308)


class HttpConnection:
    """One event stream: read once, by one thread at a time, then closed.

    Attributes:
        headers: The response's headers, names in lower case.
        request_id: The server's id of the request, else the one we sent.
        moved_to: Where permanent redirects said that it is from now on, or None.
    """

    def __init__(
        self,
        response: requests.Response,
        guard: SocketGuard,
        request_id: str,
        *,
        moved_to: str | None = None,
    ) -> None:
        self.moved_to = moved_to
        self.headers = lower(response.headers)
        self.request_id = server_request_id(self.headers) or request_id
        self._guard = guard
        self._response = response
        # It has been answered: no need to hold the prompt as long as the answer comes.
        response.request = None  # type: ignore[assignment]
        self._body = response.raw
        self._read = reader_of(response.raw)
        self._raw = response.raw = LineSafeRaw(response.raw, self._read, MAX_LINE_BYTES)
        self._lines = response.iter_lines()
        self._coded = "content-encoding" in self.headers
        self._parser = EventParser(MAX_LINE_BYTES)
        self._ended = False
        # Lines that are to come with the next batch.
        self._kept_back: list[bytes] = []

    def next_batch(self) -> list[ServerSentEvent] | None:
        """Return the events that one read completes; None at a clean end.

        Raises:
            Fault: The stream broke, stalled, or exceeds a limit. All events that were
                complete before it have been returned.
        """
        guard, raw, parser, lines = self._guard, self._raw, self._parser, self._lines
        while True:
            if self._kept_back:
                kept_back, self._kept_back = self._kept_back, []
                return parser.feed(kept_back)
            # All that can be is done before the wait: what is done after it makes a
            # token late.
            at_start = parser.started and not parser.pending
            if parser.exceeded or self._coded:
                self._check()
            try:
                first = next(lines, None)
            except LIBRARY_ERRORS as error:
                raise self._fault_of(error) from error
            if first is None:
                break
            guard.phase = Phase.BODY
            if at_start and raw.lines == _LINES_OF_AN_EVENT and first[:6] == b"data: ":
                # The usual: one event, and nothing of it but its data.
                if not (second := next(lines)):
                    return [ServerSentEvent(first[6:], "", parser.last_event_id)]
                batch = parser.feed([first, second])
            else:
                batch = parser.feed(
                    self._keep_back([first, *itertools.islice(lines, raw.lines - 1)])
                )
            if batch:
                return batch
        if self._ended:
            return None
        self._ended = True
        last = parser.close(raw.rest)
        return None if last is None else [last]

    def _keep_back(self, lines: list[bytes]) -> list[bytes]:
        """Keep the end of an answer for the next batch: text would wait for it."""
        if len(lines) == _LINES_OF_AN_EVENT or lines[-2:] != _END_MARK:
            return lines
        place = max(_LINES_OF_AN_EVENT, len(lines) - _LINES_OF_AN_END)
        self._kept_back = lines[place:]
        return lines[:place]

    def next_lines(self) -> list[bytes] | None:
        """Return the lines that one read completes; None at a clean end.

        Raises:
            Fault: As `next_batch`.
        """
        self._check()
        try:
            first: bytes | None = next(self._lines, None)
        except LIBRARY_ERRORS as error:
            raise self._fault_of(error) from error
        if first is None:
            return None
        self._guard.phase = Phase.BODY
        return [first, *itertools.islice(self._lines, self._raw.lines - 1)]

    def _check(self) -> None:
        """See that there is something to wait for, and time to do it.

        Not only before a recv: where there is a content coding, one may bring what
        inflates for minutes.
        """
        if self._parser.exceeded:
            raise self.fault(
                FaultKind.TOO_LARGE, f"an event exceeds {MAX_LINE_BYTES} bytes"
            )
        self._guard.next_wait()

    def taken(self) -> int | None:
        """Return the bytes of the decoded body in the events that were returned.

        None where they cannot be counted: line endings other than LF are dropped on the
        way.
        """
        if self._ended:
            return self._raw.received
        whole = self._raw.whole
        if whole is None:
            return None
        return (
            whole
            - self._parser.pending
            - sum(len(line) + 1 for line in self._kept_back)
        )

    def resume(self) -> None:
        """Begin a read: `next_batch` does, a reader of `next_lines` has to."""
        self._guard.resume()

    def fault(self, kind: FaultKind, detail: str = "") -> Fault:
        """Return a fault of this connection, in its present phase."""
        return self._guard.fault(kind, detail)

    def drain(self) -> None:
        """Read what is left of a complete answer, briefly, to keep the connection."""
        self._guard.clocks.drain(DRAIN_SECONDS)
        self._guard.resume()
        room = DRAIN_BYTES
        with contextlib.suppress(Fault, *LIBRARY_ERRORS):
            while room > 0 and (data := self._read()):
                room -= len(data)

    def close(self) -> None:
        """Let go of the connection: re-used if its body was read to the end."""
        self._response.close()
        self._guard.release()

    def _fault_of(self, error: Exception) -> Fault:
        guard = self._guard
        fault = fault_of(error, guard.phase, reused=guard.reused, stopped=guard.stopped)
        if fault.kind is FaultKind.IDLE:
            # Found by urllib3, which does not know what was waited for.
            return guard.ran_out(guard.clocks.left(guard.now())[1])
        return fault


class HttpTransport:
    """Opens event streams; keeps connections for re-use. Thread-safe and fork-safe.

    Args:
        connections: Connections that are kept for each host.
        verify: As in requests: True, or the path of a CA bundle.
        user_agent: The ``User-Agent`` header.
    """

    def __init__(
        self, *, connections: int, user_agent: str, verify: bool | str = True
    ) -> None:
        self._connections = connections
        self._verify = verify
        self._user_agent = user_agent
        self._session = self._new_session()
        # What the environment says of proxies and certificates, for each origin.
        self._settings: dict[tuple[str, str, int | None], dict[str, Any]] = {}
        self._urls: dict[str, str] = {}
        _transports.add(self)

    def open(self, request: HttpRequest, guard: SocketGuard) -> HttpConnection:
        """Send ``request`` and return its event stream.

        Raises:
            Fault: No connection, no answer, an error status, a redirect, or a body
                that is no event stream.
        """
        request_id = str(uuid.uuid4())
        try:
            return self._open(request, request_id, guard)
        except Fault as fault:
            said = fault.answer and server_request_id(fault.answer.headers)
            fault.request_id = said or request_id
            guard.release()
            raise
        except BaseException:
            guard.release()
            raise

    def close(self) -> None:
        """Close the connections that are idle."""
        self._session.close()

    def _open(
        self, request: HttpRequest, request_id: str, guard: SocketGuard
    ) -> HttpConnection:
        moved_to = None
        permanent = True
        for _ in range(MAX_REDIRECTS + 1):
            response = watched(
                functools.partial(self._send, request, request_id, guard),
                request.method,
                request.url,
                request.body,
                {**request.headers, **request.secrets},
            )
            status = response.status_code
            target = redirect_target(request.url, response)
            if target and (onward := request.redirected(request, status, target)):
                response.close()
                request = onward
                permanent = permanent and status in _PERMANENT_REDIRECTS
                moved_to = target if permanent else moved_to
                continue
            if status == _OK and is_event_stream(response) and is_legible(response):
                return HttpConnection(response, guard, request_id, moved_to=moved_to)
            raise refused(response, request.url, guard)
        raise guard.fault(
            FaultKind.REDIRECT, f"more than {MAX_REDIRECTS} redirects in a row"
        )

    def _send(
        self, request: HttpRequest, request_id: str, guard: SocketGuard
    ) -> requests.Response:
        guard.begin()
        session = self._session
        token = current_guard.set(guard)
        try:
            headers = {
                "Accept": "text/event-stream",
                "Accept-Encoding": "identity",
                "Cache-Control": "no-cache",
                "User-Agent": self._user_agent,
                "X-Request-ID": request_id,
                **request.headers,
            }
            prepared = requests.PreparedRequest()
            prepared.method = request.method.upper()
            prepared.url = self._url(request.url)
            prepared.prepare_headers(headers)
            prepared.headers.update(request.secrets)
            prepared.body = request.body or None
            prepared.prepare_content_length(prepared.body)
            # What HTTP would strip is left out, and nothing else.
            if last_event_id := request.last_event_id.encode().strip(b" \t"):
                # As bytes: http.client would write a text as Latin-1. Not prepared:
                # requests refuses an id that begins with a form feed.
                prepared.headers["Last-Event-ID"] = last_event_id  # type: ignore[assignment]
            response = session.send(
                prepared,
                allow_redirects=False,
                **self._environment(session, request.url),
            )
        except LIBRARY_ERRORS as error:
            raise fault_of(
                error, guard.phase, reused=guard.reused, stopped=guard.stopped
            ) from error
        finally:
            current_guard.reset(token)
        # Said by our connections already, but not by a mocked one.
        guard.phase = Phase.HEADERS
        return response

    def _url(self, url: str) -> str:
        """Return a URL as requests writes it, which takes it a while to find out."""
        written = self._urls.get(url)
        if written is None:
            prepared = requests.PreparedRequest()
            prepared.prepare_url(url, None)
            assert prepared.url is not None, "it was just set"  # noqa: S101 - an invariant
            if len(self._urls) >= _URLS_KEPT:
                self._urls.clear()
            written = self._urls[url] = prepared.url
        return written

    def _environment(self, session: requests.Session, url: str) -> dict[str, Any]:
        place = origin(url)
        settings = self._settings.get(place)
        if settings is None:
            scheme, host, _ = place
            if scheme == "http" and is_loopback(host):
                # What is sent in the clear, key included, because it does not leave
                # this machine must not leave it by way of a proxy.
                settings = {"proxies": {}, "stream": True}
            else:
                settings = dict(
                    session.merge_environment_settings(
                        url, {}, True, self._verify, None
                    )
                )
            # A race only computes the same twice.
            self._settings[place] = settings
        return settings

    def _new_session(self) -> requests.Session:
        session = _Session()
        adapter = GuardedAdapter(
            pool_connections=8, pool_maxsize=self._connections, max_retries=0
        )
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        session.headers.clear()
        session.cookies.set_policy(
            http.cookiejar.DefaultCookiePolicy(allowed_domains=[])
        )
        return session

    def _after_fork(self) -> None:
        # The sockets are the parent's: a child that used them would read its answers.
        self._session = self._new_session()


_transports: weakref.WeakSet[HttpTransport] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for transport in list(_transports):
        transport._after_fork()  # noqa: SLF001 - this module's own


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class _Session(requests.Session):
    """A session that leaves redirects alone, even the reading of their bodies."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002 - requests' signature
        return None
