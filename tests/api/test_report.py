"""The page about runs: what it says is what the runs say, and it holds everything itself."""

import re

import pytest

from headwater.api.compare import compare
from headwater.api.report import report
from headwater.api.train import train
from headwater.core.errors import SpecificationError
from headwater.datasets.write import write
from headwater.methods.control.imitation.bc import BC

from .problems import pendulum_log
from .test_compare import adapted, made, scratch


def headings(text: str) -> list[str]:
    return re.findall(r"<h2>([^<]*)</h2>", text)


def test_savings_and_standing_are_those_of_the_comparison(tmp_path):
    runs, names = [adapted(), scratch()], ["with the log", "alone"]
    path = report(
        runs, tmp_path / "page.html", names=names, target=90.0, baseline="alone", episodes=False
    )
    shown = path.read_text(encoding="utf-8")
    known = compare(runs, names=names, target=90.0, baseline="alone")
    assert known.rows[0].savings is not None
    assert known.rows[0].savings.sentence in shown
    assert f"with the log (SAC) is ahead in pendulum: it returns {known.rows[0].score}" in shown
    assert str(known.rows[1].score) in shown and "which the seeds decide" in shown
    assert headings(shown)[:4] == [
        *("Returns", "Learning curves", "Performance profile", "Samples saved")
    ]
    assert "Ball et al. (2023)" in shown or "Haarnoja" in shown
    assert not re.search(r"<script|<link|@import|src=\"(?!data:)", shown)
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"], "and no other file"


def test_runs_in_different_tasks_have_sections_of_their_own(tmp_path):
    other = made({0: 1.0, 100: 2.0}, task="mountain-car")
    never = made({}, task=None)
    runs = {"here": made({0: 1.0, 100: 3.0}), "there": other, "unseen": never}
    path = report(list(runs.values()), tmp_path / "page.html", names=list(runs), episodes=False)
    shown = path.read_text(encoding="utf-8")
    assert {"Returns in pendulum", "Returns in mountain-car"} <= set(headings(shown))
    assert "Never evaluated: unseen." in shown


def test_a_run_of_a_log_shows_its_policy_and_its_log(tmp_path):
    log = tmp_path / "log.parquet"
    write(pendulum_log(), log, "parquet")
    run = train(
        BC(hidden_sizes=(8, 8)), log, env="pendulum", updates=4, batch_size=8, episodes=2,
        evaluations=1, out=tmp_path / "run",
    )  # fmt: skip
    heard = []
    path = report(tmp_path / "run", tmp_path / "page.html", tell=heard.append)
    shown = path.read_text(encoding="utf-8")
    assert headings(shown) == [
        "Returns",
        *("Learning curves", "The policies at work", "The log"),
        *("Settings and provenance", "Papers"),
    ]
    assert "data:image/gif;base64," in shown and str(run.score()) in shown
    assert "hidden_sizes = (8, 8)" in shown and str(log) in shown
    assert heard == ["following an episode of each policy", f"describing {log}"]
    log.write_bytes(b"PAR1")
    again = report(run, tmp_path / "page.html", episodes=False).read_text(encoding="utf-8")
    assert "Not described: " in again and "data:image/gif" not in again


def test_names_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(SpecificationError, match="2 runs are called a, a: give at least one run"):
        report([scratch(), adapted()], tmp_path / "page.html", names=["a", "a"])
    with pytest.raises(SpecificationError, match="horizon says how a file is read, and no data"):
        report([scratch()], tmp_path / "x.html", data_options={"horizon": 5})
    with pytest.raises(SpecificationError, match="unknown run 'scrath': did you mean scratch"):
        report([scratch()], tmp_path / "x.html", names=["scratch"], baseline="scrath")
    assert not list(tmp_path.iterdir())


def test_options_of_other_families_are_left_out(tmp_path):
    path = report([made({0: 1.0, 100: 3.0})], tmp_path / "page.html", episodes=False)
    shown = path.read_text(encoding="utf-8")
    assert "batch_size = 16" in shown and "new_tokens" not in shown and "delay" not in shown
