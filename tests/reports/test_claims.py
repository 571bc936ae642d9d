"""The page of all claims: a row and a figure for each, those that fail among them."""

import re

import numpy as np
import pytest

from headwater.evidence.claim import Claim, Criterion, Finding, exactly, mean_of
from headwater.evidence.record import run_claim
from headwater.evidence.summary import summarise
from headwater.reports.claims import draw_claim, write_claims


def _walk(seed: int, size: int) -> Finding:
    walk = np.random.default_rng(seed).normal(size=(size, 50)).cumsum(1) ** 2 + 0.1
    return Finding(
        (
            Criterion("mean of the ends", mean_of(walk[:, -1]), at_least=1.0),
            Criterion("walks | all", exactly(size), at_most=3.0 if size > 4 else 10.0),
        ),
        curves={"walks": (np.arange(1.0, 51.0), walk)},
        across="step",
        up="height",
        logarithmic="xy",
    )


def _bare(seed: int, size: int) -> Finding:
    return Finding((Criterion("number", exactly(float("inf")), at_most=1.0),))


def _raises(seed: int, size: int) -> Finding:
    raise ValueError("no <such> thing")


def _claim(name, experiment, scales, learned=""):
    return Claim(
        name, f"{name} & so on.", ("IQL",), "Nobody 2020", "Figure 1", scales, experiment, learned
    )


SCALES = {"smoke": {"size": 4}, "small": {"size": 5}}
CLAIMS = (
    _claim("walks", _walk, SCALES, "Walks are <long>."),
    _claim("bare", _bare, SCALES),
    _claim("raises", _raises, SCALES),
    _claim("waits", _walk, SCALES),
)


@pytest.fixture(scope="module")
def summaries():
    runs = [("walks", "smoke", 0), ("walks", "small", 0), ("walks", "small", 1)]
    runs += [("bare", "smoke", 2), ("raises", "small", 0)]
    named = {claim.name: claim for claim in CLAIMS}
    return summarise(CLAIMS, [run_claim(named[n], scale, seed=s) for n, scale, s in runs])


def test_a_row_and_a_figure_for_each_claim(summaries, tmp_path):
    shown, text = write_claims(summaries, tmp_path, ["one line & file is damaged"])
    page = shown.read_text(encoding="utf-8")
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    assert "one line &amp; file is damaged" in page
    assert page.count('src="data:image/png;base64,') == 2
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == ["bare.png", "walks.png"]
    assert "4 claims: 1 fail, 1 undecided, 1 stopped by an error, 1 not run yet." in page
    for name in ("walks", "bare", "raises", "waits"):
        assert f'<a href="#{name}">{name}</a>' in page and f'<section id="{name}">' in page
    for found in (
        '<span class="badge bad">fails</span>',
        '<span class="badge bad">error</span>',
        "walks &amp; so on.",
        "Walks are &lt;long&gt;.",
        "walks | all: 5, must be ≤ 3",
        "seed 1: ",
        "scale small, seeds 0, 1",
        "ValueError: no &lt;such&gt; thing",
        "headwater claim run walks\n".strip(),
        "headwater claim run bare --scale smoke",
    ):
        assert found in page, found
    written = text.read_text(encoding="utf-8")
    rows = [line for line in written.splitlines() if line.startswith("| [")]
    assert len(rows) == 4
    assert all(len(re.split(r"(?<!\\)\|", row)) == 7 for row in rows)
    assert "**fails**" in rows[0] and "walks \\| all: 5, must be ≤ 3" in rows[0]
    assert "![walks](figures/walks.png)" in written and "![waits]" not in written


def test_verdicts_are_of_the_largest_scale(summaries):
    walks, bare, raises, waits = summaries
    assert [s.verdict for s in summaries] == ["fails", "undecided", "error", "not run"]
    assert (walks.scale, bare.scale, raises.scale, waits.scale) == ("small", "smoke", "small", None)
    assert walks.others[0].outcome == "holds"


def test_a_figure_is_drawn_whatever_is_known(summaries, tmp_path):
    from PIL import Image

    heights = []
    for summary in summaries[:2]:
        path = tmp_path / f"{summary.claim.name}.png"
        draw_claim(summary, path)
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("L"))
        assert pixels.shape[1] > 1_000 and pixels.std() > 5.0
        heights.append(pixels.shape[0])
    # With curves, and two criteria of two seeds, it is higher than with one criterion.
    assert heights[0] > 2 * heights[1]
