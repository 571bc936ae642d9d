"""The soft actor-critic family on problems with known answers."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.spaces import Box, Spaces
from headwater.methods.control.offline.cal_ql import CalQL
from headwater.methods.control.offline.cql import CQL
from headwater.methods.control.offline.edac import EDAC
from headwater.methods.control.offline.sac_n import SACN
from headwater.methods.control.online.rlpd import RLPD
from headwater.methods.control.online.sac import SAC
from headwater.ops.control.ensemble import slope_similarity

from .small_problems import (
    CHAIN_NEXT,
    CHAIN_REWARD,
    CHAIN_STATES,
    DISCOUNT,
    bandit,
    best_action,
    chain,
    greedy,
    trained,
    values,
)

ALPHA = 0.3
RATES = {
    "actor_learning_rate": 3e-3,
    "critic_learning_rate": 3e-3,
    "temperature_learning_rate": 3e-3,
}
PROBE = jnp.linspace(-0.9, 0.9, 13)[:, None]


def _soft_optimum() -> np.ndarray:
    """Q of the best policy on the chain that is paid α per nat of entropy, by value iteration."""
    q = np.zeros((CHAIN_STATES, 2))
    for _ in range(500):
        value = ALPHA * np.log(np.sum(np.exp(q / ALPHA), -1))
        following = DISCOUNT * value[CHAIN_NEXT]
        following[CHAIN_STATES - 1, 1] = 0.0
        q = CHAIN_REWARD + following
    return q


@eqx.filter_jit
def _log_probabilities(method, state, data):
    return jax.vmap(lambda o, a: method.log_probability(state, o, a))(data.observation, data.action)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (SAC, {}),
        (RLPD, {"members": 3, "critic_updates": 2, "layer_norm": "none"}),
        (SACN, {"members": 3}),
    ],
    ids=["SAC", "RLPD", "SACN"],
)
def test_soft_optimal_values_and_policy_of_a_chain(method, options):
    fields = {
        **RATES,
        "temperature_learning_rate": 0.0,
        "initial_temperature": ALPHA,
        "discount": DISCOUNT,
        "target_rate": 0.05,
        "widths": (32,),
    }
    learner = method(**fields, **options)
    problem, data = chain()
    # Every row twice, so that each half of the batch, which RLPD cuts it into, holds all.
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), data)
    state = trained(learner, problem, twice, 2500)
    expected = _soft_optimum()
    learned = np.asarray(values(learner, state, data)).reshape(CHAIN_STATES, 2)
    np.testing.assert_allclose(learned, expected, atol=0.02)
    policy = np.exp(_log_probabilities(learner, state, data)).reshape(CHAIN_STATES, 2)
    wished = np.exp(expected / ALPHA)
    np.testing.assert_allclose(policy, wished / wished.sum(-1, keepdims=True), atol=0.02)


def test_the_temperature_finds_the_wished_entropy():
    problem, data = chain()
    method = SAC(discount=DISCOUNT, target_rate=0.05, widths=(32,), **RATES)
    state = trained(method, problem, data, 2500)
    p = np.exp(_log_probabilities(method, state, data))
    # Every action of every state is one row, so the sum over rows is over both.
    entropy = -np.sum(p * np.log(p)) / CHAIN_STATES
    np.testing.assert_allclose(entropy, 0.5 * np.log(2), atol=0.02)


SMALL = {"widths": (32, 32), "target_entropy": -2.0, **RATES}


@pytest.mark.parametrize(
    "method",
    [
        SAC(**SMALL),
        RLPD(members=3, critic_updates=1, **SMALL),
        SACN(members=3, **SMALL),
        EDAC(members=3, diversity=0.1, **SMALL),
        CQL(conservative_weight=0.01, proposals=2, **SMALL),
    ],
    ids=["SAC", "RLPD", "SACN", "EDAC", "CQL"],
)
def test_best_action_of_a_one_step_problem(method, key):
    problem, data = bandit(key, rows=256)
    state = trained(method, problem, data, 1500)
    np.testing.assert_allclose(greedy(method, state, PROBE), best_action(PROBE), atol=0.12)
    error = values(method, state, data) - data.reward
    assert np.sqrt(np.mean(error**2)) < 0.2


def _narrow(key):
    """A one-step problem whose log holds small actions only, with and without returns."""
    problem, data = bandit(key, rows=256)
    data = eqx.tree_at(lambda d: d.action, data, 0.3 * data.action)
    reward = -4.0 * jnp.sum((data.action - best_action(data.observation)) ** 2, axis=-1)
    return problem, dataclasses.replace(data, reward=reward, return_to_go=reward)


def test_conservative_values_prefer_logged_actions(key):
    problem, data = _narrow(key)
    gaps = {}
    # Every logged observation again, with an action at the edge of the box.
    far = eqx.tree_at(lambda d: d.action, data, jnp.sign(data.action))
    for weight in (0.0, 1.0):
        method = CQL(conservative_weight=weight, proposals=4, **SMALL)
        state = trained(method, problem, data, 600)
        gaps[weight] = float(
            jnp.mean(values(method, state, data)) - jnp.mean(values(method, state, far))
        )
        np.testing.assert_array_less(np.abs(greedy(method, state, PROBE)), 1.0)
    assert gaps[1.0] > max(0.0, gaps[0.0] + 0.5), gaps


def test_calibration_keeps_values_above_the_logged_returns(key):
    problem, data = _narrow(key)
    believed = {}
    for name, method in (
        ("CQL", CQL(conservative_weight=5.0, proposals=4, **SMALL)),
        ("Cal-QL", CalQL(conservative_weight=5.0, proposals=4, **SMALL)),
    ):
        state = trained(method, problem, data, 600)
        chosen = greedy(method, state, data.observation)
        of_policy = values(method, state, eqx.tree_at(lambda d: d.action, data, chosen))
        believed[name] = float(jnp.mean(of_policy))
    logged = float(jnp.mean(data.reward))
    assert believed["CQL"] < logged - 0.05 and believed["Cal-QL"] > logged, (believed, logged)


def test_diversity_turns_the_critics_slopes_apart(key):
    # Two components of the action: slopes along a line cannot turn.
    problem = Spaces(Box((-1.0,), (1.0,)), Box((-1.0,) * 2, (1.0,) * 2))
    _, data = bandit(key, rows=128)
    action = jax.random.uniform(key, (128, 2), minval=-1.0, maxval=1.0)
    reward = -jnp.sum(action**2, axis=-1)
    data = dataclasses.replace(data, action=action, reward=reward, next_action=None)
    similar = {}
    for diversity in (0.0, 1.0):
        method = EDAC(members=3, diversity=diversity, **SMALL)
        state = trained(method, problem, data, 400)

        def slopes(critic):
            return jax.grad(lambda a: jnp.sum(critic(data.observation, a)))(data.action)

        similar[diversity] = float(jnp.mean(slope_similarity(state.critics.each(slopes))))
    assert similar[0.0] > 2.0 and similar[1.0] < similar[0.0] - 1.0, similar
