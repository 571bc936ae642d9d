"""One step at a time out of an environment."""

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import Agent
from headwater.environments.control.cart_pole import CartPole
from headwater.methods.control.streaming.stream_td import StreamTD
from headwater.sources.rollout import Stream


def _push_right(observation, key):
    return jnp.ones((), jnp.int32)


def test_steps_follow_each_other_and_episodes_begin_anew():
    source, environment = Stream(CartPole(), act=_push_right), CartPole()
    method = StreamTD(hidden_sizes=())
    agent = Agent(method, method.init(environment.spaces, key=jax.random.key(0)))
    state = source.init(key=jax.random.key(1))
    draw = jax.jit(lambda state, key: source.draw(state, agent, key=key))
    rows = []
    for i in range(40):
        state, row = draw(state, jax.random.key(i))
        assert row.reward.shape == () and row.observation.shape == (4,)
        rows.append(row)
    assert int(source.environment_steps(state)) == 40
    over = [bool(row.terminal | row.truncated) for row in rows]
    assert 2 <= sum(over) <= 5, "a pole that is pushed to one side falls within a dozen steps"
    for row, following, ended in zip(rows, rows[1:], over):
        joined = np.array_equal(row.next_observation, following.observation)
        assert joined is not ended
        assert not ended or np.all(np.abs(following.observation) <= 0.05)
    assert all(int(row.action) == 1 for row in rows)
