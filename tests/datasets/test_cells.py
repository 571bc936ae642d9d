"""Cells that are no plain numbers are read as what they are, or named with what to do."""

import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from headwater.core.errors import DataError
from headwater.datasets.dataset import Dataset
from headwater.datasets.read import load, load_blocks
from headwater.datasets.reading import reading_rows

WORDS = ["stay", "left", "right", "left", "stay", "left"]


def table(actions=WORDS, **more):
    rows = len(actions)
    return {
        "OBS_0": [0.5 * row for row in range(rows)],
        "OBS_1": [1.0 - row for row in range(rows)],
        "action": actions,
        "reward": [1.0] * rows,
        "terminated": [row == rows - 1 for row in range(rows)],
        **more,
    }


def text(path, columns, delimiter=","):
    rows = zip(*columns.values())
    lines = [delimiter.join(columns), *(delimiter.join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("categories", [False, True])
def test_actions_that_are_words_are_numbered(tmp_path, categories):
    names = ["left", "right", "stay"]
    found = pa.table(table())
    if categories:
        place = found.schema.get_field_index("action")
        found = found.set_column(place, "action", found["action"].dictionary_encode())
    pyarrow.parquet.write_table(found, tmp_path / "log.parquet", row_group_size=2)
    for data in (load(tmp_path / "log.parquet"), load(text(tmp_path / "log.csv", table()))):
        assert [names[action] for action in data.actions] == WORDS
        assert data.metadata["action_names"] == names
        assert ("0 is 'left', 1 is 'right', 2 is 'stay'") in dict(reading_rows(data.metadata))[
            "read as"
        ]
    blocks = list(load_blocks(tmp_path / "log.parquet", 2))
    assert [names[action] for block in blocks for action in block.actions] == WORDS


def test_words_that_differ_in_capitals_or_spaces_alone_are_told(tmp_path):
    data = load(text(tmp_path / "log.csv", table(["Left ", "left", "right"])))
    assert data.spaces.action.count == 3
    told = dict(reading_rows(data.metadata))["read as"]
    assert "'Left ' and 'left' differ in capitals or spaces alone" in told


def test_files_whose_words_differ_are_not_read_together(tmp_path):
    first = text(tmp_path / "log-1.csv", table())
    second = text(tmp_path / "log-2.csv", table(["stay", "up", "left", "up"]))
    with pytest.raises(DataError, match="are not the same words"):
        load([first, second])
    with pytest.raises(DataError, match="the words of their actions differ"):
        Dataset.concatenate([load(first), load(text(second, table(["a", "b", "c"])))])


def test_lists_in_cells(tmp_path):
    columns = table()
    vectors = [[0.5, -1.25], [3.0, 1e-3], [0.0, 2.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]
    del columns["OBS_0"], columns["OBS_1"]
    columns["obs"] = [str(vector) for vector in vectors]
    columns["action"] = [str(np.array(vector) / 10) for vector in vectors]
    path = text(tmp_path / "log.tsv", columns, "\t")
    data = load(path)
    np.testing.assert_allclose(data.observations, vectors)
    np.testing.assert_allclose(data.actions, np.array(vectors) / 10, atol=1e-6)
    columns["obs"][2] = "[0.0, nan, zero]"
    with pytest.raises(DataError, match="it is a list as text; give each component a column"):
        load(text(path, columns, "\t"))


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ("12.5 %", "write plain numbers, without units"),
        ("1.234.567", "the mark may be between thousands"),
        ("reward", "the header stands again at row 3"),
        ("BCJNGGhAC4AAA", "output_compress_columns="),
    ],
)
def test_what_is_no_number_says_what_to_do(tmp_path, reward, said):
    columns = table([0.1] * 6)
    columns["reward"][3] = reward
    with pytest.raises(DataError, match=said):
        load(text(tmp_path / "log.csv", columns))


def test_flags_of_spreadsheets_in_other_languages(tmp_path):
    columns = table()
    columns["terminated"] = ["FALSCH"] * 5 + ["WAHR"]
    assert load(text(tmp_path / "log.csv", columns)).terminals.tolist() == [False] * 5 + [True]


def test_a_table_by_another_suffix(tmp_path):
    known = load(text(tmp_path / "log.tsv", table(), "\t"))
    again = load(text(tmp_path / "log.dat", table(), "\t"))
    np.testing.assert_array_equal(again.observations, known.observations)
    # Lines longer than what other files are recognised by.
    wide = table(**{f"OBS_{number}": [0.125] * 6 for number in range(200)})
    assert load(text(tmp_path / "wide.txt", wide)).observations.shape == (6, 200)
    (tmp_path / "notes.txt").write_text("On Monday, we ran it,\nand it, again,\nwas well\n")
    with pytest.raises(DataError, match="its format is not recognised"):
        load(tmp_path / "notes.txt")


def steps(number, length=4):
    return [
        {
            "observation": {"position": [0.1 * step, number], "speed": {"x": 0.5 * step}},
            "action": [0.25],
            "reward": 1.0 + step,
            "is_terminal": step == length - 1,
        }
        for step in range(length)
    ]


def test_json_with_a_list_of_steps_in_each_episode(tmp_path):
    path = tmp_path / "log.jsonl"
    lines = [json.dumps({"id": number, "steps": steps(number)}) for number in range(3)]
    path.write_text("\n".join(lines))
    data = load(path)
    assert data.episode_lengths().tolist() == [4, 4, 4]
    assert data.observations[5] == pytest.approx([0.1, 1, 0.5])
    assert "what else it has is left out: id" in dict(reading_rows(data.metadata))["read as"]


def test_batches_of_one_policy_of_rllib(tmp_path):
    batch = {
        "obs": [[0.0], [1.0], [2.0]],
        "new_obs": [[1.0], [2.0], [3.0]],
        "actions": [0, 1, 1],
        "rewards": [1.0, 2.0, 3.0],
        "terminateds": [False, False, True],
        "eps_id": [7, 7, 7],
    }
    whole = {"type": "MultiAgentBatch", "count": 3, "policy_batches": {"default_policy": batch}}
    path = tmp_path / "log.json"
    first = json.dumps(whole)
    batch["eps_id"] = [8, 8, 8]
    path.write_text(first + "\n" + json.dumps(whole) + "\n")
    data = load(path)
    assert data.rewards.tolist() == [1, 2, 3, 1, 2, 3]
    assert np.flatnonzero(data.terminals).tolist() == [2, 5]
    whole["policy_batches"]["other"] = batch
    path.write_text(json.dumps(whole) + "\n")
    with pytest.raises(DataError, match="2 policies of RLlib \\(default_policy, other\\)"):
        load(path)


@pytest.mark.parametrize(
    "line",
    [
        "1:-0.5:0.25 | a:1 b:2",
        "shared |User age=3\n0:1:0.5 |Action x",
        '{"_label_cost": -1, "_label_probability": 0.5}',
        '{"EventId": "a", "_label_cost": -1, "_label_probability": 0.5}',
    ],
)
def test_logs_of_vowpal_wabbit_are_named(tmp_path, line):
    path = tmp_path / ("log.json" if line.startswith("{") else "log.dat")
    path.write_text("\n".join([line] * 3))
    with pytest.raises(DataError, match="this is a log of Vowpal Wabbit"):
        load(path)


def test_structures_in_parquet(tmp_path):
    columns = {
        "obs": [{"position": [0.5 * row, 1.0], "speed": {"x": -row}} for row in range(4)],
        "action": [[0.1]] * 4,
        "reward": [1.0] * 4,
        "terminated": [False, False, False, True],
    }
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "log.parquet")
    data = load(tmp_path / "log.parquet")
    np.testing.assert_allclose(data.observations, [[0.5 * row, 1, -row] for row in range(4)])


