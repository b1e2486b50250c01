"""The results of a map, a line of JSON each: written whole, and read again to go on.

A process may be killed at any moment. Each line is one write, so that a file has whole
lines and at its end perhaps the beginning of one, which is taken off. Nothing else is
ever changed in a file that is not ours, line by line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from holystream.cli.prompts import key_of
from holystream.errors import InvalidRequest, StreamError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from holystream import Completion
    from holystream.cli.prompts import Line

_BEGINNING: Final = b'{"index": '
"""What each of our lines begins with."""


def record(
    line: Line,
    completion: Completion | None,
    error: BaseException | None,
    asked: Mapping[str, Any],
) -> bytes:
    """Return the line that says what became of an item.

    Args:
        line: The item.
        completion: Its answer, or None.
        error: Why there is none, or None.
        asked: What all items were asked with, unless they say it themselves.
    """
    found: dict[str, Any] = {"index": line.index}
    if line.id is not None:
        found["id"] = line.id
    found["item"] = line.digest
    # What the line itself says is in its digest.
    found["request"] = {
        name: value for name, value in asked.items() if name not in line.options
    }
    if completion is not None:
        found |= _answer(completion)
    elif error is not None:
        found["error"] = _error(error)
    # ASCII, for a text may hold half a character, which UTF-8 cannot.
    return f"{json.dumps(found)}\n".encode("ascii")


def _answer(completion: Completion) -> dict[str, Any]:
    found: dict[str, Any] = {
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "guarantee": str(completion.guarantee),
        "model": completion.model,
        "usage": msgspec.to_builtins(completion.usage),
    }
    first = msgspec.to_builtins(completion.choices[0])
    found |= {
        name: first[name]
        for name in ("reasoning", "refusal", "tool_calls")
        if first[name]
    }
    if len(completion.choices) > 1:
        found["choices"] = msgspec.to_builtins(completion.choices)
    return found


def _error(error: BaseException) -> dict[str, Any]:
    found = {
        "type": type(error).__name__,
        "message": error.message if isinstance(error, StreamError) else str(error),
    }
    if isinstance(error, StreamError) and error.partial_text:
        found["partial_text"] = error.partial_text
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    """A line of an earlier run."""

    key: str
    digest: str
    request: Mapping[str, Any]
    done: bool


class Results:
    """A file of results that is gone on with. One thread uses it; a context manager.

    Args:
        path: Where; made if it is not there.
        asked: What all items are asked with, unless they say it themselves.
        lines: The items. As many are taken as it needs to know the one of each of its
            answers again, before anything is changed.

    Attributes:
        before: Items among these that it has the answers to.
        ahead: The others.

    Raises:
        InvalidRequest: It holds something else, the answers to another input or
            request, or another process writes it.
        OSError: It cannot be opened, read or written.
    """

    def __init__(
        self, path: str, asked: Mapping[str, Any], lines: Iterator[Line]
    ) -> None:
        self.before = 0
        self.ahead: list[Line] = []
        self._path = Path(path)
        self._asked = asked
        # By what each answer is found, and the digest of its line.
        self._done: dict[str, str] = {}
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self._file = self._locked(stack, self._path)
            self._take_up(stack, lines)
            self._stack = stack.pop_all()

    def write(self, data: bytes) -> None:
        """Write a line.

        Raises:
            OSError: It cannot be written; what is missing is asked for again.
        """
        _write_all(self._file, data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _locked(self, stack: contextlib.ExitStack, path: Path) -> int:
        """Open a file that nobody else writes."""
        import fcntl  # noqa: PLC0415 - the other commands do without it, as Windows does

        # Non-blocking, or a pipe would wait for its other end.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK
        file = os.open(path, flags, 0o666)
        stack.callback(os.close, file)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise InvalidRequest(f"--out must be a file, which {path} is not")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidRequest(
                f"another process is writing {path}: give another --out"
            ) from None
        return file

    def _take_up(self, stack: contextlib.ExitStack, lines: Iterator[Line]) -> None:
        """Read what is there, and leave out what is asked for again."""
        again = False
        whole = 0
        for number, data in enumerate(self._lines(), 1):
            if not data.strip():
                # An editor has put it there.
                again = True
                continue
            found = _read(data)
            if found is None and not data.endswith(b"\n"):
                if not (data.startswith(_BEGINNING) or _BEGINNING.startswith(data)):
                    raise self._foreign(number)
                break
            if found is None:
                raise self._foreign(number)
            whole += len(data)
            again = again or not found.done or found.key in self._done
            if found.done:
                self._check_asked(found, number)
                self._done[found.key] = found.digest
        self._recognise(lines)
        if again:
            self._file = self._rewritten(stack)
        else:
            os.ftruncate(self._file, whole)
            if whole and os.pread(self._file, 1, whole - 1) != b"\n":
                self.write(b"\n")

    def _recognise(self, lines: Iterator[Line]) -> None:
        """Take the item of each answer, and those in between."""
        missing = dict(self._done)
        while missing:
            line = next(lines, None)
            if line is None:
                key = next(iter(missing))
                raise InvalidRequest(
                    f"{self._path} has the answer of {key}, which is no item of this "
                    "input: give the file of then, or another --out"
                )
            digest = missing.pop(line.key, None)
            if digest is None:
                self.ahead.append(line)
            elif digest == line.digest:
                self.before += 1
            else:
                raise InvalidRequest(
                    f"line {line.number} is not what {self._path} has the answer of "
                    f"{line.key} to: give the file of then, or another --out"
                )

    def _check_asked(self, found: _Found, number: int) -> None:
        """Refuse to keep what is the answer to another request."""
        for name, then in found.request.items():
            now = self._asked.get(name)
            if then != now:
                raise InvalidRequest(
                    f"line {number} of {self._path} was asked {_option(name, then)}, "
                    f"now {_option(name, now)}: give another --out, or the options of "
                    "then"
                )

    def _rewritten(self, stack: contextlib.ExitStack) -> int:
        """Put a file without the failures in its place: they are tried again."""
        place = self._path.resolve()
        # Of a fixed name: what a killed process left is used again.
        beside = place.with_name(f".{place.name}.holystream")
        kept: set[str] = set()
        file = self._locked(stack, beside)
        try:
            os.ftruncate(file, 0)
            os.fchmod(file, os.fstat(self._file).st_mode & 0o7777)
            for data in self._lines():
                found = _read(data)
                if found is not None and found.done and found.key not in kept:
                    kept.add(found.key)
                    _write_all(file, data.rstrip(b"\n") + b"\n")
            os.fsync(file)
            beside.replace(place)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        return file

    def _lines(self) -> Iterator[bytes]:
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            yield from file

    def _foreign(self, number: int) -> InvalidRequest:
        return InvalidRequest(
            f"{self._path} is left as it is: its line {number} is not a result. Give "
            "another --out"
        )


def _option(name: str, value: Any) -> str:
    option = f"--{name.replace('_', '-')}"
    return f"without {option}" if value is None else f"with {option} {value}"


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _read(data: bytes) -> _Found | None:
    """Return what a line says, if it is one of ours."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    index, digest = found.get("index"), found.get("item")
    # A version that did not note it yet wrote none.
    request = found.get("request", {})
    done = "text" in found
    if (
        not isinstance(index, int)
        or not isinstance(digest, str)
        or not isinstance(request, dict)
        or done == ("error" in found)
    ):
        return None
    return _Found(key_of(index, found.get("id")), digest, request, done)
