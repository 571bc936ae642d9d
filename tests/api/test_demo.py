"""The demo at its quick scale: its parts, its page, and going on after an interruption."""

import dataclasses
import json
import re
import shlex
import shutil

import numpy as np
import pytest

from headwater import cli
from headwater.api import execute
from headwater.api.compare import compare
from headwater.api.demo import FULL, QUICK, TARGET, commands, demo, record_log, sentence
from headwater.api.run import open_run
from headwater.core.errors import RunError
from headwater.environments.control.pendulum import Pendulum
from headwater.evaluation.statistics import Interval, interval

from .problems import assert_same


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished quick demo, and what it said."""
    said = []
    out = tmp_path_factory.mktemp("demo") / "quick"
    return demo(out, quick=True, say=said.append, progress=False), said


def test_it_says_five_parts_and_makes_real_runs(made):
    result, said = made
    assert [line[:3] for line in said if not line.startswith(" ")][:5] == [
        f"{i}/5" for i in range(1, 6)
    ]
    budgets = {}
    for name, path in result.runs.items():
        run = open_run(path)
        assert run.finished and run.seeds == QUICK.seeds
        budgets[name] = run.specification.budget
    assert budgets["offline"] is None
    adapted, scratch = budgets["adapted"], budgets["scratch"]
    assert adapted.steps == scratch.steps == QUICK.steps
    # Equal numbers of new samples and of updates, or the comparison would not be fair.
    assert adapted.updates == scratch.updates
    for name in ("adapted", "scratch"):
        assert open_run(result.runs[name]).specification.task.options["mass"] == 1.5
    assert open_run(result.runs["offline"]).specification.task.options["mass"] == 1.0
    # The scale of the machine of the log is not that of the heavier one.
    assert open_run(result.runs["adapted"]).references is None


def test_its_numbers_are_those_of_the_parts(made):
    result, _ = made
    assert [line.samples for line in result.lines] == [0, 0, 0, QUICK.steps, QUICK.steps]
    log = record_log(Pendulum(), episodes=QUICK.log_episodes, top_skill=QUICK.top_skill)
    assert result.lines[0].returns == interval(log.episode_returns(), "mean")
    assert result.description.fingerprint == log.fingerprint()
    again = compare([result.runs["adapted"], result.runs["scratch"]], target=TARGET)
    assert again.rows[0].savings is not None
    assert again.rows[0].savings.plain() == result.savings.plain()
    json.dumps(result.to_json(), allow_nan=False)


def test_the_sentence_names_the_policy_only_if_there_is_something_to_say(made):
    result, _ = made
    assert sentence(result).startswith("No run holds -241 within 400 steps with the log")
    reached = dataclasses.replace(result.savings.with_log, latest=np.full(3, 200.0))
    some = dataclasses.replace(result.savings, with_log=reached)
    dipped = sentence(dataclasses.replace(result, savings=some, dip=(300, -654.3)))
    assert dipped.startswith(
        "The adapted policy reaches and holds -241 after 200 steps instead of more than 400: "
    )
    assert dipped.endswith("offline it gets worse: -654 after 300 new samples.")
    steady = sentence(dataclasses.replace(result, savings=some, dip=None))
    assert dipped.startswith(steady) and "worse" not in steady


def test_the_dip_is_that_of_the_curve(made):
    result, _ = made
    curve = open_run(result.runs["adapted"]).curve
    assert curve is not None
    # The interquartile mean of three seeds is their mean.
    levels = curve[1].mean(0)
    worst = int(levels.argmin())
    expected = (int(curve[0][worst]), pytest.approx(levels[worst])) if worst else None
    assert result.dip == expected


def test_its_page_holds_the_table_and_three_figures(made):
    result, _ = made
    shown = result.page.read_text(encoding="utf-8")
    assert shown.count("data:image/png;base64,") == len(result.figures) == 3
    assert not re.search(r"https?:", shown)
    assert "made with --quick" in shown
    for line in result.lines:
        assert isinstance(line.returns, Interval) and str(line.returns) in shown
    for path in result.figures.values():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_demo_goes_on_where_it_was(made, tmp_path, monkeypatch):
    result, _ = made
    out = tmp_path / "demo"
    shutil.copytree(result.page.parent, out)
    shutil.rmtree(out / "scratch")
    kept = {name: (out / name / "run.json").stat().st_mtime_ns for name in ("offline", "adapted")}
    plain, calls = execute.evaluate_returns, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return plain(*arguments, **options)

    monkeypatch.setattr(execute, "evaluate_returns", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo(out, quick=True, progress=False)
    monkeypatch.setattr(execute, "evaluate_returns", plain)
    assert not open_run(out / "scratch").finished
    again = demo(out, quick=True, progress=False)
    for name, time in kept.items():
        assert (out / name / "run.json").stat().st_mtime_ns == time
    assert_same(open_run(out / "scratch"), open_run(result.runs["scratch"]))
    assert again.lines == result.lines and sentence(again) == sentence(result)


def test_it_leaves_alone_what_it_did_not_make(made, tmp_path):
    result, _ = made
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    for fresh in (False, True):
        with pytest.raises(RunError, match="mine already exists and holds no demo"):
            demo(tmp_path / "mine", quick=True, fresh=fresh)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    with pytest.raises(RunError, match=r"thesis\.txt is a file"):
        demo(tmp_path / "mine" / "thesis.txt", quick=True)
    with pytest.raises(RunError, match="holds a demo with other settings: begin again with --fr"):
        demo(result.page.parent)


def test_fresh_begins_again(made, tmp_path, monkeypatch):
    out = tmp_path / "demo"
    shutil.copytree(made[0].page.parent, out)

    def stop(*arguments, **options):
        raise RunError("here")

    monkeypatch.setattr("headwater.api.demo.train", stop)
    with pytest.raises(RunError, match="here"):
        demo(out, quick=True, fresh=True)
    assert sorted(path.name for path in out.iterdir()) == ["demo.json", "log.parquet", "log.png"]


def test_the_log_is_of_mixed_skill():
    log = record_log(Pendulum(), episodes=60)
    returns = log.episode_returns()
    assert (log.episodes, log.size) == (60, 60 * 200)
    assert log.metadata["environment"] == "pendulum"
    # Worse than the expert by far, better than random actions (-1231) on average.
    assert -1100 < returns.mean() < -700 and np.ptp(returns) > 500
    expert = record_log(Pendulum(), episodes=60, top_skill=1.0).episode_returns()
    assert expert.mean() > returns.mean() + 100
    assert log.spaces.action.high == (2.0,)
    assert record_log(Pendulum(), episodes=60).fingerprint() == log.fingerprint()


def test_the_target_is_95_of_100_on_the_new_machine():
    assert TARGET == -241


def test_the_command_tells_programs_and_people(made, capsys):
    out = made[0].page.parent
    assert cli.main(["demo", "--quick", "--json", "--out", str(out)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["savings"] == made[0].savings.plain() and printed["quick"] is True
    assert cli.main(["demo", "--quick", "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    for piece in ("5/5", "learned from scratch", "numbers mean nothing", "report.html", "go on"):
        assert piece in shown
    assert cli.main(["demo", "--out", str(out)]) == 1
    assert "begin again with --fresh" in capsys.readouterr().err


def test_the_commands_by_hand_are_ones_that_are_known(tmp_path):
    for line in commands(tmp_path, FULL):
        words = shlex.split(line)
        assert words[0] == "headwater"
        assert words[1] in cli.COMMANDS or " ".join(words[1:3]) in cli.COMMANDS
