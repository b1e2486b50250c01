"""Other people's servers as processes: started, killed, started again.

Whatever is started here listens on 127.0.0.1 or on a socket in the test's own folder,
and is ended with its ``with`` block, children included.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from loopback import SOON, until

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
AIMOCK = ROOT / ".peers" / "node_modules" / "@copilotkit" / "aimock"


def program(name: str) -> str | None:
    """Return the path of a program: of this environment, or of the machine."""
    folders = [
        str(Path(sys.executable).parent),
        os.environ.get("PATH", ""),
        "/usr/sbin",
    ]
    return shutil.which(name, path=os.pathsep.join(folders))


def listens(address: tuple[str, int] | str) -> bool:
    """Whether someone accepts connections at a port, or at the path of a socket."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as sock:
        return sock.connect_ex(address) == 0


class Server:
    """A process that listens; it may be killed and started again."""

    def __init__(
        self,
        command: Sequence[str | Path],
        address: tuple[str, int] | str,
        log: Path,
    ) -> None:
        self._command = [str(part) for part in command]
        self._address = address
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=HERE,
                # What it covers of our code is not what our tests cover.
                env={k: v for k, v in os.environ.items() if "COVERAGE" not in k},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            # Its program may have to be read from a disk first.
            until(
                lambda: listens(self._address) or self._ended(),
                self._command[0],
                2 * SOON,
            )
            assert not self._ended(), self._log.read_text(encoding="utf-8")
        except BaseException:
            self.kill()
            raise

    def _ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        """End it and its children at once, whatever they are doing."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(SOON)
            self._process = None
            # Its children are nobody's to wait for, but they hold what it listened on.
            until(lambda: not listens(self._address), "it is killed, and listens")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
