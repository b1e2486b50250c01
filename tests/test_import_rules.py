"""The house stands: imports run downwards, third parties stay behind their fences.

The rules are the tables below. `violations` knows nothing of files, so the rules are
themselves tested on made-up sources.
"""

from __future__ import annotations

import ast
import dataclasses
import graphlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PACKAGE = Path(__file__).parents[1] / "holystream"

# A module may import from lower floors, and on its own floor only from its own package.
# The modules of the ground floor are one package in this, and the root, "", is the
# package of all: it may import its own floor too.
FLOORS = {
    "errors": 0,
    "events": 0,
    "clocks": 0,
    "gapless": 0,
    "spelling": 0,
    "wire": 1,
    "providers": 2,
    "resilience": 2,
    "journal": 2,
    "pricing": 2,
    "telemetry": 2,
    "transcript": 2,
    "resume": 3,
    "driven": 4,
    "exchange": 4,
    "feed": 4,
    "hooks": 4,
    "arguments": 4,
    "settings": 4,
    "destinations": 4,
    "connector": 5,
    "driver": 5,
    "recorder": 5,
    "recovered": 4,
    "recovery": 5,
    "detached": 5,
    "multiplexer": 5,
    "account": 5,
    "attempts": 6,
    "finding": 6,
    "stream": 6,
    "event_source": 6,
    "building": 7,
    "mapping": 7,
    "decorators": 7,
    "client": 8,
    "rag": 9,
    "relay": 9,
    "": 9,
    "simulator": 9,
    "cli": 10,
    "notebook": 10,
    "testing": 10,
    "__main__": 11,
}

# These import nothing of ours: a test peer that shares our code shares our mistakes.
# Only what stands above the root may import them: no program loads them by accident.
INDEPENDENT = {"simulator"}

# Third parties, and the modules that may import them. One that is in neither table may
# be imported nowhere.
ANYWHERE = {"msgspec", "_typeshed"}  # _typeshed exists for type checkers alone
FENCES = {
    "requests": ("wire",),
    "urllib3": ("wire",),
    "ssl": ("wire", "simulator", "cli"),
    "socket": ("wire", "simulator", "cli"),
    "tenacity": (
        *("resilience.retry", "resilience.retry_state", "resilience.backoff"),
        "decorators",
    ),
    "pytest": ("testing",),
    "responses": ("testing",),
    "redis": ("journal.redis",),
    "flask": ("relay.flask",),
    "django": ("relay.django",),
    "prometheus_client": ("telemetry.prometheus",),
    "opentelemetry": ("telemetry.opentelemetry",),
    "websockets": ("wire.websocket",),
    "rich": ("cli", "mapping.progress"),
    "tqdm": ("mapping.progress",),
    "IPython": ("notebook",),
}

# Extras: imported inside the function that needs them, or for the type checker only.
LAZY = {
    "redis",
    "flask",
    "django",
    "prometheus_client",
    "opentelemetry",
    "websockets",
    "rich",
    "tqdm",
    "IPython",
}

# A drawer for whatever has no place yet.
DRAWERS = {"util", "utils", "helpers", "misc", "common"}


@dataclasses.dataclass(frozen=True)
class Import:
    """One imported module, and where it is imported."""

    target: str
    line: int
    eager: bool


class ImportFinder(ast.NodeVisitor):
    """Collects the imports of one module, wherever in it they are written."""

    def __init__(self, name: str, *, is_package: bool, modules: set[str]) -> None:
        self.found: list[Import] = []
        self._package = name if is_package else name.rpartition(".")[0]
        self._modules = modules
        self._eager = True

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level:
            parts = self._package.split(".")
            above = parts[: len(parts) - node.level + 1]
            module = ".".join([*above, module] if module else above)
        for alias in node.names:
            submodule = f"{module}.{alias.name}"
            self._add(submodule if submodule in self._modules else module, node)

    def visit_If(self, node: ast.If) -> None:
        if ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            self._later(node.body)
            for statement in node.orelse:
                self.visit(statement)
        else:
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._later(node.body)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._later(node.body)

    def _later(self, statements: list[ast.stmt]) -> None:
        eager, self._eager = self._eager, False
        for statement in statements:
            self.visit(statement)
        self._eager = eager

    def _add(self, target: str, node: ast.stmt) -> None:
        self.found.append(Import(target, node.lineno, self._eager))


