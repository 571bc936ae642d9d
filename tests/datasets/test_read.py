import json
import pickle

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.datasets.columns.options import Options
from headwater.datasets.dataset import Dataset
from headwater.datasets.read import load, load_blocks
from headwater.datasets.write import write

ROWS = 12


@pytest.fixture
def columns():
    """Three episodes of 5, 3 and 4 rows: terminal, truncated, just stopping."""
    random = np.random.default_rng(0)
    terminals, timeouts = np.zeros(ROWS, bool), np.zeros(ROWS, bool)
    terminals[4], timeouts[7] = True, True
    return {
        "observations": random.normal(size=(ROWS, 3)).astype(np.float32),
        "actions": random.uniform(-1, 1, (ROWS, 2)).astype(np.float32),
        "rewards": random.normal(size=ROWS).astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
    }


def write_hdf5(path, columns, **metadata):
    with h5py.File(path, "w") as file:
        for name, value in columns.items():
            file.create_dataset(name, data=value)
        for name, value in metadata.items():
            file[f"metadata/{name}"] = value


def check(data, columns):
    """What must come of `columns` when next observations are rebuilt."""
    kept = [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]
    np.testing.assert_array_equal(data.observations, columns["observations"][kept])
    np.testing.assert_allclose(data.actions, columns["actions"][kept], atol=1e-7)
    np.testing.assert_array_equal(data.rewards, columns["rewards"][kept])
    assert data.episode_starts.tolist() == [0, 5, 7, 10]
    assert np.flatnonzero(data.terminals).tolist() == [4]
    assert np.flatnonzero(data.truncations).tolist() == [6, 9]
    np.testing.assert_array_equal(data.next_observations[6], columns["observations"][7])


def refused(path, *parts, **options):
    with pytest.raises(DataError) as raised:
        load(path, **options)
    message = str(raised.value)
    assert message.startswith(str(path)) and "\n" not in message
    for part in parts:
        assert part in message
    return message


def test_d4rl_hdf5_with_and_without_next_observations(tmp_path, columns):
    path = tmp_path / "hopper-medium-v2.hdf5"
    write_hdf5(path, columns, algorithm="SAC", iteration=3)
    data = load(path)
    check(data, columns)
    assert data.metadata["name"] == "hopper-medium-v2"
    assert data.metadata["algorithm"] == "SAC" and data.metadata["iteration"] == 3
    assert data.references().expert == 3234.3
    following = columns["observations"] + 1
    write_hdf5(path, {**columns, "next_observations": following})
    data = load(path)
    assert data.size == ROWS and "dropped_rows" not in data.metadata
    np.testing.assert_array_equal(data.next_observations, following)


def test_npz_under_other_names(tmp_path, columns):
    path = tmp_path / "log.npz"
    names = {"observations": "obs", "terminals": "terminations", "timeouts": "truncations"}
    np.savez(path, **{names.get(name, name): value for name, value in columns.items()})
    check(load(path), columns)


def test_tables_with_list_columns(tmp_path, columns):
    table = pa.table({name: pa.array(list(value)) for name, value in columns.items()})
    pyarrow.parquet.write_table(table, tmp_path / "log.parquet", row_group_size=5)
    pyarrow.feather.write_feather(table, tmp_path / "log.feather", chunksize=5)
    check(load(tmp_path / "log.parquet"), columns)
    check(load(tmp_path / "log.feather"), columns)


def scalar_table(columns, pattern="observation_{}"):
    named = {pattern.format(i): columns["observations"][:, i] for i in range(3)}
    named |= {f"action_{i}": columns["actions"][:, i] for i in range(2)}
    return pa.table(named | {k: columns[k] for k in ("rewards", "terminals", "timeouts")})


def test_tables_with_families_of_scalar_columns(tmp_path, columns):
    pyarrow.parquet.write_table(scalar_table(columns), tmp_path / "log.parquet")
    check(load(tmp_path / "log.parquet"), columns)


