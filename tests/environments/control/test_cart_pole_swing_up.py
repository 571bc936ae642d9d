import jax
import jax.numpy as jnp
import numpy as np

from headwater.environments.control.cart_pole import CartPole, CartPoleState
from headwater.environments.control.cart_pole_swing_up import CartPoleSwingUp, SwingUpState


def test_it_moves_as_the_cart_pole_does_in_two_steps(key):
    task, other = CartPoleSwingUp(), CartPole()
    motion = jax.random.normal(key, (30, 4))

    def both(motion, push):
        none = jnp.zeros((), jnp.int32)
        reached, step = task.step(SwingUpState(motion, none), push, key=key)
        theirs = CartPoleState(motion, none)
        for _ in range(2):
            theirs, _ = other.step(theirs, (push[0] > 0.0).astype(jnp.int32), key=key)
        return reached.motion, theirs.motion, step

    push = jnp.where(jnp.arange(30) % 2 == 0, 1.0, -1.0)[:, None]
    ours, theirs, step = jax.jit(jax.vmap(both))(motion, push)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    place, velocity, angle, turning = np.asarray(theirs).T
    seen = np.stack([place, velocity, np.cos(angle), np.sin(angle), turning], axis=1)
    np.testing.assert_allclose(step.observation, seen, rtol=1e-5, atol=1e-5)
    worth = (1.0 + np.cos(angle)) / 2.0 * np.exp(-(place**2) / 2.0)
    np.testing.assert_allclose(step.reward, worth, rtol=1e-4, atol=1e-6)
    assert not bool(jnp.any(step.terminal))


def test_it_hangs_at_first(key):
    _, shown = CartPoleSwingUp().reset(key=key)
    assert float(shown[2]) < -0.99
