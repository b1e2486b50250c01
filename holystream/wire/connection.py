"""urllib3's connections under a guard: phase marks, our own connect, guarded reads.

The guard of the attempt that a thread is making is found through a context variable,
for there is no way to hand it through requests' and urllib3's calls. It is read only
while the request is made; the response keeps its own reference.
"""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

import requests.adapters
import urllib3.connection
import urllib3.connectionpool

from holystream.errors import Phase
from holystream.wire.chunked import BulkHTTPResponse
from holystream.wire.connecting import connect, resolve
from holystream.wire.faults import Fault, FaultKind, in_handshake
from holystream.wire.inherited import remember
from holystream.wire.request import place
from holystream.wire.shelf import Shelf

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from urllib3.poolmanager import PoolManager, ProxyManager

    from holystream.wire.guard import SocketGuard

current_guard: contextvars.ContextVar[SocketGuard] = contextvars.ContextVar("guard")


class GuardedHTTPConnection(urllib3.connection.HTTPConnection):
    """A plain connection that tells the guard of the current attempt how far it got."""

    def connect(self) -> None:
        """Connect, through a proxy's tunnel if there is one."""
        guard = current_guard.get()
        try:
            super().connect()
        except TimeoutError as error:
            # In the TLS handshake, or a proxy's answer, by whichever clock.
            try:
                guard.next_wait()
            except Fault as fault:
                if fault.kind is FaultKind.CONNECT_TIMEOUT and in_handshake(error):
                    raise guard.fault(FaultKind.HANDSHAKE_TIMEOUT) from error
                raise
            raise
        remember(self.sock)
        guard.check()
        guard.phase = Phase.SENT

    def _new_conn(self) -> socket.socket:
        guard = current_guard.get()
        try:
            addresses = resolve(self._dns_host, self.port, guard)
            return connect(
                addresses,
                guard,
                source=self.source_address,
                options=list(self.socket_options or ()),
            )
        except Exception as error:
            if self.proxy is not None and getattr(error, "kind", None) in _UNREACHABLE:
                raise guard.fault(FaultKind.PROXY, str(error)) from error
            raise

    def request(self, *args: Any, **kwargs: Any) -> None:
        """Send a request, connecting first if need be."""
        guard = current_guard.get()
        # connect() has moved the phase on, so this connection is one from the pool.
        if self.sock is not None and guard.phase is Phase.CONNECT:
            guard.reused = True
            guard.phase = Phase.SENT
            guard.adopt(self.sock)
        super().request(*args, **kwargs)

    def putrequest(self, method: str, url: str, *args: Any, **kwargs: Any) -> None:
        """Write the request line, with the query that urllib3 was not told."""
        super().putrequest(method, current_guard.get().target or url, *args, **kwargs)

    def send(self, data: Any) -> None:
        """Send bytes, waiting for a full buffer no longer than the guard allows."""
        if self.sock is None:
            self.connect()
        guard = current_guard.get()
        seconds, clock = guard.next_wait()
        self.sock.settimeout(seconds)
        began = guard.now()
        try:
            # Of a memoryview http.client prints no content, whatever its debug level.
            super().send(memoryview(data))
        except TimeoutError:
            guard.check()
            raise guard.ran_out(clock) from None
        guard.clocks.waited += guard.now() - began

    def response_class(  # type: ignore[override]  # http.client only calls it
        self, sock: Any, *args: Any, **kwargs: Any
    ) -> BulkHTTPResponse:
        """Build the response that http.client reads into."""
        self._bulk = BulkHTTPResponse(sock, *args, guard=current_guard.get(), **kwargs)
        return self._bulk

    def getresponse(  # type: ignore[override]  # urllib3's own differs so
        self,
    ) -> urllib3.response.HTTPResponse:
        """Read the status line and the headers."""
        response = super().getresponse()
        # For who reads past urllib3, which tells nobody what it reads from.
        response.bulk = self.__dict__.pop("_bulk")  # type: ignore[attr-defined]
        current_guard.get().phase = Phase.HEADERS
        return response


_UNREACHABLE = (FaultKind.REFUSED, FaultKind.NAME_RESOLUTION)


class GuardedHTTPSConnection(GuardedHTTPConnection, urllib3.connection.HTTPSConnection):
    """The same over TLS: the handshake belongs to connecting."""


class _HTTPPool(urllib3.connectionpool.HTTPConnectionPool):
    ConnectionCls = GuardedHTTPConnection
    QueueCls = Shelf  # type: ignore[assignment]  # what is called of it, it has


class _HTTPSPool(urllib3.connectionpool.HTTPSConnectionPool):
    ConnectionCls = GuardedHTTPSConnection
    QueueCls = Shelf  # type: ignore[assignment]  # what is called of it, it has


class GuardedAdapter(requests.adapters.HTTPAdapter):
    """requests' adapter with guarded connections. Thread-safe as requests' own is."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools for direct connections."""
        super().init_poolmanager(*args, **kwargs)
        _guard_pools(self.poolmanager)

    def request_url(
        self, request: requests.PreparedRequest, proxies: Mapping[str, str] | None
    ) -> str:
        """Return what urllib3 is to know of the URL: it logs it, and says it in errors.

        A key may be in the query, which only our connection is told.
        """
        target = super().request_url(request, proxies)
        current_guard.get().target = target
        return place(target)

    def close(self) -> None:
        """Close the connections that are idle."""
        # To clear a manager closes its pools only once nothing refers to them, and an
        # open response does.
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 - it refuses iteration
                if (pool := manager.pools.get(key)) is not None:
                    pool.close()
        super().close()

    def get_connection_with_tls_context(
        self, *args: Any, **kwargs: Any
    ) -> urllib3.connectionpool.ConnectionPool:
        """Find the pool for a request.

        Raises:
            Fault: The proxy's URL cannot be used.
        """
        try:
            return super().get_connection_with_tls_context(*args, **kwargs)
        except (TypeError, UnicodeError):
            # What requests stumbles over in a proxy's URL with a user: that there is no
            # host, or a letter beyond Latin-1. Not chained: it may hold the password.
            raise current_guard.get().fault(
                FaultKind.BAD_URL, "the proxy's URL has no host, or an unusable user"
            ) from None

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> ProxyManager:
        """Make the pools for one HTTP proxy.

        Raises:
            Fault: It is not an HTTP proxy. A SOCKS proxy has connections of its own,
                which no guard watches.
        """
        if not proxy.lower().startswith("http"):
            raise current_guard.get().fault(
                FaultKind.BAD_URL, "a proxy must be an http:// or https:// URL"
            )
        manager: ProxyManager = super().proxy_manager_for(proxy, **kwargs)
        _guard_pools(manager)
        return manager


def _guard_pools(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}
