"""Strikes like a signal handler's, at each moment at which the interpreter has one.

CPython looks for signals when a function begins, when a loop goes back and when a call
has returned. A test plays a work over and over, and lets its handler run at the first
such moment, then at the second, and so on to the last:

    for strike in moments(files):
        ...
        with strike.by(handler):
            work()
"""

from __future__ import annotations

import dis
import functools
import itertools
import sys
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import CodeType, FrameType

_LOOKS = ("RESUME", "CALL", "JUMP_BACKWARD", "POP_JUMP_BACKWARD")


@functools.cache
def _looks(code: CodeType) -> dict[int, tuple[bool, int | None]]:
    """Tell of each instruction if signals are looked for behind it, and who catches.

    What is raised there belongs to the instruction; we can only raise from the next.
    So where another handler catches from there on we must not.
    """
    bytecode = dis.Bytecode(code)
    caught = {
        offset: entry.target
        for entry in bytecode.exception_entries
        for offset in range(entry.start, entry.end)
    }
    return {
        it.offset: (it.opname.startswith(_LOOKS), caught.get(it.offset))
        for it in bytecode
    }


class Strike:
    """Calls a handler at the n-th moment inside its ``with`` block, in these files."""

    def __init__(self, moment: int, files: Iterable[str]) -> None:
        self.struck = False
        self._left = moment
        self._files = tuple(files)
        self._looked: dict[FrameType, tuple[bool, int | None]] = {}

    def by(self, handler: Callable[[], object]) -> Self:
        """Let this handler strike."""
        self._handler = handler
        return self

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)
        self._looked.clear()

    def _trace(self, frame: FrameType, event: str, _: object):
        code = frame.f_code
        # No exception leaves a finaliser.
        if not code.co_filename.endswith(self._files) or code.co_name == "__del__":
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and not self.struck:
            looks = _looks(code)[frame.f_lasti]
            if self._looked.get(frame) == (True, looks[1]):
                if self._left == 0:
                    self.struck = True
                    self._handler()
                self._left -= 1
            self._looked[frame] = looks
        elif event == "return":
            self._looked.pop(frame, None)
        return self._trace


def interrupt() -> None:
    """Do what Ctrl-C does."""
    raise KeyboardInterrupt


def moments(files: Iterable[str]) -> Iterator[Strike]:
    """Yield a strike for each moment, until one was not reached."""
    for number in itertools.count():
        strike = Strike(number, files)
        yield strike
        if not strike.struck:
            assert number, "no moment at all"
            return
