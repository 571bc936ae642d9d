"""Acting without rewards: the same rows, and nothing said of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.method import Agent
from headwater.core.records import Transitions
from headwater.environments.registry import make
from headwater.methods.control.imitation.bc import BC
from headwater.sources.acting.unjudged import HostUnjudged, Unjudged, unjudged
from headwater.sources.collect import collect
from headwater.sources.mixed import mixed
from headwater.sources.replay import Replay

SIZES = {"capacity": 20, "batch_size": 6, "steps_per_draw": 2, "random_steps": 6}


def _parts(name):
    task = make(name)
    acting = collect(task, **SIZES)
    method = BC(hidden_sizes=(4,))
    key = jax.random.key(0)
    return acting, method, lambda: method.init(task.spaces, key=key)


def test_the_rows_of_acting_are_the_same_without_their_rewards():
    acting, method, init = _parts("pendulum")
    key, agent = jax.random.key(1), Agent(method, init())
    found = []
    for source in (acting, Unjudged(acting)):
        state = source.prepare(source.init(key=key), agent, key=key)
        state, data = source.draw(state, agent, key=key)
        found.append((data, int(source.environment_steps(state))))
    (seen, steps), (hidden, same_steps) = found
    assert np.isnan(hidden.reward).all() and np.isfinite(seen.reward).all() and steps == same_steps
    for name in ("observation", "action", "next_observation", "terminal", "truncated"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(hidden, name))


@pytest.mark.parametrize("name", ["pendulum", "Pendulum-v1"])
def test_rewards_of_the_log_are_kept(name):
    acting, method, init = _parts(name)
    log = _log()
    source = unjudged(mixed([Replay(log, 3), acting]))
    keys = jax.random.split(jax.random.key(2), 1)
    if name == "pendulum":
        agent = Agent(method, init())
        state = source.prepare(source.init(key=keys[0]), agent, key=keys[0])
        data = source.draw(state, agent, key=keys[0])[1]
    else:
        assert isinstance(source.sources[1], HostUnjudged)
        agent = Agent(method, jax.tree.map(lambda x: x[None], init()))
        state = source.prepare(source.init(keys=keys), agent, keys=keys)
        state, data = source.draw(state, agent, keys=keys)
        assert source.environment_steps(state) == 8
        again = source.load(source.save(state), keys=keys)
        np.testing.assert_array_equal(
            np.asarray(source.draw(state, agent, keys=keys)[1].observation),
            np.asarray(source.draw(again, agent, keys=keys)[1].observation),
        )
        source.close(state)
        source.close(again)
        data = jax.tree.map(lambda x: x[0], data)
    told = ~np.isnan(np.asarray(data.reward))
    assert told.sum() == 3 and told.size == 9
    np.testing.assert_array_equal(np.asarray(data.reward)[told], 7.0)


def _log():
    rows = jnp.zeros(5)
    no = rows > 0
    return Transitions(jnp.zeros((5, 3)), jnp.zeros((5, 1)), rows + 7.0, jnp.zeros((5, 3)), no, no)
