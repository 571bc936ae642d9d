"""Episodes of finite processes, logged or played, and comparisons of them."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.catalogue import learns_from
from headwater.core.errors import DataError, SpecificationError
from headwater.core.feed import Feed
from headwater.core.finite import FiniteProblem, FiniteProcess
from headwater.core.hypotheses import FiniteTask
from headwater.core.method import AbstractMethod
from headwater.core.records import EpisodeComparisons, Episodes
from headwater.datasets.finite_files import read_episode_comparisons, read_episodes
from headwater.runs.feeds.flow import Fed, Flow, Inputs, wrong_data
from headwater.runs.options import Options
from headwater.runs.stage import Stage
from headwater.sources.comparisons import (
    AbstractJudge,
    BradleyTerryJudge,
    FreshComparisons,
    LoggedComparisons,
)
from headwater.sources.episodes import FreshEpisodes, WholeLog
from headwater.sources.meta.tasks import GivenTasks


def _problem_for(method: AbstractMethod, task: FiniteTask) -> Any:
    return task.problem_for(learns_from(type(method))[0], type(method).__name__)


def _playing(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    task = inputs.process
    assert task is not None
    name = type(method).__name__
    if task.process is None:
        raise SpecificationError(f"{name} acts, but this is no process to act in: give one")
    problem = _problem_for(method, task)
    updates = _whole_updates(method, problem, options.steps)
    source = FreshEpisodes(task.process, problem.tasks)
    return Fed(Stage("learn", method, source, updates), problem)


def _whole_tasks(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    task, name = inputs.process, type(method).__name__
    assert task is not None and options.updates is not None
    if not isinstance(task.process, FiniteProcess):
        raise SpecificationError(
            f"{name} lets agents learn in whole tasks: give processes whose tables are known"
        )
    problem = _problem_for(method, task)
    problem.require_tasks(name)
    return Fed(Stage("learn", method, GivenTasks(task.process), options.updates), problem)


def _comparing(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    task, judge = inputs.process, inputs.judge
    assert task is not None
    name = type(method).__name__
    if task.process is None:
        raise SpecificationError(f"{name} acts, but this is no process to act in: give one")
    if judge is None:
        if not isinstance(task.process, FiniteProcess):
            raise SpecificationError(
                f"{name} asks a judge, and without a known reward there is none: give a judge"
            )
        judge = BradleyTerryJudge(task.process.reward)
    if not isinstance(judge, AbstractJudge):
        raise SpecificationError(
            f"{name} asks about pairs of episodes: give a judge that derives from AbstractJudge, "
            f"not a {type(judge).__name__}"
        )
    problem = _problem_for(method, task)
    updates = _whole_updates(method, problem, options.steps)
    return Fed(Stage("learn", method, FreshComparisons(task.process, judge), updates), problem)


def _episode_log(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    data = inputs.data
    if isinstance(data, Path):
        data = read_episodes(data)
    if not isinstance(data, Episodes):
        raise wrong_data(method, "episodes of a finite process (hw.Episodes)", data)
    data = plain_episodes(data)
    task = inputs.process
    if task is None:
        task = FiniteTask(_as_seen(data)).telling(reward_range=options.reward_range)
    problem = _problem_for(method, task)
    check_episodes(data, problem, rewards=method.info.rewards)
    assert options.updates is not None
    return Fed(Stage("learn", method, WholeLog(data), options.updates), problem)


def _comparison_log(method: AbstractMethod, inputs: Inputs, options: Options) -> Fed:
    data = inputs.data
    if isinstance(data, Path):
        data = read_episode_comparisons(data)
    if not isinstance(data, EpisodeComparisons):
        raise wrong_data(method, "compared episodes of a finite process", data)
    first, second = plain_episodes(data.first), plain_episodes(data.second)
    data = EpisodeComparisons(first, second, data.first_preferred)
    problem = _problem_for(method, inputs.process or FiniteTask(_as_seen(first, second)))
    for episodes in (first, second):
        check_episodes(episodes, problem, rewards=False)
    assert options.updates is not None
    return Fed(Stage("learn", method, LoggedComparisons(data), options.updates), problem)


def episodes_of_an_update(method: Any, problem: Any) -> int:
    """Episodes that one update eats, of each task."""

    def policies(key):
        return method.policy(method.init(problem, key=key), explore=True)

    shape = eqx.filter_eval_shape(policies, jax.random.key(0)).shape
    lead = shape[:-3] if problem.tasks is None else shape[1:-3]
    return int(np.prod(lead, dtype=int))


def _whole_updates(method: AbstractMethod, problem: Any, steps: int) -> int:
    horizon = problem.sizes[0]
    episodes = steps // (horizon * (problem.tasks or 1))
    return max(1, episodes // episodes_of_an_update(method, problem))


def _as_seen(*logs: Episodes) -> FiniteProblem:
    """What a log says of the process that it is of: as many states and actions as it shows."""
    states = 1 + max(int(np.max(np.asarray(log.state), initial=0)) for log in logs)
    actions = 1 + max(int(np.max(np.asarray(log.action), initial=0)) for log in logs)
    return FiniteProblem(states, actions, logs[0].action.shape[-1])


def plain_episodes(data: Episodes) -> Episodes:
    """Episodes whose parts are arrays of the right kinds, whatever they were given as.

    Raises `DataError` if there are none, or one is no array of whole numbers, or of numbers.
    """
    arrays = {}
    for name, kinds, expected in (
        ("state", "iu", "whole numbers"),
        ("action", "iu", "whole numbers"),
        ("reward", "biuf", "numbers"),
        ("cost", "biuf", "numbers"),
    ):
        given = getattr(data, name)
        if given is None and name == "cost":
            continue
        try:
            array = np.asarray(given)
        except (TypeError, ValueError):
            raise DataError(
                f"{name} is not an array of {expected}: rows differ in length"
            ) from None
        if not array.size:
            raise DataError("the log has no episodes, so that there is nothing to learn from")
        if array.dtype.kind not in kinds:
            how = ": convert it with .astype(int)" if array.dtype.kind == "f" else ""
            raise DataError(f"{name} has type {array.dtype}, but {expected} are needed{how}")
        arrays[name] = jnp.asarray(array, jnp.int32 if expected == "whole numbers" else jnp.float32)
    state, action, reward = (arrays[name] for name in ("state", "action", "reward"))
    lead = action.shape[:-1]
    if not action.ndim or state.shape[:-1] != lead or reward.shape != action.shape:
        raise DataError(
            f"episodes have states of shape {state.shape}, actions of shape {action.shape} and "
            f"rewards of shape {reward.shape}: actions and rewards need [episode, step], states "
            "one more at the end"
        )
    return Episodes(**arrays)


def check_episodes(data: Episodes, problem: Any, *, rewards: bool = True) -> None:
    """Raises `DataError`, naming the episode and the step, if `data` does not fit `problem`.

    **Arguments:** `data`: from `plain_episodes`; `rewards`: they are read, so that they must lie in
    the range that the problem declares.
    """
    state, action, reward = (np.asarray(x) for x in (data.state, data.action, data.reward))
    horizon, states, actions = problem.sizes
    if action.shape[-1] != horizon or state.shape[-1] != horizon + 1:
        raise DataError(
            f"episodes have {action.shape[-1]} actions and {state.shape[-1]} states, but a horizon "
            f"of {horizon} needs {horizon} and {horizon + 1}"
        )
    for name, values, count in (("state", state, states), ("action", action, actions)):
        wrong = np.argwhere((values < 0) | (values >= count))
        if len(wrong):
            *episode, step = wrong[0].tolist()
            raise DataError(
                f"{name} {values[tuple(wrong[0])]} in episode {_index(episode)}, step {step} is "
                f"not one of 0 … {count - 1}"
            )
    wrong = np.argwhere(~np.isfinite(reward))
    if len(wrong):
        *episode, step = wrong[0].tolist()
        raise DataError(f"the reward in episode {_index(episode)}, step {step} is not finite")
    declared = getattr(problem, "problem", problem).reward_range
    low, high = (0.0, 1.0) if declared is None else np.asarray(declared, np.float64).tolist()
    # What a file and single precision leave of a reward at the end of the range.
    slack = 1e-5 * (high - low)
    wrong = np.argwhere((reward < low - slack) | (reward > high + slack))
    if rewards and len(wrong):
        *episode, step = wrong[0].tolist()
        raise DataError(
            f"the reward in episode {_index(episode)}, step {step} is {reward[tuple(wrong[0])]:g}, "
            f"outside of the range {low:g} to {high:g}: declare the lowest and the highest that a "
            "step may have, as reward_range"
        )


def _index(place: list[int]) -> str:
    return ", ".join(map(str, place)) if place else "0"


_PLAY = {"updates": 1, "batch_size": 256, "seeds": 4}

FLOWS: dict[tuple[type, Feed], Flow] = {
    (Episodes, Feed.STORED): Flow(
        "from logged episodes of a finite process",
        ("data",),
        ("process",),
        ("finite", "rewards"),
        _PLAY,
        _episode_log,
    ),
    (Episodes, Feed.ACTING): Flow(
        "from its own episodes in a finite process",
        ("process",),
        (),
        ("finite", "rewards", "acting"),
        _PLAY,
        _playing,
        True,
    ),
    (FiniteProcess, Feed.TASKS): Flow(
        "from whole tasks, in which agents learn by its rule",
        ("process",),
        (),
        ("finite", "rewards"),
        {"updates": 500, "batch_size": 256, "seeds": 4},
        _whole_tasks,
    ),
    (EpisodeComparisons, Feed.STORED): Flow(
        "from logged comparisons of episodes in a finite process",
        ("data",),
        ("process",),
        ("finite", "rewards"),
        _PLAY,
        _comparison_log,
    ),
    (EpisodeComparisons, Feed.JUDGED): Flow(
        "from its own episodes in a finite process, in pairs that a judge compares",
        ("process",),
        ("judge",),
        ("finite", "rewards", "acting"),
        _PLAY,
        _comparing,
        True,
    ),
}
"""What methods declare, and how that is brought to them."""
