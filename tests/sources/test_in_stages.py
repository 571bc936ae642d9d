"""Stages of several episodes against the returns of all rows at once."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import Agent
from headwater.environments.control.pendulum import Pendulum
from headwater.methods.control.imitation.bc import BC
from headwater.sources.acting.in_stages import InStages, in_stages
from headwater.sources.collect import Collect

BLOCK, DRAWS, EPISODE, LEAST = 100, 48, 200, 3


def test_a_stage_waits_for_so_many_episodes():
    environment, method = Pendulum(), BC(hidden_sizes=(4,), stochastic=True)
    sizes = {"capacity": BLOCK * DRAWS, "batch_size": 2, "steps_per_draw": BLOCK}
    source = in_stages(Collect(environment, random_steps=0, **sizes), 1, LEAST)
    assert isinstance(source, InStages)

    @jax.jit
    def act(key):
        agent = Agent(method, method.init(environment.spaces, key=key))
        begun = source.prepare(source.init(key=key), agent, key=key)

        def one(at, i):
            at, data = source.draw(at, agent, key=jax.random.fold_in(key, i))
            return at, jnp.any(data.passed)

        return jax.lax.scan(one, begun, jnp.arange(DRAWS))

    (collecting, _), passed = act(jax.random.key(0))
    reward = np.asarray(collecting.ring.data.reward)
    means = reward.reshape(-1, LEAST * EPISODE).sum(1) / LEAST
    expected, best = np.zeros(DRAWS, bool), -np.inf
    for i, mean in enumerate(means):
        if mean >= best:
            best, expected[(i + 1) * LEAST * EPISODE // BLOCK - 1] = mean, True
    assert np.asarray(passed).tolist() == expected.tolist()
    assert 1 < expected.sum() < len(means)
