"""Returns level by level, and how much lower they are on levels that were never seen."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from headwater.core.errors import DataError, SpecificationError
from headwater.core.method import AbstractPolicy
from headwater.environments.environment import AbstractEnvironment, AbstractLevels
from headwater.environments.interaction import episode_returns
from headwater.evaluation.statistics import FEWEST_SEEDS, Interval


@dataclasses.dataclass(frozen=True)
class GeneralisationGap:
    """How much a method loses on levels that it never saw.

    **Arguments:** `seen`, `unseen`: mean return on the levels learned from, and on others; `gap`:
    the first less the second, of the same seeds; `seen_levels`, `unseen_levels`: how many.
    """

    seen: Interval
    unseen: Interval
    gap: Interval
    seen_levels: int
    unseen_levels: int


def level_returns(
    method: AbstractPolicy,
    states: Any,
    task: AbstractEnvironment,
    numbers: Sequence[int] | np.ndarray,
    *,
    key: PRNGKeyArray,
    episodes: int = 1,
    explore: bool = False,
) -> np.ndarray:
    """Mean undiscounted return on each of some levels, `[seed, level]` in float64.

    The compiled program is kept for each method and number of levels.

    **Arguments:** `states`: of the method, every leaf with a leading seed axis; `task`: has levels
    and a time limit; `numbers`: of the levels, counted as `AbstractLevels.level` does, so that
    those from `task.levels` on are held out; `episodes`: on each level, of which the mean is taken;
    `explore`: act as in data collection instead of greedily.

    Raises `SpecificationError` if the task has no levels, the method is no policy, or there is
    nothing to evaluate.
    """
    numbers = np.asarray(numbers, np.int32)
    # Of one level, the program is the same however many the task has.
    only = levels_of(task).level(0)
    if not isinstance(method, AbstractPolicy):
        raise SpecificationError(
            f"{type(method).__name__} is not a policy, so it has no returns: evaluate one that is"
        )
    if numbers.ndim != 1 or not numbers.size or numbers.min() < 0 or episodes < 1:
        raise SpecificationError(
            f"{numbers.size} levels with {episodes} episodes each: at least one level, numbered "
            "from 0 on, and one episode are needed"
        )
    found = _returns(method, states, only, jnp.asarray(numbers), episodes, key, explore)
    return np.asarray(found, np.float64)


def levels_of(task: Any) -> AbstractLevels:
    """The task itself. Raises `SpecificationError` if it has no levels that are numbered."""
    if not isinstance(task, AbstractLevels):
        name = getattr(task, "name", type(task).__name__)
        raise SpecificationError(
            f"{name} has no numbered levels, of which some could be held out: take a task that has "
            "(AbstractLevels), such as maze-levels"
        )
    return task


def generalisation_gap(
    seen: Any, unseen: Any, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> GeneralisationGap:
    """Mean returns on levels that were learned from and on others, and their difference.

    Seeds and levels are both drawn anew, with replacement (the pigeonhole bootstrap of Owen, 2007),
    since other seeds and other levels would have given other numbers; it errs towards wide
    intervals. With fewer than three seeds only levels are, and intervals say nothing of seeds.

    **Arguments:** `seen`, `unseen`: `[seed, level]`, of the same seeds, the levels learned from
    being the same for all seeds, and so the others; `level`: nominal coverage; `resamples`: how
    many; `seed`: of the resampling.

    Raises `DataError` if seeds differ in number or a return is not finite.
    """
    tables = [np.asarray(table, np.float64) for table in (seen, unseen)]
    if any(t.ndim != 2 or 0 in t.shape for t in tables) or len(tables[0]) != len(tables[1]):
        raise DataError(
            f"returns of shapes {tables[0].shape} and {tables[1].shape}: one row for each seed, "
            "the same seeds in both, and one column for each level are needed"
        )
    if not all(np.all(np.isfinite(table)) for table in tables):
        raise DataError("some returns are not finite: say what a failed run is worth")
    if not 0.0 < level < 1.0:
        raise SpecificationError(f"level = {level}: a nominal coverage lies between 0 and 1")
    seeds = len(tables[0])
    rng = np.random.default_rng(seed)
    rows = np.full((resamples, seeds), 1.0 / seeds)
    if seeds >= FEWEST_SEEDS:
        rows = rng.multinomial(seeds, np.full(seeds, 1.0 / seeds), resamples) / seeds
    drawn = []
    for table in tables:
        count = table.shape[1]
        columns = rng.multinomial(count, np.full(count, 1.0 / count), resamples) / count
        drawn.append(np.sum((rows @ table) * columns, axis=1))

    def found(point: float, values: np.ndarray) -> Interval:
        low, high = np.quantile(values, (0.5 * (1.0 - level), 0.5 * (1.0 + level)))
        return Interval(float(point), float(low), float(high), level, seeds)

    means = [table.mean() for table in tables]
    return GeneralisationGap(
        found(means[0], drawn[0]),
        found(means[1], drawn[1]),
        found(means[0] - means[1], drawn[0] - drawn[1]),
        tables[0].shape[1],
        tables[1].shape[1],
    )


@eqx.filter_jit
def _returns(
    method: AbstractPolicy, states: Any, task: Any, numbers: Any, episodes: int, key, explore: bool
):
    def on_level(state, number):
        def act(observation, key):
            return method.act(state, observation, key=key, explore=explore)[0]

        # Folded in, so that a level is met in the same way however many others there are.
        own = jax.random.fold_in(key, number)
        return jnp.mean(episode_returns(task.level(number), act, episodes=episodes, key=own))

    return jax.vmap(lambda state: jax.vmap(lambda n: on_level(state, n))(numbers))(states)
