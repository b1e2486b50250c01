"""What was generated lately: cursors, prefills and tests look it up here.

A generation is one answer the model wrote. Asked the same again, a greedy model
writes the same text, but it is another generation. The memory is bounded by the
number of generations and by their tokens; an answer longer than all of it is
never in it, so that a stream of a million tokens costs nothing here.
"""

import hashlib
import json
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holystream.simulator.answers import Answer, Choice
from holystream.simulator.script import Ids

_MOST_GENERATIONS = 256
_MOST_TOKENS = 200_000


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer, and the request it was written for."""

    request: Mapping[str, Any]
    """The body of the request."""
    answer: Answer
    prefix: str = ""
    """The text it goes on from, which is no part of the answer."""
    ids: Ids | None = None
    """The style of the ids its events have."""
    split_surrogates: bool = False
    """Whether it counts half a character as an event."""
    wholes: tuple[Choice, ...] = ()
    """The choices with the prefix before them, and no limit on their tokens."""

    @property
    def id(self) -> str:
        """The id of the response."""
        return self.answer.id

    @property
    def text(self) -> str:
        """The text that was written, of the first choice."""
        return self.answer.text


def question(model: object, messages: object) -> bytes:
    """Return what makes two requests the same question."""
    key = json.dumps((model, messages), sort_keys=True)
    return hashlib.sha256(key.encode()).digest()


class Generations:
    """A bounded memory of generations; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._kept: deque[tuple[Generation, bytes]] = deque()
        self._tokens = 0

    def add(self, generation: Generation, asked: bytes) -> None:
        """Remember it as an answer to that question, and forget the oldest."""
        size = _tokens(generation)
        if size > _MOST_TOKENS:
            return
        with self._lock:
            self._kept.append((generation, asked))
            self._tokens += size
            while len(self._kept) > _MOST_GENERATIONS or self._tokens > _MOST_TOKENS:
                oldest, _ = self._kept.popleft()
                self._tokens -= _tokens(oldest)

    def all(self) -> tuple[Generation, ...]:
        """Return those remembered, in their order."""
        with self._lock:
            return tuple(generation for generation, _ in self._kept)

    def with_id(self, name: str) -> Generation | None:
        """Return the latest one of that response id."""
        return next((one for one in self._latest_first() if one.id == name), None)

    def for_request(self, body: Mapping[str, Any], ids: Ids) -> Generation | None:
        """Return the latest one for an equal request, with ids of that style."""
        return next(
            (
                one
                for one in self._latest_first()
                if one.ids == ids and one.request == body
            ),
            None,
        )

    def answering(self, asked: bytes) -> Sequence[Generation]:
        """Return those that answer the question, or go on answering it."""
        with self._lock:
            return [one for one, known in self._kept if known == asked]

    def _latest_first(self) -> Sequence[Generation]:
        return self.all()[::-1]


def _tokens(generation: Generation) -> int:
    return sum(choice.tokens for choice in generation.answer.choices)
