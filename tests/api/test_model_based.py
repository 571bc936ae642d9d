"""A model first, then a policy from rollouts in it: the stages, and a run that is cut between."""

import json

import jax
import numpy as np
import pytest

import headwater as hw
from headwater.api.execute import save_run
from headwater.api.sweeps.sweep import members_of
from headwater.cli import main
from headwater.core.errors import SpecificationError
from headwater.datasets.write import write
from headwater.runs import checkpoint
from headwater.runs.checkpoint import Position
from headwater.runs.feeds.logged import DataChoice, Logged
from headwater.runs.options import Options
from headwater.runs.recipes.model_based import model_stages
from headwater.sweeps.directory import SweepDirectory
from headwater.sweeps.table import read_table

from .problems import pendulum_log

MOPO = {"model_updates": 2, "hidden_sizes": "8,8", "rollouts": 3, "imagined_per_logged": 3}
SMALL = {"seeds": 2, "batch_size": 8, "evaluations": 1, "env": "none"}


def small():
    return hw.build_method("MOPO", {**MOPO, "dynamics.hidden_sizes": "8,8"})


def test_a_quarter_of_each_batch_is_of_the_log():
    log = pendulum_log()
    logged = Logged(DataChoice(None, {}, None), Options.of({}), data=log)
    first, stage = model_stages(small(), logged, 12_000, 64)
    assert first.updates == 2 and not first.evaluated and stage.updates_per_draw == 1_000
    real, rollouts = stage.source.sources
    assert (real.batch_size, rollouts.batch_size) == (16_000, 48_000)
    assert (rollouts.rollouts, rollouts.kept, rollouts.rollout_steps) == (3_000, 5, 5)
    np.testing.assert_array_equal(rollouts.starts, log.observations)
    # A prime number of updates: rollouts before each of them, and as many rows kept.
    alone = model_stages(small(), logged, 7_919, 64)[1]
    assert alone.updates_per_draw == 1 and alone.source.sources[1].kept == 5_000


def test_a_run_that_stops_between_the_stages_goes_on_to_the_bit(tmp_path):
    log = pendulum_log(environment=None)
    whole = hw.train(small(), log, updates=6, out=tmp_path / "run", **SMALL)
    models = jax.tree.leaves(whole.state.model)
    for file in (tmp_path / "run" / "checkpoints").iterdir():
        if "offline" in file.name:
            file.unlink()
    opened = hw.open_run(tmp_path / "run")
    assert not opened.finished
    for here, there in zip(jax.tree.leaves(opened.state.model), models, strict=True):
        np.testing.assert_array_equal(here, there)
    again = hw.resume(tmp_path / "run", progress=False)
    assert again.finished
    # As another run that builds on it keeps it.
    save_run(again, tmp_path / "kept")
    kept = hw.open_run(tmp_path / "kept")
    assert kept.finished
    for run in (again, kept):
        leaves = zip(jax.tree.leaves(run.state), jax.tree.leaves(whole.state), strict=True)
        for here, there in leaves:
            np.testing.assert_array_equal(here, there)


def test_a_sweep_does_not_take_a_learned_model_for_the_end(tmp_path):
    log = write(pendulum_log(), tmp_path / "log.npz")
    table = read_table(
        {
            "methods": ["MOPO"],
            "datasets": [str(log)],
            "environment": "none",
            "grid": {"model_updates": [4]},
            "updates": 3,
            "seeds": 1,
        }
    )
    sweep = SweepDirectory.create(tmp_path / "sweep", members_of(table))
    [member] = SweepDirectory.open(tmp_path / "sweep").members
    assert (member.updates_before, member.all_updates) == ([4], 7)
    run = sweep.run_path(member.name)
    (run / "checkpoints").mkdir(parents=True)
    for place, done in ((Position(0, "model", 4), 4), (Position(1, "offline", 2), 6)):
        checkpoint.save(run / "checkpoints", place, {})
        row = {"stage": place.name, "stage_index": place.stage, "update": place.update}
        (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
        assert not sweep.finished(member) and sweep.updates_done(member) == done
    checkpoint.save(run / "checkpoints", Position(1, "offline", 3), {})
    assert sweep.finished(member) and sweep.updates_done(member) == 7
    sweep.unlock()


def test_the_command_line_sets_what_learns_the_model(tmp_path, capsys):
    write(pendulum_log(), tmp_path / "log.npz")
    arguments = ["train", "RAVL", "-d", str(tmp_path / "log.npz"), "-o", str(tmp_path / "run")]
    for name, value in {**MOPO, "num_critics": 2, "dynamics.hidden_sizes": "8,8"}.items():
        arguments += ["--set", f"{name}={value}"]
    arguments += ["--updates", "2", "--seeds", "1", "--batch-size", "8", "--env", "none"]
    assert main(arguments) == 0
    run = hw.open_run(tmp_path / "run")
    assert run.method.dynamics.hidden_sizes == (8, 8) and run.method.num_critics == 2
    assert "beyond_data" in run.metrics[-1]["metrics"]


def test_refusals():
    with pytest.raises(SpecificationError, match="DynamicsEnsemble does not act: leave out env"):
        hw.train("DynamicsEnsemble", pendulum_log(), updates=2, **{**SMALL, "env": "pendulum"})
    with pytest.raises(SpecificationError, match="unknown hyper-parameter 'width'"):
        hw.build_method("MOPO", {"dynamics.width": 3})
    with pytest.raises(SpecificationError, match=r"unknown hyper-parameter 'discount\.width'"):
        hw.build_method("MOPO", {"discount.width": 3})
