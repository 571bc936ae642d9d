"""A log with several rewards: what of it reaches a method, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest

from headwater.api.data.notes import tell_of
from headwater.api.train import train
from headwater.core.errors import DataError, SpecificationError
from headwater.datasets.read import load
from headwater.datasets.write import write
from headwater.methods.control.imitation.bc import BC
from headwater.methods.control.offline.tscac import TSCAC
from headwater.runs.feeds.logged import DataChoice, Logged
from headwater.runs.options import Options

from .problems import cart_pole_log, write_responses

METHOD = TSCAC(hidden_sizes=(8,))
FEW = {"seeds": 1, "updates": 1, "batch_size": 4, "evaluations": 1, "progress": False}


def drawn_from(path, names, **options):
    logged = Logged(DataChoice(str(path), options, None), Options())
    return logged.several_rewards("TSCAC", names, 4).data


def test_every_row_has_its_own_rewards(tmp_path):
    written = write_responses(tmp_path / "log.csv")
    data = drawn_from(tmp_path / "log.csv", ("share", "like"))
    # The last row of a session that was cut has no successor, and goes with all its rewards.
    kept = written["truncated"] == 0
    assert kept.sum() == 22
    np.testing.assert_allclose(data.reward, written["reward"][kept], rtol=1e-6)
    np.testing.assert_array_equal(data.auxiliary[:, 0], written["share"][kept])
    np.testing.assert_array_equal(data.auxiliary[:, 1], written["like"][kept])


def test_columns_are_read_as_they_are_said_to_be(tmp_path):
    written = write_responses(tmp_path / "log.csv")
    text = (tmp_path / "log.csv").read_text()
    (tmp_path / "log.csv").write_text(text.replace("reward", "watched").replace("obs_", "user_"))
    says = {"columns": {"observations": "user_*", "rewards": "watched"}}
    (tmp_path / "log.columns.json").write_text(json.dumps(says))
    for options in ({}, says):
        data = drawn_from(tmp_path / "log.csv", ("like",), **options)
        kept = written["truncated"] == 0
        np.testing.assert_array_equal(data.auxiliary[:, 0], written["like"][kept])
        np.testing.assert_allclose(data.observation[:, 1], written["obs_1"][kept], rtol=1e-6)


def test_columns_of_further_rewards_are_told_as_used(tmp_path, capsys):
    write_responses(tmp_path / "log.csv")
    data = load(tmp_path / "log.csv")
    tell_of(data, None, METHOD)
    told = capsys.readouterr().err
    assert "; further rewards: like, share\n" in told and "not used" not in told
    tell_of(data, None, BC())
    assert "data, not used: like, share\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "return"}, "drawn from memory, all alike: leave out weights"),
        ({"top": 0.5}, "best episodes are so by one reward: leave out top"),
    ],
)
def test_options_that_do_not_fit_are_refused(changes, message, tmp_path):
    write_responses(tmp_path / "log.csv")
    with pytest.raises(SpecificationError, match=message):
        train(METHOD, tmp_path / "log.csv", env="none", **FEW, **changes)


def test_logs_without_the_columns_are_refused(tmp_path):
    write_responses(tmp_path / "log.csv")
    other = dataclasses.replace(METHOD, auxiliary_rewards=("follow",))
    with pytest.raises(DataError, match="the column 'follow' declared for rewards is not there"):
        train(other, tmp_path / "log.csv", env="none", **FEW)
    with pytest.raises(SpecificationError, match="a Dataset holds one reward: give the file"):
        train(METHOD, cart_pole_log(), env="none", **FEW)
    write(load(tmp_path / "log.csv"), tmp_path / "columns")
    with pytest.raises(
        DataError, match="a column directory holds one reward, so that 'like' is not"
    ):
        train(METHOD, tmp_path / "columns", env="none", **FEW)
