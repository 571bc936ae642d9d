"""MF-GP-UCB against its formula in NumPy."""

import jax
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.problems.search_space import SearchSpace
from headwater.methods.black_boxes.mf_gp_ucb import MFGPUCB

from .beliefs import GIVEN, GRID, posterior, seen, taught

COSTS = (0.1, 1.0)


@pytest.mark.parity
@pytest.mark.parametrize("gap", [0.05, 1.5])
def test_it_proposes_where_the_least_of_the_bounds_is_highest(gap):
    """And the cheapest fidelity whose bound is still wide there."""
    method, chosen = MFGPUCB(fidelity_gap=gap, bonus_scale=1.3, **GIVEN), []
    ask = jax.jit(lambda state: method.propose(state, key=jax.random.key(0)))
    for seed in range(6):
        points, values = seen(rows=9, seed=seed)
        level = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1], np.int32)
        state = taught(method, points, values, fidelities=level, costs=COSTS)
        bounds, deviations = [], []
        for fidelity in (0, 1):
            mean, covariance = posterior(points[level == fidelity], values[level == fidelity])
            deviations.append(np.sqrt(np.diag(covariance)))
            bounds.append(mean + 1.3 * deviations[-1] + (gap if fidelity == 0 else 0.0))
        best = np.argmax(np.minimum(*bounds))
        cheap = 1.3 * deviations[0][best] >= gap * np.sqrt(0.1)
        point, fidelity = ask(state)
        assert point[0] == GRID[best] and fidelity == (0 if cheap else 1)
        chosen.append((int(best), int(fidelity)))
    assert len({point for point, _ in chosen}) > 1
    assert {fidelity for _, fidelity in chosen} == ({0} if gap < 1.0 else {0, 1}), chosen


@pytest.mark.parity
def test_it_recommends_what_was_evaluated_at_the_last_fidelity():
    """Not where the process of the last fidelity, which has seen little, expects more."""
    method, elsewhere = MFGPUCB(**GIVEN), 0
    ask = jax.jit(lambda state: method.recommend(state, key=jax.random.key(0)))
    for seed in range(6):
        points, values = seen(rows=9, seed=seed)
        level = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1], np.int32)
        state = taught(method, points, values, fidelities=level, costs=COSTS)
        mean = posterior(points[level == 1], values[level == 1])[0]
        at = np.array([np.flatnonzero(np.isclose(GRID, x))[0] for x in points[level == 1].ravel()])
        assert np.isclose(ask(state)[0], GRID[at[np.argmax(mean[at])]])
        elsewhere += mean.max() > mean[at].max() + 1e-6
    assert elsewhere > 2
    first = taught(method, points[:1], values[:1], fidelities=level[:1], costs=COSTS)
    assert 0.0 <= ask(first)[0] <= 1.0, "before the first evaluation at the last fidelity"


def test_it_begins_with_points_at_each_fidelity():
    method = MFGPUCB(initial_points=3)
    space = SearchSpace((0.0,), (1.0,), costs=(0.1, 0.5, 1.0), capacity=9)
    state = method.init(space, key=jax.random.key(0))
    ask = jax.jit(lambda state, key: method.propose(state, key=key))
    expect = jax.jit(method.expect)
    asked = []
    for seed in range(7):
        point, fidelity = ask(state, jax.random.key(seed))
        asked.append((float(point[0]), int(fidelity)))
        state = expect(state, point, fidelity)
    assert [fidelity for _, fidelity in asked] == [0, 0, 0, 1, 1, 2, 2]
    points = [point for point, _ in asked]
    assert points[3:5] == points[5:7] == points[:2] and len(set(points[:3])) == 3


def test_one_fidelity_is_refused():
    with pytest.raises(SpecificationError, match=r"MFGPUCB chooses among fidelities.*take GPUCB"):
        MFGPUCB().init(SearchSpace((0.0,), (1.0,)), key=jax.random.key(0))
