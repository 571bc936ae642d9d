"""Inferring actions: from the front door and from commands, and what does not fit together."""

import numpy as np
import pytest

import headwater as hw
from headwater.api.data.label import label
from headwater.core.errors import DataError, SpecificationError
from headwater.datasets.dataset import Dataset
from headwater.datasets.read import load
from headwater.datasets.write import write
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.imitation.inverse_dynamics import InverseDynamics

TINY = {"seeds": 1, "batch_size": 64, "evaluations": 1, "progress": False}
STEPS = 10


def moves(episodes=40, known=slice(0, 12), **more) -> Dataset:
    """Places that an action moves at once, of which some episodes have their actions."""
    draw = np.random.default_rng(0)
    actions = draw.uniform(-2, 2, (episodes, STEPS, 1))
    place = np.cumsum(actions, axis=1)
    before = np.concatenate([np.zeros((episodes, 1, 1)), place[:, :-1]], axis=1)
    terminals = np.zeros((episodes, STEPS), bool)
    terminals[:, -1] = True
    logged = np.full_like(actions, np.nan)
    logged[known] = actions[known]
    return Dataset.from_arrays(
        before.reshape(-1, 1),
        logged.reshape(-1, 1),
        -np.abs(place).reshape(-1),
        terminals.reshape(-1),
        None,
        place.reshape(-1, 1),
        action_low=-2.0,
        action_high=2.0,
        **{"missing_actions": "keep", "metadata": {"environment": "pendulum"}, **more},
    )


@pytest.fixture(scope="module")
def labeller():
    method = InverseDynamics(hidden_sizes=(32, 32), learning_rate=5e-3)
    return hw.train(method, moves(), updates=2_000, **TINY)


def test_what_is_inferred_is_right_and_told_apart(labeller):
    log, whole = moves(), moves(known=slice(None))
    labelled = hw.label(log, labeller)
    np.testing.assert_array_equal(labelled.logged_actions, log.known_actions)
    np.testing.assert_array_equal(
        labelled.actions[log.known_actions], log.actions[log.known_actions]
    )
    told = ~labelled.logged_actions & ~log.terminals
    assert np.mean(np.abs(labelled.actions - whole.actions)[told]) < 0.05
    # What the last, terminal step did cannot be seen.
    sure = labelled.action_confidence
    assert sure is not None and np.all(sure[told] > 0.5)
    assert np.all(sure[~labelled.logged_actions & log.terminals] < 1e-5)
    kept = label(log, labeller, at_least=0.5)
    assert kept.size == log.size - np.count_nonzero(log.terminals[~log.known_actions])
    assert label(whole, labeller) is whole
    # It was recorded in pendulum, in which what is no policy is not evaluated.
    assert labeller.evaluations == []


def test_only_a_labeller_learns_from_rows_without_action(labeller):
    clone = BC(hidden_sizes=(8,))
    with pytest.raises(DataError, match="280 of 400 rows have no action, and BC needs them: infer"):
        hw.train(clone, moves(), updates=2, env="none", **TINY)
    run = hw.train(clone, hw.label(moves(), labeller), updates=2, env="none", **TINY)
    with pytest.raises(SpecificationError, match="a run of BC, which infers no actions: train I"):
        label(moves(), run)
    with pytest.raises(DataError, match="no row has an action that was logged"):
        hw.train(InverseDynamics(), moves(known=slice(0, 0)), updates=2, **TINY)
    with pytest.raises(SpecificationError, match="drawn from memory, all alike: leave out weights"):
        hw.train(InverseDynamics(), moves(), updates=2, weights="return", **TINY)
    with pytest.raises(SpecificationError, match="learns from the rows of a log whose action is"):
        hw.train(InverseDynamics(), moves(), env="pendulum", updates=2, **TINY)


def test_a_log_on_disk_says_that_rows_lack_actions(tmp_path):
    path = write(moves(), tmp_path / "log")
    with pytest.raises(DataError, match="280 of 400 rows have no action, and BC needs them"):
        hw.train(BC(hidden_sizes=(8,)), path, from_disk=True, updates=2, env="none", **TINY)


def test_commands_do_the_same(tmp_path, capsys):
    from headwater.cli import main

    log = str(write(moves(), tmp_path / "log.parquet"))
    out, target = str(tmp_path / "run"), str(tmp_path / "labelled.parquet")
    small = ("--set", "hidden_sizes=8", "--updates", "4", "--seeds", "1")
    assert main(["train", "InverseDynamics", "-d", log, "-o", out, *small]) == 0
    assert f"headwater data label DATA TARGET --run {out}" in capsys.readouterr().out
    assert main(["data", "label", log, target, "-r", out]) == 0
    labelled = load(target)
    assert labelled.known_actions.all() and labelled.logged_actions.sum() == 120
    assert labelled.metadata["inferred_actions"] == {"by": "InverseDynamics", "rows": 280}
    assert main(["data", "describe", target]) == 0
    assert "30.0% logged, 70.0% inferred (median confidence" in capsys.readouterr().out
    clone = ("-o", str(tmp_path / "bc"), "-e", "none", *small)
    assert main(["train", "BC", "-d", target, *clone]) == 0
