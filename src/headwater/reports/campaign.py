"""A campaign on one page: what came out of each experiment, and what to take."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headwater.core.errors import RunError
from headwater.core.problems.trial import Trial
from headwater.reports import page, style

_ACROSS, _MOST_PANELS = 3, 12


class Summary(NamedTuple):
    """What is shown of a campaign.

    **Arguments:** `name`; `quantities`: their names; `earlier`, `trials`: experiments of before and
    those that were asked for; `best`: of all of them; `recommended`: the point of the best expected
    value; `minimise`: less is better; `most`: experiments there may be; `settings`: of the method;
    `logarithmic`: by quantity; `costs`: of each fidelity.
    """

    name: str
    quantities: Sequence[str]
    earlier: Sequence[Trial]
    trials: Sequence[Trial]
    best: Trial | None
    recommended: Mapping[str, float] | None
    minimise: bool
    most: int
    settings: Mapping[str, Any]
    logarithmic: Mapping[str, bool]
    costs: Sequence[float]


def write_campaign(summary: Summary, path: str | Path) -> None:
    """Writes an HTML page: the best, the recommended point, the figure, and every experiment."""
    sections = [("", page.text(standing(summary), kind="lead"))]
    if summary.best is not None:
        named = [("best so far", summary.best.point), ("recommended", summary.recommended or {})]
        rows = [[what, *(f"{point[n]:g}" for n in summary.quantities)] for what, point in named]
        note = "Recommended is the point whose expected value is the best, tried or not."
        table = page.table(["", *summary.quantities], rows)
        sections.append(("What to take", table + page.text(note, kind="faint")))
        with tempfile.TemporaryDirectory() as folder:
            drawn = Path(folder) / "campaign.png"
            draw_campaign(summary, drawn)
            caption = "Values in the order in which they were asked for, and by each quantity."
            sections.append(("What came out", page.picture(drawn, caption)))
    table = page.table(experiment_columns(summary), experiment_rows(summary))
    sections.append(("Experiments", table))
    settings = [[name, str(value)] for name, value in summary.settings.items()]
    sections.append(("How they are chosen", page.table([], settings)))
    page.write_page(path, summary.name, sections)


def standing(summary: Summary) -> str:
    """How far the campaign is, in a sentence."""
    told = sum(trial.status == "told" for trial in summary.trials)
    failed = sum(trial.status == "failed" for trial in summary.trials)
    pending = len(summary.trials) - told - failed
    parts = [f"{told} told", f"{pending} pending"]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{len(summary.earlier)} of before"] if summary.earlier else []
    found = f"{', '.join(parts)}; there may be {summary.most}"
    if len(summary.costs) > 1:
        spent = sum(summary.costs[trial.fidelity] for trial in summary.trials)
        found += f"; those asked for cost {spent:g}"
    if summary.best is None:
        return f"{found}."
    way = "lowest" if summary.minimise else "highest"
    return f"{found}. The {way} value so far is {summary.best.value:g}."


def experiment_columns(summary: Summary) -> list[str]:
    """What the columns of `experiment_rows` are called."""
    level = ["fidelity"] if len(summary.costs) > 1 else []
    return ["experiment", *summary.quantities, *level, "value"]


def experiment_rows(summary: Summary) -> list[list[str]]:
    """A row for each experiment: its number, its quantities, and what came out of it."""
    named = [(f"before {trial.number + 1}", trial) for trial in summary.earlier]
    named += [(str(trial.number), trial) for trial in summary.trials]
    words = {"asked": "pending", "failed": "failed"}
    return [
        [
            name,
            *(f"{trial.point[quantity]:g}" for quantity in summary.quantities),
            *([str(trial.fidelity)] if len(summary.costs) > 1 else []),
            words.get(trial.status) or f"{trial.value:g}",
        ]
        for name, trial in named
    ]


def draw_campaign(summary: Summary, path: str | Path) -> None:
    """Writes a PNG: values in their order with the best so far, and by each quantity.

    Raises `RunError` before anything was told.
    """
    from matplotlib.ticker import MaxNLocator, NullFormatter

    every, last = (*summary.earlier, *summary.trials), len(summary.costs) - 1
    # What is cheap and less exact is not comparable: it is in the table.
    told = [trial for trial in every if trial.value is not None and trial.fidelity == last]
    before = sum(trial.fidelity == last for trial in summary.earlier)
    values = [float(trial.value) for trial in told if trial.value is not None]
    if not values:
        raise RunError("nothing was told yet, so that there is nothing to draw")
    shown = list(summary.quantities)[:_MOST_PANELS]
    lines = -(-len(shown) // _ACROSS)
    figure = style.new_figure(7.4, 3.0 + 1.9 * lines)
    grid = figure.add_gridspec(1 + lines, _ACROSS, height_ratios=[1.5, *([1.0] * lines)])
    axis = figure.add_subplot(grid[0, :])
    places = range(1, len(values) + 1)
    axis.plot(places, values, "o", color=style.COLOURS[0], markersize=4.5, alpha=0.6)
    better = np.minimum if summary.minimise else np.maximum
    axis.step(places, better.accumulate(values), where="post", **style.look(1), linewidth=2.0)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if before:
        axis.axvline(before + 0.5, color=style.FRAME, linestyle=":")
    style.format_axis(axis, across="experiments with a value", up="value")
    for index, name in enumerate(shown):
        axis = figure.add_subplot(grid[1 + index // _ACROSS, index % _ACROSS])
        axis.plot(
            [trial.point[name] for trial in told],
            values,
            "o",
            color=style.COLOURS[0],
            markersize=3.5,
            alpha=0.6,
        )
        if summary.logarithmic[name]:
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
        if summary.recommended is not None:
            axis.axvline(summary.recommended[name], color=style.COLOURS[1], linewidth=1.4)
        style.format_axis(axis, across=name, up="value" if index % _ACROSS == 0 else "")
    note = "line above: the best so far; lines below: the recommended point"
    if before:
        note += "; left of the dots: experiments of before"
    if len(summary.quantities) > len(shown):
        note += f"; of {len(summary.quantities)} quantities the first {len(shown)}"
    style.head(figure, "", note)
    style.save(figure, path)
