"""Projections against SciPy's optimiser and the inequalities that define them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from headwater.ops.tabular.convex import (
    Ball,
    Orthotope,
    Product,
    distance,
    into_ball,
    into_cone,
    into_polar,
    into_unit_polar,
    within_budgets,
)

SET = Product(
    Orthotope(jnp.asarray([-0.2, -1.0]), jnp.asarray([0.3, jnp.inf])),
    Ball(jnp.asarray([0.5, -0.5]), jnp.asarray(0.4)),
    2,
)


def _points(count, seed=0, size=4):
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32) * 2.0


_cone = jax.jit(lambda point, height: into_cone(SET, point, height))
_polar = jax.jit(lambda point, height: into_polar(SET, point, height))


def _inside(points):
    return np.asarray(jax.jit(jax.vmap(SET.project))(jnp.asarray(points)))


def _solved(point, lift=None):
    """The nearest point by SciPy; of the cone over the set, if a height is given."""
    limits = [
        {"type": "ineq", "fun": lambda z: 0.16 * z[4] ** 2 - np.sum(
            (z[2:4] - np.asarray([0.5, -0.5]) * z[4]) ** 2)},
        {"type": "ineq", "fun": lambda z: 0.3 * z[4] - z[0]},
        {"type": "ineq", "fun": lambda z: z[0] + 0.2 * z[4]},
        {"type": "ineq", "fun": lambda z: z[1] + z[4]},
        {"type": "ineq", "fun": lambda z: z[4]},
    ]  # fmt: skip
    if lift is None:
        limits.append({"type": "eq", "fun": lambda z: z[4] - 1.0})
        goal = np.append(point, 1.0)
        found = minimize(lambda z: np.sum((z - goal) ** 2), np.r_[0, 0, 0.5, -0.5, 1.0],
                         constraints=limits, options={"ftol": 1e-12})  # fmt: skip
        return found.x[:4]
    found = minimize(
        lambda z: np.sum((np.append(z[:4], z[4] * lift) - point) ** 2),
        np.r_[0, 0, 0.5, -0.5, 1.0], constraints=limits, options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    return np.append(found.x[:4], found.x[4] * lift)


def test_the_projection_is_the_nearest_point():
    for point in _points(5):
        np.testing.assert_allclose(SET.project(jnp.asarray(point)), _solved(point), atol=2e-4)
    inside = jnp.asarray([0.1, 3.0, 0.6, -0.5])
    np.testing.assert_array_equal(SET.project(inside), inside)
    assert float(distance(SET, inside)) == 0.0


@pytest.mark.parametrize("height", [1.0, 20.0])
def test_the_cone_s_projection_is_the_nearest_point(height):
    for point in _points(5, seed=1, size=5):
        found = np.asarray(_cone(jnp.asarray(point), height))
        expected = _solved(point, lift=height)
        # No farther than what the optimiser finds, which is in the cone.
        gaps = [np.linalg.norm(x - point) for x in (found, expected)]
        assert gaps[0] <= gaps[1] + 1e-4
        np.testing.assert_allclose(found, expected, atol=5e-3)


@pytest.mark.parametrize("height", [1.0, 20.0])
def test_cone_and_polar_split_every_point(height):
    rays = np.append(_inside(_points(200, seed=2)), np.full((200, 1), height), axis=1)
    for point in _points(6, seed=3, size=5):
        cone = np.asarray(_cone(jnp.asarray(point), height), np.float64)
        polar = np.asarray(_polar(jnp.asarray(point), height), np.float64)
        np.testing.assert_allclose(cone + polar, point, atol=1e-5)
        assert abs(cone @ polar) < 1e-4
        assert (rays @ polar).max() < 1e-3 * height


def test_what_points_away_from_the_cone_projects_onto_its_tip():
    np.testing.assert_allclose(
        _cone(jnp.asarray([0.0, 0.0, 0.0, 0.0, -1.0]), 1.0), np.zeros(5), atol=1e-6
    )
    np.testing.assert_allclose(_cone(jnp.zeros(5), 1.0), np.zeros(5), atol=1e-20)


def test_the_unit_polar_is_the_nearest_of_polar_and_ball():
    point = jnp.asarray([4.0, -3.0, 1.0, 0.0, 1.0])
    best = np.asarray(into_unit_polar(SET, point, 1.0))
    assert np.linalg.norm(best) <= 1.0 + 1e-6
    # Any other point of both sets is farther.
    each = jax.jit(jax.vmap(lambda other: into_ball(into_polar(SET, other, 1.0), 1.0)))
    others = np.asarray(each(jnp.asarray(_points(300, seed=4, size=5))))
    gaps = np.linalg.norm(others - np.asarray(point), axis=1)
    assert gaps.min() >= np.linalg.norm(best - np.asarray(point)) - 1e-5


def test_the_farthest_point_is_farthest():
    inside = _inside(_points(300, seed=5))
    for direction in _points(5, seed=6):
        direction[1] = -abs(direction[1])  # The set has no end above in this coordinate.
        far = np.asarray(SET.farthest(jnp.asarray(direction)))
        np.testing.assert_allclose(SET.project(jnp.asarray(far)), far, atol=1e-5)
        assert far @ direction >= (inside @ direction).max() - 1e-5


def test_no_direction_asks_for_nothing_of_an_open_end():
    box = Orthotope(jnp.asarray([1.0, -jnp.inf]), jnp.asarray([jnp.inf, 0.3]))
    np.testing.assert_array_equal(box.farthest(jnp.zeros(2)), [1.0, 0.0])


def test_budgets_bound_costs_from_above_and_reward_from_below():
    expected = within_budgets(1.5, 2.0, jnp.asarray([0.3, 0.1]))
    np.testing.assert_allclose(expected.project(jnp.asarray([1.0, 0.5, 0.0])), [1.5, 0.3, 0.0])
    assert float(distance(expected, jnp.asarray([1.2, 0.7, 0.1]))) == pytest.approx(0.5)
