"""All claims on one page, with a figure for each: what was claimed, and what was found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headwater.evidence.claim import Criterion
from headwater.evidence.record import Record
from headwater.evidence.summary import Standing, Summary
from headwater.reports import page, style
from headwater.runs.files import write_atomically

_KINDS: dict[Standing, page.Kind] = {
    "holds": "good",
    "fails": "bad",
    "undecided": "unsure",
    "error": "bad",
    "not run": "plain",
}
_COLUMNS = {"verdict": 10, "claim": 40, "found": 33, "run": 17}
"""Columns of the table of all claims, and their shares of the width in percent."""
_GOOD = style.COLOURS[5]
_SHADE = "#eef6f0"
_INTRODUCTION = (
    "Each claim is a statement of a paper, or a consequence of one, as a program: an experiment, "
    "numbers with 95% intervals, and a bound that each of them has to keep. A claim holds if every "
    "interval lies within its bound, fails if one lies outside, and is undecided if neither is so. "
    "Where it was run with several seeds, which draw other instances, the worst verdict counts. "
    "Claims that fail stay here, with what was learned."
)


def write_claims(
    summaries: Sequence[Summary], directory: str | Path, complaints: Sequence[str] = ()
) -> tuple[Path, Path]:
    """Writes `claims.html` and `claims.md` with a row and a figure for each claim.

    The page holds its figures itself; the text links to those in `figures/`.

    **Arguments:** `complaints`: about results that could not be read. Raises `RunError` if the
    directory cannot be written. **Returns:** the paths of both.
    """
    directory = Path(directory)
    figures: dict[str, Path] = {}
    for summary in summaries:
        if any(record.criteria for record in summary.records):
            figures[summary.claim.name] = directory / "figures" / f"{summary.claim.name}.png"
            draw_claim(summary, figures[summary.claim.name])
    text = _text(summaries, figures, complaints)
    path = directory / "claims.md"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return _page(summaries, figures, complaints, directory / "claims.html"), path


# The figure -------------------------------------------------------------------------------------


def draw_claim(summary: Summary, path: str | Path) -> None:
    """Writes a PNG: the curves of the first seed if there are any, and all seeds' criteria."""
    records = [record for record in summary.records if record.criteria]
    drawn = next((record for record in records if record.curves), None)
    named = [criterion.what for criterion in records[0].criteria]
    strip = 0.62 + 0.16 * len(records)
    strips = len(named) * strip + 0.35
    height = 0.95 + (strips if drawn is None else strips + 3.1)
    figure = style.new_figure(7.4, height)
    if drawn is None:
        axes = list(figure.subplots(len(named), 1, squeeze=False)[:, 0])
    else:
        ratios = [3.1, *([strip] * len(named))]
        every = figure.subplots(1 + len(named), 1, squeeze=False, height_ratios=ratios)[:, 0]
        axes = list(every[1:])
        _draw_curves(every[0], drawn)
    for axis, what in zip(axes, named):
        found = [
            (record.seed, criterion)
            for record in records
            for criterion in record.criteria
            if criterion.what == what
        ]
        _draw_criterion(axis, found)
    style.head(figure, "", _note(records, drawn))
    style.save(figure, path)


def _draw_curves(axis: Any, record: Record) -> None:
    handles = []
    for index, curve in enumerate(record.curves.values()):
        look = style.look(index)
        if curve.low is not None and curve.high is not None:
            axis.fill_between(
                curve.x, curve.low, curve.high, color=look["color"], alpha=0.16, linewidth=0
            )
        marker = "o" if len(curve.x) <= 12 else None
        (line,) = axis.plot(
            curve.x, curve.mean, linewidth=2.0, marker=marker, markersize=4.0, zorder=3, **look
        )
        handles.append(line)
    if "x" in record.logarithmic and all(min(c.x) > 0 for c in record.curves.values()):
        axis.set_xscale("log")
    if "y" in record.logarithmic and all(min(c.mean) > 0 for c in record.curves.values()):
        axis.set_yscale("log")
    axis.margins(x=0.01)
    style.format_axis(axis, across=record.across, up=record.up)
    axis.tick_params(which="minor", color=style.FRAME)
    for name, scale in ((axis.xaxis, axis.get_xscale()), (axis.yaxis, axis.get_yscale())):
        if scale == "linear":
            style.shorten_ticks(name)
    names = list(record.curves)
    style.name_at_the_top(axis, handles, names)


