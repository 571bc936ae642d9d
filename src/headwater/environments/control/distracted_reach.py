"""Reaching a point that is not shown, seen through a mixture with what does not matter."""

import functools
import math
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.spaces import Box, Spaces
from headwater.environments.environment import AbstractEnvironment, Step

_REACH, _EDGE = 1.0, 1.2
"""Goals lie within the first of the middle, positions within the second, in each direction."""
_SPEED, _NOISE = 0.12, 0.01
_NEAR = 0.25
"""How near the goal counts as reached."""
_DISTRACTIONS, _HIDDEN = 6, 128


class Mixture(NamedTuple):
    """The two layers through which everything is seen."""

    first: Float[Array, "shown hidden"] | np.ndarray
    second: Float[Array, "hidden observation"] | np.ndarray


class DistractedReachState(eqx.Module):
    """Where the point and the goal are, the distraction, and steps taken."""

    position: Float[Array, " 2"]
    goal: Float[Array, " 2"]
    distraction: Float[Array, " distraction"]
    time: Int[Array, ""]


class DistractedReach(AbstractEnvironment):
    """A point in the plane goes to a goal that its observation does not show.

    An action in [-1, 1]² moves the point by 0.12 times it, with noise of 0.01. Observation: a fixed
    random mixture (one layer of 128 units, then 64 numbers) of the position and of six numbers that
    wander by themselves. Reward: one at the end of the episode, if the point is then within 0.25 of
    the goal.

    **Arguments:** `goal`: of every episode; if none, one is drawn for each; `mixture`: as
    `draw_mixture` returns one; if none, always the same; `persistence`: of the distraction, the
    share that remains of it in a step; its variance is one; `horizon`: steps of an episode.

    Raises `SpecificationError` for a persistence outside of [0, 1] or a horizon below one.
    """

    name: ClassVar[str] = "distracted-reach"
    reference_returns: ClassVar[None] = None

    goal: Float[Array, " 2"] | None = None
    mixture: Mixture | None = None
    persistence: float | Float[Array, ""] = 0.98
    horizon: int = eqx.field(static=True, default=25)

    def __check_init__(self):
        if isinstance(self.persistence, float) and not 0.0 <= self.persistence <= 1.0:
            raise SpecificationError(
                f"{self.name}: persistence = {self.persistence} must lie between 0 and 1"
            )
        if self.horizon < 1:
            raise SpecificationError(f"{self.name}: horizon = {self.horizon} must be at least 1")

    @property
    def spaces(self) -> Spaces:
        size = _HIDDEN // 2
        box = Box((-math.inf,) * size, (math.inf,) * size)
        return Spaces(box, Box((-1.0, -1.0), (1.0, 1.0)), horizon=self.horizon)

    def reset(self, *, key: PRNGKeyArray):
        place_key, goal_key, distraction_key = jax.random.split(key, 3)
        goal = jax.random.uniform(goal_key, (2,), minval=-_REACH, maxval=_REACH)
        state = DistractedReachState(
            jax.random.uniform(place_key, (2,), minval=-_EDGE, maxval=_EDGE),
            goal if self.goal is None else jnp.asarray(self.goal, jnp.float32),
            jax.random.normal(distraction_key, (_DISTRACTIONS,)),
            jnp.zeros((), jnp.int32),
        )
        return state, self._observe(state)

    def step(self, state: DistractedReachState, action: Array, *, key: PRNGKeyArray):
        move_key, wander_key = jax.random.split(key)
        moved = _SPEED * action + _NOISE * jax.random.normal(move_key, (2,))
        position = jnp.clip(state.position + moved, -_EDGE, _EDGE)
        fresh = jnp.sqrt(1.0 - self.persistence**2)
        distraction = self.persistence * state.distraction
        distraction = distraction + fresh * jax.random.normal(wander_key, (_DISTRACTIONS,))
        reached = DistractedReachState(position, state.goal, distraction, state.time + 1)
        over = reached.time >= self.horizon
        near = jnp.linalg.norm(position - state.goal) <= _NEAR
        reward = (over & near).astype(jnp.float32)
        return reached, Step(self._observe(reached), reward, jnp.zeros((), bool), over)

    def _observe(self, state: DistractedReachState) -> Float[Array, " observation"]:
        first, second = _usual_mixture() if self.mixture is None else self.mixture
        shown = jnp.concatenate([2.0 * state.position, state.distraction])
        return jnp.tanh(shown @ jnp.asarray(first)) @ jnp.asarray(second)


def draw_mixture(*, key: PRNGKeyArray) -> Mixture:
    """A random mixture, as which observations show positions and distractions."""
    first_key, second_key = jax.random.split(key)
    return _scaled(
        jax.random.normal(first_key, (2 + _DISTRACTIONS, _HIDDEN)),
        jax.random.normal(second_key, (_HIDDEN, _HIDDEN // 2)),
    )


@functools.cache
def _usual_mixture() -> Mixture:
    random = np.random.default_rng(0)
    first = random.standard_normal((2 + _DISTRACTIONS, _HIDDEN), np.float32)
    return _scaled(first, random.standard_normal((_HIDDEN, _HIDDEN // 2), np.float32))


def _scaled(first, second) -> Mixture:
    return Mixture(1.5 * first / math.sqrt(len(first)), second / math.sqrt(len(second)))


def straight_to_the_goal(state: DistractedReachState) -> Float[Array, " 2"]:
    """The action of who sees the goal: at full speed towards it, slower where it is near."""
    away = state.goal - state.position
    return away / jnp.maximum(jnp.linalg.norm(away), 0.15)
