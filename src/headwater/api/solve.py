"""Learn a finite process: from episodes of its own, or from logged ones."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from headwater.api.inputs import as_method, as_process
from headwater.api.train import train
from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.core.method import AbstractMethod
from headwater.evaluation.constrained import best_within
from headwater.evaluation.exact import best_return, returns_of
from headwater.evaluation.statistics import Interval, interval
from headwater.ops.tabular.approachability import vector_returns
from headwater.runs.feeds.table import flow_of
from headwater.runs.options import Options


@dataclasses.dataclass(frozen=True, eq=False)
class Solution:
    """What was learned of a finite process, and how good it is.

    **Arguments:** `method`, its `state` (with a leading seed axis), `seeds`; `policies`:
    probabilities of actions, `[seed, step, state, action]`; `lowest`: what no episode earns less
    than; `bound`: how much each seed's policy
    falls short of the best at most, as the method certifies, `[seed]`, or `None`
    (also where it is not known in which states episodes start). Where the model
    is known exactly: `best`: the highest expected return; `returns`: of each seed's policy; and,
    for methods that act, `episodes` `[row]` and `regret` `[seed, row]`, summed since the start.
    With budgets `best` is the highest return within them, there is no regret, and `spent`
    `[seed, constraint]` are the expected sums of costs, of `budgets`.
    """

    method: AbstractMethod
    state: Any
    seeds: int
    policies: np.ndarray
    lowest: float = 0.0
    bound: np.ndarray | None = None
    best: float | None = None
    returns: np.ndarray | None = None
    episodes: np.ndarray | None = None
    regret: np.ndarray | None = None
    spent: np.ndarray | None = None
    budgets: np.ndarray | None = None

    @property
    def policy(self) -> np.ndarray:
        """The best action in every step and state of the first seed's policy, `[step, state]`."""
        return np.argmax(self.policies[0], axis=-1)

    @property
    def gap(self) -> Interval | None:
        """Suboptimality gap of the policies, measured in the process: mean over seeds."""
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
        from headwater.reports.curves import draw_learning_curves

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
        if self.spent is not None and self.budgets is not None:
            means, limits = (
                ", ".join(f"{x:,.3g}" for x in row) for row in (self.spent.mean(0), self.budgets)
            )
            lines.append(f"expected costs {means} of budgets {limits}")
        if self.regret is not None and self.episodes is not None:
            total = interval(self.regret[:, -1], "mean")
            lines.append(f"regret {total} over {self.episodes[-1]:,} episodes")
        if self.bound is not None:
            line = f"certified to fall short by at most {self.bound.max():,.4g}"
            if self.best is not None and self.bound.max() >= self.best - self.lowest:
                line += ", which is as much as there is to earn: more episodes would tighten it"
            lines.append(line)
        return "\n".join(lines)


def solve(
    method: AbstractMethod | str | type,
    process: Any = None,
    *,
    data: Any = None,
    problem: Any = None,
    episodes: int = 1_000,
    seeds: int = 4,
    progress: bool | None = None,
    **options: Any,
) -> Solution:
    """Learns a finite process with several seeds at once: `train`, with what is known exactly.

    **Arguments:** `method`: as an object with its hyper-parameters set, or its name or class;
    `process`: what to act in and, if it is a `FiniteProcess`, to judge by exactly; `data`: logged
    episodes or comparisons, for methods that learn from a log; `problem`: what the method is told
    (default: what follows from `process`); `episodes`: to play, as far as whole updates go; the
    rest as of `train`.

    Raises `SpecificationError` if the method does not learn finite processes, or something that it
    needs is missing; `DataError` if `data` does not fit.
    """
    method = as_method(method)
    flow = flow_of(type(method))
    if flow.kind != "finite":
        raise SpecificationError(
            f"{type(method).__name__} does not learn finite processes: use hw.train"
        )
    if episodes < 1:
        raise SpecificationError(f"episodes = {episodes}: at least 1 is needed")
    task = as_process(process, problem, Options(), None)[1]
    if flow.acts and task is not None:
        options["steps"] = episodes * task.problem.horizon * (task.problem.tasks or 1)
    budgets, judged = options.get("budgets"), None if task is None else task.process
    within = None
    if isinstance(judged, FiniteProcess) and judged.cost is not None and judged.reward.ndim == 3:
        declared = None if task is None else task.problem.budgets
        budgets = budgets if budgets is not None or declared is None else np.asarray(declared)
        if budgets is not None:
            # Before anything is learned: budgets that nothing keeps to are refused.
            within = best_within(judged, budgets).value
    run = train(
        method, data, process=task, seeds=seeds, evaluations=1, progress=progress, **options
    )
    exact = None if run.process is None else run.process.process
    best = returns = spent = None
    policies = np.stack(run.policies)
    if isinstance(exact, FiniteProcess):
        if within is None:
            best = float(np.mean(np.asarray(best_return(exact))))
        else:
            best, measured = within, jnp.asarray(exact.cost)
            spent = np.stack([vector_returns(exact, measured, jnp.asarray(p)) for p in policies])
        returns = np.asarray([np.mean(returns_of(exact, jnp.asarray(p))) for p in policies])
    played, regret = run.regret or (None, None)
    problem = getattr(run.problem, "problem", run.problem)
    lowest = float(problem.lowest_reward) * problem.horizon
    return Solution(
        run.method,
        run.state,
        run.seeds,
        policies,
        lowest,
        run.bounds,
        best,
        returns,
        played,
        regret,
        spent,
        None if within is None else np.asarray(budgets, np.float64),
    )
