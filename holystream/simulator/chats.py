"""The chat route: what is generated for a request, and what of it is sent.

What changes from one request to the next is here: how often each question was
asked, which sampling counts per question so that other requests going on at the
same time change nothing, and the generations that were lately made.
"""

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from holystream.simulator import chat, cursors, prefill, stitch
from holystream.simulator.answers import (
    Answer,
    Choice,
    Text,
    draw,
    is_sampled,
    make_answer,
)
from holystream.simulator.deltas import altered, before, tokens
from holystream.simulator.generations import Generation, Generations, question
from holystream.simulator.messages import ReceivedRequest, Response
from holystream.simulator.prose import seeded
from holystream.simulator.responses import Refused, json_response, stream_response
from holystream.simulator.script import Script

_CURSOR = "last-event-id"


@dataclass(frozen=True, slots=True)
class _Turn:
    """Which of the answers to the same question it is, and of those alike."""

    sample: int
    repeat: int


class Chats:
    """Answers chat requests; thread-safe."""

    def __init__(self, *, text: Text, length: int) -> None:
        self.generations = Generations()
        self._text = text
        self._length = length
        self._lock = threading.Lock()  # guards both counters
        self._samples: Counter[bytes] = Counter()
        self._repeats: Counter[bytes] = Counter()

    def foretell(
        self, body: Mapping[str, Any], script: Script, sample: int | None
    ) -> Answer:
        """Return what the next such request (or that sample) is answered."""
        asked = _question(body)
        with self._lock:
            turn = self._next(body, script, asked, fresh=_is_fresh(script))
        if sample is not None:
            turn = replace(turn, sample=sample if _samples(body, script) else 0)
        return self._generate(body, prefill.read(body, script), script, turn).answer

    def respond(self, request: ReceivedRequest, script: Script) -> Response:
        """Return the response to one chat request.

        Raises:
            Refused: It is not answered.
        """
        body = _checked(request)
        cursor = request.headers.get(_CURSOR) if body.get("stream") else None
        if cursor:
            return stream_response(self._resumed(cursor, body, script), script.status)
        made = self._begin(body, script, fresh=_is_fresh(script))
        if not body.get("stream"):
            whole = chat.completion(made.answer, body, script)
            return json_response(whole, script.status)
        blocks = chat.event_stream(made.answer, body, script)
        return stream_response(blocks, script.status)

    def _resumed(
        self, cursor: str, body: Mapping[str, Any], script: Script
    ) -> tuple[bytes, ...]:
        cursors.refuse(script)
        if script.cursor == "empty":
            return ()
        place = cursors.find(cursor, body, self.generations)
        if script.cursor == "ignore" or (place is None and script.ids is None):
            if place is not None and script.ids is None:
                script = replace(script, ids=place.generation.ids)
            made = self._begin(body, script, fresh=_is_fresh(script))
            return chat.event_stream(made.answer, body, script)
        if place is None:
            raise Refused(404, f"No event stream is known by {cursor!r}.")
        made = place.generation
        if script.cursor == "other":
            script = replace(script, ids=made.ids)
            made = self._begin(body, script, fresh=True, other=True)
        return chat.lay_out(cursors.rest(made, place.seen, script), script)

    def _begin(
        self,
        body: Mapping[str, Any],
        script: Script,
        *,
        fresh: bool,
        other: bool = False,
    ) -> Generation:
        wish, asked = prefill.read(body, script), _question(body)
        with self._lock:
            turn = self._next(body, script, asked, fresh=fresh)
            self._samples[asked] += _samples(body, script)
            self._repeats[asked] += 1
        if other:
            turn = replace(turn, sample=-1 - turn.repeat)
        made = self._generate(body, wish, script, turn)
        self.generations.add(made, _question(wish.body))
        return made

    def _next(
        self, body: Mapping[str, Any], script: Script, asked: bytes, *, fresh: bool
    ) -> _Turn:
        sample = self._samples[asked] if _samples(body, script) else 0
        return _Turn(sample, self._repeats[asked] if fresh else 0)

    def _generate(
        self,
        body: Mapping[str, Any],
        wish: prefill.Wish,
        script: Script,
        turn: _Turn,
    ) -> Generation:
        if wish.prefix is None:
            drawn = self._stitched(wish.body, script)
            drawn = drawn or self._draw(wish.body, script, turn.sample)
        else:
            drawn = self._carried_on(wish.body, wish.prefix, script, turn)
        choices = [_shaped(choice, script, body, turn) for choice in drawn]
        answer = make_answer(
            body if script.prefill != "ignore" else wish.body,
            choices,
            sample=turn.sample,
            repeat=turn.repeat,
            cached_tokens=script.cached_tokens,
        )
        prefix = wish.prefix or ""
        return Generation(
            request=body,
            answer=_echoed(answer, prefix, script),
            prefix=prefix,
            ids=script.ids,
            split_surrogates=script.split_surrogates,
            wholes=tuple(
                replace(choice, deltas=(prefix, *choice.deltas)) for choice in choices
            ),
        )

    def _draw(
        self, body: Mapping[str, Any], script: Script, sample: int
    ) -> Sequence[Choice]:
        def drawn(sample: int) -> Sequence[Choice]:
            return draw(body, sample=sample, text=self._text, length=self._length)

        choices = drawn(sample)
        if not sample or (sample > 0 and not script.sampling):
            return choices
        # A text that was given is another one as well, where it has to be.
        return [
            replace(choice, deltas=altered(choice.deltas, 0, sample))
            if choice.text == greedy.text
            else choice
            for choice, greedy in zip(choices, drawn(0), strict=True)
        ]

    def _known(
        self, body: Mapping[str, Any], script: Script
    ) -> list[list[tuple[str, ...]]]:
        """Return, for each choice, the texts that the model would write.

        The first delta of each is the prefix it was written for.
        """
        earlier = self.generations.answering(_question(body))
        return [
            [
                ("", *choice.deltas),
                *(one.wholes[at].deltas for one in earlier if at < len(one.wholes)),
            ]
            for at, choice in enumerate(self._draw(body, script, 0))
        ]

    def _carried_on(
        self, body: Mapping[str, Any], prefix: str, script: Script, turn: _Turn
    ) -> Sequence[Choice]:
        carried = []
        for index, known in enumerate(self._known(body, script)):
            seed = (_question(body).hex(), index)
            if script.sampling or turn.sample < 0:
                deltas = prefill.wander(prefix, known, *seed, turn.sample, turn.repeat)
            else:
                deltas = prefill.carry_on(prefix, known, *seed)
            carried.append(_said(deltas))
        return carried

    def _stitched(
        self, body: Mapping[str, Any], script: Script
    ) -> Sequence[Choice] | None:
        wish = stitch.read(body, script)
        if wish is None:
            return None
        said = []
        for index, known in enumerate(self._known(wish.body, script)):
            place = wish.place(known)
            if place is None:
                return None
            random = seeded(_question(body).hex(), index)
            said.append(_said(stitch.stitched(*place, script, random)))
        return said


