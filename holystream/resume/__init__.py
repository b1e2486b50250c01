"""How an answer goes on over a new connection, and the seam between the two.

A strategy decides whether it may join and says what to ask for; its gate or its seam
then stands between the new connection and the caller, and lets through only what is
new. Nothing here guesses: text is joined where it is proven to be the same answer, or
its guarantee says less, or it is withdrawn.

An answer of which nothing was delivered needs no strategy: it is simply asked again.
"""

from holystream.resume.base import (
    Continuation,
    Gate,
    ResumeStrategy,
    Seam,
    SeamMismatch,
    Trail,
)
from holystream.resume.byname import DEFAULT_STRATEGIES, STRATEGIES, strategies
from holystream.resume.tracker import CursorTracker

__all__ = [
    "DEFAULT_STRATEGIES",
    "STRATEGIES",
    "Continuation",
    "CursorTracker",
    "Gate",
    "ResumeStrategy",
    "Seam",
    "SeamMismatch",
    "Trail",
    "strategies",
]
