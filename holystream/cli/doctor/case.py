"""The case under examination: what was asked for, and what the checks find on the way.

Requests go through the library's own transport, so that what is examined is what will
be used: its proxies, its certificates, its headers.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

from holystream.building import user_agent
from holystream.clocks import Deadline, ReadClocks, Timeouts
from holystream.providers.registry import provider
from holystream.resilience.redact import fit_for_a_message, one_line_each
from holystream.wire.faults import Answer, Fault
from holystream.wire.guard import SocketGuard
from holystream.wire.http import HttpTransport
from holystream.wire.request import HttpRequest, origin, place

if TYPE_CHECKING:
    from collections.abc import Callable

    from holystream.errors import Phase
    from holystream.providers.profile import Profile
    from holystream.resilience.endpoints import APIKey

_CHAT: Final = "/chat/completions"
_DEPLOYMENT: Final = "/deployments/{model}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a request brought.

    Attributes:
        fault: Why it is no event stream.
        said: The same, in words for a person.
        phase: How far the request got.
        answer: Status, headers and the beginning of the body; None if there is none.
        sent_at: When it was sent, in seconds since 1970 by our clock.
        answered_at: When it was answered.
    """

    fault: Fault | None
    said: str
    phase: Phase
    answer: Answer | None
    sent_at: float
    answered_at: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How requests travel, by the settings of the environment.

    Attributes:
        proxy: The URL of the proxy; None for the direct way.
        variable: Where it was set.
        bundle: The file of certificates to trust; None for the default.
        bundle_variable: Where that was set.
    """

    proxy: str | None
    variable: str
    bundle: str | None
    bundle_variable: str


class Case:
    """One setup under examination. The checks share it, in one thread.

    Args:
        profile: The provider.
        base_url: The base URL as it was typed; None for the provider's own.
        allow_http: As in `holystream.Client`.
        model: The model to ask for a stream; None if none was named.
        stream: Ask it.
        seconds: The longest that connecting, and an answer, may take.
        now: Returns monotonic seconds.

    Attributes:
        key: The key, once it was found to be well-formed.
        base_url: The base URL, once it was found to be usable.
        addresses: Those of `next_hop`, once they were looked up.
    """

    def __init__(
        self,
        profile: Profile,
        base_url: str | None = None,
        *,
        allow_http: bool = False,
        model: str | None = None,
        stream: bool = False,
        seconds: float = 10.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.profile = profile
        self.typed_url = profile.base_url if base_url is None else base_url
        self.allow_http = allow_http
        self.model = model
        self.stream = stream
        self.seconds = seconds
        self.now = now
        self.key: APIKey | None = None
        self.base_url = ""
        self.addresses: list[tuple[Any, Any, int, str, Any]] = []
        self._transport = HttpTransport(connections=2, user_agent=user_agent())

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    @property
    def is_tls(self) -> bool:
        """Whether the base URL is https://."""
        return self.base_url.startswith("https:")

    @property
    def host(self) -> str:
        """The host of the base URL."""
        return origin(self.base_url)[1]

    @property
    def port(self) -> int:
        """The port of the base URL."""
        return origin(self.base_url)[2] or 0

    @functools.cached_property
    def route(self) -> Route:
        """How requests to the base URL travel."""
        # The transport's own judgement, for any other could differ from what it does.
        settings = self._transport._environment(  # noqa: SLF001 - see above
            self._transport._session,  # noqa: SLF001 - the same
            self.base_url,
        )
        scheme = origin(self.base_url)[0]
        proxies = settings["proxies"]
        proxy = proxies.get(scheme) or proxies.get("all")
        # Plain HTTP to this machine has none.
        verify = settings.get("verify")
        bundle = verify if isinstance(verify, str) else None
        return Route(
            proxy=with_scheme(proxy) if proxy else None,
            variable=_variable_of(
                proxy, f"{scheme}_proxy", f"{scheme}_PROXY".upper(), *_ANY_PROXY
            ),
            bundle=bundle,
            bundle_variable=_variable_of(bundle, *_BUNDLES),
        )

    @property
    def next_hop(self) -> tuple[str, int]:
        """Host and port of what is connected to: the server, or the proxy."""
        if self.route.proxy is None:
            return self.host, self.port
        _, host, port = origin(self.route.proxy)
        return host, port or 0

    @property
    def models_url(self) -> str:
        """Where the models are listed: the cheapest request of all."""
        path = self.profile.path.removesuffix(_CHAT).removesuffix(_DEPLOYMENT)
        query = urlencode(self.profile.query)
        return f"{self.base_url}{path}/models" + (f"?{query}" if query else "")

    @functools.cached_property
    def probe(self) -> Reply:
        """The answer to a GET of the models without the key."""
        return self.get(self.models_url, with_key=False)

    def get(self, url: str, *, with_key: bool) -> Reply:
        """Send a GET, with the key or without it."""
        secrets = (
            self.profile.key_headers(self.key.reveal()) if with_key and self.key else {}
        )
        request = HttpRequest(url=url, body=None, method="GET", secrets=secrets)
        fault, said = None, ""
        guard = self.guard()
        sent_at = time.time()
        try:
            connection = self._transport.open(request, guard)
        except Fault as refusal:
            # Anything that is no event stream is one, a good list of models too.
            fault, answer = refusal, refusal.answer
            parts = dict.fromkeys((fault.kind.value, fault.detail))
            said = self.clean(": ".join(filter(None, parts)))
        else:
            # It has the type of an event stream, or none at all.
            answer = Answer(status=200, headers=connection.headers, body=b"")
            connection.close()
        return Reply(
            fault=fault,
            said=said,
            phase=guard.phase,
            answer=answer,
            sent_at=sent_at,
            answered_at=time.time(),
        )

    def guard(self) -> SocketGuard:
        """Return a guard: ``seconds`` to connect, and as many for the answer."""
        timeouts = Timeouts(connect=self.seconds, first_token=2 * self.seconds)
        deadline = Deadline.after(2 * self.seconds, time.monotonic())
        return SocketGuard(ReadClocks(timeouts, deadline))

    def said(self, answer: Answer) -> str:
        """Return a status, and what the server said of it."""
        message = provider(self.profile).refusal(answer).message
        said = self.clean(message)
        return f"{answer.status}: {said}" if said else str(answer.status)

    def clean(self, text: str) -> str:
        """Return text from outside on one line, printable, without the key."""
        secrets = [self.key.reveal()] if self.key else []
        return fit_for_a_message(text, one_line_each(secrets))


_ANY_PROXY: Final = ("all_proxy", "ALL_PROXY")
_BUNDLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def with_scheme(proxy: str) -> str:
    """Return a proxy's URL as requests reads it: http:// goes without saying."""
    return proxy if "://" in proxy else f"http://{proxy}"


def shown(proxy: str) -> str:
    """Return what may be shown of a proxy's URL: not its password."""
    try:
        return place(with_scheme(proxy)).rstrip("/")
    except ValueError:
        return "a URL that cannot be read"


def port_is_valid(url: str) -> bool:
    """Whether the host and port of a URL can be read."""
    try:
        return bool(urlsplit(url).hostname) and origin(url)[2] != 0
    except ValueError:
        return False


def _variable_of(value: str | None, *names: str) -> str:
    """Return the variable that holds a value; it may be set otherwise."""
    return next(
        (name for name in names if value and os.environ.get(name) == value),
        "the system's settings",
    )
