"""Say which methods to try on a log, why, and whether it is worth learning from at all."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headwater.analysis.advice import Advice, Recommendation, advise_on, advise_on_tasks
from headwater.api.adapt import adapt
from headwater.api.compare import compare
from headwater.api.data.label import label
from headwater.api.evaluate import discount_of, judge_seeds
from headwater.api.inputs import as_task
from headwater.api.run import Run
from headwater.api.train import train
from headwater.core.catalogue import build_method, method_class
from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractLabeller
from headwater.core.papers import citation
from headwater.datasets.dataset import Dataset
from headwater.datasets.metadata import lacks_rewards
from headwater.datasets.read import load
from headwater.evaluation.savings import Savings
from headwater.evaluation.statistics import Difference, Interval, difference, interval, seed_means
from headwater.evidence.record import read_records
from headwater.evidence.registry import all_claims
from headwater.runs.recipes.online import Task

_FIT_UPDATES = 2_000
"""Of the values by which trials are judged from the log alone."""
_CRITIC_FIT = 3_000
"""Updates that fit critics before fine-tuning, at most."""


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """How a recommendation did.

    **Arguments:** `recommendation`; `run`; `score`: over seeds, of the mean return in the
    environment or, without one, of the discounted return that fitted Q evaluation expects; `gain`:
    over the first of the trials.
    """

    recommendation: Recommendation
    run: Run
    score: Interval
    gain: Difference | None


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """What is advised, and what came of trying it.

    **Arguments:** `data`: what the log is called; `reading`: how it was read, by the options of
    `headwater.load`; `advice`; `evidence`: by recommendation, what papers and recorded runs of
    claims bear on it; `logged`: the mean return of the log's episodes, undiscounted or, if trials
    are judged from the log, discounted; `then`: what the logs of the tasks that follow are called;
    `trials`: if there were any; `judged`: how these were judged; `savings`: of samples by adapting
    the best trial, if asked.
    """

    data: str
    reading: dict[str, Any]
    advice: Advice
    evidence: dict[str, list[str]]
    logged: Interval | None
    then: tuple[str, ...] = ()
    trials: tuple[Trial, ...] = ()
    judged: str | None = None
    savings: Savings | None = None

    def _command(self, recommendation: Recommendation) -> str:
        return recommendation.command(self.data, self.reading, self.then)

    def to_json(self) -> dict[str, Any]:
        """Everything as values that JSON can hold."""
        return {
            "data": self.data,
            "then": list(self.then),
            "worth_learning_from": not self.advice.worthless,
            "finding": self.advice.finding,
            "why_not": list(self.advice.worthless),
            "measures": self.advice.measures.to_json(),
            "recommendations": [
                {
                    **dataclasses.asdict(each),
                    "claims": list(each.claims),
                    "papers": list(each.papers),
                    "evidence": self.evidence[each.name],
                    "command": self._command(each),
                }
                for each in self.advice.recommendations
            ],
            "notes": list(self.advice.notes),
            "logged": self.logged and dataclasses.asdict(self.logged),
            "judged": self.judged,
            "trials": [
                {
                    "name": trial.recommendation.name,
                    "score": dataclasses.asdict(trial.score),
                    "gain": trial.gain and dataclasses.asdict(trial.gain),
                }
                for trial in self.trials
            ],
            "savings": self.savings and self.savings.plain(),
        }

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a table, in reading order."""
        advice, shown = self.advice, self.advice.measures
        rows = [
            ("log", f"{shown.episodes:,} episodes, {shown.rows:,} rows, {shown.length:.1f} a time"),
            (
                "actions",
                f"agreement {shown.agreement:.2f} (best tenth {shown.best_agreement:.2f}), "
                f"support {shown.support:.0%}",
            ),
            (
                "returns",
                f"best tenth {shown.best_gain:.1f} standard deviations above the mean; the action "
                f"explains {shown.effect:.0%} of what follows",
            ),
            ("worth learning from", "no" if advice.worthless else "yes"),
        ]
        rows += [("because", reason) for reason in advice.worthless or (advice.finding,)]
        for number, each in enumerate(advice.recommendations, start=1):
            rows.append((f"{number}. {each.name}", each.reason))
            rows += [("evidence", text) for text in self.evidence[each.name]]
            rows.append(("command", self._command(each)))
        rows += [("note", note) for note in advice.notes]
        if self.trials:
            rows.append(("tried", str(self.judged)))
            rows.append(("the log itself", str(self.logged)))
            for trial in self.trials:
                more = "" if trial.gain is None else f"; {trial.gain.interval} over the first"
                rows.append((trial.recommendation.name, f"{trial.score}{more}"))
        if self.savings is not None:
            rows.append(("fine-tuning", self.savings.sentence))
        return rows


