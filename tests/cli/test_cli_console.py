"""What is counted as written, wherever a Ctrl-C strikes: it is what to go on behind."""

from __future__ import annotations

import contextlib
import io
import sys

import pytest
from strikes import interrupt, moments

from holystream.cli.console import Output


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_a_ctrl_c_leaves_no_hole_and_no_character_twice(monkeypatch, kind):
    for strike in moments(["cli/console.py"]):
        stdout = kind()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stdout)
            output = Output()
            with contextlib.suppress(KeyboardInterrupt), strike.by(interrupt):
                output.write("one")
                output.write("two")
                output.end_line()
        assert output.written == len(stdout.getvalue().rstrip("\n"))
