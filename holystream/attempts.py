"""What becomes of the attempts of one stream: where they go, and who is told of them.

The exchange decides that there is another attempt and the driver carries it out; this
stands beside them. It picks the endpoint, tells its breaker how each attempt ended,
asks the retry budget, and has account.py keep the records.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Final, Literal

from holystream.account import Account
from holystream.errors import (
    JournalError,
    RateLimited,
    StreamCancelled,
    StreamClosed,
    Verdict,
)
from holystream.events import Waiting
from holystream.resilience.budget import SPENT
from holystream.resilience.health import (
    CREDENTIAL_FAULTS,
    asks_to_wait,
    serves_nobody,
)
from holystream.wire.faults import FaultKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from holystream.connector import Connector
    from holystream.errors import StreamError
    from holystream.events import StreamEvent
    from holystream.exchange import Exchange
    from holystream.resilience.budget import RetryBudget
    from holystream.resilience.pool import Priority
    from holystream.resilience.routing import Assignment, Router
    from holystream.telemetry import Telemetry
    from holystream.wire.faults import Fault
    from holystream.wire.guard import SocketGuard
    from holystream.wire.http import HttpConnection

_NOBODYS_FAULT: Final = frozenset(
    {FaultKind.SEAM_MISMATCH, FaultKind.NOT_CONTINUED, FaultKind.NO_DESCRIPTOR}
)
"""The endpoint did as it was asked, in vain; or it was not asked at all."""


class Attempts:
    """Attends the attempts of one stream. One thread at a time tells it of them.

    `abandon` may come from any thread, a signal handler or a finaliser: it takes no
    lock that such a thread may hold.
    """

    def __init__(
        self,
        exchange: Exchange,
        connector: Connector,
        *,
        router: Router,
        budget: RetryBudget,
        telemetry: Telemetry,
        provider: str,
        priority: Priority,
    ) -> None:
        self._exchange = exchange
        self._connector = connector
        self._router = router
        self._budget = budget
        self._account = Account(
            exchange, telemetry=telemetry, provider=provider, priority=priority
        )
        self._model = model = exchange.request.model
        self._assignment: Assignment | None = None
        # Endpoint -> whether it only asked to wait.
        self._failed_at: dict[str, bool] = {}
        # Where its key, or what answers there, was found unfit for this stream.
        self._unfit = unfit = set[str]()
        # Both without this object, whose exchange they are for: no cycle of the two.
        exchange.others_under_way = lambda: router.under_way > 1
        if len(router.endpoints) > 1:
            exchange.others_free_in = lambda than: router.candidates.free_in(
                than, model=model, avoid=unfit
            )
        # The next attempt was decided on, and the budget could not pay for it.
        self._owes = False
        # The last attempt had no descriptor, and the next one waits for that.
        self._lacking = False
        # It is the last one that the policy allows.
        self._last_try = False
        self._verdict: Verdict | None = None
        self._dropped_at = 0.0

    @property
    def open(self) -> bool:
        """Whether the stream was opened, and its end was not told yet."""
        return self._account.open

    def opened(self, now: float) -> None:
        """Take note that the stream begins."""
        self._budget.record_request()
        self._account.opened(now)

    def watch(self) -> Callable[[], bool] | None:
        """Return what tells that the wait may end before its time; None if nothing can.

        Nobody knows when another stream will close a breaker. Quiet that was asked for
        is kept to its end, unless somebody else, who was shut, comes free. And where
        there was no descriptor, there is one when fewer streams are under way.
        """
        exchange, router = self._exchange, self._router
        reason = None if exchange.wait is None else exchange.wait.reason
        if reason == "circuit open":
            among = set(router.breakers)
        elif self._lacking and reason == "backoff":
            many = router.under_way
            return lambda: router.under_way < many
        elif reason == "server hint" and not exchange.keeps:
            among = router.candidates.shut(model=self._model)
        else:
            return None
        among -= self._unfit
        if not among:
            return None
        return functools.partial(router.candidates.any_free, among, model=self._model)

    def waited(self, seconds: float) -> None:
        """Take note of a wait; another may follow before there is an attempt."""
        self._account.waited(seconds)

    def admit(self, *, early: bool) -> None:
        """Refuse to queue where nobody would serve the attempt.

        Args:
            early: The wait could go on: nothing is insisted on.

        Raises:
            CircuitOpen: All breakers are open.
            RateLimited: The stream is patient, and it is too soon.
        """
        self._pay_debt()
        self._check_quiet()
        self._router.candidates.admit(
            model=self._model, under_way=self._insists and not early
        )

    def queued(self, seconds: float) -> None:
        """Take note of a wait for a permit, in vain or not."""
        self._account.queued(seconds)

    def choose(self, *, early: bool) -> None:
        """Pick the endpoint of the next attempt, unless its exchange ends by that.

        Args:
            early: The wait could go on: nobody who rests is asked.

        Raises:
            CircuitOpen: All breakers are open.
            RateLimited: The stream is patient, and it is too soon.
        """
        # Somebody may have been told so while this one waited for its permit.
        self._check_quiet()
        exchange, router = self._exchange, self._router
        avoid = set(self._failed_at)
        waited_for = avoid - self._shunned
        if early:
            avoid.update(filter(router.candidates.rests, router.breakers))
        sticks = exchange.keeps and self._verdict not in (
            Verdict.NOT_SENT,
            Verdict.NO_ANSWER,
        )
        if sticks:
            # The rest of the answer is there and nowhere else.
            avoid = {each.name for each in router.endpoints} - {exchange.endpoint}
            waited_for = set()
        assignment = router.pick(
            model=self._model,
            avoid=avoid,
            waited_for=waited_for,
            stream_id=exchange.stream_id,
            under_way=self._insists and not early,
        )
        endpoint = assignment.endpoint
        if early and router.candidates.rests(endpoint.name):
            # Who was free is taken.
            assignment.withdraw()
            raise router.candidates.nobody(self._model)
        if exchange.keeps and endpoint.name != exchange.endpoint:
            exchange.moved()
            if exchange.error is not None:
                # Nobody but the last one could go on.
                assignment.withdraw()
                return
        # Not later: a Ctrl-C must not leave an attempt that is not told of.
        self._account.chosen()
        self._assignment = assignment
        exchange.endpoint = endpoint.name
        exchange.own_key = endpoint.key is not None and endpoint.key.of_endpoint

    def connect(self, guard: SocketGuard) -> HttpConnection:
        """Open the connection of the attempt.

        Raises:
            Fault: There is no event stream.
        """
        assignment = self._assignment
        assert assignment is not None, "chosen before"  # noqa: S101 - an invariant
        self._account.began(guard.now())
        connection = self._connector(guard, assignment.endpoint)
        self._account.connected(guard.now())
        assignment.connected()
        return connection

    def received(self, now: float) -> bool:
        """Take note of a read; return whether the next one is to be told as well."""
        exchange, assignment, account = self._exchange, self._assignment, self._account
        if assignment is None:
            return False
        if not account.content_came:
            if not exchange.generated:
                if exchange.answering:
                    assignment.answered()
                return True
            assignment.first_content(account.first_content(now))
        return account.recovers(now)

    def failed(
        self, fault: Fault, events: list[StreamEvent], now: float
    ) -> list[StreamEvent]:
        """Take note of a failed attempt; return the events that the caller is told."""
        exchange, error = self._exchange, self._exchange.fault_error
        if error is None or exchange.complete:
            # It was whole all the same.
            return events
        assignment, self._assignment = self._assignment, None
        # Without a descriptor nobody was asked, and the next one is no worse elsewhere.
        asked = fault.kind is not FaultKind.NO_DESCRIPTOR
        self._lacking = exchange.bidden and not asked
        if asked:
            self._verdict = error.verdict
        if assignment is not None and asked:
            self._failed_at[assignment.endpoint.name] = asks_to_wait(error)
        self._account.attempt_ended("failed", error, now)
        self._account.broke_off(now)
        if exchange.error is error and self._may_leave(error):
            events += exchange.elsewhere()
        if exchange.error is None and not self._charge(error):
            exchange.give_up(SPENT)
            events = [each for each in events if not isinstance(each, Waiting)]
        wait = exchange.wait
        if not exchange.bidden:
            self._last_try = wait is not None and wait.attempts_left == 0
        if assignment is not None:
            self._blame(assignment, fault, error)
        return events

    def finished(self, now: float) -> None:
        """Take note that the answer is complete."""
        assignment, self._assignment = self._assignment, None
        if assignment is not None:
            assignment.finished()
        self._account.attempt_ended("finished", None, now)
        self._account.stream_ended("done", None, now)

    def ended(self, error: BaseException | None, now: float) -> None:
        """Take note that the stream is over, complete or not."""
        if not self.open:
            return
        # What was not recorded was not handed over, complete or not.
        if self._exchange.complete and not isinstance(error, JournalError):
            self.finished(now)
            return
        assignment, self._assignment = self._assignment, None
        outcome = _outcome(error)
        if assignment is not None:
            assignment.release_later()
        self._account.attempt_ended(
            "failed" if outcome == "error" else outcome, error, now
        )
        self._account.stream_ended(outcome, error, now)

    def abandon(self, now: float) -> None:
        """Let go of the endpoint: the stream was dropped. Takes no lock."""
        self._dropped_at = now
        assignment = self._assignment
        if assignment is not None:
            assignment.release_later()

    def close(self) -> None:
        """Tell of a stream that was dropped."""
        now = self._dropped_at
        if self._exchange.complete:
            self._account.stream_ended("done", None, now)
            return
        self._assignment = None
        self._account.attempt_ended("abandoned", None, now)
        self._account.stream_ended("abandoned", None, now)

    def _check_quiet(self) -> None:
        """Send nothing of a patient stream where nobody wants it yet."""
        exchange = self._exchange
        if exchange.patient:
            avoid = set() if exchange.keeps else self._shunned
            self._router.candidates.check_quiet(model=self._model, avoid=avoid)

    @property
    def _shunned(self) -> set[str]:
        """Where it failed and was not asked to wait, unless that may be tried again.

        To be failed at again is no worse for a patient stream than to ask who wants
        quiet, as long as it is not for good.
        """
        if self._exchange.patient and not self._last_try:
            return set()
        return {name for name, asked in self._failed_at.items() if not asked}

    def _pay_debt(self) -> None:
        """Send nothing that the budget could not pay for and still cannot."""
        if self._owes:
            self._owes = not self._budget.try_spend()
        if self._owes:
            raise RateLimited(SPENT)

    def _charge(self, error: StreamError) -> bool:
        """Charge the budget with the next attempt; return whether there may be one."""
        exchange, budget = self._exchange, self._budget
        self._owes = not (exchange.bidden or budget.try_spend())
        # A patient stream waits until it can be paid for.
        may_owe = exchange.patient and asks_to_wait(error) and budget.refills
        return may_owe or not self._owes

    def _may_leave(self, error: StreamError) -> bool:
        """Whether an error is final at its endpoint alone, and there is another one."""
        than, model, unfit = self._exchange.endpoint, self._model, self._unfit
        candidates = self._router.candidates
        refused = isinstance(error, CREDENTIAL_FAULTS)
        if not (refused or serves_nobody(error)):
            return False
        # Each is left once at most, or a stream could go round for ever.
        unfit.add(than)
        if refused:
            return candidates.has_other(than, model=model, avoid=unfit)
        return candidates.free_in(than, model=model, avoid=unfit) < math.inf

    @property
    def _insists(self) -> bool:
        """Whether the next attempt is let through though every breaker is shut.

        A breaker keeps new streams away; one that has made an attempt ends by its own
        policy, with the true error. One with text, which would be lost by that, waits
        for the breaker once, before its last try but one.
        """
        exchange = self._exchange
        wait = exchange.wait
        return bool(self._failed_at) and not (
            exchange.transcript.delivered
            and wait is not None
            and wait.attempts_left == 1
        )

    def _blame(self, assignment: Assignment, fault: Fault, error: StreamError) -> None:
        """Tell an endpoint how the attempt ended there, if it had a part in that."""
        only = len(self._router.endpoints) == 1
        end = self._exchange.error
        # Streams go on through the cuts of an only endpoint, and a proxy that restarts
        # cuts all of them at once. Who tried again, and used up its attempts, says more
        # than that, unless it was the budget that ended them.
        again = self._exchange.attempts > 1 and not self._owes
        tried = again and end is not None and end.exhausted
        cut = self._account.content_came and not tried
        if (only and cut) or fault.kind in _NOBODYS_FAULT:
            assignment.release()
        else:
            assignment.failed(error, again=only and end is None)


def _outcome(
    error: BaseException | None,
) -> Literal["error", "cancelled", "closed"]:
    if isinstance(error, StreamCancelled):
        return "cancelled"
    if isinstance(error, StreamClosed) or not isinstance(error, Exception):
        # A Ctrl-C and its like are the program's, not the service's.
        return "closed"
    return "error"
