"""The providers by name, from the table of hosts and their habits in profiles.toml.

The table is read when the first profile is asked for, once in a process: importing this
reads nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from holystream.errors import ConfigurationError
from holystream.providers.openai_chat import OpenAIChat
from holystream.providers.profile import Prefill, Profile

if TYPE_CHECKING:
    from holystream.providers.base import Provider

__all__ = ["COMPATIBLE", "DEFAULT", "PROFILES", "profile", "provider", "table"]

DEFAULT: Final = "holysheep"
"""The provider of a client that names none."""

COMPATIBLE: Final = "openai-compatible"
"""The provider of a client that names none, but a base URL."""

_TABLE: Final = "profiles.toml"


class _Profiles(Mapping[str, Profile]):
    """The profiles of the table, by name."""

    def __getitem__(self, name: str) -> Profile:
        return _profiles()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_profiles())

    def __len__(self) -> int:
        return len(_profiles())


PROFILES: Final[Mapping[str, Profile]] = _Profiles()


def profile(name: str) -> Profile:
    """Return what is known of a host, to be changed with `dataclasses.replace`.

    Args:
        name: As in ``Client(provider=...)``: "openai", "azure", "vllm"...

    Raises:
        ConfigurationError: There is none of this name.
    """
    found = next((known for known in PROFILES.values() if known.name == name), None)
    if found is None:
        known = ", ".join(map(repr, PROFILES))
        raise ConfigurationError(f"provider={name!r} is unknown: use one of {known}")
    return found


def provider(which: str | Profile = DEFAULT) -> Provider:
    """Return the provider of this name, or for this profile.

    Raises:
        ConfigurationError: There is none of this name.
    """
    return OpenAIChat(which if isinstance(which, Profile) else profile(which))


def table() -> dict[str, Any]:
    """Return the table of profiles as it is written, sources and dates included."""
    import tomllib  # noqa: PLC0415 - wanted once, by whoever makes a client
    from importlib import resources  # noqa: PLC0415 - the same

    file = resources.files("holystream.providers").joinpath(_TABLE)
    return tomllib.loads(file.read_text(encoding="utf-8"))


@functools.cache
def _profiles() -> Mapping[str, Profile]:
    return {name: _profile(name, row) for name, row in table().items()}


def _profile(name: str, row: dict[str, Any]) -> Profile:
    models = {
        pattern: _changes(changed) for pattern, changed in row.pop("models", {}).items()
    }
    return Profile(
        name=name,
        models=models,
        checked=str(row.pop("checked")),
        source=row.pop("source"),
        **_changes(row),
    )


def _changes(row: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a row, without where its facts are from."""
    fields = {
        key: value for key, value in row.items() if key not in {"checked", "source"}
    }
    if "prefill" in fields:
        prefill = fields["prefill"]
        fields["prefill"] = Prefill(**prefill) if prefill else None
    return fields
