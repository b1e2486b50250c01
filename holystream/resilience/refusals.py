"""What an API means by refusing: its codes, its words and its statuses, as tables.

`CODES`, `PHRASES` and `STATUSES` are asked in that order. An API's own code knows more
than its status: a 429 may be a used-up account, a 400 a prompt that is too long. A code
as broad as ``invalid_request_error`` knows less than the status, and is asked last.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from holystream.errors import (
    APIError,
    AuthenticationError,
    BadRequest,
    ContentFiltered,
    ContextLengthExceeded,
    ModelNotFound,
    NotFound,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    ServerError,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holystream.wire.faults import Refusal

_LOWEST_ERROR_STATUS: Final = 400
_STATUS_CODE: Final = re.compile(r"[45]\d\d", re.ASCII)

_LOOKED_AT: Final = 4_000
"""Characters of a message in which phrases are looked for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Meaning:
    """What an API says with a code, a phrase or a status.

    Attributes:
        verdict: What it means for the next attempt.
        error: The class of the typed error.
        advice: What to do about it; ``{key_variable}`` is the key's variable.
        broad: A status says more than a code of this meaning.
    """

    verdict: Verdict
    error: type[APIError]
    advice: str = ""
    broad: bool = False


_AUTHENTICATION = Meaning(
    Verdict.FATAL,
    AuthenticationError,
    "Check the API key: the environment variable {key_variable}, or the argument "
    "api_key=.",
)
OWN_KEY: Final = "Check the key= of its Endpoint."
_PERMISSION = Meaning(
    Verdict.FATAL,
    PermissionDenied,
    "The key is known but may not do this: check its project, region and rights.",
)
_MODEL = Meaning(
    Verdict.FATAL,
    ModelNotFound,
    "Check model=, and that this key may use it.",
)
_PATH = Meaning(
    Verdict.FATAL,
    NotFound,
    "Check base_url: it usually ends in /v1.",
)
_METHOD = Meaning(
    Verdict.FATAL,
    BadRequest,
    "It takes no such request there, as a web server that is no API. Check base_url: "
    "it usually ends in /v1.",
)
_NO_API = dataclasses.replace(_METHOD, error=ServerError)
PROXY_LOGIN: Final = (
    "The proxy wants a user and a password: put them into HTTPS_PROXY or HTTP_PROXY, "
    "as in http://user:password@host:port."
)
_PROXY = Meaning(Verdict.FATAL, PermissionDenied, PROXY_LOGIN)
_QUOTA = Meaning(
    Verdict.FATAL,
    QuotaExceeded,
    "Waiting does not help: check the account's credit and spending limit.",
)
_RATE = Meaning(
    Verdict.THROTTLED,
    RateLimited,
    "Send fewer requests at once, or ask for a higher limit.",
)
_OVERLOADED = Meaning(
    Verdict.SERVER_ERROR,
    Overloaded,
    "Try later, or another model or endpoint.",
)
_SERVER = Meaning(Verdict.SERVER_ERROR, ServerError)
_BROAD_SERVER = dataclasses.replace(_SERVER, broad=True)
_CONTEXT = Meaning(
    Verdict.FATAL,
    ContextLengthExceeded,
    "Shorten the messages, lower max_tokens or take a model with a larger context.",
)
_FILTER = Meaning(
    Verdict.FATAL,
    ContentFiltered,
    "The prompt was refused by a content filter: change it.",
)
_REQUEST = Meaning(Verdict.FATAL, BadRequest, "Check the arguments of the request.")
_BROAD_PATH = dataclasses.replace(_PATH, broad=True)
_BROAD_REQUEST = dataclasses.replace(_REQUEST, broad=True)
_TOO_LARGE = Meaning(Verdict.FATAL, BadRequest, "The request is too large: shorten it.")
_TRY_AGAIN = Meaning(Verdict.SERVER_ERROR, APIError)
_UNKNOWN = Meaning(Verdict.FATAL, APIError)

CODES: Final[Mapping[str, Meaning]] = {
    code: meaning
    for meaning, codes in (
        (
            _AUTHENTICATION,
            """
            invalid_api_key invalid_authentication invalid_authentication_error
            authentication_error authenticationerror unauthenticated unauthorized
            """,
        ),
        (
            _PERMISSION,
            """
            permission_error permission_denied permissiondeniederror forbidden
            insufficient_permissions unsupported_country_region_territory
            account_deactivated
            """,
        ),
        (
            _MODEL,
            """
            model_not_found model_not_exist model_not_available unknown_model
            deploymentnotfound deployment_not_found
            """,
        ),
        (
            _QUOTA,
            """
            insufficient_quota insufficient_balance insufficient_credits
            insufficient_funds insufficient_user_quota quota_exceeded
            billing_error billing_hard_limit_reached billing_not_active
            payment_required credit_balance_too_low spend_limit_exceeded
            spend_limit_reached arrearage
            """,
        ),
        (
            _RATE,
            """
            rate_limit_exceeded rate_limit_error rate_limit rate_limited
            ratelimiterror too_many_requests resource_exhausted throttling slow_down
            """,
        ),
        (
            _OVERLOADED,
            """
            overloaded_error overloaded engine_overloaded engine_overloaded_error
            server_overloaded model_overloaded service_unavailable
            serviceunavailableerror unavailable capacity_exceeded no_capacity
            """,
        ),
        (
            _CONTEXT,
            """
            context_length_exceeded context_window_exceeded
            exceed_context_size_error contextwindowexceedederror
            string_above_max_length
            """,
        ),
        (
            _FILTER,
            """
            content_filter content_filtered content_policy_violation
            contentpolicyviolationerror responsibleaipolicyviolation
            moderation_blocked prompt_blocked data_inspection_failed
            """,
        ),
        (_TOO_LARGE, "request_too_large payload_too_large"),
        (
            _BROAD_REQUEST,
            """
            invalid_request_error invalid_request bad_request bad_request_error
            badrequesterror badrequest invalid_argument failed_precondition
            invalid_prompt invalid_value unprocessable_entity validation_error
            unsupported_parameter unknown_parameter missing_required_parameter
            """,
        ),
        (_BROAD_PATH, "not_found_error not_found notfounderror"),
        (
            _BROAD_SERVER,
            """
            server_error internal_server_error internalservererror internal
            internal_error api_error api_connection_error timeout timeout_error
            deadline_exceeded bad_gateway gateway_timeout upstream_error
            provider_error stream_error
            """,
        ),
    )
    for code in codes.split()
}
"""An API's ``code`` or ``type``, in lower case -> what it means."""

