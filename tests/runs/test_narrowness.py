"""The spread of logged actions about a policy against NumPy, and the recipe that it asks for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.records import Transitions
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.offline.discrete_cql import DiscreteCQL
from headwater.methods.control.offline.iql import IQL
from headwater.runs.recipes.narrowness import NARROW, narrow, recipe_for, spread_of_actions

SEEN = Box((-1.0, -1.0), (1.0, 1.0))


def _log(observation, action) -> Transitions:
    none = jnp.zeros(len(observation), bool)
    return Transitions(observation, action, jnp.zeros(len(observation)), observation, none, none)


def _begun(method, spaces):
    """A state, and what the policy does."""
    state = jax.jit(lambda key: method.init(spaces, key=key))(jax.random.key(0))
    act = lambda o: method.act(state, o, key=jax.random.key(1), explore=False)[0]
    return state, lambda observation: np.asarray(jax.jit(jax.vmap(act))(observation))


def test_spread_is_the_distance_from_what_the_policy_does():
    spaces, method = Spaces(SEEN, Box((-1.0,) * 3, (1.0,) * 3)), BC(hidden_sizes=(8,))
    state, usual = _begun(method, spaces)
    random = np.random.default_rng(0)
    # Of more than 4,096 rows as many are looked at, so that these differ by chance.
    for rows, close in ((500, 1e-4), (9_000, 0.03)):
        observation = jnp.asarray(random.uniform(-1, 1, (rows, 2)), jnp.float32)
        greedy = usual(observation)
        noise = random.normal(size=greedy.shape)
        log = _log(observation, jnp.asarray(greedy + 0.1 * noise, jnp.float32))
        expected = 0.1 * np.sqrt(np.mean(noise**2)) / np.sqrt(1.0 / 3.0)
        assert spread_of_actions(method, state, log, spaces) == pytest.approx(expected, rel=close)
    # Uniform actions about a policy that is near the middle have a spread of one.
    log = _log(observation, jnp.asarray(random.uniform(-1, 1, greedy.shape), jnp.float32))
    about = np.sqrt(1.0 + 3.0 * np.mean(greedy**2))
    assert spread_of_actions(method, state, log, spaces) == pytest.approx(about, rel=0.05)


def test_spread_of_discrete_actions_is_the_share_of_others():
    spaces = Spaces(SEEN, Discrete(4))
    method = BC(hidden_sizes=(8,), stochastic=True)
    state, usual = _begun(method, spaces)
    observation = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (400, 2)), jnp.float32)
    greedy = usual(observation)
    action = np.where(np.arange(400) < 300, greedy, (greedy + 1) % 4)
    found = spread_of_actions(method, state, _log(observation, jnp.asarray(action)), spaces)
    assert found == pytest.approx((100 / 400) / 0.75)


def test_what_has_an_actor_is_held_where_the_log_is_narrow():
    below, above = NARROW - 0.01, NARROW + 0.01
    assert recipe_for(IQL(), below)[0] == "staged" and recipe_for(IQL(), above)[0] == "keep-data"
    assert "a spread of 0.74, where uniform ones have 1" in recipe_for(IQL(), below)[1]
    assert "'proto' and 'staged' hold it" in (narrow(IQL(), below) or "")
    assert narrow(IQL(), above) is None
    # Values alone have nothing that could be held.
    recipe, why = recipe_for(DiscreteCQL(), below)
    assert recipe == "keep-data" and "DiscreteCQL has no actor" in why
    assert narrow(DiscreteCQL(), below) is None
