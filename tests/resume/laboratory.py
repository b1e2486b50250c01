"""A conversation without a socket: simulator, our parser, and an Exchange.

`Laboratory` asks the simulator's `Service`, which does no I/O, for the bytes that each
attempt would bring, lets the first so many of them arrive, in reads of any size, and
ends the attempt as a connection ends. What the exchange makes of it is kept and checked
by the `Reader` of `exchange_player`.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re

from exchange_player import Player

from holystream.errors import Phase
from holystream.events import Guarantee, Resumed, Rewound
from holystream.resilience.retry import RetryPolicy
from holystream.simulator.messages import Headers, ReceivedRequest
from holystream.simulator.script import Script
from holystream.simulator.service import Service
from holystream.wire.faults import Answer, FaultKind
from holystream.wire.sse import EventParser, LineSplitter

TIRELESS = RetryPolicy(base=1.0, cap=1.0, jitter=None, attempts=99, total_attempts=None)
HEALTHY = Script()
_LIMIT = 2**20
_OK = 200


class Body:
    """The parser of one connection; see `holystream.wire.http.HttpConnection`."""

    def __init__(self):
        self._lines = LineSplitter(_LIMIT)
        self._parser = EventParser(_LIMIT)
        self._received = 0
        self._ended = False

    def feed(self, data):
        self._received += len(data)
        block = self._lines.feed(data)
        return self._parser.feed(block.split(b"\n")[:-1]) if block else []

    def close(self):
        self._ended = True
        last = self._parser.close(self._lines.rest)
        return [] if last is None else [last]

    def taken(self):
        if self._ended:
            return self._received
        if not self._lines.only_lf:
            return None
        return self._received - len(self._lines.rest) - self._parser.pending


class Laboratory(Player):
    """An exchange that asks a simulator, attempt by attempt."""

    def __init__(self, *, text=None, length=30, service=None, **options):
        super().__init__(**{"retry": TIRELESS, **options})
        self.service = service or Service(text=text, length=length, api_keys=())
        self.requests = []
        self.bodies = []
        self.model = None

    def respond(self, script=HEALTHY):
        """Return what the server says to what the present attempt asks for."""
        request = received(self.exchange.next_request)
        self.requests.append(request)
        return self.service.respond(request, script)

    def run(
        self,
        script=HEALTHY,
        cut=None,
        end=FaultKind.LOST,
        *,
        sizes=None,
        change=lambda body: body,
    ):
        """Play one attempt: so many bytes arrive, in reads of these sizes.

        A ``cut`` that is a float is a share of the body.
        """
        self.attempt()
        number = self.exchange.attempts
        response = self.respond(script)
        data = b"".join(response.pieces or ())
        if response.status != _OK:
            answer = Answer(status=response.status, headers={}, body=data)
            return self.end(FaultKind.STATUS, Phase.HEADERS, answer=answer)
        data = change(data)
        self.bodies.append(data)
        if isinstance(cut, float):
            cut = int(cut * len(data))
        body = Body()
        self._take(self.exchange.connected("req", self.now, body.taken))
        for read in reads(data[:cut], sizes):
            if batch := body.feed(read):
                self.send(*batch)
            if self.over or self.exchange.wait or number != self.exchange.attempts:
                return self
        if cut is None or cut >= len(data):
            # Nothing is missing: the body ends as it should.
            end = FaultKind.ENDED
        if end is FaultKind.ENDED and (batch := body.close()):
            self.send(*batch)
            if self.over or self.exchange.wait:
                return self
        return self.end(end)

    def finish(self, script=HEALTHY, attempts=20, **options):
        """Let attempt follow attempt, none of them cut, to the end."""
        for _ in range(attempts):
            if self.over:
                break
            self.run(script, **options)
        assert self.over
        return self

    @property
    def resumptions(self):
        return [event for event in self.log if isinstance(event, Resumed)]

    @property
    def is_true(self):
        """Whether the text is what the guarantee says: the server knows what it wrote.

        All of it is of one generation, or has seams behind which the server went on
        with exactly what was delivered; a text that is not complete is the beginning
        of such a one.
        """
        complete = self.completion is not None
        last = max(
            (at for at, event in enumerate(self.log) if isinstance(event, Rewound)),
            default=0,
        )
        seams = [
            event.offset
            for event in self.log[last:]
            if isinstance(event, Resumed) and event.guarantee is Guarantee.CONTINUED
        ]
        generations = self.service.generations
        return is_written(self.text, seams, generations, complete=complete)

    def check(self, whole):
        """Hold that the answer is exactly this text, and the guarantee what it says."""
        assert self.error is None, self.error
        assert self.completion.text == self.text == whole
        discarded = sum(map(len, self.reader.discarded))
        assert self.reader.delivered - discarded == len(whole), "every character once"
        earned = [event.guarantee for event in self.resumptions]
        assert self.completion.guarantee is min([Guarantee.SINGLE, *earned])
        return self


def received(request):
    """Return the request as the simulator's server would have read it."""
    headers = dict(request.headers)
    if request.last_event_id:
        headers["Last-Event-ID"] = request.last_event_id
    body = dict(request.body)
    return ReceivedRequest(
        method=request.method,
        path=f"/v1{request.path}"
        if not request.path.startswith("/beta")
        else request.path,
        headers=Headers(headers.items()),
        body=json.dumps(body).encode(),
        json=body or None,
        connection=1,
        at=0.0,
    )


def is_written(text, seams, generations, *, complete):
    """Whether a text is what a server wrote, with seams at these places."""

    def fits(written, text):
        return written == text if complete else written.startswith(text)

    if not text and not complete:
        return True
    if any(fits(one.wholes[0].text, text) for one in generations):
        return True
    if not seams:
        return False
    *earlier, seam = seams
    prefix = text[:seam].rstrip().rstrip("\ufffd").rstrip()
    blank = text[len(prefix) : seam]
    return is_written(text[:seam], earlier, generations, complete=False) and any(
        fits(written[common(written, blank) :], text[seam:])
        for one in generations
        if one.prefix == prefix
        for written in [one.wholes[0].text[len(prefix) :]]
    )


def common(one, other):
    """Return how many characters two texts have in common at their beginning."""
    same = itertools.takewhile(
        lambda pair: pair[0] == pair[1], zip(one, other, strict=False)
    )
    return sum(1 for _ in same)


def reads(data, sizes=None):
    """Cut bytes into reads; all in one where no sizes are given."""
    if sizes is None:
        return [data] if data else []
    found, at = [], 0
    for size in itertools.cycle(sizes):
        if at >= len(data):
            return found
        found.append(data[at : at + size])
        at += size
    return found


def places(data, *, clean=False):
    """Return one cut for each outcome that cuts at all bytes of a body can have.

    What an Exchange learns of a cut is the events before it and the bytes that they
    took; two cuts that do not differ in these are the same to it.
    """
    outcomes, walker, events, begun = {}, Body(), 0, 0
    for cut in range(len(data) + 1):
        if cut and (found := walker.feed(data[cut - 1 : cut])):
            events += len(found)
            begun = cut
        closing = False
        if clean:
            # What came before the event that is under way does not matter to it.
            rest = Body()
            rest.feed(data[begun:cut])
            closing = bool(rest.close())
        outcomes.setdefault((events, walker.taken(), closing), cut)
    return sorted(outcomes.values())


def boundaries(data):
    """Return where the events of a body end."""
    ends = [match.end() for match in re.finditer(rb"(\r\n|\n|\r)\1", data)]
    return [0, *ends]


def changed(script, **fields):
    return dataclasses.replace(script, **fields)
