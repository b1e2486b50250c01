"""`HOLYSTREAM_LOG`: read when a client is made, by a program that set up no logging."""

import os
import subprocess
import sys

import pytest

from holystream.simulator import Simulator

PROGRAM = """
import sys, holystream
client = holystream.Client("sk-0123456789abcdef", base_url=sys.argv[1], model="sim")
client.stream("a prompt that nobody logs").get_final_text()
"""


def log_of(**environment):
    with Simulator(length=20) as simulator:
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, simulator.base_url],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )


def test_without_it_nothing_is_written():
    done = log_of(HOLYSTREAM_LOG="")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("level", "lines"), [("debug", 2), ("info", 1), ("error", 0)])
def test_it_says_how_much(level, lines):
    done = log_of(HOLYSTREAM_LOG=level)
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == lines
    assert "nobody logs" not in done.stderr
    assert "0123456789" not in done.stderr


def test_a_wrong_word_is_told_and_does_not_end_the_program():
    done = log_of(HOLYSTREAM_LOG="loud")
    assert done.returncode == 0
    assert done.stderr.count("RuntimeWarning: HOLYSTREAM_LOG is 'loud'") == 1
    # Of the line that makes the client, not of one of ours.
    assert done.stderr.startswith("<string>:")
