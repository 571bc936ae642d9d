"""Missing and inferred actions: read as said, kept by every format, told apart from logged ones."""

from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.datasets import transform
from headwater.datasets.dataset import Dataset
from headwater.datasets.format import variants
from headwater.datasets.read import load
from headwater.datasets.write import convert, write

SUFFIX = {"parquet": ".parquet", "npz": ".npz", "arrow": ".arrow", "d4rl": ".hdf5"}
ROWS = 8
GAPS = np.asarray([0, 1, 1, 0, 0, 0, 1, 0], bool)


def columns(**more) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(ROWS + 2, 2)).astype(np.float32)
    actions = np.linspace(-2, 2, ROWS)[:, None]
    actions[GAPS] = np.nan
    return {
        "observations": np.concatenate([states[:4], states[5:9]]),
        "actions": actions,
        "rewards": np.arange(ROWS, dtype=np.float32),
        "terminals": np.asarray([0, 0, 0, 0, 0, 0, 0, 1]),
        "truncations": np.asarray([0, 0, 0, 1, 0, 0, 0, 0]),
        "next_observations": np.concatenate([states[1:5], states[6:]]),
        **more,
    }


def dataset(**more) -> Dataset:
    bounds = {"action_low": -2.0, "action_high": 2.0, "missing_actions": "keep"}
    return Dataset.from_arrays(**{**columns(), **bounds, **more})


def test_rows_without_action_are_kept_if_it_is_said():
    data = dataset()
    np.testing.assert_array_equal(data.action_confidence, np.where(GAPS, 0.0, 1.0))
    np.testing.assert_array_equal(data.actions[GAPS], 0.0)
    np.testing.assert_allclose(data.actions[~GAPS, 0], np.linspace(-1, 1, ROWS)[~GAPS], rtol=1e-6)
    assert np.isnan(data.raw_actions()[GAPS]).all()


def test_rows_without_action_are_left_out_if_it_is_said():
    data = dataset(missing_actions="drop")
    whole = dataset()
    assert data.size == 5 and data.action_confidence is None
    # Rows 0 | 3 | 4 5 | 7 remain: what was cut is truncated, what ended by itself is not.
    np.testing.assert_array_equal(data.episode_starts, [0, 1, 2, 4, 5])
    np.testing.assert_array_equal(data.truncations, [1, 1, 0, 1, 0])
    np.testing.assert_array_equal(data.terminals, [0, 0, 0, 0, 1])
    np.testing.assert_array_equal(data.next_observations, whole.next_observations[~GAPS])
    assert "3 of 8 rows have no action" in data.metadata["reading"]["notes"][-1]
    # Where nothing has to be left out, nothing is said of it.
    plain = {**columns(), "actions": np.linspace(-1, 1, ROWS)[:, None]}
    asked = Dataset.from_arrays(**plain, missing_actions="drop")
    assert asked.action_confidence is None
    assert asked.fingerprint() == Dataset.from_arrays(**plain).fingerprint()


def test_gaps_of_which_nothing_is_said_are_refused():
    with pytest.raises(DataError) as refused:
        dataset(missing_actions=None)
    assert str(refused.value) == (
        "actions holds nan at row 1 (and 2 more such rows): if these rows have no action, say "
        "missing_actions='keep' to have them inferred, or 'drop' to leave them out "
        "(`--missing-actions`); else repair them"
    )
    with pytest.raises(SpecificationError, match="missing_actions is 'ignore': say 'keep'"):
        dataset(missing_actions="ignore")


def test_half_an_action_is_no_gap():
    actions = np.zeros((ROWS, 2))
    actions[3, 1] = np.nan
    with pytest.raises(DataError, match="actions holds nan at row 3, component 1"):
        dataset(actions=actions)


def test_a_column_says_which_actions_there_are():
    actions = np.linspace(-2, 2, ROWS)[:, None]
    data = dataset(actions=actions, action_confidence=~GAPS, missing_actions=None)
    np.testing.assert_array_equal(data.known_actions, ~GAPS)
    np.testing.assert_array_equal(data.actions[GAPS], 0.0)
    for wrong, said in (
        (np.full(ROWS, 1.5), "action_confidence holds 1.5 at row 0: it is 1 where"),
        (np.ones(3), r"shape \(3,\): one number for each of the 8 rows"),
    ):
        with pytest.raises(DataError, match=said):
            dataset(action_confidence=wrong)
    # What is said to be known has to be there.
    with pytest.raises(DataError, match="actions holds nan at row 1"):
        dataset(action_confidence=np.ones(ROWS))


def test_discrete_actions_may_be_missing():
    names = np.asarray([0, 1, 2, 0, 1, 2, 0, 1.0])
    gaps = np.where(GAPS, np.nan, names)
    bounds = {"action_low": None, "action_high": None}
    data = dataset(actions=gaps, discrete=True, **bounds)
    assert data.spaces.discrete and data.spaces.action_size == 3
    np.testing.assert_array_equal(data.actions, np.where(GAPS, 0, names))
    with pytest.raises(DataError, match="gaps that leave open whether they are names"):
        dataset(actions=gaps, **bounds)


def test_a_log_without_any_action_can_be_read():
    data = dataset(actions=np.full((ROWS, 1), np.nan))
    assert not data.known_actions.any() and data.spaces.action_size == 1
    # Whatever number stands there instead.
    nobody = {"actions": np.full(ROWS, -1), "action_confidence": np.zeros(ROWS)}
    discrete = {"action_count": 3, "action_low": None, "action_high": None}
    data = dataset(**nobody, **discrete, missing_actions=None)
    assert not data.known_actions.any() and data.spaces.action_size == 3


