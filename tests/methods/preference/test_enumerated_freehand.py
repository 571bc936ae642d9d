"""FREEHAND over finite sets against NumPy, and how often the truth is kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.hypotheses import FiniteHypotheses
from headwater.methods.preference.enumerated_freehand import EnumeratedFREEHAND

from .logged_preferences import (
    KEY,
    PROCESS,
    TASK,
    log_of,
)


@pytest.mark.parity
def test_likelihood_sets_and_their_coverage():
    rivals = jax.random.normal(jax.random.key(5), (7, 3, 3, 2))
    given = FiniteHypotheses(
        TASK.problem(),
        jnp.concatenate([PROCESS.reward[None], rivals]),
        jnp.stack([PROCESS.transition, jnp.full((3, 3, 2, 3), 1 / 3)]),
    )
    method = EnumeratedFREEHAND(num_iterations=10)

    @jax.jit
    @jax.vmap
    def learned(key):
        data = log_of(30, key)
        return data, method.update(method.init(given, key=key), data, key=key)[0]

    data, state = learned(jax.random.split(KEY, 100))
    assert float(jnp.mean(state.rewards_possible[:, 0] & state.models_possible[:, 0])) > 0.9
    for run in range(3):
        one = jax.tree.map(lambda x, run=run: np.asarray(x[run]), data)
        step, fits = np.arange(3), []
        for reward in np.asarray(given.rewards):
            worth = [
                reward[step, e.state[:, :-1], e.action].sum(1) for e in (one.first, one.second)
            ]
            chance = 1 / (1 + np.exp(worth[1] - worth[0]))
            fits.append(np.log(np.where(one.first_preferred, chance, 1 - chance)).sum())
        kept = np.asarray(fits) >= max(fits) - np.log(2 * 8 / 0.1)
        np.testing.assert_array_equal(state.rewards_possible[run], kept)