def _question(body: Mapping[str, Any]) -> bytes:
    return question(body.get("model"), body.get("messages"))


def _said(deltas: Sequence[str]) -> Choice:
    return Choice(tuple(deltas), (), (), "stop")


def _samples(body: Mapping[str, Any], script: Script) -> bool:
    return is_sampled(body) if script.sampling is None else script.sampling


def _is_fresh(script: Script) -> bool:
    # Where ids or prefixes join two responses, no two may look like one.
    return script.ids is not None or script.prefill != "none"


def _shaped(
    choice: Choice, script: Script, body: Mapping[str, Any], turn: _Turn
) -> Choice:
    deltas = choice.deltas
    if script.tokens:
        deltas = tokens(choice.text)
    if script.differ_at is not None:
        deltas = altered(deltas, script.differ_at, _question(body).hex(), turn.sample)
    if script.shorter is not None:
        deltas = before(deltas, script.shorter)
    return choice if deltas is choice.deltas else replace(choice, deltas=deltas)


def _echoed(answer: Answer, prefix: str, script: Script) -> Answer:
    if script.echo is None or not prefix:
        return answer
    random = seeded(prefix, answer.id)
    choices = tuple(
        replace(
            choice, deltas=prefill.echoed(prefix, choice.deltas, script.echo, random)
        )
        for choice in answer.choices
    )
    return replace(answer, choices=choices)


def _checked(request: ReceivedRequest) -> dict[str, Any]:
    body = request.json
    if not isinstance(body, dict):
        raise Refused(400, "We could not parse the JSON body of your request.")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise Refused(400, "you must provide a model parameter")
    messages = body.get("messages")
    if (
        not isinstance(messages, list)
        or not messages
        or not all(isinstance(message, dict) for message in messages)
    ):
        raise Refused(400, "Invalid 'messages': expected a non-empty array.")
    return body
