"""docs/providers.md says what the table of hosts says, line by line."""

import re
from pathlib import Path

import pytest

import holystream
from holystream.providers.registry import PROFILES, table

DOCS = Path(__file__).parents[2] / "docs" / "providers.md"
TEXT = DOCS.read_text(encoding="utf-8")


def code(value):
    return f"`{value}`" if value else "-"


def prefill(value):
    if not value:
        return "-"
    notes = [value.spelling]
    notes += ["echoes"] if value.echo else []
    notes += [f"`{value.path}`"] if value.path else []
    return ", ".join(notes)


def repeats(names):
    return ", ".join(sorted(names, reverse=True)) or "-"


def hosts():
    for name, known in PROFILES.items():
        cells = [
            f"`{name}`",
            code(known.base_url),
            f"`{known.key_variable}`" + ("" if known.key_required else ", optional"),
            "yes" if known.usage_option else "no",
            repeats(known.repeatable_by),
            prefill(known.prefill),
        ]
        yield f"| {' | '.join(cells)} |"


def changed(field, value):
    if field in {"spellings", "query"}:
        pairs = ", ".join(f"{key} = {other}" for key, other in value.items())
        return f"{field}: {pairs}"
    if field == "prefill":
        return f"prefill: {prefill(value)}"
    if field == "repeatable_by":
        return f"repeatable_by: {repeats(value)}"
    return f"{field}: {value}"


def models():
    for name, known in PROFILES.items():
        for pattern, changes in known.models.items():
            differs = "; ".join(changed(*change) for change in changes.items())
            yield f"| `{name}` | `{pattern}` | {differs} |"


def sources():
    for name, row in table().items():
        yield f"| `{name}` | {row['checked']} | {row['source']} |"
        for pattern, other in row.get("models", {}).items():
            yield f"| `{name}`, `{pattern}` | {other['checked']} | {other['source']} |"


@pytest.mark.parametrize("rows", [hosts, models, sources])
def test_the_tables_are_those_of_the_data_file(rows):
    assert "\n".join(rows()) in TEXT, "\n".join(["write this:", *rows()])


def test_it_has_no_row_that_is_in_no_table():
    written = set(re.findall(r"^\| `.*$", TEXT, re.MULTILINE))
    fields = {f"`{field}`" for field in holystream.Profile.__dataclass_fields__}
    others = {
        row for row in written if row[2:].partition(" ")[0].strip(",") not in fields
    }
    assert others == {*hosts(), *models(), *sources()}


def test_each_field_of_a_profile_is_explained():
    for field in holystream.Profile.__dataclass_fields__:
        assert f"`{field}`" in TEXT


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
def test_each_example_runs(example, monkeypatch):
    for known in PROFILES.values():
        monkeypatch.setenv(known.key_variable, "sk-0123456789")
    monkeypatch.setenv("HOUSE_LLM_KEY", "sk-0123456789")
    names = {}
    exec(example, names)
    names["client"].close()


def test_there_are_examples():
    assert TEXT.count("```python") >= 3
