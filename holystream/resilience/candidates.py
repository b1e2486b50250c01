"""Which endpoints could be asked, and when: what is to be known before one is picked.

Nobody is picked by asking, no probe is used up and nothing is counted. What is returned
was true a moment ago: who acts on it asks `Router.pick`, which decides.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from holystream.errors import CircuitOpen, InvalidRequest, RateLimited

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from holystream.resilience.health import EndpointHealth


class Candidates:
    """The endpoints of a router, as far as they could be asked. Thread-safe.

    It reads one number of a health at a time, each as it is: it takes no lock of the
    router, and may be asked under it what does not concern breakers.

    Args:
        healths: What is known of each endpoint, by name.
        clock: Monotonic seconds.
    """

    __slots__ = ("_clock", "_healths")

    def __init__(
        self, healths: Mapping[str, EndpointHealth], clock: Callable[[], float]
    ) -> None:
        self._healths = healths
        self._clock = clock

    def usable(self, model: str | None) -> list[EndpointHealth]:
        """Return those that have a model and a credential, if any has.

        Raises:
            InvalidRequest: No endpoint has the model.
        """
        able, now = self._able(model), self._clock()
        return [each for each in able if each.credential.until <= now] or able

    def admit(self, *, model: str | None = None, under_way: bool = False) -> None:
        """Raise what `Router.pick` would.

        Args:
            model: The model that is needed; None for any.
            under_way: As in `Router.pick`.

        Raises:
            CircuitOpen: No breaker is willing.
            InvalidRequest: No endpoint has the model.
        """
        if self.retry_after(model=model, under_way=under_way) != 0.0:
            raise self.nobody(model)

    def nobody(self, model: str | None) -> CircuitOpen:
        """Return the error that says that no breaker is willing."""
        usable = self.usable(model)
        states = ", ".join(health.standing for health in usable)
        seconds = self.retry_after(model=model)
        when = "until its reset()"
        if seconds is not None:
            when = f"to be tried again in {seconds:.3g} s"
        which = "the endpoint" if len(usable) == 1 else "every endpoint"
        return CircuitOpen(
            f"{which} fails and is left alone for now, {when}: {states}",
            retry_after=seconds,
        )

    def retry_after(
        self, *, model: str | None = None, under_way: bool = False
    ) -> float | None:
        """Return in how many seconds one may be picked: 0 for now, None for never.

        Args:
            model: The model that is needed; None for any.
            under_way: As in `Router.pick`.

        Raises:
            InvalidRequest: No endpoint has the model.
        """
        waits = [health.breaker.retry_after for health in self.usable(model)]
        if under_way and any(wait is not None for wait in waits):
            return 0.0
        return min((wait for wait in waits if wait is not None), default=None)

    def quiet_in(
        self, *, model: str | None = None, avoid: Collection[str] = ()
    ) -> float:
        """Return in how many seconds one is to be asked that did not ask for quiet.

        0 where there is one now. What nobody may be sent to, or what cannot serve as it
        is set up, does not count beside others.

        Args:
            model: The model that is needed; None for any.
            avoid: The names of endpoints that do not count beside others either.

        Raises:
            InvalidRequest: No endpoint has the model.
        """
        now, usable = self._clock(), self.usable(model)
        willing = [each for each in usable if each.breaker.retry_after == 0.0] or usable
        wanted = [each for each in willing if each.endpoint.name not in avoid]
        return min(
            (
                max(0.0, health.quiet_until - now)
                for health in wanted or willing
                if now < health.quiet_until or health.resting_until <= now
            ),
            default=0.0,
        )

    def check_quiet(
        self, *, model: str | None = None, avoid: Collection[str] = ()
    ) -> None:
        """Raise where `quiet_in` is not 0.

        Args:
            model: The model that is needed; None for any.
            avoid: As in `quiet_in`.

        Raises:
            RateLimited: Nobody wants a request yet; ``retry_after`` says when.
            InvalidRequest: No endpoint has the model.
        """
        seconds = self.quiet_in(model=model, avoid=avoid)
        if seconds > 0.0:
            which = "every endpoint" if len(self._healths) > 1 else "the endpoint"
            if avoid:
                which += " that may serve"
            error = RateLimited(f"{which} asked for quiet, for {seconds:.3g} s more")
            error.retry_after = seconds
            raise error

    def has_other(
        self, than: str, *, model: str | None = None, avoid: Collection[str] = ()
    ) -> bool:
        """Whether one with another credential, not refused of late, would be picked.

        Args:
            than: The endpoint whose credential it must not have.
            model: The model that it needs; None for any.
            avoid: The names of endpoints that do not count.
        """
        refused = self._healths[than].credential
        return any(
            health.credential is not refused
            for health in self._others(than, model, avoid)
        )

    def free_in(
        self, than: str, *, model: str | None = None, avoid: Collection[str] = ()
    ) -> float:
        """Return the seconds until another endpoint would serve; inf for never.

        Args:
            than: The endpoint that does not count.
            model: The model that it needs; None for any.
            avoid: The names of others that do not count.
        """
        now = self._clock()
        return min(
            (
                max(0.0, health.resting_until - now)
                for health in self._others(than, model, avoid)
            ),
            default=math.inf,
        )

    def shut(self, *, model: str | None = None) -> set[str]:
        """Return the names of those that nobody is sent to: by breaker or credential.

        Args:
            model: The model that they have; None for any.
        """
        return {
            health.endpoint.name
            for health in self._able(model)
            if not self._is_open(health)
        }

    def any_free(self, names: Collection[str], *, model: str | None = None) -> bool:
        """Whether one of these would be picked, and rests not.

        Args:
            names: The names of the endpoints that count.
            model: The model that is needed; None for any.
        """
        return any(
            health.endpoint.name in names
            and self._is_open(health)
            and not self.rests(health.endpoint.name)
            for health in self._able(model)
        )

    def rests(self, name: str) -> bool:
        """Whether an endpoint is asked only if there is no other."""
        return self._clock() < self._healths[name].resting_until

    def _is_open(self, health: EndpointHealth) -> bool:
        """Whether breaker and credential of one let an attempt through."""
        return (
            health.credential.until <= self._clock()
            and health.breaker.retry_after == 0.0
        )

    def _able(self, model: str | None) -> list[EndpointHealth]:
        """Return those that have a model."""
        able = [
            health
            for health in self._healths.values()
            if model is None or health.endpoint.has(model)
        ]
        if not able:
            raise InvalidRequest(
                f"no endpoint has the model {model!r}: check model=, and models= of "
                "the endpoints"
            )
        return able

    def _others(
        self, than: str, model: str | None, avoid: Collection[str]
    ) -> Iterator[EndpointHealth]:
        """Yield those beside one that may be asked, be it after a rest."""
        for health in self._able(model):
            name = health.endpoint.name
            if name != than and name not in avoid and self._is_open(health):
                yield health

    def __repr__(self) -> str:
        return f"<Candidates {', '.join(self._healths)}>"
