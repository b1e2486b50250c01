"""The herd simulation repeats itself and counts right, and the docs show its output."""

from __future__ import annotations

import collections
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from holystream import RetryPolicy
from holystream.errors import ConnectionFailed

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
DOCS = ROOT / "docs" / "backoff.md"
PLOT = ROOT / "docs" / "backoff.svg"


@pytest.fixture(autouse=True)
def _beside_the_benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def printed(*arguments: str) -> list[str]:
    """Run the benchmark, without the coverage that makes it many times slower."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "herd.py"), *arguments],
        capture_output=True,
        env={name: value for name, value in os.environ.items() if "COV" not in name},
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith(("|", "###"))]


def in_the_docs(lines: list[str]) -> bool:
    """Whether the docs have these lines, in this order and with no row between."""
    said = DOCS.read_text().splitlines()
    tables = [line for line in said if line.startswith(("|", "###"))]
    first = tables.index(lines[0]) if lines[0] in tables else len(tables)
    return tables[first : first + len(lines)] == lines


def test_the_claims_in_the_docs_are_what_the_benchmark_prints():
    lines = printed("--only", "claims")
    assert {line.split("|")[-2].strip() for line in lines[3:]} == {
        "holds",
        "does not hold",
    }
    for claim in ("78 % fewer", "2.3 s mean", "99.2 % of streams"):
        assert any(claim in line for line in lines)
    assert in_the_docs(lines)


def test_a_claim_holds_from_its_own_number_on(monkeypatch):
    import _herd_claims
    from _herd_streams import Completion

    monkeypatch.setattr(_herd_claims, "CLIENTS", 2)
    monkeypatch.setattr(_herd_claims, "fewer", lambda *_: (0.779, 0.78))
    shares = iter([0.991, 0.992] * 5)
    monkeypatch.setattr(
        _herd_claims,
        "play",
        lambda *_, **__: Completion(unbroken=0.9, resumed=next(shares)),
    )
    verdicts = {}
    for claim in _herd_claims.claims(1):
        verdicts.setdefault(claim.says, []).append(claim.holds)
    assert verdicts == {
        _herd_claims.FEWER: [False] * 6,
        f"{_herd_claims.FEWER}, counted in pairs": [True] * 2,
        # Calls come after 0.5, 1.5, 3.5, 7.5 and 15.5 s, give or take.
        _herd_claims.SOON: [True, True, False, False, False],
        _herd_claims.COMPLETE: [False, True] * 4 + [False],
    }


@pytest.mark.slow
@pytest.mark.parametrize("section", ["attempts", "outage"])
def test_the_tables_in_the_docs_are_what_the_benchmark_prints(section):
    assert in_the_docs(printed("--only", section, "--clients", "1000"))


@pytest.mark.slow
def test_the_plot_and_the_contention_in_the_docs_are_what_the_benchmark_makes(tmp_path):
    plot = tmp_path / "plot.svg"
    assert in_the_docs(printed("--only", "contention", "--plot", str(plot)))
    assert plot.read_text() == PLOT.read_text()


def test_the_plot_names_what_it_shows():
    import herd
    from _herd_policies import JITTERS

    root = ET.fromstring(PLOT.read_text())
    texts = {element.text for element in root.iter()}
    assert f"(seed {herd.SEED})" in root[0].text
    assert set(JITTERS) <= set(texts)
    assert "(backoff.svg)" in DOCS.read_text()


def test_the_same_seed_gives_the_same_numbers_and_another_others():
    from _herd_contention import contend
    from _herd_outage import simulate
    from _herd_policies import patient, scenario
    from _herd_streams import play

    def numbers(seed):
        herd = simulate(patient("full"), scenario(100), seed)
        return (
            herd.arrivals,
            herd.reconnected,
            contend(patient("decorrelated"), 20, seed),
            play(RetryPolicy(), streams=500, unbroken=0.874, outage=5.0, seed=seed),
        )

    one, same, other = numbers("1"), numbers("1"), numbers("2")
    assert one == same
    assert all(a != b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("seed", range(1, 6))
def test_what_must_hold_does_with_any_seed(seed):
    import herd

    chosen = herd.options(["--clients", "100", "--seed", str(seed)])
    assert list(herd.broken(chosen)) == []


def test_a_jitter_that_does_not_spread_is_reported(monkeypatch):
    import herd

    monkeypatch.setitem(herd.JITTERS, "full", None)
    found = list(herd.broken(herd.options(["--clients", "50"])))
    assert "full: no lower peak than without jitter" in found
    assert any(fault.startswith("full: no fewer collisions") for fault in found)
    assert all(fault.startswith("full: ") for fault in found)


def test_a_collision_is_a_call_that_shares_its_window_with_another_client():
    from _herd_outage import History, Outage

    herd = History(
        outage=Outage(clients=3, seconds=0.02),
        arrivals=[(0.000, 1), (0.005, 2), (0.011, 1), (0.012, 1), (0.025, 3)],
        accepted=[0.025],
        reconnected=[0.035],
        gave_up=2,
    )
    assert herd.collisions(0.010) == 2  # the two calls of client 1 do not collide
    assert herd.pairs(0.010) == 2
    assert herd.collisions(1.0) == 5
    assert herd.peak(0.010) == 1  # during the outage there were two
    assert herd.refused == pytest.approx(0.8)


def test_the_waits_are_those_of_the_policy():
    from _herd_outage import Outage, simulate
    from _herd_policies import patient

    def arrivals(**outage):
        played = simulate(patient(None), Outage(clients=1, **outage), "1")
        return [at for at, _ in played.arrivals]

    # Each one is two ways of some 10 ms after the one before and its wait.
    waits = (0.5, 1.5, 3.5, 7.5)
    assert arrivals(seconds=5.0) == pytest.approx(waits, abs=0.2)
    refused = ConnectionFailed("refused")
    # The first attempt after one that sent nothing is made at once.
    assert arrivals(seconds=1.0, refusal=refused) == pytest.approx(
        (0.5, 0.5, 2.5), abs=0.2
    )


def test_the_default_policy_gives_up_and_the_history_says_so():
    from _herd_outage import Outage, simulate

    played = simulate(RetryPolicy(jitter=None), Outage(clients=7, seconds=600.0), "1")
    assert played.gave_up == 7
    assert played.calls == 7 * 5  # the sixth attempt is the stream that broke


def test_a_server_takes_no_more_than_its_capacity():
    from _herd_outage import WINDOW, Outage, simulate
    from _herd_policies import patient

    outage = Outage(clients=40, seconds=1.0, capacity=2)
    played = simulate(patient("full"), outage, "1")
    assert len(played.reconnected) == 40
    assert played.accepted[0] >= 1.0
    windows = collections.Counter(int(at / WINDOW) for at in played.accepted)
    assert max(windows.values()) == 2


def test_resuming_completes_what_a_break_would_have_lost():
    from _herd_streams import play

    shares = play(RetryPolicy(), streams=5000, unbroken=0.874, outage=0.0, seed="1")
    assert shares.unbroken == pytest.approx(0.874, abs=0.02)
    assert shares.resumed == 1.0
    longer = play(RetryPolicy(), streams=5000, unbroken=0.874, outage=300.0, seed="1")
    assert longer.unbroken < longer.resumed < 0.95


@pytest.mark.parametrize(
    "arguments", [["--only", "herds"], ["--clients", "1"], ["--rounds", "-1"]]
)
def test_an_option_that_makes_no_sense_is_refused(arguments, capsys):
    import herd

    with pytest.raises(SystemExit) as refused:
        herd.options(arguments)
    assert refused.value.code == 2
    assert capsys.readouterr().err
