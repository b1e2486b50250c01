"""The strategies by the names that ``resume=`` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from holystream.errors import ConfigurationError
from holystream.resume.cursor import CursorJoin
from holystream.resume.prefill import Prefilled, Verified
from holystream.resume.replay import Replay
from holystream.resume.restart import Restart
from holystream.resume.stitch import Stitch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holystream.resume.base import ResumeStrategy

DEFAULT_STRATEGIES: Final = ("cursor", "prefill", "replay")
"""What a stream may do, unless it is told otherwise: nothing that withdraws text."""

STRATEGIES: Final[dict[str, tuple[ResumeStrategy, ...]]] = {
    "cursor": (CursorJoin(),),
    "prefill": (Verified(), Prefilled()),
    "replay": (Replay(),),
    "stitch": (Stitch(),),
    "restart": (Restart(),),
}
"""What each name allows, the better way first."""


def strategies(names: Sequence[str]) -> tuple[ResumeStrategy, ...]:
    """Return the strategies of these names, in order.

    Raises:
        ConfigurationError: A name is unknown, or ``names`` are not several.
    """
    if not isinstance(names, (list, tuple)):
        raise ConfigurationError(
            "resume= takes a tuple of names, such as ('cursor', 'replay'), not "
            f"{type(names).__name__}"
        )
    chosen: list[ResumeStrategy] = []
    for name in names:
        if not isinstance(name, str) or name not in STRATEGIES:
            known = ", ".join(map(repr, STRATEGIES))
            raise ConfigurationError(f"resume={name!r} is unknown: use {known}")
        chosen += STRATEGIES[name]
    return tuple(chosen)
