"""One page about runs: what they reached, what they saved, how they act, and how they were made."""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from headwater.analysis.describe import describe
from headwater.api.compare import Comparison, compare, task_of
from headwater.api.evaluate import evaluate
from headwater.api.evidence.papers import papers_of
from headwater.api.inputs import read_log, refuse_options
from headwater.api.run import Run, open_run
from headwater.core.catalogue import all_methods
from headwater.core.errors import HeadwaterError, SpecificationError, nearest
from headwater.core.method import AbstractPolicy, AbstractTablePolicy
from headwater.core.papers import all_papers
from headwater.datasets.dataset import Dataset
from headwater.datasets.read import load
from headwater.environments.registry import acted_in
from headwater.evaluation.statistics import FEWEST_SEEDS, difference, seed_means
from headwater.reports import page
from headwater.reports.curves import draw_learning_curves, draw_performance_profile
from headwater.reports.dataset_figure import draw_description
from headwater.reports.episodes import animate_episode, draw_episode, follow_episode
from headwater.reports.intervals import draw_intervals
from headwater.runs.directory import RunDirectory, surroundings
from headwater.runs.options import ADAPT, TRAIN

_LARGEST_LOG = 2_000_000
"""Rows of a log beyond which the page does not describe it: that takes minutes."""


def report(
    runs: Sequence[Run | str | Path] | Run | str | Path,
    out: str | Path = "report.html",
    *,
    names: Sequence[str] | None = None,
    baseline: str | None = None,
    target: float | None = None,
    data: Dataset | str | Path | None = None,
    episodes: bool = True,
    level: float = 0.95,
    data_options: dict[str, Any] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """Writes one self-contained HTML page about runs, and returns its path.

    It shows returns with intervals, learning curves, performance profiles, samples saved, an
    episode of each policy, the logs that were learned from, and settings and provenance. Nothing
    in it is loaded from elsewhere.

    **Arguments:** `runs`: or their directories; runs in different tasks get sections of their own;
    `out`: the page; `names`, `baseline`, `target`, `level`: as in `headwater.compare`; `data`: a
    log from which the policies are judged without acting; `episodes`: follow one episode of each
    policy, where its task can be opened; `data_options`: as in `headwater.evaluate`; `tell`: is
    told what takes long, before it begins.

    Raises `SpecificationError` for names that do not fit, `RunError` for what is no run or a page
    that cannot be written.
    """
    given = [runs] if isinstance(runs, Run | str | Path) else list(runs)
    opened = [run if isinstance(run, Run) else open_run(run) for run in given]
    names = [run.name for run in opened] if names is None else list(names)
    if not opened or len(names) != len(opened) or len(set(names)) != len(names):
        raise SpecificationError(
            f"{len(opened)} runs are called {', '.join(names) or 'nothing'}: give at least one "
            "run, and as many different names as runs"
        )
    if data is None:
        refuse_options(data_options, "no data is given")
    if baseline is not None and baseline not in names:
        raise SpecificationError(nearest(baseline, names, "run"))
    by_name = dict(zip(names, opened))
    evaluated = {name: run for name, run in by_name.items() if run.final_returns is not None}
    groups: dict[str, dict[str, Run]] = {}
    for name, run in evaluated.items():
        groups.setdefault(task_of(run), {})[name] = run
    with tempfile.TemporaryDirectory() as place:
        pictures = Path(place)
        comparisons = [
            compare(
                list(group.values()),
                names=list(group),
                baseline=baseline if baseline in group else None,
                target=target if baseline is None or baseline in group else None,
                level=level,
            )
            for group in groups.values()
        ]
        sections = [("", _lead(by_name, comparisons))]
        for number, (comparison, group) in enumerate(zip(comparisons, groups.values())):
            sections += _results(comparison, group, pictures / f"{number}", len(groups) > 1, level)
        if data is not None:
            sections.append(("Judged from the log", _judged(by_name, data, data_options, tell)))
        if episodes:
            tell("following an episode of each policy")
            sections += _at_work(by_name, pictures)
        sections += _logs(by_name, pictures, tell)
        sections.append(("Settings and provenance", _provenance(by_name)))
        sections.append(("Papers", _papers(by_name)))
        title = "Headwater: " + (names[0] if len(names) == 1 else f"{len(names)} runs")
        return page.write_page(out, title, [each for each in sections if each[1]], broad=True)


def _lead(runs: Mapping[str, Run], comparisons: Sequence[Comparison]) -> str:
    unseen = [name for name, run in runs.items() if run.final_returns is None]
    paragraphs = []
    for comparison in comparisons:
        paragraphs += _standing(comparison, runs)
        paragraphs += [
            f"{row.name} {row.savings.sentence}."
            for row in comparison.rows
            if row.savings is not None
        ]
    text = page.text(*paragraphs, kind="lead") if paragraphs else ""
    if unseen:
        text += page.text(f"Never evaluated: {', '.join(unseen)}.")
    unfinished = [name for name, run in runs.items() if not run.finished]
    if unfinished:
        text += page.text(f"Not finished when this page was written: {', '.join(unfinished)}.")
    return text or page.text("None of these runs was evaluated.")


def _standing(comparison: Comparison, runs: Mapping[str, Run]) -> list[str]:
    """Which run is ahead, and by how much, in one sentence."""
    rows = comparison.rows
    where = f" in {comparison.task}" if comparison.task else ""
    if len(rows) == 1:
        (row,) = rows
        return [f"{row.name} ({row.method}) returns {row.score}{where}."]
    if any(runs[row.name].specification.score != "return" for row in rows):
        return []
    first, second = sorted(rows, key=lambda row: -row.score.point)[:2]
    one, other = (seed_means(runs[row.name].final_returns) for row in (first, second))
    ahead = difference(one, other)
    sure = ahead.interval.low is not None and ahead.interval.low > 0.0
    verdict = (
        "which the seeds decide"
        if sure
        else "which these seeds do not decide"
        if ahead.interval.low is not None
        else "from too few seeds to say more"
    )
    return [
        f"{first.name} ({first.method}) is ahead{where}: it returns {first.score}; {second.name} "
        f"({second.method}) is next, {ahead.interval} behind, {verdict}."
    ]


def _results(
    comparison: Comparison, runs: Mapping[str, Run], stem: Path, several: bool, level: float
) -> list[tuple[str, str]]:
    """The sections of runs in one task."""
    where = f" in {comparison.task}" if several else ""
    against = f"over {comparison.baseline}" if comparison.baseline else ""
    columns = ["run", "method", "seeds", "updates", "new steps", "return", "normalised", against]
    rows = [
        [
            row.name,
            row.method + (f" ({row.recipe})" if row.recipe else ""),
            str(row.seeds),
            f"{row.updates:,}",
            f"{row.steps:,}" if row.steps else "none",
            str(row.score),
            "" if row.normalised is None else str(row.normalised),
            "" if row.advantage is None else str(row.advantage.interval),
        ]
        for row in comparison.rows
    ]
    kept = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    content = page.table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows])
    note = (
        f"Interquartile mean over seeds of the mean return of the last evaluation, with "
        f"{100 * level:g}% bootstrap intervals over seeds"
    )
    if any(row.seeds < FEWEST_SEEDS for row in comparison.rows):
        note += f" where there are at least {FEWEST_SEEDS} seeds"
    content += page.text(f"{note}.", kind="faint")
    for remark in comparison.remarks:
        content += page.text(f"{remark}.", kind="faint")
    if len(rows) > 1:
        dots = _named(stem, "intervals")
        draw_intervals({"": {row.name: row.score for row in comparison.rows}}, dots)
        content += page.picture(dots, f"Returns{where}; whiskers: {100 * level:g}% intervals.")
    sections = [(f"Returns{where}", content)]
    acted = comparison.curves
    offline = {n: r.curve for n, r in runs.items() if n not in acted and r.curve is not None}
    curves = ""
    if acted:
        path = _named(stem, "acted")
        levels = {row.name: row.score.point for row in comparison.rows if row.name in offline}
        draw_learning_curves(
            acted,
            path,
            target=comparison.target,
            references=levels if len(levels) <= 4 else None,
            xlabel="new environment steps per seed",
            level=level,
        )
        curves += page.picture(path, f"Returns{where} against the samples taken there.")
    longer = {name: curve for name, curve in offline.items() if len(curve[0]) > 1}
    if longer:
        path = _named(stem, "offline")
        draw_learning_curves(longer, path, xlabel="updates", level=level)
        curves += page.picture(path, f"Returns{where} against updates; no samples were taken.")
    if curves:
        sections.append((f"Learning curves{where}", curves))
    final = {name: seed_means(run.final_returns) for name, run in runs.items()}
    if len(final) > 1 and min(map(len, final.values())) >= FEWEST_SEEDS:
        path = _named(stem, "profile")
        draw_performance_profile(final, path, xlabel="return", level=level)
        caption = "How large a share of the seeds returns more than so much: higher is better."
        sections.append((f"Performance profile{where}", page.picture(path, caption)))
    saved = [row for row in comparison.rows if row.savings is not None]
    if saved:
        rows = []
        for row in saved:
            assert row.savings is not None
            rows.append([row.name, row.savings.sentence])
        goal = f"Target: a return of {comparison.target:.6g}; against {comparison.baseline}."
        sections.append((f"Samples saved{where}", page.table([], rows) + page.text(goal)))
    return sections


