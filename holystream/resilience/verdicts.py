"""What any exception means for another try: its verdict, and how soon.

Our own errors carry both. Those of other libraries come out of functions that are not
ours (decorators): an error of the network interrupted them, the status of a
`requests.HTTPError` means what it means in refusals.py, and everything else is fatal:
it may be a bug, and trying again would only hide it.
"""

from __future__ import annotations

import time

from holystream.errors import StreamError, Verdict
from holystream.resilience.hints import server_hint, should_retry
from holystream.resilience.refusals import meaning_of, overruled
from holystream.wire.faults import Refusal
from holystream.wire.foreign import answer_of, is_network_error


def verdict_of(error: BaseException) -> Verdict:
    """Return what an exception means for another try."""
    if isinstance(error, StreamError):
        return error.verdict
    answer = answer_of(error)
    if answer is None:
        return Verdict.INTERRUPTED if is_network_error(error) else Verdict.FATAL
    said = Refusal(message="", status=answer.status)
    verdict = meaning_of(said, hinted=False, in_stream=False).verdict
    return overruled(verdict, by=should_retry(answer.headers))


def hint_of(error: BaseException | None) -> float | None:
    """Return the seconds that the server asked to wait, or None if it did not."""
    if isinstance(error, StreamError):
        return error.retry_after
    answer = None if error is None else answer_of(error)
    if answer is None:
        return None
    return server_hint(answer.headers, time.time(), status=answer.status)
