"""docs/resilience.md says what the tables and the defaults say."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

from holystream.errors import Verdict
from holystream.resilience import health
from holystream.resilience.budget import SLICES, SPENT, RetryBudget
from holystream.resilience.circuit import (
    TRANSITIONS,
    VOTES,
    BreakerPolicy,
    BreakerState,
)
from holystream.resilience.endpoints import Endpoint

TEXT = (Path(__file__).parents[2] / "docs" / "resilience.md").read_text("utf-8")
WORDS = " ".join(TEXT.split())


def rows(heading):
    """The rows of the table under a heading line, as tuples of cells."""
    table = TEXT[TEXT.index(f"| {heading} |") :].split("\n\n")[0]
    return [
        tuple(cell.strip() for cell in line.strip("|").split(" | "))
        for line in table.splitlines()[2:]
    ]


def test_the_votes():
    written = [f"| `{verdict.name}` | {VOTES[verdict].value} |" for verdict in Verdict]
    assert "\n".join(written) in TEXT, "\n".join(["write this:", *written])
    assert len(rows("end of the attempt")) == len(Verdict) + 1


def test_the_defaults_of_a_breaker():
    written = {name.strip("`"): value for name, value, _ in rows("`BreakerPolicy`")}
    policy = dataclasses.asdict(BreakerPolicy())
    assert written == {name: str(value) for name, value in policy.items()}


def test_the_states_and_where_they_lead_by_themselves():
    for (before, signal), after in TRANSITIONS.items():
        row = next(row for row in rows("state") if row[0] == before.name)
        if "was called" not in signal.value:
            assert after.name in row[2]
    assert [row[0] for row in rows("state")] == [state.name for state in BreakerState]


def test_the_defaults_of_a_budget():
    parameters = inspect.signature(RetryBudget).parameters
    for name in ("ratio", "floor", "window"):
        assert f"| `{name}` | {parameters[name].default} |" in TEXT
    assert "in ten slices" in TEXT
    assert SLICES == 10
    assert SPENT in WORDS


def test_every_argument_of_an_endpoint():
    for name in inspect.signature(Endpoint).parameters:
        assert f"| `{name}` |" in TEXT


def test_the_numbers_of_routing():
    assert f"weight of {health.WEIGHT}" in WORDS
    assert WORDS.count(f"{health.MEMORY:g} s") == 2
    assert f"at most {health.LONGEST_REST:g} s" in WORDS
    assert f"a 429 without one ({health.THROTTLED_REST:g} s)" in WORDS
    assert f"no event stream ({health.REST:g} s each)" in WORDS
    assert f"is not used for {health.EJECTED:g} s" in WORDS
    assert health.LONGEST_EJECTED == 3600.0
    assert "at most an hour" in WORDS


def test_the_examples_run(capsys):
    names = {}
    examples = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(examples) == 5
    for example in examples:
        exec(example, names)
    assert "eu-1" in capsys.readouterr().out
