"""What headers say about the next attempt, and that no header text raises."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from holystream.resilience.hints import server_hint, should_retry

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z, a Thursday
DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


def hint(status=429, now=NOW, **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return server_hint(names, now, status=status)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after_ms": "1500"}, 1.5),
        ({"retry_after_ms": "0.5"}, 0.0005),
        ({"retry_after": "30"}, 30.0),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after": " 2.5 "}, 2.5),
        ({"retry_after": "Thu, 01 Jan 2026 00:00:30 GMT"}, 30.0),
        ({"retry_after": "Thu, 01 Jan 2026 01:00:30 +0100"}, 30.0),
        ({"retry_after": "Thu, 01 Jan 2026 00:00:30 -0000"}, 30.0),
        # first things first
        ({"retry_after_ms": "1500", "retry_after": "30"}, 1.5),
        ({"retry_after_ms": "soon", "retry_after": "30"}, 30.0),
        ({"retry_after": "3", "x_ratelimit_reset": "60"}, 3.0),
        ({"retry_after": "-3", "x_ratelimit_reset": "60"}, 60.0),
        # garbage
        ({"retry_after": "-1"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "1e3"}, None),
        ({"retry_after": "1_000"}, None),
        ({"retry_after": "\u0663"}, None),
        ({"retry_after": "9" * 400}, None),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "Thu, 01 Jan 2026 99:00:30 GMT"}, None),
        ({"retry_after": "Wed, 31 Dec 2025 23:59:59 GMT"}, None),
        # rate limits
        ({"x_ratelimit_reset_requests": "6m0s"}, 360.0),
        ({"x_ratelimit_reset_tokens": "120ms"}, 0.12),
        ({"x_ratelimit_reset_tokens": "1h2m3.5s"}, 3723.5),
        ({"x_ratelimit_reset_tokens": "7.66s"}, 7.66),
        ({"x_ratelimit_reset_tokens": "10µs"}, 1e-5),
        ({"x_ratelimit_reset_tokens": "s"}, None),
        ({"x_ratelimit_reset_tokens": "5 parsecs"}, None),
        ({"x_ratelimit_reset": "30"}, 30.0),
        ({"x_ratelimit_reset": str(int(NOW) + 30)}, 30.0),
        ({"x_ratelimit_reset": str((int(NOW) + 30) * 1000)}, 30.0),
        ({"x_ratelimit_reset": str(int(NOW) - 30)}, None),
        ({"ratelimit_reset": "12"}, 12.0),
        ({"anthropic_ratelimit_tokens_reset": "2026-01-01T00:00:45Z"}, 45.0),
        ({"anthropic_ratelimit_tokens_reset": "2026-01-01T00:00:45"}, 45.0),
        ({"anthropic_ratelimit_tokens_reset": "2025-01-01T00:00:45Z"}, None),
        # which limit it was
        (
            {
                "x_ratelimit_reset_requests": "1s",
                "x_ratelimit_remaining_requests": "0",
                "x_ratelimit_reset_tokens": "6m0s",
                "x_ratelimit_remaining_tokens": "4000",
            },
            1.0,
        ),
        (
            {
                "anthropic_ratelimit_requests_reset": "2026-01-01T00:10:00Z",
                "anthropic_ratelimit_requests_remaining": "49",
                "anthropic_ratelimit_tokens_reset": "2026-01-01T00:00:20Z",
                "anthropic_ratelimit_tokens_remaining": "0",
            },
            20.0,
        ),
        (
            {"x_ratelimit_reset_requests": "1s", "x_ratelimit_reset_tokens": "2s"},
            2.0,
        ),
        ({"x_ratelimit_reset": "9", "x_ratelimit_remaining": "few"}, 9.0),
    ],
)
def test_the_first_readable_hint_counts(headers, seconds):
    assert hint(**headers) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("status", [None, 200, 500, 503])
def test_rate_limits_are_looked_at_on_a_429_alone(status):
    exhausted = {"x_ratelimit_reset": "30", "x_ratelimit_remaining": "0"}
    assert hint(status, **exhausted) is None
    assert hint(status, retry_after="3", **exhausted) == 3.0


def test_moments_are_read_by_the_servers_clock():
    # Ours is an hour fast; the server's own is what its dates are made with.
    late = NOW + 3600
    assert hint(now=late, retry_after="Thu, 01 Jan 2026 00:00:30 GMT") is None
    for name, value in {
        "retry_after": "Thu, 01 Jan 2026 00:00:30 GMT",
        "x_ratelimit_reset": str(int(NOW) + 30),
        "anthropic_ratelimit_tokens_reset": "2026-01-01T00:00:30Z",
    }.items():
        assert hint(now=late, date=DATE, **{name: value}) == 30.0


def test_names_are_read_in_any_case():
    assert server_hint({"Retry-After-Ms": "250"}, NOW) == 0.25
    assert server_hint({"X-RateLimit-Reset": "4"}, NOW, status=429) == 4.0
    assert should_retry({"X-Should-Retry": "TRUE "}) is True


@pytest.mark.parametrize(
    ("value", "answer"),
    [("true", True), ("false", False), ("maybe", None), ("", None), ("1", None)],
)
def test_should_retry(value, answer):
    assert should_retry({"content-type": "x", "x-should-retry": value}) is answer
    assert should_retry({}) is None


NAMES = st.sampled_from(
    [
        "retry-after-ms",
        "retry-after",
        "date",
        "x-should-retry",
        "x-ratelimit-reset",
        "x-ratelimit-reset-tokens",
        "x-ratelimit-remaining-tokens",
        "anthropic-ratelimit-tokens-reset",
        "anthropic-ratelimit-tokens-remaining",
    ]
)
NINES = "9" * 10_000
MONSTERS = [
    NINES,
    f"{NINES}.{NINES}",
    f"{NINES}h",
    "1h" * 5_000,
    "1e999",
    f"Thu, 01 Jan {NINES} 00:00:00 GMT",
    f"Thu, 01 Jan 2026 00:00:00 +{NINES}",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    "Mon, 01 Jan 0001 00:00:00 +2359",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    f"{NINES}-01-01T00:00:00Z",
    "(" * 10_000,
    '"' * 9_999,
]
VALUES = (
    st.text()
    | st.sampled_from(MONSTERS)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.datetimes().map(str)
    | st.from_regex(r"(\d+(\.\d+)?(h|m|s|ms)){1,4}", fullmatch=True)
    | st.from_regex(
        r"\w{3}, \d{1,5} (Jan|Feb|Dez) \d{1,9} \d\d:\d\d:\d\d ([+-]\d{1,12}|GMT)",
        fullmatch=True,
    )
    | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", fullmatch=True)
)


@given(
    headers=st.dictionaries(NAMES | st.text(), VALUES),
    now=st.floats(0, 4e9),
    status=st.none() | st.integers(),
)
def test_no_header_raises_and_every_hint_is_a_wait(headers, now, status):
    seconds = server_hint(headers, now, status=status)
    assert seconds is None or 0.0 <= seconds < 1e21
    assert should_retry(headers) in {None, True, False}
