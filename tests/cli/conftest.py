"""The real command, in a process of its own, against a real simulator."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from holystream.simulator import Simulator

KEY = "sk-4711-do-not-show-me"


@pytest.fixture
def environment():
    """What the command sees: our key and no settings of whoever runs the tests."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HOLY") and not name.lower().endswith("_proxy")
    }
    return {
        **kept,
        "HOLYSTREAM_API_KEY": KEY,
        "HOLYSHEEP_API_KEY": KEY,
        "NO_PROXY": "127.0.0.1",
        "PYTHONWARNINGS": "error",
        "PYTHONIOENCODING": "utf-8",
        "COLUMNS": "80",
    }


@pytest.fixture
def start(environment):
    """Start commands; whatever still runs at the end of the test is killed."""
    begun = []

    def start_one(*words, stdin=subprocess.DEVNULL, through=(), **others):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **others}
        begun.append(
            subprocess.Popen(
                [*through, sys.executable, "-m", "holystream", *words],
                stdin=stdin,
                env=environment,
                **pipes,
            )
        )
        return begun[-1]

    yield start_one
    for process in begun:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def finish():
    """Wait for a command's end; nothing secret may be in what it wrote."""

    def finish_one(process, given=None):
        out, err = process.communicate(given, timeout=50)
        result = SimpleNamespace(
            status=process.returncode, out=out.decode(), err=err.decode()
        )
        assert KEY not in result.out + result.err
        assert "Traceback" not in result.err, result.err
        return result

    return finish_one


@pytest.fixture
def run(start, finish):
    """Run a command to its end."""

    def run_one(*words, given=None, **others):
        if given is not None:
            others["stdin"] = subprocess.PIPE
        return finish(start(*words, **others), given)

    return run_one


@pytest.fixture
def sim():
    with Simulator(api_keys=[KEY]) as simulator:
        yield simulator
