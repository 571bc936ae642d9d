"""How figures look: colours, sizes and the frame that all of them share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headwater.runs.files import write_atomically

INK, FAINT, FRAME, GRID = "#22303c", "#6b7a88", "#b9c3cb", "#e9edf0"
"""Text, secondary text, axes, grid."""

COLOURS = ("#1f6f8b", "#d9822b", "#5b34c4", "#8a1232", "#6ab4f0", "#4aa568", "#dba4bb", "#000000")
"""Of series, in order; told apart also with deuteranopia and protanopia."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
"""Of series beyond the colours: the pattern changes each time that the colours begin again."""

TITLE, LABEL, TICK, NOTE = 12.5, 10.0, 9.0, 8.0
"""Font sizes in points."""


def new_figure(width: float, height: float) -> Any:
    """An empty figure, `width` by `height` inches, drawn without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)  # pyright: ignore
    return figure


def save(figure: Any, path: str | Path) -> None:
    """Writes `figure` as a PNG, whole or not at all."""
    write_atomically(
        Path(path),
        lambda temporary: figure.savefig(temporary, format="png", metadata={"Software": None}),
    )


def format_axis(axis: Any, *, across: str, up: str, grid: str = "y") -> None:
    """Frame, ticks, grid and the names of the axes."""
    axis.set_xlabel(across, color=FAINT, fontsize=LABEL)
    axis.set_ylabel(up, color=FAINT, fontsize=LABEL)
    axis.tick_params(colors=FAINT, labelsize=TICK, length=3)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(FRAME)
    axis.grid(axis=grid, color=GRID, linewidth=0.8)
    axis.set_axisbelow(True)


def head(figure: Any, title: str, note: str = "") -> None:
    """A title at the top and a note below the axes, both flush left."""
    if title:
        figure.suptitle(title, x=0.012, ha="left", color=INK, fontsize=TITLE, weight="bold")
    if note:
        # `supxlabel` takes part in the layout; a free text would be drawn over the axes.
        figure.supxlabel(note, x=0.012, ha="left", color=FAINT, fontsize=NOTE)


def look(index: int) -> dict[str, Any]:
    """Colour and dashes of the series number `index`."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
    }


def short_number(value: float, _position: Any = None) -> str:
    """A tick label: 0, 250, 5k, 1.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def shorten_ticks(*axes: Any) -> None:
    """Writes thousands as k and millions as M on these axes (`axis.xaxis`, `axis.yaxis`)."""
    from matplotlib.ticker import FuncFormatter

    for axis in axes:
        axis.set_major_formatter(FuncFormatter(short_number))


def name_at_the_right(axis: Any, names: Sequence[str], heights: Sequence[float]) -> None:
    """Names each series beside the end of its line, apart enough to be read.

    **Arguments:** `heights`: where each line ends, in data units; the limits of `axis` must be set.
    """
    low, high = axis.get_ylim()
    figure_height = axis.figure.get_size_inches()[1]
    gap = 1.45 * LABEL / 72.0 / (0.72 * figure_height) * (high - low)
    places = spread_apart(heights, gap, low + 0.3 * gap, high - 0.3 * gap)
    for index, (name, place) in enumerate(zip(names, places)):
        axis.annotate(
            name,
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=look(index)["color"],
            fontsize=LABEL,
            weight="bold",
            annotation_clip=False,
        )


def name_at_the_top(axis: Any, handles: Sequence[Any], names: Sequence[str]) -> None:
    """A legend in one or more rows between title and axes, each name in its series' colour."""
    width = axis.figure.get_size_inches()[0]
    widest = max(len(name) for name in names)
    # Inches of one entry: its letters, and the line before them.
    columns = max(1, min(len(names), int((width - 0.9) / (0.1 * widest + 0.6))))
    legend = axis.legend(
        handles,
        names,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.01),
        ncols=columns,
        frameon=False,
        fontsize=LABEL,
        handlelength=1.8,
        columnspacing=1.6,
        borderaxespad=0.0,
        borderpad=0.2,
    )
    for index, text in enumerate(legend.get_texts()):
        text.set_color(look(index)["color"])
        text.set_weight("bold")


def spread_apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """`places` moved as little as needed to lie `gap` apart, in the same order, in [low, high]."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved: list[float] = []
    blocks: list[list[float]] = []
    for i in order:
        # Each block: sum of wanted first places, and number of members; overlapping blocks join.
        blocks.append([places[i], 1.0])
        while len(blocks) > 1:
            (total, count), (next_total, next_count) = blocks[-2], blocks[-1]
            if next_total / next_count - total / count >= gap * count:
                break
            shifted = next_total - gap * count * next_count
            blocks[-2:] = [[total + shifted, count + next_count]]
    for total, count in blocks:
        first = total / count
        moved += [first + gap * k for k in range(int(count))]
    overhang = max(0.0, moved[-1] - high) if moved else 0.0
    moved = [max(place - overhang, low) for place in moved]
    for k in range(1, len(moved)):
        moved[k] = max(moved[k], moved[k - 1] + gap)
    result = [0.0] * len(places)
    for place, i in zip(moved, order):
        result[i] = place
    return result
