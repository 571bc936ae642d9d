"""Compressed gradient descent against NumPy, and against gradient descent."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.records import Completions
from headwater.core.tokens import TokenProblem
from headwater.methods.language.texts.ef21 import EF21
from headwater.networks.token_table import PrefixTable
from headwater.ops.error_feedback import largest, safe_step, told
from headwater.ops.language.tokens import averaged, token_log_probabilities

from ..exact_texts import learn
from ..text_twin import problem, some_texts, update


def _gradients(table, data, workers):
    """Of the loss of each worker's rows, by itself."""
    found = []
    for part in np.split(np.arange(data.tokens.shape[0]), workers):
        rows = Completions(data.tokens[part], data.response[part])

        def loss(network, rows=rows):
            return -averaged(token_log_probabilities(network, rows), rows.response, "token")

        found.append(np.asarray(jax.grad(loss)(table).table, np.float64).ravel())
    return found


@pytest.mark.parity
def test_what_was_not_sent_is_remembered(key):
    """Three rounds, message by message."""
    task, data = problem(), some_texts(6)
    method = EF21(learning_rate=0.3, num_workers=3, message_size=2)
    state = method.init(task, key=key)
    assert isinstance(task.network, PrefixTable)
    x, known = np.asarray(task.network.table, np.float64).ravel(), [0.0, 0.0, 0.0]
    for _ in range(3):
        gradients = _gradients(state.network, data, 3)
        for i, gradient in enumerate(gradients):
            change = gradient - known[i]
            change[np.argsort(-np.abs(change))[2:]] = 0.0
            known[i] = known[i] + change
        x = x - 0.3 * np.mean(known, axis=0)
        state, metrics = update(method, state, data, key)
        network: Any = method.network(state)
        np.testing.assert_allclose(np.ravel(network.table), x, atol=1e-5)
        assert float(metrics["sent_numbers"]) == 6.0


@pytest.mark.equivalence
def test_messages_of_everything_are_gradient_descent(key):
    task, data = problem(), some_texts(6)
    method = EF21(learning_rate=0.5, num_workers=2, message_size=10**6)
    state, metrics = learn(method, task, data, key=key, updates=5)
    network: Any = task.network
    for _ in range(5):
        direction = np.mean(_gradients(network, data, 2), axis=0).reshape(network.table.shape)
        network = jax.tree.map(lambda x, d=direction: x - 0.5 * d, network)
    found: Any = method.network(state)
    np.testing.assert_allclose(found.table, network.table, atol=1e-5)
    np.testing.assert_allclose(metrics["missing_norm"], 0.0, atol=1e-6)


def test_the_largest_numbers_are_kept_and_ties_are_broken():
    vectors = jnp.asarray([[1.0, -3.0, 2.0, 0.5], [2.0, 2.0, -2.0, 2.0]])
    expected = [[0.0, -3.0, 2.0, 0.0], [2.0, 2.0, 0.0, 0.0]]
    np.testing.assert_array_equal(largest(vectors, 2), expected)
    np.testing.assert_array_equal(largest(vectors, 9), vectors)


def test_weights_change_what_is_sent_and_not_the_direction(key):
    gradients = jax.random.normal(key, (4, 3, 5))
    uneven = jnp.asarray([0.5, 0.3, 0.2])
    known, weighted = jnp.zeros((3, 5)), jnp.zeros((3, 5))
    for each in gradients:
        known, plain = told(known, each, jnp.full(3, 1 / 3), 2)
        weighted, direction = told(weighted, each, uneven, 2)
        np.testing.assert_allclose(direction, plain, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(weighted * 3 * uneven[:, None], known, rtol=1e-4, atol=1e-6)
    assert np.abs(np.asarray(weighted - known)).max() > 0.1


def test_the_safe_step():
    """Of everything sent, one over the smoothness; the quadratic mean is never the smaller one."""
    smoothness = jnp.asarray([1.0, 1.0, 4.0])
    assert float(safe_step(smoothness, jnp.asarray(2.0), 1.0)) == pytest.approx(0.5)
    # ξ(1/4) = (1 + √¾)·4 - 1.
    xi = 4.0 * (1.0 + 0.75**0.5) - 1.0
    newer = safe_step(smoothness, jnp.asarray(2.0), 0.25)
    assert float(newer) == pytest.approx(1.0 / (2.0 + 2.0 * xi), rel=1e-5)
    older = safe_step(smoothness, jnp.asarray(2.0), 0.25, "quadratic")
    assert float(older) == pytest.approx(1.0 / (2.0 + 6.0**0.5 * xi), rel=1e-5)


def test_texts_that_cannot_be_divided_are_refused(key):
    task = TokenProblem(PrefixTable(3, 4))
    method = EF21(num_workers=4)
    with pytest.raises(SpecificationError, match="6 texts cannot be divided among 4 workers"):
        method.update(method.init(task, key=key), some_texts(6), key=key)
