"""What servers say instead of an answer, in all their dialects.

One reader for error bodies and for error events inside a stream: OpenAI, Anthropic,
Gemini, OpenRouter, FastAPI, plain text, a proxy's HTML page. It never fails, and what
it returns can be put on one line of a log: short, and without control characters. The
request itself is not in it, unless the server's own message quotes it.
"""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from holystream.wire.faults import Refusal

if TYPE_CHECKING:
    from holystream.wire.faults import Answer

__all__ = ["read_refusal"]

_MESSAGE_LIMIT: Final = 500
_CODE_LIMIT: Final = 100
_PAGE_LIMIT: Final = 8192
"""How much of an HTML page is looked at: the expressions below are quadratic."""
_DEPTH_LIMIT: Final = 5
"""How many errors may be wrapped in each other."""

_MESSAGE_KEYS: Final = ("message", "msg", "error_description", "title")
_STATUS_KEYS: Final = ("code", "status", "status_code")
_FIRST_ERROR_STATUS: Final = 400
_LAST_ERROR_STATUS: Final = 599

_TITLE: Final = re.compile(r"<title[^>]*>(.*?)</title", re.DOTALL | re.IGNORECASE)
_TAG: Final = re.compile(
    r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE
)
_SECONDS: Final = re.compile(r"\d{1,9}(\.\d{1,9})?s?")
_LONGEST_WAIT: Final = 10**9
"""Seconds: some 30 years. Nobody means more by a number, and JSON has numbers that no
float can hold."""


def read_refusal(answer: Answer) -> Refusal:
    """Read an error body or an error event, in any shape; never fails."""
    status = answer.status if answer.status >= _FIRST_ERROR_STATUS else None
    text = answer.body.decode("utf-8", "replace").strip().removeprefix("\ufeff")
    try:
        body = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        body = _page(text) if _is_html(answer, text) else text
    if isinstance(body, list) and body and isinstance(body[0], dict):
        body = body[0]  # Gemini wraps the errors of a stream in a list.
    error = _error(body) if isinstance(body, dict) else {}
    message = _message(error) or ("" if isinstance(body, dict) else _text(body))
    if not message and isinstance(body, dict):
        message = _finish_reason(body) or ("" if "choices" in body else _text(body))
    code, kind = error.get("code"), error.get("type")
    if kind is None and not _is_number(error.get("status")):
        kind = error.get("status")  # Gemini: "RESOURCE_EXHAUSTED"
    return Refusal(
        message=_clean(message, _MESSAGE_LIMIT) or "the server gave no reason",
        status=status or _status(error) or _status(body),
        code=_word(code),
        type=_word(kind),
        retry_after=_retry_after(error),
        whole_answer=error is body and _is_whole_answer(error),
    )


def _error(body: dict[str, Any]) -> dict[str, Any]:
    """Return the innermost object that describes the error."""
    error = body
    for _ in range(_DEPTH_LIMIT):
        inner = next(
            (error[key] for key in ("error", "detail", "errors") if error.get(key)),
            None,
        )
        if inner is None:
            break
        if (
            isinstance(inner, list)
            and inner
            and isinstance(inner[0], dict)
            and "loc" not in inner[0]
        ):
            inner = inner[0]
        if isinstance(inner, dict):
            error = inner
            continue
        # "error" is only a name here: what surrounds it is the error.
        parts = [_detail(inner), _message(error)]
        return {**error, "message": ": ".join(dict.fromkeys(filter(None, parts)))}
    if error is body:
        for choice in body["choices"] if isinstance(body.get("choices"), list) else ():
            if isinstance(choice, dict) and isinstance(choice.get("error"), dict):
                return dict(choice["error"])
    return error


def _message(error: dict[str, Any]) -> str:
    message = next((_text(error[key]) for key in _MESSAGE_KEYS if error.get(key)), "")
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and metadata.get("raw"):
        # OpenRouter: what the provider behind it said.
        source = metadata.get("provider_name")
        raw = _text(metadata["raw"])
        said = f"{source}: {raw}" if isinstance(source, str) else raw
        message = f"{message}: {said}" if message else said
    return message


