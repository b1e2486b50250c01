"""Plain JSON values from whatever a caller put into a request.

What comes out is a deep copy made of dict, list, str, int, float, bool and None alone,
and can be encoded. What cannot is an `InvalidRequest` that says where it is, and never
what it is: the place is made of indexes and of keys that look like names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from holystream.errors import InvalidRequest

__all__ = ["kind", "plain", "wrong"]

_DEPTH_LIMIT: Final = 100
_KEY_LIMIT: Final = 40
_INT_BITS: Final = 64


def wrong(where: str, what: str, expected: str) -> InvalidRequest:
    """Return the error for an argument."""
    return InvalidRequest(f"{where} is {what}: expected {expected}")


def kind(value: object) -> str:
    """Say what a value is without showing it."""
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """Return a deep copy that is JSON.

    Args:
        value: Any value.
        where: Its place, for the message.
        depth: How many containers it is in.

    Raises:
        InvalidRequest: It, or something in it, cannot be JSON.
    """
    if depth > _DEPTH_LIMIT:
        place = where.partition("[")[0].partition(".")[0]
        raise wrong(place, f"more than {_DEPTH_LIMIT} levels deep", "fewer")
    if isinstance(value, str | int | float):
        return _scalar(value, where)
    if isinstance(value, Mapping):
        return {
            _key(key, where): plain(element, f"{where}{_step(key)}", depth + 1)
            for key, element in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            plain(element, f"{where}[{place}]", depth + 1)
            for place, element in enumerate(value)
        ]
    return _scalar(value, where)


def _scalar(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            # Not chained: the cause holds the text.
            raise wrong(where, "a text with a lone surrogate", "UTF-8") from None
        return str.__str__(value)  # An enum's own __str__ is not its value.
    if isinstance(value, int):
        if value.bit_length() >= _INT_BITS:
            raise wrong(where, "too large an integer", "one of 64 bits")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise wrong(where, f"{value!r}", "a number that JSON can hold")
        return float(value)
    raise wrong(where, kind(value), "a value that JSON can hold")


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise wrong(where, f"a mapping with a key that is {kind(key)}", "texts as keys")
    text: str = _scalar(key, f"a key of {where}")
    return text


def _step(key: object) -> str:
    """Return a step of a path; a key that is no name may be content."""
    is_name = isinstance(key, str) and key.isidentifier() and len(key) <= _KEY_LIMIT
    return f".{key}" if is_name else "[...]"
