"""The text form of a Script: `cut_at=120; cut=rst; headers.Retry-After=2`.

For the command line and the `X-Simulator` request header, hence one line of
ASCII. Items are separated by commas or semicolons; a value that contains one
is written as a JSON string; `error` and `error_event` also take a JSON object.
A key alone means true. Whatever `write` writes, `read` reads back.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

_KEY = re.compile(r"\s*([^=,;\s]+)\s*(=?)\s*")
_PLAIN = re.compile(r"[^,;]*")
_END = re.compile(r"\s*(?:[,;]|$)")
_NEEDS_QUOTES = re.compile(r"[,;\"{}]|[^ -~]|^\s|\s$|^$")
_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_NEWLINES = {"lf": "\n", "crlf": "\r\n", "cr": "\r"}
_HEADER = "headers."


def _flag(value: str) -> bool:
    if value.lower() not in _FLAGS:
        raise ValueError("expected true or false")
    return _FLAGS[value.lower()]


def _number(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError("expected a whole number") from None


def _seconds(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError("expected seconds, as in 0.5") from None


def _pair(value: str) -> tuple[int, float]:
    size, slash, seconds = value.partition("/")
    try:
        return int(size), float(seconds if slash else "none")
    except ValueError:
        raise ValueError("expected bytes/seconds, as in 3/0.01") from None


def _newline(value: str) -> str:
    if value not in _NEWLINES.values() and value.lower() not in _NEWLINES:
        raise ValueError("expected lf, crlf or cr")
    return _NEWLINES.get(value.lower(), value)


def _echo(value: str) -> str:
    return "pieces" if value.lower() in ("true", "yes", "1") else value


def _body(value: str | Mapping[str, Any]) -> bytes | Mapping[str, Any]:
    # surrogateescape carries bytes that are not UTF-8 through the text form.
    return value.encode(errors="surrogateescape") if isinstance(value, str) else value


def _block(value: str | Mapping[str, Any]) -> bytes | str | Mapping[str, Any]:
    # A raw block has a colon in it, a name has not: a typo stays an error.
    return _body(value) if not isinstance(value, str) or ":" in value else value


_READERS: Mapping[str, Callable[[Any], object]] = {
    **dict.fromkeys(
        ("latency", "first_token", "pace", "pings", "linger", "ttl"), _seconds
    ),
    **dict.fromkeys(
        ("cut_at", "stall_at", "error_event_at", "malformed_at", "rechunk"), _number
    ),
    **dict.fromkeys(("status", "times"), _number),
    **dict.fromkeys(("garbage_status_line", "stall_headers", "drip_chunk_size"), _flag),
    **dict.fromkeys(("echo_key", "finish", "done", "bom", "gzip"), _flag),
    **dict.fromkeys(("final_blank_line", "split_surrogates"), _flag),
    **dict.fromkeys(("cut", "cut_before_headers", "framing", "usage"), str),
    **dict.fromkeys(("ping_text", "content_type", "redirect", "finish_reason"), str),
    **dict.fromkeys(("differ_at", "shorter", "cached_tokens"), _number),
    **dict.fromkeys(("replay_events", "shuffle", "overlap", "ring"), _number),
    **dict.fromkeys(("sampling", "tokens"), _flag),
    **dict.fromkeys(("ids", "cursor", "prefill", "stitch", "preamble"), str),
    "echo": _echo,
    **dict.fromkeys(("drip", "drip_headers"), _pair),
    "newline": _newline,
    "error": _body,
    "error_event": _block,
}
_OBJECTS = ("error", "error_event")


def read(text: str) -> dict[str, Any]:
    """Turn the text into keyword arguments of Script.

    Raises:
        ValueError: A key is not known, or its value does not fit.
    """
    found: dict[str, Any] = {}
    headers: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _KEY.match(text, at)
        if match is None:
            if separator := _END.match(text, at):
                at = max(separator.end(), at + 1)
                continue
            raise ValueError(f"expected key=value at {text[at:]!r}")
        key = match[1]
        value, at = (
            _value(text, match.end(), key) if match[2] else ("true", match.end())
        )
        end = _END.match(text, at)
        if end is None:
            raise ValueError(f"expected a comma or semicolon at {text[at:]!r}")
        at = end.end()
        if key.startswith(_HEADER) and len(key) > len(_HEADER):
            headers[key.removeprefix(_HEADER)] = str(value)
        else:
            found[key] = _convert(key, value)
    if headers:
        found["headers"] = headers
    return found


def _value(text: str, at: int, key: str) -> tuple[Any, int]:
    if text[at : at + 1] in ('"', "{"):
        try:
            value, end = json.JSONDecoder().raw_decode(text, at)
        except ValueError as error:
            raise ValueError(f"{key}: not valid JSON: {error}") from error
        return value, end
    match = _PLAIN.match(text, at)
    plain = match[0] if match else ""
    return plain.rstrip(), at + len(plain)


def _convert(key: str, value: Any) -> object:
    reader = _READERS.get(key)
    if reader is None:
        known = ", ".join((*sorted(_READERS), "headers.NAME"))
        raise ValueError(f"unknown key {key!r}; known: {known}")
    if not isinstance(value, str) and key not in _OBJECTS:
        raise ValueError(f"{key}: a JSON object does not fit here")
    try:
        return reader(value)
    except ValueError as error:
        raise ValueError(f"{key}={value}: {error}") from error


def write(values: Mapping[str, Any]) -> str:
    """Turn keyword arguments of Script into text; `gate` has none."""
    return "; ".join(_items(values))


def _items(values: Mapping[str, Any]) -> list[str]:
    items: list[str] = []
    for key, value in values.items():
        if key == "headers":
            items += [
                f"{_HEADER}{name}={_quoted(text)}" for name, text in value.items()
            ]
        elif key != "gate":
            items.append(f"{key}={_text(key, value)}")
    return items


def _text(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"{value[0]}/{value[1]!r}"
    if isinstance(value, bytes):
        return json.dumps(value.decode(errors="surrogateescape"))
    if isinstance(value, Mapping):
        return json.dumps(dict(value), separators=(",", ":"))
    if key == "newline":
        return next(name for name, ending in _NEWLINES.items() if ending == value)
    return _quoted(str(value))


def _quoted(text: str) -> str:
    return json.dumps(text) if _NEEDS_QUOTES.search(text) else text
