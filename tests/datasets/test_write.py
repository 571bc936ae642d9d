import errno
import json
import os

import gymnasium
import jax
import minari
import numpy as np
import pyarrow.parquet
import pytest
from minari.data_collector import EpisodeBuffer

from headwater.core.errors import DataError, SpecificationError
from headwater.core.spaces import Discrete, Spaces
from headwater.datasets import write as write_module
from headwater.datasets.dataset import COLUMNS, Dataset
from headwater.datasets.format import variants
from headwater.datasets.formats import numpy_format
from headwater.datasets.formats.directory_format import open_columns
from headwater.datasets.read import load
from headwater.datasets.write import convert, write

SUFFIXES = {"parquet": ".parquet", "arrow": ".arrow", "npz": ".npz", "d4rl": ".hdf5"}

VARIANTS = tuple(variants())


def example(discrete=False, rows=300):
    random = np.random.default_rng(1)
    terminals, truncations = np.zeros(rows, bool), np.zeros(rows, bool)
    terminals[[20, 55, 200]] = True
    truncations[[99, 150]] = True
    options = {} if discrete else {"action_low": [-2, 0], "action_high": [3, 1]}
    if discrete:
        actions = random.integers(0, 4, rows)
        options["action_count"] = 7
    else:
        actions = random.uniform([-2, 0], [3, 1], (rows, 2))
    return Dataset.from_arrays(
        random.normal(size=(rows, 3)),
        actions,
        random.normal(size=rows),
        terminals,
        truncations,
        horizon=200,
        metadata={
            "name": "task",
            "environment": "Hopper-v5",
            "behaviour_score": 12.5,
            "reference_returns": [1.0, 5.0],
        },
        **options,
    )


def place(folder, kind):
    return folder / f"task-v0{SUFFIXES.get(kind, '')}"


def assert_same(one, other):
    for name in (*COLUMNS, "episode_starts"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-6)
        assert getattr(one, name).dtype == getattr(other, name).dtype
    assert one.spaces.mismatch(other.spaces) is None
    assert one.spaces.horizon == other.spaces.horizon
    for field in vars(one.spaces.statistics):
        np.testing.assert_allclose(
            getattr(one.spaces.statistics, field),
            getattr(other.spaces.statistics, field),
            rtol=1e-5,
            atol=1e-6,
        )
    ignored = {"source", "reading"}
    assert {k: v for k, v in one.metadata.items() if k not in ignored} == {
        k: v for k, v in other.metadata.items() if k not in ignored
    }


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("kind", VARIANTS)
def test_every_format_gives_back_what_was_written(tmp_path, kind, discrete):
    data = example(discrete)
    path = write(data, place(tmp_path, kind), kind)
    back = load(path)
    assert_same(data, back)
    assert back.metadata["source"] == path.name
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", [kind for kind in VARIANTS if kind != "columns"])
def test_every_format_converts_to_columns_in_blocks(tmp_path, kind):
    data = example()
    source = write(data, place(tmp_path, kind), kind)
    target = convert(source, tmp_path / "columns", rows=60)
    assert_same(load(source), load(target))
    opened = open_columns(target)
    assert all(isinstance(column, np.memmap) for column in opened.columns.values())
    assert opened.size == data.size
    np.testing.assert_allclose(opened.columns["actions"], data.actions, atol=1e-6)


def test_formats_convert_into_each_other(tmp_path):
    data = example()
    path = write(data, tmp_path / "0.npz")
    for number, kind in enumerate(VARIANTS, start=1):
        path = convert(path, tmp_path / f"{number}-v0{SUFFIXES.get(kind, '')}", kind)
    assert_same(load(path), load(tmp_path / "0.npz"))


def test_columns_agree_on_the_number_of_discrete_actions(tmp_path):
    actions = np.array([0, 1, 0, 5])
    path = tmp_path / "log.npz"
    np.savez(
        path, obs=np.eye(4), actions=actions, rewards=np.ones(4), terminals=np.array([0, 1, 0, 1])
    )
    data = load(convert(path, tmp_path / "columns", rows=1))
    assert data.spaces.action == Discrete(6)


