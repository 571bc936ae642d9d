"""MOPO against SAC on the same rows, and its penalty against NumPy."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.model_based.dynamics_ensemble import DynamicsEnsemble
from headwater.methods.control.model_based.mopo import MOPO
from headwater.methods.control.online.sac import SAC

from .. import identities
from ..numpy_twin import STD, batch, leaves, problem, standardised, update

MODEL = DynamicsEnsemble(hidden_sizes=(5,), num_members=3, num_elites=2)
PLAIN = {"reward_scale": 1.0, "initial_level": "zero", "dynamics": MODEL}
SETTINGS = {"hidden_sizes": (8, 8), **identities.RATES}


@pytest.mark.equivalence("SAC")
@pytest.mark.parametrize("discrete", [False, True])
def test_on_given_rows_mopo_is_soft_actor_critic(discrete):
    mopo, sac = MOPO(**PLAIN, **SETTINGS), SAC(**SETTINGS)
    state = identities.begin(mopo, identities.problem(discrete))
    batches = identities.batch(0, discrete), identities.batch(1, discrete)
    found = identities.learn(mopo, state, *batches)
    identities.expect_same(found.learner, identities.learn(sac, state.learner, *batches))
    identities.expect_same(found.model, state.model)


@eqx.filter_jit
def imagined(method, state, observation, action):
    return method.imagine(state, observation, action, key=jax.random.key(4)).reward


@pytest.mark.parity
def test_a_reward_of_a_rollout_is_paid_less_the_largest_spread_or_distance():
    data = batch(0, False)
    state = identities.begin(MOPO(**PLAIN, **SETTINGS), problem(False))
    observation, action = data.observation[0], data.action[0]
    s = standardised(observation)
    means, spreads = [], []
    for member in range(3):
        first, last, first_bias, last_bias = (
            leaf[member] for leaf in leaves(state.model.networks.members)
        )
        hidden = np.concatenate([s, np.asarray(action, np.float64)]) @ first + first_bias
        out = hidden / (1.0 + np.exp(-hidden)) @ last + last_bias
        raw = 0.5 - np.logaddexp(0.0, 0.5 - out[4:8])
        log_variance = -10.0 + np.logaddexp(0.0, raw + 10.0)
        # In the units of the log: those of rewards are 1.
        unit = np.append(STD + 1e-3, 1.0)
        means.append(out[:3] * unit[:3])
        spreads.append(np.linalg.norm(np.exp(0.5 * log_variance) * unit))
    apart = np.linalg.norm(np.stack(means) - np.mean(means, 0), axis=-1)
    for uncertainty, expected in (("spread", max(spreads)), ("disagreement", max(apart))):
        rewards = [
            imagined(
                MOPO(penalty_weight=weight, uncertainty=uncertainty, **PLAIN, **SETTINGS),
                state,
                observation,
                action,
            )
            for weight in (0.0, 2.0)
        ]
        np.testing.assert_allclose(rewards[0] - rewards[1], 2.0 * expected, rtol=1e-4)


@pytest.mark.oracle
def test_rows_beyond_the_data_are_counted():
    method = MOPO(**PLAIN, **SETTINGS)
    state = identities.begin(method, identities.problem())
    # As if members had always agreed on held-out rows.
    agreed = dataclasses.replace(
        state.model, disagreement=jnp.asarray([-9.0, 81.0]), batches=jnp.asarray(5)
    )
    state = method.with_model(state, agreed)
    _, metrics = update(method, state, identities.batch(0), key=jax.random.key(0))
    assert metrics["beyond_data"] == 1.0


def test_what_learns_the_model_has_to_learn_dynamics():
    with pytest.raises(SpecificationError, match=r"MOPO.dynamics = BC\(.*such as DynamicsEnsemble"):
        identities.begin(MOPO(dynamics=BC(), **SETTINGS), identities.problem())
