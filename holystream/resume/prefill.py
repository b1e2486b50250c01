"""Prefill: the model is given what it wrote and goes on with it.

Where the prefix ends in the middle of a token, or in white space, models go on with
something else: half of all arbitrary cuts. So a greedy model is given all but the last
few words; it must write those again, which proves the seam. A sampling one would not:
it is given all but trailing white space. Nothing else is trimmed: what looks like a
repeated tail is now and then the answer.

A server that takes no notice of the prefix, whatever its profile says, begins the
answer anew. That must not pass for its rest: so the words that are written again are
as many as no answer begins with by chance, and not those that this answer itself began
with. What repeats the whole of it is a replay, and as good; but where the answer is all
repetition it may as well be the rest, and is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from holystream.events import Guarantee
from holystream.resume.base import BegunAnew, Continuation, SeamMismatch
from holystream.resume.held import HeldSeam

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holystream.resume.base import Trail

_GAP: Final = re.compile(r"(?<!\s)\s+(?=\S)")
_SURE: Final = 16
"""Characters that no other answer begins with by chance,"""
_SURE_WORDS: Final = 3
"""if they are that many words, or twice as many characters."""
_FAR_BACK: Final = 64
"""Words that are longer than this are none: the text is written without spaces."""
_FURTHEST: Final = 256
"""As far back it is known where pieces began."""
_BROKEN: Final = "\ufffd"
_SURE_ECHO: Final = 32
"""Characters of the prefix that no answer repeats by chance."""
_WHOLE: Final = 8
"""Characters, or two words, that no answer goes on with if they are all of it."""
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
    """Prefill, a few words rewound: a greedy model has to write them again."""

    name = "prefill"
    guarantee = Guarantee.VERIFIED
    keeps = False
    extends = True

    def join(self, trail: Trail) -> Continuation | None:
        """Go on before the last words, if the model writes what is likeliest."""
        request = trail.request
        if request.body.get("temperature") != 0 or not request.deterministic:
            return None
        behind = trail.transcript.pieces_behind
        text = trail.transcript.text
        start = rewound(text, lambda at: behind(at - 1) > behind(at))
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


def rewound(text: str, begins: Callable[[int], bool]) -> int:
    """Return where the part of a text begins that has to be written again.

    That is before a word, with the white space before it; in a text without spaces at
    the beginning of a piece, for pieces are made of whole tokens. 0 is all of the text:
    where nothing less is a proof, because it is short, or repeats itself.

    Args:
        text: All that was delivered.
        begins: Whether a piece of it begins at this place, as far as is known.
    """
    end = len(text.rstrip())
    gaps = [gap.start() for gap in _GAP.finditer(text, max(0, end - _FAR_BACK))]
    for start in reversed(gaps):
        tail = text[start:end]
        enough = len(tail) >= 2 * _SURE or len(tail.split()) >= _SURE_WORDS
        if enough and _proves(text, start, end):
            return start
    if end <= _FAR_BACK:
        return 0
    for start in range(end - _SURE, max(0, end - _FURTHEST), -1):
        if begins(start) and _proves(text, start, end):
            return start
    return 0


def _proves(text: str, start: int, end: int) -> bool:
    """Whether what begins there is what neither chance nor a new beginning brings."""
    return end - start - _common(text[start:end], text) >= _SURE


def _common(one: str, other: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    same = 0
    while same < len(one) and same < len(other) and one[same] == other[same]:
        same += 1
    return same


def _prefilled(
    trail: Trail, prefix: str, tail: str, guarantee: Guarantee
) -> Continuation | None:
    prefill = trail.profile.prefill
    transcript = trail.transcript
    if prefill is None or not may_extend(trail):
        return None
    again = transcript.pieces_behind(len(prefix)) if prefix else transcript.written
    request = trail.provider.prefilled(
        trail.request, prefix, written=max(0, transcript.written - again)
    )
    if request is None:
        return None
    rule = PrefixRule(
        request.begun,
        tail,
        said=prefix,
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
    return Continuation(request=request, seam=seam, rewound=again)


class PrefixRule:
    """New text joins behind the prefix: with its echo or without, then the tail.

    Args:
        begun: How the request said that the answer begins.
        tail: What was delivered behind that.
        said: What was delivered before the tail: a server that takes no notice of the
            prefix brings this again, without what the caller himself began.
        echoes: The host is known to send the prefix back.
        must_repeat: The tail must come again, to the letter; else it may, being white
            space that the model writes anew or does not.
    """

    def __init__(
        self, begun: str, tail: str, *, said: str, echoes: bool, must_repeat: bool
    ) -> None:
        self._begun = begun
        self._tail = tail
        self._echoes = echoes
        self._must_repeat = must_repeat
        # One and the same, nearly always.
        self._beginnings = tuple(dict.fromkeys((begun, said)))
        self._joins = {tail, *(each + tail for each in self._beginnings)}

    def skip(self, new: str, *, ended: bool) -> int | None:
        """Return how much of the new text is echo and tail."""
        if self._must_repeat:
            return self._skip_proven(new, ended=ended)
        return self._skip_alone(new, ended=ended)

    def _skip_proven(self, new: str, *, ended: bool) -> int | None:
        """Find the tail, behind an echo or not, but not where it may be either."""
        if not ended and any(_is_beginning(new, of=each) for each in self._joins):
            return None
        found = [each for each in self._joins if new.startswith(each)]
        if not found:
            if self._begun and self._is_anew(new):
                raise BegunAnew("the model began its answer anew")
            raise SeamMismatch("the model did not write the last words again")
        (at, *others) = found
        if others or any(each != at and each.startswith(at) for each in self._joins):
            raise SeamMismatch("the text repeats itself: it may join in two places")
        return len(at)

    def _is_anew(self, new: str) -> bool:
        """Whether what is not the rest begins as the answer itself does."""
        same = max(_common(new, each) for each in self._joins if each != self._tail)
        return same >= _SURE and same > _common(new, self._tail)

    def _skip_alone(self, new: str, *, ended: bool) -> int | None:
        """Find the end of an echo, if this is one, and of white space behind it."""
        for begun in self._beginnings:
            known = self._echoes and begun == self._begun
            if begun and (known or _is_telling(begun)):
                if new.startswith(begun):
                    if not known:
                        self._check_period()
                    rest = self._skip_blank(new[len(begun) :], ended=ended)
                    return None if rest is None else len(begun) + rest
                if begun.startswith(new):
                    if not ended:
                        return None
                    if len(new) >= _WHOLE:
                        self._check_period()
                        raise BegunAnew("it ends before what was sent came back")
            if _is_other(new, begun):
                raise BegunAnew("the model began its answer anew")
        return self._skip_blank(new, ended=ended)

    def _check_period(self) -> None:
        """Refuse what may be the answer's beginning as well as its rest."""
        if any(map(_is_periodic, self._beginnings)):
            raise SeamMismatch("the text repeats itself: it may go on or begin anew")

    def _skip_blank(self, new: str, *, ended: bool) -> int | None:
        """Skip the white space that was delivered, as much of it as comes again."""
        tail = self._tail
        if not ended and _is_beginning(new, of=tail):
            return None
        return _common(new, tail)


def _is_telling(begun: str) -> bool:
    """Whether what begins with all of this text is that text once more."""
    return len(begun) >= _WHOLE or len(begun.split()) > 1


def _is_other(new: str, begun: str) -> bool:
    """Whether a text begins as another, which says so only once, and then differs."""
    head = begun[:_SURE_ECHO]
    return (
        len(head) == _SURE_ECHO
        and new.startswith(head)
        and begun.find(head, 1) < 0
        and not begun.startswith(new)
        and not new.startswith(begun)
    )


def _is_beginning(new: str, *, of: str) -> bool:
    """Whether a text is there in part, so that the rest of it may follow."""
    return len(new) < len(of) and of.startswith(new)


def _is_periodic(text: str) -> bool:
    """Whether a text is made of one part, repeated, so that more of it may follow.

    What divides the parts may be missing at its end.
    """
    # The longest beginning of each part of the text that is its end as well.
    borders = [0] * len(text)
    size = 0
    for place in range(1, len(text)):
        while size and text[place] != text[size]:
            size = borders[size - 1]
        size += text[place] == text[size]
        borders[place] = size
    return 2 * size >= len(text) - 1 > 0
