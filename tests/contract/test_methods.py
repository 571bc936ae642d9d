"""Every method of the catalogue under every check that applies to it."""

import functools

import pytest

from headwater.core.catalogue import all_methods

from .checks import (
    Case,
    check_checkpoint_continues_exactly,
    check_every_number_matters,
    checks_for,
)
from .expected_failures import EXPECTED
from .kinds import Kind, kinds_for
from .overrides import small


# A method has few kinds, and its tests follow each other.
@functools.lru_cache(maxsize=4)
def _case(name: str, kind: str) -> Case:
    return Case(small(name), _kinds(name)[kind])


@functools.cache
def _kinds(name: str) -> dict[str, Kind]:
    return {kind.name: kind for kind in kinds_for(all_methods()[name])}


def _row(name: str, kinds: list[str], check, label: str):
    reason = EXPECTED.get(name, {}).get(check.__name__)
    marks: list[pytest.MarkDecorator] = []
    if reason:
        marks.append(pytest.mark.xfail(reason=reason, strict=True))
    return pytest.param(name, kinds, check, id=f"{name}-{label}-{check.__name__}", marks=marks)


def _rows():
    for name in all_methods():
        kinds = list(_kinds(name))
        for kind in kinds:
            for check in checks_for(small(name), _kinds(name)[kind]):
                yield _row(name, [kind], check, kind)
        if kinds:
            yield _row(name, kinds, check_every_number_matters, "all")


@pytest.mark.parametrize("name, kinds, check", list(_rows()))
def test_method(name, kinds, check, tmp_path):
    cases = [_case(name, kind) for kind in kinds]
    if check is check_every_number_matters:
        check(cases)
    elif check is check_checkpoint_continues_exactly:
        check(cases[0], tmp_path)
    else:
        check(cases[0])


@pytest.mark.parametrize("name", list(all_methods()))
def test_every_method_takes_some_problem(name):
    assert _kinds(name), f"{name} refuses every problem that tests/contract/kinds.py knows"


def test_every_expected_failure_names_a_method_and_a_check():
    for name, checks in EXPECTED.items():
        checked = [check_every_number_matters]
        for kind in _kinds(name).values():
            checked += checks_for(small(name), kind)
        known = {check.__name__ for check in checked}
        assert set(checks) <= known, f"{name}: {set(checks) - known} is no check"
