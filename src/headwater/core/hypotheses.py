"""What a method that learns a finite process is told: all of it, or a few rewards, models or values
that are thought possible."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from headwater.core.errors import DataError, SpecificationError, nearest
from headwater.core.finite import (
    AbstractFiniteSimulator,
    FiniteProblem,
    FiniteProcess,
    checked_range,
)

PROCESS_ARRAYS = ("transition", "reward", "initial", "cost")
"""What a process is made of."""
KNOWLEDGE_ARRAYS = ("budgets", "features", "candidates", "helpers", "rewards", "transitions")
"""What methods may be told besides: see `FiniteTask`."""
NUMBERS = ("horizon", "noisy")
"""Single numbers that may stand beside the arrays."""

_PROBLEM = "problem_"


class FiniteHypotheses(eqx.Module):
    """A finite process, and lists of rewards and of models one of which is right.

    **Arguments:** `problem`: what is known for certain; `rewards`; `transitions`: a single one if
    the model is known.

    Raises `SpecificationError` if shapes are not the problem's.
    """

    problem: FiniteProblem
    rewards: Float[Array, "reward horizon state action"]
    transitions: Float[Array, "model horizon state action state"]

    def __check_init__(self):
        sizes = self.problem.sizes
        for name, array, shape in (
            ("rewards", self.rewards, sizes),
            ("transitions", self.transitions, (*sizes, self.problem.states)),
        ):
            if array.ndim != len(shape) + 1 or array.shape[1:] != shape or not len(array):
                raise SpecificationError(
                    f"{name} has shape {array.shape}, but the problem needs at least one array of "
                    f"shape {shape}, stacked along a first axis"
                )

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Horizon, states and actions."""
        return self.problem.sizes

    @property
    def tasks(self) -> int | None:
        """How many processes are learned at once, if there are several."""
        return self.problem.tasks