@pytest.mark.parametrize(
    "family", ["{}[{}]", "{}.{}", "{}-{}", "{}:{}", "{} {}", "{}({})", "{}/{}"]
)
def test_components_are_numbered_in_many_ways(tmp_path, columns, family):
    table = scalar_table(columns)
    names = [
        family.format(*name.rsplit("_", 1)) if name[-1].isdigit() else name
        for name in table.column_names
    ]
    assert names != table.column_names
    pyarrow.parquet.write_table(table.rename_columns(names), tmp_path / "log.parquet")
    check(load(tmp_path / "log.parquet"), columns)


def test_a_mapping_given_or_written_next_to_the_file(tmp_path, columns):
    table = scalar_table(columns, "sensor{}.value")
    path = tmp_path / "log.parquet"
    pyarrow.parquet.write_table(table, path)
    refused(path, "no column is recognised as observations; the columns are 'sensor0.value', ")
    check(load(path, columns={"observations": "sensor*.value"}), columns)
    names = [f"sensor{i}.value" for i in range(3)]
    check(load(path, columns={"observations": names}), columns)
    (tmp_path / "log.columns.toml").write_text('[columns]\nobservations = "sensor*.value"\n')
    check(load(path), columns)
    (tmp_path / "log.columns.toml").unlink()
    text = json.dumps({"columns": {"observations": names}, "action_low": -2, "action_high": 2})
    (tmp_path / "log.columns.json").write_text(text)
    data = load(path)
    assert data.spaces.action.high == (2.0, 2.0)
    assert load(path, action_high=3).spaces.action.high == (3.0, 3.0)
    (tmp_path / "log.columns.json").write_text("{")
    refused(path, "log.columns.json next to it cannot be read")
    (tmp_path / "log.columns.json").write_text('{"colums": {}}')
    refused(path, "unknown option 'colums': did you mean columns?")


def test_csv(tmp_path, columns):
    from pyarrow import csv

    csv.write_csv(scalar_table(columns), tmp_path / "log.csv")
    data = load(tmp_path / "log.csv")
    np.testing.assert_allclose(data.rewards[:5], columns["rewards"][:5], rtol=1e-6)
    assert data.episodes == 3


def test_an_episode_column_ends_episodes(tmp_path, columns):
    path = tmp_path / "log.npz"
    del columns["timeouts"]
    np.savez(path, **columns, episode_id=np.repeat([7, 3, 5], [5, 3, 4]))
    check(load(path), columns)
    np.savez(path, **columns, episode_id=np.repeat([7, 3, 7], [5, 3, 4]))
    refused(path, "episode 7 begins again at row 8: sort the rows by episode and step")


def test_episodes_may_be_named_by_text(tmp_path, columns):
    del columns["timeouts"]
    table = pa.table({name: pa.array(list(value)) for name, value in columns.items()})
    table = table.append_column("episode", pa.array(["a"] * 5 + ["b"] * 3 + ["c"] * 4))
    pyarrow.parquet.write_table(table, tmp_path / "log.parquet")
    check(load(tmp_path / "log.parquet"), columns)


def test_dones_need_a_meaning(tmp_path, columns):
    path = tmp_path / "log.npz"
    dones = columns.pop("terminals") | columns["timeouts"]
    timeouts = columns.pop("timeouts")
    np.savez(path, **columns, dones=dones)
    refused(path, "a column of dones does not say", "horizon=STEPS", "dones='terminal'")
    data = load(path, horizon=5)
    # The first episode ends at its fifth step, the time limit; the second before.
    assert np.flatnonzero(data.terminals).tolist() == [6]
    assert load(path, dones="terminal").terminals.sum() == 2
    assert load(path, dones="truncated").terminals.sum() == 0
    refused(path, "the episode around row 4 is longer than horizon=4 steps", horizon=4)
    np.savez(path, **columns, dones=dones, timeouts=timeouts)
    assert np.flatnonzero(load(path).terminals).tolist() == [4]


def test_data_without_any_ends_must_be_declared(tmp_path, columns):
    path = tmp_path / "log.npz"
    del columns["terminals"]
    np.savez(path, **columns)
    refused(path, "no column says where the process ended (terminals)", "never_terminal=True")
    data = load(path, never_terminal=True)
    assert not data.terminals.any() and data.episodes == 2


