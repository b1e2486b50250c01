"""Where a command asks: the arguments that say so, and what they come to."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from holystream import Client, PrioritySemaphore
    from holystream.journal import Journal


def add_host(
    add: Callable[..., Any],
    default: str = "holysheep, or openai-compatible if --base-url is given",
) -> None:
    """Add the arguments that say where the API is."""
    from holystream.providers.registry import PROFILES  # noqa: PLC0415 - when it runs

    add("--provider", choices=tuple(PROFILES), help=f"default: {default}")
    add_address(add)


def add_address(add: Callable[..., Any]) -> None:
    """Add the arguments that say at which address it is."""
    add("--base-url", metavar="URL", help="where the API is, /v1 or the like included")
    add(
        "--allow-http",
        action="store_true",
        help="send the key over http:// to another machine, too",
    )


def add_verbose(add: Callable[..., Any]) -> None:
    """Add the argument that makes a command talkative."""
    add(
        "-v",
        "--verbose",
        action="store_true",
        help="tell on stderr what happens, one line each",
    )


def provider_of(options: argparse.Namespace) -> str:
    """Return the provider's name: the one that was given, or what goes without."""
    # A key for the default provider is not sent to a URL that somebody typed.
    named: str | None = options.provider
    return named or ("openai-compatible" if options.base_url else "holysheep")


def client_for(
    options: argparse.Namespace,
    *,
    provider: str | None = None,
    journal: Journal | None = None,
    pool: PrioritySemaphore | None = None,
) -> Client:
    """Return a client that asks where the arguments of `add_host` say.

    Args:
        options: The arguments.
        provider: In place of the one that they come to.
        journal: As for `Client`.
        pool: As for `Client`.

    Raises:
        ConfigurationError: One of them is wrong, or the key is missing.
    """
    from holystream import Client  # noqa: PLC0415 - only when there is one to ask

    return Client(
        provider=provider or provider_of(options),
        base_url=options.base_url,
        allow_http=options.allow_http,
        journal=journal,
        pool=pool,
    )


def as_typed(options: argparse.Namespace) -> str:
    """Return the arguments of `add_host` as they were given."""
    words: list[str] = []
    if options.provider:
        words += ["--provider", options.provider]
    if options.base_url:
        words += ["--base-url", options.base_url]
    if options.allow_http:
        words.append("--allow-http")
    return shlex.join(words)
