"""The three files that CONTRIBUTING.md gives to newcomers are a method, its test and its claim."""

import importlib.util
import shutil
from pathlib import Path

import pytest

import headwater.methods.control.imitation as imitation
from headwater.core import listing
from headwater.core.catalogue import all_methods, family
from headwater.testing import check_method

from . import test_rules

ROOT = Path(__file__).parents[2]
SKELETON = ROOT / "docs" / "skeleton"
NAME = "LinearCloning"


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    """The catalogue as a newcomer makes it: the skeleton copied into a folder, and nothing else."""
    folder = tmp_path_factory.mktemp("methods") / "control" / "imitation"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    shutil.copy(SKELETON / "method.py", folder / "linear_cloning.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "_ROOT", folder.parents[1])
        path = [*imitation.__path__, str(folder)]
        patch.setattr(imitation, "__path__", path)
        listing.method_modules.cache_clear()
        yield all_methods()
    listing.method_modules.cache_clear()


def test_it_is_discovered_by_its_folder(methods):
    assert list(methods) == [NAME]
    assert family(NAME) == "control/imitation"


def test_it_keeps_the_contract(methods):
    report = check_method(methods[NAME])
    assert {outcome.kind for outcome in report.outcomes} == {"continuous", "all data"}


RULES = [
    rule
    for name, rule in vars(test_rules).items()
    if name.startswith("test_") and "name" in rule.__code__.co_varnames[: rule.__code__.co_argcount]
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_it_keeps_the_rules_of_the_catalogue(methods, rule):
    rule(NAME)


def test_there_are_rules():
    assert len(RULES) == 7


def _executed(name):
    """A file of the skeleton as a module."""
    specification = importlib.util.spec_from_file_location(f"skeleton_{name}", SKELETON / name)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_its_test_passes(methods):
    module = _executed("test_method.py")
    assert module.LinearCloning is methods[NAME]
    tests = [test for name, test in vars(module).items() if name.startswith("test_")]
    assert [mark.name for test in tests for mark in test.pytestmark] == ["oracle"]
    for test in tests:
        test()


def test_its_claim_holds(methods):
    (claim,) = _executed("claim.py").CLAIMS
    assert claim.methods == (NAME,) and claim.paper == methods[NAME].info.paper
    assert claim.find("smoke").verdict == "holds"


def test_contributing_names_the_files():
    shown = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for file in sorted(SKELETON.glob("*.py")):
        assert f"docs/skeleton/{file.name}" in shown
