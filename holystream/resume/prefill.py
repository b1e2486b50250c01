"""Prefill: the model is given what it wrote and goes on with it.

Where the prefix ends in the middle of a token, or in white space, models go on with
something else: half of all arbitrary cuts. So a greedy model is given all but the last
word; it must write that word again, which proves the seam. A sampling one would not:
it is given all but trailing white space. Nothing else is trimmed: what looks like a
repeated tail is now and then the answer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from holystream.events import Guarantee
from holystream.resume.base import Continuation, SeamMismatch
from holystream.resume.held import HeldSeam

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holystream.resume.base import Trail

_LAST_WORD: Final = re.compile(r"\s+\S+\s*\Z")
_FAR_BACK: Final = 64
"""A last word longer than this is no word: the text is written without spaces."""
_BROKEN: Final = "\ufffd"
_SURE_ECHO: Final = 32
"""Characters of the prefix that no answer repeats by chance."""
_CONSTRAINTS: Final = (
    "response_format",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "guided_decoding",
    "structural_tag",
    "regex",
    "ebnf",
    "structured_outputs",
    "json_schema",
    "grammar",
    "format",
)

_FREE: Final = (None, False, "", {"type": "text"})
"""What a field says that constrains nothing. An empty schema does: to JSON."""


class Verified:
    """Prefill, one word rewound: a greedy model has to write it again."""

    name = "prefill"
    guarantee = Guarantee.VERIFIED
    keeps = False
    extends = True

    def join(self, trail: Trail) -> Continuation | None:
        """Go on before the last word, if the model writes what is likeliest."""
        request = trail.request
        if request.body.get("temperature") != 0 or not request.deterministic:
            return None
        text = trail.transcript.text
        start = rewound(text, trail.transcript.last_piece)
        return _prefilled(trail, text[:start], text[start:], self.guarantee)


class Prefilled:
    """Prefill from where the text broke off; nothing proves the seam."""

    name = "prefill"
    guarantee = Guarantee.CONTINUED
    keeps = False
    extends = True

    def join(self, trail: Trail) -> Continuation | None:
        """Go on behind all that was delivered, but for white space at its end.

        Nor behind what the server itself could not decode: no model goes on from that.
        """
        text = trail.transcript.text
        prefix = text.rstrip()
        while prefix.endswith(_BROKEN):
            prefix = prefix.rstrip(_BROKEN).rstrip()
        return _prefilled(trail, prefix, text[len(prefix) :], self.guarantee)


def may_extend(trail: Trail) -> bool:
    """Whether what was delivered is the beginning of one text, free to go on."""
    transcript, body = trail.transcript, trail.request.body
    return (
        trail.request.choices == 1
        and not transcript.tool_calls
        and not trail.half_call
        and list(transcript.texts) == [0]
        and not any(body.get(name) not in _FREE for name in _CONSTRAINTS)
    )


def stop_strings(trail: Trail) -> Sequence[str]:
    """Return the texts that end the answer."""
    stop = trail.request.body.get("stop") or ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


def rewound(text: str, last_piece: int) -> int:
    """Return where the last word begins, with the white space before it.

    Args:
        text: All that was delivered.
        last_piece: Where its last piece begins: in a text without spaces no word can be
            told, and a piece is made of whole tokens.
    """
    match = _LAST_WORD.search(text, max(0, len(text) - 4 * _FAR_BACK))
    if match and len(text.rstrip()) - match.start() <= _FAR_BACK:
        return match.start()
    if len(text) <= _FAR_BACK:
        return 0
    return last_piece


def _prefilled(
    trail: Trail, prefix: str, tail: str, guarantee: Guarantee
) -> Continuation | None:
    prefill = trail.profile.prefill
    transcript = trail.transcript
    if prefill is None or not may_extend(trail):
        return None
    request = trail.provider.prefilled(
        trail.request,
        prefix,
        written=max(0, transcript.written - transcript.pieces_behind(len(prefix))),
    )
    if request is None:
        return None
    rule = PrefixRule(
        request.begun,
        tail,
        echoes=prefill.echo,
        must_repeat=guarantee is Guarantee.VERIFIED,
    )
    seam = HeldSeam(
        transcript.text,
        rule,
        strategy="prefill",
        guarantee=guarantee,
        stops=stop_strings(trail),
    )
    return Continuation(request=request, seam=seam)


class PrefixRule:
    """New text joins behind the prefix: with its echo or without, then the tail.

    Args:
        begun: How the request said that the answer begins.
        tail: What was delivered behind that.
        echoes: The host is known to send the prefix back.
        must_repeat: The tail must come again, to the letter; else it may, being white
            space that the model writes anew or does not.
    """

    def __init__(
        self, begun: str, tail: str, *, echoes: bool, must_repeat: bool
    ) -> None:
        self._begun = begun
        self._tail = tail
        self._echoes = echoes
        self._must_repeat = must_repeat

    def skip(self, new: str, *, ended: bool) -> int | None:
        """Return how much of the new text is echo and tail."""
        if self._must_repeat:
            return self._skip_proven(new, ended=ended)
        begun = self._begun
        if self._may_echo(new):
            if new.startswith(begun):
                rest = self._skip_blank(new[len(begun) :], ended=ended)
                return None if rest is None else len(begun) + rest
            if begun.startswith(new):
                if not ended:
                    return None
                if len(new) >= _SURE_ECHO:
                    raise SeamMismatch("it ends before what was sent came back")
        return self._skip_blank(new, ended=ended)

    def _skip_proven(self, new: str, *, ended: bool) -> int | None:
        """Find the tail, behind an echo or not, but not where it may be either."""
        plain, echoed = self._tail, self._begun + self._tail
        if not ended and (
            _is_beginning(new, of=plain)
            or (_is_beginning(new, of=echoed) and new.startswith(plain))
        ):
            return None
        found = {len(start) for start in (plain, echoed) if new.startswith(start)}
        if len(found) == 1:
            return found.pop()
        if not ended and _is_beginning(new, of=echoed):
            return None
        if found:
            raise SeamMismatch("the text repeats itself: it may join in two places")
        raise SeamMismatch("the model did not write the last word again")

    def _may_echo(self, new: str) -> bool:
        """Whether what begins as the prefix does is the prefix, as far as it goes."""
        begun = self._begun
        if not begun or self._echoes:
            return bool(begun)
        if len(begun) < _SURE_ECHO or not new.startswith(begun[: len(new)]):
            return False
        return len(new) < _SURE_ECHO or not _is_periodic(begun)

    def _skip_blank(self, new: str, *, ended: bool) -> int | None:
        """Skip the white space that was delivered, as much of it as comes again."""
        tail = self._tail
        if not ended and _is_beginning(new, of=tail):
            return None
        same = 0
        while same < len(new) and same < len(tail) and new[same] == tail[same]:
            same += 1
        return same


def _is_beginning(new: str, *, of: str) -> bool:
    """Whether a text is there in part, so that the rest of it may follow."""
    return len(new) < len(of) and of.startswith(new)


def _is_periodic(text: str) -> bool:
    """Whether a text is made of one part, repeated, so that more of it may follow."""
    # The longest beginning of each part of the text that is its end as well.
    borders = [0] * len(text)
    size = 0
    for place in range(1, len(text)):
        while size and text[place] != text[size]:
            size = borders[size - 1]
        size += text[place] == text[size]
        borders[place] = size
    return 2 * size >= len(text) > 0
