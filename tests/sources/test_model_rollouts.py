"""Rollouts in a model: from logged states, as far as they go, with what follows the last step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.method import Agent
from headwater.core.records import ModelStep
from headwater.core.spaces import Box, Spaces
from headwater.methods.control.offline.sac_n import SACN
from headwater.sources.model_rollouts import AbstractModel, ModelRollouts

SPACES = Spaces(Box((-9.0,), (9.0,)), Box((-1.0,), (1.0,)))


class Counting(AbstractModel):
    """Every step adds one; nothing follows from `end` on. The reward is where it was."""

    end: float

    def step(self, observation, action, *, key):
        following = observation + 1.0
        return ModelStep(following, observation[0], following[0] >= self.end)


def rows_of(source, draws=1):
    method = SACN(hidden_sizes=(4,), num_critics=2)
    agent = Agent(method, method.init(SPACES, key=jax.random.key(0)))
    state = source.init(key=jax.random.key(1))
    for i in range(draws):
        state, drawn = source.draw(state, agent, key=jax.random.key(i))
    seen = min(int(state.written), state.capacity)
    return state, jax.tree.map(lambda x: np.asarray(x)[:seen], state.data), drawn


def test_rollouts_go_on_from_logged_states_until_nothing_follows():
    source = ModelRollouts(
        Counting(12.0), SPACES, jnp.asarray([[0.0], [10.0]]), rollout_steps=3, rollouts=16
    )
    _, rows, drawn = rows_of(source)
    place = rows.observation[:, 0]
    np.testing.assert_array_equal(rows.next_observation[:, 0], place + 1)
    np.testing.assert_array_equal(rows.reward, place)
    # From 0: three steps, of which the last is truncated. From 10: two, of which the last is the
    # end, and what the model says beyond it is no row.
    assert set(place) == {0.0, 1.0, 2.0, 10.0, 11.0}
    np.testing.assert_array_equal(rows.truncated, place == 2)
    np.testing.assert_array_equal(rows.terminal, place == 11)
    for first, second in ((0, 1), (1, 2), (10, 11)):
        assert np.sum(place == first) == np.sum(place == second) > 0
    assert np.sum(place == 0) + np.sum(place == 10) == 16
    assert drawn.reward.shape == (256,) and set(np.asarray(drawn.observation[:, 0])) <= set(place)
    assert np.ptp(rows.action) > 0.1, "the policy does not explore"


def test_a_known_continuation_ends_rollouts_that_are_cut():
    source = ModelRollouts(
        Counting(12.0),
        SPACES,
        jnp.asarray([[0.0], [10.0]]),
        rollout_steps=3,
        rollouts=16,
        continuation=lambda observation: 100.0 * observation[0],
    )
    _, rows, _ = rows_of(source)
    place = rows.observation[:, 0]
    np.testing.assert_array_equal(rows.reward, np.where(place == 2, 2.0 + 300.0, place))
    np.testing.assert_array_equal(rows.terminal, (place == 2) | (place == 11))
    assert not rows.truncated.any()


def test_old_rollouts_are_forgotten():
    source = ModelRollouts(
        Counting(99.0), SPACES, jnp.zeros((1, 1)), rollout_steps=2, rollouts=4, kept=3
    )
    state, rows, _ = rows_of(source, draws=5)
    assert state.capacity == rows.reward.size == 24 and int(state.written) == 40
    with pytest.raises(SpecificationError, match="ModelRollouts: rollouts = 0 must be at least 1"):
        ModelRollouts(Counting(1.0), SPACES, jnp.zeros((1, 1)), rollouts=0)
