"""The bar: what a file gets of it, what a terminal, and that it starts no thread."""

from __future__ import annotations

import io
import sys
import threading

import pytest
from loopback import until

from holystream.mapping import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def on_a_terminal(monkeypatch):
    """Put a terminal in place; in the test, for pytest changes it before."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    return made


def without(monkeypatch, *packages):
    there = progress.find_spec
    monkeypatch.setattr(
        progress, "find_spec", lambda name: name not in packages and there(name)
    )


def test_a_file_gets_a_line_now_and_then(client, capsys):
    prompts = [f"echo:{number}" for number in range(20)]
    list(client.map(prompts, progress=True))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"{done} of 20 done" for done in range(2, 21, 2)]


def test_without_a_length_it_says_how_many(capsys):
    lines = progress.progress_bar(None)
    for done in range(250):
        lines.show(done, 1)
    assert capsys.readouterr().err == "99 done, 1 failed\n199 done, 1 failed\n"


def test_a_terminal_gets_one_line(monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    without(monkeypatch, "rich", "tqdm")
    bar = progress.progress_bar(3)
    bar.show(0, 0)
    bar.show(1, 0)
    bar.show(1, 2)
    bar.close()
    bar.close()
    assert terminal.getvalue() == "\r0 of 3 done\r1 of 3 done\r1 of 3 done, 2 failed\n"


def test_nothing_without_a_stderr(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    bar = progress.progress_bar(1)
    bar.show(1, 0)
    bar.close()


@pytest.mark.parametrize("package", ["rich", "tqdm"])
@pytest.mark.parametrize("total", [10, None])
def test_the_bars_of_others(monkeypatch, package, total):
    pytest.importorskip(package)
    terminal = on_a_terminal(monkeypatch)
    without(monkeypatch, *({"rich", "tqdm"} - {package}))
    threads = threading.enumerate()
    bar = progress.progress_bar(total)
    assert package in type(bar).__name__.lower()
    for done in range(10):
        bar.show(done, 1)
    bar.close()
    bar.close()
    assert threading.enumerate() == threads
    shown = {"rich": ", 1 failed", "tqdm": "10"}
    assert shown[package] in terminal.getvalue()
    assert "1 failed" in terminal.getvalue()


def test_a_map_that_a_callback_closes_leaves_no_line_open(client, gate, monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    without(monkeypatch, "rich", "tqdm")

    def prompts():
        yield from ["echo:a", "echo:b"]
        gate.release(1000)
        # The second end is there when the callback hears of the first.
        until(lambda: mapped._ends.qsize() == 2)

    def close(done, failed, total):
        if done == 1:
            mapped.close()

    mapped = client.map(prompts(), progress=True, on_progress=close)
    next(mapped)
    assert terminal.getvalue().count("done") == 3
    assert terminal.getvalue().endswith("\n")


def test_a_map_that_is_forgotten_leaves_no_line_open(client, monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    without(monkeypatch, "rich", "tqdm")
    mapped = client.map(["echo:a", "echo:b"], progress=True)
    next(mapped)
    with pytest.warns(ResourceWarning, match="dropped before its end"):
        del mapped
    assert terminal.getvalue().endswith("done\n")
    # Its threads end by themselves.
    until(lambda: client.pool.statistics().in_use == 0)
