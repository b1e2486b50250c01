"""What a user installs: the metadata, and a wheel that holds all of it and no more."""

from __future__ import annotations

import configparser
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def metadata():
    return importlib.metadata.metadata("holystream")


@pytest.fixture(scope="module")
def pyproject():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names in a wheel built from a copy, so that the checkout stays as it is."""
    copy = tmp_path_factory.mktemp("wheel") / "source"
    copy.mkdir()
    files = ("pyproject.toml", "setup.cfg", "*.md", "*.py")
    for path in (path for pattern in files for path in ROOT.glob(pattern)):
        shutil.copy(path, copy)
    shutil.copy(ROOT / "LICENSE", copy)
    for folder in ("holystream", "tests", "examples", "benchmarks"):
        if (ROOT / folder).is_dir():
            shutil.copytree(
                ROOT / folder,
                copy / folder,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
    build = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    done = subprocess.run(
        [sys.executable, "-c", build],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (file,) = (copy / "dist").iterdir()
    with zipfile.ZipFile(file) as archive:
        return archive.namelist()


def test_it_says_which_python_it_needs(metadata):
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_core_needs_four_packages_alone(metadata):
    always = [
        line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line
    ]
    names = {re.match(r"[\w.-]+", line).group() for line in always}
    assert names == {"requests", "urllib3", "tenacity", "msgspec"}


@pytest.mark.parametrize(
    ("extra", "package"),
    [
        ("prometheus", "prometheus-client"),
        ("opentelemetry", "opentelemetry-api"),
        ("progress", "tqdm"),
    ],
)
def test_what_is_optional_has_an_extra(pyproject, extra, package):
    (needed,) = pyproject["project"]["optional-dependencies"][extra]
    assert needed.startswith(f"{package}>=")


def test_it_is_licensed(metadata):
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")


def test_the_command_is_installed(pyproject):
    (command,) = importlib.metadata.entry_points(
        group="console_scripts", name="holystream"
    )
    assert command.value == pyproject["project"]["scripts"]["holystream"]


def test_the_wheel_holds_every_file_of_the_package(wheel):
    ours = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "holystream").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "holystream/py.typed" in ours
    assert ours - set(wheel) == set()


def test_the_wheel_holds_nothing_else(wheel):
    tops = {name.partition("/")[0] for name in wheel}
    (info,) = tops - {"holystream", "_holystream_pytest.py"}
    assert info.endswith(".dist-info")
    assert f"{info}/licenses/LICENSE" in wheel


def test_each_setting_has_one_home_and_the_first_lines_say_where(pyproject):
    setup_cfg = configparser.ConfigParser()
    text = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    setup_cfg.read_string(text)
    assert all(
        section == "tool:pytest" or section.startswith("coverage:")
        for section in setup_cfg.sections()
    )
    assert {"pytest", "coverage"}.isdisjoint(pyproject["tool"])
    first = text.partition("\n")[0]
    assert first.startswith("# pytest and coverage live here;")
    assert "pyproject.toml" in first
    first = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("\n")[0]
    assert first.startswith("# Build, metadata, ruff and mypy live here;")
    assert "setup.cfg" in first


def test_the_changelog_keeps_its_form():
    """Unreleased comes first; a release's heading carries version and date."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    for heading in headings[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", heading)
