"""The benchmark runs, every reader gets the right text, and a wrong one is caught."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OURS = {"floor", "naive", "text_stream", "events"}
PEERS = {"httpx-sse": "httpx_sse", "openai": "openai"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "throughput.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def check(readers: set[str], report: Path) -> None:
    done = run(
        *("--quick", "--rounds", "1", "--events", "60"),
        *("--readers", ",".join(readers), "--json", str(report)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(report.read_text())["results"]
    assert {(result["framing"], result["reader"]) for result in results} == {
        (framing, reader) for framing in ("chunked", "close") for reader in readers
    }
    assert all(result["right"] for result in results)
    assert all(result["cpu"][0] > 0 for result in results)


def test_our_readers_and_the_plain_ones_get_the_right_text(tmp_path):
    check(OURS, tmp_path / "report.json")


@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_gets_the_right_text(peer, tmp_path):
    if importlib.util.find_spec(PEERS[peer]) is None:
        pytest.skip(f"{PEERS[peer]} is not installed: pip install -e '.[bench]'")
    check({peer}, tmp_path / "report.json")


def test_a_target_that_was_not_measured_does_not_pass_the_check():
    done = run("--quick", "--rounds", "1", "--events", "60", "--readers", "floor",
               "--check")  # fmt: skip
    assert done.returncode == 1
    assert "not measured" in done.stdout


def test_a_reader_that_loses_a_token_is_caught(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import _answer
    import _readers

    def reader(url):
        events = int(url.split("/")[-2])
        return lambda: list(_answer.pieces(events))

    def forgetful(url):
        return lambda: reader(url)()[:-1]

    assert _readers.measure(reader, "/chunked", 60, 2)["right"]
    assert not _readers.measure(forgetful, "/chunked", 60, 2)["right"]
