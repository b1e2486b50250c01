"""The right to hold one connection: what an acquire returns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from holystream.resilience.granting import Grants
    from holystream.resilience.holders import Priority
    from holystream.resilience.seats import Token


class Permit:
    """The right to hold one connection, until `release`. Thread-safe.

    A context manager. Any thread may release it, any number of times. One that is lost
    without being released goes back to the pool when it is collected.

    Attributes:
        priority: The priority it was acquired with.
    """

    __slots__ = ("_grants", "_tokens", "priority")

    # Made by the pool alone, which writes these: an __init__ would cost as much as all
    # the rest of an acquire.
    _grants: Grants
    # The token, while it is held. Taking it out is one step: only one thread has it.
    _tokens: list[Token]
    priority: Priority

    @property
    def held(self) -> bool:
        """Whether it was granted, in this process, and not yet released."""
        return bool(self._tokens) and not self._grants.stale

    def release(self) -> None:
        """Give the permit back; the second time, nothing happens.

        It never waits: a finaliser or a signal handler may do it as well.
        """
        grants = self._grants
        try:
            seat = self._tokens[0].seat
            seat.since = seat.holder = None
            # No call until here: whoever takes the token out is who cleared its seat.
            # An exception that strikes behind a call finds the token in nobody's hands,
            # not even in a variable, which a traceback would keep: it is replaced.
            (grants.kept if seat.kept else grants.free).append(self._tokens.pop())
            if grants.gate:
                return  # nobody waits, and nothing is new
            grants.settle()
        except IndexError:
            return  # given back before
        except BaseException:
            # A signal handler raised. What was given back may be waited for.
            grants.settle()
            raise
        if grants.pressure.untold:
            grants.pressure.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Permit, {self.priority}, {'held' if self.held else 'not held'}>"