class ValueClass(eqx.Module):
    """A finite problem and the functions among which its optimal action values are sought.

    `from_arrays` checks what it is given.

    **Arguments:** `problem`: with known first states; `candidates`: one of them should be right;
    `helpers`: functions that the backups of candidates are compared with, separately at each step;
    they should hold every backup (completeness), and without any, all functions of state and action
    are meant.
    """

    problem: FiniteProblem
    candidates: Float[Array, "candidate horizon state action"]
    helpers: Float[Array, "helper horizon state action"] | None = None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Horizon, states and actions."""
        return self.problem.sizes

    @property
    def tasks(self) -> int | None:
        """How many processes are learned at once."""
        return self.problem.tasks

    @classmethod
    def from_arrays(cls, problem: FiniteProblem, candidates: Any, helpers: Any = None):
        """The class with these functions, checked.

        Raises `SpecificationError` if shapes do not fit the problem or its first states are not
        known, `DataError` for a value that is not finite.
        """
        if problem.initial is None:
            raise SpecificationError(
                "optimism needs to know where episodes start: give `initial` to the problem"
            )
        given = {"candidates": candidates, "helpers": helpers}
        checked = {}
        for name, values in given.items():
            if values is None:
                checked[name] = None
                continue
            values = np.asarray(values, np.float32)
            if values.ndim != 4 or values.shape[1:] != problem.sizes or not len(values):
                raise SpecificationError(
                    f"{name} has shape {values.shape}: it must be (functions, *{problem.sizes}), "
                    "for the problem's horizon, states and actions"
                )
            if not np.isfinite(values).all():
                at = np.argwhere(~np.isfinite(values))[0].tolist()
                raise DataError(
                    f"{name}: function {at[0]} is not finite at step {at[1]}, state {at[2]}, "
                    f"action {at[3]}"
                )
            checked[name] = jnp.asarray(values)
        return cls(problem, checked["candidates"], checked["helpers"])


@dataclasses.dataclass(frozen=True, eq=False)
class FiniteTask:
    """What there is to act in, and what a method is told before it learns.

    **Arguments:** `problem`: sizes, first states, rewards, budgets and features, as far as they are
    told; `process`: to act in, `None` where a log is all there is; `candidates`, `helpers`: of a
    `ValueClass`; `rewards`, `transitions`: of `FiniteHypotheses`.
    """

    problem: FiniteProblem
    process: AbstractFiniteSimulator | None = None
    candidates: Any = None
    helpers: Any = None
    rewards: Any = None
    transitions: Any = None

    @classmethod
    def of(cls, given: Any, problem: Any = None) -> "FiniteTask":
        """The task of a process as users have it.

        **Arguments:** `given`: a `FiniteTask`, a process or simulator, a process that comes with
        features or tasks, or `None`; `problem`: what methods are told, if not what follows from
        the process.

        Raises `SpecificationError` for anything else.
        """
        if isinstance(given, FiniteTask):
            if problem is not None:
                raise SpecificationError("this process says itself what is told: leave out problem")
            return given
        features = None
        if isinstance(given, FiniteProcess):
            given = _as_arrays(given)
        if given is not None and not isinstance(given, AbstractFiniteSimulator):
            # Linear, low-rank and such processes hold a plain one, and features that may be told.
            features, given = _parts(given)
        if problem is None:
            if given is None:
                raise SpecificationError("give a process, or the problem that the log is of")
            if isinstance(given, FiniteProcess):
                problem = given.problem()
            else:
                problem = FiniteProblem(given.states, given.actions, given.horizon)
                if given.reward_range is not None:
                    bounds = jnp.asarray(checked_range(given.reward_range), jnp.float32)
                    problem = dataclasses.replace(problem, reward_range=bounds)
            if features is not None:
                problem = dataclasses.replace(problem, features=jnp.asarray(features))
        more: dict[str, Any] = {}
        if isinstance(problem, ValueClass):
            more = {"candidates": problem.candidates, "helpers": problem.helpers}
            problem = problem.problem
        elif isinstance(problem, FiniteHypotheses):
            more = {"rewards": problem.rewards, "transitions": problem.transitions}
            problem = problem.problem
        if not isinstance(problem, FiniteProblem):
            raise SpecificationError(
                f"a problem is a FiniteProblem, ValueClass or FiniteHypotheses, not a "
                f"{type(problem).__name__}"
            )
        task = cls(problem, given, **more)
        if given is not None and problem.sizes != (given.horizon, given.states, given.actions):
            raise SpecificationError(
                f"the problem has horizon, states and actions {problem.sizes}, but the process "
                f"{(given.horizon, given.states, given.actions)}: they must be the same"
            )
        _check_range(problem, given)
        return task

    def telling(
        self,
        rewards: bool = False,
        budgets: Sequence[float] | None = None,
        reward_range: Sequence[float] | None = None,
    ) -> "FiniteTask":
        """The same where methods are told more: the process's rewards, budgets, a range of rewards.

        Raises `SpecificationError` if the rewards are not known, budgets do not fit the costs, or
        the process has rewards outside of the range.
        """
        problem = self.problem
        if reward_range is not None:
            bounds = jnp.asarray(checked_range(reward_range), jnp.float32)
            problem = dataclasses.replace(problem, reward_range=bounds)
            _check_range(problem, self.process)
        known = isinstance(self.process, FiniteProcess)
        if rewards:
            if not isinstance(self.process, FiniteProcess):
                raise SpecificationError(
                    "the rewards of this process are not known: leave out known_reward"
                )
            problem = dataclasses.replace(problem, reward=self.process.reward)
        if budgets is not None:
            costs = self.process.cost if isinstance(self.process, FiniteProcess) else None
            if known and (costs is None or costs.shape[-1] != len(budgets)):
                number = 0 if costs is None else costs.shape[-1]
                raise SpecificationError(
                    f"there are {len(budgets)} budgets, but the process has {number} costs: give "
                    "as many"
                )
            problem = dataclasses.replace(problem, budgets=jnp.asarray(budgets, jnp.float32))
        return dataclasses.replace(self, problem=problem)

    def problem_for(self, kind: type, method: str) -> FiniteProblem | ValueClass | FiniteHypotheses:
        """What a method that declares the problem `kind` is told.

        Raises `SpecificationError` if this task does not have it.
        """
        if kind is FiniteProblem:
            return self.problem
        if kind is ValueClass:
            if self.candidates is None:
                raise SpecificationError(
                    f"{method} seeks the optimal values among candidates: give a ValueClass as the "
                    "problem, or an array `candidates` in the file of the process"
                )
            return ValueClass.from_arrays(self.problem, self.candidates, self.helpers)
        if kind is FiniteHypotheses:
            if self.rewards is None or self.transitions is None:
                raise SpecificationError(
                    f"{method} chooses among hypotheses: give FiniteHypotheses as the problem, or "
                    "arrays `rewards` and `transitions` in the file of the process"
                )
            rewards, transitions = (jnp.asarray(x) for x in (self.rewards, self.transitions))
            return FiniteHypotheses(self.problem, rewards, transitions)
        raise SpecificationError(f"{method} does not learn finite processes")

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Everything as arrays by name, but for a simulator whose model is not known."""
        found: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("candidates", "helpers", "rewards", "transitions")
        }
        for field in dataclasses.fields(self.problem):
            found[_PROBLEM + field.name] = getattr(self.problem, field.name)
        if isinstance(self.process, FiniteProcess):
            found |= {name: getattr(self.process, name) for name in PROCESS_ARRAYS}
            found["reward_range"] = self.process.declared_range
            found["noisy"] = self.process.noisy
        return {name: np.asarray(x) for name, x in found.items() if x is not None}

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> "FiniteTask":
        """From what `to_arrays` gave, or from the arrays of a process as a user writes them.

        A process needs `transition` and `reward`, as `FiniteProcess.from_arrays` takes them, with a
        leading task axis for several tasks; `initial` is state 0 unless given. Raises
        `SpecificationError` or `DataError` for what does not fit together.
        """
        known = {*PROCESS_ARRAYS, *KNOWLEDGE_ARRAYS, *NUMBERS, "reward_range"}
        fields = {k.removeprefix(_PROBLEM): v for k, v in arrays.items() if k.startswith(_PROBLEM)}
        for name in arrays:
            if name not in known and not name.startswith(_PROBLEM):
                raise SpecificationError(nearest(name, known, "array of a process"))
        process = _process(arrays) if "transition" in arrays or "reward" in arrays else None
        if fields:
            problem = _problem(fields)
        elif process is not None:
            features, budgets = arrays.get("features"), arrays.get("budgets")
            problem = process.problem(budgets=budgets)
            if features is not None:
                problem = dataclasses.replace(problem, features=_real("features", features))
        else:
            raise SpecificationError("a process needs the arrays transition and reward")
        lists = {
            name: None if name not in arrays else _real(name, arrays[name])
            for name in ("candidates", "helpers", "rewards", "transitions")
        }
        return cls(problem, process, **lists)