def violations(sources: Mapping[str, str], packages: set[str]) -> list[str]:
    """Every breach of the rules, one line each.

    Args:
        sources: Source text by full module name.
        packages: Which of these names are packages.
    """
    broken: list[str] = []
    graph: dict[str, set[str]] = {}
    modules = set(sources)
    for name, source in sources.items():
        tree = ast.parse(source)
        broken += shape(name, tree)
        if place(name) not in FLOORS:
            broken.append(
                f"{name}: has no floor; give {place(name)!r} its row in FLOORS "
                "(tests/test_import_rules.py) and its line in the design"
            )
            continue
        finder = ImportFinder(name, is_package=name in packages, modules=modules)
        finder.visit(tree)
        graph[name] = set()
        for imported in finder.found:
            if is_ours(imported.target):
                graph[name].add(imported.target)
                broken += climbs(name, imported)
            else:
                broken += trespasses(name, imported)
    return [*broken, *cycles(graph)]


def is_ours(module: str) -> bool:
    return module.partition(".")[0] == "holystream"


def inside(name: str) -> str:
    """The name within holystream: ``holystream.wire.sse`` -> ``wire.sse``."""
    return name.partition(".")[2]


def place(name: str) -> str:
    """The row of FLOORS that a module belongs to."""
    return inside(name).partition(".")[0]


def shape(name: str, tree: ast.Module) -> Iterator[str]:
    if not ast.get_docstring(tree):
        yield f"{name}: has no docstring to say what it promises"
    if name.rpartition(".")[2] in DRAWERS:
        yield f"{name}: a module is named for what it does, not {'/'.join(DRAWERS)}"


def climbs(name: str, imported: Import) -> Iterator[str]:
    here, there = place(name), place(imported.target)
    at = f"{name}:{imported.line}: imports {imported.target}"
    if there not in FLOORS:
        yield f"{at}, which has no floor"
    elif here in INDEPENDENT and there != here:
        yield f"{at}; {here} stands alone"
    elif there in INDEPENDENT and there != here and FLOORS[here] <= FLOORS[""]:
        yield f"{at}; only what stands above floor {FLOORS['']} may"
    elif FLOORS[there] > FLOORS[here]:
        yield f"{at} upwards, from floor {FLOORS[here]} to floor {FLOORS[there]}"
    elif FLOORS[there] == FLOORS[here] > 0 and here not in {"", there}:
        yield f"{at} across floor {FLOORS[here]}; share through a lower floor"


def trespasses(name: str, imported: Import) -> Iterator[str]:
    party = imported.target.partition(".")[0]
    at = f"{name}:{imported.line}: imports {imported.target}"
    if party in FENCES:
        allowed = FENCES[party]
        if not any(f"{inside(name)}.".startswith(f"{home}.") for home in allowed):
            yield f"{at}; only {', '.join(allowed)} may"
    elif party not in ANYWHERE and party not in sys.stdlib_module_names:
        yield f"{at}, a third party without a fence"
    if party in LAZY and imported.eager:
        yield f"{at} when it is loaded; import it in the function that needs it"


def cycles(graph: Mapping[str, set[str]]) -> Iterator[str]:
    known = {name: found & graph.keys() for name, found in graph.items()}
    try:
        graphlib.TopologicalSorter(known).prepare()
    except graphlib.CycleError as error:
        yield f"a cycle: {' <- '.join(error.args[1])}"


def house() -> tuple[dict[str, str], set[str]]:
    """Read holystream: sources by name, and which of them are packages."""
    sources, packages = {}, set()
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
            packages.add(".".join(parts))
        sources[".".join(parts)] = path.read_text(encoding="utf-8")
    return sources, packages


