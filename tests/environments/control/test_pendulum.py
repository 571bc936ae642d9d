import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from headwater.environments.control.pendulum import Pendulum, PendulumState, swing_up_action
from headwater.environments.interaction import episode_returns, random_action


def test_every_step_is_gymnasiums(key):
    random = np.random.default_rng(0)
    angle = random.uniform(-3.0, 3.0, 200).astype(np.float32)
    velocity = random.uniform(-8.0, 8.0, 200).astype(np.float32)
    action = random.uniform(-1.0, 1.0, (200, 1)).astype(np.float32)
    start = lambda x, v: PendulumState(x, v, jnp.zeros((), jnp.int32))
    step = lambda x, v, a: Pendulum().step(start(x, v), a, key=key)[1]
    ours = jax.jit(jax.vmap(step))(*map(jnp.asarray, (angle, velocity, action)))
    theirs = gymnasium.make("Pendulum-v1").unwrapped
    theirs.reset(seed=0)
    for i in range(200):
        theirs.state = np.array([angle[i], velocity[i]], np.float64)
        shown, reward, *_ = theirs.step(2.0 * action[i])
        np.testing.assert_allclose(ours.observation[i], shown, atol=2e-5)
        np.testing.assert_allclose(ours.reward[i], reward, rtol=1e-5, atol=1e-5)


def test_random_actions_earn_the_reference(key):
    task = Pendulum()
    act = lambda observation, k: random_action(task.spaces, key=k)
    mean = float(jnp.mean(episode_returns(task, act, episodes=500, key=key)))
    # The standard deviation of a return is 294.
    assert abs(mean - task.reference_returns[0]) < 4 * 294 / 500**0.5


def test_the_scripted_expert_swings_up_and_stays(key):
    task = Pendulum()
    returns = episode_returns(task, lambda o, k: swing_up_action(o), episodes=500, key=key)
    # The standard deviation of a return is 85; the optimum is -137.
    assert abs(float(jnp.mean(returns)) + 146.0) < 4 * 85 / 500**0.5
    hanging, upright = jnp.array([-1.0, 0.0, 1.0]), jnp.array([1.0, 0.0, 0.0])
    assert swing_up_action(hanging)[0] == 1.0 and swing_up_action(upright)[0] == 0.0