def _judged(
    runs: Mapping[str, Run],
    data: Any,
    data_options: dict[str, Any] | None,
    tell: Callable[[str], None],
) -> str:
    log = read_log(data, data_options, list(runs.values()))
    rows = []
    for name, run in runs.items():
        try:
            tell(f"judging {name} from the log, with values that are fitted for every seed")
            found = evaluate(run, env="none", data=log).estimates
        except HeadwaterError as error:
            rows.append([name, "none", str(error)])
            continue
        for seed, estimates in enumerate(found or []):
            rows += [[name, str(seed), str(estimate)] for estimate in estimates.values()]
    head = page.text("Expected discounted return, estimated from logged experience alone.")
    return head + page.table(["run", "seed", "estimate"], rows)


def _at_work(runs: Mapping[str, Run], pictures: Path) -> list[tuple[str, str]]:
    """An episode of the first seed of every run whose task can be opened here."""
    content, left = "", []
    for number, (name, run) in enumerate(runs.items()):
        finite = isinstance(run.method, AbstractTablePolicy)
        if finite or not isinstance(run.method, AbstractPolicy):
            continue
        try:
            choice = run.specification.task
            if choice is None:
                raise SpecificationError("it was never evaluated in an environment")
            state = jax.tree.map(lambda leaf: leaf[0], run.state)
            task = acted_in(choice.build())
            episode = follow_episode(run.method, state, task, key=jax.random.key(0))
        except HeadwaterError as error:
            left.append(f"{name}: {error}")
            continue
        path = pictures / f"episode{number}.png"
        draw_episode(episode, path, title=name)
        caption = "Greedy actions of the first seed, in the units of the environment."
        if episode.not_drawn:
            caption += f" No pictures: {episode.not_drawn}."
        shown = page.picture(path, caption)
        moving = pictures / f"episode{number}.gif"
        if animate_episode(episode, moving):
            shown += page.picture(moving, f"The same episode of {name}, from beginning to end.")
        content += shown
    if left:
        content += page.text(*(f"Not shown: {each}" for each in left), kind="faint")
    return [("The policies at work", content)]


