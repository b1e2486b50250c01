"""What the server says: what time it is, and whether it takes the key.

A GET of the models costs nothing. It is sent without the key and with it, because a
200 says nothing of the key if everybody gets it.
"""

from __future__ import annotations

import email.utils
import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from holystream.cli.doctor.findings import Finding, fine, found, skipped
from holystream.cli.doctor.tls import speaks_tls
from holystream.wire.faults import FaultKind
from holystream.wire.request import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holystream.cli.doctor.case import Case, Reply
    from holystream.wire.faults import Answer

_SKEW: Final = 5.0
"""Seconds from which on a difference of the clocks is worth a warning."""
_OK: Final = 200
_REDIRECTS: Final = range(300, 400)
_REFUSED: Final = (401, 403)
_BAD_REQUEST: Final = 400
_NO_SUCH: Final = (404, 405, 501)
"""What a web server says to what only an API knows."""
_BY_STATUS: Final[Mapping[int, str]] = {
    401: "authentication.refused",
    402: "authentication.no-credit",
    403: "authentication.forbidden",
    404: "authentication.not-found",
    407: "authentication.proxy",
    429: "authentication.throttled",
    **dict.fromkeys(_REDIRECTS, "authentication.redirected"),
    **dict.fromkeys(range(500, 600), "authentication.server-error"),
}


def clock(case: Case) -> Finding:
    """Compare our clock with the server's, as far as a Date in seconds tells."""
    reply = case.probe
    headers = reply.answer.headers if reply.answer else {}
    try:
        date = email.utils.parsedate_to_datetime(headers["date"]).timestamp()
    except KeyError:
        return skipped("the server sends no Date")
    except (ValueError, OverflowError, TypeError):
        return skipped("the server's Date cannot be read")
    if "age" in headers:
        return skipped("the answer is from a cache, and so is its Date")
    # Somewhere in this second, and between our sending and our receiving.
    least, most = date - reply.answered_at, date + 1 - reply.sent_at
    skew = max(least, 0.0) + min(most, 0.0)
    facts = {"skew_seconds": round(skew, 1)}
    if abs(skew) <= _SKEW:
        return fine(f"within {_SKEW:g} s of the server's", facts)
    which = "behind" if skew > 0 else "ahead of"
    text = f"{abs(skew):.0f} s {which} the server's"
    return found("clock.skewed", text, facts)


def authentication(case: Case) -> Finding:
    """Ask for the models, which needs the key and costs nothing."""
    reply = case.get(case.models_url, with_key=True) if case.key else case.probe
    answer = reply.answer
    if answer is None:
        return _unanswered(case, reply)
    facts = {"status": answer.status}
    words = {"variable": case.profile.key_variable}
    text = f"GET {urlsplit(case.models_url).path} answered "
    if answer.status == _OK:
        return _answered(case, answer, f"{text}200", facts)
    if answer.status in _REDIRECTS and reply.fault is not None:
        # Where to, without a query: it may be a secret.
        text += case.clean(reply.fault.detail)
    else:
        text += case.said(answer)
    if answer.status == _REFUSED[0] and case.key is None:
        return found("authentication.key-needed", text, facts, words)
    if answer.status == _BAD_REQUEST and speaks_tls(case):
        return found("authentication.tls-port", text, facts, _over_tls(case))
    problem = _BY_STATUS.get(answer.status, "authentication.unclear")
    if answer.status in _NO_SUCH and _is_page(answer):
        problem = "authentication.not-the-api"
    if problem == "authentication.not-found" and (right := _with_version(case)):
        return found("authentication.version-missing", text, facts, {"right": right})
    return found(problem, text, facts, words)


def is_simulator(case: Case) -> bool:
    """Whether the server is holystream's own, whose answers cost nothing."""
    answer = case.probe.answer
    if answer is None or not is_loopback(case.host):
        # The simulator may ask for a key.
        return False
    if answer.status in _REFUSED and case.key:
        answer = case.get(case.models_url, with_key=True).answer
    models = _models(answer)
    return bool(models) and all(model.get("owned_by") == "sim" for model in models)


def _answered(case: Case, answer: Answer, text: str, facts: dict[str, Any]) -> Finding:
    """Say what a 200 means."""
    kind = answer.headers.get("content-type")
    if kind is None:
        # Then it passes for an event stream, and is not read as anything else.
        return found("authentication.unclear", f"{text} without a type", facts)
    if not _is_json(answer):
        text = f"{text} with {case.clean(kind)}"
        return found("authentication.not-the-api", text, facts)
    if case.key is None:
        return fine(f"{text} without a key", facts)
    without = case.probe.answer
    if without is not None and without.status in _REFUSED:
        return fine(f"{text} with the key, {without.status} without", facts)
    return found("authentication.open", f"{text} with the key and without", facts)


def _unanswered(case: Case, reply: Reply) -> Finding:
    """Say what it means that there is no answer."""
    facts = {"phase": reply.phase.name}
    kind = reply.fault.kind if reply.fault else None
    if kind in {FaultKind.LOST, FaultKind.GARBAGE} and speaks_tls(case):
        return found("authentication.tls-port", reply.said, facts, _over_tls(case))
    if kind is FaultKind.REDIRECT:
        return found("authentication.redirect-loop", reply.said, facts)
    if kind is FaultKind.GARBAGE:
        return found("authentication.not-http", reply.said, facts)
    return found("authentication.no-answer", reply.said, facts)


def _over_tls(case: Case) -> dict[str, str]:
    return {"right": f"https{case.base_url.removeprefix('http')}"}


def _with_version(case: Case) -> str | None:
    """Return the base URL with /v1, if that is what it lacks."""
    if urlsplit(case.base_url).path:
        return None
    right = f"{case.base_url}/v1"
    answer = case.get(f"{right}/models", with_key=False).answer
    if answer is None or answer.status not in {_OK, *_REFUSED}:
        return None
    return right if _is_json(answer) else None


def _is_json(answer: Answer) -> bool:
    """Whether the body looks like JSON; its end may be missing."""
    return answer.body.lstrip()[:1] in {b"{", b"["}


def _is_page(answer: Answer) -> bool:
    """Whether it is meant for a browser."""
    return answer.headers.get("content-type", "").lower().startswith("text/html")


def _models(answer: Answer | None) -> list[dict[str, Any]]:
    try:
        listed = json.loads(answer.body)["data"] if answer else []
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    if not isinstance(listed, list):
        return []
    return [model for model in listed if isinstance(model, dict)]