def test_blocks_are_whole_episodes_and_add_up(tmp_path, columns):
    table = pa.table({name: pa.array(list(value)) for name, value in columns.items()})
    pyarrow.parquet.write_table(table, tmp_path / "log.parquet", row_group_size=2)
    blocks = list(load_blocks(tmp_path / "log.parquet", 2))
    assert [block.episodes for block in blocks] == [2, 1]
    whole = load(tmp_path / "log.parquet")
    np.testing.assert_array_equal(np.concatenate([b.rewards for b in blocks]), whole.rewards)
    np.testing.assert_array_equal(
        np.concatenate([b.next_observations for b in blocks]), whole.next_observations
    )
    columns["rewards"][9] = np.nan
    table = pa.table({name: pa.array(list(value)) for name, value in columns.items()})
    pyarrow.parquet.write_table(table, tmp_path / "log.parquet", row_group_size=2)
    with pytest.raises(DataError, match=r"rewards holds nan at row 1.*counted from row 8 of the"):
        list(load_blocks(tmp_path / "log.parquet", 2, Options()))


def test_missing_files_and_the_nearest_names(tmp_path, columns, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "none"))
    np.savez(tmp_path / "hopper.npz", **columns)
    with pytest.raises(
        DataError, match=r"there is no file or directory '.*did you mean hopper.npz"
    ):
        load(tmp_path / "hoper.npz")
    assert not (tmp_path / "none").exists()


def test_a_wrong_role_or_column_in_the_mapping(tmp_path, columns):
    path = tmp_path / "log.npz"
    np.savez(path, **columns)
    with pytest.raises(SpecificationError, match="unknown role of a column 'reward': did you mean"):
        load(path, columns={"reward": "rewards"})
    refused(
        path,
        "the column 'score' declared for rewards is not there; the columns are 'observations', ",
        columns={"rewards": "score"},
    )
    refused(path, "no column matches 'x_*' for actions", columns={"actions": "x_*"})


def test_a_gap_in_a_family(tmp_path, columns):
    table = scalar_table(columns).drop_columns(["observation_1"])
    pyarrow.parquet.write_table(table, tmp_path / "log.parquet")
    refused(tmp_path / "log.parquet", "numbered 0 to 2 but 'observation_1' is missing")


def test_objects_and_pickles_are_never_loaded(tmp_path, columns):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    bomb = np.empty(1, object)
    bomb[0] = Bomb()
    path = tmp_path / "log.npz"
    np.savez(path, **{**columns, "rewards": bomb})
    refused(path, "array 'rewards' holds Python objects (a pickle), which are never loaded")
    np.savez(path, **columns, metadata=bomb)
    refused(path, "array 'metadata' holds Python objects")
    for name in ("log.pkl", "log.bin"):
        (tmp_path / name).write_bytes(pickle.dumps({"a": 1}))
        refused(tmp_path / name, "pickles are never loaded")


@pytest.mark.parametrize("suffix", [".hdf5", ".npz", ".parquet", ".feather"])
def test_truncated_and_corrupt_files(tmp_path, columns, suffix):
    path = tmp_path / f"log{suffix}"
    columns = {name: np.repeat(value, 50, axis=0) for name, value in columns.items()}
    if suffix == ".hdf5":
        write_hdf5(path, columns)
    elif suffix == ".npz":
        np.savez(path, **columns)
    else:
        table = pa.table({name: pa.array(list(value)) for name, value in columns.items()})
        write = pyarrow.parquet.write_table if suffix == ".parquet" else pa.feather.write_feather
        write(table, str(path))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "truncated or corrupt", "copy or download it again")
    path.write_bytes(b"")
    refused(path, "the file is empty")
    path.write_bytes(b"nonsense" * 10)
    refused(path, f"the content is not that of a {suffix} file")


