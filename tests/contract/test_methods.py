"""Every method of the catalogue keeps the contract, by what its author calls too."""

import pytest

from headwater.core.catalogue import all_methods
from headwater.testing import check_method
from headwater.testing.exceptions import EXPECTED


@pytest.mark.repeated_on_change
@pytest.mark.parametrize("name", list(all_methods()))
def test_method(name):
    report = check_method(all_methods()[name])
    assert report.method == name and len(report.outcomes) > 10


def test_exceptions_name_methods():
    assert set(EXPECTED) <= set(all_methods())
