"""Every fault in every framing: an exact text, or a typed error with all that arrived.

`EXPECTED` is the claim; docs/faults.md is what was measured, and must agree with what
is measured now.
"""

from __future__ import annotations

import pytest
from fault_list import FAULTS, FRAMINGS
from fault_matrix import DOCUMENT, Matrix, Row, parse, summary
from peer_presence import need_packages

ONE, TWO = "exact (1)", "exact (2)"
HARMLESS = Row(ONE, ONE, ONE)


def refused(error: str, requests: int = 1) -> Row:
    """Asking again cannot help."""
    return Row(*[f"{error} ({requests})"] * 3)


def in_headers(error: str) -> Row:
    return refused(f"{error} in HEADERS, no text")


def nothing_came(error: str, requests: int = 3) -> Row:
    """Asking again is invisible; in the end it is an error."""
    return Row(TWO, TWO, f"{error}, no text ({requests})")


def broke_off(cause: str) -> Row:
    """Some text came: it is replayed, or kept."""
    error = f"StreamInterrupted: {cause} in BODY, prefix"
    return Row("exact, REPLAYED (2)", f"{error} (1)", f"{error} (3)")


LOST = broke_off("ConnectionLost")
INCOMPLETE = broke_off("IncompleteAnswer")
# The end of the connection is the end of such a body: nothing says that it is early.
FIN = {"": LOST, "close": INCOMPLETE}
TEXT_CUTS = {"FIN": FIN, "RST": LOST, "clean end": INCOMPLETE}
TEXT_PLACES = ("inside an event", "between two events", "before the finish reason")