@pytest.mark.parametrize("kind", ["minari", "minari-arrow", "minari-parquet"])
def test_minari_itself_reads_what_was_written(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    (tmp_path / "mine").mkdir()
    data = example()
    write(data, tmp_path / "mine" / "task-v3", kind, name="mine/task-v3")
    dataset = minari.load_dataset("mine/task-v3")
    assert (dataset.total_episodes, dataset.total_steps) == (data.episodes, data.size)
    assert dataset.env_spec is not None and dataset.env_spec.id == "Hopper-v5"
    np.testing.assert_array_equal(dataset.action_space.high, [3, 1])
    raw = data.raw_actions()
    for number, episode in enumerate(dataset.iterate_episodes()):
        rows = slice(*data.episode_starts[number : number + 2])
        np.testing.assert_array_equal(episode.observations[:-1], data.observations[rows])
        np.testing.assert_array_equal(episode.observations[-1], data.next_observations[rows][-1])
        np.testing.assert_array_equal(episode.actions, raw[rows])
        np.testing.assert_array_equal(episode.rewards, data.rewards[rows])
        np.testing.assert_array_equal(episode.terminations, data.terminals[rows])
        np.testing.assert_array_equal(episode.truncations, data.truncations[rows])
    assert_same(load("mine/task-v3"), data)
    assert_same(load("minari:mine/task-v3"), data)
    with pytest.raises(DataError, match=r"did you mean mine/task-v3\?"):
        load("mine/tsk-v3")


def test_a_dataset_made_by_minari_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    environment = gymnasium.make("CartPole-v1")
    buffers = []
    for seed in range(3):
        observations, terminal = [environment.reset(seed=seed)[0]], False
        while not terminal:
            observation, _, terminal, _, _ = environment.step(1)
            observations.append(observation)
        steps = len(observations) - 1
        buffers.append(
            EpisodeBuffer(
                observations=observations,
                actions=[1] * steps,
                rewards=[1.0] * steps,
                terminations=[False] * (steps - 1) + [True],
                truncations=[False] * steps,
            )
        )
    with pytest.warns(UserWarning):
        minari.create_dataset_from_buffers("cart-v0", buffers, environment, algorithm_name="push")
    environment.close()
    data = load("cart-v0")
    assert data.spaces.action == Discrete(2) and data.spaces.horizon == 500
    assert data.metadata["environment"] == "CartPole-v1"
    assert data.metadata["algorithm_name"] == "push"
    assert data.episodes == 3 and data.terminals.sum() == 3
    np.testing.assert_array_equal(data.rewards, np.ones(data.size))
    for number, buffer in enumerate(buffers):
        rows = slice(*data.episode_starts[number : number + 2])
        np.testing.assert_array_equal(data.observations[rows], buffer.observations[:-1])
        np.testing.assert_array_equal(data.next_observations[rows], buffer.observations[1:])
    # The state in which the pole fell is known, unlike after reading shifted columns.
    assert np.all(np.abs(data.next_observations[data.terminals][:, 2]) > 0.2)


def _plain(shown):
    """Gymnasium's ordered dictionaries as plain ones."""
    return {k: _plain(v) if isinstance(v, dict) else v for k, v in shown.items()}


def test_observations_in_a_dictionary_are_laid_out_as_gymnasium_does(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    space = gymnasium.spaces.Dict(
        {
            "observation": gymnasium.spaces.Box(-9.0, 9.0, (3,), np.float32),
            "desired": gymnasium.spaces.Dict({"goal": gymnasium.spaces.Box(-9.0, 9.0, (2, 2))}),
            "mode": gymnasium.spaces.Discrete(2, start=5),
        }
    )
    space.seed(0)
    shown = [space.sample() for _ in range(4)]
    buffer = EpisodeBuffer(
        observations=jax.tree.map(lambda *steps: np.stack(steps), *map(_plain, shown)),
        actions=[np.zeros(1, np.float32)] * 3,
        rewards=[0.0, 1.0, 2.0],
        terminations=[False, False, True],
        truncations=[False] * 3,
    )
    with pytest.warns(UserWarning):
        minari.create_dataset_from_buffers(
            "goals-v0",
            [buffer],
            observation_space=space,
            action_space=gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32),
        )
    data = load("goals-v0")
    box = data.spaces.observation
    for row, dictionary in zip(data.observations, shown):
        expected = gymnasium.spaces.flatten(space, dictionary)
        np.testing.assert_array_equal(row, expected)
        np.testing.assert_array_equal(box.vector(dictionary), expected)
    # What was learned from it knows the same, and so does another format.
    write(data, tmp_path / "flat.parquet", "parquet")
    again = load(tmp_path / "flat.parquet")
    assert again.spaces.observation.parts == box.parts
    assert Spaces.from_json(json.loads(json.dumps(data.spaces.to_json()))).observation == box


def test_damaged_minari_datasets(tmp_path):
    path = write(example(), tmp_path / "task-v0", "minari")
    file = path / "data" / "main_data.hdf5"
    whole = file.read_bytes()
    file.write_bytes(whole[:-5000])
    with pytest.raises(DataError, match="truncated or corrupt"):
        load(path)
    file.unlink()
    with pytest.raises(DataError, match=r"main_data.hdf5 is missing"):
        load(path)
    file.write_bytes(whole)
    with pytest.raises(DataError, match="load the directory, not the file"):
        load(file)
    description = path / "data" / "metadata.json"
    stored = json.loads(description.read_text())
    del stored["action_space"]
    description.write_text(json.dumps(stored))
    with pytest.raises(DataError, match=r"metadata.json does not describe the action_space"):
        load(path)
    description.write_text("{")
    with pytest.raises(DataError, match=r"metadata.json cannot be read"):
        load(path)


def test_minari_refuses_what_it_cannot_hold(tmp_path):
    data = Dataset.from_arrays(
        np.eye(3), np.zeros((3, 1)), np.ones(3), [0, 0, 1], None, np.ones((3, 3))
    )
    with pytest.raises(DataError, match="the next observation of row 0 is not the observation of"):
        write(data, tmp_path / "task-v0", "minari")
    with pytest.raises(DataError, match="'no good-v0' is no name for a Minari dataset"):
        write(example(), tmp_path / "task-v0", "minari", name="no good-v0")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["npz", "columns", "minari"])
