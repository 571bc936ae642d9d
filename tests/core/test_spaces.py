"""Spaces: units, and what fits what."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Discrete, Spaces

BOX = Box((-2.0, 0.0), (2.0, 10.0))


def test_units_by_hand():
    value = np.asarray([[-2.0, 0.0], [0.0, 5.0], [2.0, 10.0]], np.float32)
    canonical = BOX.to_canonical(value)
    assert canonical.tolist() == [[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]]
    assert BOX.from_canonical(canonical).tolist() == value.tolist()
    assert canonical.dtype == np.float32


@given(st.lists(st.floats(-1, 1, width=32), min_size=2, max_size=2))
def test_units_there_and_back(value):
    value = np.asarray(value, np.float32)
    np.testing.assert_allclose(BOX.to_canonical(BOX.from_canonical(value)), value, atol=1e-6)


def test_half_ranges_are_one_where_a_component_has_no_bound():
    box = Box((-1.0, -8.0, -np.inf, 0.0), (1.0, 8.0, 5.0, np.inf))
    np.testing.assert_array_equal(box.half_ranges, [1.0, 8.0, 1.0, 1.0])


def test_infinite_bounds_are_no_action_space():
    with pytest.raises(SpecificationError, match="infinite bounds"):
        Box((-np.inf,), (1.0,)).to_canonical(np.zeros(1, np.float32))
    assert not Box((-np.inf,), (1.0,)).bounded and BOX.bounded


def test_a_method_for_the_other_kind_of_action_says_so():
    observation = Box((-1.0,), (1.0,))
    with pytest.raises(SpecificationError, match=r"X needs continuous actions.* 3 discrete ones"):
        Spaces(observation, Discrete(3)).require_continuous("X")
    with pytest.raises(SpecificationError, match=r"X needs discrete actions.*2 components"):
        Spaces(observation, BOX).require_discrete("X")


def test_mismatches_are_put_in_words():
    one = Spaces(Box((0.0,) * 3, (1.0,) * 3), BOX)
    assert one.mismatch(Spaces(Box((-5.0,) * 3, (5.0,) * 3), BOX, horizon=9)) is None
    for other, words in (
        (Spaces(Box((0.0,), (1.0,)), BOX), "3 components on one side and 1 on the other"),
        (Spaces(one.observation, Discrete(2)), "continuous on one side and discrete"),
        (Spaces(one.observation, Box((-1.0,), (1.0,))), "size 2 on one side and 1 on the other"),
        (Spaces(one.observation, Box((-2.0, 0.0), (2.0, 9.0))), "bounds are"),
    ):
        assert words in (one.mismatch(other) or "")