def _logs(
    runs: Mapping[str, Run], pictures: Path, tell: Callable[[str], None]
) -> list[tuple[str, str]]:
    """What was learned from, as far as it is at hand and has not changed."""
    found: dict[tuple[Path | None, str | None], list[str]] = {}
    options: dict[tuple[Path | None, str | None], dict[str, Any]] = {}
    for name, last in runs.items():
        for run in last.lineage:
            choice = run.specification.data
            if choice is not None and run.base is None and run.process is None:
                log_key = choice.place(run.path), choice.fingerprint
                options.setdefault(log_key, choice.options)
                users = found.setdefault(log_key, [])
                users += [name] if name not in users else []
    sections = []
    for number, ((path, fingerprint), users) in enumerate(found.items()):
        title = "The log" if len(found) == 1 else f"Log {number + 1}"
        place = "" if path is None else f": {path}"
        used = page.text(f"Learned from by {', '.join(users)}{place}")
        try:
            if path is None:
                raise SpecificationError("it was held in memory and is not known any more")
            log = load(path, **options[path, fingerprint])
            if log.size > _LARGEST_LOG:
                raise SpecificationError(f"{log.size:,} rows are described on their own")
            if fingerprint not in (None, log.fingerprint()):
                raise SpecificationError("it has changed since, or was read with other options")
            tell(f"describing {path}")
            description = describe(log)
            figure = pictures / f"log{number}.png"
            draw_description(log, description, figure)
        except HeadwaterError as error:
            sections.append((title, used + page.text(f"Not described: {error}", kind="faint")))
            continue
        shown = page.picture(figure, "What headwater data describe draws.")
        sections.append((title, used + shown + page.table([], description.rows())))
    return sections


