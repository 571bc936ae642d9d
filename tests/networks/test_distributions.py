"""Densities against SciPy, and integrals against one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from headwater.networks.distributions import Categorical, Normal, TanhNormal

MEAN, LOG_STD = np.asarray([0.3, -0.8]), np.asarray([-0.5, 0.2])


def _as(kind):
    return kind(jnp.asarray(MEAN, jnp.float32), jnp.asarray(LOG_STD, jnp.float32))


def test_normal_density_against_scipy():
    action = np.asarray([[0.1, -0.5], [1.0, -1.0], [0.9, 0.9]])
    expected = stats.norm(MEAN, np.exp(LOG_STD)).logpdf(action).sum(1)
    distribution = jax.tree.map(lambda x: jnp.broadcast_to(x, (3, 2)), _as(Normal))
    found = distribution.log_density(jnp.asarray(action, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_squashed_density_by_change_of_variables():
    action = np.asarray([0.4, -0.95])
    raw = np.arctanh(action)
    expected = (stats.norm(MEAN, np.exp(LOG_STD)).logpdf(raw) - np.log(1 - action**2)).sum()
    found = _as(TanhNormal).log_density(jnp.asarray(action, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("log_std", (-2.0, -0.5, 0.3))
def test_squashed_density_integrates_to_one(log_std):
    # A grid that is fine at the edges: the midpoints of equal steps of atanh.
    edges = np.tanh(np.linspace(-6.0, 6.0, 4001))
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    wide = jnp.full((4000, 1), log_std)
    density = TanhNormal(jnp.full((4000, 1), 0.4), wide)
    log_density = density.log_density(jnp.asarray(middle[:, None], jnp.float32))
    np.testing.assert_allclose(np.sum(np.exp(np.asarray(log_density)) * width), 1.0, atol=5e-3)


@pytest.mark.parametrize("kind", (Normal, TanhNormal))
def test_samples_are_inside_and_know_their_density(kind, key):
    keys = jax.random.split(key, 2000)
    action, log_density = jax.vmap(_as(kind).sample)(keys)
    action = np.asarray(action)
    assert np.all(np.abs(action) <= 1.0)
    inside = np.all(np.abs(action) < 0.999, axis=1)
    again = jax.vmap(_as(kind).log_density)(jnp.asarray(action[inside]))
    np.testing.assert_allclose(again, np.asarray(log_density)[inside], rtol=1e-3, atol=1e-3)
    raw = np.arctanh(action[inside]) if kind is TanhNormal else action[inside]
    if kind is TanhNormal:
        for i in range(2):
            law = stats.norm(MEAN[i], np.exp(LOG_STD[i]))
            bound = np.arctanh(0.999)
            uniform = (law.cdf(raw[:, i]) - law.cdf(-bound)) / (law.cdf(bound) - law.cdf(-bound))
            assert stats.kstest(uniform, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("kind", (Normal, TanhNormal))
def test_slopes_are_finite_at_the_edge(kind):
    def log_density(mean, log_std):
        return kind(mean, log_std).log_density(jnp.asarray([1.0, -1.0]))

    slopes = jax.grad(log_density, (0, 1))(jnp.asarray([3.0, 0.0]), jnp.asarray([-5.0, 2.0]))
    assert all(np.all(np.isfinite(slope)) for slope in slopes)


def test_modes():
    np.testing.assert_allclose(_as(TanhNormal).mode(), np.tanh(MEAN), rtol=1e-6)
    assert Normal(jnp.asarray([3.0, -0.5]), jnp.zeros(2)).mode().tolist() == [1.0, -0.5]
    logits = jnp.asarray([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]])
    assert Categorical(logits).mode().tolist() == [1, 0]


def test_categorical_probabilities_and_exact_expectation(key):
    logits = np.random.default_rng(0).normal(size=(5, 4))
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    distribution = Categorical(jnp.asarray(logits, jnp.float32))
    action = jnp.asarray([0, 3, 1, 2, 2], jnp.int32)
    found = distribution.log_density(action)
    np.testing.assert_allclose(found, np.log(probability)[np.arange(5), action], rtol=1e-5)
    actions, log_density, weight = distribution.expectation(key)
    assert actions.shape == log_density.shape == weight.shape == (4, 5)
    np.testing.assert_allclose(weight.sum(0), 1.0, rtol=1e-6)
    value = np.random.default_rng(1).normal(size=4)
    mean = jnp.sum(weight * jnp.asarray(value, jnp.float32)[actions], axis=0)
    np.testing.assert_allclose(mean, probability @ value, rtol=1e-4, atol=1e-6)
    entropy = -jnp.sum(weight * log_density, axis=0)
    np.testing.assert_allclose(entropy, stats.entropy(probability, axis=1), rtol=1e-5)


def test_categorical_samples_follow_their_probabilities(key):
    logits = jnp.log(jnp.asarray([0.5, 0.2, 0.3]))
    drawn = jax.vmap(lambda k: Categorical(logits).sample(k)[0])(jax.random.split(key, 5000))
    counts = np.bincount(np.asarray(drawn), minlength=3)
    assert stats.chisquare(counts, np.asarray([0.5, 0.2, 0.3]) * 5000).pvalue > 1e-3


def test_a_continuous_expectation_is_one_sample_of_weight_one(key):
    action, log_density, weight = _as(TanhNormal).expectation(key)
    assert action.shape == (1, 2) and weight.tolist() == [1.0]
    sample, expected = _as(TanhNormal).sample(key)
    assert action[0].tolist() == sample.tolist() and float(log_density[0]) == float(expected)