def test_the_house_stands():
    sources, packages = house()
    assert "holystream.errors" in sources
    assert not (broken := violations(sources, packages)), "\n".join(broken)


GOOD = {
    "holystream": "from holystream.client import Client\nfrom holystream import rag",
    "holystream.rag": "import functools",
    "holystream.errors": "",
    "holystream.clocks": "from holystream.errors import ConfigurationError",
    "holystream.client": "from .errors import HolystreamError",
    "holystream.wire": "from holystream.wire.http import Connection",
    "holystream.wire.http": "import requests, ssl\nfrom . import sse",
    "holystream.wire.sse": "import msgspec\nfrom holystream import errors",
    "holystream.resilience.retry": "from tenacity import wait",
    "holystream.simulator": "from holystream.simulator import faults",
    "holystream.simulator.faults": "import socket",
    "holystream.cli": "from holystream import Client",
    "holystream.journal.redis": "def connect():\n    import redis",
    "holystream.notebook": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import IPython"
    ),
    "holystream.testing": "import pytest\nimport holystream.simulator",
}


def breaches(extra: dict[str, str]) -> list[str]:
    sources = {name: f'"""It."""\n{source}' for name, source in (GOOD | extra).items()}
    packages = {"holystream", "holystream.wire", "holystream.simulator"}
    return violations(sources, packages)


def test_a_sound_house_has_no_violation():
    assert breaches({}) == []


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("errors", "from holystream.client import Client", "upwards, from floor 0 to"),
        ("errors", "import holystream.client", "upwards, from floor 0 to floor 8"),
        ("errors", "from holystream import Client", "upwards, from floor 0 to floor 9"),
        ("errors", "from holystream import clocks", "a cycle: "),
        ("errors", "from . import client", "imports holystream.client upwards"),
        ("errors", "from .wire import sse", "imports holystream.wire.sse upwards"),
        ("wire.sse", "from ..client import Client", "holystream.client upwards"),
        ("wire.sse", "def f():\n    from holystream import client", "upwards"),
        ("wire.sse", "async def f():\n    import holystream.client", "upwards"),
        ("wire.sse", "if TYPE_CHECKING:\n    import holystream.client", "upwards"),
        ("wire.sse", "from holystream.wire.http import Connection", "a cycle: "),
        ("wire.http", "from holystream.wire import Connection", "a cycle: "),
        ("providers.base", "import holystream.resilience.retry", "across floor 2"),
        ("relay.hub", "import holystream", "across floor 9"),
        ("relay.hub", "import holystream.simulator", "only what stands above floor 9"),
        ("simulator.faults", "import holystream.errors", "simulator stands alone"),
        ("client", "import holystream.attic", "which has no floor"),
        ("attic", "", "give 'attic' its row in FLOORS"),
        ("wire.utils", "", "named for what it does"),
        ("client", "import requests", "only wire may"),
        ("client", "import urllib3.util", "only wire may"),
        ("client", "if TYPE_CHECKING:\n    from requests import Session", "only wire"),
        ("client", "try:\n    import socket\nfinally:\n    pass", "only wire, sim"),
        ("resilience.pool", "import tenacity", "only resilience.retry, "),
        ("journal.redis_too", "def f():\n    import redis", "only journal.redis may"),
        ("journal.redis", "import redis", "in the function that needs it"),
        ("journal.redis", "class A:\n    import redis", "in the function that needs"),
        (
            "journal.redis",
            "if TYPE_CHECKING:\n    1\nelse:\n    import redis",
            "in the",
        ),
        ("client", "def f():\n    import numpy", "a third party without a fence"),
    ],
)
def test_a_breach_is_found_and_named(name, source, complaint):
    found = breaches({f"holystream.{name}": source})
    assert any(complaint in line for line in found), found


def test_a_module_without_a_docstring_is_found():
    found = violations({"holystream.errors": "import enum"}, set())
    assert found == ["holystream.errors: has no docstring to say what it promises"]
