"""Learn a finite process: from episodes of its own, or from logged ones."""

import dataclasses
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from headwater.core.catalogue import build_method
from headwater.core.errors import SpecificationError
from headwater.core.finite import AbstractFiniteSimulator, FiniteProblem, FiniteProcess
from headwater.core.method import AbstractCertificate, AbstractMethod, AbstractTablePolicy
from headwater.core.records import Episodes
from headwater.evaluation.exact import best_return, cumulative, regret_of, returns_of
from headwater.evaluation.statistics import Interval, interval
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources.episodes import FreshEpisodes, WholeLog


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """What was learned of a finite process, and how good it is.

    **Arguments:** `method`, its `state` (with a leading seed axis), `seeds`; `policies`:
    probabilities of actions, `[seed, step, state, action]`; `bound`: how much each seed's policy
    falls short of the best at most, as the method certifies, `[seed]`, or `None`
    (also where it is not known in which states episodes start). Where the model
    is known exactly: `best`: the highest expected return; `returns`: of each seed's policy; and,
    for methods that act, `episodes` `[row]` and `regret` `[seed, row]`, summed since the start.
    """

    method: AbstractMethod
    state: Any
    seeds: int
    policies: np.ndarray
    bound: np.ndarray | None = None
    best: float | None = None
    returns: np.ndarray | None = None
    episodes: np.ndarray | None = None
    regret: np.ndarray | None = None

    @property
    def policy(self) -> np.ndarray:
        """The best action in every step and state of the first seed's policy, `[step, state]`."""
        return np.argmax(self.policies[0], axis=-1)

    @property
    def shortfall(self) -> Interval | None:
        """How much the policies really fall short of the best: mean over seeds."""
        if self.returns is None or self.best is None:
            return None
        return interval(self.best - self.returns, "mean")

    def draw(self, path: str | Path) -> Path:
        """Draws regret over episodes, with an interval over seeds, as a PNG.

        Raises `SpecificationError` if regret is not known.
        """
        if self.episodes is None or self.regret is None:
            raise SpecificationError(
                "there is no regret to draw: it needs a method that acts, in a FiniteProcess"
            )
        from headwater.report.curves import draw_learning_curves

        name = type(self.method).__name__
        start = np.zeros((len(self.regret), 1))
        draw_learning_curves(
            {name: (np.append(0, self.episodes), np.hstack([start, self.regret]))},
            path,
            title=f"What {name} gave up while it learned",
            xlabel="episodes",
            ylabel="regret, summed",
            statistic="mean",
        )
        return Path(path)

    def __str__(self) -> str:
        lines = [f"{type(self.method).__name__}, {self.seeds} seed{'s' * (self.seeds > 1)}"]
        if self.returns is not None and self.best is not None:
            lines.append(f"expected return {interval(self.returns, 'mean')} of {self.best:,.4g}")
        if self.regret is not None and self.episodes is not None:
            total = interval(self.regret[:, -1], "mean")
            lines.append(f"regret {total} over {self.episodes[-1]:,} episodes")
        if self.bound is not None:
            line = f"certified to fall short by at most {self.bound.max():,.4g}"
            if self.best is not None and self.bound.max() >= self.best:
                line += ", which is as much as there is to earn: more episodes would tighten it"
            lines.append(line)
        return "\n".join(lines)


