"""The benchmark of a site's workers runs, and says when an answer is not whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from peer_presence import need_packages
from printed_tables import rows

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ["--viewers", "6", "--sites", "1x8x6x0,2x2x1x8"]


@pytest.fixture
def workers(monkeypatch):
    """The module of the benchmark, with answers that do not take long."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import workers

    monkeypatch.setattr(workers, "PACE", 0.001)
    return workers


def test_every_viewer_has_an_answer(workers, capsys):
    need_packages("gunicorn")
    assert workers.main(SMALL) == 0
    printed = capsys.readouterr().out
    assert [row[:6] for row in rows(printed)] == [
        ["1", "8", "6", "0", "6", "0"],
        ["2", "2", "1", "8", "6", "0"],
    ]
    assert all(1 <= int(row[6]) <= 6 for row in rows(printed))
    assert "All answers are whole." in printed


def test_an_answer_that_is_short_fails_it(workers, monkeypatch, capsys):
    need_packages("gunicorn")
    visit = workers._visit

    def cut(*arguments):
        found = visit(*arguments)
        return dataclasses.replace(found, text=found.text[:-1])

    monkeypatch.setattr(workers, "_visit", cut)
    assert workers.main(["--viewers", "1", "--sites", "1x2x1x0"]) == 1
    assert "**Answers are not whole.**" in capsys.readouterr().out


def test_without_gunicorn_it_says_what_to_install(workers, monkeypatch, capsys):
    monkeypatch.setattr(workers.importlib.util, "find_spec", lambda _: None)
    assert workers.main([]) == 1
    assert "pip install" in capsys.readouterr().out
