"""Logged propensities: found, checked, kept by every format, described."""

from typing import Any

import numpy as np
import pytest

from headwater.analysis.describe import describe
from headwater.core.errors import DataError
from headwater.datasets.dataset import Dataset
from headwater.datasets.format import variants
from headwater.datasets.formats.directory_format import open_columns
from headwater.datasets.read import load
from headwater.datasets.write import convert, write

SUFFIX = {"parquet": ".parquet", "npz": ".npz", "arrow": ".arrow", "d4rl": ".hdf5"}
ROWS = 6
CHANCES = np.asarray([0.5, 0.25, 1.0, 0.125, 0.9, 0.1])


def columns(**more) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "obs": rng.normal(size=(ROWS, 2)).astype(np.float32),
        "actions": np.asarray([0, 1, 2, 0, 1, 2]),
        "rewards": np.arange(ROWS, dtype=np.float32),
        "terminals": np.asarray([0, 0, 1, 0, 0, 1]),
        **more,
    }


def logs_of(data: Dataset) -> np.ndarray:
    assert data.log_propensities is not None
    return data.log_propensities


def archive(path, **more):
    np.savez(path, **columns(**more))
    return path


@pytest.mark.parametrize(
    "name",
    ["propensity", "propensity_score", "pscore", "action_prob", "Behavior.Prob", "behaviour_prob"],
)
def test_usual_names_are_read(tmp_path, name):
    data = load(archive(tmp_path / "log.npz", **{name: CHANCES}))
    np.testing.assert_allclose(logs_of(data), np.log(CHANCES), rtol=1e-6)
    assert data.metadata["reading"]["columns"]["propensities"] == [name]


@pytest.mark.parametrize("name", ["logp", "action_logp", "action_log_prob", "old_log_probs"])
def test_logarithms_are_read(tmp_path, name):
    data = load(archive(tmp_path / "log.npz", **{name: np.log(CHANCES)[:, None]}))
    np.testing.assert_allclose(logs_of(data), np.log(CHANCES), rtol=1e-6)


def test_text_tables_are_read(tmp_path):
    lines = ["episode,state_0,action,reward,done,pscore"]
    lines += [f"0,{i},{i % 2},1,{int(i == 2)},{p}" for i, p in enumerate((0.5, 0.75, 0.2))]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    data = load(tmp_path / "log.csv", dones="terminal")
    np.testing.assert_allclose(np.exp(logs_of(data)), [0.5, 0.75, 0.2], rtol=1e-6)


def test_a_matrix_of_all_actions_gives_that_of_the_one_taken(tmp_path):
    every = np.random.default_rng(1).dirichlet(np.ones(3), ROWS)
    data = load(archive(tmp_path / "log.npz", action_probs=every))
    taken = every[np.arange(ROWS), columns()["actions"]]
    np.testing.assert_allclose(np.exp(logs_of(data)), taken, rtol=1e-5)


def test_densities_are_kept_per_canonical_action(tmp_path):
    """Uniform over [0, 4] × [-1, 1] has density 1/8, and over the canonical square 1/4."""
    actions = np.random.default_rng(0).uniform((0, -1), (4, 1), (ROWS, 2))
    given = columns(actions=actions, propensity=np.full(ROWS, 1 / 8))
    data = Dataset.from_arrays(
        given["obs"],
        actions,
        given["rewards"],
        given["terminals"],
        action_low=[0, -1],
        action_high=[4, 1],
        propensities=given["propensity"],
    )
    np.testing.assert_allclose(np.exp(logs_of(data)), 1 / 4, rtol=1e-6)
    np.testing.assert_allclose(np.exp(np.asarray(data.raw_log_propensities())), 1 / 8, rtol=1e-6)
    write(data, tmp_path / "log.npz")
    again = load(tmp_path / "log.npz")
    np.testing.assert_allclose(logs_of(again), logs_of(data), atol=1e-6)
    # A density may exceed 1.
    dense = Dataset.from_arrays(
        given["obs"], actions / 4, given["rewards"], given["terminals"], propensities=[3.0] * ROWS
    )
    np.testing.assert_allclose(np.exp(logs_of(dense)), 3.0, rtol=1e-6)


@pytest.mark.parametrize("variant", sorted(variants()))
def test_every_format_keeps_them(tmp_path, variant):
    data = load(archive(tmp_path / "log.npz", propensity=CHANCES))
    place = tmp_path / f"copy{SUFFIX.get(variant, '')}"
    write(data, place, variant)
    again = load(place)
    np.testing.assert_array_equal(logs_of(again), logs_of(data))
    assert again.fingerprint() == data.fingerprint()
    if variant != "columns":
        blocks = convert(place, tmp_path / "blocks", rows=2)
        np.testing.assert_array_equal(open_columns(blocks).log_propensities, logs_of(data))


def test_selection_and_concatenation_keep_them():
    def made(with_them: bool) -> Dataset:
        c = columns()
        given = CHANCES if with_them else None
        return Dataset.from_arrays(
            c["obs"], c["actions"], c["rewards"], c["terminals"], propensities=given
        )

    data = made(True)
    logs = np.log(CHANCES).astype(np.float32)
    np.testing.assert_array_equal(logs_of(data.select_episodes([1])), logs[3:])
    both = Dataset.concatenate([data, data])
    np.testing.assert_array_equal(logs_of(both), np.tile(logs, 2))
    mixed = Dataset.concatenate([data, made(False)])
    assert mixed.log_propensities is None
    assert "left out" in mixed.metadata["reading"]["notes"][-1]
    assert data.fingerprint() != made(False).fingerprint()


def test_rows_without_a_successor_take_theirs_with_them():
    c = columns()
    data = Dataset.from_arrays(
        c["obs"], c["actions"], c["rewards"], np.zeros(ROWS), c["terminals"], propensities=CHANCES
    )
    np.testing.assert_allclose(np.exp(logs_of(data)), CHANCES[[0, 1, 3, 4]], rtol=1e-6)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"pscore": [0.5, 0, 1, 1, 1, 1]},
            r"propensities holds 0 at row 1: an action that was log",
        ),
        ({"pscore": [0.5, 0.1, 1, 1.5, 2, 1]}, r"holds 1.5 at row 3 \(and 1 more such values\): a"),
        (
            {"pscore": [0.5, np.nan, 1, 1, 1, 1]},
            r"holds nan at row 1: every propensity must be a f",
        ),
        (
            {"logp": [-1, -1, 0.5, 0, 0, 0]},
            r"log_propensities holds 0.5 at row 2: the logarithm of",
        ),
        ({"pscore": np.ones((6, 2))}, r"propensities has shape \(6, 2\): one number for each of"),
        ({"pscore": CHANCES, "logp": np.log(CHANCES) - 1}, r"says 0.5 and log_propensities -1.69"),
    ],
)
def test_what_is_no_propensity_is_refused(tmp_path, more, message):
    path = archive(tmp_path / "log.npz", **{k: np.asarray(v) for k, v in more.items()})
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    left = load(path, columns={"unused": list(more)})
    assert left.log_propensities is None


def test_what_looks_like_one_is_named(tmp_path):
    path = archive(tmp_path / "log.npz", probability_logged=CHANCES)
    data = load(path)
    assert data.log_propensities is None
    rows = describe(data).rows()
    assert ("propensities", "not logged") in rows
    assert any("probability_logged, which looks like the probability of" in v for _, v in rows)
    used = load(path, columns={"propensities": "probability_logged"})
    told = dict(describe(used).rows())["propensities"]
    assert told == "probability of the logged action 0.1 to 1, median 0.375"