def _provenance(runs: Mapping[str, Run]) -> str:
    content = ""
    for name, run in runs.items():
        specification = run.specification
        usual = {
            field.name: field.default
            for field in dataclasses.fields(type(run.method))
            if field.default is not dataclasses.MISSING
        }
        changed = [
            f"{key} = {_plain(value)}"
            for key, value in specification.method.settings.items()
            if key not in usual or _plain(usual[key]) != _plain(value)
        ]
        verb = TRAIN if specification.recipe is None else ADAPT
        groups = ("training", *specification.flow.groups) if verb is TRAIN else verb.groups
        read = {field.name for group in groups for field in verb.fields(group)}
        options = {
            key: value
            for key, value in specification.to_json()["options"].items()
            if value not in (None, [], {}) and key in read and key != "seeds"
        }
        rows = [
            [
                "method",
                f"{specification.method.name}: "
                f"{all_methods()[specification.method.name].info.summary}",
            ],
            ["settings changed", ", ".join(changed) or "none: the paper's"],
            ["seeds", ", ".join(map(str, specification.seeds))],
            ["options", ", ".join(f"{k} = {_plain(v)}" for k, v in options.items())],
        ]
        if specification.recipe is not None and run.upstream is not None:
            rows.append(["adapted", f"{run.upstream.name} by the recipe {specification.recipe}"])
        if specification.data is not None:
            rows.append(
                [
                    "data",
                    f"{specification.data.path} "
                    f"(content {str(specification.data.fingerprint)[:12]})",
                ]
            )
        made = surroundings()
        if run.path is not None:
            rows.append(["directory", str(run.path)])
            made = RunDirectory(run.path).specification.get("made_with") or made
        rows += [
            ["versions", ", ".join(f"{k} {v}" for k, v in made["versions"].items())],
            ["machine", f"{made['device']}, {made['platform']}, Python {made['python']}"],
            ["commit", str(made["commit"] or "not known")],
        ]
        content += f"<h3>{page.faint(name).html}</h3>" + page.table([], rows, (18, 82))
    return content


def _papers(runs: Mapping[str, Run]) -> str:
    known = all_papers()
    keys = dict.fromkeys(key for run in runs.values() for key in papers_of(run))
    return page.text(*(known[key].citation if key in known else key for key in keys))


def _named(stem: Path, what: str) -> Path:
    return stem.with_name(f"{stem.name}-{what}.png")


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple | np.ndarray):
        return "(" + ", ".join(map(_plain, value)) + ")"
    return str(value)
