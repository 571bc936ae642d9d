import jax
import jax.numpy as jnp
import numpy as np

from headwater.ops.linear.elliptical import (
    covariance,
    elliptical_bonus,
    elliptical_norm,
    ridge_weights,
)

_RANDOM = np.random.default_rng(3)
_FEATURES = _RANDOM.normal(size=(5, 2, 3)).astype(np.float32)
_TIMES = _RANDOM.integers(0, 4, (5, 2)).astype(np.float32)
_TARGETS = _RANDOM.normal(size=(5, 2)).astype(np.float32)


def _by_hand(times=None):
    sigma = 0.5 * np.eye(3)
    for at in np.ndindex(5, 2):
        sigma += (1.0 if times is None else times[at]) * np.outer(_FEATURES[at], _FEATURES[at])
    return sigma


def test_the_covariance_is_the_sum_of_outer_products():
    for times in (None, _TIMES):
        given = None if times is None else jnp.asarray(times)
        found = covariance(jnp.asarray(_FEATURES), given, ridge=0.5)
        np.testing.assert_allclose(found, _by_hand(times), rtol=1e-5)


def test_norms_and_bonuses_are_those_of_the_inverse():
    sigma = _by_hand(_TIMES)
    expected = np.sqrt(np.einsum("sai,ij,saj->sa", _FEATURES, np.linalg.inv(sigma), _FEATURES))
    features, matrix = jnp.asarray(_FEATURES), jnp.asarray(sigma, jnp.float32)
    np.testing.assert_allclose(elliptical_norm(features, matrix), expected, rtol=1e-4)
    bonus = elliptical_bonus(features, matrix, scale=2.0, highest=0.9)
    np.testing.assert_allclose(bonus, np.minimum(2.0 * expected, 0.9), rtol=1e-4)


def test_with_one_hot_features_the_norm_counts():
    features = jax.nn.one_hot(jnp.arange(4), 4)
    times = jnp.asarray([0.0, 1.0, 3.0, 99.0])
    norm = elliptical_norm(features, covariance(features, times, ridge=1.0))
    np.testing.assert_allclose(norm, 1.0 / np.sqrt([1.0, 2.0, 4.0, 100.0]), rtol=1e-6)


def test_ridge_weights_solve_the_normal_equations():
    for times in (None, _TIMES):
        w = np.ones((5, 2)) if times is None else times
        rows, goals = _FEATURES.reshape(-1, 3), (w * _TARGETS).reshape(-1)
        expected = np.linalg.solve(_by_hand(times), rows.T @ goals)
        found = ridge_weights(
            jnp.asarray(_FEATURES),
            jnp.asarray(_TARGETS),
            jnp.asarray(_by_hand(times), jnp.float32),
            None if times is None else jnp.asarray(times),
        )
        np.testing.assert_allclose(found, expected, rtol=1e-4)