def advise(
    data: Dataset | str | Path | Sequence[Dataset | str | Path],
    *,
    env: Task | str | None = None,
    attempt: bool = False,
    updates: int = 5_000,
    seeds: int = 3,
    batch_size: int = 256,
    hidden_sizes: tuple[int, ...] = (64, 64),
    episodes: int = 20,
    fine_tune: int = 0,
    data_options: dict[str, Any] | None = None,
    results: str | Path = "results",
    progress: bool | None = None,
) -> Report:
    """Measures a log, recommends up to three methods with reasons, and tries them if asked.

    **Arguments:**

    - `data`: logged transitions; of several tasks that come one after the other, a list of logs.
    - `env`: where to judge what is tried (default: what the data says, if it is known here;
      `"none"`: judge from the log alone, by fitted Q evaluation).
    - `attempt`: train the recommendations briefly and compare them; `updates`, `seeds`,
      `batch_size`, `hidden_sizes`: of that training; `episodes`: of its evaluation, for each seed.
    - `fine_tune`: environment steps for which the best of them is then adapted, and its twin
      learns from nothing, to say how many samples the log saves; 0 for not.
    - `data_options`: of `headwater.load`, where `data` is a path.
    - `results`: directory of recorded runs of claims, which reasons refer to where it is there.
    - `progress`: show bars; by default on a terminal.

    Raises `DataError` if the log cannot be read, `SpecificationError` for what does not fit
    together.
    """
    if fine_tune and not attempt:
        raise SpecificationError("fine_tune goes on from what was tried: give attempt=True too")
    given = [data] if isinstance(data, Dataset | str | Path) else list(data)
    if not given:
        raise SpecificationError("the list of logs is empty: give one of each task")
    if attempt and len(given) > 1:
        raise SpecificationError(
            "what is advised for several tasks is not tried here: leave out attempt; then train "
            "it, and judge each task (`headwater evaluate RUN --task 0`)"
        )
    name, *then = ["DATA" if isinstance(log, Dataset) else str(log) for log in given]
    logs = [log if isinstance(log, Dataset) else load(log, **(data_options or {})) for log in given]
    dataset = logs[-1]
    advice = advise_on(dataset) if len(logs) == 1 else advise_on_tasks(logs)
    evidence = {each.name: _evidence(each, Path(results)) for each in advice.recommendations}
    logged = None
    if not lacks_rewards(dataset.metadata):
        logged = interval(dataset.episode_returns(), "mean")
    report = Report(name, data_options or {}, advice, evidence, logged, tuple(then))
    if not attempt or not advice.recommendations:
        return report
    task = as_task(env, dataset.metadata.get("environment"))
    if fine_tune and task is None:
        raise SpecificationError("fine-tuning needs an environment to act in: give env")
    if task is None and lacks_rewards(dataset.metadata):
        raise SpecificationError(
            "the data has no rewards, so that what is tried can only be judged by acting: give env"
        )
    learners = [each for each in advice.recommendations if not _labels(each)]
    on = ""
    for each in advice.recommendations:
        if _labels(each):
            method = build_method(each.method, {**each.settings, "hidden_sizes": hidden_sizes})
            labeller = train(
                method,
                dataset,
                seeds=1,
                updates=updates,
                batch_size=batch_size,
                progress=progress,
            )
            dataset, on = label(dataset, labeller), f" on actions that {each.method} inferred"
    runs = []
    for each in learners:
        method = build_method(each.method, {**each.settings, "hidden_sizes": hidden_sizes})
        options: dict[str, Any] = {} if each.top is None else {"top": each.top}
        runs.append(
            train(
                method,
                dataset,
                env="none" if task is None else task,
                seeds=seeds,
                updates=updates,
                batch_size=batch_size,
                evaluations=1,
                episodes=episodes,
                progress=progress,
                **options,
            )
        )
    scores = [_scores(run, dataset, acted=task is not None) for run in runs]
    if task is None:
        discounted = dataset.episode_returns(discount_of(runs[0]))
        report = dataclasses.replace(report, logged=interval(discounted, "mean"))
    first = scores[0]
    trials = tuple(
        Trial(
            each,
            run,
            interval(found, "mean"),
            None if found is first else difference(found, first, "mean"),
        )
        for each, run, found in zip(learners, runs, scores)
    )
    how = (
        f"{seeds} seeds of {updates:,} updates{on}, mean return in {task.name}"
        if task is not None
        else f"{seeds} seeds of {updates:,} updates{on}, discounted return by fitted Q evaluation, "
        "which knows no more than the log"
    )
    savings = None
    if fine_tune:
        best = runs[int(np.argmax([np.mean(found) for found in scores]))]
        savings = _savings(best, dataset, task, fine_tune, min(updates, _CRITIC_FIT), progress)
    return dataclasses.replace(report, trials=trials, judged=how, savings=savings)


def _labels(recommendation: Recommendation) -> bool:
    """Whether it infers what the log lacks, so that others can learn from it."""
    return issubclass(method_class(recommendation.method), AbstractLabeller)


def _evidence(recommendation: Recommendation, results: Path) -> list[str]:
    """What papers and recorded runs of claims bear on a recommendation."""
    found = [citation(paper) for paper in recommendation.papers]
    claims = all_claims()
    records, _ = read_records(results, recommendation.claims)
    for name in recommendation.claims:
        last = [record for record in records if record.claim == name and record.outcome != "error"]
        verdict = f"{last[-1].outcome} ({last[-1].scale} scale)" if last else "not run here"
        learned = claims[name].learned if name in claims else ""
        first = learned.split(". ")[0].rstrip(".")
        found.append(f"claim {name}: {verdict}" + (f"; {first}" if first else ""))
    return found


def _scores(run: Run, data: Dataset, *, acted: bool) -> np.ndarray:
    """What each seed is worth, `[seed]`."""
    if acted:
        return seed_means(run.final_returns)
    # Quietly: what is trained shows bars of its own.
    each = judge_seeds(run, data, ("fqe",), False, updates=_FIT_UPDATES, progress=False)
    return np.asarray([estimates["fqe"].value for estimates in each])


def _savings(
    run: Run, data: Dataset, task: Task | None, steps: int, fit: int, progress: bool | None
) -> Savings | None:
    """What the best trial saves when it goes on by acting, against its twin from nothing.

    **Arguments:** `fit`: updates that fit fresh critics, where those of the trial do not serve.
    """
    adapted = adapt(
        run,
        env=task,
        recipe="keep-data",
        data=data,
        steps=steps,
        critic_fit_updates=fit,
        progress=progress,
    )
    scratch = adapt(run, env=task, recipe="scratch", steps=steps, progress=progress)
    compared = compare([adapted, scratch], names=["adapted", "scratch"], baseline="scratch")
    return compared.rows[0].savings
