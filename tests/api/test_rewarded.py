"""Tasks with the reward of a run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import headwater as hw
from headwater.core.errors import SpecificationError
from headwater.environments.learned_reward import RewardedByModel
from headwater.environments.registry import make
from headwater.methods.control.imitation.perceptual_reward import PerceptualReward


def test_a_task_is_acted_in_for_the_learned_reward():
    task = make("pendulum")
    draw = np.random.default_rng(0)
    rows = 40
    data = hw.Dataset.from_arrays(
        draw.normal(size=(rows, 3)), draw.uniform(-2, 2, (rows, 1)), np.zeros(rows),
        np.zeros(rows, bool), np.arange(rows) % 10 == 9, action_low=-2.0, action_high=2.0,
    )  # fmt: skip
    run = hw.train(PerceptualReward(num_features=4), data, seeds=1, progress=False)
    wrapped = hw.rewarded(task, run)
    assert isinstance(wrapped, RewardedByModel) and "learned reward" in wrapped.name
    state, observation = wrapped.reset(key=jax.random.key(0))
    _, step = wrapped.step(state, jnp.zeros(1), key=jax.random.key(1))
    learned_state = jax.tree.map(lambda leaf: leaf[0], run.state)
    expected, _ = run.method.rewards(learned_state, observation, jnp.zeros(1))
    np.testing.assert_allclose(step.reward, expected, rtol=1e-5)
    trained = hw.train(
        hw.SAC(hidden_sizes=(4, 4)), env=wrapped, steps=12, random_steps=4, batch_size=4,
        seeds=1, evaluations=1, episodes=1, progress=False,
    )  # fmt: skip
    assert trained.finished
    with pytest.raises(SpecificationError, match="which learns no rewards: train PerceptualReward"):
        hw.rewarded(task, trained)
    with pytest.raises(SpecificationError, match="does not fit the task: observations have 3"):
        hw.rewarded("cart-pole", run)
    with pytest.raises(SpecificationError, match="is simulated on the host"):
        hw.rewarded("Pendulum-v1", run)


def test_only_what_learns_rewards_rewards_a_task():
    with pytest.raises(SpecificationError, match="SAC learns no rewards: take PerceptualReward"):
        RewardedByModel(make("pendulum"), hw.SAC(), None)
