"""The public names: what they are, that they are explained, and that they do no harm.

What an import does is looked at in a fresh interpreter, from its audit events.
"""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import holystream

ROOT = Path(__file__).parents[1]

IMPORT = '''
"""Import holystream and tell what that did, as JSON."""
import json, logging, os, sys, threading

# Theirs happen at import too (urllib3 tries IPv6 on a socket): only ours count.
import msgspec, requests, tenacity, urllib3

done = {"threads": [], "sockets": [], "environment": []}

def hook(event, args):
    if event.startswith("socket."):
        done["sockets"].append(event)

def start(thread, *, was=threading.Thread.start):
    done["threads"].append(thread.name)
    was(thread)

def read(environ, key, *, was=os._Environ.__getitem__):
    done["environment"].append(key)
    return was(environ, key)

before = set(sys.modules)
sys.addaudithook(hook)
os._Environ.__getitem__ = read
threading.Thread.start = start
import holystream

done["loaded"] = sorted(set(sys.modules) - before)
done["alive"] = [thread.name for thread in threading.enumerate()]
done["version was ready"] = "__version__" in vars(holystream)
done["version"] = holystream.__version__
done["root handlers"] = [repr(handler) for handler in logging.getLogger().handlers]
done["handlers"] = {
    name: [type(handler).__name__ for handler in logging.getLogger(name).handlers]
    for name in ["holystream", *logging.root.manager.loggerDict]
    if name.partition(".")[0] == "holystream"
}
print(json.dumps(done))
'''


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """What importing holystream did in an interpreter of its own."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COVERAGE_", "COV_"))
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT],
        capture_output=True,
        check=False,
        cwd=tmp_path_factory.mktemp("elsewhere"),
        env=environment | {"HOLYSHEEP_API_KEY": "sk-unread"},
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def public_objects():
    """The public classes and functions, by name."""
    found = {name: getattr(holystream, name) for name in holystream.__all__}
    return {
        name: value
        for name, value in found.items()
        if inspect.isclass(value) or inspect.isroutine(value)
    }


def test_all_is_sorted_and_without_doubles():
    assert list(holystream.__all__) == sorted(set(holystream.__all__))


def test_all_is_what_the_package_imports_from_its_modules():
    source = Path(holystream.__file__).read_text(encoding="utf-8")
    imported = {
        alias.asname or alias.name
        for node in ast.parse(source).body
        if isinstance(node, ast.ImportFrom)
        and (node.level or (node.module or "").startswith("holystream"))
        for alias in node.names
    }
    assert imported == set(holystream.__all__) - {"__version__"}


def test_every_public_class_and_function_has_a_docstring():
    assert public_objects()
    silent = [name for name, value in public_objects().items() if not explained(value)]
    assert silent == []


def test_every_public_method_has_a_docstring():
    silent = [
        f"{name}.{method}"
        for name, value in public_objects().items()
        if inspect.isclass(value)
        for method, member in vars(value).items()
        if not method.startswith("_")
        and (inspect.isroutine(member) or isinstance(member, property))
        and not explained(member)
    ]
    assert silent == []


def explained(value):
    """Has words of its own: not a base's, nor those that a dataclass makes up."""
    if not inspect.isclass(value):
        return bool(value.__doc__)
    words = vars(value).get("__doc__") or ""
    return bool(words) and not words.startswith(f"{value.__name__}(")


@pytest.mark.parametrize("name", getattr(holystream, "__all__", ()))
def test_every_public_name_is_in_the_reference(name):
    reference = ROOT / "docs" / "api.md"
    assert reference.exists(), "docs/api.md, the reference, is missing"
    text = reference.read_text(encoding="utf-8")
    assert re.search(rf"`(holystream\.)?{re.escape(name)}\b", text), (
        f"docs/api.md does not mention `{name}`"
    )


def test_import_starts_no_thread(imported):
    assert imported["threads"] == []
    assert imported["alive"] == ["MainThread"]


def test_import_opens_no_socket(imported):
    assert imported["sockets"] == []


def test_import_reads_no_setting_from_the_environment(imported):
    ours = ("HOLYS", "OPENAI_", "ANTHROPIC_", "GEMINI_")
    assert [name for name in imported["environment"] if name.startswith(ours)] == []


def test_import_leaves_logging_to_the_program(imported):
    assert imported["root handlers"] == []
    assert imported["handlers"].pop("holystream") == ["NullHandler"]
    assert all(handlers == [] for handlers in imported["handlers"].values())


@pytest.mark.parametrize(
    "module",
    [
        "holystream.simulator",
        "holystream.testing",
        "holystream.cli",
        "IPython",
        "argparse",
        "asyncio",
        "django",
        "flask",
        "importlib.metadata",
        "opentelemetry",
        "prometheus_client",
        "redis",
        "rich",
        "sqlite3",
        "websockets",
    ],
)
def test_import_does_not_load_what_few_need(imported, module):
    loaded = imported["loaded"]
    assert [name for name in loaded if f"{name}.".startswith(f"{module}.")] == []


def test_the_version_is_looked_up_when_asked_for(imported):
    assert not imported["version was ready"]
    assert imported["version"] == importlib.metadata.version("holystream")


def test_an_unknown_name_is_refused_as_usual():
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = holystream.no_such_name