def _as_arrays(process: FiniteProcess) -> FiniteProcess:
    """The process with its parts as JAX arrays. Raises `SpecificationError` if they do not fit."""
    try:
        process = jax.tree.map(jnp.asarray, process)
        steps = process.reward.shape
        fit = len(steps) in (3, 4) and process.transition.shape == (*steps, steps[-2])
        fit = fit and process.initial.shape == (*steps[:-3], steps[-2])
    except (TypeError, ValueError, AttributeError, IndexError):
        fit = False
    if not fit:
        raise SpecificationError(
            "a FiniteProcess needs arrays [step, state, action, next state], [step, state, action] "
            "and [state]: make it with FiniteProcess.from_arrays, which checks and repeats them"
        )
    return process


def _check_range(problem: FiniteProblem, process: AbstractFiniteSimulator | None) -> None:
    """Raises `SpecificationError` if a known process has rewards outside of the declared range."""
    if not isinstance(process, FiniteProcess) or isinstance(process.reward, Tracer):
        return
    told = problem.reward_range
    low, high = (0.0, 1.0) if told is None else np.asarray(told, np.float64).tolist()
    slack = 1e-5 * (high - low)
    reward = np.asarray(process.reward, np.float64)
    lowest, highest = reward.min(), reward.max()
    if process.noisy:
        lowest, highest = min(lowest, 0.0), max(highest, 1.0)
    if lowest < low - slack or highest > high + slack:
        raise SpecificationError(
            f"the problem says that rewards lie between {low:g} and {high:g}, but those of the "
            f"process go from {lowest:g} to {highest:g}: give the problem that reward_range"
        )


