"""Stitch: a new turn asks the model to go on; opt-in, for the seam is only likely.

What the model repeats of the tail is dropped, but only if its answer begins with it,
for at least 24 characters, up to the end of a word: by chance that happens once in some
hundred seams, and deleting what belongs to the answer is worse than a visible
repetition. So nothing is dropped that the text has said before, or that begins as it
ends: there the model may as well go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from unicodedata import category

from holystream.events import Guarantee
from holystream.resume.base import Continuation, SeamMismatch
from holystream.resume.held import HeldSeam
from holystream.resume.prefill import may_extend, stop_strings

if TYPE_CHECKING:
    from holystream.resume.base import Trail

_WINDOW: Final = 512
"""Characters of the tail that a model may repeat."""
_ANCHOR: Final = 24
"""The shortest repetition that is taken for one."""
_RECENT: Final = 2048
"""Characters in which what was said once may be said again."""
_EDGE: Final = 12
"""Characters that no part of a text begins and ends with by chance."""
_ANEW: Final = 32
"""An answer that begins with this much of the delivered one was begun anew."""
_ASKED: Final = 60
"""Tokens of the turn that asks, about."""


class Stitch:
    """The model is asked, in a turn of its own, to go on where it was interrupted."""

    name = "stitch"
    guarantee = Guarantee.STITCHED
    keeps = False
    extends = True

    def join(self, trail: Trail) -> Continuation | None:
        """Ask to go on, if the answer is one text that is free to."""
        if not may_extend(trail):
            return None
        text = trail.transcript.text
        request = trail.provider.continued(
            trail.request, text, written=trail.transcript.written
        )
        if request is None:
            return None
        seam = HeldSeam(
            text,
            OverlapRule(text),
            strategy=self.name,
            guarantee=self.guarantee,
            stops=stop_strings(trail),
        )
        return Continuation(request=request, seam=seam, asked=_ASKED)


class OverlapRule:
    """Finds what the new text repeats of the tail of the delivered one."""

    def __init__(self, text: str) -> None:
        self._tail = text[-_WINDOW:]
        self._recent = text[-_RECENT:]
        self._is_whole = len(text) <= _WINDOW
        self._head = text[:_ANEW]

    def skip(self, new: str, *, ended: bool) -> int | None:
        """Return how many characters at the start of ``new`` repeat the tail.

        Raises:
            SeamMismatch: The model did not go on, it began anew.
        """
        tail, head = self._tail, self._head
        if new.startswith(head) and not self._repeats_all(new, ended=ended):
            raise SeamMismatch("the model began its answer anew")
        sizes = range(1, len(tail) + 1)
        if not ended:
            anew = head.startswith(new)
            longer = any(
                size > len(new) and tail[-size:].startswith(new) for size in sizes
            )
            # One more character, to see whether a word ends with the repetition.
            edge = tail.endswith(new) and len(new) >= _ANCHOR
            if anew or longer or edge:
                return None
        found = max(
            (
                size
                for size in sizes
                if _ANCHOR <= size <= len(new)
                and tail.endswith(new[:size])
                and _covers_a_word(new, size)
            ),
            default=0,
        )
        return found if found and self._is_said_once(new[:found]) else 0

    def _is_said_once(self, part: str) -> bool:
        """Whether this part of the tail is nowhere else, not partly over itself."""
        if self._recent.find(part) < len(self._recent) - len(part):
            return False
        sizes = range(_EDGE, len(part))
        return not any(part.startswith(part[-size:]) for size in sizes)

    def _repeats_all(self, new: str, *, ended: bool) -> bool:
        """Whether a model that began with the whole text may yet go on behind it."""
        if not self._is_whole or len(self._tail) < _ANCHOR:
            return False
        return new.startswith(self._tail) or (not ended and self._tail.startswith(new))


def _covers_a_word(new: str, size: int) -> bool:
    """Whether a word begins or ends within what is repeated, or at its end."""
    # A letter without case may be of a script without spaces: each is a word there.
    if any(char.isspace() or category(char) == "Lo" for char in new[:size]):
        return True
    return size == len(new) or not (new[size - 1].isalnum() and new[size].isalnum())
