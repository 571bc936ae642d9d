"""`advise`: what it says, and what comes of trying it."""

import json

import numpy as np
import pytest

from headwater.api.data.advise import advise
from headwater.cli import main
from headwater.core.errors import SpecificationError
from headwater.datasets.dataset import Dataset
from headwater.datasets.write import write
from headwater.environments.control.pendulum import Pendulum


def pendulum_log(rows=240, **more):
    """Rows of random torques in `pendulum`, with a reward that prefers small ones."""
    draw = np.random.default_rng(0)
    actions = draw.uniform(-2, 2, (rows, 1))
    return Dataset.from_arrays(
        draw.normal(size=(rows, 3)),
        actions,
        -np.abs(actions[:, 0]),
        np.zeros(rows, bool),
        np.arange(rows) % 20 == 19,
        draw.normal(size=(rows, 3)),
        action_low=-2.0,
        action_high=2.0,
        horizon=Pendulum().spaces.horizon,
        **more,
    )


def test_advice_names_what_it_rests_on(tmp_path):
    report = advise(pendulum_log(), results=tmp_path)
    assert not report.advice.worthless and report.trials == ()
    names = [each.name for each in report.advice.recommendations]
    # Continuous actions that are random: what needs discrete ones is left out.
    assert names == ["IQL", "TD3BC"]
    assert report.evidence["IQL"] == [
        "Kostrikov, Nair, Levine (2022), arXiv:2110.06169",
        "claim trajectory-weighting-lifts-iql: not run here; " + first_of("lifts-iql"),
    ]
    shown = report.to_json()
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert shown["recommendations"][0]["command"] == "headwater train IQL --data DATA"
    assert ("worth learning from", "yes") in report.rows()


def first_of(name):
    """The first sentence of what was learned from a claim."""
    from headwater.evidence.registry import claim_named

    return claim_named(f"trajectory-weighting-{name}").learned.split(". ")[0].rstrip(".")


def test_recorded_runs_are_cited_where_they_are():
    report = advise(pendulum_log(), results="results")
    assert any("(small scale)" in text for text in report.evidence["IQL"])


@pytest.fixture(scope="module")
def tried():
    """Trials in the task, and what fine-tuning would save: four programs, which take seconds."""
    return advise(
        pendulum_log(),
        env="pendulum",
        attempt=True,
        updates=4,
        seeds=3,
        batch_size=16,
        hidden_sizes=(8,),
        episodes=2,
        fine_tune=40,
        progress=False,
    )


def test_what_is_tried_in_the_task_is_compared_with_intervals(tried):
    assert [trial.recommendation.name for trial in tried.trials] == ["IQL", "TD3BC"]
    for trial in tried.trials:
        returns = trial.run.final_returns
        assert returns is not None
        assert trial.score.point == pytest.approx(returns.mean())
        assert trial.score.low is not None and trial.score.low <= trial.score.point
    first, second = tried.trials
    assert first.gain is None and second.gain is not None
    assert second.gain.interval.point == pytest.approx(second.score.point - first.score.point)
    assert tried.judged == "3 seeds of 4 updates, mean return in pendulum"
    assert tried.logged is not None
    assert tried.logged.point == pytest.approx(pendulum_log().episode_returns().mean())


def test_fine_tuning_says_what_the_log_saves(tried):
    assert tried.savings is not None
    assert ("fine-tuning", tried.savings.sentence) in tried.rows()
    assert tried.savings.with_log.budget == 40


def test_without_a_task_trials_are_judged_from_the_log(monkeypatch):
    monkeypatch.setattr("headwater.api.data.advise._FIT_UPDATES", 20)
    data = pendulum_log()
    report = advise(
        data,
        env="none",
        attempt=True,
        updates=2,
        seeds=3,
        batch_size=16,
        hidden_sizes=(8,),
        progress=False,
    )
    assert "by fitted Q evaluation, which knows no more than the log" in str(report.judged)
    assert report.logged is not None
    assert report.logged.point == pytest.approx(data.episode_returns(0.99).mean())
    assert all(np.isfinite(trial.score.point) for trial in report.trials)


def test_logs_of_several_tasks(tmp_path, capsys):
    first, second = (str(write(pendulum_log(), tmp_path / f"{i}.npz")) for i in range(2))
    assert main(["advise", first, "--then", second, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    (found,) = said["recommendations"]
    assert said["then"] == [second] and f"--data {first} --then {second}" in found["command"]
    with pytest.raises(SpecificationError, match="what is advised for several tasks is not tried"):
        advise([first, second], attempt=True)


def test_what_does_not_fit_together():
    with pytest.raises(SpecificationError, match="fine_tune goes on from what was tried"):
        advise(pendulum_log(), fine_tune=10)
    with pytest.raises(SpecificationError, match="fine-tuning needs an environment to act in"):
        advise(pendulum_log(), env="none", attempt=True, fine_tune=10)
    small = pendulum_log(rows=20)
    assert advise(small, attempt=True).trials == ()


def test_the_command_reads_the_log_in_the_same_way(tmp_path):
    lines = ["glucose,dose,gain,visit"]
    draw = np.random.default_rng(0)
    lines += [f"{draw.normal()},{i % 3},{draw.normal()},{i // 4}" for i in range(80)]
    (tmp_path / "a log.csv").write_text("\n".join(lines))
    reading = {
        "columns": {"observations": ["glucose"], "rewards": "gain", "actions": "dose"},
        "episodes_end": "terminal",
    }
    reading["columns"]["episodes"] = "visit"
    report = advise(tmp_path / "a log.csv", data_options=reading)
    command = report.to_json()["recommendations"][0]["command"]
    assert command.startswith("headwater train DiscreteCQL --data '")
    assert "--column observations=glucose --column rewards=gain" in command
    assert "--episodes-end terminal" in command and "--set conservative_weight=" in command


def test_actions_are_inferred_first_where_rows_lack_them():
    data = pendulum_log()
    actions = data.raw_actions().copy()
    actions[60:] = np.nan
    columns = [data.observations, actions, data.rewards, data.terminals, data.truncations]
    bounds = {"action_low": -2.0, "action_high": 2.0, "missing_actions": "keep"}
    lacking = Dataset.from_arrays(*columns, data.next_observations, **bounds)
    report = advise(
        lacking,
        env="pendulum",
        attempt=True,
        updates=2,
        seeds=1,
        batch_size=16,
        hidden_sizes=(8,),
        episodes=1,
        progress=False,
        data_options=None,
    )
    names = [each.method for each in report.advice.recommendations]
    assert names == ["InverseDynamics", "IQL", "TD3BC"]
    assert "180 of 240 rows have no action, which it infers" in (
        report.advice.recommendations[0].reason
    )
    assert report.advice.measures.rows == 60
    assert [trial.recommendation.method for trial in report.trials] == names[1:]
    assert "on actions that InverseDynamics inferred" in str(report.judged)
    actions[:] = np.nan
    nothing = advise(Dataset.from_arrays(*columns, data.next_observations, **bounds))
    assert nothing.advice.worthless[0].startswith("no row has an action: label it with a run of")
