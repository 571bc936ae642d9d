"""Campaigns that go on with what was learned from earlier tasks."""

from pathlib import Path

import numpy as np
import pytest

import headwater as hw
from headwater.cli.campaign.start import command
from headwater.core.errors import RunError, SpecificationError

SPACE = {"dose": (0.0, 2.0)}
TINY = hw.NAP(
    budget=3,
    episodes_per_update=4,
    contexts_per_episode=2,
    num_minibatches=2,
    width=8,
    num_layers=1,
    num_heads=2,
    num_buckets=5,
)


def tasks():
    draw = np.random.default_rng(0)
    doses = np.linspace(0.0, 2.0, 6)[:, None]
    tables = [(doses, draw.normal(size=6)) for _ in range(3)]
    return hw.EarlierTasks.of(hw.SearchSpace((0.0,), (2.0,)), tables)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "nap"
    return hw.train(TINY, tasks(), updates=2, out=out, progress=False)


def test_a_run_is_opened_with_what_it_learned(run):
    again = hw.open_run(run.path)
    assert again.finished and again.seeds == 1
    assert again.state.step.tolist() == [4]
    assert {"likelihood_loss", "regret"} <= set(again.metrics[-1]["metrics"])


def test_a_campaign_goes_on_with_it_and_from_its_file(run, tmp_path):
    path = tmp_path / "campaign.json"
    whole = hw.Campaign(SPACE, begin=run)
    parts = hw.Campaign(SPACE, path, begin=run.path)
    assert parts.method == whole.method == hw.open_run(run.path).method
    for _ in range(3):
        ours, theirs = whole.ask(), hw.Campaign.open(path).ask()
        assert ours == theirs
        assert 0.0 <= ours.point["dose"] <= 2.0
        value = -((ours.point["dose"] - 1.2) ** 2)
        whole.tell(ours.number, value)
        hw.Campaign.open(path).tell(theirs.number, value)
    again = hw.Campaign.open(path)
    assert again.best is not None and again.recommend()["dose"] == pytest.approx(
        again.best.point["dose"], abs=1e-5
    )
    # What was learned says where, not the numbers that networks begin with.
    assert hw.Campaign(SPACE, method=TINY).ask().point != whole.trials[0].point
    with pytest.raises(SpecificationError, match="begun with another begin"):
        hw.Campaign(SPACE, path, method=whole.method)


def test_several_are_asked_before_the_first_is_told(run):
    points = [{"dose": 0.4 * i} for i in range(5)]
    campaign = hw.Campaign(points, begin=run)
    asked = [campaign.ask().point["dose"] for _ in range(5)]
    assert sorted(asked) == [0.0, 0.4, 0.8, 1.2, 1.6]


def test_what_cannot_be_gone_on_with(run, tmp_path):
    with pytest.raises(SpecificationError, match="ExpectedImprovement cannot go on from what NAP"):
        hw.Campaign(SPACE, method="ExpectedImprovement", begin=run)
    with pytest.raises(SpecificationError, match="in a space of as many quantities"):
        hw.Campaign({"a": (0.0, 1.0), "b": (0.0, 1.0)}, begin=run)
    with pytest.raises(RunError):
        hw.Campaign(SPACE, begin=tmp_path / "nowhere")
    held = hw.train(TINY, tasks(), updates=2, progress=False)
    with pytest.raises(SpecificationError, match="begins with a run in a directory"):
        hw.Campaign(SPACE, tmp_path / "campaign.json", begin=held)


def test_data_of_another_kind_is_refused(tmp_path):
    with pytest.raises(SpecificationError, match="learns from evaluations of earlier tasks"):
        hw.train(TINY, env="branin", progress=False)
    with pytest.raises(SpecificationError, match="a search of 9 evaluations"):
        hw.train(hw.NAP(budget=9), tasks(), out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_the_command_begins_with_a_run(run, tmp_path, capsys):
    path = tmp_path / "campaign.json"
    command(path, quantity=("dose=0:2",), begin=Path(run.path))
    assert "begins" in capsys.readouterr().out
    assert hw.Campaign.open(path).ask().point == hw.Campaign(SPACE, begin=run).ask().point
    with pytest.raises(SpecificationError, match="leave out --set"):
        command(path, quantity=("dose=0:2",), begin=Path(run.path), set=("width=4",))