def test_nothing_is_overwritten_unasked(tmp_path, kind):
    path = write(example(), place(tmp_path, kind), kind)
    with pytest.raises(DataError, match="exists already and is left as it is"):
        write(example(rows=250), path, kind)
    assert load(path).size == load(path).size == example().size
    write(example(rows=250), path, kind, overwrite=True)
    assert load(path).size == example(rows=250).size
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_a_folder_that_is_no_dataset_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one").write_text("precious")
    with pytest.raises(DataError, match="is a directory but no dataset, and is not overwritten"):
        write(example(), tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "one").read_text() == "precious"


@pytest.mark.parametrize("existing", [False, True])
def test_a_full_disk_leaves_things_as_they_were(tmp_path, monkeypatch, existing):
    path = tmp_path / "log.npz"
    if existing:
        write(example(), path)
    before = path.read_bytes() if existing else None

    def full(dataset, target):
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(numpy_format, "write_archive", full)
    with pytest.raises(
        DataError, match=r"the disk is full: .* was not written, and nothing is left"
    ):
        write(example(), path, overwrite=True)
    assert (path.read_bytes() if path.exists() else None) == before
    assert len(list(tmp_path.iterdir())) == int(existing)


@pytest.mark.parametrize("kind", VARIANTS)
def test_too_little_room_is_noticed_beforehand(tmp_path, monkeypatch, kind):
    usage = write_module.shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(write_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(DataError, match=r"the disk is full: .* needs up to 0 MB and 0 MB are free"):
        write(example(), place(tmp_path, kind), kind)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_replacement_puts_the_old_one_back(tmp_path, monkeypatch):
    path = write(example(), tmp_path / "columns")
    rename = os.rename

    def fail(source, target):
        if str(source).endswith(".partial"):
            raise OSError(errno.EIO, "failed")
        rename(source, target)

    monkeypatch.setattr(write_module.os, "rename", fail)
    with pytest.raises(DataError, match="cannot be written"):
        write(example(rows=250), path, overwrite=True)
    assert load(path).size == example().size
    assert [item.name for item in tmp_path.iterdir()] == ["columns"]


def test_a_failed_conversion_leaves_nothing(tmp_path):
    np.savez(
        tmp_path / "log.npz", obs=np.eye(2), actions=[[0.0], [9.0]], rewards=[1, 1], dones=[0, 1]
    )
    with pytest.raises(DataError, match="outside the bounds"):
        convert(tmp_path / "log.npz", tmp_path / "columns", options={"dones": "terminal"})
    assert [item.name for item in tmp_path.iterdir()] == ["log.npz"]
    with pytest.raises(DataError, match="is both source and target"):
        convert(tmp_path / "log.npz", tmp_path / "log.npz", overwrite=True)


def test_unknown_formats_and_folders(tmp_path):
    with pytest.raises(SpecificationError, match="unknown format 'parket': did you mean"):
        write(example(), tmp_path / "log", "parket")
    with pytest.raises(SpecificationError, match=r"'.*log.xyz' does not say in which format"):
        write(example(), tmp_path / "log.xyz")
    with pytest.raises(DataError, match=r"the directory .* does not exist: create it first"):
        write(example(), tmp_path / "no" / "log.npz")


def test_exchange_formats_hold_the_users_units(tmp_path):
    data = example()
    write(data, tmp_path / "log.npz")
    with np.load(tmp_path / "log.npz") as stored:
        np.testing.assert_array_equal(stored["actions"], data.raw_actions())
    write(data, tmp_path / "log.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "log.parquet")
    np.testing.assert_array_equal(np.stack(table["actions"].to_numpy()), data.raw_actions())
    assert table["episode"].to_pylist() == data.episode_of_row.tolist()


def test_damaged_column_directories(tmp_path):
    path = write(example(), tmp_path / "columns")
    rewards = path / "rewards.npy"
    whole = rewards.read_bytes()
    rewards.write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"rewards.npy is missing, truncated or corrupt"):
        load(path)
    np.save(rewards, np.zeros(3, np.float32))
    with pytest.raises(DataError, match=r"rewards.npy has shape \(3,\) but 297 rows are needed"):
        load(path)
    rewards.unlink()
    with pytest.raises(DataError, match=r"rewards.npy is missing"):
        load(path)
    np.save(rewards, np.array([None] * 297), allow_pickle=True)
    with pytest.raises(DataError, match=r"rewards.npy is missing, truncated or corrupt"):
        load(path)
    (path / "dataset.json").write_text("{}")
    with pytest.raises(DataError, match=r"dataset.json is missing or damaged"):
        load(path)