@pytest.mark.parametrize("name", sorted(variants()))
def test_every_format_tells_them_apart(tmp_path, name):
    confidence = np.asarray([1, 0.25, 0.75, 1, 1, 1, 0, 1], np.float32)
    actions = columns()["actions"].copy()
    actions[1:3] = 0.5
    data = dataset(actions=actions, action_confidence=confidence)
    path = write(data, tmp_path / ("log" + SUFFIX.get(name, "-v0")), name)
    again = load(path)
    np.testing.assert_array_equal(again.action_confidence, confidence)
    np.testing.assert_allclose(again.actions, data.actions, atol=1e-6)
    assert again.known_actions.sum() == 7 and again.logged_actions.sum() == 5
    back = load(convert(path, tmp_path / "columns"))
    assert back.fingerprint() == again.fingerprint()
    assert back.fingerprint() != dataset(actions=actions, action_confidence=~GAPS).fingerprint()


def test_empty_cells_of_tables_are_gaps(tmp_path):
    arrays = columns()
    rows = [None if gap else [float(x)] for gap, x in zip(GAPS, arrays["actions"][:, 0])]
    lists = pyarrow.table(
        {
            **{n: list(x) for n, x in arrays.items() if n not in ("actions", "terminals")},
            "terminals": arrays["terminals"],
            "actions": pyarrow.array(rows, pyarrow.list_(pyarrow.float32())),
        }
    )
    pyarrow.parquet.write_table(lists, tmp_path / "log.parquet")
    # In pieces of which some have no action at all, the first among them or not.
    for rows_at_once in (1, 2):
        with pyarrow.ipc.new_file(tmp_path / "log.arrow", lists.schema) as file:
            for batch in lists[rows_at_once - 1 :].to_batches(max_chunksize=rows_at_once):
                file.write_batch(batch)
        pieces = load(
            tmp_path / "log.arrow", action_low=-2.0, action_high=2.0, missing_actions="keep"
        )
        whole = dataset().select_rows(np.arange(ROWS) >= rows_at_once - 1)
        assert pieces.fingerprint() == whole.fingerprint()
    lines = ["episode,obs_0,action,reward,terminal"]
    lines += [f"0,{i},{'' if i == 2 else i / 8},1,{int(i == 5)}" for i in range(6)]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    found = load(tmp_path / "log.parquet", action_low=-2.0, action_high=2.0, missing_actions="keep")
    assert found.fingerprint() == dataset().fingerprint()
    text = load(tmp_path / "log.csv", missing_actions="keep")
    np.testing.assert_array_equal(text.known_actions, np.arange(6) != 2)
    with pytest.raises(DataError, match="actions holds nan at row 2: if these rows"):
        load(tmp_path / "log.csv")
    bounded = load(convert(
        tmp_path / "log.csv", tmp_path / "columns",
        options={"missing_actions": "keep", "action_bounds": "data"},
    ))  # fmt: skip
    assert bounded.spaces.action.low == (0.0,) and bounded.spaces.action.high == (0.625,)
    dropped = load(
        convert(tmp_path / "log.csv", tmp_path / "d", options={"missing_actions": "drop"})
    )
    assert dropped.size == 5 and dropped.action_confidence is None


def test_labels_fill_gaps_and_nothing_else():
    data = dataset()
    confidence = np.linspace(0.0, 1.0, ROWS)
    labelled = transform.label_actions(data, np.full((ROWS, 1), 0.5), confidence, by="Somebody")
    np.testing.assert_array_equal(labelled.actions[~GAPS], data.actions[~GAPS])
    np.testing.assert_array_equal(labelled.actions[GAPS], 0.5)
    np.testing.assert_array_equal(labelled.logged_actions, ~GAPS)
    np.testing.assert_allclose(labelled.action_confidence[GAPS], confidence[GAPS], atol=2e-6)
    assert labelled.metadata["inferred_actions"] == {"by": "Somebody", "rows": 3}
    # Even one that is certain stays an inferred one, and one that is worthless is not missing.
    for sure in (0.0, 1.0):
        least = transform.label_actions(data, data.actions, np.full(ROWS, sure), by="x")
        np.testing.assert_array_equal(least.logged_actions, ~GAPS)
        assert least.known_actions.all()
    kept = transform.confident_rows(labelled, 0.2)
    assert kept.size == ROWS - 1 and transform.confident_rows(labelled, 0.0) is labelled
    with pytest.raises(DataError, match=r"shape \(8,\) and their confidence \(8,\): \(8, 1\)"):
        transform.label_actions(data, np.zeros(ROWS), confidence, by="x")
    with pytest.raises(DataError, match=r"an inferred action is not within -1\.0 to 1\.0"):
        transform.label_actions(data, np.full((ROWS, 1), np.nan), confidence, by="x")
    with pytest.raises(SpecificationError, match=r"at_least = 2.0 is not in \[0, 1\]"):
        transform.confident_rows(labelled, 2.0)


def test_selections_and_concatenations_keep_the_column():
    data = dataset()
    second = data.select_episodes([1])
    np.testing.assert_array_equal(second.action_confidence, data.action_confidence[4:])
    known = dataset(missing_actions="drop")
    both = Dataset.concatenate([data, known])
    np.testing.assert_array_equal(
        both.action_confidence, np.concatenate([data.action_confidence, np.ones(5)])
    )
    with pytest.raises(DataError, match="no rows were selected"):
        data.select_rows(np.zeros(ROWS, bool))
