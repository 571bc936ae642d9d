"""Swing up a pole on a cart and hold it there."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.spaces import Box, Spaces
from headwater.environments.environment import AbstractEnvironment, Step

_STEPS = 100
_SUBSTEP = 0.02
_FASTEST = float("inf")


class SwingUpState(eqx.Module):
    """Position and velocity of the cart, angle from upright and turning of the pole; steps."""

    motion: Float[Array, " 4"]
    time: Int[Array, ""]


class CartPoleSwingUp(AbstractEnvironment):
    """Push a cart to and fro until the pole that hangs from it stands, and keep it standing.

    The dynamics of `CartPole` with a continuous force, held for two of its time steps. Observation:
    position, velocity, cosine and sine of the angle from upright, turning. Reward: from one, with
    the pole upright and the cart in the middle, to zero. No terminal states; 100 steps.

    **Arguments:** `gravity`, `cart_mass`, `pole_mass`, `half_length`: in SI units; `force`: the
    strongest push, in newtons.
    """

    name: ClassVar[str] = "cart-pole-swing-up"
    reference_returns: ClassVar[None] = None

    gravity: float = 9.8
    cart_mass: float = 1.0
    pole_mass: float = 0.1
    half_length: float = 0.5
    force: float = 10.0

    @property
    def spaces(self) -> Spaces:
        reach = (_FASTEST, _FASTEST, 1.0, 1.0, _FASTEST)
        box = Box(tuple(-r for r in reach), reach)
        return Spaces(box, Box((-self.force,), (self.force,)), horizon=_STEPS)

    def reset(self, *, key: PRNGKeyArray):
        near = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        state = SwingUpState(near.at[2].add(jnp.pi), jnp.zeros((), jnp.int32))
        return state, _observe(state.motion)

    def step(self, state: SwingUpState, action: Array, *, key: PRNGKeyArray):
        push = self.force * jnp.clip(action[0], -1.0, 1.0)
        motion = self._moved(self._moved(state.motion, push), push)
        reached = SwingUpState(motion, state.time + 1)
        reward = 0.5 * (1.0 + jnp.cos(motion[2])) * jnp.exp(-0.5 * motion[0] ** 2)
        return reached, Step(_observe(motion), reward, jnp.zeros((), bool), reached.time >= _STEPS)

    def _moved(self, motion: Float[Array, " 4"], push: Float[Array, ""]) -> Float[Array, " 4"]:
        _, velocity, angle, turning = motion
        mass = self.cart_mass + self.pole_mass
        sine, cosine = jnp.sin(angle), jnp.cos(angle)
        lever = self.pole_mass * self.half_length
        drive = (push + lever * turning**2 * sine) / mass
        inertia = self.half_length * (4.0 / 3.0 - self.pole_mass * cosine**2 / mass)
        turn = (self.gravity * sine - cosine * drive) / inertia
        speed_up = drive - lever * turn * cosine / mass
        return motion + _SUBSTEP * jnp.stack([velocity, speed_up, turning, turn])


def _observe(motion: Float[Array, " 4"]) -> Float[Array, " 5"]:
    place, velocity, angle, turning = motion
    return jnp.stack([place, velocity, jnp.cos(angle), jnp.sin(angle), turning])
