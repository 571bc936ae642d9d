import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from headwater.environments.control.cart_pole import CartPole, CartPoleState, balancing_action
from headwater.environments.interaction import episode_returns, random_action


def test_every_step_is_gymnasiums(key):
    random = np.random.default_rng(0)
    motion = random.uniform(-1.0, 1.0, (300, 4)) * [2.6, 3.0, 0.22, 3.0]
    motion = motion.astype(np.float32)
    action = random.integers(0, 2, 300).astype(np.int32)
    start = lambda m: CartPoleState(m, jnp.zeros((), jnp.int32))
    step = lambda m, a: CartPole().step(start(m), a, key=key)[1]
    ours = jax.jit(jax.vmap(step))(jnp.asarray(motion), jnp.asarray(action))
    theirs = gymnasium.make("CartPole-v1").unwrapped
    for i in range(300):
        theirs.reset(seed=0)
        theirs.state = tuple(motion[i].astype(np.float64))
        shown, reward, terminal, *_ = theirs.step(int(action[i]))
        np.testing.assert_allclose(ours.observation[i], shown, rtol=1e-5, atol=1e-5)
        assert (ours.reward[i], ours.terminal[i]) == (reward, terminal)
    assert 50 < int(ours.terminal.sum()) < 250


def test_the_spaces_are_gymnasiums():
    space = gymnasium.make("CartPole-v1").observation_space
    np.testing.assert_allclose(CartPole().spaces.observation.high, space.high, rtol=1e-6)


def test_the_references_are_earned(key):
    task = CartPole()
    act = lambda observation, k: random_action(task.spaces, key=k)
    at_random = episode_returns(task, act, episodes=1000, key=key)
    # The standard deviation of a return is 12.
    assert abs(float(at_random.mean()) - task.reference_returns[0]) < 4 * 12 / 1000**0.5
    expert = episode_returns(task, lambda o, k: balancing_action(o), episodes=200, key=key)
    np.testing.assert_array_equal(expert, np.full(200, task.reference_returns[1]))
