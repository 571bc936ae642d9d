"""Swing up a pendulum and hold it there."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.spaces import Box, Spaces
from headwater.environments.environment import (
    AbstractDrawable,
    AbstractEnvironment,
    Sketch,
    Step,
)


class PendulumState(eqx.Module):
    """Angle from upright, angular velocity and steps taken."""

    angle: Float[Array, ""]
    velocity: Float[Array, ""]
    time: Int[Array, ""]


class Pendulum(AbstractEnvironment, AbstractDrawable):
    """Torque-limited pendulum, the dynamics of Gymnasium's `Pendulum-v1`.

    Observation: cosine and sine of the angle, angular velocity. Reward: minus the squared angle,
    with small costs of velocity and torque. No terminal states; 200 steps.
    The reference returns are those of the default machine.

    **Arguments:** `gravity`, `mass`, `length`: in SI units.
    """

    name: ClassVar[str] = "pendulum"
    # Measured over 4,000 and 1,000 episodes; the expert is dynamic programming on a grid of 201
    # angles, 201 velocities and 21 torques.
    reference_returns: ClassVar[tuple[float, float]] = (-1231.0, -137.0)

    gravity: float = 10.0
    mass: float = 1.0
    length: float = 1.0

    @property
    def spaces(self) -> Spaces:
        return Spaces(Box((-1.0, -1.0, -8.0), (1.0, 1.0, 8.0)), Box((-2.0,), (2.0,)), horizon=200)

    def reset(self, *, key: PRNGKeyArray):
        angle_key, velocity_key = jax.random.split(key)
        state = PendulumState(
            jax.random.uniform(angle_key, (), minval=-jnp.pi, maxval=jnp.pi),
            jax.random.uniform(velocity_key, (), minval=-1.0, maxval=1.0),
            jnp.zeros((), jnp.int32),
        )
        return state, _observe(state)

    def step(self, state: PendulumState, action: Array, *, key: PRNGKeyArray):
        torque = 2.0 * jnp.clip(action[0], -1.0, 1.0)
        angle = (state.angle + jnp.pi) % (2.0 * jnp.pi) - jnp.pi
        cost = angle**2 + 0.1 * state.velocity**2 + 0.001 * torque**2
        swing = 1.5 * self.gravity / self.length * jnp.sin(angle)
        push = 3.0 * torque / (self.mass * self.length**2)
        velocity = jnp.clip(state.velocity + 0.05 * (swing + push), -8.0, 8.0)
        reached = PendulumState(angle + 0.05 * velocity, velocity, state.time + 1)
        terminal, truncated = jnp.zeros((), bool), reached.time >= 200
        return reached, Step(_observe(reached), -cost, terminal, truncated)

    @property
    def view(self) -> tuple[float, float, float, float]:
        reach = 1.25 * self.length
        return (-reach, reach, -reach, reach)

    def sketch(self, state: PendulumState) -> Sketch:
        # Gymnasium counts angles against the clock.
        tip = self.length * jnp.stack([-jnp.sin(state.angle), jnp.cos(state.angle)])
        bob = jnp.append(tip, 0.1 * self.length)
        pivot = jnp.asarray([0.0, 0.0, 0.03 * self.length])
        return Sketch(jnp.stack([jnp.zeros(2), tip])[None], bob[None], pivot[None])

    def observed(self, observation: Float[Array, " 3"]) -> PendulumState:
        cosine, sine, velocity = observation
        return PendulumState(jnp.arctan2(sine, cosine), velocity, jnp.zeros((), jnp.int32))


def _observe(state: PendulumState) -> Array:
    return jnp.stack([jnp.cos(state.angle), jnp.sin(state.angle), state.velocity])


def swing_up_action(observation: Float[Array, " 3"]) -> Float[Array, " 1"]:
    """A scripted expert for `Pendulum`: pumps energy until it is nearly up, then balances.

    It returns -146 on average, where the optimum is -137.
    """
    cosine, sine, velocity = observation
    # Energy that is missing to stand upright, per unit of inertia, for the default machine.
    missing = 15.0 - (0.5 * velocity**2 + 15.0 * cosine)
    direction = jnp.where(jnp.abs(velocity) < 0.01, 1.0, jnp.sign(velocity))
    swing = direction * jnp.clip(missing, -1.0, 1.0)
    balance = -(6.0 * jnp.arctan2(sine, cosine) + 1.2 * velocity)
    return jnp.clip(jnp.where(cosine > 0.92, balance, swing), -1.0, 1.0)[None]
