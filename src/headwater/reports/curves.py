"""Figures that compare methods: learning curves, and how often scores exceed a threshold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headwater.core.errors import DataError
from headwater.evaluation.statistics import FEWEST_SEEDS, Band, band, performance_profile
from headwater.reports import style

_STATISTICS = {"iqm": "interquartile mean", "mean": "mean", "median": "median"}


def draw_learning_curves(
    curves: Mapping[str, tuple[Any, Any]],
    path: str | Path,
    *,
    target: float | None = None,
    references: Mapping[str, float] | None = None,
    title: str = "",
    xlabel: str = "environment steps",
    ylabel: str = "return",
    statistic: str = "iqm",
    level: float = 0.95,
) -> None:
    """Writes a PNG of learning curves over seeds with bootstrap bands to `path`.

    Where there are too few seeds for a band, every seed is drawn as a thin line instead.

    **Arguments:** `curves`: by name, `(steps [evaluation], returns [seed, evaluation])`; `target`:
    a return to mark; `references`: further returns to mark, by name (a behaviour policy, say);
    `statistic`, `level`: as in `headwater.evaluation.statistics.band`.

    Raises `DataError` if there is nothing to draw or shapes do not fit.
    """
    if not curves:
        raise DataError("there are no learning curves to draw: give at least one")
    figure = style.new_figure(7.4, 4.5)
    axis = figure.subplots()
    handles, ends, reach = [], [], []
    fewest, most = 10**9, 0
    for index, (name, (steps, returns)) in enumerate(curves.items()):
        steps, returns = np.asarray(steps, np.float64), np.asarray(returns, np.float64)
        if returns.ndim != 2 or steps.shape != returns.shape[1:]:
            raise DataError(
                f"the curve '{name}' has {steps.shape} steps and {returns.shape} returns: one step "
                "per evaluation, and one row of returns per seed, are needed"
            )
        middle = band(returns, statistic, level=level)
        handles.append(_draw_band(axis, index, steps, middle, returns))
        ends.append(middle.point[-1])
        reach.append(steps[-1])
        fewest, most = min(fewest, middle.seeds), max(most, middle.seeds)
    style.format_axis(axis, across=xlabel, up=ylabel)
    style.shorten_ticks(axis.xaxis, axis.yaxis)
    axis.set_xlim(min(float(np.min(steps)) for steps, _ in curves.values()), max(reach))
    _mark_levels(axis, target, references or {})
    together = min(reach) > 0.9 * max(reach)
    short = max(len(name) for name in curves) <= 22
    if 1 < len(curves) <= 6 and together and short:
        style.name_at_the_right(axis, list(curves), ends)
    else:
        style.name_at_the_top(axis, handles, list(curves))
    style.head(
        figure, title, _note(_STATISTICS.get(statistic, statistic), fewest, most, level, True)
    )
    style.save(figure, path)


def draw_performance_profile(
    scores: Mapping[str, Any],
    path: str | Path,
    *,
    thresholds: Any = None,
    title: str = "",
    xlabel: str = "score",
    level: float = 0.95,
) -> None:
    """Writes a PNG of the fraction of runs above each score, per method, to `path`.

    **Arguments:** `scores`: by name, `[seed]` or `[seed, task]`; `thresholds`: scores to ask about,
    from the lowest to the highest run if not given.
    """
    if not scores:
        raise DataError("there are no scores to draw: give those of at least one method")
    if thresholds is None:
        every = np.concatenate([np.ravel(table) for table in scores.values()])
        margin = 0.04 * max(float(np.ptp(every)), 1e-9)
        thresholds = np.linspace(every.min() - margin, every.max() + margin, 401)
    thresholds = np.asarray(thresholds, np.float64)
    figure = style.new_figure(7.4, 4.5)
    axis = figure.subplots()
    handles, seeds = [], []
    for index, table in enumerate(scores.values()):
        profile = performance_profile(table, thresholds, level=level)
        handles.append(_draw_band(axis, index, thresholds, profile, None))
        seeds.append(profile.seeds)
    style.format_axis(axis, across=xlabel, up="fraction of runs above", grid="both")
    style.shorten_ticks(axis.xaxis)
    axis.set_ylim(0.0, 1.03)
    axis.set_xlim(thresholds[0], thresholds[-1])
    style.name_at_the_top(axis, handles, list(scores))
    style.head(figure, title, _note("all runs", min(seeds), max(seeds), level, False))
    style.save(figure, path)


def _draw_band(axis, index: int, across: np.ndarray, middle: Band, runs: np.ndarray | None):
    look = style.look(index)
    if middle.low is not None and middle.high is not None:
        axis.fill_between(
            across, middle.low, middle.high, color=look["color"], alpha=0.16, linewidth=0
        )
    elif runs is not None:
        for run in runs:
            axis.plot(across, run, color=look["color"], linewidth=0.8, alpha=0.45)
    marker = "o" if across.size <= 25 else None
    (line,) = axis.plot(
        across,
        middle.point,
        linewidth=2.1,
        marker=marker,
        markersize=3.6,
        solid_capstyle="round",
        zorder=3,
        **look,
    )
    return line


def _mark_levels(axis, target: float | None, references: Mapping[str, float]) -> None:
    from matplotlib.patheffects import withStroke

    levels = [(name, value, style.FAINT, (0, (1, 2))) for name, value in references.items()]
    if target is not None:
        levels.append(("target", target, style.INK, (0, (5, 3))))
    for _, value, colour, dashes in levels:
        axis.axhline(value, color=colour, linewidth=1.2, linestyle=dashes, zorder=2)
    axis.margins(y=0.07)
    low, high = axis.get_ylim()
    axis.set_ylim(low, high)
    for name, value, colour, _ in levels:
        room = 0.08 * (high - low)
        gaps = [other - value for _, other, _, _ in levels]
        # Below its line where it would leave the axes, but never where another name is.
        leaves = value > high - room and not any(-room < gap < 0.0 for gap in gaps)
        below = leaves or any(0.0 < gap < room for gap in gaps)
        axis.annotate(
            f"{name} {style.short_number(value)}",
            (0.0, value),
            xycoords=("axes fraction", "data"),
            xytext=(5, -3 if below else 3),
            textcoords="offset points",
            va="top" if below else "bottom",
            color=colour,
            fontsize=style.NOTE,
            zorder=4,
            path_effects=[withStroke(linewidth=2.0, foreground="white")],
        )


def _note(what: str, fewest: int, most: int, level: float, runs: bool) -> str:
    seeds = f"{fewest} seed{'s' if fewest > 1 else ''}"
    seeds = seeds if fewest == most else f"{fewest} to {most} seeds"
    bands = (
        f"; bands: {100 * level:g}% bootstrap intervals over seeds" if most >= FEWEST_SEEDS else ""
    )
    bands += "; thin lines: single seeds" if fewest < FEWEST_SEEDS and runs else ""
    return f"{what}, {seeds}{bands}"