def _draw_criterion(axis: Any, found: list[tuple[int, Criterion]]) -> None:
    """One row per seed: the interval, against the shaded side where it has to be."""
    first = found[0][1]
    bound = first.at_least if first.at_least is not None else first.at_most
    assert bound is not None
    low, high = _reach([criterion for _, criterion in found], bound)
    axis.set_xlim(low, high)
    good = (bound, high) if first.at_least is not None else (low, bound)
    axis.axvspan(*good, color=_SHADE, zorder=0)
    axis.axvline(bound, color=_GOOD, linewidth=1.4, zorder=1)
    for place, (_, criterion) in enumerate(found):
        value, colour = criterion.value, _COLOURS[criterion.verdict]
        if value.low is not None and value.high is not None and value.low < value.high:
            axis.plot(
                [max(value.low, low), min(value.high, high)],
                [place, place],
                color=colour,
                linewidth=3.2,
                alpha=0.4,
                solid_capstyle="butt",
                zorder=2,
            )
        axis.plot([value.point], [place], "o", color=colour, markersize=5.5, zorder=3)
    axis.set_ylim(len(found) - 0.4, -0.6)
    style.format_axis(axis, across="", up="", grid="x")
    axis.set_yticks(range(len(found)), [f"seed {seed}" for seed, _ in found], fontsize=style.NOTE)
    axis.tick_params(axis="y", length=0, colors=style.FAINT)
    style.shorten_ticks(axis.xaxis)
    axis.set_title(
        f"{first.what}: must be {first.bound}", loc="left", color=style.INK, fontsize=style.LABEL
    )


_COLOURS = {"holds": "#2c7a4b", "fails": "#a3243b", "undecided": "#a86a12"}


def _reach(criteria: list[Criterion], bound: float) -> tuple[float, float]:
    """Limits of an axis that show every finite end, the bound, and some room on both sides."""
    ends = [bound]
    for criterion in criteria:
        value = criterion.value
        ends += [x for x in (value.point, value.low, value.high) if x is not None]
    finite = [x for x in ends if abs(x) < float("inf")]
    low, high = min(finite), max(finite)
    room = 0.12 * (high - low) or 0.1 * max(abs(high), 1.0)
    return low - room, high + room


def _note(records: Sequence[Record], drawn: Record | None) -> str:
    parts = [] if drawn is None else [_curve_note(drawn)]
    parts.append("bars: 95% intervals; shaded: where the number has to be")
    return "; ".join(parts)


def _curve_note(record: Record) -> str:
    count = max(curve.seeds for curve in record.curves.values())
    over = f"mean over {count} repetitions" if count > 1 else "a single repetition"
    bands = any(curve.low is not None for curve in record.curves.values())
    return f"curves: {over}{' with its 95% interval' if bands else ''}, seed {record.seed}"


# The page ---------------------------------------------------------------------------------------


def _page(summaries, figures, complaints, path: Path) -> Path:
    sections = [
        (
            "",
            page.text(_count(summaries), kind="lead")
            + page.text(_INTRODUCTION)
            + page.text(*complaints, kind="faint"),
        ),
        (
            "All claims",
            page.table(["verdict", "claim", "found", "run"], _rows(summaries), (10, 40, 33, 17)),
        ),
    ]
    for summary in summaries:
        sections.append((summary.claim.name, _section(summary, figures)))
    return page.write_page(path, "Headwater: executable claims", sections, broad=True)


def _rows(summaries: Sequence[Summary]) -> list[list[str | page.Markup]]:
    rows: list[list[str | page.Markup]] = []
    for summary in summaries:
        claim = summary.claim
        source = page.faint(claim.source)
        rows.append(
            [
                page.lines(*_standing(summary)),
                page.lines(page.link(claim.name), claim.statement, source),
                page.lines(*_numbers(summary)),
                page.lines(*_circumstances(summary)),
            ]
        )
    return rows


def _standing(summary: Summary) -> list[page.Markup]:
    """The verdict; at the scale of seconds it says little."""
    shown = [page.badge(summary.verdict, _KINDS[summary.verdict])]
    return [*shown, page.faint("at smoke scale")] if summary.scale == "smoke" else shown


