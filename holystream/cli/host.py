"""Where a command asks: the arguments that say so, and what they come to."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING, Any

from holystream.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable


def add_host(add: Callable[..., Any], default: str) -> None:
    """Add the arguments that say where the API is."""
    from holystream.providers.registry import PROFILES  # noqa: PLC0415 - when it runs

    add("--provider", choices=tuple(PROFILES), help=f"default: {default}")
    add("--base-url", metavar="URL", help="where the API is, /v1 or the like included")
    add(
        "--allow-http",
        action="store_true",
        help="send the key over http:// to another machine, too",
    )


def add_limits(add: Callable[..., Any]) -> None:
    """Add the arguments that say how long it may take."""
    add(
        "--timeout",
        type=seconds,
        metavar="SECONDS",
        help="the longest silence, before the first text and amid it",
    )
    add(
        "--deadline",
        type=seconds,
        metavar="SECONDS",
        help="the longest it may take altogether",
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


def seconds(text: str) -> float:
    """Return the seconds that somebody typed.

    Raises:
        ArgumentTypeError: They are no seconds.
    """
    from holystream.clocks import check_seconds  # noqa: PLC0415 - as in add_host()

    try:
        found = float(text)
        check_seconds(found, "it")
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be a positive number of seconds, not {text!r}"
        ) from error
    return found


def strategies(text: str) -> tuple[str, ...]:
    """Return the ways to go on that somebody typed.

    Raises:
        ArgumentTypeError: One of them is unknown.
    """
    from holystream.resume import strategies as known  # noqa: PLC0415 - as above

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    try:
        known(names)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return names
