"""Finite processes as environments, and known ones, random and hard."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.environment import AbstractEnvironment, Step


class FiniteState(eqx.Module):
    """Where an episode is; steps taken."""

    state: Int[Array, ""]
    time: Int[Array, ""]


class FiniteEnvironment(AbstractEnvironment):
    """Acts in a `FiniteProcess`.

    Observation: the state as a one-hot vector, and the share of the horizon that has passed, since
    what is best depends on the step. An episode is terminal after its last step: the horizon is
    part of the task, no time limit on another one, and nothing can be earned after it.

    It has to be given its process, so `make` does not know it.

    **Arguments:** `process`; `name`: for people; `reference_returns`: of a uniform and of an
    optimal policy, if known (`ops.planning` has them exactly).
    """

    process: FiniteProcess
    name: str = eqx.field(static=True, default="finite")
    reference_returns: tuple[float, float] | None = eqx.field(static=True, default=None)

    @property
    def spaces(self) -> Spaces:
        size = self.process.states + 1
        return Spaces(
            Box((0.0,) * size, (1.0,) * size),
            Discrete(self.process.actions),
            horizon=self.process.horizon,
        )

    def reset(self, *, key: PRNGKeyArray):
        at = FiniteState(self.process.reset(key=key), jnp.zeros((), jnp.int32))
        return at, self.observe(at)

    def step(self, state: FiniteState, action: Array, *, key: PRNGKeyArray):
        seen = self.process.step(state.time, state.state, action, key=key)
        reached = FiniteState(seen.state, state.time + 1)
        over = reached.time >= self.process.horizon
        return reached, Step(self.observe(reached), seen.reward, over, jnp.zeros((), bool))

    def observe(self, at: FiniteState) -> Float[Array, " observation"]:
        """The observation of a state at a step."""
        state = jax.nn.one_hot(at.state, self.process.states, dtype=jnp.float32)
        passed = at.time.astype(jnp.float32) / self.process.horizon
        return jnp.concatenate([state, passed[None]])

    def locate(self, observation: Float[Array, " observation"]) -> FiniteState:
        """The state and step that an observation shows."""
        state = jnp.argmax(observation[:-1]).astype(jnp.int32)
        time = jnp.round(observation[-1] * self.process.horizon).astype(jnp.int32)
        return FiniteState(state, time)


def random_process(
    *,
    states: int,
    actions: int,
    horizon: int,
    concentration: float = 1.0,
    stationary: bool = False,
    key: PRNGKeyArray,
) -> FiniteProcess:
    """A process drawn at random: every row and the start from a symmetric Dirichlet distribution,
    every reward uniformly between zero and one.

    **Arguments:** `concentration`: of the Dirichlet distributions; small ones make nearly
    deterministic transitions; `stationary`: one draw for all steps.

    Raises `SpecificationError` for sizes below one or a concentration that is not above zero.
    """
    require_sizes(states=states, actions=actions, horizon=horizon)
    if not concentration > 0.0:
        raise SpecificationError(f"concentration = {concentration:g} must be above zero")
    row_key, reward_key, initial_key = jax.random.split(key, 3)
    steps = 1 if stationary else horizon
    weight = jnp.full(states, concentration)
    rows = jax.random.dirichlet(row_key, weight, (steps, states, actions))
    reward = jax.random.uniform(reward_key, (steps, states, actions))
    return FiniteProcess.from_arrays(
        np.broadcast_to(rows, (horizon, states, actions, states)),
        np.broadcast_to(reward, (horizon, states, actions)),
        jax.random.dirichlet(initial_key, weight),
    )


def river_swim(*, states: int = 6, horizon: int = 20, small_reward: float = 0.005) -> FiniteProcess:
    """Swim up a river against its current: a small reward is near, a large one far.

    Action 0 drifts one state down for certain. Action 1 swims: up with probability 0.35, down with
    0.05, else it stays; in the first state up with 0.6, in the last it stays with 0.6, else down.
    Drifting in the first state earns `small_reward`, swimming in the last one earns one. Episodes
    start in the first state. After Strehl and Littman (2008), with the probabilities of
    Osband et al. (2013).

    Raises `SpecificationError` for fewer than two states or a horizon below one.
    """
    require_sizes(horizon=horizon)
    if states < 2:
        raise SpecificationError(f"a river needs at least two states, not {states}")
    transition = np.zeros((states, 2, states))
    reward = np.zeros((states, 2))
    for state in range(states):
        transition[state, 0, max(state - 1, 0)] = 1.0
        up, down = 0.35, 0.05
        if state == 0:
            up, down = 0.6, 0.0
        elif state == states - 1:
            up, down = 0.0, 0.4
        transition[state, 1, min(state + 1, states - 1)] += up
        transition[state, 1, max(state - 1, 0)] += down
        transition[state, 1, state] += 1.0 - up - down
    reward[0, 0], reward[-1, 1] = small_reward, 1.0
    return FiniteProcess.from_arrays(transition, reward, horizon=horizon)


def combination_lock(
    *, horizon: int, actions: int = 4, slip: float = 0.0, key: PRNGKeyArray
) -> FiniteProcess:
    """Only one sequence of actions earns anything, and nothing tells on the way.

    State 0 is the lock as long as every action was right, state 1 where it is stuck for good. The
    right action of each step is drawn from `key`. The last right action earns one. The best return
    is `(1 - slip)^(horizon - 1)`; acting uniformly earns `actions^-horizon` times that.

    **Arguments:** `slip`: probability that the lock sticks after a right action.

    Raises `SpecificationError` for sizes below one or a slip outside of [0, 1].
    """
    require_sizes(horizon=horizon, actions=actions)
    if not 0.0 <= slip <= 1.0:
        raise SpecificationError(f"slip = {slip:g} must be a probability")
    right = np.asarray(jax.random.randint(key, (horizon,), 0, actions))
    transition = np.zeros((horizon, 2, actions, 2))
    reward = np.zeros((horizon, 2, actions))
    transition[..., 1] = 1.0
    transition[np.arange(horizon), 0, right] = (1.0 - slip, slip)
    reward[-1, 0, right[-1]] = 1.0
    return FiniteProcess.from_arrays(transition, reward)


def noisy_lock(code: Sequence[int] | np.ndarray, actions: int) -> FiniteProcess:
    """A lock that slips with probability 0.1, and pays 0.05 for a wrong first action.

    State 0 is the lock as long as every action was that of `code`, state 1 where it is stuck for
    good. The last right action earns one.
    """
    horizon = len(code)
    transition = np.zeros((horizon, 2, actions, 2))
    transition[..., 1] = 1.0
    transition[np.arange(horizon), 0, code] = (0.9, 0.1)
    reward = np.zeros((horizon, 2, actions))
    reward[0, 0] = 0.05
    reward[0, 0, code[0]] = 0.0
    reward[-1, 0, code[-1]] = 1.0
    return FiniteProcess.from_arrays(transition, reward)


def deep_sea(*, size: int, key: PRNGKeyArray) -> FiniteProcess:
    """Dive from the top left of a square sea to a treasure at its bottom right.

    Every step sinks by one row, to the left or to the right; a state is a column, the row is the
    step. Which action goes right is drawn from `key`, for each cell. Going right in the last row
    and column earns one. Going left earns `0.01 / size`: the task of Osband et al. (2019), where
    going right costs as much, with rewards moved into [0, 1]. Always going right earns one, the
    best; any other policy that does not reach the treasure earns at most 0.01.

    Raises `SpecificationError` for a size below one.
    """
    require_sizes(size=size)
    goes_right = np.asarray(jax.random.randint(key, (size, size), 0, 2))
    transition = np.zeros((size, size, 2, size))
    reward = np.zeros((size, size, 2))
    for row in range(size):
        for column in range(size):
            right = goes_right[row, column]
            transition[row, column, right, min(column + 1, size - 1)] = 1.0
            transition[row, column, 1 - right, max(column - 1, 0)] = 1.0
            reward[row, column, 1 - right] = 0.01 / size
    reward[-1, -1, goes_right[-1, -1]] = 1.0
    return FiniteProcess.from_arrays(transition, reward)


def require_sizes(**sizes: int) -> None:
    """Raises `SpecificationError`, naming it, for a size below one."""
    for name, size in sizes.items():
        if size < 1:
            raise SpecificationError(f"{name} = {size} must be at least one")
