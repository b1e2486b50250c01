"""The benchmark runs, its draws are its seed's, and what is wrong is caught."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OURS = ("cursor", "llama-server", "prefill", "replay", "restart", "stitch",
        "stitch-chatty", "none")  # fmt: skip
MODES = {
    (framing, cut) for framing in ("chunked", "close") for cut in ("fin", "rst", "end")
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / "completion.py"), "--jobs", "1", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def results(report: Path) -> dict[tuple[str, str, str], dict]:
    return {
        (one["client"], one["framing"], one["cut"]): one
        for one in json.loads(report.read_text())["results"]
    }


@pytest.fixture
def parts(monkeypatch):
    """The modules of the benchmark, as if it ran."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    import _cutting
    import completion

    # It takes out of the environment what could come between, and other tests need.
    kept = dict(os.environ)
    yield completion, _cutting
    os.environ.update(kept)


@pytest.mark.slow
@pytest.mark.parametrize("at", ["byte", "event"])
def test_every_text_of_ours_is_exact_or_says_what_it_is(at, tmp_path):
    report = tmp_path / "report.json"
    done = run(
        *("--streams", "6", "--share", "0.7", "--at", at, "--check"),
        *("--clients", ",".join(OURS), "--json", str(report)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(report)
    assert set(found) == {(name, *mode) for name in OURS for mode in MODES}
    for (name, *_), one in found.items():
        assert one["streams"] == 6
        assert one["cuts"] > 0
        if name in ("cursor", "llama-server", "prefill", "replay", "restart"):
            assert one["kinds"] == {"exact": 6}
        if name in ("cursor", "llama-server"):
            assert one["said_saved"] > 0
        if name == "none":
            assert one["kinds"]["error"] > 0
    assert "99.2 % with resuming | holystream, cursor: SSE ids, N = 36 | 100" in (
        done.stdout
    )


def test_a_client_that_appends_is_seen_through(tmp_path):
    report = tmp_path / "report.json"
    done = run(
        *("--streams", "12", "--share", "0.7", "--seed", "3", "--at", "event"),
        *("--clients", "append,anew", "--json", str(report)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(report)
    assert found["append", "chunked", "rst"]["kinds"]["doubled or spliced"] > 0
    assert found["append", "close", "fin"]["kinds"]["short"] > 0
    assert found["anew", "close", "fin"]["kinds"]["short"] > 0
    assert found["anew", "chunked", "rst"]["kinds"] == {"exact": 12}
    assert "does not hold" in done.stdout


@pytest.mark.slow
def test_the_peer_is_measured(tmp_path):
    if importlib.util.find_spec("openai") is None:
        pytest.skip("openai is not installed: pip install -e '.[bench]'")
    report = tmp_path / "report.json"
    done = run(
        *("--streams", "8", "--share", "0.7"),
        *("--clients", "openai", "--json", str(report)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(report)
    assert found["openai", "chunked", "fin"]["kinds"]["error"] > 0
    assert found["openai", "close", "fin"]["kinds"]["short"] > 0


def test_a_client_that_is_not_installed_is_left_out_with_a_note(
    parts, monkeypatch, capsys
):
    completion, _ = parts
    absent = completion.ROWS[-1]._replace(needs="no_such_module")
    monkeypatch.setattr(completion, "ROWS", (absent,))
    assert completion.main(["--streams", "1", "--jobs", "1"]) == 0
    assert "left out openai-python" in capsys.readouterr().out


def test_the_same_seed_draws_the_same(parts):
    completion, cutting = parts
    row = next(row for row in completion.ROWS if row.name == "replay")

    def measured(seed: int) -> dict:
        return completion.measure(
            row, cutting.MODES[0], streams=8, share=0.5, at="byte", seed=seed
        ).record()

    assert measured(1) == measured(1) != measured(2)


def lying(completion, change):
    """The row of the replay, with a client that changes its answers."""
    honest = next(row for row in completion.ROWS if row.name == "replay")

    def make(url):
        ask = honest.make(url)
        return lambda prompt: change(ask(prompt))

    return honest._replace(make=make)


def short(answer):
    return answer._replace(text=answer.text[:-1])


def doubled(answer):
    return answer._replace(text=answer.text[:9] + answer.text)


def swapped(answer):
    return answer._replace(text=answer.text[1::-1] + answer.text[2:])


def torn(answer):
    raise AssertionError


@pytest.mark.parametrize(
    "lie",
    [
        (short, "short"),
        (doubled, "doubled or spliced"),
        (swapped, "doubled or spliced"),
        (torn, "false error"),
    ],
)
def test_a_wrong_text_of_ours_fails_the_check(
    lie, parts, monkeypatch, tmp_path, capsys
):
    change, kind = lie
    completion, _ = parts
    liar = lying(completion, change)
    monkeypatch.setattr(completion, "ROWS", (liar,))
    report = tmp_path / "report.json"
    arguments = ["--streams", "4", "--jobs", "1", "--json", str(report)]
    assert completion.main([*arguments, "--check"]) == 1
    assert completion.main(arguments) == 0
    for one in results(report).values():
        assert one["kinds"] == {kind: 4}
    assert "4 of 4 texts or errors are wrong" in capsys.readouterr().err


def test_what_says_that_it_may_be_wrong_is_not_passed_as_whole(parts):
    completion, cutting = parts
    liar = lying(completion, lambda answer: short(answer)._replace(proven=False))
    tally = completion.measure(
        liar, cutting.MODES[0], streams=4, share=0.5, at="byte", seed=1
    )
    assert tally.kinds == {"inexact and labelled so": 4}


def test_the_cost_that_cursors_claim_is_what_the_server_counted(parts):
    completion, cutting = parts
    for name in ("cursor", "llama-server"):
        row = next(row for row in completion.ROWS if row.name == name)
        tally = completion.measure(
            row, cutting.MODES[0], streams=20, share=0.5, at="event", seed=1
        )
        assert tally.server_wasted == tally.said_wasted
        assert tally.server_saved == tally.said_saved > 0
