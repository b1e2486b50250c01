"""The server of completion.py: it cuts connections, and keeps the accounts.

A `CuttingServer` is a `Simulator` that draws for each response it sends, the rest of an
answer included, whether it is cut, and at which byte of the body that this response
would have. It serves one client at a time: the client says which stream comes next, and
reads the account when it has done.
"""

from __future__ import annotations

import dataclasses
import random
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from holystream.simulator import Script, Simulator
from holystream.simulator.messages import ReceivedRequest, Response, read_request
from holystream.simulator.playback import play

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holystream.simulator.generations import Generation
    from holystream.simulator.peer import Peer

LENGTH = 80
"""Tokens in an answer, give or take 5 %."""
_CONTENT = b'"delta":{"content":'


class Mode(NamedTuple):
    """How connections end that are cut, and how their ends are to be told."""

    framing: str
    cut: str

    @property
    def label(self) -> str:
        """What a table calls it."""
        ends = {"fin": "FIN", "rst": "RST", "end": "clean end"}
        framings = {"chunked": "chunked", "close": "close-delimited"}
        return f"{framings[self.framing]}, {ends[self.cut]}"


MODES = tuple(
    Mode(framing, cut)
    for framing in ("chunked", "close")
    for cut in ("fin", "rst", "end")
)


@dataclasses.dataclass(slots=True)
class Account:
    """What one stream cost the server, and the answers that it may end with.

    Attributes:
        connections: Responses that were begun.
        cuts: Those of them that were cut.
        prompt_tokens: Tokens that were read.
        generated_tokens: Tokens that were written: to the end where the server keeps
            an answer for a cursor, else up to the cut.
        saved_tokens: Tokens before the places where the stream was gone on with.
        whole: The answers that were written from the start, each once.
    """

    connections: int = 0
    cuts: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    saved_tokens: int = 0
    whole: list[Generation] = dataclasses.field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """The texts of the whole answers."""
        return [generation.text for generation in self.whole]

    @property
    def paid(self) -> int:
        """Tokens of prompt and answers."""
        return self.prompt_tokens + self.generated_tokens

    @property
    def unbroken(self) -> int:
        """Tokens of the first answer, had nothing cut it."""
        return self.whole[0].answer.usage["total_tokens"] if self.whole else 0


class CuttingServer(Simulator):
    """Cuts each connection with some probability. One stream at a time.

    Args:
        script: What is true of every response.
        mode: How to cut.
        share: The probability.
        at: Where: at any "byte", or only where an "event" begins.
        seed: Makes the draws, which depend on it, on the mode, on the number of the
            stream and on that of the connection, and on nothing that a client does.
    """

    def __init__(
        self, script: Script, mode: Mode, *, share: float, at: str, seed: int
    ) -> None:
        self._script = dataclasses.replace(
            script, framing=mode.framing, cut=mode.cut, times=0
        )
        self._mode = mode
        self._share = share
        self._at = at
        self._seed = seed
        self._stream = 0
        # Of the thread that serves, until its client has done.
        self._account = Account()
        super().__init__(length=LENGTH)

    def begin(self, stream: int) -> Account:
        """Return an empty account: what comes from now on belongs to that stream."""
        self._stream = stream
        self._account = Account()
        return self._account

    def _serve(self, peer: Peer, number: int) -> bool:
        request = read_request(peer, number)
        response = self._service.respond(request, self._script)
        script = self._script
        if response.is_stream and response.pieces is not None:
            script = self._cut(response.pieces)
            self._enter(request, response, script.cut_at)
        return play(peer, response, script, keep_alive=request.keep_alive)

    def _cut(self, pieces: Sequence[bytes]) -> Script:
        account = self._account
        account.connections += 1
        draws = random.Random(
            f"{self._seed} {self._mode} {self._stream} {account.connections}"
        )
        if draws.random() >= self._share:
            return self._script
        account.cuts += 1
        *starts, size = accumulate(map(len, pieces), initial=0)
        places = range(size) if self._at == "byte" else starts
        return dataclasses.replace(self._script, cut_at=draws.choice(places or (0,)))

    def _enter(
        self, request: ReceivedRequest, response: Response, cut_at: int | None
    ) -> None:
        account = self._account
        if request.method == "GET" or "last-event-id" in request.headers:
            self._save(_tokens(response))
            return
        made = self.generations[-1]
        keeps = made.ids is not None or "x-conversation-id" in request.headers
        account.prompt_tokens += made.answer.usage["prompt_tokens"]
        account.generated_tokens += _tokens(response, None if keeps else cut_at)
        if len(made.request["messages"]) == 1:
            account.whole.append(made)
        else:
            self._save(_tokens(response))

    def _save(self, rest: int) -> None:
        whole = self._account.whole[0].answer.usage["completion_tokens"]
        self._account.saved_tokens += max(whole - rest, 0)


def _tokens(response: Response, end: int | None = None) -> int:
    """Count the tokens of which something lies before that byte."""
    pieces = response.pieces or ()
    starts = accumulate(map(len, pieces), initial=0)
    return sum(
        _CONTENT in piece
        for start, piece in zip(starts, pieces, strict=False)
        if end is None or start < end
    )
