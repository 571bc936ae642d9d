"""RAVL against EDAC on the same rows, and its rollouts against its model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.method import Agent
from headwater.methods.control.model_based.dynamics_ensemble import DynamicsEnsemble
from headwater.methods.control.model_based.ravl import RAVL
from headwater.methods.control.offline.edac import EDAC
from headwater.sources.model_rollouts import ModelRollouts

from .. import identities

MODEL = DynamicsEnsemble(hidden_sizes=(5,), num_members=3, num_elites=2)


@pytest.mark.equivalence("EDAC")
def test_on_given_rows_ravl_is_edac():
    ravl, edac = RAVL(dynamics=MODEL, **identities.SETTINGS), EDAC(**identities.SETTINGS)
    state = identities.begin(ravl, identities.problem())
    batches = identities.batch(0), identities.batch(1)
    found = identities.learn(ravl, state, *batches)
    identities.expect_same(found.learner, identities.learn(edac, state.learner, *batches))


@pytest.mark.oracle
def test_rollouts_follow_the_learned_model_and_its_rewards():
    method = RAVL(dynamics=MODEL, **identities.SETTINGS)
    agent = Agent(method, identities.begin(method, identities.problem()))
    source = ModelRollouts(
        None, identities.problem(), jnp.ones((4, 3)), rollout_steps=2, rollouts=8, kept=1
    )
    draw = jax.jit(lambda key: source.draw(source.init(key=key), agent, key=key)[1])
    rows = draw(jax.random.key(1))
    # Every step is a draw of some elite: within a few deviations of what it expects.
    elites = jnp.argsort(agent.state.model.error)[: MODEL.num_elites]
    ask = jax.jit(jax.vmap(lambda o, a: MODEL._answers(agent.state.model, o, a)))
    found, unit = ask(rows.observation, rows.action)
    change = jnp.concatenate(
        [rows.next_observation - rows.observation, rows.reward[:, None]], axis=-1
    )
    apart = np.abs(change[:, None] / unit[:, None] - found.mean[:, elites])
    deviations = apart / np.exp(0.5 * found.log_variance[:, elites])
    assert np.all(deviations.max(-1).min(-1) < 5.0)
