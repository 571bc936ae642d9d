"""Energy allocation against least squares in NumPy, and quadratic functions without noise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.problems.search_space import SearchSpace
from headwater.core.records import Queries
from headwater.environments.black_boxes.quadratic import QuadraticFunction
from headwater.methods.black_boxes.energy_allocation import EnergyAllocation

SPACE = SearchSpace((-2.0,) * 3, (2.0,) * 3)
KEY = jax.random.key(0)


def queries(point, value):
    rows = len(value)
    return Queries(
        jnp.asarray(point, jnp.float32),
        jnp.asarray(value, jnp.float32),
        jnp.zeros(rows, jnp.int32),
        jnp.ones(rows),
    )


@pytest.mark.oracle
@pytest.mark.parametrize("hessian", ["estimated", "given"])
def test_without_noise_it_finds_the_maximum(hessian):
    box = QuadraticFunction((9.0, 2.0, 0.5), seed=3)
    curves, highest = instance = box.reset()
    method = EnergyAllocation(hessian=hessian, ridge=1e-6)
    point = jax.random.uniform(KEY, (40, 3))
    value = jax.vmap(lambda x: box.mean_value(instance, x, jnp.asarray(0, jnp.int32)))(
        SPACE.from_unit(point)
    )
    state = method.init(SPACE, key=KEY)
    if hessian == "given":
        state = dataclasses.replace(state, hessian=4.0 * curves)
    state, _ = method.update(state, queries(point, value), key=KEY)
    found = SPACE.from_unit(method.recommend(state, key=KEY))
    np.testing.assert_allclose(found, highest, atol=2e-3)
    np.testing.assert_allclose(state.hessian, 4.0 * curves, atol=2e-2)
    np.testing.assert_allclose(state.curvature, [2.0, 8.0, 36.0], rtol=2e-3)


@pytest.mark.parity
def test_it_evaluates_a_step_from_the_middle_as_the_curvature_says():
    method = EnergyAllocation(hessian="given", curvature_power=0.5, step_length=0.25)
    state = method.init(SPACE, key=KEY)
    state = dataclasses.replace(
        state, curvature=jnp.asarray([1.0, 4.0, 16.0]), centre=jnp.asarray([0.1, -0.2, 0.0])
    )

    def one(state, _):
        point, fidelity = method.propose(state, key=KEY)
        return method.expect(state, point, fidelity), point

    points = np.asarray(jax.jit(lambda s: jax.lax.scan(one, s, None, 7_000))(state)[1], np.float64)
    steps = (2.0 * points - 1.0) / 0.25
    np.testing.assert_allclose(np.sort(np.abs(steps))[:, -1], 1.0, atol=1e-5)
    np.testing.assert_allclose(np.sort(np.abs(steps))[:, :2], 0.0, atol=1e-5)
    # In proportion to 1, 1/2 and 1/4: 4,000, 2,000 and 1,000, each half of them on either side.
    counts = np.stack([(steps > 0.5).sum(0), (steps < -0.5).sum(0)])
    np.testing.assert_allclose(counts, [[2_000, 1_000, 500]] * 2, atol=4)


@pytest.mark.parity
def test_values_far_from_their_prediction_are_truncated():
    draw = np.random.default_rng(0)
    method = EnergyAllocation(hessian="given", residual_clip=2.0, ridge=0.5, curvature=3.0)
    state, products, moments, residuals, weights = (
        method.init(SPACE, key=KEY), 0.5 * np.eye(4), np.zeros(4), 0.0, np.zeros(4)
    )  # fmt: skip
    for batch in range(3):
        point, value = draw.uniform(size=(10, 3)), draw.standard_t(2, 10) + 9.0 * batch
        state, _ = method.update(state, queries(point, value), key=KEY)
        inside = 2.0 * point - 1.0
        terms = np.hstack([np.ones((10, 1)), inside])
        residual = value + 1.5 * np.sum(inside**2, axis=1) - terms @ weights
        # Eight evaluations are needed before: twice as many as terms.
        bound = np.inf if batch == 0 else 2.0 * residuals / (10 * batch)
        assert batch == 0 or np.abs(residual).max() > bound
        products += terms.T @ terms
        moments += terms.T @ (terms @ weights + np.clip(residual, -bound, bound))
        residuals += np.abs(residual).sum()
        weights = np.linalg.solve(products, moments)
        np.testing.assert_allclose(state.weights, weights, rtol=1e-4, atol=1e-5)


def test_candidates_are_refused():
    space = SearchSpace.of_candidates([[0.0], [1.0]])
    with pytest.raises(SpecificationError, match="chooses points around the maximum freely"):
        EnergyAllocation().init(space, key=KEY)
