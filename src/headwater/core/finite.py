"""Decision processes with finitely many states, actions and steps."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray

from headwater.core.errors import DataError, SpecificationError

_ROUNDING = 6e-8
"""Largest distance from one of the sum of a distribution that was rounded to 32 bits."""
_TOLERANCE = 1e-5
"""How far from one the probabilities of a row may add up: what float32 and a text file leave."""


class FiniteProblem(eqx.Module):
    """What a method for finite processes is told before it learns.

    **Arguments:** `states`, `actions`, `horizon`: sizes; `initial`: distribution of first states,
    where it is known; `reward`: expected rewards, where they are known (for several tasks, with a
    leading axis); `tasks`: how many processes are learned at once; `budgets`: upper bounds of the
    expected sums of costs; `features`: of every step, in which rewards are linear, and for methods
    of linear processes the transitions too; `reward_range`: the lowest and the highest reward that
    a step may have, zero and one if nothing is said. Methods whose guarantees are about rewards in
    [0, 1] rescale what they see, and report in the units of the rewards.
    """

    states: int = eqx.field(static=True)
    actions: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    initial: Float[Array, "*task state"] | None = None
    reward: Float[Array, "*task horizon state action"] | None = None
    tasks: int | None = eqx.field(static=True, default=None)
    budgets: Float[Array, " constraint"] | None = None
    features: Float[Array, "*task horizon state action feature"] | None = None
    reward_range: Float[Array, "*instance 2"] | None = None

    @property
    def lowest_reward(self) -> Float[Array, ""] | float:
        """What no step earns less than."""
        return 0.0 if self.reward_range is None else self.reward_range[..., 0]

    @property
    def reward_scale(self) -> Float[Array, ""] | float:
        """By how much the rewards of two steps may differ."""
        if self.reward_range is None:
            return 1.0
        return self.reward_range[..., 1] - self.reward_range[..., 0]

    @property
    def unit_reward(self) -> Float[Array, "horizon state action"] | None:
        """The known rewards of one task, rescaled to [0, 1]."""
        return None if self.reward is None else self.in_unit(self.reward)

    def in_unit(self, reward: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Rewards of one task, rescaled to [0, 1]."""
        if self.reward_range is None:
            return reward
        return (reward - self.lowest_reward) / self.reward_scale

    def from_unit(
        self, value: Float[Array, "*shape"], steps: int | Float[Array, "..."]
    ) -> Float[Array, "*shape"]:
        """What a sum of `steps` rescaled rewards is in the units of the rewards."""
        if self.reward_range is None:
            return value
        return self.reward_scale * value + steps * self.lowest_reward

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Horizon, states and actions."""
        return self.horizon, self.states, self.actions

    def require_one_task(self, method: str) -> None:
        """Raises `SpecificationError` if `method`, defined for one process, meets several."""
        if self.tasks is not None:
            raise SpecificationError(
                f"{method} learns one process, but this problem has {self.tasks} tasks"
            )

    def require_tasks(self, method: str) -> int:
        """The number of tasks. Raises `SpecificationError` if `method` needs them and has none."""
        if self.tasks is None:
            raise SpecificationError(
                f"{method} learns several tasks at once, but this problem has one process: stack "
                "processes along a leading axis"
            )
        return self.tasks

    def require_initial(self, method: str) -> Float[Array, "*task state"]:
        """Where episodes start. Raises `SpecificationError` if `method` needs it and has none."""
        if self.initial is None:
            raise SpecificationError(
                f"{method} plans from where episodes start, but this problem does not say: give "
                "`initial`"
            )
        return self.initial

    def require_reward(self, method: str) -> Float[Array, "*task horizon state action"]:
        """The known rewards. Raises `SpecificationError` if `method` needs them and has none."""
        if self.reward is None:
            raise SpecificationError(
                f"{method} plans for known rewards, but this problem has none: give `reward`"
            )
        return self.reward

    def require_budgets(self, method: str) -> Float[Array, " constraint"]:
        """The budgets. Raises `SpecificationError` if `method` needs them and has none."""
        if self.budgets is None:
            raise SpecificationError(
                f"{method} keeps to budgets of costs, but this problem has none: give `budgets`"
            )
        return self.budgets


class FiniteStep(eqx.Module):
    """What one step of a finite process shows.

    **Arguments:** `state`: the next one; `reward`; `cost`: for each constraint, if there are any.
    """

    state: Int[Array, ""]
    reward: Float[Array, ""]
    cost: Float[Array, " constraint"] | None = None


class AbstractFiniteSimulator(eqx.Module):
    """A finite process that can be acted in, whether or not anybody knows its model.

    An episode has exactly `horizon` steps; states and actions are counted from zero.
    """

    @property
    @abc.abstractmethod
    def horizon(self) -> int:
        """Steps in an episode."""

    @property
    @abc.abstractmethod
    def states(self) -> int:
        """Number of states."""

    @property
    @abc.abstractmethod
    def actions(self) -> int:
        """Number of actions."""

    @property
    def reward_range(self) -> Float[Array, "2"] | tuple[float, float] | None:
        """The lowest and the highest reward that a step may have; `None`: zero and one."""
        return None

    @abc.abstractmethod
    def reset(self, *, key: PRNGKeyArray) -> Int[Array, ""]:
        """The first state of an episode."""

    @abc.abstractmethod
    def step(
        self,
        time: Int[Array, ""],
        state: Int[Array, ""],
        action: Int[Array, ""],
        *,
        key: PRNGKeyArray,
    ) -> FiniteStep:
        """The next state and what was earned, at step `time` (from zero)."""


class AbstractPartialView(eqx.Module):
    """Capability of a simulator: it knows more than it shows.

    What `reset` and `step` pass on is then the simulator's own; methods see `show` of it, which is
    what `states` counts.
    """

    @abc.abstractmethod
    def show(self, state: Int[Array, ""]) -> Int[Array, ""]:
        """The state that a method sees."""


class FiniteProcess(AbstractFiniteSimulator):
    """A finite-horizon decision process whose model is known.

    An episode has exactly `horizon` steps. `from_arrays` builds one and checks it; the class itself
    checks nothing, so that compiled code can make one of estimates. Processes of equal sizes can be
    stacked along a leading axis and planned with under `jax.vmap`.

    **Arguments:** `transition`: probability of every next state; `reward`: expected; `initial`:
    probability of every first state; `cost`: expected use of each constrained resource, if there
    are any; `noisy`: rewards and costs of an episode are zero or one with these expectations,
    instead of the expectations themselves; `declared_range`: the lowest and the highest reward
    that a step may have, if that is declared.
    """

    transition: Float[Array, "*process horizon state action state"]
    reward: Float[Array, "*process horizon state action"]
    initial: Float[Array, "*process state"]
    cost: Float[Array, "*process horizon state action constraint"] | None = None
    noisy: bool = eqx.field(static=True, default=False)
    declared_range: Float[Array, "*process 2"] | None = None

    @property
    def horizon(self) -> int:
        """Steps in an episode."""
        return self.reward.shape[-3]

    @property
    def states(self) -> int:
        """Number of states."""
        return self.reward.shape[-2]

    @property
    def actions(self) -> int:
        """Number of actions."""
        return self.reward.shape[-1]

    def problem(self, *, known_reward: bool = False, budgets: Any = None) -> FiniteProblem:
        """What a method is told: sizes and first states, and the rewards if they are known."""
        tasks = self.reward.shape[0] if self.reward.ndim == 4 else None
        return FiniteProblem(
            self.states,
            self.actions,
            self.horizon,
            self.initial,
            self.reward if known_reward else None,
            tasks,
            None if budgets is None else jnp.asarray(budgets, self.reward.dtype),
            reward_range=self.reward_range,
        )

    @property
    def reward_range(self) -> Float[Array, "2"] | None:
        """The declared range of rewards, else what holds zero, one and all of them.

        One for all tasks; `None` where it is zero to one.
        """
        if self.declared_range is not None:
            low, high = jnp.min(self.declared_range[..., 0]), jnp.max(self.declared_range[..., 1])
        else:
            low = jnp.minimum(jnp.min(self.reward), 0.0)
            high = jnp.maximum(jnp.max(self.reward), 1.0)
        # The usual range is left out, which saves rescaling; a tracer does not tell.
        if not isinstance(low, Tracer) and float(low) == 0.0 and float(high) == 1.0:
            return None
        return jnp.stack([low, high]).astype(self.reward.dtype)

    def reset(self, *, key: PRNGKeyArray) -> Int[Array, ""]:
        return draw_index(self.initial, jax.random.uniform(key))

    def step(
        self,
        time: Int[Array, ""],
        state: Int[Array, ""],
        action: Int[Array, ""],
        *,
        key: PRNGKeyArray,
    ) -> FiniteStep:
        # One draw for all: random numbers would be most of the time that a step takes.
        costs = 0 if self.cost is None else self.cost.shape[-1]
        uniform = jax.random.uniform(key, (2 + costs,))
        reward = self.reward[time, state, action]
        cost = None if self.cost is None else self.cost[time, state, action]
        if self.noisy:
            reward = (uniform[1] < reward).astype(reward.dtype)
            cost = None if cost is None else (uniform[2:] < cost).astype(cost.dtype)
        following = draw_index(self.transition[time, state, action], uniform[0])
        return FiniteStep(following, reward, cost)

    @classmethod
    def from_arrays(
        cls,
        transition: Any,
        reward: Any,
        initial: Any = 0,
        *,
        horizon: Any = None,
        reward_range: tuple[float, float] | None = None,
        cost: Any = None,
        noisy: bool = False,
    ) -> "FiniteProcess":
        """The process with these arrays, checked.

        Rows that add up to one within 1e-5 are divided by their sum, unless they do so up to the
        rounding to 32 bits.

        **Arguments:** `transition`: `[state, action, next state]`, or with a leading `step` axis
        where it depends on the step; `reward`: `[state, action]`, or with a leading `step` axis;
        `initial`: `[state]`, or the one state where every episode starts; `horizon`: steps in an
        episode, needed where neither `transition` nor `reward` has a `step` axis; `reward_range`:
        the lowest and the highest reward that a step may have (default: 0 and 1, or as far as the
        rewards go); guarantees are about it, so the narrower the better; `cost`: `[state, action,
        constraint]`, or with a leading `step` axis; `noisy`: draw rewards and costs, which must
        then be in [0, 1], as zero or one.

        Raises `SpecificationError` if shapes do not fit together, and `DataError`, with the step,
        state and action, for a row that is no distribution or a reward that is not finite or out of
        range.
        """
        transition = _numbers("transition", transition)
        reward = _numbers("reward", reward)
        horizon = _horizon(transition, reward, horizon)
        states, actions = _sizes(transition)
        if reward.shape[-2:] != (states, actions):
            raise SpecificationError(
                f"reward has shape {reward.shape}, but transition has {states} states and {actions}"
                f" actions: its last two axes must be ({states}, {actions})"
            )
        reward_range = None if reward_range is None else checked_range(reward_range)
        _check_numbers("reward", reward, (0.0, 1.0) if noisy else reward_range)
        if noisy and reward_range not in (None, (0.0, 1.0)):
            raise SpecificationError("noisy rewards are zero or one: leave out reward_range")
        if cost is not None:
            cost = _numbers("cost", cost)
            _check_cost(cost, horizon, states, actions)
            _check_numbers("cost", cost, (0.0, 1.0) if noisy else None)
            cost = np.broadcast_to(cost, (horizon, states, actions, cost.shape[-1]))
        initial = _initial(initial, states)
        transition = _distributions(transition)
        return cls(
            jnp.asarray(np.broadcast_to(transition, (horizon, states, actions, states))),
            jnp.asarray(np.broadcast_to(reward, (horizon, states, actions))),
            jnp.asarray(initial),
            None if cost is None else jnp.asarray(cost),
            noisy,
            None if reward_range is None else jnp.asarray(reward_range, jnp.float32),
        )


def checked_range(given: Any) -> tuple[float, float]:
    """The lowest and the highest reward, as numbers.

    Raises `SpecificationError` unless they are two finite numbers, the lower one first.
    """
    try:
        bounds = tuple(float(x) for x in np.asarray(given, np.float64).reshape(-1))
    except (TypeError, ValueError):
        bounds = ()
    if len(bounds) != 2 or not np.isfinite(bounds).all() or not bounds[0] < bounds[1]:
        raise SpecificationError(
            f"reward_range = {given!r} must be two finite numbers, the lowest reward and then the "
            "highest"
        )
    return bounds


def draw_index(probabilities: Float[Array, " count"], uniform: Float[Array, ""]) -> Int[Array, ""]:
    """The index that a uniform number in [0, 1) draws from a distribution.

    An index of probability zero is never drawn, whatever the rounding of the sum.
    """
    reached = jnp.cumsum(probabilities)
    total = reached[-1]
    # Strictly below the total even where the product rounds up to it.
    level = jnp.minimum(uniform * total, total * (1.0 - 2.0**-23))
    return jnp.sum(reached <= level).astype(jnp.int32)


def _numbers(name: str, given: Any) -> np.ndarray:
    try:
        found = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise SpecificationError(f"{name} is not an array of numbers") from None
    shape = {
        "transition": "state, action, next state",
        "reward": "state, action",
        "cost": "state, action, constraint",
    }.get(name)
    if shape and found.ndim - shape.count(",") not in (1, 2):
        raise SpecificationError(
            f"{name} has shape {found.shape}: it must be [{shape}] or [step, {shape}]"
        )
    return found


def _sizes(transition: np.ndarray) -> tuple[int, int]:
    states, actions, following = transition.shape[-3:]
    if states != following:
        raise SpecificationError(
            f"transition has {states} states but {following} next states (shape "
            f"{transition.shape}): its first and last state axes must be equally long"
        )
    if states < 1 or actions < 1:
        raise SpecificationError(
            f"transition has shape {transition.shape}: at least one state and one action are needed"
        )
    return states, actions


def _horizon(transition: np.ndarray, reward: np.ndarray, given: Any) -> int:
    known = {}
    if given is not None:
        if isinstance(given, bool) or not isinstance(given, int | np.integer):
            raise SpecificationError(f"horizon = {given!r} must be a whole number of steps")
        known["horizon"] = int(given)
    if transition.ndim == 4:
        known["the step axis of transition"] = transition.shape[0]
    if reward.ndim == 3:
        known["the step axis of reward"] = reward.shape[0]
    if not known:
        raise SpecificationError(
            "neither transition nor reward has a step axis: say how many steps an episode has, "
            "as horizon=…"
        )
    (first, steps), *others = known.items()
    for name, other in others:
        if other != steps:
            raise SpecificationError(
                f"{first} says that an episode has {steps} steps, but {name} says {other}"
            )
    if steps < 1:
        raise SpecificationError(
            f"{first} says that an episode has {steps} steps: at least one is needed"
        )
    return steps


def _initial(given: Any, states: int) -> np.ndarray:
    initial = _numbers("initial", given)
    if initial.ndim == 0:
        start = float(initial)
        if start not in range(states):
            raise SpecificationError(f"initial = {given} is not one of the states 0 … {states - 1}")
        return np.eye(states)[int(start)]
    if initial.shape != (states,):
        raise SpecificationError(
            f"initial has shape {initial.shape}, but transition has {states} states: it must be "
            f"({states},), or one state"
        )
    return _distributions(initial)


def _distributions(rows: np.ndarray) -> np.ndarray:
    """`rows`, each divided by its sum once it is known to be a distribution."""
    for wrong, what in (
        (~np.isfinite(rows), "is {:g}: probabilities must be finite"),
        (rows < 0.0, "is {:g}: probabilities must not be negative"),
    ):
        if wrong.any():
            *row, state = np.argwhere(wrong)[0].tolist()
            value = rows[(*row, state)]
            place = f"{_row(tuple(row))} of next state {state}" if row else f"state {state}"
            name = "transition" if row else "initial"
            raise DataError(f"{name}: the probability at {place} {what.format(value)}")
    sums = rows.sum(axis=-1)
    wrong = np.abs(sums - 1.0) > _TOLERANCE
    if wrong.any():
        if rows.ndim == 1:
            raise DataError(f"initial: the probabilities add up to {sums:.7g}, not to 1")
        at = tuple(np.argwhere(wrong)[0].tolist())
        raise DataError(
            f"transition: the probabilities at {_row(at)} add up to {sums[at]:.7g}, not to 1"
        )
    # What was rounded to 32 bits is left as it is, so that a process that was written is read with
    # the same bits.
    rounded = np.abs(sums - 1.0) <= _ROUNDING
    return rows / np.where(rounded, 1.0, sums)[..., None]


def _check_cost(cost: np.ndarray, horizon: int, states: int, actions: int) -> None:
    if cost.shape[-3:-1] != (states, actions) or (cost.ndim == 4 and cost.shape[0] != horizon):
        raise SpecificationError(
            f"cost has shape {cost.shape}, but the process has {horizon} steps, {states} states and"
            f" {actions} actions: it must be ([{horizon},] {states}, {actions}, constraints)"
        )


def _check_numbers(name: str, values: np.ndarray, bounds: tuple[float, float] | None) -> None:
    wrong = ~np.isfinite(values)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0].tolist())
        place = _place(name, at)
        raise DataError(f"{name}: at {place} it is {values[at]:g}: {name}s must be finite")
    if bounds is None:
        return
    low, high = bounds
    wrong = (values < low) | (values > high)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0].tolist())
        raise DataError(
            f"{name}: at {_place(name, at)} it is {values[at]:g}, outside of the declared range "
            f"{low:g} to {high:g}"
        )


def _place(name: str, at: tuple[int, ...]) -> str:
    return _row(at) if name == "reward" else f"{_row(at[:-1])}, constraint {at[-1]}"


def _row(at: tuple[int, ...]) -> str:
    names = ("step", "state", "action")[-len(at) :]
    return ", ".join(f"{name} {index}" for name, index in zip(names, at))
