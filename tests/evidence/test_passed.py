"""Tests that need not be repeated are those whose very code has passed."""

import json
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.core.errors import DataError
from headwater.core.listing import method_modules
from headwater.core.records import Transitions
from headwater.core.spaces import Spaces
from headwater.environments.registry import make
from headwater.evidence.fingerprints.code import Code
from headwater.evidence.fingerprints.passed import PassedTests, source_of_test
from headwater.evidence.registry import claim_named
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.offline.iql import IQL
from headwater.testing import check_method
from headwater.testing.kinds.declared import maker_for
from headwater.testing.kinds.kind import makers

OWN = Path(__file__).parents[1] / "passed.json"


def contract(name):
    check_method(name)


def acts():
    return make("cart-pole")


def acts_elsewhere():
    return make("pendulum")


def other_kinds():
    return []


def grown(code):
    return code + 1


def test_it_is_of_the_test_what_makes_its_arguments_and_the_method():
    source = source_of_test(contract, (), {"name": "IQL"})
    assert source == source_of_test(contract, (), {"name": "IQL"})
    others = {
        source_of_test(contract, (), {"name": "UCBVI"}),
        source_of_test(contract, (acts,), {"name": "IQL"}),
        source_of_test(grown, (), {"name": "IQL"}),
        source_of_test(acts),
        source_of_test(acts_elsewhere),
    }
    assert len({source, *others}) == 6


def test_it_is_of_the_kinds_of_data_that_the_method_takes_and_of_no_others(monkeypatch):
    before = {name: source_of_test(contract, (), {"name": name}) for name in ("IQL", "UCBVI")}
    maker_for(IQL)  # So that the makers are there.
    monkeypatch.setitem(makers, (Spaces, Transitions), other_kinds)
    after = {name: source_of_test(contract, (), {"name": name}) for name in before}
    assert after["IQL"] != before["IQL"] and after["UCBVI"] == before["UCBVI"]


@given(st.integers())
def drawn(number):
    assert number is not None


def test_a_test_whose_code_is_not_found_is_always_repeated():
    assert source_of_test(drawn) is None


def test_it_is_of_the_claim_at_its_smallest_scale():
    names = ("optimism-dives-deep", "a-log-barrier-bears-high-rates")
    sources = {source_of_test(contract, claim=claim_named(name)) for name in names}
    assert len({*sources, source_of_test(contract)}) == 3


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('x: Float[Array, "rows"]', 'x: Float[Array, "rows size"]'),
        ("-> float", "-> int"),
        ("x + 1", "x + 2"),
    ],
)
def test_annotations_count(tmp_path, before, after):
    text = 'def value(x: Float[Array, "rows"], y=3) -> float:\n    return x + 1\n'
    found = []
    for number, written in enumerate((text, text.replace(before, after))):
        folder = tmp_path / str(number) / "deck"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "a.py").write_text(written)
        for annotated in (True, False):
            code = Code(folder, annotated=annotated)
            found.append(code.fingerprint(code.definitions("deck.a", "value")))
    assert found[0] != found[2]
    assert (found[1] == found[3]) == (before != "x + 1")


def test_what_the_catalogue_says_of_rewards_counts(monkeypatch):
    """The contract checks it; what it says of papers stands in documents alone."""
    before = source_of_test(contract, (), {"name": "BC"})
    monkeypatch.setattr(BC, "info", BC.info._replace(summary="clones"))
    assert source_of_test(contract, (), {"name": "BC"}) == before
    monkeypatch.setattr(BC, "info", BC.info._replace(rewards=True))
    assert source_of_test(contract, (), {"name": "BC"}) != before


def test_what_environments_are_named_is_reached():
    from headwater.evidence.fingerprints import passed

    code = passed._code()
    reached = code.reached(code.definitions_of(acts))
    assert "cart_pole.py" in {definition.file.path.name for definition in reached}
    assert all(code._meanings.by_text(name) for name in method_modules())


def test_a_test_holds_with_its_source_and_these_versions_only(tmp_path):
    path = tmp_path / "passed.json"
    PassedTests(path).record({"a": "1", "b": "2"})
    again = PassedTests(path)
    assert again.holds("a", "1") and not again.holds("a", "2") and not again.holds("c", "1")
    again.record({"b": "3"}, known={"b"})
    assert json.loads(path.read_text())["tests"] == {"b": "3"}
    content = json.loads(path.read_text())
    content["made_with"]["jax"] = "0.0.1"
    path.write_text(json.dumps(content))
    assert not PassedTests(path).holds("b", "3")


def test_tests_of_files_that_are_gone_are_not_kept(tmp_path):
    path = tmp_path / "tests" / "passed.json"
    path.parent.mkdir()
    file = path.with_name("test_a.py")
    file.touch()
    PassedTests(path).record({"tests/test_a.py::test_one": "1", "tests/test_b.py::test_two": "2"})
    PassedTests(path).record({"tests/test_a.py::test_three": "3"})
    assert set(json.loads(path.read_text())["tests"]) == {
        "tests/test_a.py::test_one",
        "tests/test_a.py::test_three",
    }


def test_what_fails_is_repeated_until_it_passes(tmp_path):
    path = tmp_path / "passed.json"
    PassedTests(path).record({"a": "1", "b": "2"})
    PassedTests(path).withdraw({"b", "c"})
    assert PassedTests(path).holds("a", "1") and not PassedTests(path).holds("b", "2")
    before = path.stat()
    PassedTests(path).withdraw({"b"})
    assert path.stat().st_ino == before.st_ino


def test_one_in_twenty_is_repeated_and_others_after_a_commit(tmp_path, monkeypatch):
    passed = PassedTests(tmp_path / "passed.json")
    tests = [f"test_{number}" for number in range(2000)]
    first = {test for test in tests if passed.is_in_sample(test)}
    monkeypatch.setattr(passed, "_commit", "another")
    second = {test for test in tests if passed.is_in_sample(test)}
    assert 60 < len(first) < 140 and 60 < len(second) < 140
    assert len(first & second) < 20


@pytest.mark.parametrize("content", ["", "[]", '{"tests": 3, "made_with": {}}', '{"tests": {}}'])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "passed.json"
    path.write_text(content)
    with pytest.raises(DataError, match="does not list tests that have passed"):
        PassedTests(path)


@pytest.mark.skipif(not OWN.is_file(), reason="no tests are recorded as passed")
def test_ours_names_tests_that_are_there():
    tests = json.loads(OWN.read_text())["tests"]
    files = {test.partition("::")[0] for test in tests}
    assert files and all((OWN.parents[1] / file).is_file() for file in files)


def test_a_worker_of_several_keeps_no_account(request):
    """It would write the file with its own tests alone, before whoever knows them all reads it."""
    (conftest,) = (
        plugin
        for plugin in request.config.pluginmanager.get_plugins()
        if getattr(plugin, "__file__", None) == str(OWN.with_name("conftest.py"))
    )

    class Worker:
        workerinput: ClassVar = {}

    assert conftest.pytest_terminal_summary(None, Worker()) is None
    with pytest.raises(AttributeError):
        conftest.pytest_terminal_summary(None, object())
