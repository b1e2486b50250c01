"""What a fault means: every kind in every phase, every code, every status."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, strategies as st

from holystream import errors
from holystream.clocks import Timeouts
from holystream.errors import (
    APIError,
    AuthenticationError,
    BadRequest,
    CertificateError,
    ConnectionFailed,
    ConnectionLost,
    ConnectTimeout,
    ContentFiltered,
    ContextLengthExceeded,
    DeadlineExceeded,
    FirstTokenTimeout,
    IdleTimeout,
    IncompleteAnswer,
    LimitExceeded,
    MalformedEvent,
    ModelNotFound,
    NotAnEventStream,
    NotFound,
    Overloaded,
    PermissionDenied,
    Phase,
    ProtocolError,
    ProxyFailed,
    QuotaExceeded,
    RateLimited,
    ServerError,
    StreamCancelled,
    StreamError,
    StreamInterrupted,
    TokenIdleTimeout,
    UnexpectedRedirect,
    Verdict,
)
from holystream.resilience.classify import error_from
from holystream.resilience.mishaps import FAULTS
from holystream.resilience.refusals import CODES, STATUSES
from holystream.wire.faults import Answer, Fault, FaultKind, Refusal

NOT_SENT, NO_ANSWER, INTERRUPTED, THROTTLED, SERVER, FATAL, CANCELLED = Verdict
KEY = "hs-4f9Kq2ZpTr81LmXv"


def meet(kind, phase=Phase.BODY, detail="", *, refusal=None, headers=None, secrets=()):
    answer = None
    if refusal is not None:
        status = 200 if kind is FaultKind.ERROR_EVENT else refusal.status or 200
        answer = Answer(status=status, headers=headers or {}, body=b"")
    return error_from(
        Fault(kind, phase, detail, answer=answer),
        refusal,
        key_variable="HOLYSHEEP_API_KEY",
        timeouts=Timeouts(connect=5, first_token=300, idle=60, token_idle=120),
        provider="holysheep",
        secrets=secrets,
        wall_now=1_767_225_600.0,
    )


def refused(status=None, message="no", *, code=None, type_=None, headers=None, **more):
    refusal = Refusal(message=message, status=status, code=code, type=type_, **more)
    return meet(FaultKind.STATUS, Phase.HEADERS, refusal=refusal, headers=headers)


def in_stream(message="no", *, status=None, code=None, type_=None, **more):
    refusal = Refusal(message=message, status=status, code=code, type=type_, **more)
    return meet(FaultKind.ERROR_EVENT, refusal=refusal)


SPLIT = (NOT_SENT, NO_ANSWER, INTERRUPTED, INTERRUPTED)
"""A fault whose meaning is that of the phase it met: CONNECT, SENT, HEADERS, BODY."""

TABLE = [
    (FaultKind.NAME_RESOLUTION, ConnectionFailed, (NOT_SENT,) * 4),
    (FaultKind.REFUSED, ConnectionFailed, (NOT_SENT,) * 4),
    (FaultKind.CONNECT_TIMEOUT, ConnectTimeout, (NOT_SENT,) * 4),
    (FaultKind.HANDSHAKE_TIMEOUT, ConnectTimeout, (NOT_SENT,) * 4),
    (FaultKind.PROXY, ProxyFailed, (NOT_SENT,) * 4),
    (FaultKind.CERTIFICATE, CertificateError, (FATAL,) * 4),
    (FaultKind.TLS, ConnectionLost, SPLIT),
    (FaultKind.NOT_TLS, ConnectionFailed, (FATAL,) * 4),
    (FaultKind.LOST, ConnectionLost, SPLIT),
    (FaultKind.GARBAGE, ProtocolError, SPLIT),
    (FaultKind.ENDED, IncompleteAnswer, SPLIT),
    (FaultKind.FIRST_TOKEN, FirstTokenTimeout, SPLIT),
    (FaultKind.IDLE, IdleTimeout, SPLIT),
    (FaultKind.TOKEN_IDLE, TokenIdleTimeout, SPLIT),
    (FaultKind.TAIL, IncompleteAnswer, SPLIT),
    (FaultKind.DEADLINE, DeadlineExceeded, (FATAL,) * 4),
    (FaultKind.STATUS, APIError, (FATAL,) * 4),
    (FaultKind.NOT_EVENT_STREAM, NotAnEventStream, (FATAL,) * 4),
    (FaultKind.REDIRECT, UnexpectedRedirect, (FATAL,) * 4),
    (FaultKind.TOO_LARGE, LimitExceeded, (FATAL,) * 4),
    (FaultKind.CODING, ProtocolError, (FATAL,) * 4),
    (FaultKind.ENCODING, ProtocolError, (FATAL,) * 4),
    (FaultKind.MALFORMED, MalformedEvent, (INTERRUPTED,) * 4),
    (FaultKind.ERROR_EVENT, ServerError, (INTERRUPTED,) * 4),
    (FaultKind.SEAM_MISMATCH, StreamInterrupted, (INTERRUPTED,) * 4),
    (FaultKind.NOT_CONTINUED, StreamInterrupted, (INTERRUPTED,) * 4),
    (FaultKind.NO_DESCRIPTOR, ConnectionFailed, (NOT_SENT,) * 4),
    (FaultKind.BAD_URL, ConnectionFailed, (FATAL,) * 4),
    (FaultKind.STOPPED, StreamCancelled, (CANCELLED,) * 4),
]


def test_the_table_answers_for_every_kind():
    assert [kind for kind, _, _ in TABLE] == list(FaultKind)
    assert set(FAULTS) == set(FaultKind)


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize(("kind", "expected", "verdicts"), TABLE)
def test_every_kind_in_every_phase(kind, expected, verdicts, phase):
    error = meet(kind, phase)
    unsent = verdicts == SPLIT and phase is Phase.CONNECT
    if unsent and expected is not ProtocolError:
        expected = ConnectionFailed
    assert type(error) is expected
    assert error.verdict is verdicts[phase]
    assert error.phase is phase
    assert error.retry_after is None
    assert error.message.startswith("holysheep: ")
    assert "{" not in error.message
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (expected, str(error))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (FaultKind.CONNECT_TIMEOUT, "Timeouts.connect=5 s"),
        (FaultKind.FIRST_TOKEN, "Timeouts.first_token=300 s"),
        (FaultKind.HANDSHAKE_TIMEOUT, "write http://"),
        (FaultKind.IDLE, "Timeouts.idle=60 s. Raise it"),
        (FaultKind.TOKEN_IDLE, "Timeouts.token_idle=120 s. Raise it"),
        (FaultKind.PROXY, "HTTPS_PROXY"),
        (FaultKind.CERTIFICATE, "REQUESTS_CA_BUNDLE"),
        (FaultKind.NOT_EVENT_STREAM, "Check base_url"),
        (FaultKind.REDIRECT, "make it the base_url"),
    ],
)
def test_a_message_says_what_to_do(kind, said):
    assert said in meet(kind).message


def test_a_message_gives_the_particulars():
    error = meet(FaultKind.NAME_RESOLUTION, Phase.CONNECT, "api.example: {no}\nsuch")
    assert error.message == (
        "holysheep: the host name could not be resolved: api.example: {no} such. "
        "Check base_url and the name server."
    )
    bare = meet(FaultKind.LOST, detail=FaultKind.LOST.value)
    assert bare.message == "holysheep: the connection broke"


@pytest.mark.parametrize(
    ("status", "expected", "verdict"),
    [
        (400, BadRequest, FATAL),
        (401, AuthenticationError, FATAL),
        (402, QuotaExceeded, FATAL),
        (403, PermissionDenied, FATAL),
        (404, NotFound, FATAL),
        (405, BadRequest, FATAL),
        (407, PermissionDenied, FATAL),
        (408, APIError, SERVER),
        (409, APIError, SERVER),
        (413, BadRequest, FATAL),
        (418, BadRequest, FATAL),
        (422, BadRequest, FATAL),
        (425, APIError, SERVER),
        (429, RateLimited, THROTTLED),
        (500, ServerError, SERVER),
        (501, ServerError, FATAL),
        (502, ServerError, SERVER),
        (503, Overloaded, SERVER),
        (504, ServerError, SERVER),
        (524, ServerError, SERVER),
        (529, Overloaded, SERVER),
        (600, APIError, FATAL),
        (None, APIError, FATAL),
    ],
)
def test_a_status_without_more(status, expected, verdict):
    error = refused(status)
    assert (type(error), error.verdict, error.status) == (expected, verdict, status)
    assert error.phase is Phase.HEADERS


REFUSALS = [
    # OpenAI
    (401, "invalid_request_error", None, "You didn't provide an API key.", "auth"),
    (401, "invalid_request_error", "invalid_api_key", "Incorrect API key", "auth"),
    (404, "invalid_request_error", "model_not_found", "The model `x`...", "model"),
    (404, "invalid_request_error", None, "Invalid URL (POST /v1/chat)", "path"),
    (400, "invalid_request_error", "context_length_exceeded", "This...", "context"),
    (400, "invalid_request_error", "content_policy_violation", "Your...", "filter"),
    (429, "insufficient_quota", "insufficient_quota", "You exceeded...", "quota"),
    (429, "requests", "rate_limit_exceeded", "Rate limit reached", "rate"),
    (429, "tokens", "rate_limit_exceeded", "Request too large for x", "rate"),
    (400, "invalid_request_error", "unsupported_parameter", "no 'stop'", "request"),
    (500, "server_error", None, "The server had an error", "server"),
    (503, "server_error", None, "The engine is overloaded", "overloaded"),
    # Azure
    (404, None, "DeploymentNotFound", "The API deployment...", "model"),
    (400, None, "content_filter", "...content management policy...", "filter"),
    # Anthropic
    (529, "overloaded_error", None, "Overloaded", "overloaded"),
    (413, "request_too_large", None, "Request exceeds the maximum size", "request"),
    (404, "not_found_error", None, "model: claude-9", "model"),
    (400, "invalid_request_error", None, "Your credit balance is too low", "quota"),
    (400, "invalid_request_error", None, "prompt is too long: 9 > 8", "context"),
    (403, "permission_error", None, "Your API key does not have", "permission"),
    (500, "api_error", None, "Internal server error", "server"),
    # Gemini
    (429, "RESOURCE_EXHAUSTED", None, "Quota exceeded for metric", "rate"),
    (403, "PERMISSION_DENIED", None, "no", "permission"),
    (400, "INVALID_ARGUMENT", None, "no", "request"),
    (503, "UNAVAILABLE", None, "The model is overloaded.", "overloaded"),
    # others, by their words
    (402, None, None, "Insufficient Balance", "quota"),
    (403, None, None, "Input flagged by moderation", "filter"),
    (400, None, None, "Model Not Exist", "model"),
    (404, "NotFoundError", None, "The model `x` does not exist.", "model"),
    (404, None, None, 'model "x" not found, try pulling it first', "model"),
    (400, "BadRequestError", None, "the model's maximum context length is", "context"),
    (400, "exceed_context_size_error", None, "too large", "context"),
    (500, None, None, "the request exceeds the available context size", "context"),
    (422, None, None, "Unexpected fields in the request", "request"),
    (429, None, None, "slow down", "rate"),
]

MEANINGS = {
    "auth": (AuthenticationError, FATAL),
    "permission": (PermissionDenied, FATAL),
    "path": (NotFound, FATAL),
    "model": (ModelNotFound, FATAL),
    "request": (BadRequest, FATAL),
    "context": (ContextLengthExceeded, FATAL),
    "filter": (ContentFiltered, FATAL),
    "quota": (QuotaExceeded, FATAL),
    "rate": (RateLimited, THROTTLED),
    "server": (ServerError, SERVER),
    "overloaded": (Overloaded, SERVER),
}


@pytest.mark.parametrize(("status", "type_", "code", "message", "meaning"), REFUSALS)
def test_what_real_apis_say(status, type_, code, message, meaning):
    error = refused(status, message, code=code, type_=type_)
    assert (type(error), error.verdict) == MEANINGS[meaning]
    assert (error.status, error.code, error.type) == (status, code, type_)


def test_every_class_of_api_error_is_reached():
    everything = {
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, APIError)
    }
    met = {type(refused(status)) for status in (*STATUSES, 400, 500)}
    met |= {type(refused(400, code=code)) for code in CODES}
    assert met == everything


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_is_read_in_either_field_and_any_case(code):
    for fields in ({"code": code.upper()}, {"type_": code}):
        assert type(in_stream(**fields)) is CODES[code].error
        if not CODES[code].broad:
            assert type(refused(418, **fields)) is CODES[code].error


@pytest.mark.parametrize(
    ("fields", "expected", "verdict"),
    [
        ({"type_": "overloaded_error"}, Overloaded, INTERRUPTED),
        ({"code": "server_error"}, ServerError, INTERRUPTED),
        ({"status": 500, "code": "500"}, ServerError, INTERRUPTED),
        ({"code": "502"}, ServerError, INTERRUPTED),
        ({"status": 503}, Overloaded, INTERRUPTED),
        ({"status": 408}, APIError, INTERRUPTED),
        ({}, ServerError, INTERRUPTED),
        ({"code": "never_heard_of"}, ServerError, INTERRUPTED),
        ({"code": "rate_limit_exceeded"}, RateLimited, THROTTLED),
        ({"status": 429}, RateLimited, THROTTLED),
        ({"code": "insufficient_quota"}, QuotaExceeded, FATAL),
        ({"type_": "invalid_request_error"}, BadRequest, FATAL),
        ({"code": "context_length_exceeded"}, ContextLengthExceeded, FATAL),
        ({"code": "content_filter"}, ContentFiltered, FATAL),
        ({"message": "prompt is too long"}, ContextLengthExceeded, FATAL),
        ({"message": "the model x does not exist"}, ModelNotFound, FATAL),
    ],
)
def test_an_error_inside_the_stream(fields, expected, verdict):
    error = in_stream(**fields)
    assert (type(error), error.verdict) == (expected, verdict)
    assert error.phase is Phase.BODY
    assert error.message.startswith("holysheep reported an error inside the stream")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"code": "502"}, ServerError),
        ({"status": 401}, AuthenticationError),
        ({"code": "model_not_found"}, ModelNotFound),
        ({"type": "rate_limit_error"}, RateLimited),
        ({}, NotAnEventStream),
        ({"code": "200"}, NotAnEventStream),
    ],
)
def test_an_error_in_a_200_that_is_no_stream(fields, expected):
    refusal = Refusal(message="Upstream said no", **fields)
    error = meet(FaultKind.NOT_EVENT_STREAM, Phase.HEADERS, refusal=refusal)
    assert type(error) is expected
    assert "Upstream said no" in error.message


def test_a_whole_answer_in_place_of_a_stream_is_called_that():
    refusal = Refusal(message="no matter", whole_answer=True)
    error = meet(FaultKind.NOT_EVENT_STREAM, Phase.HEADERS, "JSON", refusal=refusal)
    assert error.message == (
        "holysheep: the answer is not an event stream: JSON: it holds a whole answer. "
        "This server did not stream, though it was asked to: check it, and any proxy "
        "in between."
    )


class TestHints:
    """How long to wait, and the server's word on whether."""

    def test_headers_come_before_the_body(self):
        headers = {"retry-after": "7"}
        assert refused(429, headers=headers, retry_after=3.0).retry_after == 7.0
        assert refused(429, retry_after=3.0).retry_after == 3.0
        assert refused(503, headers=headers).retry_after == 7.0
        assert refused(429).retry_after is None

    def test_the_headers_of_an_accepted_request_are_no_hint(self):
        refusal = Refusal(message="overloaded", status=429)
        error = meet(
            FaultKind.ERROR_EVENT, refusal=refusal, headers={"retry-after": "9"}
        )
        assert error.retry_after is None

    def test_a_body_inside_the_stream_may_hint(self):
        assert in_stream(status=429, retry_after=4.0).retry_after == 4.0

    def test_a_quota_with_a_time_to_come_back_is_a_rate(self):
        words = "You exceeded your current quota, please check your plan."
        assert type(refused(429, words)) is QuotaExceeded
        assert type(refused(429, words, retry_after=30.0)) is RateLimited
        assert type(refused(429, words, headers={"retry-after": "3"})) is RateLimited

    def test_a_code_is_believed_whatever_the_hint(self):
        error = refused(429, code="insufficient_quota", retry_after=30.0)
        assert type(error) is QuotaExceeded

    @pytest.mark.parametrize(
        ("status", "word", "verdict"),
        [
            (400, "true", SERVER),
            (429, "true", THROTTLED),
            (500, "true", SERVER),
            (500, "false", FATAL),
            (429, "false", FATAL),
            (503, "perhaps", SERVER),
        ],
    )
    def test_the_server_may_overrule_its_status(self, status, word, verdict):
        error = refused(status, headers={"x-should-retry": word})
        assert error.verdict is verdict

    def test_an_accepted_request_overrules_nothing(self):
        refusal = Refusal(message="no", code="invalid_request_error")
        error = meet(
            FaultKind.ERROR_EVENT, refusal=refusal, headers={"x-should-retry": "true"}
        )
        assert error.verdict is FATAL


