"""Watching connections: what came over the wire, and how each of them ended.

`observer` is asked once for each request; a body that nobody watches is read as it is,
at no cost. Who watches sees the body as it is handed on, read by read, without its
transfer and content codings. An observer must not raise and must not block.
"""

from __future__ import annotations

import enum
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from holystream.wire.faults import Fault, FaultKind, is_reset

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import requests


class Ending(enum.Enum):
    """How a connection ended, as its reader saw it."""

    COMPLETE = "complete"
    """The body ended as its framing announced."""
    CUT = "cut"
    """It broke off, or there was no answer at all."""
    RESET = "reset"
    """It was reset."""
    SILENCE = "silence"
    """Nothing came any more, until a clock of ours ran out."""
    LEFT = "left"
    """We left first."""


class Observation(Protocol):
    """Watches one request and its answer."""

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        """The headers came."""

    def received(self, data: bytes) -> None:
        """One read brought ``data``."""

    def ended(self, ending: Ending) -> None:
        """Nothing more will come; said once."""


class Observer(Protocol):
    """Watches whatever the thread that set it asks for."""

    def sending(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> Observation:
        """Return who watches the request that is about to be sent.

        Args:
            method: The HTTP method.
            url: The URL: it may be none, and a key may be in its query.
            body: The body: the prompt is in it.
            headers: The headers beside those of every request: keys are in them.
        """


observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


def watched(
    send: Callable[[], requests.Response],
    method: str,
    url: str,
    body: bytes | None,
    headers: Mapping[str, str],
) -> requests.Response:
    """Return what ``send`` returns; its body is watched if there is an observer."""
    current = observer.get()
    if current is None:
        return send()
    observation = current.sending(method, url, body, headers)
    try:
        response = send()
    except BaseException as error:
        observation.ended(_ending_of(error))
        raise
    observation.answered(response.status_code, response.headers)
    response.raw = _WatchedRaw(response.raw, observation)
    return response


class _WatchedRaw:
    """Stands in for ``response.raw`` while somebody watches. Not thread-safe."""

    def __init__(self, raw: Any, observation: Observation) -> None:
        self._raw = raw
        self._observation: Observation | None = observation

    def read1(self, amount: int, *, decode_content: bool) -> bytes:
        try:
            data: bytes = self._raw.read1(amount, decode_content=decode_content)
        except BaseException as error:
            self._end(_ending_of(error))
            raise
        if not data:
            self._end(Ending.COMPLETE)
        elif self._observation is not None:
            self._observation.received(data)
        return data

    def close(self) -> None:
        self._end(Ending.LEFT)
        self._raw.close()

    def release_conn(self) -> None:
        self._end(Ending.LEFT)
        self._raw.release_conn()

    def _end(self, ending: Ending) -> None:
        observation, self._observation = self._observation, None
        if observation is not None:
            observation.ended(ending)


_SILENT = {
    FaultKind.FIRST_TOKEN,
    FaultKind.IDLE,
    FaultKind.TOKEN_IDLE,
    FaultKind.TAIL,
    FaultKind.DEADLINE,
}


def _ending_of(error: BaseException) -> Ending:
    if not isinstance(error, Exception):
        return Ending.LEFT
    if isinstance(error, Fault) and error.kind is FaultKind.STOPPED:
        return Ending.LEFT
    if isinstance(error, Fault) and error.kind in _SILENT:
        return Ending.SILENCE
    return Ending.RESET if is_reset(error) else Ending.CUT
