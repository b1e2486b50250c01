"""docs/doctor.md says what the code does; every problem is met by a test."""

import re
from pathlib import Path

import pytest

from holystream.cli.doctor import buffering
from holystream.cli.doctor.examination import CHECKS
from holystream.cli.doctor.findings import PROBLEMS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
TESTS = "".join(
    path.read_text(encoding="utf-8")
    for folder in ("doctor", "cli")
    for path in (ROOT / "tests" / folder).glob("test_*doctor*.py")
    if path != Path(__file__)
)


def table(heading):
    """Return the rows of the table under a heading."""
    part = TEXT.partition(f"\n{heading}\n")[2].partition("\n#")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [tuple(line.strip("| ").split(" | ")) for line in lines[2:]]


def test_the_checks_are_those_of_the_code_in_their_order():
    assert [name for name, _ in table("## The checks")] == [
        check.name for check in CHECKS
    ]


def test_the_advice_is_that_of_the_code():
    labels = {"fail": "FAIL", "warn": "warn"}
    assert table("## What to do") == [
        (
            name,
            labels[problem.status.value],
            re.sub(r"\{(\w+)\}", lambda word: word[1].upper(), problem.advice),
        )
        for name, problem in PROBLEMS.items()
    ]


@pytest.mark.parametrize("name", PROBLEMS)
def test_each_problem_belongs_to_a_check_and_is_met_by_a_test(name):
    checks = {check.name for check in CHECKS} | {"doctor"}
    assert name.partition(".")[0] in checks
    assert f'"{name}"' in TESTS or f"['{name}']" in TESTS


def test_the_numbers_are_those_of_the_code():
    assert f"at most {buffering.MAX_TOKENS} tokens" in TEXT
    assert f"the streamed answer gets {buffering.SECONDS:g}" in TEXT
    rows = dict(table("### How buffering is judged"))
    first, *_ = rows
    assert first == f"fewer than {buffering._FEWEST} events"
    assert any(f"within {buffering._SPREAD:g} s" in row for row in rows)
    assert any(f"at least {buffering._HELD:g} s of nothing" in row for row in rows)
    assert any(f"pauses of {buffering._PAUSE:g} s" in row for row in rows)


def test_the_verdicts_of_buffering_are_those_of_the_code():
    named = set(re.findall(r"`(buffering\.\w+)`", TEXT))
    flows = {flow.value for flow in buffering.Flow} - {buffering.Flow.LIVE.value}
    assert named == flows