def test_unknown_content(tmp_path):
    (tmp_path / "log.txt").write_text("hello")
    refused(tmp_path / "log.txt", "its format is not recognised")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "nor a Minari dataset", "it holds nothing")


def test_lengths_types_and_missing_values_name_the_column_and_row(tmp_path, columns):
    path = tmp_path / "log.hdf5"
    write_hdf5(path, {**columns, "rewards": columns["rewards"][:-1]})
    refused(path, "column 'rewards' has 11 rows but 'observations' has 12")
    write_hdf5(path, {**columns, "rewards": np.array([b"a"] * ROWS)})
    refused(path, "column 'rewards' has type |S1: only numbers can be read")
    path = tmp_path / "log.npz"
    np.savez(path, **{**columns, "rewards": columns["rewards"][:-1]})
    refused(path, "rewards has 11 rows but observations has 12")
    path = tmp_path / "log.parquet"

    def table(**changes):
        lists = {name: list(value) for name, value in columns.items()} | changes
        pyarrow.parquet.write_table(pa.table({k: pa.array(v) for k, v in lists.items()}), path)

    observations = [row.tolist() for row in columns["observations"]]
    table(rewards=[0.0] * 3 + [None] * 9)
    refused(path, "column 'rewards' has no value at row 3 (and 8 more are missing)")
    table(observations=[*observations[:5], None, *observations[6:]])
    refused(path, "column 'observations' has no value at row 5")
    table(observations=[*observations[:5], [0.0, None, 0.0], *observations[6:]])
    refused(path, "column 'observations' has no value at row 5")
    table(observations=[*observations[:5], [0.0], *observations[6:]])
    refused(path, "column 'observations' has 3 components at row 0 but 1 at row 5")
    table(rewards=["a"] * ROWS)
    refused(path, "column 'rewards' has type string, which is not a number")
    table(rewards=[np.nan] * ROWS)
    refused(path, "rewards holds nan at row 0")
    table(actions=[[0.0, 0.0]] * 11 + [[0.0, 5.0]])
    refused(path, "actions holds 5 at row 11, component 1, outside the bounds -1 to 1")


def test_nothing_outside_the_file_is_opened(tmp_path, columns):
    secret = tmp_path / "secret.hdf5"
    write_hdf5(secret, columns)
    path = tmp_path / "log.hdf5"
    without = {name: value for name, value in columns.items() if name != "rewards"}
    write_hdf5(path, without)
    with h5py.File(path, "a") as file:
        file["rewards"] = h5py.ExternalLink(secret, "rewards")
    refused(path, "'rewards' is a link to another file (", "which is not followed")
    write_hdf5(path, without)
    (tmp_path / "raw").write_bytes(columns["rewards"].tobytes())
    with h5py.File(path, "a") as file:
        file.create_dataset(
            "infos/rewards", (ROWS,), "f4", external=[(str(tmp_path / "raw"), 0, 4 * ROWS)]
        )
    refused(path, "'infos/rewards' keeps its data in other files, which are not opened")
    write_hdf5(path, without)
    layout = h5py.VirtualLayout(shape=(ROWS,), dtype="f4")
    layout[:] = h5py.VirtualSource(secret, "rewards", shape=(ROWS,))
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("rewards", layout)
    refused(path, "'rewards' keeps its data in other files")
    write_hdf5(path, without)
    with h5py.File(path, "a") as file:
        file["rewards"] = h5py.SoftLink("/nowhere")
    refused(path, "'rewards' leads to nothing in the file")


@pytest.mark.parametrize("place", [0.1, 0.35, 0.6])
def test_a_flipped_bit_in_a_parquet_file_is_noticed(tmp_path, place):
    generator = np.random.default_rng(0)
    data = Dataset.from_arrays(
        generator.normal(size=(500, 3)),
        generator.uniform(-1, 1, (500, 1)),
        generator.normal(size=500),
        np.zeros(500, bool),
        np.arange(500) % 50 == 49,
        generator.normal(size=(500, 3)),
    )
    path = write(data, tmp_path / "log.parquet")
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"log\.parquet: this .* file is truncated or corrupt"):
        load(path)