PHRASES: Final[tuple[tuple[frozenset[int | None], re.Pattern[str], Meaning], ...]] = (
    (
        frozenset({400, 402, 403, 429, None}),
        re.compile(
            r"credit balance is too low|exceeded your current quota|insufficient "
            r"(?:account )?(?:balance|credit|funds|quota)|billing hard limit|"
            r"spend(?:ing)? limit|requires more credits",
        ),
        _QUOTA,
    ),
    (
        frozenset({400, 413, 422, 500, None}),
        re.compile(
            r"(?:maximum|model's) context length|context (?:window|size|length) "
            r"(?:is )?exceeded|exceeds? the (?:available |maximum |model's )?context|"
            r"prompt is too long|input is too long|reduce the length of the (?:messages"
            r"|prompt|input)"
        ),
        _CONTEXT,
    ),
    (
        frozenset({400, 403, 422, None}),
        re.compile(
            r"content management policy|content policy|content filter|"
            r"safety system|was flagged|input flagged"
        ),
        _FILTER,
    ),
    (
        frozenset({400, 404, 422, None}),
        re.compile(
            r"^model: |\bmodel\b.{0,120}?\b(?:does not exist|not exist|not found|"
            r"not a valid model)|not a valid model|unknown model"
        ),
        _MODEL,
    ),
)
"""For APIs that give no code: statuses, words of the message in lower case, meaning."""

STATUSES: Final[Mapping[int, Meaning]] = {
    401: _AUTHENTICATION,
    402: _QUOTA,
    403: _PERMISSION,
    404: _PATH,
    405: _METHOD,
    407: _PROXY,
    408: _TRY_AGAIN,
    409: _TRY_AGAIN,
    413: _TOO_LARGE,
    425: _TRY_AGAIN,
    429: _RATE,
    501: _NO_API,
    503: _OVERLOADED,
    529: _OVERLOADED,
}
"""HTTP statuses that mean more than the first of their digits does."""

_CLASSES: Final[Mapping[int, Meaning]] = {4: _REQUEST, 5: _SERVER}


def meaning_of(refusal: Refusal, *, hinted: bool, in_stream: bool) -> Meaning:
    """Return what a refusal means.

    Args:
        refusal: What the API said.
        hinted: It said, too, when to come back.
        in_stream: It said so inside an event stream that had begun.
    """
    status = status_of(refusal)
    by_code = _by_code(refusal.code)
    by_type = _by_code(refusal.type)
    for meaning in (by_code, by_type):
        if meaning is not None and not meaning.broad:
            return meaning
    message = refusal.message[:_LOOKED_AT].lower()
    for statuses, words, meaning in PHRASES:
        if status in statuses and words.search(message):
            # Gemini words its limits per minute as a used-up quota, but says when to
            # come back. An account without credit is not told that.
            if meaning is _QUOTA and hinted:
                continue
            return meaning
    if status is not None:
        return STATUSES.get(status) or _CLASSES.get(status // 100, _UNKNOWN)
    # An error that names neither a code nor a status broke the answer off; that it
    # would do so again, nobody said.
    return by_code or by_type or (_SERVER if in_stream else _UNKNOWN)


def overruled(verdict: Verdict, *, by: bool | None) -> Verdict:
    """Return a verdict as the server's own word on another try, if any, leaves it."""
    if by is None:
        return verdict
    if not by:
        return Verdict.FATAL
    return Verdict.SERVER_ERROR if verdict is Verdict.FATAL else verdict


def status_of(refusal: Refusal) -> int | None:
    """Return the HTTP status of an error, which inside a 200 may be its code."""
    if refusal.status is not None and refusal.status >= _LOWEST_ERROR_STATUS:
        return refusal.status
    code = refusal.code or ""
    return int(code) if _STATUS_CODE.fullmatch(code) else None


def is_api_error(refusal: Refusal) -> bool:
    """Whether a body that came with a 200 is an error in the API's own words."""
    return (
        _by_code(refusal.code) is not None
        or _by_code(refusal.type) is not None
        or status_of(refusal) is not None
    )


def _by_code(code: str | None) -> Meaning | None:
    return None if code is None else CODES.get(code.strip().lower())
