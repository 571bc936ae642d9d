"""Dots with whiskers: one estimate with its interval per method and dataset."""

from collections.abc import Mapping
from pathlib import Path

from headwater.core.errors import DataError
from headwater.evaluation.statistics import Interval
from headwater.reports import style


def draw_intervals(
    table: Mapping[str, Mapping[str, Interval]],
    path: str | Path,
    *,
    title: str = "",
    xlabel: str = "return",
    references: Mapping[str, float] | None = None,
    note: str = "",
) -> None:
    """Writes a PNG of point estimates and intervals to `path`, datasets from top to bottom.

    **Arguments:** `table`: by dataset, then by method; `references`: values to mark, by name.

    Raises `DataError` if there is nothing to draw.
    """
    methods = list(dict.fromkeys(name for row in table.values() for name in row))
    if not methods:
        raise DataError("there are no estimates to draw: give at least one dataset and method")
    single = len(table) == 1
    lines = sum(len(row) for row in table.values()) + 0.7 * (len(table) - 1)
    figure = style.new_figure(7.4, 1.35 + 0.3 * lines + (0.0 if single else 0.25))
    axis = figure.subplots()
    place, ticks, labels, handles = 0.0, [], [], {}
    for dataset, row in table.items():
        first = place
        for method in methods:
            if method not in row:
                continue
            estimate = row[method]
            colour = style.look(methods.index(method))["color"]
            if estimate.low is not None and estimate.high is not None:
                axis.plot(
                    [estimate.low, estimate.high],
                    [place, place],
                    color=colour,
                    linewidth=3.4,
                    alpha=0.38,
                    solid_capstyle="round",
                )
            hollow = estimate.low is None
            (handles[method],) = axis.plot(
                [estimate.point],
                [place],
                marker="o",
                linestyle="none",
                markersize=7,
                color=colour,
                markerfacecolor="white" if hollow else colour,
                markeredgewidth=1.6,
                zorder=3,
            )
            axis.annotate(
                style.short_number(float(f"{estimate.point:.3g}")),
                (1.0, place),
                xycoords=("axes fraction", "data"),
                xytext=(8, 0),
                textcoords="offset points",
                va="center",
                color=colour,
                fontsize=style.TICK,
                annotation_clip=False,
            )
            if single:
                ticks.append(place)
                labels.append(method)
            place += 1.0
        if not single:
            ticks.append(0.5 * (first + place - 1.0))
            labels.append(dataset)
        place += 0.7
    axis.set_ylim(place - 1.0, -0.7)
    style.format_axis(axis, across=xlabel, up="", grid="x")
    axis.set_yticks(ticks, labels, color=style.INK, fontsize=style.LABEL)
    axis.tick_params(axis="y", length=0)
    axis.margins(x=0.05)
    style.shorten_ticks(axis.xaxis)
    for name, value in (references or {}).items():
        axis.axvline(value, color=style.FAINT, linewidth=1.2, linestyle=(0, (1, 2)), zorder=1)
        axis.annotate(
            name,
            (value, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=style.FAINT,
            fontsize=style.NOTE,
        )
    if not single:
        style.name_at_the_top(axis, [handles[name] for name in methods], methods)
    style.head(figure, title, note)
    style.save(figure, path)
