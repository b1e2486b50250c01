"""Whether events arrive one by one, or were collected on the way.

A small answer is streamed through the library itself, and the wire is watched: when
each read came, and how many events it brought. Judged is the time between the first
tenth of the events and the last, so that a lone early or late one (a role, a usage)
proves nothing; and a verdict is given only where a fast server could not look the same.
"""

from __future__ import annotations

import dataclasses
import enum
import itertools
import re
import uuid
from typing import TYPE_CHECKING, Any, Final, Self

from holystream.cli.doctor.api import is_simulator
from holystream.cli.doctor.findings import Finding, fine, found, skipped
from holystream.cli.exits import reworded
from holystream.client import Client
from holystream.clocks import Timeouts
from holystream.errors import (
    DeadlineExceeded,
    FirstTokenTimeout,
    HolystreamError,
    StreamError,
)
from holystream.resilience.retry import RetryPolicy
from holystream.wire.observing import observer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holystream.cli.doctor.case import Case
    from holystream.wire.observing import Ending

MAX_TOKENS: Final = 200
"""Tokens of the answer at most: enough to see their spread, and soon paid."""
SECONDS: Final = 60.0
"""The longest that the answer is waited for."""

_PROMPT: Final = (
    "Count from one to one hundred in words, separated by commas. Write nothing else. "
    "(No. {number})"
)
_EVENT: Final = re.compile(rb"[\r\n]data:")
_FEWEST: Final = 16
"""Events below which there is no verdict."""
_SPREAD: Final = 0.25
"""Seconds: what takes longer is not all at once."""
_HELD: Final = 1.0
"""Seconds of waiting from which on all at once afterwards is suspicious ..."""
_SHARE: Final = 0.1
"""... if it then took no more than this share of them ..."""
_CLUMP: Final = 4.0
"""... and reads brought so many events each: a model's next token comes alone."""
_PAUSE: Final = 0.4
"""Seconds without an event from which on a person sees a pause."""
_LUMP: Final = 8.0
"""Events between two pauses from which on they are a lump ..."""
_PAUSED: Final = 0.5
"""... if pauses make up this share of the time."""

_TRACES: Final = ("content-encoding", "via", "server", "x-cache", "cf-ray")
"""Headers by which those who may collect an answer give themselves away."""


class Flow(enum.Enum):
    """How the events came; the value is the row of `PROBLEMS`, if there is one."""

    LIVE = "live"
    HELD = "buffering.held"
    LUMPS = "buffering.lumps"
    SHORT = "buffering.short"
    QUICK = "buffering.quick"


