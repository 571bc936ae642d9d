"""SAC-N against NumPy and on problems with known answers."""

import jax
import numpy as np
import pytest

from headwater.methods.control.offline.sac_n import SACN

from ..numpy_twin import (
    ACTION,
    CHOICES,
    batch,
    problem,
    standardised,
    update,
)
from ..soft_problems import (
    SMALL,
    expect_best_action,
    expect_soft_optimum,
)
from ..soft_twin import RATES, SoftTwin, before_the_critics, columns

MEMBERS, ETA = 3, 0.7


@pytest.mark.parity
@pytest.mark.parametrize("discrete", [False, True])
def test_three_updates_of_sac_n(discrete):
    method = SACN(hidden_sizes=(8, 8), num_critics=MEMBERS, normalise_observations=True, **RATES)
    state = method.init(problem(discrete), key=jax.random.key(1))
    twin = SoftTwin(state, discrete, log_std_range=(-5.0, 2.0))
    target_entropy = 0.5 * np.log(CHOICES) if discrete else -ACTION
    for i in range(3):
        data, key = batch(i, discrete), jax.random.key(i)
        state, metrics = update(method, state, data, key=key)
        c = columns(data, standardised)
        y = before_the_critics(twin, state, metrics, c, key, target_entropy, discrete)
        np.testing.assert_allclose(
            metrics["critic_loss"], twin.critic_step(c[0], c[1], y), rtol=1e-5
        )
    twin.expect(state)


@pytest.mark.oracle
def test_soft_optimal_values_and_policy_of_a_chain():
    expect_soft_optimum(SACN, num_critics=3)


@pytest.mark.oracle
def test_the_best_action_of_a_one_step_problem_is_found(key):
    expect_best_action(SACN(num_critics=3, **SMALL), key)
