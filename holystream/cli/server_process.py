"""A simulator in a process of its own, to be killed and started again.

It listens on the same port each time. The port lies outside the range from which
systems take ports for outgoing connections: a client that knocks on such a port while
nobody listens may be given that very port as its own, and is then connected to itself.
It ends when our end of its standard input is closed, so it cannot outlive us.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Final, Self

from holystream.errors import HolystreamError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

_PORTS: Final = range(20000, 32000)
_TRIES: Final = 5


class ServerDidNotStart(HolystreamError):
    """The child process ended before it listened."""


class ServerProcess:
    """One simulator, again and again. Not thread-safe.

    Args:
        text: The text of all its answers.
        faults: Its faults until it is killed; later ones get those of `start_again`.

    Attributes:
        text: The text of the answers of the process that is started next.
    """

    def __init__(self, text: str, faults: Sequence[str]) -> None:
        self.text = text
        self._faults = tuple(faults)
        self._port = random.choice(_PORTS)  # noqa: S311 - no secret
        self._process = self._spawn()

    @property
    def base_url(self) -> str:
        """What a client takes as base URL."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def pid(self) -> int:
        """The number of the process that was started last."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait until it listens, on another port if this one is taken.

        Raises:
            ServerDidNotStart: It ends instead; the message is its own.
        """
        for _ in range(_TRIES):
            if self._process.stdout is not None and self._process.stdout.readline():
                return
            _, complaint = self._process.communicate()
            self._port = random.choice(_PORTS)  # noqa: S311 - no secret
            self._process = self._spawn()
        raise ServerDidNotStart(
            f"the simulator did not start: {complaint.decode(errors='replace')}"
        )

    def kill(self) -> bool:
        """End the process, without a chance to say goodbye; tell whether it was alive.

        Returns when the system has closed its sockets.
        """
        was_alive = self._process.poll() is None
        self._process.kill()
        self._process.communicate()
        return was_alive

    def start_again(self, faults: Sequence[str]) -> None:
        """Start another process on the same port, and don't wait for it."""
        self._faults = tuple(faults)
        self._process = self._spawn()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def _spawn(self) -> subprocess.Popen[bytes]:
        faults = (word for fault in self._faults for word in ("--fault", fault))
        return subprocess.Popen(  # noqa: S603 - our own command
            [
                *(sys.executable, "-P", "-m", "holystream", "simulator"),
                *("--until-eof", "--port", str(self._port), "--text", self.text),
                *faults,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # The child finds what we found, wherever it is started; -P keeps the
            # directory that the user happens to be in out of it.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            # Ctrl-C is for us; we tell the child.
            start_new_session=True,
        )
