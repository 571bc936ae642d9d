"""A figure of what is in a dataset."""

from pathlib import Path

import numpy as np

from headwater.analysis.describe import Description
from headwater.datasets.dataset import Dataset
from headwater.reports import style

_MAIN, _SECOND = style.COLOURS[:2]
_POINTS = 4_000
_BINS = 41
_PROJECTED = 100_000


def draw_description(dataset: Dataset, description: Description, path: str | Path) -> None:
    """Writes a PNG of four panels to `path`, whole or not at all.

    They show the distribution of returns, the returns in the order of collection, the actions that
    were tried, and the first two principal components of the observations.
    """
    figure = style.new_figure(10.5, 7.6)
    figure.get_layout_engine().set(wspace=0.04, hspace=0.05)  # pyright: ignore
    axes = figure.subplots(2, 2)
    style.head(figure, _title(description))
    _draw_returns(axes[0, 0], dataset, description)
    _draw_order(axes[0, 1], dataset, description)
    if dataset.spaces.discrete:
        _draw_counts(axes[1, 0], dataset)
    else:
        _draw_support(figure, axes[1, 0], dataset)
    _draw_states(figure, axes[1, 1], dataset)
    style.save(figure, path)


def _title(description: Description) -> str:
    task = "" if description.environment is None else f" · {description.environment}"
    return (
        f"{description.name}{task} · {description.transitions:,} transitions in "
        f"{description.episodes:,} episodes"
    )


def _format_axis(axis, title: str, across: str, up: str, *, grid: bool = True) -> None:
    axis.set_title(title, loc="left", color=style.INK, fontsize=11)
    style.format_axis(axis, across=across, up=up)
    if not grid:
        axis.grid(False)


def _draw_returns(axis, dataset: Dataset, description: Description) -> None:
    returns = dataset.episode_returns()
    bins = int(np.clip(2 * np.sqrt(returns.size), 8, 50))
    spread = np.ptp(returns)
    if spread <= 1e-9 * max(1.0, abs(returns[0])):
        # A single value: one bar around it.
        half = 0.5 * max(1.0, abs(returns[0])) * 0.1
        edges = np.linspace(returns[0] - half, returns[0] + half, 10)
    else:
        edges = np.linspace(returns.min(), returns.max(), bins + 1)
    axis.hist(returns, bins=edges, color=_MAIN, alpha=0.9, edgecolor="white", linewidth=0.5)
    axis.axvline(description.return_mean, color=_SECOND, linewidth=1.8)
    height = axis.get_ylim()[1]
    axis.set_ylim(0, height * 1.12)
    on_right = description.return_mean < 0.5 * (edges[0] + edges[-1])
    axis.annotate(
        f"mean {description.return_mean:,.4g}",
        (description.return_mean, height * 1.06),
        xytext=(6 if on_right else -6, 0),
        textcoords="offset points",
        ha="left" if on_right else "right",
        va="center",
        color=_SECOND,
        fontsize=style.TICK,
    )
    _format_axis(axis, "Returns of the episodes", "undiscounted return", "episodes")
    references = description.references
    if references is not None:
        low, width = references["random"], references["expert"] - references["random"]
        scores = axis.secondary_xaxis(
            "top", functions=(lambda g: 100 * (g - low) / width, lambda s: low + s * width / 100)
        )
        mark = ", indicative" if references["indicative"] else ""
        scores.set_xlabel(
            f"normalised score (0 random, 100 expert{mark})", color=style.FAINT, fontsize=style.TICK
        )
        scores.tick_params(colors=style.FAINT, labelsize=style.TICK, length=3)
        scores.spines["top"].set_color(style.FRAME)


