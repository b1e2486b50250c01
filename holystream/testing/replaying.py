"""Serves a recording again, on a real socket: what broke once breaks in a test."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holystream.simulator.messages import Response, read_request, response_head
from holystream.simulator.playback import play
from holystream.simulator.script import Script
from holystream.simulator.server import Simulator
from holystream.wire.observing import Ending

if TYPE_CHECKING:
    import os

    from holystream.simulator.messages import ReceivedRequest
    from holystream.simulator.peer import Peer

# The bodies are replayed as they were read, without content coding; what belongs to the
# connection is decided anew.
_NOT_REPLAYED = ("content-encoding", "transfer-encoding", "connection", "keep-alive")
_STATUSES = range(100, 1000)
_HEADER = re.compile(r"[!#$%&'*+.^`|~\w-]+: [\t -~\x80-\xff]*", re.ASCII)


def replay(path: str | os.PathLike[str], speed: float | None = None) -> Replay:
    """Return a server that answers as it was recorded.

    The first request meets the first recorded connection, and so on, whatever its path,
    key and body. It listens on this machine until it is closed, which ``with`` does;
    ``base_url`` is what a client takes, ``requests`` holds what it was asked.

    Args:
        path: A file that `record` wrote.
        speed: 1 keeps the recorded times, 2 is twice as fast; None is as fast as
            possible, where reads may bring several of the recorded pieces at once.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a recording, or ``speed`` is not positive.
    """
    if speed is not None and not 0 < speed < math.inf:
        raise ValueError(f"speed must be a positive number or None, not {speed!r}")
    return Replay(_read(path), speed)


@dataclasses.dataclass(slots=True)
class _Recorded:
    """One recorded connection."""

    status: int | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    answered_at: float = 0.0
    pieces: list[tuple[float, bytes]] = dataclasses.field(default_factory=list)
    ended_at: float = 0.0
    # Without an end, the recording ended first, or its program did.
    ending: Ending = Ending.LEFT


def _read(path: str | os.PathLike[str]) -> list[_Recorded]:
    found: dict[int, _Recorded] = {}
    # Bytes that are no UTF-8 are on a line that is none.
    with Path(path).open(encoding="utf-8", errors="surrogateescape") as file:
        for number, text in enumerate(file, 1):
            try:
                line = json.loads(text)
                _add(found.setdefault(int(line["n"]), _Recorded()), line)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                # The last line may not have been written to its end.
                if not text.endswith("\n") and found:
                    break
                raise ValueError(f"{path}:{number} is no line of a recording") from None
    if not found:
        raise ValueError(f"{path} holds no recorded connection")
    return [found[number] for number in sorted(found)]


def _add(recorded: _Recorded, line: dict[str, Any]) -> None:
    at = float(line["t"])
    if not 0 <= at < math.inf:
        raise ValueError("no seconds")
    if "status" in line:
        status, headers = int(line["status"]), {**line["headers"]}
        # Whoever changes a recording by hand shall hear of it here, not in the server.
        if status not in _STATUSES or not all(
            _HEADER.fullmatch(f"{name}: {value}") for name, value in headers.items()
        ):
            raise ValueError("no head of an answer")
        recorded.status = status
        recorded.headers = {name: str(value) for name, value in headers.items()}
        recorded.answered_at = at
    elif "end" in line:
        recorded.ending = Ending(line["end"])
        recorded.ended_at = at
    elif "base64" in line:
        recorded.pieces.append((at, base64.b64decode(line["base64"], validate=True)))
    else:
        recorded.pieces.append((at, line["text"].encode()))


class Replay(Simulator):
    """A server that answers with recorded connections; `replay` makes it."""

    def __init__(self, recorded: list[_Recorded], speed: float | None) -> None:
        self._recorded = recorded
        self._speed = speed
        super().__init__()

    @property
    def left(self) -> int:
        """How many recorded connections were not asked for yet."""
        return max(0, len(self._recorded) - len(self.requests))

    def _serve(self, peer: Peer, number: int) -> bool:
        request = read_request(peer, number)
        with self._changed:
            index = len(self._requests)
            self._requests.append(request)
            self._notify()
        if index < len(self._recorded):
            return self._answer(peer, request, self._recorded[index])
        message = (
            "The recording is used up: of connections it has "
            f"{len(self._recorded)}, and this is request {index + 1}."
        )
        body = json.dumps({"error": {"message": message}}).encode()
        return play(
            peer,
            # Nothing that is mended elsewhere, or by trying again.
            Response(500, "application/json", (body,), {"x-should-retry": "false"}),
            Script(),
            keep_alive=request.keep_alive,
        )

    def _answer(
        self, peer: Peer, request: ReceivedRequest, recorded: _Recorded
    ) -> bool:
        """Serve one connection; tell whether it can be used again."""
        start = time.monotonic()

        def wait_until(seconds: float) -> None:
            if self._speed is not None:
                peer.pause(start + seconds / self._speed)

        chunked = False
        if recorded.status is not None:
            headers, chunked = _framed(recorded)
            wait_until(recorded.answered_at)
            peer.send(response_head(recorded.status, headers))
            for at, piece in recorded.pieces:
                wait_until(at)
                peer.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        wait_until(recorded.ended_at)
        return _end(peer, recorded, request, chunked=chunked)


def _framed(recorded: _Recorded) -> tuple[dict[str, str], bool]:
    """Return the headers to send, and whether the body is chunked."""
    dropped = set(_NOT_REPLAYED)
    coded = "content-encoding" in recorded.headers
    if coded:
        # It counts the compressed bytes.
        dropped.add("content-length")
    headers = {
        name: value
        for name, value in recorded.headers.items()
        if name not in dropped and value != "***"
    }
    chunked = coded or "transfer-encoding" in recorded.headers
    if chunked:
        headers["Transfer-Encoding"] = "chunked"
    elif "content-length" not in headers:
        headers["Connection"] = "close"
    return headers, chunked


def _end(
    peer: Peer, recorded: _Recorded, request: ReceivedRequest, *, chunked: bool
) -> bool:
    match recorded.ending:
        case Ending.COMPLETE:
            if chunked:
                peer.send(b"0\r\n\r\n")
            if (chunked or "content-length" in recorded.headers) and request.keep_alive:
                return True
            peer.finish()
        case Ending.CUT:
            peer.finish(clean=False)
        case Ending.RESET:
            peer.reset()
        case _:
            # Silence; or nobody was there any more to hear what followed.
            peer.pause(math.inf)
    return False
