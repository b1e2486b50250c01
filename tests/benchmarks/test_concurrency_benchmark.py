"""The benchmark of many streams runs, and says what does not hold."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from printed_tables import rows

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FINE = {"complete": 2, "p50": 1.0, "p99": 2.0, "worst": 3.0, "open": 1.0}
FINE |= {"peak": 1.0, "cpu": 1.0, "server": 1.0}


@pytest.fixture
def concurrency(monkeypatch):
    """The module of the benchmark."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import concurrency

    monkeypatch.setattr(concurrency, "LONG_EVENTS", 20_000)
    return concurrency


def test_all_streams_of_all_readers_are_complete(concurrency, capsys):
    readers = ["raw", "openai", "openai_async", "holystream"]
    if importlib.util.find_spec("openai") is None:
        readers = ["raw", "holystream"]
    short = ["--quick", "--streams", "3", "--seconds", "0.2"]
    concurrency.main([*short, "--readers", ",".join(readers)])
    found = rows(capsys.readouterr().out)
    assert [row[:3] for row in found] == [
        ["3", concurrency.READERS[name][0], "3"] for name in readers
    ]


def test_a_reader_that_does_not_come_to_an_end_is_given_up(
    concurrency, monkeypatch, capsys
):
    monkeypatch.setattr(concurrency, "PATIENCE", 0.01)
    monkeypatch.setattr(concurrency, "_long", lambda _: [])
    options = ["--quick", "--streams", "2", "--seconds", "0.1", "--readers", "raw"]
    concurrency.main(options)
    (row,) = rows(capsys.readouterr().out)
    assert row[2:6] == ["0", "inf", "inf", "inf"]


def test_each_process_is_kept_on_a_core_of_its_own(concurrency, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(concurrency, "_long", lambda _: [])
    # What the children are given, and do, is looked at from inside them.
    child = concurrency._child

    def measured(core, *arguments):
        found = child(core, *arguments)
        seen.append((core, found["cores"]))
        return found

    monkeypatch.setattr(concurrency, "_child", measured)
    options = ["--quick", "--streams", "2", "--seconds", "0.1", "--readers", "raw"]
    concurrency.main(options)
    concurrency.main([*options, "--cores", "shared"])
    all_of_them = sorted(os.sched_getaffinity(0))
    if len(all_of_them) > 1:
        assert seen == [(all_of_them[0], all_of_them[:1]), (None, all_of_them)]
    assert seen[-1] == (None, all_of_them)
    assert "Readers and server share the cores." in capsys.readouterr().out


def answering(concurrency, monkeypatch, answer, long=None):
    monkeypatch.setattr(concurrency, "measure", answer)
    monkeypatch.setattr(concurrency, "_long", lambda _: long or [])


@pytest.mark.parametrize(
    ("wrong", "verdict"),
    [({}, 0), ({"complete": 1}, 1), ({"open": 61.0}, 1), ({"worst": 1e6}, 0)],
)
def test_a_crowd_that_misses_its_target_fails_the_check(
    concurrency, monkeypatch, capsys, wrong, verdict
):
    answering(concurrency, monkeypatch, lambda *_: FINE | wrong)
    options = ["--quick", "--streams", "2"]
    assert concurrency.main([*options, "--check"]) == verdict
    assert concurrency.main(options) == 0
    assert ("does not hold" in capsys.readouterr().out) == bool(verdict)


@pytest.mark.parametrize("most", [0, 25, 450, 500, 999, 1000])
def test_the_largest_number_is_found(concurrency, monkeypatch, capsys, most):
    def answer(_name, streams, _seconds, _cores):
        return FINE | {"complete": streams, "p99": 99.9 if streams <= most else 100.0}

    answering(concurrency, monkeypatch, answer)
    options = ["--readers", "holystream", "--check", "--streams", "2"]
    assert concurrency.main(options) == (most < 500)
    said = capsys.readouterr().out
    fitting = [size for size in concurrency.SIZES if size <= most]
    cell = f"{fitting[-1]} | 99.9" if fitting else "- | -"
    assert f"| holystream, a thread each | {cell} |" in said


def test_a_server_that_was_late_itself_is_pointed_at(concurrency, monkeypatch, capsys):
    answering(concurrency, monkeypatch, lambda *_: FINE | {"server": 21.0})
    concurrency.main(["--quick", "--readers", "raw"])
    assert "| 21.0 (!) |" in capsys.readouterr().out
