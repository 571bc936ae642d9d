"""Figures that compare methods: what they contain, and that they are legible."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

from headwater.core.errors import DataError, RunError
from headwater.evaluation.statistics import Interval, interval
from headwater.reports import style
from headwater.reports.curves import draw_learning_curves, draw_performance_profile
from headwater.reports.intervals import draw_intervals

STEPS = np.arange(0, 5001, 500.0)


def curve(seeds=5, offset=0.0, steps=STEPS):
    noise = np.random.default_rng(0).normal(size=(seeds, steps.size))
    return steps, offset + steps[None] / 100.0 + noise


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, to look into."""
    figures, save = [], style.save

    def keep(figure, path):
        save(figure, path)
        figures.append(figure)

    monkeypatch.setattr(style, "save", keep)
    return figures


def texts(figure):
    axis = figure.axes[0]
    legend = axis.get_legend()
    inside = [t.get_text() for t in axis.texts]
    return inside + ([t.get_text() for t in legend.get_texts()] if legend else [])


def is_png(path):
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_curves_of_one_length_are_named_at_their_ends(tmp_path, drawn):
    path = tmp_path / "new" / "curves.png"
    draw_learning_curves(
        {"with the log": curve(), "from scratch": curve(offset=-30.0)},
        path,
        target=20.0,
        references={"behaviour": 5.0},
        title="pendulum",
    )
    assert is_png(path)
    found = texts(drawn[0])
    assert found == ["behaviour 5", "target 20", "with the log", "from scratch"]
    middle = drawn[0].axes[0].lines[0].get_ydata()
    expected = [interval(column).point for column in curve()[1].T]
    np.testing.assert_allclose(middle, expected)
    assert "interquartile mean, 5 seeds; bands: 95%" in drawn[0].get_supxlabel()


def test_curves_of_different_lengths_and_few_seeds(tmp_path, drawn):
    draw_learning_curves(
        {"long": curve(2), "short": curve(5, steps=STEPS[:4])}, tmp_path / "curves.png"
    )
    axis = drawn[0].axes[0]
    assert axis.get_legend() is not None and axis.get_xlim() == (0.0, 5000.0)
    assert len(axis.collections) == 1, "a band for five seeds only"
    assert len(axis.lines) == 2 + 2, "and each of the two seeds for the other"
    assert "2 to 5 seeds" in drawn[0].get_supxlabel()


@pytest.mark.parametrize("count", [3, 8, 12])
def test_everything_stays_inside_the_figure(count, tmp_path, drawn):
    names = [f"method number {i}" for i in range(count)]
    draw_learning_curves({n: curve(offset=i) for i, n in enumerate(names)}, tmp_path / "a.png")
    draw_performance_profile({n: curve()[1] + i for i, n in enumerate(names)}, tmp_path / "b.png")
    estimates = {n: Interval(1.0, 0.5, 1.5, 0.95, 5) for n in names}
    draw_intervals({"first": estimates, "second": estimates}, tmp_path / "c.png")
    for figure in drawn:
        axis = figure.axes[0]
        frame = figure.bbox
        assert axis.get_window_extent().width > 0.5 * frame.width, "the axes are not squeezed"
        for item in [*axis.texts, *([axis.get_legend()] if axis.get_legend() else [])]:
            box = item.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= frame.width + 1, item
            assert box.y0 >= 0 and box.y1 <= frame.height + 1, item
        assert len(texts(figure)) >= count


def test_intervals_show_every_estimate_and_mark_those_without_interval(tmp_path, drawn):
    path = tmp_path / "intervals.png"
    table = {"medium": {"IQL": interval([10.0, 11.0, 15.0]), "BC": interval([3.0])}}
    draw_intervals(table, path, references={"expert": 20.0})
    axis = drawn[0].axes[0]
    assert is_png(path)
    assert [t.get_text() for t in axis.get_yticklabels()] == ["IQL", "BC"]
    assert texts(drawn[0]) == ["12", "3", "expert"]
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() for dot in dots] == [style.COLOURS[0], "white"]


def test_profiles_fall_from_one_to_zero(tmp_path, drawn):
    draw_performance_profile({"IQL": [1.0, 2.0, 3.0, 4.0]}, tmp_path / "profile.png")
    heights = drawn[0].axes[0].lines[0].get_ydata()
    assert heights[0] == 1.0 and heights[-1] == 0.0 and np.all(np.diff(heights) <= 0.0)


def test_names_are_spread_apart_no_more_than_needed():
    assert style.spread_apart([1.0, 5.0], 1.0, 0.0, 10.0) == [1.0, 5.0]
    np.testing.assert_allclose(style.spread_apart([5.0, 5.0], 1.0, 0.0, 10.0), [4.5, 5.5])
    crowded = style.spread_apart([9.9, 0.1, 9.8, 9.9, 0.0], 1.0, 0.0, 10.0)
    apart = np.diff(np.sort(crowded))
    assert apart.min() >= 1.0 - 1e-9 and min(crowded) >= 0.0 and max(crowded) <= 10.0
    assert np.argsort(crowded, kind="stable")[0] == 4, "the order stays"


def test_numbers_are_shortened():
    given = [0.0, 250.0, 5000.0, -1200.0, 1.5e6]
    assert [style.short_number(x) for x in given] == ["0", "250", "5k", "−1.2k", "1.5M"]


# Linear-light matrices of Machado, Oliveira and Fernandes (2009), severity 1.
_VISION = {
    "full": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}


@pytest.mark.parametrize("vision", _VISION)
def test_colours_can_be_told_apart(vision):
    def lab(colour):
        values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        linear = np.clip(np.asarray(_VISION[vision]) @ linear, 0.0, 1.0)
        to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
        x, y, z = np.cbrt(np.asarray(to_xyz) @ linear / [0.9505, 1.0, 1.089])
        return np.array([116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)])

    colours = [lab(colour) for colour in style.COLOURS]
    distances = {
        (i, j): np.linalg.norm(colours[i] - colours[j])
        for i, j in itertools.combinations(range(len(colours)), 2)
    }
    assert min(distances.values()) > 18.0, min(distances, key=distances.get)


def test_what_cannot_be_drawn_is_refused_in_words(tmp_path):
    with pytest.raises(DataError, match="no learning curves"):
        draw_learning_curves({}, tmp_path / "a.png")
    with pytest.raises(DataError, match="the curve 'x' has"):
        draw_learning_curves({"x": (STEPS, np.zeros((3, 2)))}, tmp_path / "a.png")
    with pytest.raises(DataError, match="no scores"):
        draw_performance_profile({}, tmp_path / "a.png")
    with pytest.raises(DataError, match="no estimates"):
        draw_intervals({"medium": {}}, tmp_path / "a.png")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RunError):
        draw_learning_curves({"x": curve()}, blocked / "a.png")
    assert os.listdir(tmp_path) == ["file"]


def test_importing_figures_does_not_import_matplotlib():
    code = (
        "import sys, headwater.reports.curves, headwater.reports.intervals;"
        "sys.exit('matplotlib' in sys.modules or 'jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