@pytest.mark.parametrize("orient", ["columns", "index", "split", "table", "records"])
def test_json_of_pandas(tmp_path, orient):
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame(table([0.1, 0.2, 0.3])).to_json(tmp_path / "log.json", orient=orient)
    data = load(tmp_path / "log.json")
    np.testing.assert_allclose(data.observations, [[0, 1], [0.5, 0], [1, -1]])
    assert data.terminals.tolist() == [False, False, True]


def test_json_that_only_looks_like_that_of_pandas(tmp_path):
    columns = table([0.1, 0.2, 0.3])
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values())]
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"columns": list(columns), "data": rows}))
    assert load(path).terminals.tolist() == [False, False, True]
    short = [list(row.values())[: 5 - number] for number, row in enumerate(rows)]
    path.write_text(json.dumps({"columns": list(columns), "data": short}))
    with pytest.raises(DataError, match="no column is recognised as observations"):
        load(path)


@pytest.mark.parametrize("mark", [" ", "\u00a0", "\u202f", "'"])
def test_thousands_divided_by_what_is_no_decimal_mark(tmp_path, mark):
    columns = table([0.1] * 6)
    columns["reward"] = [f"1{mark}234", "-5", "2.5", f"1{mark}000{mark}000.5", "0", "7"]
    data = load(text(tmp_path / "log.csv", columns))
    assert data.rewards.tolist() == [1234, -5, 2.5, 1000000.5, 0, 7]
    assert "thousands divided in reward" in dict(reading_rows(data.metadata))["read as"]


def test_observations_in_a_group_of_a_flat_file(tmp_path):
    with h5py.File(tmp_path / "log.hdf5", "w") as file:
        file["observations/qpos"] = np.arange(8.0).reshape(4, 2)
        file["observations/qvel"] = np.arange(4.0)
        file["observations/images/top"] = np.zeros((4, 2, 2, 3), np.uint8)
        file["action"] = np.full((4, 1), 0.5)
    data = load(tmp_path / "log.hdf5", episodes_end="terminal")
    np.testing.assert_allclose(data.observations[1], [2, 3, 1])
    assert data.metadata["missing"] == ["rewards"]
    assert "left out: observations/images" in dict(reading_rows(data.metadata))["read as"]


def test_a_monitor_file_is_named(tmp_path):
    path = tmp_path / "monitor.csv"
    path.write_text('#{"t_start": 1.0, "env_id": "CartPole-v1"}\nr,l,t\n10.0,10,0.1\n')
    with pytest.raises(DataError, match="monitor file of Stable-Baselines3"):
        load(path)
