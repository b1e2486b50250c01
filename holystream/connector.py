"""Opens the connections of one answer: each asks what its exchange wants next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holystream.providers.chat_request import encode
from holystream.wire.request import HttpRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holystream.exchange import Exchange
    from holystream.providers.profile import Profile
    from holystream.resilience.endpoints import Endpoint
    from holystream.wire.guard import SocketGuard
    from holystream.wire.http import HttpConnection, HttpTransport


class Connector:
    """Opens connections for one answer. One thread at a time calls it.

    Args:
        transport: What opens them.
        profile: Says which header carries a key.
        headers: The caller's own headers.
        exchange: Says what to ask for.
    """

    def __init__(
        self,
        transport: HttpTransport,
        profile: Profile,
        *,
        headers: Mapping[str, str],
        exchange: Exchange,
    ) -> None:
        self._transport = transport
        self._profile = profile
        self._headers = {"Content-Type": "application/json", **headers}
        self._exchange = exchange
        # Now, so that a caller learns at once of what JSON cannot hold.
        self._body = encode(exchange.request)

    def __call__(self, guard: SocketGuard, endpoint: Endpoint) -> HttpConnection:
        """Connect to an endpoint, and ask.

        Raises:
            Fault: There is no event stream.
        """
        asked = self._exchange.next_request
        if asked.body is self._exchange.request.body:
            body: bytes | None = self._body
        else:
            body = encode(asked) if asked.body else None
        return self._transport.open(
            HttpRequest(
                url=endpoint.base_url + asked.path,
                body=body,
                method=asked.method,
                headers={**self._headers, **asked.headers},
                secrets=key_headers(self._profile, endpoint),
                last_event_id=asked.last_event_id,
            ),
            guard,
        )


def key_headers(profile: Profile, endpoint: Endpoint) -> dict[str, str]:
    """Return the headers that carry an endpoint's key, if it has one."""
    key = endpoint.key
    return profile.key_headers(key.reveal()) if key else {}
