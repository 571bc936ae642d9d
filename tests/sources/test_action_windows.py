"""Windows around logged actions: within their episodes, of the rows that were asked for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.method import Agent
from headwater.datasets.dataset import Dataset
from headwater.methods.control.imitation.inverse_dynamics import InverseDynamics
from headwater.runs.feeds.logged import windows_of
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


def test_later_observations_end_where_nothing_more_was_observed():
    # What stands behind terminal rows (90) is no observation of the episode.
    data = Dataset.from_arrays(
        np.arange(6.0)[:, None],
        np.zeros(6, int),
        np.zeros(6),
        np.asarray([0, 0, 1, 0, 0, 1], bool),
        next_observations=np.asarray([1.0, 2, 90, 4, 5, 90])[:, None],
        action_count=2,
    )
    found = windows_of(data, np.arange(6), history=0, future=3).windows(jnp.arange(6))
    np.testing.assert_array_equal(
        found.observations[..., 0],
        [[0, 1, 2, 2], [1, 2, 2, 2], [2, 90, 90, 90], [3, 4, 5, 5], [4, 5, 5, 5], [5, 90, 90, 90]],
    )
    cut = dataclasses.replace(data, terminals=np.zeros(6, bool), truncations=data.terminals)
    found = windows_of(cut, np.arange(6), history=0, future=3).windows(jnp.arange(6))
    np.testing.assert_array_equal(found.observations[:2, :, 0], [[0, 1, 2, 90], [1, 2, 90, 90]])