def _detail(detail: Any) -> str:
    """Read FastAPI's detail: a text, or a list of what is wrong and where.

    Its ``input`` is left out: it quotes the request.
    """
    if not isinstance(detail, list):
        return detail if isinstance(detail, str) else ""
    parts = []
    for entry in detail:
        if not isinstance(entry, dict):
            parts.append(_text(entry))
            continue
        place = entry.get("loc")
        where = ".".join(map(str, place)) if isinstance(place, list) else ""
        what = _message(entry)
        parts.append(f"{where}: {what}" if where else what)
    return "; ".join(filter(None, parts))


def _finish_reason(body: dict[str, Any]) -> str:
    """Describe a chunk whose only complaint is its finish reason."""
    choices = body.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and isinstance(choice.get("finish_reason"), str):
            return f"the answer ended with finish_reason {choice['finish_reason']!r}"
    return ""


def _is_whole_answer(body: dict[str, Any]) -> bool:
    """Whether it is what is sent to those who did not ask for a stream."""
    choices = body.get("choices")
    return isinstance(choices, list) and any(
        isinstance(choice, dict) and isinstance(choice.get("message"), dict)
        for choice in choices
    )


def _status(error: Any) -> int | None:
    """Return the HTTP status that a numeric code stands for."""
    if not isinstance(error, dict):
        return None
    for key in _STATUS_KEYS:
        value = error.get(key)
        if isinstance(value, str) and re.fullmatch(r"[45]\d\d", value, re.ASCII):
            value = int(value)
        if _is_number(value) and _FIRST_ERROR_STATUS <= value <= _LAST_ERROR_STATUS:
            return int(value)
    return None


def _retry_after(error: dict[str, Any]) -> float | None:
    """Return the seconds to wait that the error itself names."""
    metadata = error.get("metadata")
    hints = [error.get("retry_after"), error.get("retry_after_seconds")]
    if isinstance(metadata, dict):
        hints += [metadata.get("retry_after"), metadata.get("retry_after_seconds")]
    details = error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict):
            hints.append(detail.get("retryDelay"))
    for hint in hints:
        value = hint
        if isinstance(value, str) and _SECONDS.fullmatch(value):
            value = float(value.removesuffix("s"))
        if _is_number(value) and 0 <= value < _LONGEST_WAIT:
            return float(value)
    return None


def _is_html(answer: Answer, text: str) -> bool:
    return (
        "html" in answer.headers.get("content-type", "")
        or re.match(r"<(!doctype|html|head|body)\b", text, re.IGNORECASE) is not None
    )


def _page(text: str) -> str:
    """Return the title of an HTML page, else the start of its text."""
    text = text[:_PAGE_LIMIT]
    title = _TITLE.search(text)
    if title is not None and title[1].strip():
        return _unescaped(title[1])
    return _unescaped(_TAG.sub(" ", text))


def _unescaped(text: str) -> str:
    try:
        return html.unescape(text)
    except ValueError:
        # A character's number may have more digits than Python reads.
        return text


def _text(value: Any) -> str:
    """Return a text as it is and anything else as JSON."""
    if isinstance(value, str):
        return value
    try:
        return "" if value is None else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return ""


def _word(value: Any) -> str | None:
    """Return a code or a type as a string."""
    if _is_number(value):
        value = str(value)
    return _clean(value, _CODE_LIMIT) or None if isinstance(value, str) else None


def _clean(text: str, limit: int) -> str:
    """Return the first line's worth of a text, printable."""
    # Cut before as well: a body may have 64 KiB, and only its start is shown.
    head = text[: 10 * limit]
    printable = "".join(char if char.isprintable() else " " for char in head)
    words = " ".join(printable.split())
    return words if len(words) <= limit else words[: limit - 3] + "..."


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
