"""Probabilities of texts, averages, and estimates of divergence whose expectations are listed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import Completions
from headwater.core.tokens import position_mask
from headwater.environments.language.token_process import every_response
from headwater.networks.token_table import PrefixTable
from headwater.ops.language.tokens import (
    averaged,
    divergence_estimate,
    divergence_surrogate,
    lengths,
    next_log_probabilities,
    token_log_probabilities,
)

RESPONSES = every_response(vocabulary=3, new_tokens=2)


def whole(network):
    """Log-probabilities of all nine responses."""
    return jnp.sum(token_log_probabilities(network, RESPONSES.data), axis=-1)[0]


def test_next_log_probabilities_are_a_distribution_at_a_temperature():
    logits = jnp.asarray([[0.0, 2.0, -1.0]], jnp.bfloat16)
    found = next_log_probabilities(logits, 0.5)
    assert found.dtype == jnp.float32
    weights = np.exp([0.0, 4.0, -2.0])
    np.testing.assert_allclose(np.exp(found[0]), weights / weights.sum(), rtol=1e-5)


def test_log_probabilities_of_all_responses_add_up_to_one(key):
    network = PrefixTable(3, 3, key=key)
    assert float(jnp.sum(jnp.exp(whole(network)))) == pytest.approx(1.0, rel=1e-5)


def test_tokens_outside_responses_have_no_log_probability(key):
    network = PrefixTable(3, 4, key=key)
    tokens = jnp.asarray([[2, 0, 1, 1], [0, 1, 2, 0]], jnp.int32)
    mask = position_mask(jnp.asarray([1, 2]), jnp.asarray([3, 3]), 4)
    data = Completions(tokens, mask)
    found = np.asarray(token_log_probabilities(network, data, 2.0))
    np.testing.assert_array_equal(found != 0.0, mask)
    np.testing.assert_array_equal(lengths(data), [2, 1])
    row = network.logits(tokens)[0, 1] / 2.0
    np.testing.assert_allclose(found[0, 2], jax.nn.log_softmax(row)[1], rtol=1e-5)
    # What stands in padding changes nothing.
    other = token_log_probabilities(network, Completions(tokens.at[:, 3].set(1), mask), 2.0)
    np.testing.assert_array_equal(other, found)


def test_averages_differ_in_how_long_responses_count():
    values = jnp.asarray([[1.0, 9.0, 9.0], [2.0, 4.0, 6.0]])
    mask = jnp.asarray([[True, False, False], [True, True, True]])
    assert float(averaged(values, mask, "token")) == pytest.approx(13 / 4)
    assert float(averaged(values, mask, "sequence")) == pytest.approx((1 + 4) / 2)
    assert float(averaged(values, mask, "constant", 5.0)) == pytest.approx((1 + 12) / 2 / 5)
    nothing = jnp.zeros_like(mask)
    for by in ("token", "sequence", "constant"):
        assert float(averaged(values, nothing, by)) == 0.0


@pytest.mark.parametrize("estimator, unbiased", [("k1", True), ("k2", False), ("k3", True)])
def test_what_estimates_of_the_divergence_are_on_average(estimator, unbiased, key):
    policy, reference = PrefixTable(3, 3, key=key), PrefixTable(3, 3)
    own, other = whole(policy), whole(reference)
    exact = float(jnp.sum(jnp.exp(own) * (own - other)))
    mean = float(jnp.sum(jnp.exp(own) * divergence_estimate(own - other, estimator)))
    assert (mean == pytest.approx(exact, rel=1e-4)) is unbiased


def test_gradients_of_the_divergence_on_average(key):
    """With samples held fixed: k1 has none, k3 the other divergence's, the surrogate the right."""
    policy, reference = PrefixTable(3, 3, key=key), PrefixTable(3, 3, key=jax.random.key(3))
    fixed, other = jnp.exp(whole(policy)), whole(reference)

    def gradient(value):
        return eqx.filter_grad(lambda network: jnp.sum(value(whole(network))))(policy).table

    reverse = gradient(lambda own: jnp.exp(own) * (own - other))
    forward = gradient(lambda own: jnp.exp(other) * (other - own))
    assert float(jnp.max(jnp.abs(reverse - forward))) > 0.01

    def sampled(loss):
        return gradient(lambda own: fixed * loss(own))

    k1 = sampled(lambda own: divergence_estimate(own - other, "k1"))
    np.testing.assert_allclose(k1, jnp.zeros_like(k1), atol=1e-6)
    k3 = sampled(lambda own: divergence_estimate(own - other, "k3"))
    np.testing.assert_allclose(k3, forward, atol=1e-6)
    right = sampled(lambda own: divergence_surrogate(own, other))
    np.testing.assert_allclose(right, reverse, atol=1e-6)
