"""The benchmark of the pool runs, and a target that does not hold is found out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "pool.py"), "--quick", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def test_every_rival_hands_on(tmp_path):
    report = tmp_path / "report.json"
    done = run("--sizes", "3,20", "--json", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(report.read_text())
    assert set(results["handed"]) == {"3", "20"}
    for times in results["handed"].values():
        assert set(times) == {
            "bare",
            "queue",
            "least",
            "pool",
            "semaphore",
            "notify_all",
        }
        assert all(time > 0 for rounds in times.values() for time in rounds)
    assert results["pair"] > 0
    assert len(results["served"]["pool"]) == 32
    # Whatever the machine is doing: hand-off leaves nobody behind.
    assert min(results["served"]["pool"]) > 0
    assert "a hand-off with 20 waiting" in done.stdout


def test_a_target_that_does_not_hold_fails_the_check(tmp_path):
    source = (BENCHMARKS / "pool.py").read_text("utf-8")
    targets = "HAND_OFF, PAIR, LEAST = "
    changed = source.replace(f"{targets}1.2, 0.8, 0.9", f"{targets}1e9, 0.0, 0.0")
    assert changed != source
    program = tmp_path / "impossible.py"
    program.write_text(changed, "utf-8")
    done = subprocess.run(
        [sys.executable, str(program), "--quick", "--check", "--sizes", "3"],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        env={"PYTHONPATH": str(BENCHMARKS)},
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("**fails**") == 1
