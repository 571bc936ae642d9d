"""BC, TD3+BC, ReBRAC and AWAC on continuous problems with known answers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.offline.awac import AWAC
from headwater.methods.control.offline.rebrac import ReBRAC
from headwater.methods.control.offline.td3_bc import TD3BC

from .small_problems import bandit, best_action, greedy, trained, values

FIELDS = {"learning_rate": 3e-3, "widths": (32, 32)}
PROBE = jnp.linspace(-0.9, 0.9, 13)[:, None]


@pytest.mark.parametrize(
    "method",
    [TD3BC(alpha=50.0, **FIELDS), ReBRAC(actor_penalty=0.01, **FIELDS)],
    ids=["TD3BC", "ReBRAC"],
)
def test_finds_the_best_action_of_a_one_step_problem(method, key):
    problem, data = bandit(key)
    state = trained(method, problem, data, 1500)
    np.testing.assert_allclose(greedy(method, state, PROBE), best_action(PROBE), atol=0.1)
    error = values(method, state, data) - data.reward
    assert np.sqrt(np.mean(error**2)) < 0.15


@pytest.mark.parametrize(
    "method",
    [TD3BC(alpha=0.0, **FIELDS), ReBRAC(actor_penalty=1e4, **FIELDS), BC(**FIELDS)],
    ids=["TD3BC", "ReBRAC", "BC"],
)
def test_falls_back_on_the_mean_logged_action(method, key):
    # Logged actions are uniform: their mean is 0 everywhere, far from the best action.
    problem, data = bandit(key)
    state = trained(method, problem, data, 300)
    np.testing.assert_allclose(greedy(method, state, PROBE), np.zeros((13, 1)), atol=0.2)


def test_awac_fits_the_weighted_actions(key):
    # Uniform actions weighted by exp(-4 (a - a*)² / λ) are normal with variance λ / 8. The bound on
    # the weights, which the noise in a sampled V reaches, makes it somewhat wider.
    problem, data = bandit(key)
    method = AWAC(temperature=0.2, **FIELDS)
    state = trained(method, problem, data, 1500)
    np.testing.assert_allclose(greedy(method, state, PROBE), best_action(PROBE), atol=0.1)
    spread = np.exp(state.actor.log_std[0]) / np.sqrt(0.2 / 8)
    assert 0.95 < spread < 1.5


def _expert(data):
    return eqx.tree_at(lambda d: d.action, data, best_action(data.observation))


def test_cloning_recovers_a_deterministic_policy(key):
    problem, data = bandit(key)
    method = BC(**FIELDS)
    state = trained(method, problem, _expert(data), 600)
    np.testing.assert_allclose(greedy(method, state, PROBE), best_action(PROBE), atol=0.02)


def test_cloning_recovers_a_density(key):
    problem, data = bandit(key)
    noise = jax.random.normal(key, data.action.shape)
    noisy = jnp.tanh(data.observation + (0.3 + 0.2 * data.observation) * noise)
    data = eqx.tree_at(lambda d: d.action, data, noisy)
    method = BC(likelihood=True, **FIELDS)
    state = trained(method, problem, data, 800)
    policy = state.actor(PROBE)
    np.testing.assert_allclose(policy.mean, PROBE, atol=0.1)
    np.testing.assert_allclose(jnp.exp(policy.log_std), 0.3 + 0.2 * PROBE, atol=0.06)


def test_truncated_rows_bootstrap_and_terminal_rows_do_not(key):
    # One state that follows itself for a reward of 1: worth 1 / (1 - γ) if it goes on.
    problem, data = bandit(key)
    still = jnp.ones_like(data.observation)
    data = eqx.tree_at(
        lambda d: (d.observation, d.next_observation, d.reward),
        data,
        (still, still, jnp.ones_like(data.reward)),
    )
    fields = {"discount": 0.8, "target_rate": 0.05, **FIELDS}
    on = eqx.tree_at(lambda d: (d.terminal, d.truncated), data, (data.truncated, data.terminal))
    for method in (TD3BC(**fields), ReBRAC(critic_penalty=0.5, **fields), AWAC(**fields)):
        for rows, worth in ((data, 1.0), (on, 5.0)):
            state = trained(method, problem, rows, 1500)
            np.testing.assert_allclose(np.mean(values(method, state, rows)), worth, rtol=0.03)
