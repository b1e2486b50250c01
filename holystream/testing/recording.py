r"""Records what comes over the wire for a stream, with its timing, to be replayed.

A recording is a file of JSON lines. Each connection has a head, one line for each read,
and an end; ``n`` numbers the connections, ``t`` is seconds since the request was sent:

    {"n":1,"t":0.21,"request":{"method":"POST","place":"https://..."},
     "status":200,"headers":{"content-type":"text/event-stream"}}
    {"n":1,"t":0.35,"text":"data: {...}\n\n"}       or "base64", if it is no UTF-8
    {"n":1,"t":0.36,"end":"reset"}

Each line is written the moment it is known, by one write, so a program that is killed
leaves a recording that is whole up to then. Recording never changes the stream: if the
file cannot be written, the recording ends there, and a warning says so.
"""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import json
import os
import stat
import time
import warnings
from typing import TYPE_CHECKING, Any

from holystream.testing.discretion import Discretion, shown_headers
from holystream.wire.observing import observer
from holystream.wire.request import place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from holystream.wire.observing import Ending


@contextlib.contextmanager
def record(path: str | os.PathLike[str], *, prompts: bool = False) -> Iterator[None]:
    """Record, in the file ``path``, the connections that this thread makes meanwhile.

    Retries are connections of their own. Keys are never recorded, nor are headers of
    the request; those of the answer only as far as they are known to be harmless. The
    answer itself is, and it may repeat what it was asked. The file can be read by its
    owner alone; a file that was there is replaced.

    Of nested blocks the innermost alone records; the one around it goes on behind it.

    Args:
        path: The file to write.
        prompts: Record the request's body, too.

    Raises:
        OSError: The file cannot be opened.
    """
    recorder = _Recorder(path, prompts=prompts)
    token = observer.set(recorder)
    try:
        yield
    finally:
        # A generator may be left in another context than it was entered in; there the
        # recorder was never set, and where it was it is closed now.
        with contextlib.suppress(ValueError):
            observer.reset(token)
        recorder.close()


class _Recorder:
    """Writes one recording; the observer of the wire. Thread-safe."""

    def __init__(self, path: str | os.PathLike[str], *, prompts: bool) -> None:
        self._prompts = prompts
        self._path = path
        self._numbers = itertools.count(1)
        self._file = io.FileIO(path, "w", opener=_for_the_owner_alone)
        self._error: OSError | None = None

    def sending(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> _Connection:
        discretion = Discretion(headers, None if self._prompts else body, url)
        request = {"method": method}
        with contextlib.suppress(ValueError):
            # What is no URL cannot be shown in part.
            request["place"] = place(url)
        if self._prompts and body is not None:
            request["body"] = discretion.hide(body).decode("utf-8", "replace")
        return _Connection(self._write, next(self._numbers), request, discretion)

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file.closed or self._error is not None:
            return
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        try:
            if self._file.write(data) != len(data):
                raise OSError("the disk is full")  # noqa: TRY301 - as any other
        except OSError as error:
            self._error = error
        except ValueError:
            # Another thread has left the block, and closed the file, since we looked.
            return

    def close(self) -> None:
        self._file.close()
        if self._error is not None:
            warnings.warn(
                f"the recording {os.fspath(self._path)} is not whole: {self._error}",
                RuntimeWarning,
                stacklevel=5,
            )


def _for_the_owner_alone(path: str, flags: int) -> int:
    """Open a file that nobody else can read, not even if it was there before."""
    descriptor = os.open(path, flags & ~os.O_TRUNC, 0o600)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            if hasattr(os, "fchmod"):
                os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


class _Connection:
    """Writes the lines of one connection. Not thread-safe: its reader's own."""

    def __init__(
        self,
        write: Callable[[Mapping[str, Any]], None],
        number: int,
        request: dict[str, str],
        discretion: Discretion,
    ) -> None:
        self._write_line = write
        self._number = number
        self._start = time.monotonic()
        self._discretion = discretion
        self._request: dict[str, str] | None = request

    def answered(self, status: int, headers: Mapping[str, str]) -> None:
        shown = {
            name: self._discretion.hide(value.encode()).decode("utf-8", "replace")
            for name, value in shown_headers(headers).items()
        }
        kind = shown.get("content-type", "")
        self._discretion.begin(
            is_answer=status == 200 and kind.startswith("text/event-stream")  # noqa: PLR2004 - OK
        )
        self._write({"status": status, "headers": shown})

    def received(self, data: bytes) -> None:
        for at, piece in self._discretion.take(self._seconds(), data):
            self._write_piece(at, piece)

    def ended(self, ending: Ending) -> None:
        for at, piece in self._discretion.rest():
            self._write_piece(at, piece)
        self._write({"end": ending.value})

    def _write_piece(self, at: float, piece: bytes) -> None:
        try:
            self._write({"text": piece.decode()}, at)
        except UnicodeDecodeError:
            self._write({"base64": base64.b64encode(piece).decode()}, at)

    def _write(self, fields: Mapping[str, Any], at: float | None = None) -> None:
        seconds = self._seconds() if at is None else at
        line: dict[str, Any] = {"n": self._number, "t": seconds}
        if self._request is not None:
            line["request"], self._request = self._request, None
        self._write_line({**line, **fields})

    def _seconds(self) -> float:
        return round(time.monotonic() - self._start, 6)
