"""Max-value entropy search against numeric entropies and maxima of plain draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm, truncnorm

from headwater.methods.black_boxes.max_value_entropy_search import (
    MaxValueEntropySearch,
    information,
    maxima,
)
from headwater.parts.black_boxes import surrogate
from headwater.parts.black_boxes.gaussian_process import double_precision

from .beliefs import GIVEN, GRID, posterior, seen, taught


@pytest.mark.parity
def test_information_is_the_loss_of_entropy():
    mean, deviation = np.array([0.0, 0.5, -2.0]), np.array([1.0, 0.2, 3.0])
    highest = np.array([0.7, 1.5])
    expected = [
        np.mean(
            [norm(m, s).entropy() - truncnorm(-30.0, (h - m) / s, m, s).entropy() for h in highest]
        )
        for m, s in zip(mean, deviation)
    ]
    with double_precision():
        found = information(*map(jnp.asarray, (mean, deviation, highest)))
    np.testing.assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parity
def test_maxima_are_those_of_joint_draws():
    points, values = seen()
    method = MaxValueEntropySearch(**GIVEN)
    state = taught(method, points, values)
    mean, covariance = posterior(points, values)
    drawn = np.random.default_rng(0).multivariate_normal(mean, covariance, 20_000).max(axis=1)
    with double_precision():
        where = jnp.asarray(GRID, jnp.float64)[:, None]
        belief = surrogate.posterior(method, state)
        found = np.asarray(maxima(belief, where, 20_000, key=jax.random.key(0)))
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(found, share) == pytest.approx(np.quantile(drawn, share), abs=0.03)
