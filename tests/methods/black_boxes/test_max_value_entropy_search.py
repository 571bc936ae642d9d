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
def test_information_without_noise_is_the_loss_of_entropy():
    mean, deviation = np.array([0.0, 0.5, -2.0]), np.array([1.0, 0.2, 3.0])
    highest = np.array([0.7, 1.5])
    expected = [
        np.mean(
            [norm(m, s).entropy() - truncnorm(-30.0, (h - m) / s, m, s).entropy() for h in highest]
        )
        for m, s in zip(mean, deviation)
    ]
    with double_precision():
        given = (jnp.asarray(x) for x in (mean, deviation, 1e-9, highest))
        found = information(*given)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parity
@pytest.mark.parametrize("noise", [0.05, 0.4, 1.0, 5.0])
def test_information_of_a_noisy_value_is_the_loss_of_its_entropy(noise):
    """The density of a value given the maximum, by summing over the function below it."""
    cases = [(0.0, 1.0, 0.7), (0.5, 0.3, 0.4), (-2.0, 1.5, 1.0)]
    with double_precision():
        found = [
            float(information(*(jnp.asarray(x) for x in ([m], [s], noise, [h])))[0])
            for m, s, h in cases
        ]
    for (m, s, h), information_found in zip(cases, found):
        function = np.linspace(m - 9.0 * s, h, 4_001)
        spread = np.hypot(s, noise)
        value = np.linspace(m - 9.0 * spread, m + 9.0 * spread, 4_001)
        joint = norm(m, s).pdf(function) * norm(function, noise).pdf(value[:, None])
        density = np.trapezoid(joint, function, axis=1) / norm(m, s).cdf(h)
        assert np.trapezoid(density, value) == pytest.approx(1.0, abs=1e-6)
        logarithm = np.log(np.maximum(density, 1e-300))
        entropy = -np.trapezoid(density * logarithm, value)
        assert information_found == pytest.approx(norm(m, spread).entropy() - entropy, abs=2e-5)


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
