"""Names the word that was meant where one is misspelt."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def did_you_mean(
    word: str, known: Iterable[str], *, shown: Callable[[str], str] = repr
) -> str:
    """Return ``: did you mean 'this'?`` for the nearest known word, or nothing.

    Args:
        word: The one that is not known.
        known: Those that are.
        shown: Writes a word as whoever reads the message does.
    """
    import difflib  # noqa: PLC0415 - wanted only for a mistake

    nearest = difflib.get_close_matches(word, known, n=1)
    return f": did you mean {shown(nearest[0])}?" if nearest else ""