EXPECTED: dict[str, Row | dict[str, Row]] = {
    "nobody listens": refused("ConnectionFailed in CONNECT, no text", 0),
    "FIN before the headers": nothing_came("ConnectionLost in SENT"),
    "RST before the headers": nothing_came("ConnectionLost in SENT"),
    "FIN in the first event": {
        "": nothing_came("ConnectionLost in HEADERS"),
        "close": nothing_came("IncompleteAnswer in HEADERS"),
    },
    "RST in the first event": nothing_came("ConnectionLost in HEADERS"),
    "clean end in the first event": nothing_came("IncompleteAnswer in HEADERS"),
    **{
        f"{cut} {place}": rows
        for cut, rows in TEXT_CUTS.items()
        for place in TEXT_PLACES
    },
    **{f"{cut} after the finish reason": HARMLESS for cut in TEXT_CUTS},
    "FIN inside an event, gzip": FIN,
    "clean end between two events, gzip": INCOMPLETE,
    "silence before the headers": nothing_came("FirstTokenTimeout in SENT", 2),
    "headers, one byte in a while": nothing_came("FirstTokenTimeout in SENT", 2),
    "silence before the first event": nothing_came("FirstTokenTimeout in HEADERS", 2),
    "silence inside an event": broke_off("IdleTimeout"),
    "silence between two events": broke_off("IdleTimeout"),
    "pings before the first event": nothing_came("FirstTokenTimeout in BODY", 2),
    "pings between two events": broke_off("TokenIdleTimeout"),
    "a chunk size that never ends": broke_off("TokenIdleTimeout"),
    "silence after the finish reason": HARMLESS,
    "a slow drip of the whole answer": HARMLESS,
    "429, Retry-After: 1": nothing_came("RateLimited in HEADERS"),
    "429, Retry-After: 600": in_headers("RateLimited"),
    "429, no credit left": in_headers("QuotaExceeded"),
    "500": nothing_came("ServerError in HEADERS"),
    "502 of a proxy, in HTML": nothing_came("ServerError in HEADERS"),
    "503, retry-after-ms: 40": nothing_came("Overloaded in HEADERS"),
    "529": nothing_came("Overloaded in HEADERS"),
    "408": nothing_came("APIError in HEADERS"),
    "400": in_headers("BadRequest"),
    "400, context length": in_headers("ContextLengthExceeded"),
    "401": in_headers("AuthenticationError"),
    "403": in_headers("PermissionDenied"),
    "404, model": in_headers("ModelNotFound"),
    "404, path": in_headers("NotFound"),
    "500, x-should-retry: false": in_headers("ServerError"),
    "a status line that is none": nothing_came("ProtocolError in SENT"),
    "307 to the same server": nothing_came("UnexpectedRedirect in HEADERS", 6),
    "307 to another server, which answers": in_headers("UnexpectedRedirect"),
    "302 to the same server": in_headers("UnexpectedRedirect"),
    "204": in_headers("NotAnEventStream"),
    "200 with HTML": in_headers("NotAnEventStream"),
    "200 with an API error in JSON": nothing_came("RateLimited in HEADERS"),
    "200 with an empty stream": nothing_came("IncompleteAnswer in HEADERS"),
    "a line of 9 MiB, then the end": refused("LimitExceeded in BODY, prefix"),
    **{
        f"error event: {name}": broke_off("ServerError")
        for name in ("openai", "openrouter", "vllm", "litellm", "llama.cpp", "string")
    },
    "error event: anthropic": broke_off("Overloaded"),
    "error event: insufficient_quota": refused("QuotaExceeded in BODY, prefix"),
    "error event before any text": nothing_came("ServerError in BODY"),
    "an event of broken JSON": broke_off("MalformedEvent"),
    "no [DONE]": HARMLESS,
    "no finish reason": INCOMPLETE,
    "no finish reason, no [DONE]": INCOMPLETE,
    "[DONE] after half of the text": INCOMPLETE,
    **{
        f"finish reason {reason!r} after half of the text": broke_off("ServerError")
        for reason in ("error", "abort", "insufficient_system_resource")
    },
    "finish reason '' after half of the text": INCOMPLETE,
    "finish reason 'length'": HARMLESS,
    "no usage": HARMLESS,
    "usage on the finish reason": HARMLESS,
    "emoji in two halves": HARMLESS,
    "CRLF": HARMLESS,
    "CRLF, byte by byte": HARMLESS,
    "CR": HARMLESS,
    "byte order mark": HARMLESS,
    "no blank line at the end": HARMLESS,
    "no blank line behind the finish reason, no [DONE]": HARMLESS,
    "byte by byte": HARMLESS,
    "gzip": HARMLESS,
    "gzip, in pieces of 7 bytes": HARMLESS,
    "no content type": HARMLESS,
    "comments between the events": HARMLESS,
}


@pytest.fixture(scope="module")
def matrix():
    with Matrix() as runs:
        yield runs


@pytest.fixture(scope="module")
def written():
    return DOCUMENT.read_text(encoding="utf-8")


def test_each_fault_has_its_claim():
    names = [fault.name for fault in FAULTS]
    assert sorted(names) == sorted(EXPECTED)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_it_ends_exact_or_with_a_typed_error(matrix, fault):
    claim = EXPECTED[fault.name]
    claims = claim if isinstance(claim, dict) else {"": claim}
    assert set(claims) <= {"", *FRAMINGS}
    for framing in fault.framings:
        assert matrix.row(fault.name, framing) == claims.get(framing, claims[""])


@pytest.mark.slow
def test_the_document_says_what_was_measured(matrix, written):
    rows = parse(written)
    assert {place: Row(*cells[:3]) for place, cells in rows.items()} == {
        (fault.name, framing): matrix.row(fault.name, framing)
        for fault in FAULTS
        for framing in fault.framings
    }
    assert summary(rows) in written


@pytest.mark.slow
def test_openai_python_is_measured_in_the_same_run(matrix, written):
    """What it does is its own business, and may change: all of it is written down."""
    need_packages("openai")
    for (fault, framing), cells in parse(written).items():
        assert matrix.openai(fault, framing)
        assert cells[3]
