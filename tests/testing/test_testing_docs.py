"""Every example of docs/testing.md runs as it stands there, section by section."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import holystream.testing

pytest_plugins = ["pytester"]

TEXT = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```python\n# (\w+\.py)\n(.*?)```", re.DOTALL)
SECTION = re.compile(r"^## (.*?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
SECTIONS = {
    title: files
    for title, body in SECTION.findall(TEXT)
    if (files := dict(BLOCK.findall(body)))
}


def test_every_example_is_in_a_section_and_has_a_name():
    assert sum(map(len, SECTIONS.values())) == TEXT.count("```python") > 0
    assert TEXT.count("```") == 2 * TEXT.count("```python")


@pytest.mark.parametrize("title", SECTIONS)
def test_the_examples_of_a_section_run(pytester, monkeypatch, title):
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.delenv("HOLYSHEEP_API_KEY", raising=False)
    files = SECTIONS[title]
    for name, code in files.items():
        (pytester.path / name).write_text(code, encoding="utf-8")
    result = pytester.runpytest_subprocess(
        "-W", "error", "-p", "no:cacheprovider", "--strict-markers"
    )
    outcomes = result.parseoutcomes()
    assert set(outcomes) == {"passed"}
    tests = sum(
        len(re.findall(r"^def test_", code, re.MULTILINE)) for code in files.values()
    )
    assert outcomes["passed"] >= tests > 0


def test_everything_public_is_explained():
    for name in holystream.testing.__all__:
        assert getattr(holystream.testing, name).__doc__
        if name != "Replay":  # what replay() returns
            assert re.search(rf"`?\b{name}\b", TEXT)


def test_the_links_within_the_page_lead_somewhere():
    anchors = {
        re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
        for title in re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    }
    links = set(re.findall(r"\]\(#([\w-]+)\)", TEXT))
    assert links
    assert links <= anchors


def test_the_table_of_fixtures_is_complete():
    import _holystream_pytest

    fixtures = {name for name in vars(_holystream_pytest) if name.startswith("holys")}
    assert fixtures == set(re.findall(r"^\| `(holystream_\w+)` \|", TEXT, re.MULTILINE))


def test_the_table_of_faults_names_what_scripts_have():
    from holystream.simulator import Script

    rows = re.findall(r"^\| .* \| (.*`.*`.*) \|$", TEXT, re.MULTILINE)
    options = {
        option
        for row in rows
        for code in re.findall(r"`(?:Script\()?([^`]*?)\)?`", row)
        for option in re.findall(r"(\w+)=", code)
    }
    assert {"cut_at", "rechunk", "malformed_at"} <= options
    assert options <= {*Script.__dataclass_fields__}
