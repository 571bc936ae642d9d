"""Rock a weak car out of a valley."""

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

_LEFT, _RIGHT, _FASTEST = -1.2, 0.6, 0.07


class MountainCarState(eqx.Module):
    """Position and velocity; steps taken."""

    motion: Float[Array, " 2"]
    time: Int[Array, ""]


class MountainCar(AbstractEnvironment, AbstractDrawable):
    """The dynamics of Gymnasium's `MountainCarContinuous-v0`.

    Observation: position, velocity. Reward: 100 at the top of the hill, minus a tenth of the
    squared throttle. Terminal at the top; 999 steps.

    **Arguments:** `power`: of the engine; `goal`: position of the top.
    """

    name: ClassVar[str] = "mountain-car"
    # Measured over 4,000 and 1,000 episodes; the expert is `rocking_action`.
    reference_returns: ClassVar[tuple[float, float]] = (-33.1, 97.7)

    power: float = 0.0015
    goal: float = 0.45

    @property
    def spaces(self) -> Spaces:
        return Spaces(_ROAD, Box((-1.0,), (1.0,)), horizon=999)

    def reset(self, *, key: PRNGKeyArray):
        return _start(key)

    def step(self, state: MountainCarState, action: Array, *, key: PRNGKeyArray):
        throttle = action[0]
        reached = _roll(state, self.power * jnp.clip(throttle, -1.0, 1.0))
        terminal = _arrived(reached, self.goal)
        reward = jnp.where(terminal, 100.0, 0.0) - 0.1 * throttle**2
        truncated = (reached.time >= 999) & ~terminal
        return reached, Step(reached.motion, reward, terminal, truncated)

    @property
    def view(self) -> tuple[float, float, float, float]:
        return _VIEW

    def sketch(self, state: MountainCarState) -> Sketch:
        return _sketch(state, self.goal)

    def observed(self, observation: Float[Array, " 2"]) -> MountainCarState:
        return MountainCarState(observation, jnp.zeros((), jnp.int32))


class MountainCarDiscrete(AbstractEnvironment, AbstractDrawable):
    """The dynamics of Gymnasium's `MountainCar-v0`: full throttle left, none, full throttle right.

    Observation: position, velocity. Reward: minus one for every step. Terminal at the top; 200
    steps.

    **Arguments:** `power`: of the engine; `goal`: position of the top.
    """

    name: ClassVar[str] = "mountain-car-discrete"
    # Measured over 4,000 and 1,000 episodes; the expert is dynamic programming on a grid of 361
    # positions and 281 velocities (`rocking_action` in three values reaches -119).
    reference_returns: ClassVar[tuple[float, float]] = (-200.0, -97.5)

    power: float = 0.001
    goal: float = 0.5

    @property
    def spaces(self) -> Spaces:
        return Spaces(_ROAD, Discrete(3), horizon=200)

    def reset(self, *, key: PRNGKeyArray):
        return _start(key)

    def step(self, state: MountainCarState, action: Array, *, key: PRNGKeyArray):
        reached = _roll(state, self.power * (action - 1).astype(jnp.float32))
        terminal = _arrived(reached, self.goal)
        truncated = (reached.time >= 200) & ~terminal
        return reached, Step(reached.motion, -jnp.ones(()), terminal, truncated)

    @property
    def view(self) -> tuple[float, float, float, float]:
        return _VIEW

    def sketch(self, state: MountainCarState) -> Sketch:
        return _sketch(state, self.goal)

    def observed(self, observation: Float[Array, " 2"]) -> MountainCarState:
        return MountainCarState(observation, jnp.zeros((), jnp.int32))


def rocking_action(observation: Float[Array, " 2"], throttle: float = 0.3) -> Float[Array, " 1"]:
    """A scripted expert for `MountainCar`: throttle in the direction of travel.

    That adds energy in every step. A gentle throttle costs less in all; below 0.2 it fails.
    """
    return jnp.where(observation[1:] < 0.0, -throttle, throttle)


_VIEW = (_LEFT - 0.05, _RIGHT + 0.05, 0.0, 1.3)
_ROAD = Box((_LEFT, -_FASTEST), (_RIGHT, _FASTEST))


def _start(key: PRNGKeyArray):
    position = jax.random.uniform(key, (), minval=-0.6, maxval=-0.4)
    motion = jnp.stack([position, jnp.zeros(())])
    return MountainCarState(motion, jnp.zeros((), jnp.int32)), motion


def _roll(state: MountainCarState, push: Array) -> MountainCarState:
    position, velocity = state.motion
    velocity = velocity + push - 0.0025 * jnp.cos(3.0 * position)
    velocity = jnp.clip(velocity, -_FASTEST, _FASTEST)
    position = jnp.clip(position + velocity, _LEFT, _RIGHT)
    # The wall on the left stops the car.
    velocity = jnp.where((position <= _LEFT) & (velocity < 0.0), 0.0, velocity)
    return MountainCarState(jnp.stack([position, velocity]), state.time + 1)


def _arrived(state: MountainCarState, goal: float) -> Array:
    return (state.motion[0] >= goal) & (state.motion[1] >= 0.0)


def _height(position: Array) -> Array:
    return 0.45 * jnp.sin(3.0 * position) + 0.55


def _sketch(state: MountainCarState, goal: float) -> Sketch:
    across = jnp.linspace(_LEFT, _RIGHT, 41)
    road = jnp.stack([across, _height(across)], axis=-1)
    foot = jnp.stack([jnp.asarray(goal), _height(jnp.asarray(goal))])
    mast = jnp.stack([foot, foot + jnp.asarray([0.0, 0.2])])
    lines = jnp.concatenate([jnp.stack([road[:-1], road[1:]], axis=1), mast[None]])
    place = state.motion[0]
    car = jnp.stack([place, _height(place) + 0.05, jnp.asarray(0.05)])
    flag = jnp.append(mast[1], 0.03)
    return Sketch(lines, car[None], flag[None])
