"""Which of several endpoints an attempt goes to, and what becomes of it there.

`Router.pick` returns an `Assignment`: an endpoint, a place among its streams in flight
and a ticket of its breaker. Candidates are the endpoints that have the model and whose
credential was not refused of late; if all were, all of them, for then the API's own
answer says more than we could. Of those whose breaker is willing, the first is taken in
this order:

1. those that this stream has not just failed at, and that are not resting: asked for
   fewer requests, or cannot serve anybody;
2. those that only asked this stream to wait, and are not resting any more;
3. those that it has not just failed at, then the others, those that rest last;
4. the lowest ``priority``;
5. those whose breaker wants a probe, or they would not come back while others do well;
6. the lowest cost, as health.py has it; among equals the one not picked for longest.

Lock order: the router's lock guards arithmetic alone. No breaker is asked under it, so
neither waits for the other, and listeners run outside both. An assignment that is lost
is queued by its finaliser, without a lock, and counted by the next pick.
"""

from __future__ import annotations

import collections
import itertools
import math
import random
import threading
import time
import types
from typing import TYPE_CHECKING

from holystream.errors import ConfigurationError
from holystream.resilience.breaker import CircuitBreaker
from holystream.resilience.candidates import Candidates
from holystream.resilience.forks import register
from holystream.resilience.health import Credential, EndpointHealth
from holystream.wire.request import origin

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from holystream.errors import StreamError
    from holystream.resilience.breaker import Ticket
    from holystream.resilience.circuit import BreakerChange, BreakerPolicy
    from holystream.resilience.endpoints import Endpoint
    from holystream.resilience.health import EndpointStatistics


class Assignment:
    """One attempt at one endpoint, from `Router.pick` until it ends. Thread-safe.

    Tell it what happens, in this order and as far as it gets: `connected`, `answered`,
    `first_content`; and its end by one of `finished`, `failed`, `release`, `withdraw`
    and `release_later`, the first of which counts. One that is lost is released.

    Attributes:
        endpoint: Where to send the request.
        serial: Its number, unique in the router.
    """

    __slots__ = ("_picked_at", "_router", "_ticket", "endpoint", "serial")

    def __init__(
        self, router: Router, serial: int, endpoint: Endpoint, picked_at: float
    ) -> None:
        self._router = router
        self._picked_at = picked_at
        self._ticket: Ticket | None = None
        self.serial = serial
        self.endpoint = endpoint

    def connected(self) -> None:
        """The server accepted the request: the key is good."""
        self._router._connected(self)  # noqa: SLF001 - one unit

    def answered(self) -> None:
        """The first event has come: a half-open breaker closes by it."""
        if self._ticket is not None:
            self._ticket.answered()

    def first_content(self, seconds: float) -> None:
        """The first content has come, so many seconds after the attempt began."""
        self.answered()
        self._router._first_content(self, seconds)  # noqa: SLF001 - one unit

    def finished(self) -> None:
        """The answer is complete."""
        if self._ticket is not None:
            self._ticket.finished()
        self._router._end(self, None)  # noqa: SLF001 - one unit

    def failed(self, error: StreamError, *, again: bool = False) -> None:
        """The attempt ended with an error, which its verdict and class judge.

        Args:
            error: How it ended.
            again: The stream tries again, and has no other endpoint to go to.
        """
        if self._ticket is not None:
            self._ticket.failed(error.verdict, again=again)
        self._router._end(self, error)  # noqa: SLF001 - one unit

    def release(self) -> None:
        """It was cancelled or closed: nobody is to blame."""
        if self._ticket is not None:
            self._ticket.release_later()
        self._router._end(self, None)  # noqa: SLF001 - one unit

    def withdraw(self) -> None:
        """It was not made use of: nothing was sent."""
        if self._ticket is not None:
            self._ticket.release_later()
        self._router._withdraw(self)  # noqa: SLF001 - one unit

    def release_later(self) -> None:
        """As `release`, from a finaliser or a signal handler: never waits."""
        if self._ticket is not None:
            self._ticket.release_later()
        self._router._release_later(self.serial)  # noqa: SLF001 - one unit

    def __del__(self) -> None:
        # An exception out of a signal handler (Ctrl-C) may strike before the caller
        # has it in hand, or in the midst of __init__: nothing was counted then.
        if hasattr(self, "endpoint"):
            self.release_later()

    def __repr__(self) -> str:
        return f"<Assignment {self.serial} to {self.endpoint.name!r}>"


