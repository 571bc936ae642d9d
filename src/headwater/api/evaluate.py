"""Measure what a run learned: by acting, from a log without acting, or on held-out texts."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from headwater.api.inputs import as_task, pulls_columns, read_log, refuse_options
from headwater.api.language.score import score_texts
from headwater.api.run import Run, open_run
from headwater.api.specifications.choices import TaskChoice
from headwater.core.catalogue import settings
from headwater.core.errors import SpecificationError, nearest
from headwater.core.finite import FiniteProcess
from headwater.core.method import AbstractLikelihood, AbstractPolicy, AbstractTablePolicy
from headwater.core.records import Pulls
from headwater.datasets.bandits.pulls_files import check_pulls, read_pulls
from headwater.datasets.dataset import Dataset
from headwater.datasets.metadata import require_actions, require_rewards
from headwater.environments.registry import acted_in
from headwater.evaluation.bandits import as_transitions
from headwater.evaluation.estimators.importance import WEIGHING
from headwater.evaluation.exact import returns_of
from headwater.evaluation.fitted_value import FIT_UPDATES
from headwater.evaluation.levels.generalisation_gap import (
    GeneralisationGap,
    generalisation_gap,
    level_returns,
    levels_of,
)
from headwater.evaluation.off_policy import ESTIMATORS, WITH_VALUE, Estimate, evaluate_off_policy
from headwater.evaluation.returns import evaluate_returns
from headwater.evaluation.statistics import Interval, interval, seed_means
from headwater.runs.options import check_seed
from headwater.runs.progress import Progress
from headwater.runs.recipes.online import Task

_WITHOUT_PROBABILITIES = ("fqe", "mis", "drl")
_ALL = ("fqe", "wis", "wdr", "mis", "drl")


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """What a run is worth.

    **Arguments:** `run`: its name; `returns`: undiscounted, `[seed, episode]`, if it was acted;
    `score`, `normalised`: interquartile mean over seeds of the mean return, in its own units and on
    the scale from a random policy (0) to an expert (100); `estimates`: for each seed, what the
    estimators say of the expected discounted return, if a log was given; `policy_judged`: whether
    they judge the `greedy` policy or the `exploring` one; `generalisation`: what levels that the
    run never saw cost, if they were asked for.

    Of a run of a language model: `measure`: `log-likelihood` of held-out responses (a token, on
    average), `accuracy` on held-out comparisons, or `reward` of the run's own responses; `data`:
    the file of the held-out rows; `scores`: `[seed, row]`; `score`: the mean of them over seeds;
    `perplexity`: e to the power of the negative log-likelihood; `base`: the score of the model that
    the run began with; `win_rate`: how often a response of the run is rewarded more than one of
    that model's (a tie counts half).
    """

    run: str
    environment: str | None = None
    returns: np.ndarray | None = None
    score: Interval | None = None
    normalised: Interval | None = None
    estimates: list[dict[str, Estimate]] | None = None
    measure: str = "return"
    data: str | None = None
    scores: np.ndarray | None = None
    base: float | None = None
    perplexity: Interval | None = None
    win_rate: Interval | None = None
    policy_judged: str | None = None
    generalisation: GeneralisationGap | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        intervals = {
            name: None if value is None else dataclasses.asdict(value)
            for name in ("score", "normalised", "perplexity", "win_rate")
            for value in (getattr(self, name),)
        }
        return {
            "run": self.run,
            "measure": self.measure,
            "environment": self.environment,
            "returns": None if self.returns is None else self.returns.tolist(),
            "data": self.data,
            "scores": None if self.scores is None else self.scores.tolist(),
            "base": self.base,
            **intervals,
            "estimates": None
            if self.estimates is None
            else [{name: e.to_json() for name, e in each.items()} for each in self.estimates],
            "policy_judged": self.policy_judged,
            "generalisation": self.generalisation and dataclasses.asdict(self.generalisation),
        }


def evaluate(
    run: Run | str | Path,
    *,
    env: Task | str | None = None,
    episodes: int = 100,
    explore: bool = False,
    data: Dataset | Pulls | str | Path | None = None,
    estimators: Sequence[str] | None = None,
    max_weight: float = float("inf"),
    unseen_levels: int = 0,
    reward: Any = None,
    seed: int = 0,
    data_options: dict[str, Any] | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Evaluates every seed of a run: in its task and, if a log is given, from that log; a run in
    a finite process exactly; a run of a language model on held-out texts.

    **Arguments:** `run`: or its directory; `env`: where to act (default: where it was evaluated;
    `"none"`: nowhere); `episodes`: per seed; `explore`: act as in data collection instead of
    greedily; `data`: logged experience for off-policy evaluation (of a bandit, logged rounds); of a
    language model, a file of texts to judge it on (default: the rows that the run held out);
    `estimators`: of `headwater.evaluation.off_policy.ESTIMATORS` (default: those that need no
    probabilities, and the weighted and doubly robust ones where the policy has some: over discrete
    actions, or with `explore`); if one needs the probabilities of continuous actions, all judge the
    exploring policy; `max_weight`: what ratios of probabilities are clipped at, for less variance
    and some bias; `unseen_levels`: act also on as many levels that follow those of the task, of
    which the run saw none, and on at most as many of its own; `reward`: of a language model's
    responses, if it was Python code, or another one than the run's, or several, which are added up
    (the run's own with its weights); `seed`; `data_options`: of `headwater.load`, where `data` is
    a path (default: those with which the run read it, if it learned from it); `progress`: of fits
    (default: on a terminal).

    Raises `SpecificationError` if there is neither a task nor a log nor a held-out text, or one
    that does not fit; `DataError` for data that cannot be used; `RunError` for a missing reward.
    """
    check_seed(seed)
    for estimator in estimators or ():
        if estimator not in ESTIMATORS:
            raise SpecificationError(nearest(estimator, ESTIMATORS, "estimator"))
    run = run if isinstance(run, Run) else open_run(run)
    method = run.method
    kind = run.specification.flow.kind
    acts = run.base is None and kind != "bandits" and not isinstance(method, AbstractTablePolicy)
    if data_options and (data is None or not (acts or kind == "bandits")):
        raise SpecificationError("data options are of logged transitions: leave them out")
    if unseen_levels and not acts:
        raise SpecificationError(
            f"{run.name} acts in no environment, which alone has levels: leave out unseen_levels"
        )
    if run.base is not None:
        if env not in (None, "none") or estimators or explore or isinstance(data, Dataset | Pulls):
            raise SpecificationError(
                f"{run.name} is a run of a language model, which is judged on texts: give a file "
                "of texts as data, and leave out env, estimators and explore"
            )
        return _on_texts(run, data, reward, seed)
    if reward is not None:
        raise SpecificationError(
            f"{run.name} is not a run of a language model: leave out the reward"
        )
    if isinstance(method, AbstractTablePolicy):
        return _exactly(run, env, data)
    if kind == "bandits":
        judged_by = (estimators, explore, max_weight, seed, progress)
        return _from_pulls(run, env, data, data_options, *judged_by)
    if isinstance(data, Pulls):
        raise SpecificationError(
            f"{run.name} is no run of a bandit, which alone is judged by logged rounds: give "
            "logged transitions"
        )
    if not isinstance(method, AbstractPolicy):
        raise SpecificationError(f"{type(method).__name__} is not a policy: it cannot be evaluated")
    if env is None and run.specification.task is not None:
        task = acted_in(run.specification.task.build())
    else:
        task = as_task(env)
    if task is None and data is None:
        raise SpecificationError(
            f"{run.name}: give an environment to act in, or data to judge from"
        )
    if unseen_levels and task is None:
        raise SpecificationError("unseen levels are acted on: say in which environment (env)")
    returns = score = normalised = gap = None
    if task is not None:
        reason = run.spaces.mismatch(task.spaces, "in the run", "in the environment")
        if reason is not None:
            raise SpecificationError(f"{run.name} does not fit {task.name}: {reason}")
        key = jax.random.key(seed)
        returns = evaluate_returns(
            method, run.state, task, episodes=episodes, key=key, explore=explore
        )
        score = interval(seed_means(returns))
        usual = run.specification.task
        if run.references is not None and (usual is None or usual.same_as(TaskChoice.of(task))):
            normalised = interval(run.normalised(seed_means(returns)))
        if unseen_levels:
            gap = _gap(method, run.state, task, unseen_levels, explore, key)
    estimates = None
    if data is not None:
        data = read_log(data, data_options, [run])
        require_rewards(data.metadata, "off-policy evaluation")
        require_actions(data.action_confidence, data.metadata, "off-policy evaluation")
        reason = run.spaces.mismatch(data.spaces, "in the run", "in the data")
        if reason is not None:
            raise SpecificationError(f"{run.name} does not fit the data: {reason}")
        estimators, explore = choose_estimators(method, data, estimators, explore)
        estimates = judge_seeds(
            *(run, data, estimators, explore),
            max_weight=max_weight,
            seed=seed,
            progress=progress,
        )
    name = None if task is None else task.name
    judged = None if estimates is None else "exploring" if explore else "greedy"
    return Evaluation(
        run.name,
        name,
        returns,
        score,
        normalised,
        estimates,
        policy_judged=judged,
        generalisation=gap,
    )


