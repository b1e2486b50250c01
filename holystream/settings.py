"""What a caller may set, checked before anything is sent."""

from __future__ import annotations

import dataclasses
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from holystream.clocks import Timeouts, check_seconds
from holystream.errors import ConfigurationError, InvalidAPIKey, InvalidRequest
from holystream.events import Guarantee
from holystream.journal.shared import Journals
from holystream.providers.jsonvalues import kind, plain, wrong
from holystream.resilience.budget import RetryBudget
from holystream.resilience.circuit import BreakerPolicy
from holystream.resilience.endpoints import APIKey, Endpoint, called, check_key
from holystream.resilience.pool import PRIORITIES, Priority, PrioritySemaphore
from holystream.resilience.retry import RetryPolicy
from holystream.resume import DEFAULT_STRATEGIES, ResumeStrategy, strategies
from holystream.wire.base_url import check_base_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from holystream.journal import Journal
    from holystream.providers.profile import Profile

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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """How streams are recorded.

    Attributes:
        every: Characters of text that may come before they are stored; 0 stores what
            one read brought before the first of it is handed over.
        interval: Seconds that may pass before what came is stored; 0 as above.
        ttl: Seconds to keep a stream.
        best_effort: A stream goes on where it cannot be recorded.
    """

    every: int = 0
    interval: float = 0.0
    ttl: float = 86400.0
    best_effort: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.every, bool) or not _is(self.every, int) or self.every < 0:
            raise ConfigurationError(
                f"checkpoint_every= takes characters, 0 or more, not {self.every!r}"
            )
        if self.interval:
            check_seconds(self.interval, "checkpoint_interval")
        check_seconds(self.ttl, "journal_ttl")
        if not _is(self.best_effort, bool):
            raise ConfigurationError("journal_best_effort= takes True or False")

    def changed(self, *, every: int | None, interval: float | None) -> Recording:
        """Return a recording in which what is not None has changed.

        Raises:
            ConfigurationError: A value is wrong.
        """
        return dataclasses.replace(
            self,
            every=self.every if every is None else every,
            interval=self.interval if interval is None else interval,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a client has as its default and a stream may have otherwise."""

    model: str | None = None
    timeouts: Timeouts = dataclasses.field(default_factory=Timeouts)
    deadline: float | None = None
    retry: RetryPolicy = dataclasses.field(default_factory=RetryPolicy)
    resume: tuple[ResumeStrategy, ...] = strategies(DEFAULT_STRATEGIES)
    min_guarantee: Guarantee | None = None
    journals: Journals = dataclasses.field(default_factory=Journals)
    journal: Journal | None = None
    recording: Recording = dataclasses.field(default_factory=Recording)

    @property
    def ways(self) -> tuple[str, ...]:
        """The names of the strategies, as ``resume=`` takes them."""
        return tuple(dict.fromkeys(way.name for way in self.resume))

    def changed(
        self,
        *,
        model: str | None,
        timeout: Timeouts | float | tuple[float, float] | None,
        deadline: float | None,
        retry: RetryPolicy | None,
        resume: Sequence[str] | None,
        min_guarantee: Guarantee | None,
    ) -> Settings:
        """Return settings in which what is not None has changed.

        Raises:
            ConfigurationError: A value is wrong.
        """
        return dataclasses.replace(
            self,
            model=self.model if model is None else model,
            timeouts=self.timeouts if timeout is None else Timeouts.of(timeout),
            deadline=self.deadline if deadline is None else _deadline(deadline),
            retry=self.retry if retry is None else checked_retry(retry),
            resume=self.resume if resume is None else strategies(resume),
            min_guarantee=(
                self.min_guarantee
                if min_guarantee is None
                else _guarantee(min_guarantee)
            ),
        )

    def recorded(
        self,
        journal: str | os.PathLike[str] | Journal | None,
        every: int | None,
        interval: float | None,
    ) -> Settings:
        """Return settings in which how a stream is recorded has changed.

        Raises:
            ConfigurationError: A value is wrong.
            JournalError: The journal cannot be opened.
        """
        return dataclasses.replace(
            self,
            journal=self.journal if journal is None else self.journals.of(journal),
            recording=self.recording.changed(every=every, interval=interval),
        )


def endpoints_of(
    profile: Profile,
    api_key: APIKey | None,
    base_url: str | None,
    endpoints: Iterable[Endpoint] | None,
    *,
    allow_http: bool,
) -> tuple[Endpoint, ...]:
    """Return where to send requests, each with its key.

    An endpoint without a key of its own gets the one from the argument or environment.

    Raises:
        ConfigurationError: There is none, or one cannot be used.
        InvalidAPIKey: A key is missing, or cannot be one.
    """
    if endpoints is None:
        url = profile.base_url if base_url is None else base_url
        if url is None:
            raise ConfigurationError(
                f"provider={profile.name!r} needs base_url=, such as "
                f"{profile.base_url_example!r}"
            )
        check_base_url(url, allow_http=True, has_key=False)
        only = Endpoint(url, name=profile.name)
        return (_keyed(only, profile, api_key, allow_http, "base_url"),)
    if base_url is not None:
        raise ConfigurationError("endpoints= takes the place of base_url=: give one")
    given = tuple(endpoints)
    for each in given:
        if not _is(each, Endpoint):
            raise ConfigurationError(
                f"endpoints= takes Endpoint objects, not {type(each).__name__}"
            )
    return tuple(
        _keyed(
            each, profile, api_key, allow_http, f"the base_url of {called(each.name)}"
        )
        for each in given
    )


def _keyed(
    endpoint: Endpoint,
    profile: Profile,
    api_key: APIKey | None,
    allow_http: bool,  # noqa: FBT001 - handed on
    url: str,
) -> Endpoint:
    """Return the endpoint with a key, if one is needed or given.

    A message calls its base URL ``url``.
    """
    key = endpoint.key
    if key is None and api_key is not None:
        key = check_key(api_key.reveal(), "api_key=")
    elif key is None and os.environ.get(profile.key_variable):
        key = check_key(os.environ[profile.key_variable], profile.key_variable)
    elif key is None and profile.key_required:
        raise InvalidAPIKey(
            f"no API key: set the environment variable {profile.key_variable} or pass "
            "api_key="
        )
    check_base_url(
        endpoint.base_url, allow_http=allow_http, has_key=key is not None, called=url
    )
    return Endpoint(
        endpoint.base_url,
        key=key,
        name=endpoint.name,
        region=endpoint.region,
        priority=endpoint.priority,
        models=endpoint.models,
    )


def checked_breaker(policy: BreakerPolicy | None) -> BreakerPolicy | None:
    """Return ``policy``, if it is one."""
    if policy is not None and not _is(policy, BreakerPolicy):
        raise ConfigurationError(
            f"breaker= takes a BreakerPolicy, not {type(policy).__name__}"
        )
    return policy


def checked_budget(budget: RetryBudget | None) -> RetryBudget | None:
    """Return ``budget``, if it is one."""
    if budget is not None and not _is(budget, RetryBudget):
        raise ConfigurationError(
            f"retry_budget= takes a RetryBudget, not {type(budget).__name__}"
        )
    return budget


def _is(value: object, kind: type) -> bool:
    """Check at run time what the annotations promise: not every caller has mypy."""
    return isinstance(value, kind)


def _deadline(seconds: float) -> float:
    check_seconds(seconds, "deadline")
    return seconds


def checked_retry(policy: RetryPolicy) -> RetryPolicy:
    """Return ``policy``, if it is one."""
    if not _is(policy, RetryPolicy):
        raise ConfigurationError(
            "retry= takes a RetryPolicy; tenacity objects go into it: "
            f"RetryPolicy(wait=..., stop=..., retry=...), not {type(policy).__name__}"
        )
    return policy


def _guarantee(guarantee: Guarantee) -> Guarantee:
    if not _is(guarantee, Guarantee):
        raise ConfigurationError(
            "min_guarantee= takes a Guarantee, such as Guarantee.REPLAYED, not "
            f"{guarantee!r}"
        )
    return guarantee


def checked_pool(pool: PrioritySemaphore) -> PrioritySemaphore:
    """Return ``pool``, if it is one."""
    if not _is(pool, PrioritySemaphore):
        raise ConfigurationError(
            f"pool= takes a PrioritySemaphore, not {type(pool).__name__}"
        )
    return pool


def checked_verify(verify: bool | str) -> bool | str:  # noqa: FBT001 - as in requests
    """Return ``verify``, if it is a switch or the path of a CA bundle that exists."""
    if _is(verify, bool) or (_is(verify, str) and Path(str(verify)).exists()):
        return verify
    raise ConfigurationError(
        f"verify= takes True, or the path of a CA bundle that exists, not {verify!r}"
    )


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