class Router:
    """Picks an endpoint for each attempt. Thread-safe.

    A forked child knows what its parent knew, and has no streams in flight.

    Args:
        endpoints: One or more, each with a name of its own.
        breaker: The policy of their breakers.
        clock: Monotonic seconds.
        rng: Where jitter and the order of the first picks come from; the generator of
            `random` by default.
        listener: Is called with each `BreakerChange`, as in `CircuitBreaker`.

    Attributes:
        endpoints: The endpoints, as they were given.
        breakers: The breaker of each, by name.
        candidates: Which of them could be picked, and when.

    Raises:
        ConfigurationError: There is no endpoint, or two have one name.
    """

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        *,
        breaker: BreakerPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        listener: Callable[[BreakerChange], object] | None = None,
    ) -> None:
        self.endpoints: Sequence[Endpoint] = tuple(endpoints)
        names = [endpoint.name for endpoint in self.endpoints]
        if not names or len(set(names)) < len(names):
            raise ConfigurationError(
                "endpoints must be one or more, each with a name= of its own, not "
                f"{names!r}"
            )
        made = {
            name: CircuitBreaker(name, breaker, clock=clock, rng=rng, listener=listener)
            for name in names
        }
        self.breakers: Mapping[str, CircuitBreaker] = types.MappingProxyType(made)
        self._clock = clock
        draw = random.random if rng is None else rng.random
        credentials: collections.defaultdict[object, Credential]
        credentials = collections.defaultdict(Credential)
        self._healths: Mapping[str, EndpointHealth] = {
            endpoint.name: EndpointHealth(
                endpoint,
                made[endpoint.name],
                credentials[origin(endpoint.base_url), endpoint.key],
                # Many processes must not all begin with the same one.
                turn=draw() - 1.0,
            )
            for endpoint in self.endpoints
        }
        self.candidates = Candidates(self._healths, clock)
        # Never starts anew: what was picked before a fork stays unknown after it.
        self._serials = itertools.count()
        # Serials of lost assignments. Appending takes no lock.
        self._returned: collections.deque[int] = collections.deque()
        # Guards the healths, their credentials and _in_flight; `candidates` reads a
        # number of theirs at a time, without it.
        self._lock = threading.Lock()
        # Serial of each assignment that has not ended -> where it is.
        self._in_flight: dict[int, EndpointHealth] = {}
        register(self)

    def pick(
        self,
        *,
        model: str | None = None,
        avoid: Collection[str] = (),
        waited_for: Collection[str] = (),
        stream_id: str | None = None,
        under_way: bool = False,
    ) -> Assignment:
        """Return where the next attempt of a stream goes; never waits.

        Args:
            model: The model that it needs; None for any.
            avoid: The names of endpoints at which this stream has failed: they are
                taken only if there is no other.
            waited_for: Of these, the ones that asked it to wait, and go before others
                that rest when they do not any more.
            stream_id: The stream, which counts once among the failures in a row.
            under_way: It has made an attempt. If no breaker is willing it is let
                through all the same, where none is forced open.

        Raises:
            CircuitOpen: No breaker is willing. ``retry_after`` is in how many seconds
                the first one will be, None if none will by itself. A stream that can
                wait asks again then: more than one may have waited for it.
            InvalidRequest: No endpoint has the model.
        """
        breakers = self.breakers.values()
        probed = {breaker.name for breaker in breakers if breaker.wants_probe}
        for in_spite in (False, True) if under_way else (False,):
            refused: set[str] = set()
            while assignment := self._reserve(
                model, avoid, waited_for, refused, probed
            ):
                name = assignment.endpoint.name
                breaker = self.breakers[name]
                ticket = breaker.try_acquire(stream_id, under_way=in_spite)
                if ticket is not None:
                    assignment._ticket = ticket  # noqa: SLF001 - one unit
                    return assignment
                assignment.withdraw()
                refused.add(name)
        raise self.candidates.nobody(model)

    @property
    def under_way(self) -> int:
        """Attempts that have not ended, those of which nobody has heard included."""
        return len(self._in_flight)

    def statistics(self) -> tuple[EndpointStatistics, ...]:
        """Return how each endpoint does, in the order they were given."""
        breakers = [breaker.statistics() for breaker in self.breakers.values()]
        now = self._clock()
        with self._lock:
            self._settle(now)
            return tuple(
                health.statistics(breaker, now)
                for health, breaker in zip(
                    self._healths.values(), breakers, strict=True
                )
            )

    def _reserve(
        self,
        model: str | None,
        avoid: Collection[str],
        waited_for: Collection[str],
        refused: Collection[str],
        probed: Collection[str],
    ) -> Assignment | None:
        """Take a place at the best of those that have not refused, if there is one."""
        now = self._clock()

        def order(health: EndpointHealth) -> tuple[object, ...]:
            name, rests = health.endpoint.name, now < health.resting_until
            failed = name in avoid
            return (
                rests or (failed and name not in waited_for),
                failed,
                rests,
                health.endpoint.priority,
                name not in probed,
                health.cost(now),
            )

        with self._lock:
            self._settle(now)
            left = [
                health
                for health in self.candidates.usable(model)
                if health.endpoint.name not in refused
            ]
            if not left:
                return None
            best = min(left, key=order)
            serial = next(self._serials)
            assignment = Assignment(self, serial, best.endpoint, now)
            # In this order: from here on its finaliser gives back what is taken.
            self._in_flight[serial] = best
            best.in_flight.add(serial)
            best.waiting.add(serial)
            best.turn = float(serial)
            best.picked += 1
            return assignment

    def _withdraw(self, assignment: Assignment) -> None:
        with self._lock:
            health = self._in_flight.get(assignment.serial)
            if health is not None:
                # Nothing was tried.
                health.waiting.discard(assignment.serial)
                health.picked -= 1
                self._forget(assignment.serial, -math.inf)

    def _connected(self, assignment: Assignment) -> None:
        with self._lock:
            health = self._in_flight.get(assignment.serial)
            if health is not None:
                health.credential.accepted()

    def _first_content(self, assignment: Assignment, seconds: float) -> None:
        now = self._clock()
        with self._lock:
            health = self._in_flight.get(assignment.serial)
            if health is not None and assignment.serial in health.waiting:
                health.waiting.discard(assignment.serial)
                health.took(max(0.0, seconds), now)

    def _end(self, assignment: Assignment, error: StreamError | None) -> None:
        now = self._clock()
        with self._lock:
            health = self._in_flight.get(assignment.serial)
            if health is None:
                return
            if assignment.serial in health.waiting:
                seconds = now - assignment._picked_at  # noqa: SLF001 - one unit
                health.took_in_vain(seconds, now)
            if error is not None:
                health.failed(error, now)
            self._forget(assignment.serial, now)

    def _release_later(self, serial: int) -> None:
        if serial in self._in_flight:
            self._returned.append(serial)

    def _settle(self, now: float) -> None:
        """Uncount what was lost; with the lock held."""
        while self._returned:
            # In this order: an exception out of a signal handler loses none.
            self._forget(self._returned[0], now)
            self._returned.popleft()

    def _forget(self, serial: int, now: float) -> None:
        """End an assignment, if it has not ended; with the lock held."""
        health = self._in_flight.get(serial)
        if health is not None:
            if serial in health.waiting:
                health.waiting.discard(serial)
                health.tried_at = now
            health.in_flight.discard(serial)
            del self._in_flight[serial]

    def after_fork_in_child(self) -> None:
        """Go on without the streams of the parent."""
        self._lock = threading.Lock()
        self._in_flight.clear()
        self._returned.clear()
        for health in self._healths.values():
            health.in_flight.clear()
            health.waiting.clear()

    def __repr__(self) -> str:
        return f"<Router {', '.join(self.breakers)}>"