def _draw_order(axis, dataset: Dataset, description: Description) -> None:
    returns = dataset.episode_returns()
    terminal = dataset.terminals[dataset.episode_starts[1:] - 1]
    shown = np.unique(np.linspace(0, returns.size - 1, min(returns.size, _POINTS)).astype(int))
    size = float(np.clip(1_200 / shown.size, 4, 26))
    for flag, colour, label in ((False, _MAIN, "truncated"), (True, _SECOND, "terminal")):
        chosen = shown[terminal[shown] == flag]
        if chosen.size:
            axis.scatter(
                chosen, returns[chosen], s=size, color=colour, alpha=0.55, linewidths=0, label=label
            )
    window = max(1, returns.size // 25)
    if window > 1:
        middle = np.convolve(returns, np.ones(window) / window, "valid")
        start = (window - 1) / 2
        axis.plot(
            np.arange(middle.size) + start,
            middle,
            color=style.INK,
            linewidth=1.6,
            label=f"mean of {window}",
        )
    low, high = returns.min(), returns.max()
    if high > low:
        axis.set_ylim(low - 0.05 * (high - low), high + 0.2 * (high - low))
    axis.legend(
        loc="upper left",
        ncols=3,
        frameon=False,
        fontsize=style.TICK,
        labelcolor=style.FAINT,
        handletextpad=0.4,
        markerscale=float(np.sqrt(22 / size)),
    )
    lengths = description.length_quantiles
    length = (
        f"all {lengths[0]:,.0f} steps long"
        if lengths[0] == lengths[-1]
        else f"{lengths[0]:,.0f} to {lengths[-1]:,.0f} steps long"
    )
    _format_axis(
        axis, "Returns in the order of collection", f"episode ({length})", "undiscounted return"
    )


def _draw_support(figure, axis, dataset: Dataset) -> None:
    edges = np.linspace(-1.0, 1.0, _BINS + 1)
    density = np.stack([np.histogram(column, edges)[0] for column in dataset.actions.T])
    density = density / dataset.size * 100.0
    size = density.shape[0]
    if size == 1:
        axis.stairs(density[0], edges, fill=True, color=_MAIN, alpha=0.9)
        axis.set_xlim(-1.0, 1.0)
        _format_axis(axis, "Actions tried", "canonical action", f"% of the rows, in {_BINS} bins")
        return
    image = axis.imshow(
        np.where(density > 0, density, np.nan),
        aspect="auto",
        origin="lower",
        extent=(-1.0, 1.0, -0.5, size - 0.5),
        cmap=_colours(),
        norm=_logarithmic(density),
        interpolation="nearest",
    )
    ticks = np.unique(np.linspace(0, size - 1, min(size, 12)).astype(int))
    axis.set_yticks(ticks)
    for line in range(1, size):
        axis.axhline(line - 0.5, color="white", linewidth=1.2)
    _format_axis(
        axis, "Actions tried", "canonical action (white: never tried)", "component", grid=False
    )
    _bar(figure, image, axis, "% of the rows, per bin")


def _draw_counts(axis, dataset: Dataset) -> None:
    count = dataset.spaces.action_size
    shares = np.bincount(dataset.actions, minlength=count) / dataset.size * 100.0
    bars = axis.bar(np.arange(count), shares, color=_MAIN, alpha=0.9, width=0.75)
    if count <= 10:
        axis.bar_label(bars, fmt="%.1f%%", color=style.FAINT, fontsize=style.TICK, padding=2)
    axis.axhline(100.0 / count, color=_SECOND, linewidth=1.4, linestyle=(0, (4, 3)))
    axis.set_ylim(0, max(shares.max(), 100.0 / count) * 1.18)
    axis.annotate(
        f"dashed: uniform, {100.0 / count:.3g}%",
        # In the room above all bars, which would stand behind it at the height of its line.
        (1.0, 1.0),
        xycoords="axes fraction",
        xytext=(-3, -3),
        textcoords="offset points",
        ha="right",
        va="top",
        color=_SECOND,
        fontsize=style.TICK,
    )
    axis.set_xticks(np.arange(0, count, -(-count // 13)))
    _format_axis(axis, "Actions tried", "action", "% of the rows")


def _draw_states(figure, axis, dataset: Dataset) -> None:
    step = max(1, dataset.size // _PROJECTED)
    rows = dataset.observations[::step].astype(np.float64)
    spread = rows.std(0)
    rows = (rows - rows.mean(0)) / np.where(spread > 0, spread, 1.0)
    if rows.shape[1] == 1:
        axis.hist(rows[:, 0], bins=50, color=_MAIN, edgecolor="white", linewidth=0.5)
        _format_axis(axis, "States visited", "standardised observation", "rows")
        return
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(rows.T)))
    share = values[::-1][:2] / max(values.sum(), 1e-12) * 100.0
    points = rows @ vectors[:, ::-1][:, :2]
    image = axis.hexbin(*points.T, gridsize=48, bins="log", mincnt=1, cmap=_colours(), linewidths=0)
    _format_axis(
        axis,
        "States visited",
        f"first principal component ({share[0]:.0f} % of the variance)",
        f"second ({share[1]:.0f} %)",
        grid=False,
    )
    _bar(figure, image, axis, "rows" if step == 1 else f"rows (one in {step} shown)")


def _bar(figure, image, axis, label: str) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    bar = figure.colorbar(image, ax=axis, pad=0.02, aspect=28)
    bar.outline.set_visible(False)  # pyright: ignore
    bar.ax.tick_params(colors=style.FAINT, labelsize=style.NOTE, length=2)
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=7))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    style.shorten_ticks(bar.ax.yaxis)
    bar.set_label(label, color=style.FAINT, fontsize=style.TICK)


def _logarithmic(values: np.ndarray):
    from matplotlib.colors import LogNorm

    seen = values[values > 0]
    return LogNorm(vmin=float(seen.min()), vmax=float(max(seen.max(), seen.min() * 10)))


def _colours():
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(
        "depth", ["#d8ebf0", "#8cc3d1", "#3b93ad", "#1b5f7c", "#0f2f4a"]
    )
