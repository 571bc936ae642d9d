"""CycleQD: what its children are made of, and a merge whose best weights are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.problems.measured_space import MeasuredSpace
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import MeasuredQueries
from headwater.environments.black_boxes.measured_box import MeasuredBox
from headwater.methods.quality_diversity.cycle_qd import CycleQD
from headwater.runs.learn import learn
from headwater.sources.queries import LiveMeasuredQueries

SHAPES = ((3, 2), (2,))
SIZE, RADIUS = 8, 4.0
SEEDS = np.random.default_rng(0).normal(size=(2, SIZE)).astype(np.float32)
BOX = SearchSpace((-RADIUS,) * SIZE, (RADIUS,) * SIZE, capacity=1_000)
SPACE = MeasuredSpace(BOX, (0.0, 0.0), (1.0, 1.0), shapes=SHAPES, seeds=jnp.asarray(SEEDS))


def told(method, measures, points=None):
    """The state after one update with these measures, and the points `[-RADIUS, RADIUS]`."""
    measures = jnp.asarray(measures, jnp.float32)
    rows = len(measures)
    if points is None:
        points = np.random.default_rng(1).normal(size=(rows, SIZE)).astype(np.float32)
    unit = jnp.asarray(BOX.to_unit(np.asarray(points, np.float32)))
    data = MeasuredQueries(unit, jnp.zeros(rows), measures, jnp.zeros((rows, 0)))
    state = method.init(SPACE, key=jax.random.key(0))
    return jax.jit(lambda s, d: method.update(s, d, key=jax.random.key(0))[0])(state, data), points


def children(method, state, count, seed=0):
    vary = jax.jit(lambda state, key: method.offspring(state, count, key=key))
    return np.asarray(BOX.from_unit(np.asarray(vary(state, jax.random.key(seed)), np.float64)))


@pytest.mark.parity
def test_a_child_is_a_merge_and_a_share_of_each_direction_of_one_expert():
    """Both parents are one solution: what is left is the mutation, told apart by NumPy."""
    method = CycleQD(mutation_rate=0.5, cells=1)
    state, points = told(method, [[0.9, 0.9]] * 2)
    # The second update: directions of the second expert.
    added = children(method, state, 400) - points[0]
    expert = SEEDS[1]
    left, strength, right = np.linalg.svd(expert[:6].reshape(3, 2), full_matrices=False)
    turned = np.einsum("ri,nrc,jc->nij", left, added[:, :6].reshape(-1, 3, 2), right)
    shares = np.stack([turned[:, i, i] / strength[i] for i in range(2)], axis=1)
    np.testing.assert_allclose(turned[:, 0, 1], 0.0, atol=2e-5)
    np.testing.assert_allclose(turned[:, 1, 0], 0.0, atol=2e-5)
    column = added[:, 6:] / expert[6:]
    np.testing.assert_allclose(column[:, 0], column[:, 1], atol=2e-4)
    shares = np.concatenate([shares, column[:, :1]], axis=1)
    assert shares.min() > -1e-4 and shares.max() < 0.5 + 1e-4
    np.testing.assert_allclose(shares.mean(axis=0), 0.25, atol=0.03)
    correlation = np.corrcoef(shares.T) - np.eye(3)
    assert np.abs(correlation).max() < 0.2


@pytest.mark.parity
def test_parents_are_two_solutions_of_the_archive_whose_turn_it_is():
    method = CycleQD(mutation_rate=0.0, weight_scale=0.0, cells=4)
    # Rows 0 and 3 share a cell of the first measure, and rows 1 and 2 one of the second.
    measures = [[0.1, 0.5], [0.4, 0.9], [0.6, 0.8], [0.2, 0.1]]
    state, points = told(method, measures)
    in_archive = [
        {tuple(x) for x in np.asarray(a.measures, float)[np.asarray(a.filled)].round(3).tolist()}
        for a in state.archives
    ]
    assert in_archive[0] == {(0.1, 0.5), (0.6, 0.8), (0.2, 0.1)}
    assert in_archive[1] == {(0.1, 0.5), (0.4, 0.9), (0.6, 0.8)}
    # It is the turn of the second task, after one update.
    pairs = [(0, 1), (0, 2), (1, 2)]
    middles = np.stack([(points[i] + points[j]) / 2 for i, j in pairs])
    found = children(method, state, 3000)
    apart = np.abs(found[:, None] - middles[None]).max(axis=-1)
    assert apart.min(axis=1).max() < 1e-4
    # Factors: of the second measure, and of the cells 0, 1 and 2 of the first.
    value = 0.5 + 0.8 * (np.asarray([0.5, 0.9, 0.8]) - 0.5) / 0.4
    weight = value * np.asarray([0.5, 0.9, 1.3])
    share = weight / weight.sum()
    chance = [
        share[i] * share[j] / (1 - share[i]) + share[j] * share[i] / (1 - share[j])
        for i, j in pairs
    ]
    counted = np.bincount(apart.argmin(axis=1), minlength=3) / 3000
    np.testing.assert_allclose(counted, chance, atol=0.03)


@pytest.mark.oracle
def test_it_finds_a_merge_that_solves_both_tasks():
    """Each task needs its expert's numbers alone; the other's do harm. The best is their sum."""
    experts = np.zeros((2, SIZE), np.float32)
    experts[0, :3] = experts[1, 3:6] = 1.0
    harmed = jnp.asarray([[1, 1, 1, 0.3, 0.3, 0.3, 0, 0], [0.3, 0.3, 0.3, 1, 1, 1, 0, 0]])
    goal = jnp.asarray([1.0] * 6 + [0.0] * 2)
    space = MeasuredSpace(BOX, (0.0,) * 2, (1.0,) * 2, shapes=((8,),), seeds=jnp.asarray(experts))

    def measured(x):
        scores = jnp.exp(-jnp.sum(harmed * (x - goal)[None] ** 2, axis=1))
        return jnp.mean(scores), scores

    source = LiveMeasuredQueries(MeasuredBox(measured, space), 16)

    @jax.jit
    def found(key):
        state = learn(CycleQD(), space, source, 60, key=key).state
        return state.archives, CycleQD().archive(state)

    archives, together = found(jax.random.key(0))
    each = np.asarray([measured(x)[1] for x in jnp.asarray(experts)])
    assert each.mean(axis=1).max() < 0.6
    mean = np.asarray(together.measures).mean(axis=1)[np.asarray(together.filled)]
    assert mean.max() > 0.9
    # All archives together are all their places, and no other.
    assert together.places == sum(a.places for a in archives) == 30
    assert int(together.count) == sum(int(a.count) for a in archives)


def test_it_begins_with_the_experts_and_needs_one_for_each_task():
    state = CycleQD().init(SPACE, key=jax.random.key(0))
    np.testing.assert_allclose(children(CycleQD(), state, 3)[:2], SEEDS, atol=1e-5)
    one = MeasuredSpace(BOX, (0.0,) * 3, (1.0,) * 3, seeds=jnp.asarray(SEEDS))
    with pytest.raises(
        SpecificationError, match="a seed for each of the 3 measures: the space has 2"
    ):
        CycleQD().init(one, key=jax.random.key(0))
    with pytest.raises(SpecificationError, match="hold 7 numbers, and a solution has 8"):
        MeasuredSpace(BOX, (0.0,), (1.0,), shapes=((7,),))
    with pytest.raises(SpecificationError, match=r"seeds have shape \(1, 7\): rows of 8"):
        MeasuredSpace(BOX, (0.0,), (1.0,), seeds=jnp.zeros((1, 7)))
    again = MeasuredSpace.from_json(SPACE.to_json())
    assert again.shapes == SHAPES and again.to_json() == SPACE.to_json()