def _gap(
    method: AbstractPolicy, state: Any, task: Any, unseen: int, explore: bool, key: Any
) -> GeneralisationGap:
    """What a run earns on levels of its task, and on the levels that follow them."""
    own = levels_of(task).levels
    if unseen < 1:
        raise SpecificationError(f"unseen_levels = {unseen}: it must be at least 1, or left out")
    found = [
        level_returns(method, state, task, numbers, key=key, explore=explore)
        for numbers in (range(min(own, unseen)), range(own, own + unseen))
    ]
    return generalisation_gap(*found)


def choose_estimators(
    method: Any, data: Dataset, estimators: Sequence[str] | None, explore: bool
) -> tuple[tuple[str, ...], bool]:
    """Which estimators judge a policy of `method`, and whether the one that explores.

    **Arguments:** `estimators`, `explore`: what is asked for.
    """
    discrete = data.spaces.discrete
    likely = isinstance(method, AbstractLikelihood)
    if estimators is None:
        known = likely if explore else discrete
        return (_ALL if known else _WITHOUT_PROBABILITIES), explore
    needed = bool(set(estimators) & set(WEIGHING)) and not discrete
    return tuple(estimators), explore or needed


def judge_seeds(
    run: Run,
    data: Dataset,
    estimators: Sequence[str],
    explore: bool,
    *,
    policy: Any = None,
    max_weight: float = float("inf"),
    seed: int = 0,
    updates: int = FIT_UPDATES,
    progress: bool | None = None,
) -> list[dict[str, Estimate]]:
    """What the estimators say of the policy of each seed of a run.

    **Arguments:** `explore`: judge the exploring policy; `policy`: what acts with the states of the
    run, if not its method; `max_weight`: what ratios are clipped at; `updates`: of each fit of a
    value.
    """
    bar = Progress(progress)
    fits = bool(set(estimators) & set(WITH_VALUE))
    found = []
    try:
        if fits:
            bar.begin(f"{run.name}: fitting values", run.seeds * updates)
        for i in range(run.seeds):
            estimates = evaluate_off_policy(
                data,
                run.method if policy is None else policy,
                jax.tree.map(lambda leaf, i=i: leaf[i], run.state),
                estimators=estimators,
                discount=discount_of(run),
                explore=explore,
                max_weight=max_weight,
                seed=seed,
                progress=bar if fits else None,
                updates=updates,
            )
            found.append(estimates)
    finally:
        bar.stop()
    return found


