"""Proto-value functions against sums over time, eigenvectors, and a chain done by hand."""

import numpy as np
import pytest

from headwater.analysis.proto_values import proto_value_functions, set_values
from headwater.core.errors import SpecificationError
from headwater.testing.analyses import check_analysis


def _process(states=7, sets=12):
    rng = np.random.default_rng(0)
    transition = rng.dirichlet(np.ones(states), states)
    return transition, (rng.random((sets, states)) < 0.5).astype(float)


def test_features_are_eigenvectors_of_what_the_values_have_in_common():
    transition, sets = _process()
    power, values = np.eye(7), np.zeros((7, 12))
    for step in range(400):
        values += 0.9**step * power @ sets.T
        power = power @ transition
    centred = values - values.mean(0)
    found = np.linalg.eigh(centred @ centred.T)[1][:, ::-1][:, :3]
    signs = [np.sign(column[np.abs(column).argmax()]) for column in found.T]
    check_analysis(
        proto_value_functions,
        {"transition": transition, "sets": sets, "discount": 0.9, "size": 3},
        found * signs,
        rows={"sets": None},
    )


def test_values_of_a_chain():
    # From the first state to the second, which stays; the set holds the second.
    values = set_values(np.asarray([[0.0, 1.0], [0.0, 1.0]]), np.asarray([[0.0, 1.0]]), 0.5)
    np.testing.assert_allclose(values[:, 0], [1.0, 2.0])


def test_sets_of_one_state_are_the_eigenvectors_of_a_symmetric_walk():
    # On a ring the walk is symmetric, so the values of all single states have its eigenvectors.
    ring = 0.5 * (np.roll(np.eye(9), 1, 1) + np.roll(np.eye(9), -1, 1))
    features = proto_value_functions(ring, np.eye(9), 0.9, 2)
    slowest = np.cos(2 * np.pi / 9)
    np.testing.assert_allclose(ring @ features, slowest * features, atol=1e-9)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"size": 7}, "size = 7 must lie between 1 and 6"),
        ({"discount": 1.0}, "discount = 1.0 must lie between 0 and 1"),
        ({"sets": np.ones((2, 3))}, "of each of 7 states"),
        ({"transition": np.ones((7, 7))}, "add up to 1"),
        ({"transition": np.ones((7, 3))}, r"must be \[state, state\]"),
    ],
)
def test_what_does_not_fit_is_named(changed, said):
    transition, sets = _process()
    given = {"transition": transition, "sets": sets, "discount": 0.9, "size": 3}
    with pytest.raises(SpecificationError, match=said):
        proto_value_functions(**{**given, **changed})
