"""What the package says that it needs is what its code imports and what the set-up installs."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FILES = sorted((ROOT / "src").rglob("*.py"))
PACKAGE_OF = packages_distributions()
"""Import name to the installed packages that bring it. Elsewhere the two names are the same."""


def plain(requirement: str) -> str:
    """The name that `requirement` begins with, as registries compare names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0]).lower()


NEEDED = {plain(text) for text in PROJECT["project"]["dependencies"]}
EXTRAS = PROJECT["project"]["optional-dependencies"]
OPTIONAL = {plain(text) for needed in EXTRAS.values() for text in needed}
TOOLS = [text for name in ("dev", "docs") for text in PROJECT["dependency-groups"][name]]
DEVELOPMENT = {plain(text) for text in TOOLS}


def imports(text: str) -> Iterator[tuple[str, bool]]:
    """Top-level packages that `text` imports, and whether inside a function."""

    def walk(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], inside
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0], inside
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside)

    yield from walk(ast.parse(text), False)


def undeclared(text: str) -> list[str]:
    """What is wrong with the imports of `text`."""
    found = []
    for name, inside in imports(text):
        if name in sys.stdlib_module_names or name == "headwater":
            continue
        packages = {plain(package) for package in [name, *PACKAGE_OF.get(name, [])]}
        if packages & NEEDED or (name == "mujoco" and "gymnasium" in NEEDED):
            continue
        if not packages & OPTIONAL:
            found.append(f"{name} is imported but pyproject.toml does not declare it")
        elif not inside:
            found.append(f"{name} belongs to an extra: import it inside the function that needs it")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT / "src").as_posix())
def test_every_import_is_declared(path):
    assert not undeclared(path.read_text(encoding="utf-8"))


def test_wrong_imports_would_be_noticed():
    assert undeclared("import pandas.io") == [
        "pandas is imported but pyproject.toml does not declare it"
    ]
    assert undeclared("def f():\n    from rliable import metrics") == [
        "rliable is imported but pyproject.toml does not declare it"
    ]
    assert undeclared("import envpool") == [
        "envpool belongs to an extra: import it inside the function that needs it"
    ]
    assert not undeclared("def f():\n    import envpool")
    assert not undeclared("import os\nfrom jax import numpy\nfrom headwater import core")


def test_every_dependency_is_imported():
    used = {name for path in FILES for name, _ in imports(path.read_text(encoding="utf-8"))}
    packages = {plain(p) for name in used for p in [name, *PACKAGE_OF.get(name, [])]}
    assert packages >= NEEDED, f"nothing imports {', '.join(sorted(NEEDED - packages))}"


def test_every_dependency_has_a_lower_bound():
    listed = [*PROJECT["project"]["dependencies"], *TOOLS]
    for text in [*listed, *(text for needed in EXTRAS.values() for text in needed)]:
        assert ">=" in text, f"{text} has no lower bound"


def test_gymnasium_brings_mujoco():
    assert any(t.startswith("gymnasium[mujoco]") for t in PROJECT["project"]["dependencies"])


def test_constraints_pin_everything_that_is_declared():
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line), line
    pinned = [plain(line) for line in lines]
    assert len(set(pinned)) == len(pinned), "a package is pinned twice"
    missing = (NEEDED | OPTIONAL | DEVELOPMENT) - set(pinned)
    assert not missing, f"constraints.txt does not pin {', '.join(sorted(missing))}"
