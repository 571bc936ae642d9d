"""Steer a point through a U-shaped maze."""

import itertools
import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from headwater.core.spaces import Box, Spaces
from headwater.environments.environment import (
    AbstractDrawable,
    AbstractEnvironment,
    Sketch,
    Step,
)

# A square room, [-1, 1] in both directions. One wall starts at its left side and leaves a gap on
# the right, so that the way from the lower to the upper half bends like a U.
_WALL_TIP, _WALL_HALF = 0.4, 0.15
_START = (-0.7, -0.6)
_GOAL = (-0.7, 0.6)
_SPREAD, _GOAL_RADIUS = 0.15, 0.2
_TIME_STEP, _PUSH, _DRAG = 0.1, 1.2, 2.0
_FASTEST = _PUSH / _DRAG
_HORIZON = 200
_GAP_TO_GOAL = math.hypot(_WALL_TIP - _GOAL[0], _GOAL[1] - _WALL_HALF)


class PointMazeState(eqx.Module):
    """Where the point is and how it moves; steps taken."""

    position: Float[Array, " 2"]
    velocity: Float[Array, " 2"]
    time: Int[Array, ""]


class PointMaze(AbstractEnvironment, AbstractDrawable):
    """A point mass with drag in a maze; forces along both axes, walls that stop it.

    Starts lie in the lower left corner, the goal in the upper left one, and the only way leads
    round the wall between them. Observation: position, velocity. Reward: one for every step within
    the goal. 200 steps. The reference returns are those of the default reward.

    **Arguments:** `dense`: cost of one unit of distance, along the way round the wall, for every
    step; `ends_at_goal`: whether the goal is terminal, so that the reward of one comes once.
    """

    name: ClassVar[str] = "point-maze"
    # Measured over 4,000 episodes; the expert is `waypoint_action`.
    reference_returns: ClassVar[tuple[float, float]] = (0.0, 141.5)

    dense: float = 0.0
    ends_at_goal: bool = eqx.field(static=True, default=False)

    @property
    def spaces(self) -> Spaces:
        reach = (1.0, 1.0, _FASTEST, _FASTEST)
        box = Box(tuple(-r for r in reach), reach)
        return Spaces(box, Box((-1.0, -1.0), (1.0, 1.0)), horizon=_HORIZON)

    def reset(self, *, key: PRNGKeyArray):
        offset = jax.random.uniform(key, (2,), minval=-_SPREAD, maxval=_SPREAD)
        position, at_rest = jnp.asarray(_START) + offset, jnp.zeros(2)
        state = PointMazeState(position, at_rest, jnp.zeros((), jnp.int32))
        return state, _observe(state)

    def step(self, state: PointMazeState, action: Array, *, key: PRNGKeyArray):
        force = _PUSH * jnp.clip(action, -1.0, 1.0)
        velocity = state.velocity + _TIME_STEP * (force - _DRAG * state.velocity)
        position, velocity = _move(state.position, velocity)
        reached = PointMazeState(position, velocity, state.time + 1)
        there = jnp.linalg.norm(position - jnp.asarray(_GOAL)) <= _GOAL_RADIUS
        reward = there.astype(jnp.float32) - self.dense * distance_to_goal(position)
        terminal = there & self.ends_at_goal
        truncated = (reached.time >= _HORIZON) & ~terminal
        return reached, Step(_observe(reached), reward, terminal, truncated)

    @property
    def view(self) -> tuple[float, float, float, float]:
        return (-1.1, 1.1, -1.1, 1.1)

    def sketch(self, state: PointMazeState) -> Sketch:
        room = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0)]
        half = _WALL_HALF
        wall = [(-1.0, -half), (_WALL_TIP, -half), (_WALL_TIP, half), (-1.0, half)]
        edges = [*itertools.pairwise(room), *itertools.pairwise(wall)]
        point = jnp.append(state.position, 0.06)
        goal = jnp.asarray([*_GOAL, _GOAL_RADIUS])
        return Sketch(jnp.asarray(edges), point[None], goal[None])

    def observed(self, observation: Float[Array, " 4"]) -> PointMazeState:
        return PointMazeState(observation[:2], observation[2:], jnp.zeros((), jnp.int32))


def waypoint_action(observation: Float[Array, " 4"]) -> Float[Array, " 2"]:
    """A scripted expert for `PointMaze`: to the gap, through it, then to the goal."""
    position, velocity = observation[:2], observation[2:]
    below, beside = position[1] < _WALL_HALF, position[0] < _WALL_TIP + 0.1
    before_gap = below & beside & (position[1] < 0.0)
    in_gap = below & ~before_gap
    target = jnp.where(
        before_gap,
        jnp.asarray([0.7, -0.3]),
        jnp.where(in_gap, jnp.asarray([0.6, 0.5]), jnp.asarray(_GOAL)),
    )
    return jnp.clip(8.0 * (target - position) - 2.0 * velocity, -1.0, 1.0)


def distance_to_goal(position: Float[Array, " 2"]) -> Float[Array, ""]:
    """Length of the shortest way from `position` to the goal, round the wall."""
    lower = jnp.asarray([_WALL_TIP, -_WALL_HALF])
    upper = jnp.asarray([_WALL_TIP, _WALL_HALF])
    goal = jnp.asarray(_GOAL)
    straight = jnp.linalg.norm(position - goal)
    by_upper = jnp.linalg.norm(position - upper) + _GAP_TO_GOAL
    by_both = jnp.linalg.norm(position - lower) + 2.0 * _WALL_HALF + _GAP_TO_GOAL
    # Where the straight line to the goal passes the tip of the wall.
    share = (position[0] - _WALL_TIP) / jnp.maximum(position[0] - _GOAL[0], 1e-6)
    passes = position[1] + share * (_GOAL[1] - position[1]) >= _WALL_HALF
    beyond = position[0] >= _WALL_TIP
    seen = (position[1] >= _WALL_HALF) | (beyond & passes)
    return jnp.where(seen, straight, jnp.where(beyond, by_upper, by_both))


def inside_wall(position: Float[Array, " 2"]) -> Bool[Array, ""]:
    """Whether `position` is within the wall, its faces not counted."""
    return (position[0] < _WALL_TIP) & (jnp.abs(position[1]) < _WALL_HALF)


def _move(position: Array, velocity: Array) -> tuple[Array, Array]:
    # One axis after the other, so that the point slides along what it hits. A step is shorter than
    # the wall is thick, so nothing passes through it.
    x, y = position
    aim = x + _TIME_STEP * velocity[0]
    hit = inside_wall(jnp.stack([aim, y]))
    reached_x = jnp.clip(jnp.where(hit, _WALL_TIP, aim), -1.0, 1.0)
    aim_y = y + _TIME_STEP * velocity[1]
    hit_y = inside_wall(jnp.stack([reached_x, aim_y]))
    face = jnp.where(y > 0.0, _WALL_HALF, -_WALL_HALF)
    reached_y = jnp.clip(jnp.where(hit_y, face, aim_y), -1.0, 1.0)
    stopped = jnp.stack([hit | (jnp.abs(aim) > 1.0), hit_y | (jnp.abs(aim_y) > 1.0)])
    return jnp.stack([reached_x, reached_y]), jnp.where(stopped, 0.0, velocity)


def _observe(state: PointMazeState) -> Array:
    return jnp.concatenate([state.position, state.velocity])
