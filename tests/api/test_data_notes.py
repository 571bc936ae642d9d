"""What `train` says of data before it begins, and what it does not begin with."""

import numpy as np
import pytest

from headwater.analysis.describe import describe
from headwater.api.evaluate import evaluate
from headwater.api.train import train
from headwater.core.errors import DataError
from headwater.datasets.read import load

SMALL = {"env": "none", "updates": 2, "seeds": 1, "batch_size": 4}


def outcome_log(path, **columns):
    """Three stays whose outcome stands on the last row, and nothing that says how they end."""
    np.savez(
        path,
        observations=np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32),
        actions=np.arange(12) % 2,
        rewards=np.array([0, 0, 0, 1, 0, 0, 0, -1, 0, 0, 0, 1.0]),
        stay_id=np.repeat([7, 8, 9], 4),
        **columns,
    )
    return path


def test_rewards_that_were_all_dropped_are_not_trained_without(tmp_path):
    path = outcome_log(tmp_path / "log.npz")
    options = {"columns": {"episodes": "stay_id"}, "never_terminal": True}
    with pytest.raises(DataError) as raised:
        train("IQL", path, data_options=options, progress=False, **SMALL)
    assert str(raised.value) == (
        "all rewards that are not zero were lost, so that IQL has nothing to learn from: 3 last "
        "rows of truncated episodes had no known successor and were dropped; 3 of them had "
        "rewards, together 1; if the process ended there, say so with episodes_end='terminal' "
        "(`--episodes-end terminal`, or the same in a file "
        "NAME.columns.toml beside the data), else give next_observations"
    )
    # Imitation does not read them, and nothing is lost where the process ended.
    train("BC", path, data_options=options, progress=False, **SMALL)
    options = {"columns": {"episodes": "stay_id"}, "episodes_end": "terminal"}
    assert load(path, **options).episode_returns().tolist() == [1.0, -1.0, 1.0]


def test_serious_notes_and_the_reading_are_repeated(tmp_path, capsys):
    path = outcome_log(tmp_path / "log.npz", charttime=np.arange(12.0))
    options = {"columns": {"episodes": "stay_id"}, "never_terminal": True}
    train("BC", path, data_options=options, **SMALL)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("data, ")]
    assert lines[:2] == [
        "data, columns used: observations: observations; actions: actions; rewards: rewards; "
        "episodes: stay_id",
        "data, not used: charttime",
    ]
    assert lines[2].startswith("data, ends: 3 ends of episodes show in a number")
    assert lines[3:] == [
        "data, note: 3 last rows of truncated episodes had no known successor and were dropped; 3 "
        "of them had rewards, together 1",
        "data, note: no row is terminal: every episode ends by truncation",
        "data, note: all episodes have the same return",
        "data, note: all rewards are zero",
    ]
    train("BC", path, data_options=options, progress=False, **SMALL)
    assert "data, " not in capsys.readouterr().err


def test_demonstrations_without_rewards_suffice_for_imitation_alone(tmp_path, capsys):
    path = tmp_path / "demonstrations.npz"
    np.savez(
        path,
        observations=np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32),
        actions=np.arange(12) % 2,
        terminals=np.arange(12) % 4 == 3,
    )
    data = load(path)
    assert data.metadata["missing"] == ["rewards"] and not data.rewards.any()
    run = train("BC", data, **SMALL)
    assert "the data has no rewards: only imitation, such as BC, learns from it" in (
        capsys.readouterr().err
    )
    with pytest.raises(
        DataError, match=r"demonstrations\.npz: IQL needs rewards, and no column is"
    ):
        train("IQL", data, progress=False, **SMALL)
    with pytest.raises(DataError, match="off-policy evaluation needs rewards, and no column is"):
        evaluate(run, env="none", data=data)
    assert "all rewards are zero" not in " ".join(describe(data).notes)