def _section(summary: Summary, figures) -> str:
    claim = summary.claim
    facts: list[list[str | page.Markup]] = [
        ["verdict", page.lines(*_standing(summary))],
        ["paper", claim.source],
        ["methods", ", ".join(claim.methods) or "none"],
    ]
    if summary.records:
        facts.append(["found", page.lines(*_numbers(summary))])
        facts.append(["run", page.lines(*_circumstances(summary))])
    if claim.learned:
        facts.insert(1, ["learned", claim.learned])
    left = page.text(claim.statement) + page.table([], facts)
    left += page.commands(f"headwater claim run {claim.name}{_scale_option(summary)}")
    if claim.name not in figures:
        return left
    shown = page.picture(figures[claim.name], f"{claim.name}, scale {summary.scale}")
    return page.columns(left, shown)


def _scale_option(summary: Summary) -> str:
    return "" if summary.scale in (None, "small") else f" --scale {summary.scale}"


def _count(summaries: Sequence[Summary]) -> str:
    counts: dict[Standing, int] = {}
    for summary in summaries:
        counts[summary.verdict] = counts.get(summary.verdict, 0) + 1
    counted = [
        f"{counts[s]} {'hold' if s == 'holds' else _PLURAL[s]}" for s in _KINDS if s in counts
    ]
    return f"{len(summaries)} claims: {', '.join(counted)}."


_PLURAL: dict[Standing, str] = {
    "fails": "fail",
    "undecided": "undecided",
    "error": "stopped by an error",
    "not run": "not run yet",
}


def _numbers(summary: Summary) -> list[str]:
    """Every criterion of the first seed with its number; further seeds in short."""
    lines = []
    for record in summary.records[:1]:
        lines += [f"{c.what}: {c.found}, must be {c.bound}" for c in record.criteria]
        if record.message:
            lines.append(record.message)
    for record in summary.records[1:]:
        numbers = "; ".join(criterion.found for criterion in record.criteria)
        lines.append(f"seed {record.seed}: {numbers or record.message} ({record.outcome})")
    return lines


def _circumstances(summary: Summary) -> list[str]:
    """Scale, seeds, time taken, commit and date."""
    if not summary.records:
        return []
    seeds = [str(record.seed) for record in summary.records]
    taken = [record.seconds for record in summary.records]
    lines = [
        f"scale {summary.scale}, seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}",
        f"{_seconds(max(taken))} each" if len(taken) > 1 else _seconds(taken[0]),
    ]
    commits = dict.fromkeys(_commit(record) for record in summary.records)
    lines.append(f"commit {', '.join(commits)}")
    devices = dict.fromkeys(str(r.made_with["device"]).partition(": ")[2] for r in summary.records)
    lines.append(f"{summary.records[-1].time[:10]}, {', '.join(devices)}")
    return lines


def _commit(record: Record) -> str:
    return (record.commit or "unknown")[:9] + (" + changes" if record.dirty else "")


def _seconds(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 100 else f"{seconds:.1f} s"


# The text ---------------------------------------------------------------------------------------


def _text(summaries, figures, complaints) -> str:
    lines = ["# Claims", "", _count(summaries), "", _INTRODUCTION, ""]
    lines += [f"- {complaint}" for complaint in complaints]
    lines += ["", "| claim | paper, where | found | verdict | run |", "|---|---|---|---|---|"]
    for summary in summaries:
        claim = summary.claim
        cells = [
            f"[{claim.name}](#{claim.name})",
            claim.source,
            "<br>".join(_cell(line) for line in _numbers(summary)),
            f"**{summary.verdict}**",
            "<br>".join(_circumstances(summary)),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    for summary in summaries:
        claim = summary.claim
        lines += ["", f"## {claim.name}", "", f"**{summary.verdict}**. {claim.statement}", ""]
        lines += [f"{claim.source}. Methods: {', '.join(claim.methods) or 'none'}.", ""]
        if claim.learned:
            lines += [f"Learned: {claim.learned}", ""]
        lines += [f"- {line}" for line in [*_numbers(summary), *_circumstances(summary)]]
        if claim.name in figures:
            lines += ["", f"![{claim.name}](figures/{claim.name}.png)"]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
