"""What exceptions mean for another try, ours and those of others."""

from __future__ import annotations

import pytest
import requests
import tenacity

from holystream.clocks import Deadline
from holystream.errors import ConnectionFailed, RateLimited, StreamCancelled, Verdict
from holystream.resilience.progress import GiveUp, Wait
from holystream.resilience.retry import RetryPolicy
from holystream.resilience.verdicts import hint_of, verdict_of

NEVER = Deadline()


def refused(status, **headers):
    response = requests.Response()
    response.status_code = status
    response.headers.update(
        {name.replace("_", "-"): value for name, value in headers.items()}
    )
    return requests.HTTPError(response=response)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ConnectionFailed("no"), Verdict.NOT_SENT),
        (StreamCancelled("no"), Verdict.CANCELLED),
        (ConnectionResetError(), Verdict.INTERRUPTED),
        (requests.exceptions.ChunkedEncodingError(), Verdict.INTERRUPTED),
        (refused(429), Verdict.THROTTLED),
        (refused(500), Verdict.SERVER_ERROR),
        (refused(503), Verdict.SERVER_ERROR),
        (refused(404), Verdict.FATAL),
        (refused(401), Verdict.FATAL),
        (refused(503, x_should_retry="false"), Verdict.FATAL),
        (refused(404, x_should_retry="true"), Verdict.SERVER_ERROR),
        (refused(429, x_should_retry="true"), Verdict.THROTTLED),
        (ValueError("a bug"), Verdict.FATAL),
        (KeyboardInterrupt(), Verdict.FATAL),
    ],
    ids=repr,
)
def test_verdicts(error, verdict):
    assert verdict_of(error) is verdict


def test_hints():
    limited = RateLimited("429")
    limited.retry_after = 3.0
    assert hint_of(limited) == 3.0
    assert hint_of(refused(503, retry_after="7")) == 7.0
    assert hint_of(refused(503)) is None
    assert hint_of(ConnectionResetError()) is None
    assert hint_of(None) is None


def test_a_policy_follows_them():
    policy = RetryPolicy(attempts=6, base=1.0, jitter=None)
    progress = policy.start(0.0)
    # Never at once: that nothing was sent is known of our own connections alone.
    wait = progress.failed(ConnectionRefusedError(), 0.0, NEVER)
    assert wait == Wait(delay=1.0, reason="backoff", attempts_left=4)
    wait = progress.failed(refused(503, retry_after="7"), 0.0, NEVER)
    assert (wait.delay, wait.reason) == (7.0, "server hint")
    assert progress.failed(ValueError(), 0.0, NEVER) == GiveUp(
        reason="trying again cannot help"
    )
    assert "more than retry_after_cap=60" in (
        progress.failed(refused(503, retry_after="61"), 0.0, NEVER).reason
    )


def test_a_predicate_sees_the_exception_itself():
    policy = RetryPolicy(retry=tenacity.retry_if_exception_type(KeyError))
    assert isinstance(policy.start(0.0).failed(KeyError(), 0.0, NEVER), Wait)
    assert policy.start(0.0).failed(ConnectionResetError(), 0.0, NEVER) == GiveUp(
        reason="the policy's retry= does not accept this error"
    )


def test_a_strategy_that_fails_lets_go_of_the_error():
    progress = RetryPolicy(wait=lambda _: 1 / 0).start(0.0)
    with pytest.raises(ZeroDivisionError):
        progress.failed(ConnectionResetError(), 0.0, NEVER)
    assert progress._state.outcome is None
