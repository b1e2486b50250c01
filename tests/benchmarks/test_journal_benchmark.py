"""The journal's benchmark runs, and writes what it says it writes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_it_measures_every_row(tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, str(BENCHMARKS / "journal.py"), "--quick"),
            *("--seconds", "0.1", "--share", "0.01", "--folder", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| (.+?) \| [\d.]+ \|", done.stdout, re.MULTILINE)
    assert rows == [
        *("1 x 1", "1 x 64", "2 x 128"),
        *("no journal", "memory", "SQLite", 'SQLite, durability="power"'),
    ]
    assert "Target: at most 0.9 us" in done.stdout
    assert list(tmp_path.iterdir()) == []
