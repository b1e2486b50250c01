"""What a command asks of an answer: the arguments, and what they come to."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from holystream.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holystream.mapping.options import MapOptions


def add_sampling(add: Callable[..., Any]) -> None:
    """Add the arguments that say how the model writes."""
    add("--temperature", type=float, metavar="T", help="0: the same answer each time")
    add(
        "--max-tokens",
        type=whole_number,
        metavar="N",
        help="the most an answer may have",
    )
    add("--seed", type=int, metavar="N", help="makes an answer repeatable")


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


def sampling(options: argparse.Namespace) -> MapOptions:
    """Return what makes an answer another one: the model, and how it writes."""
    return {
        "model": options.model,
        "temperature": options.temperature,
        "max_tokens": options.max_tokens,
        "seed": options.seed,
    }


def asked(options: argparse.Namespace) -> MapOptions:
    """Return all that the arguments ask of an answer, as `Client` takes it."""
    return {
        **sampling(options),
        "timeout": options.timeout,
        "deadline": options.deadline,
        "resume": options.resume,
    }


def whole_number(text: str) -> int:
    """Return the number that somebody typed.

    Raises:
        ArgumentTypeError: It is none, or 0.
    """
    if text.isascii() and text.isdigit() and int(text):
        return int(text)
    raise argparse.ArgumentTypeError(
        f"must be a whole number of at least 1, not {text!r}"
    )


def seconds(text: str) -> float:
    """Return the seconds that somebody typed.

    Raises:
        ArgumentTypeError: They are no seconds.
    """
    from holystream.clocks import check_seconds  # noqa: PLC0415 - when it runs

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