def discount_of(run: Run) -> float:
    """The discount that a run learned with; 0.99 for a method that has none."""
    return float(settings(run.method).get("discount", 0.99))


def _exactly(run: Run, env: Any, data: Any) -> Evaluation:
    """What the policies of a run in a finite process are worth, from its known model."""
    process = None if run.process is None else run.process.process
    if env not in (None, "none") or data is not None:
        raise SpecificationError(
            f"{run.name} learned a finite process, in which it is judged exactly: leave out env "
            "and data"
        )
    if not isinstance(process, FiniteProcess):
        raise SpecificationError(
            f"{run.name}: the model of its process is not known, so that it cannot be judged "
            "exactly"
        )
    each = [np.atleast_1d(returns_of(process, jnp.asarray(policy))) for policy in run.policies]
    returns = np.asarray(each, np.float64)
    normalised = None
    if run.references is not None:
        normalised = interval(run.normalised(seed_means(returns)))
    chosen = run.specification.process
    name = None if chosen is None else chosen.name
    return Evaluation(run.name, name, returns, interval(seed_means(returns)), normalised)


def _from_pulls(
    run: Run,
    env: Any,
    data: Any,
    options: dict[str, Any] | None,
    estimators: Sequence[str] | None,
    explore: bool,
    max_weight: float,
    seed: int,
    progress: bool | None,
) -> Evaluation:
    """What logged rounds of a bandit say of the policies of a run."""
    if env not in (None, "none") or data is None:
        raise SpecificationError(
            f"{run.name} pulls arms: give logged rounds as data to judge it from, and leave out env"
        )
    if not isinstance(data, Pulls):
        if not isinstance(data, str | Path):
            raise SpecificationError(
                f"{run.name} is judged from logged rounds of a bandit (hw.Pulls or a file), not "
                f"from a {type(data).__name__}"
            )
        bounds = run.problem.low, run.problem.high
        columns = pulls_columns(options)
        if columns is None and run.specification.data is not None:
            # As the run read what it learned from, unless something else is said.
            columns = run.specification.data.options.get("columns")
        data = read_pulls(data, reward_range=bounds, columns=columns)[0]
    else:
        refuse_options(options)
    if not run.problem.feature_size:
        # A log need not show every arm.
        data = dataclasses.replace(data, features=np.zeros((1, run.problem.arms, 0), np.float32))
    check_pulls(data, run.problem)
    policy, log = as_transitions(run.method, data, run.problem)
    estimators, explore = choose_estimators(policy, log, estimators, explore)
    found = judge_seeds(
        *(run, log, estimators, explore),
        policy=policy,
        max_weight=max_weight,
        seed=seed,
        progress=progress,
    )
    judged = "exploring" if explore else "greedy"
    return Evaluation(run.name, estimates=found, policy_judged=judged)


def _on_texts(run: Run, data: str | Path | None, reward: Any, seed: int) -> Evaluation:
    """What held-out texts say of the models of a run."""
    found = score_texts(run, data=data, reward=reward, seed=seed)
    means = found.scores.mean(axis=1)
    perplexity = win_rate = None
    if found.measure == "log-likelihood":
        perplexity = interval(np.exp(-means), "mean")
    if found.measure == "reward" and found.base is not None:
        wins = (found.scores > found.base) + 0.5 * (found.scores == found.base)
        win_rate = interval(wins.mean(axis=1), "mean")
    return Evaluation(
        run.name,
        score=interval(means, "mean"),
        measure=found.measure,
        data=str(found.data),
        scores=np.asarray(found.scores, np.float64),
        base=None if found.base is None else float(np.mean(found.base)),
        perplexity=perplexity,
        win_rate=win_rate,
    )
