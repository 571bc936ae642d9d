"""The knowledge gradient against an integral, and against the means after every next value."""

import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.black_boxes.knowledge_gradient import (
    KnowledgeGradient,
    knowledge_gradient,
    mean_of_highest,
)
from headwater.parts.black_boxes import surrogate
from headwater.parts.black_boxes.gaussian_process import double_precision

from .beliefs import GIVEN, GRID, NOISE, posterior, proposed, seen, taught

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(180)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


@pytest.mark.parity
@pytest.mark.parametrize(
    "heights, slopes",
    [
        ([0.0, 0.0], [1.0, -1.0]),
        ([0.3, -0.2, 0.1, 0.1], [0.5, 0.5, -2.0, 1.0]),
        ([1.0, 1.0, 1.0], [0.7, 0.7, 0.7]),
        ([0.0, -5.0, 0.2], [0.0, 0.1, 0.0]),
    ],
)
def test_the_mean_of_the_highest_line_is_exact(heights, slopes):
    with double_precision():
        found = float(mean_of_highest(jnp.asarray(heights), jnp.asarray(slopes)))
    fine = np.linspace(-9.0, 9.0, 400_001)
    density = np.exp(-0.5 * fine**2) / np.sqrt(2.0 * np.pi)
    highest = np.max(np.asarray(heights)[:, None] + np.outer(slopes, fine), axis=0)
    assert found == pytest.approx(np.trapezoid(highest * density, fine), abs=1e-8)


@pytest.mark.parity
def test_it_is_what_one_more_value_brings():
    """For each point and each quantile of its next value the whole posterior anew."""
    points, values = seen()
    mean, covariance = posterior(points, values)
    expected = np.zeros(len(GRID))
    for i, point in enumerate(GRID):
        spread = np.sqrt(covariance[i, i] + NOISE**2)
        after = [
            posterior(np.append(points, point), np.append(values, mean[i] + spread * z))[0].max()
            for z in NODES
        ]
        expected[i] = WEIGHTS @ after - mean.max()
    method = KnowledgeGradient(**GIVEN)
    state = taught(method, points, values)
    with double_precision():
        where = jnp.asarray(GRID, jnp.float64)[:, None]
        found = knowledge_gradient(surrogate.posterior(method, state), where, where)
    # The rule of integration errs where the highest line changes.
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.all(np.asarray(found) >= -1e-12)
    assert proposed(method, state)[0] == GRID[np.argmax(found)]


def test_draws_approach_the_exact_mean():
    points, values = seen()
    method = KnowledgeGradient(expectation="sampled", **GIVEN)
    state = taught(method, points, values)
    with double_precision():
        belief = surrogate.posterior(method, state)
        where = jnp.asarray(GRID, jnp.float64)[:, None]
        exact = knowledge_gradient(belief, where, where)
        normal = jnp.asarray(np.random.default_rng(0).normal(size=20_000))
        sampled = knowledge_gradient(belief, where, where, normal)
    np.testing.assert_allclose(sampled, exact, atol=0.01)
