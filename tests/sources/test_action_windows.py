"""Windows around logged actions: within their episodes, of the rows that were asked for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import Agent
from headwater.methods.control.imitation.inverse_dynamics import InverseDynamics
from headwater.sources.action_windows import ActionWindowReplay


def test_windows_stay_in_their_episodes():
    # Two episodes, of rows 0 to 2 and 3 to 5; what follows the last row of each is 100 and 200.
    before = jnp.arange(6.0)[:, None]
    after = jnp.asarray([1.0, 2, 100, 4, 5, 200])[:, None]
    first, last = jnp.asarray([0, 0, 0, 3, 3, 3]), jnp.asarray([2, 2, 2, 5, 5, 5])
    rows = jnp.asarray([1, 3, 5])
    source = ActionWindowReplay(before, after, -before, first, last, rows, history=2, batch_size=64)
    found = source.windows(jnp.arange(6))
    np.testing.assert_array_equal(
        found.observations[..., 0],
        [[0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 100], [3, 3, 3, 4], [3, 3, 4, 5], [3, 4, 5, 200]],
    )
    np.testing.assert_array_equal(found.action, -before)
    ahead = dataclasses.replace(source, history=1, future=2).windows(jnp.arange(6))
    np.testing.assert_array_equal(
        ahead.observations[..., 0],
        [
            [0, 0, 1, 2],
            [0, 1, 2, 100],
            [1, 2, 100, 100],
            [3, 3, 4, 5],
            [3, 4, 5, 200],
            [4, 5, 200, 200],
        ],
    )
    state = source.init(key=jax.random.key(0))
    agent = Agent(InverseDynamics(), None)
    _, drawn = source.draw(state, agent, key=jax.random.key(1))
    assert set(-np.asarray(drawn.action[:, 0])) == {1.0, 3.0, 5.0}