def solve(
    method: AbstractMethod | str | type,
    process: AbstractFiniteSimulator | None = None,
    *,
    data: Episodes | None = None,
    problem: FiniteProblem | None = None,
    episodes: int = 1_000,
    seeds: int = 4,
    seed: int = 0,
    known_reward: bool = False,
    logs: int = 50,
    progress: bool | None = None,
) -> Solution:
    """Learns a finite process with several seeds at once.

    **Arguments:** `method`: as an object with its hyper-parameters set, or its name or class;
    `process`: what to act in and, if it is a `FiniteProcess`, to judge by exactly; `data`: logged
    episodes, for methods that learn from a log; `problem`: what the method is told (default: the
    sizes and first states of `process`, its rewards if `known_reward`); `episodes`: to play, as far
    as whole updates go; `seed`: root of all randomness; `logs`: points of the regret curve.

    Raises `SpecificationError` if the method does not learn finite processes, or something that it
    needs is missing; `DataError` if `data` does not fit.
    """
    if not isinstance(method, AbstractMethod):
        method = build_method(method if isinstance(method, str) else method.__name__)
    name = type(method).__name__
    if not isinstance(method, AbstractTablePolicy):
        raise SpecificationError(f"{name} does not learn finite processes: use hw.train")
    if process is None and (data is None or problem is None):
        raise SpecificationError("give a process to act in, or data and the problem's sizes")
    if seeds < 1 or episodes < 1:
        raise SpecificationError(f"seeds = {seeds}, episodes = {episodes}: at least 1 is needed")
    exact = process if isinstance(process, FiniteProcess) else None
    if problem is None:
        assert process is not None
        if exact is not None:
            problem = exact.problem(known_reward=known_reward)
        else:
            problem = FiniteProblem(process.states, process.actions, process.horizon)
    if data is not None:
        check_episodes(data, problem)
        source, updates = WholeLog(data), 1
    else:
        assert process is not None
        source = FreshEpisodes(process, problem.tasks)
        updates = max(1, episodes // _episodes_of_an_update(method, problem))
    measure = None if exact is None or data is not None else regret_of(exact)
    result = run(
        [Stage("learn", method, source, updates, measure=measure)],
        problem,
        seeds=seeds,
        seed=seed,
        logs=logs,
        progress=progress,
    )
    state = result.outcomes["learn"].state
    policies, bound, returns = _judge(method, exact, problem.initial is not None, state)
    solution = Solution(
        method,
        state,
        seeds,
        np.asarray(policies),
        None if bound is None else np.asarray(bound, np.float64),
        None if exact is None else float(jnp.mean(best_return(exact))),
        None if returns is None else np.asarray(returns, np.float64),
    )
    if measure is None:
        return solution
    played, regret = cumulative(result.metrics)
    each = _episodes_of_an_update(method, problem)
    return dataclasses.replace(solution, episodes=played * each, regret=regret * each)


def check_episodes(data: Episodes, problem: FiniteProblem) -> None:
    """Raises `DataError`, naming the episode and the step, if `data` does not fit `problem`."""
    from headwater.core.errors import DataError

    state, action, reward = (np.asarray(x) for x in (data.state, data.action, data.reward))
    horizon, states, actions = problem.sizes
    if not state.ndim == action.ndim == reward.ndim or not action.ndim:
        raise DataError(
            f"episodes have states of shape {state.shape}, actions of shape {action.shape} and "
            f"rewards of shape {reward.shape}: each needs [episode, step]"
        )
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


def _index(place: list[int]) -> str:
    return ", ".join(map(str, place)) if place else "0"


def _episodes_of_an_update(method: Any, problem: FiniteProblem) -> int:
    """Episodes that one update eats, of each task."""

    def policies(key):
        return method.policy(method.init(problem, key=key), explore=True)

    shape = eqx.filter_eval_shape(policies, jax.random.key(0)).shape
    lead = shape[:-3] if problem.tasks is None else shape[1:-3]
    return int(np.prod(lead, dtype=int))


@eqx.filter_jit
def _judge(
    method: Any, exact: FiniteProcess | None, certify: bool, states: Any
) -> tuple[Any, Any, Any]:
    """Greedy policies, certified bounds and exact returns, for every seed."""

    def one(state):
        policy = method.policy(state, explore=False)
        bound = None
        if certify and isinstance(method, AbstractCertificate):
            bound = method.suboptimality_bound(state)
        worth = None if exact is None else jnp.mean(returns_of(exact, policy))
        return policy, bound, worth

    return jax.vmap(one)(states)
