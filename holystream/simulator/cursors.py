"""Cursors: a request whose Last-Event-ID says where an event stream goes on.

A plain id is a number and means the latest generation for an equal request; a named
one has the id of its response before the number. What a server then does rightly or
wrongly is `Script.cursor`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from holystream.simulator import chat
from holystream.simulator.generations import Generation, Generations
from holystream.simulator.prose import seeded
from holystream.simulator.responses import Refused
from holystream.simulator.script import Script


@dataclass(frozen=True, slots=True)
class Place:
    """A generation, and how many of its events the client has."""

    generation: Generation
    seen: int


def find(
    last_event_id: str, body: Mapping[str, Any], generations: Generations
) -> Place | None:
    """Return the place that the id means, if it is remembered."""
    name, _, number = last_event_id.rpartition(":")
    if not (number.isascii() and number.isdigit()):
        return None
    if name:
        generation = generations.with_id(name)
    else:
        generation = generations.for_request(body, "plain")
    named = "named" if name else "plain"
    if generation is None or generation.ids != named:
        return None
    return Place(generation, int(number))


def refuse(script: Script) -> None:
    """Raise if the script wants a cursor refused."""
    if script.cursor == "missing":
        raise Refused(404, "No event stream is known by that Last-Event-ID.")
    if script.cursor == "refuse":
        raise Refused(400, "Last-Event-ID is not supported here.")


def rest(generation: Generation, seen: int, script: Script) -> Sequence[str]:
    """Return the events that come behind so many, as the script wants them.

    Raises:
        Refused: There never were so many.
    """
    script = replace(
        script, ids=generation.ids, split_surrogates=generation.split_surrogates
    )
    answer = generation.answer
    lines: Sequence[str] = chat.events(answer, generation.request, script)
    if seen > len(lines):
        raise Refused(404, f"There is no event {seen} in this event stream.")
    lines = chat.with_ids(lines, answer, script)
    start = seen + {"gap": 1, "inclusive": -1}.get(script.cursor, 0)
    return _shuffled(lines[max(start - script.replay_events, 0) :], script.shuffle)


def _shuffled(lines: Sequence[str], window: int) -> Sequence[str]:
    if window <= 1:
        return lines
    mixed: list[str] = []
    for at in range(0, len(lines), window):
        run = list(lines[at : at + window])
        seeded(window, at, run[0]).shuffle(run)
        if run == list(lines[at : at + window]):
            run.reverse()
        mixed += run
    return mixed
