"""The examples of docs/map.md run as they stand there."""

from __future__ import annotations

import functools
import re
import sqlite3
from pathlib import Path

import pytest
from loopback import client_for

import holystream
from holystream.cli import prompts, results
from holystream.simulator import Script
from holystream.testing import SleeplessClock

DOCS = Path(__file__).parents[2] / "docs" / "map.md"
TEXT = DOCS.read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def reader(sim, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with client_for(sim.base_url) as client:
        names = {
            "holystream": holystream,
            "client": client,
            "functools": functools,
        }
        yield names
        names.clear()


def test_the_examples_run_in_order(reader, sim, capsys):
    first, second, again, strict, items, own, _, tell, journal = blocks("python")
    exec(first, reader)
    assert capsys.readouterr().out.strip()
    exec(second, reader)
    lines = capsys.readouterr().out.splitlines()
    assert sum(bool(re.match(r"\d+ ", line)) for line in lines) >= 20
    sim.play(Script(status=400))
    exec(again, reader)
    assert capsys.readouterr().out == "1 of 1\n"
    exec(strict, reader)
    assert len(reader["texts"]) == 20
    sim.play(Script(status=400))
    with pytest.raises(holystream.BadRequest):
        exec(strict, reader)
    exec(items, reader)
    assert list(reader["texts"]) == ["short", "long"]
    sim.play(Script(status=429))
    with client_for(sim.base_url, retry=holystream.RetryPolicy(base=0.01)) as patient:
        exec(own, {**reader, "client": patient})
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "20 done"
    assert any(re.fullmatch(r"\d+ waits: .+", line) for line in lines)
    exec(tell, reader)
    assert capsys.readouterr().out == "20 of 20\n"
    before = len(sim.requests)
    exec(journal, reader)
    answers = reader["answers"]
    exec(journal, reader)
    assert sorted(reader["answers"]) == sorted(answers)
    assert len(sim.requests) == before + 20
    assert sqlite3.connect("streams.db").close() is None


def test_a_batch_is_more_patient_than_a_page(reader, sim):
    (code,) = [code for code in blocks("python") if "RetryPolicy" in code]
    reader["prompts"] = ["Count to three"]
    refused = holystream.RetryPolicy().attempts + 5
    with SleeplessClock():
        hint = {"Retry-After": "90"}  # beyond what a page waits for
        sim.play(
            Script(status=429, headers=hint), Script(status=429, times=refused - 1)
        )
        exec(code, reader)
    assert len(reader["texts"]) == 1
    assert len(sim.requests) == refused + 1


def test_the_example_input_is_one():
    (example,) = blocks("json")
    lines = [
        prompts.parse(line.encode(), index, index + 1)
        for index, line in enumerate(example.splitlines())
    ]
    assert [line.mistake for line in lines] == [None] * 3
    assert [line.id for line in lines] == [None, "crab", 3]


def test_every_field_of_the_output_is_in_the_table(reader):
    line = prompts.parse(b'"echo:a"', 0, 1)
    completion = reader["client"].complete("echo:a")
    written = results.record(line, completion, None, {"model": "m"})
    for name in re.findall(rb'"(\w+)":', written.partition(b'"usage"')[0]):
        assert f"`{name.decode()}`" in TEXT


def test_every_option_of_a_line_is_in_the_text():
    for name in prompts._OPTIONS:
        assert f"`{name}`" in TEXT
