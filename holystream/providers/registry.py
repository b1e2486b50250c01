"""The providers by name: the one place that knows hosts and their habits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holystream.errors import ConfigurationError
from holystream.providers.base import Profile
from holystream.providers.openai_chat import OpenAIChat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holystream.providers.base import Provider

__all__ = ["DEFAULT", "PROFILES", "provider"]

DEFAULT: Final = "holysheep"
"""The provider of a client that names none."""

PROFILES: Final[Mapping[str, Profile]] = {
    profile.name: profile
    for profile in (
        # What stands behind it varies by model, so nothing is assumed that the API
        # it claims to speak does not promise.
        Profile(
            name=DEFAULT,
            base_url="https://api.holysheep.ai/v1",
            key_variable="HOLYSHEEP_API_KEY",
        ),
        # Any server of that API: local ones need no key.
        Profile(
            name="openai-compatible",
            base_url=None,
            key_variable="HOLYSTREAM_API_KEY",
            key_required=False,
        ),
    )
}


def provider(name: str = DEFAULT) -> Provider:
    """Return the provider of this name.

    Raises:
        ConfigurationError: There is none.
    """
    profile = next((known for known in PROFILES.values() if known.name == name), None)
    if profile is None:
        known = ", ".join(map(repr, PROFILES))
        raise ConfigurationError(f"provider={name!r} is unknown: use one of {known}")
    return OpenAIChat(profile)
