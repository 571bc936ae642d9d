"""Balance a pole on a cart."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.environment import (
    AbstractDrawable,
    AbstractEnvironment,
    Sketch,
    Step,
)

_FAR = 2.4
_TILTED = 12.0 * 2.0 * jnp.pi / 360.0
_FASTEST = float("inf")


class CartPoleState(eqx.Module):
    """Position and velocity of the cart, angle and angular velocity of the pole; steps taken."""

    motion: Float[Array, " 4"]
    time: Int[Array, ""]


class CartPole(AbstractEnvironment, AbstractDrawable):
    """Push a cart left or right to keep its pole up, the dynamics of Gymnasium's `CartPole-v1`.

    Observation: position, velocity, angle, angular velocity. Reward: one for every step. Terminal
    when the pole falls or the cart leaves the track; 500 steps.

    **Arguments:** `gravity`, `cart_mass`, `pole_mass`, `half_length`: in SI units; `force`: of a
    push, in newtons.
    """

    name: ClassVar[str] = "cart-pole"
    # Measured over 4,000 episodes; the expert is `balancing_action`.
    reference_returns: ClassVar[tuple[float, float]] = (22.5, 500.0)

    gravity: float = 9.8
    cart_mass: float = 1.0
    pole_mass: float = 0.1
    half_length: float = 0.5
    force: float = 10.0

    @property
    def spaces(self) -> Spaces:
        reach = (2.0 * _FAR, _FASTEST, 2.0 * float(_TILTED), _FASTEST)
        return Spaces(Box(tuple(-r for r in reach), reach), Discrete(2), horizon=500)

    def reset(self, *, key: PRNGKeyArray):
        motion = jax.random.uniform(key, (4,), minval=-0.05, maxval=0.05)
        return CartPoleState(motion, jnp.zeros((), jnp.int32)), motion

    def step(self, state: CartPoleState, action: Array, *, key: PRNGKeyArray):
        _, velocity, angle, turning = state.motion
        push = jnp.where(action == 1, self.force, -self.force)
        mass = self.cart_mass + self.pole_mass
        sine, cosine = jnp.sin(angle), jnp.cos(angle)
        lever = self.pole_mass * self.half_length
        drive = (push + lever * turning**2 * sine) / mass
        inertia = self.half_length * (4.0 / 3.0 - self.pole_mass * cosine**2 / mass)
        turn = (self.gravity * sine - cosine * drive) / inertia
        speed_up = drive - lever * turn * cosine / mass
        change = jnp.stack([velocity, speed_up, turning, turn])
        reached = CartPoleState(state.motion + 0.02 * change, state.time + 1)
        terminal = (jnp.abs(reached.motion[0]) > _FAR) | (jnp.abs(reached.motion[2]) > _TILTED)
        truncated = (reached.time >= 500) & ~terminal
        return reached, Step(reached.motion, jnp.ones(()), terminal, truncated)

    @property
    def view(self) -> tuple[float, float, float, float]:
        return (-1.2 * _FAR, 1.2 * _FAR, -0.6, max(1.4, 2.6 * self.half_length))

    def sketch(self, state: CartPoleState) -> Sketch:
        place, _, angle, _ = state.motion
        lean = jnp.stack([jnp.sin(angle), jnp.cos(angle)])
        axle = jnp.stack([place, jnp.zeros(())])
        tip = axle + 2.0 * self.half_length * lean
        left, right = axle + jnp.asarray([-0.3, 0.0]), axle + jnp.asarray([0.3, 0.0])
        down = jnp.asarray([0.0, -0.2])
        track = jnp.asarray([[-_FAR, -0.3], [_FAR, -0.3]])
        ends = [(axle, tip), (left, right), (right, right + down)]
        ends += [(right + down, left + down), (left + down, left)]
        lines = jnp.stack([jnp.stack(pair) for pair in ends])
        wheels = jnp.asarray([[-0.2, -0.25, 0.05], [0.2, -0.25, 0.05]])
        wheels = wheels.at[:, 0].add(place)
        discs = jnp.concatenate([jnp.append(tip, 0.06)[None], wheels])
        return Sketch(jnp.concatenate([lines, track[None]]), discs, jnp.zeros((0, 3)))

    def observed(self, observation: Float[Array, " 4"]) -> CartPoleState:
        return CartPoleState(observation, jnp.zeros((), jnp.int32))


def balancing_action(observation: Float[Array, " 4"]) -> Int[Array, ""]:
    """A scripted expert for `CartPole`: pushes towards the side to which cart and pole lean."""
    lean = observation @ jnp.asarray([0.1, 0.3, 1.0, 0.5])
    return (lean > 0.0).astype(jnp.int32)
