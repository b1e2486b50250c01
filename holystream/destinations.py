"""Where a client sends its requests: its endpoints, each with the key that it takes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from holystream.errors import ConfigurationError, InvalidAPIKey
from holystream.resilience.endpoints import APIKey, Endpoint, called, check_key
from holystream.wire.base_url import check_base_url

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holystream.providers.profile import Profile


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
        return (_keyed(only, profile, api_key, "base_url", allow_http=allow_http),)
    if base_url is not None:
        raise ConfigurationError("endpoints= takes the place of base_url=: give one")
    # Not every caller has mypy.
    given: tuple[Any, ...] = tuple(endpoints)
    for each in given:
        if not isinstance(each, Endpoint):
            raise ConfigurationError(
                f"endpoints= takes Endpoint objects, not {type(each).__name__}"
            )
    return tuple(
        _keyed(
            each,
            profile,
            api_key,
            f"the base_url of {called(each.name)}",
            allow_http=allow_http,
        )
        for each in given
    )


def _keyed(
    endpoint: Endpoint,
    profile: Profile,
    api_key: APIKey | None,
    url: str,
    *,
    allow_http: bool,
) -> Endpoint:
    """Return the endpoint with a key, if one is needed or given.

    A message calls its base URL ``url``.

    Raises:
        ConfigurationError: It cannot be used.
        InvalidAPIKey: The key is missing, or cannot be one.
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
