"""Compare runs: final returns with intervals, learning curves, and samples saved."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headwater.api.evaluate import choose_estimators, discount_of, judge_seeds
from headwater.api.inputs import read_log
from headwater.api.run import Run, open_run
from headwater.core.errors import SpecificationError, nearest
from headwater.core.method import AbstractPolicy
from headwater.datasets.dataset import Dataset
from headwater.datasets.metadata import require_actions, require_rewards
from headwater.environments.catalogue import (
    bandit_names,
    black_box_names,
    environment_class,
    environment_names,
)
from headwater.evaluation.estimators.importance import Judged
from headwater.evaluation.estimators.marginal import logged_estimate
from headwater.evaluation.estimators.selection import Selection, select_policy
from headwater.evaluation.off_policy import ESTIMATORS, Estimate
from headwater.evaluation.savings import Savings, sample_savings
from headwater.evaluation.statistics import Difference, Interval, difference, interval, seed_means
from headwater.reports.curves import draw_learning_curves
from headwater.reports.intervals import draw_intervals
from headwater.runs.options import check_seed

_TARGET_SHARE = 0.9
"""How far from its first to its last level the baseline's target is, unless one is given."""


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One run.

    **Arguments:** `name`; `method`; `recipe`: how it went online, if it adapts another run;
    `seeds`; `updates`, `steps`: made so far, steps being new environment steps; `score`: final
    return; `normalised`: on the scale from random to expert, if that is known; `advantage`: over
    the baseline; `savings`: of samples, against the baseline; `keeps_best`: whether the score is
    that of each seed's best evaluation, by which it was chosen.
    """

    name: str
    method: str
    recipe: str | None
    seeds: int
    updates: int
    steps: int
    score: Interval
    normalised: Interval | None
    advantage: Difference | None = None
    savings: Savings | None = None
    keeps_best: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Several runs side by side.

    **Arguments:** `rows`; `task`; `baseline`: the run that others are held against, if any;
    `target`: the return whose samples are counted; `curves`: by name, of the runs that acted.
    """

    rows: list[Row]
    task: str | None
    baseline: str | None
    target: float | None
    curves: dict[str, tuple[np.ndarray, np.ndarray]]

    @property
    def remarks(self) -> list[str]:
        """What has to be known to read the scores right, one sentence each."""
        kept = [row.name for row in self.rows if row.keeps_best]
        if not kept:
            return []
        return [
            f"{', '.join(kept)}: the best evaluation of each seed, by which it was chosen, so that "
            "fresh returns are lower on average (`headwater evaluate` measures them)"
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        return {
            "task": self.task,
            "baseline": self.baseline,
            "target": self.target,
            "runs": [
                {
                    **{
                        name: getattr(row, name)
                        for name in (
                            "name",
                            "method",
                            "recipe",
                            "seeds",
                            "updates",
                            "steps",
                            "keeps_best",
                        )
                    },
                    "score": dataclasses.asdict(row.score),
                    "normalised": row.normalised and dataclasses.asdict(row.normalised),
                    "advantage": row.advantage and dataclasses.asdict(row.advantage),
                    "savings": row.savings and row.savings.plain(),
                }
                for row in self.rows
            ],
        }

    def draw(self, path: str | Path) -> Path:
        """Writes a PNG: learning curves if any run acted while it learned, else intervals."""
        path = Path(path)
        title = self.task or ""
        if not self.curves:
            table = {title or "final return": {row.name: row.score for row in self.rows}}
            draw_intervals(table, path, title=title)
            return path
        offline = {row.name: row.score.point for row in self.rows if row.name not in self.curves}
        draw_learning_curves(
            self.curves,
            path,
            target=self.target,
            references=offline,
            title=title,
            xlabel="new environment steps",
        )
        return path


def compare(
    runs: Sequence[Run | str | Path],
    *,
    names: Sequence[str] | None = None,
    baseline: str | None = None,
    target: float | None = None,
    level: float = 0.95,
) -> Comparison:
    """Sets runs side by side.

    **Arguments:** `runs`: or their directories; `names`: what to call them (default: their own);
    `baseline`: name of the run that the others are held against (default: the one that learned
    online without a log to its end, if there is just one); `target`: return whose samples are
    counted (default: nine tenths of the way from the first to the last level of the baseline);
    `level`: nominal coverage of intervals.

    Raises `SpecificationError` if runs have no evaluations, were evaluated in different tasks, or
    have the same name.
    """
    if target is not None and not np.isfinite(target):
        raise SpecificationError(f"target = {target}: it must be a return, a finite number")
    opened = [run if isinstance(run, Run) else open_run(run) for run in runs]
    names = _different_names(opened, names)
    tasks = [task_of(run) for run in opened]
    if len(set(tasks)) > 1:
        listed = ", ".join(sorted(set(tasks)))
        raise SpecificationError(f"the runs were evaluated in different tasks: {listed}")
    for name, run in zip(names, opened):
        if run.final_returns is None:
            raise SpecificationError(
                f"{name} was never evaluated: train it with an environment, or use "
                "`headwater evaluate`"
            )
    if baseline is None:
        # One that is still learning says nothing of what learning alone takes.
        alone = [n for n, run in zip(names, opened) if _without_log(run) and run.finished]
        baseline = alone[0] if len(alone) == 1 and len(opened) > 1 else None
    elif baseline not in names:
        raise SpecificationError(nearest(baseline, names, "run"))
    acted = {
        name: _from_zero(run.curve)
        for name, run in zip(names, opened)
        if run.specification.acts and run.curve is not None
    }
    if target is None and baseline in acted:
        levels = np.asarray([interval(column).point for column in acted[baseline][1].T])
        target = float(levels[0] + _TARGET_SHARE * (levels[-1] - levels[0]))
    rows = []
    reference = dict(zip(names, opened)).get(baseline or "")
    for name, run in zip(names, opened):
        final = seed_means(run.final_returns)
        advantage = savings = None
        if reference is not None and run is not reference:
            advantage = difference(final, seed_means(reference.final_returns), level=level)
            if name in acted and baseline in acted and target is not None:
                savings = sample_savings(acted[name], acted[baseline], target, level=level)
        last = run.evaluations[-1]
        rows.append(
            Row(
                name,
                type(run.method).__name__,
                run.specification.recipe,
                run.seeds,
                last["update"],
                last["environment_steps"],
                interval(final, level=level),
                None if run.references is None else interval(run.normalised(final), level=level),
                advantage,
                savings,
                run.finished and run.keeps_best,
            )
        )
    return Comparison(rows, tasks[0], baseline, target, acted)


def task_of(run: Run) -> str:
    """The task that a run was evaluated in, with the options that are not the usual ones."""
    specification = run.specification
    if specification.process is not None:
        options = [
            f"{name}={value}" for name, value in sorted(specification.process.options.items())
        ]
        return specification.process.name + (f" ({', '.join(options)})" if options else "")
    if specification.model is not None:
        where = specification.options.held_out or "nothing"
        of = (
            f" of {Path(specification.data.path or '').stem}"
            if specification.data is not None
            else ""
        )
        return f"{specification.score} on {where}{of}"
    chosen = specification.task
    if chosen is None:
        return "none"
    usual: dict[str, Any] = {}
    if chosen.name in (*environment_names(), *bandit_names(), *black_box_names()):
        usual = vars(environment_class(chosen.name)())
    unusual = {k: v for k, v in chosen.options.items() if k not in usual or usual[k] != v}
    options = ", ".join(f"{name}={value}" for name, value in sorted(unusual.items()))
    return chosen.name + (f" ({options})" if options else "")


def _without_log(run: Run) -> bool:
    specification = run.specification
    return (
        specification.acts
        and specification.data is None
        and specification.recipe in (None, "scratch")
    )


def _from_zero(curve: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The curve with its first point at zero new samples.

    The first evaluation is made after the warm-up, but of the policy that was there before it.
    """
    steps = np.array(curve[0])
    steps[0] = 0.0
    return steps, curve[1]


def select(
    runs: Sequence[Run | str | Path],
    data: Dataset | str | Path,
    *,
    names: Sequence[str] | None = None,
    estimator: str = "mis",
    explore: bool = False,
    level: float = 0.95,
    seed: int = 0,
    data_options: dict[str, Any] | None = None,
    progress: bool | None = None,
) -> Selection:
    """Which of several runs to deploy, judged from a log alone, and how sure that is.

    All runs, and the policy that logged, are judged on the same resampled episodes by the
    discounted return from the logged first observations. A run is worth what its seeds are on
    average.

    **Arguments:** `runs`: or their directories; `data`: logged experience, better not what the runs
    learned from; `names`: what to call the runs (default: their own); `estimator`: of
    `headwater.evaluation.off_policy.ESTIMATORS` (`mis`, since its interval holds its own errors;
    those that fit a network leave these out); `explore`: judge the exploring policies, as an
    estimator does that needs the probabilities of continuous actions; `level`: of the intervals,
    and with what confidence a run must be better than the behaviour to be deployed; `seed`;
    `data_options`: of `headwater.load`, as in `headwater.evaluate`; `progress`: of fits (default:
    on a terminal).

    Raises `SpecificationError` if a run does not fit the data, names are no names, or the runs
    discount rewards differently.
    """
    check_seed(seed)
    if estimator not in ESTIMATORS:
        raise SpecificationError(nearest(estimator, ESTIMATORS, "estimator"))
    if not 0.5 <= level < 1.0:
        raise SpecificationError(f"level = {level}: it lies between 0.5 and 1")
    opened = [run if isinstance(run, Run) else open_run(run) for run in runs]
    names = _different_names(opened, names)
    data = read_log(data, data_options, opened)
    require_rewards(data.metadata, "off-policy evaluation")
    require_actions(data.action_confidence, data.metadata, "off-policy evaluation")
    discounts = {}
    for name, run in zip(names, opened):
        if not isinstance(run.method, AbstractPolicy):
            raise SpecificationError(f"{name} is no policy that acts on observations")
        reason = run.spaces.mismatch(data.spaces, "in the run", "in the data")
        if reason is not None:
            raise SpecificationError(f"{name} does not fit the data: {reason}")
        discounts[name] = discount_of(run)
    if len(set(discounts.values())) > 1:
        listed = ", ".join(f"{name} {discount:g}" for name, discount in discounts.items())
        raise SpecificationError(
            f"the runs discount rewards differently ({listed}), so that their values are of "
            "different things: compare runs with one discount"
        )
    found: dict[str, Judged | str] = {}
    for name, run in zip(names, opened):
        chosen, exploring = choose_estimators(run.method, data, (estimator,), explore)
        seeds = judge_seeds(run, data, chosen, exploring, seed=seed, progress=progress)
        found[name] = _mean_of_seeds([estimates[estimator] for estimates in seeds])
    discount = next(iter(discounts.values()))
    behaviour = logged_estimate(data, discount, seed)
    return select_policy(found, behaviour, estimator=estimator, level=level, seed=seed)


def _mean_of_seeds(estimates: Sequence[Estimate]) -> Judged | str:
    """The average of the seeds that can be judged, or why none can."""
    usable = [e for e in estimates if e.refused is None and e.influence is not None]
    if not usable:
        return estimates[0].refused or "there is no estimate"
    influence = np.mean([np.asarray(e.influence) for e in usable], axis=0)
    return Judged(float(np.mean([e.value for e in usable])), influence)


def _different_names(opened: Sequence[Run], names: Sequence[str] | None) -> list[str]:
    names = list(names) if names is not None else [run.name for run in opened]
    if not opened or len(names) != len(opened) or len(set(names)) != len(names):
        raise SpecificationError(
            f"{len(opened)} runs are called {', '.join(names) or 'nothing'}: give at least one "
            "run, and as many different names as runs"
        )
    return names
