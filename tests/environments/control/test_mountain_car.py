import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.environments.control.mountain_car import (
    MountainCar,
    MountainCarDiscrete,
    MountainCarState,
    rocking_action,
)
from headwater.environments.interaction import episode_returns, random_action


@pytest.mark.parametrize(
    ("task", "name"),
    [(MountainCar(), "MountainCarContinuous-v0"), (MountainCarDiscrete(), "MountainCar-v0")],
)
def test_every_step_is_gymnasiums(task, name, key):
    random = np.random.default_rng(0)
    position = random.uniform(-1.2, 0.6, 400)
    # Some at the wall and some at the top, moving either way.
    position[:50], position[50:150] = -1.19, random.uniform(0.4, 0.55, 100)
    motion = np.stack([position, random.uniform(-0.07, 0.07, 400)], 1).astype(np.float32)
    if task.spaces.discrete:
        action = random.integers(0, 3, 400).astype(np.int32)
    else:
        action = random.uniform(-1.0, 1.0, (400, 1)).astype(np.float32)
    start = lambda m: MountainCarState(m, jnp.zeros((), jnp.int32))
    step = lambda m, a: task.step(start(m), a, key=key)[1]
    ours = jax.jit(jax.vmap(step))(jnp.asarray(motion), jnp.asarray(action))
    theirs = gymnasium.make(name).unwrapped
    theirs.reset(seed=0)
    for i in range(400):
        theirs.state = motion[i].astype(np.float64)
        given = int(action[i]) if task.spaces.discrete else action[i]
        shown, reward, terminal, *_ = theirs.step(given)
        np.testing.assert_allclose(ours.observation[i], shown, atol=1e-6)
        np.testing.assert_allclose(ours.reward[i], reward, rtol=1e-6)
        assert ours.terminal[i] == terminal
    assert 20 < int(ours.terminal.sum()) < 200


def test_the_references_are_earned(key):
    task = MountainCar()
    act = lambda observation, k: random_action(task.spaces, key=k)
    at_random = episode_returns(task, act, episodes=200, key=key)
    assert abs(float(at_random.mean()) - task.reference_returns[0]) < 1.2
    expert = episode_returns(task, lambda o, k: rocking_action(o), episodes=200, key=key)
    assert abs(float(expert.mean()) - task.reference_returns[1]) < 0.3


def test_the_discrete_car_gets_there_by_rocking(key):
    task = MountainCarDiscrete()
    rock = lambda o, k: (rocking_action(o, 1.0)[0] + 1.0).astype(jnp.int32)
    returns = episode_returns(task, rock, episodes=200, key=key)
    assert float(returns.min()) >= -125.0
    assert float(returns.mean()) < task.reference_returns[1]