class TestMessages:
    """What happened, then what to do, and nothing that must not be said."""

    def test_a_401_names_the_variable_to_check(self):
        error = refused(401, "Incorrect API key provided.", code="invalid_api_key")
        assert error.message == (
            "holysheep answered 401 (invalid_api_key): Incorrect API key provided. "
            "Check the API key: the environment variable HOLYSHEEP_API_KEY, or the "
            "argument api_key=."
        )

    @pytest.mark.parametrize(
        ("error", "said"),
        [
            (refused(404, code="model_not_found"), "Check model="),
            (refused(404), "Check base_url"),
            (refused(402), "credit"),
            (refused(405), "Check base_url"),
            (refused(501), "Check base_url"),
            (refused(407), "http://user:password@host"),
            (
                meet(FaultKind.PROXY, Phase.CONNECT, "Tunnel failed: 407 Proxy"),
                "http://user:password@host",
            ),
            (refused(429), "fewer requests"),
            (refused(413), "shorten"),
            (refused(503), "Try later"),
            (refused(400, code="context_length_exceeded"), "Shorten the messages"),
            (refused(400, code="content_filter"), "content filter"),
        ],
    )
    def test_each_says_what_to_do(self, error, said):
        assert said in error.message

    def test_a_401_names_the_key_of_the_endpoint_that_was_refused(self):
        refusal = Refusal(message="no", status=401)
        fault = Fault(
            FaultKind.STATUS,
            Phase.HEADERS,
            answer=Answer(status=401, headers={}, body=b""),
        )
        error = error_from(
            fault,
            refusal,
            key_variable="HOLYSHEEP_API_KEY",
            own_key=True,
            timeouts=Timeouts(),
            provider="east",
        )
        assert "Check the key= of its Endpoint." in error.message
        assert "HOLYSHEEP_API_KEY" not in error.message

    def test_a_code_that_is_the_status_is_said_once(self):
        assert in_stream("x", status=500, code="500").message == (
            "holysheep reported an error inside the stream: x"
        )
        assert refused(500, "x", code="500").message == "holysheep answered 500: x"

    def test_upstream_words_are_cut_and_made_printable(self):
        words = "\x1b[31mred\x00\u202e\r\n\ud800 " + "x" * 1000
        message = refused(500, words).message
        assert message.isprintable()
        assert "holysheep answered 500: [31mred x" in message.replace("  ", " ")
        assert message.endswith("xxx...")
        assert len(message) <= 300 + len("holysheep answered 500: ")

    def test_braces_in_upstream_words_are_harmless(self):
        assert "{key_variable}" in refused(401, "{key_variable} {0}").message

    @pytest.mark.parametrize("field", ["message", "code", "type_"])
    def test_a_configured_key_is_not_repeated(self, field):
        refusal = Refusal(
            message=f"bad key {KEY} (Bearer {KEY})",
            status=401,
            code=KEY,
            type=f"x{KEY}",
        )
        error = meet(FaultKind.STATUS, refusal=refusal, secrets=[KEY])
        assert KEY not in repr(vars(error)) + str(error) + repr(error.args)
        lost = meet(FaultKind.LOST, detail=f"sent {KEY}", secrets=[KEY])
        assert KEY not in str(lost)
        assert field  # each of them was in the refusal

    def test_an_unknown_key_is_not_repeated_either(self):
        message = refused(401, f"Incorrect: {KEY}, sk-proj-****abcd1234.").message
        assert KEY not in message
        assert "abcd1234" not in message


@given(
    kind=st.sampled_from(FaultKind),
    phase=st.sampled_from(Phase),
    detail=st.text(),
    refusal=st.none()
    | st.builds(
        Refusal,
        message=st.text(),
        status=st.none() | st.integers(-1, 1000),
        code=st.none() | st.text() | st.sampled_from(sorted(CODES)),
        type=st.none() | st.text(),
        retry_after=st.none() | st.floats(0, 1e6),
    ),
    headers=st.dictionaries(st.text(), st.text()),
)
def test_whatever_happens_there_is_an_error_for_it(
    kind, phase, detail, refusal, headers
):
    error = meet(kind, phase, detail, refusal=refusal, headers=headers)
    assert isinstance(error, StreamError)
    assert error.phase is phase
    assert str(error)