def _parts(given: Any) -> tuple[Any, FiniteProcess]:
    found = getattr(given, "process", None)
    if not isinstance(found, FiniteProcess):
        raise SpecificationError(
            f"a {type(given).__name__} is not a finite process: give a FiniteProcess (of arrays: "
            "FiniteProcess.from_arrays(transition, reward)), a simulator that derives from "
            "AbstractFiniteSimulator, a name or a file"
        )
    return getattr(given, "features", None), found


def _process(arrays: dict[str, Any]) -> FiniteProcess:
    for name in ("transition", "reward"):
        if name not in arrays:
            raise SpecificationError(f"a process needs the array {name}")
    given = {name: arrays[name] for name in PROCESS_ARRAYS if name in arrays}
    horizon = None if "horizon" not in arrays else int(_single("horizon", arrays["horizon"]))
    noisy = bool(_single("noisy", arrays.get("noisy", False)))
    bounds = arrays.get("reward_range")
    if np.ndim(given["transition"]) != 5:
        return FiniteProcess.from_arrays(**given, horizon=horizon, noisy=noisy, reward_range=bounds)
    if bounds is not None:
        bounds = (
            np.min(np.reshape(bounds, (-1, 2))[:, 0]),
            np.max(np.reshape(bounds, (-1, 2))[:, 1]),
        )
    tasks = len(given["transition"])
    for name, values in given.items():
        if np.ndim(values) == 0 or len(values) != tasks:
            raise SpecificationError(
                f"transition has {tasks} tasks along its first axis, but {name} has shape "
                f"{np.shape(values)}: it needs as many"
            )
    each = [
        FiniteProcess.from_arrays(
            **{name: values[task] for name, values in given.items()},
            horizon=horizon,
            noisy=noisy,
            reward_range=bounds,
        )
        for task in range(tasks)
    ]
    return jax.tree.map(lambda *x: jnp.stack(x), *each)


def _problem(fields: dict[str, Any]) -> FiniteProblem:
    states, actions, horizon = (
        int(_single(name, fields.get(name, 0))) for name in ("states", "actions", "horizon")
    )
    if min(states, actions, horizon) < 1:
        raise SpecificationError("a problem needs states, actions and a horizon of at least 1")
    tasks = None if "tasks" not in fields else int(_single("tasks", fields["tasks"]))
    arrays = {
        name: _real(name, fields[name])
        for name in ("initial", "reward", "budgets", "features", "reward_range")
        if name in fields
    }
    return FiniteProblem(
        states,
        actions,
        horizon,
        arrays.get("initial"),
        arrays.get("reward"),
        tasks,
        arrays.get("budgets"),
        arrays.get("features"),
        arrays.get("reward_range"),
    )


def _real(name: str, given: Any) -> jax.Array:
    array = np.asarray(given)
    if array.dtype.kind not in "biuf":
        raise SpecificationError(f"{name} is not an array of numbers")
    return jnp.asarray(array, jnp.float32)


def _single(name: str, given: Any) -> Any:
    array = np.asarray(given)
    if array.ndim or array.dtype.kind not in "biuf" or array != np.round(array):
        raise SpecificationError(f"{name} = {given!r} must be one whole number")
    return array.item()