@dataclasses.dataclass(slots=True)
class Arrivals:
    """Watches one request: when each read came, and the events it brought.

    Attributes:
        now: Returns seconds.
        headers: The response's headers, names in lower case.
        reads: The seconds since the request, and the number of events, of each read
            that brought any.
    """

    now: Callable[[], float]
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    reads: list[tuple[float, int]] = dataclasses.field(default_factory=list)
    _sent_at: float = 0.0
    _tail: bytes = b"\n"

    def sending(
        self,
        method: str,  # noqa: ARG002 - as every observer
        place: str,  # noqa: ARG002 - the same
        body: bytes | None,  # noqa: ARG002 - the same
        headers: Mapping[str, str],  # noqa: ARG002 - the same
    ) -> Self:
        """Begin with a request."""
        self._sent_at = self.now()
        self._tail = b"\n"
        self.reads.clear()
        return self

    def answered(self, status: int, headers: Mapping[str, str]) -> None:  # noqa: ARG002 - as every observation
        """Note the headers."""
        self.headers = {name.lower(): value for name, value in headers.items()}

    def received(self, data: bytes) -> None:
        """Note a read. A mark that is cut in two counts when it is whole."""
        data = self._tail + data
        self._tail = data[-5:]
        if events := len(_EVENT.findall(data)):
            self.reads.append((self.now() - self._sent_at, events))

    def ended(self, ending: Ending) -> None:
        """Nothing is made of the end."""

    @property
    def events(self) -> int:
        """How many came."""
        return sum(events for _, events in self.reads)

    @property
    def waited(self) -> float:
        """Seconds until the first tenth of them had come."""
        return self._at(self.events // 10)

    @property
    def spread(self) -> float:
        """Seconds from then until only a tenth was missing."""
        return self._at(self.events - 1 - self.events // 10) - self.waited

    @property
    def pauses(self) -> list[float]:
        """The pauses of that time, in seconds."""
        begin, end = self.waited, self.waited + self.spread
        times = [seconds for seconds, _ in self.reads if begin <= seconds <= end]
        gaps = (later - earlier for earlier, later in itertools.pairwise(times))
        return [gap for gap in gaps if gap >= _PAUSE]

    def _at(self, number: int) -> float:
        """Return when the event of this number came, counted from 0."""
        for seconds, events in self.reads:
            number -= events
            if number < 0:
                return seconds
        return 0.0


def judge(seen: Arrivals) -> Flow:
    """Say how the events came."""
    events, spread, waited = seen.events, seen.spread, seen.waited
    if events < _FEWEST:
        return Flow.SHORT
    if "content-length" in seen.headers and spread < _SPREAD:
        # Whoever knew the length before the first byte had the whole answer.
        return Flow.HELD
    if (
        waited >= _HELD
        and spread <= min(_SHARE * waited, 2 * _SPREAD)
        and events / len(seen.reads) >= _CLUMP
    ):
        return Flow.HELD
    if spread < _SPREAD:
        return Flow.QUICK
    pauses = seen.pauses
    if events / (1 + len(pauses)) >= _LUMP and sum(pauses) >= _PAUSED * spread:
        return Flow.LUMPS
    return Flow.LIVE


def buffering(case: Case) -> Finding:
    """Stream a small answer, if that was asked for or costs nothing."""
    model = case.model
    if not case.stream:
        if not is_simulator(case):
            return skipped(
                "not tried, for it is paid for: at most "
                f"{MAX_TOKENS} tokens. Add --stream --model NAME"
            )
        model = model or "simulator"
    seen = Arrivals(case.now)
    problem = _stream(case, model or "", seen)
    facts: dict[str, Any] = {
        "events": seen.events,
        "reads": len(seen.reads),
        "waited_seconds": round(seen.waited, 4),
        "spread_seconds": round(seen.spread, 4),
    }
    if problem is not None:
        return found("buffering.failed", problem, facts)
    flow = judge(seen)
    facts["flow"] = flow.name.lower()
    text = (
        f"{seen.events} events in {len(seen.reads)} reads; the first tenth after "
        f"{seen.waited:.2f} s, most of the rest within {seen.spread:.3f} s"
    )
    if flow is Flow.LIVE:
        return fine(text, facts)
    if flow in {Flow.HELD, Flow.LUMPS}:
        text += _traces(case, seen)
    return found(flow.value, text, facts)


def _stream(case: Case, model: str, seen: Arrivals) -> str | None:
    """Watch an answer arrive; return what went wrong, if anything did."""
    prompt = _PROMPT.format(number=uuid.uuid4().hex[:8])  # no cache has it
    timeouts = Timeouts(connect=case.seconds, first_token=SECONDS, idle=SECONDS)
    token = observer.set(seen)
    try:
        with (
            Client(
                provider=case.profile,
                base_url=case.base_url,
                allow_http=case.allow_http,
                retry=RetryPolicy(attempts=1),
                timeout=timeouts,
                deadline=SECONDS,
            ) as client,
            client.stream(prompt, model=model, max_tokens=MAX_TOKENS) as stream,
        ):
            for _ in stream:
                pass
    except (DeadlineExceeded, FirstTokenTimeout):
        # A slow server; how its events came can be seen all the same.
        return None if seen.reads else f"no event came within {SECONDS:g} s"
    except StreamError as error:
        return case.clean(reworded(error.message))
    except HolystreamError as error:
        return case.clean(reworded(str(error)))
    finally:
        observer.reset(token)
    return None


def _traces(case: Case, seen: Arrivals) -> str:
    """Name who may have collected the answer."""
    traces = [
        f"{name}: {case.clean(seen.headers[name])}"
        for name in _TRACES
        if name in seen.headers
    ]
    if case.route.proxy is not None:
        traces.append(f"the proxy of {case.route.variable}")
    return f"; on the way: {', '.join(traces)}" if traces else ""
