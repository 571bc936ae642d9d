"""NovelD against its formula, and on what it has seen often."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.control.exploration.count_bonus import CountBonus
from headwater.methods.control.exploration.novel_d import NovelD

from .walks import INNER, SPACES, paid, steps

_PLAIN = {"inner": INNER, "scale_bonus": False, "embedding_size": 5, "hidden_sizes": (8,)}


def _forward(network, x):
    for i, (weight, bias) in enumerate(zip(network.weights, network.biases)):
        x = x @ np.asarray(weight) + np.asarray(bias)
        x = np.maximum(x, 0.0) if i < len(network.weights) - 1 else x
    return x


@pytest.mark.parity
@pytest.mark.parametrize("left_weight", [0.0, 0.5])
def test_bonuses_are_differences_of_errors_at_first_visits(left_weight):
    method = NovelD(**_PLAIN, left_weight=left_weight, learning_rate=0.0)
    memory = method.init(SPACES, key=jax.random.key(0)).memory

    def new(x):
        x = np.asarray(x)
        return np.linalg.norm(_forward(memory.predictor, x) - _forward(memory.target, x))

    first, _ = paid(CountBonus(inner=INNER, bonus="episodic", scale_bonus=False), steps())
    expected = [
        one * max(new(step.next_observation) - left_weight * new(step.observation), 0.0)
        for one, step in zip(first, steps())
    ]
    found, _ = paid(method, steps())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert 0 < np.count_nonzero(expected) < len(expected)


@pytest.mark.oracle
def test_what_was_seen_often_is_not_new():
    method = NovelD(
        **_PLAIN, left_weight=0.0, first_visits=False, learning_rate=3e-3, novelty_columns=(1,)
    )
    step = eqx.tree_at(lambda s: s.next_observation, steps()[0], jnp.asarray([9.0, 0.0]))
    found, state = paid(method, [step] * 400)
    assert found[-1] < 0.1 * found[0]
    other = eqx.tree_at(lambda s: s.next_observation, step, jnp.asarray([9.0, 3.0]))
    _, metrics = method.update(state, other, key=jax.random.key(0))
    assert float(metrics["paid"]) > 3.0 * found[-1]
