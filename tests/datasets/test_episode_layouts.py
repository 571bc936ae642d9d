"""Layouts that keep each episode apart: HDF5 groups, numbered arrays, an axis of episodes."""

import json

import h5py
import numpy as np
import pytest

from headwater.core.errors import DataError
from headwater.datasets.read import load, load_blocks

LENGTHS = (4, 12, 7)


def episodes(extra=1):
    """Three episodes: observations (one more than steps), actions, rewards; the second ends."""
    draw = np.random.default_rng(2)
    return [
        {
            "observations": draw.normal(size=(n + extra, 3)).astype(np.float32),
            "actions": draw.uniform(-1, 1, (n, 2)).astype(np.float32),
            "rewards": draw.normal(size=n).astype(np.float32),
        }
        for n in LENGTHS
    ]


def check_whole(data, found):
    """All rows are there, with the successors that were stored."""
    np.testing.assert_array_equal(
        data.observations, np.concatenate([e["observations"][:-1] for e in found])
    )
    np.testing.assert_array_equal(
        data.next_observations, np.concatenate([e["observations"][1:] for e in found])
    )
    np.testing.assert_allclose(
        data.actions, np.concatenate([e["actions"] for e in found]), atol=1e-7
    )
    np.testing.assert_array_equal(data.rewards, np.concatenate([e["rewards"] for e in found]))
    assert data.episode_starts.tolist() == [0, 4, 16, 23]
    assert np.flatnonzero(data.terminals).tolist() == [15]


def refused(path, *parts, **options):
    with pytest.raises(DataError) as raised:
        load(path, **options)
    assert "corrupt" not in str(raised.value)
    for part in parts:
        assert part in str(raised.value), str(raised.value)


def test_d3rlpy_2(tmp_path):
    path = tmp_path / "dump.h5"
    found = episodes(extra=0)
    with h5py.File(path, "w") as file:
        file["columns"] = [b"observations", b"actions", b"rewards", b"terminated"]
        file["num_episodes"], file["version"] = 12, "2.1"
        # Twelve episodes, so that the tenth does not come after the first.
        for number, episode in enumerate(found * 4):
            for name, values in episode.items():
                values = values[:, None] if name == "rewards" else values
                file[f"{name}_{number}"] = values
            file[f"terminated_{number}"] = number % 3 == 1
    data = load(path)
    assert data.episode_lengths().tolist() == [3, 12, 6] * 4
    assert np.flatnonzero(data.terminals).tolist() == [14, 35, 56, 77]
    kept = [e["rewards"][: None if i == 1 else -1] for i, e in enumerate(found)]
    np.testing.assert_array_equal(data.rewards, np.concatenate(kept * 4))
    blocks = list(load_blocks(path, 20))
    assert len(blocks) > 2
    np.testing.assert_array_equal(np.concatenate([b.rewards for b in blocks]), data.rewards)
    with h5py.File(path, "a") as file:
        del file["rewards_7"]
    refused(path, "'rewards_7' is missing")


def test_d3rlpy_2_with_several_observations(tmp_path):
    path = tmp_path / "dump.h5"
    with h5py.File(path, "w") as file:
        for number, episode in enumerate(episodes(extra=0)):
            file[f"observations_{number}_0"] = episode["observations"][:, :1]
            file[f"observations_{number}_1"] = episode["observations"][:, 1:]
            file[f"actions_{number}"] = np.arange(LENGTHS[number])[:, None] % 3
            file[f"rewards_{number}"] = episode["rewards"]
            file[f"terminated_{number}"] = True
    data = load(path)
    assert data.spaces.discrete and data.spaces.action_size == 3
    whole = np.concatenate([e["observations"] for e in episodes(extra=0)])
    np.testing.assert_array_equal(data.observations, whole)


def test_d3rlpy_1(tmp_path):
    path = tmp_path / "dump.h5"
    found = episodes(extra=0)
    with h5py.File(path, "w") as file:
        for name in ("observations", "rewards"):
            file[name] = np.concatenate([e[name] for e in found])
        file["actions"] = (np.arange(23) % 2).astype(np.float32)
        file["terminals"] = (np.arange(23) == 15).astype(np.float32)
        file["episode_terminals"] = np.isin(np.arange(23), (3, 15, 22)).astype(np.float32)
        file["discrete_action"], file["version"] = True, "1.0"
    data = load(path)
    assert data.spaces.discrete
    assert data.episode_lengths().tolist() == [3, 12, 6]
    assert np.flatnonzero(data.terminals).tolist() == [14]


def robomimic(path, found, holder="data", **change):
    with h5py.File(path, "w") as file:
        for number, episode in enumerate(found):
            group = file.create_group(f"{holder}/demo_{number}")
            steps = len(episode["actions"])
            arrays = {
                "actions": episode["actions"],
                "rewards": episode["rewards"],
                "dones": np.arange(steps) == (steps - 1 if number == 1 else -1),
                "states": np.zeros((steps, 9)),
                "obs/b": episode["observations"][:-1, 1:],
                "obs/a": episode["observations"][:-1, 0],
                "obs/image": np.zeros((steps, 4, 4, 3), np.uint8),
                "next_obs/b": episode["observations"][1:, 1:],
                "next_obs/a": episode["observations"][1:, 0],
            } | change
            for name, values in arrays.items():
                if values is not None:
                    group[name] = values
        file[holder].attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": {}})
        file["mask/train"] = [b"demo_0"]


def test_robomimic(tmp_path):
    path = tmp_path / "demo.hdf5"
    robomimic(path, episodes())
    data = load(path)
    check_whole(data, episodes())
    assert data.metadata["environment"] == "Lift"
    notes = data.metadata["reading"]["notes"]
    assert "observations are obs/a, obs/b" in notes and any("image" in note for note in notes)
    assert any("'dones' is taken as the end of the process" in note for note in notes)
    assert "lists of episodes are not used, all are read: mask/train" in notes
    data = load(path, columns={"observations": ["b"]})
    np.testing.assert_array_equal(
        data.observations, np.concatenate([e["observations"][:-1, 1:] for e in episodes()])
    )
    data = load(path, columns={"dones": "dones"}, dones="truncated")
    assert not data.terminals.any() and data.size == 23
    refused(
        path, "there is no observation 'c'; there are a, b, image", columns={"observations": "c"}
    )
    blocks = list(load_blocks(path, 5))
    assert [block.size for block in blocks] == [16, 7]


def test_demonstrations_without_rewards_or_successors(tmp_path):
    path = tmp_path / "demo.hdf5"
    robomimic(path, episodes(), **{"rewards": None, "next_obs/a": None, "next_obs/b": None})
    data = load(path)
    assert data.episode_lengths().tolist() == [3, 12, 6] and not data.rewards.any()
    assert any("no rewards are stored" in note for note in data.metadata["reading"]["notes"])
    with h5py.File(path, "a") as file:
        del file["data/demo_2/obs/a"]
    refused(path, "'data/demo_2/obs/a' is missing")


def test_groups_whose_observations_are_one_longer(tmp_path):
    path = tmp_path / "trajectory.h5"
    with h5py.File(path, "w") as file:
        for number, episode in enumerate(episodes()):
            group = file.create_group(f"traj_{number}")
            group["obs"] = episode["observations"]
            for name in ("actions", "rewards"):
                group[name] = episode[name]
            steps = np.arange(len(episode["actions"]))
            group["terminated"] = (steps == steps[-1]) & (number == 1)
            group["truncated"] = (steps == steps[-1]) & (number != 1)
    check_whole(load(path), episodes())
    with h5py.File(path, "a") as file:
        del file["traj_1/rewards"]
        file["traj_1/rewards"] = np.zeros(5)
    refused(path, "rewards of episode 'traj_1' has 5 rows but actions has 12")


def padded(fill=0.0, longer=True, flags=True):
    found = episodes()
    most = max(LENGTHS)
    arrays = {
        "observations": np.full((3, most + longer, 3), fill, np.float32),
        "actions": np.full((3, most, 2), fill, np.float32),
        "rewards": np.full((3, most), fill, np.float32),
    }
    for number, episode in enumerate(found):
        steps = LENGTHS[number]
        arrays["observations"][number, : steps + longer] = episode["observations"][: steps + longer]
        arrays["actions"][number, :steps] = episode["actions"]
        arrays["rewards"][number, :steps] = episode["rewards"]
    arrays["terminals"] = np.zeros((3, most), bool)
    arrays["terminals"][1, 11] = True
    if flags:
        arrays["truncations"] = np.zeros((3, most), bool)
        arrays["truncations"][[0, 2], [3, 6]] = True
    return arrays


@pytest.mark.parametrize("how", ["lengths", "mask", "masks", "NaN", "zeros"])
def test_an_axis_of_episodes(tmp_path, how):
    path = tmp_path / "log.npz"
    fill = np.nan if how == "NaN" else 0.0 if how == "zeros" else 0.25
    extra = {
        "lengths": {"episode_lengths": np.array(LENGTHS)},
        "mask": {"mask": np.arange(12) < np.array(LENGTHS)[:, None]},
        # Elsewhere, it says where nothing follows.
        "masks": {"masks": np.arange(12) < np.array(LENGTHS)[:, None]},
    }.get(how, {})
    np.savez(path, **padded(fill, flags=how == "zeros"), **extra)
    data = load(path)
    check_whole(data, episodes())
    assert "continues" not in data.metadata["reading"]["columns"]
    # What says how long episodes are is used, and a note tells for what.
    reading = data.metadata["reading"]
    assert not set(extra) & set(reading["unused"])
    assert all(
        any(f"'{name}' says how many steps" in n for n in reading["notes"]) for name in extra
    )


def test_a_flag_for_each_padded_episode_stands_for_its_last_step(tmp_path):
    path = tmp_path / "log.npz"
    arrays = padded(0.25, flags=False) | {"terminals": np.array([[0], [1], [0]])}
    np.savez(path, **arrays, lengths=np.array(LENGTHS))
    check_whole(load(path), episodes())
    # Both at once contradict nothing, and a truncation is no end of the process.
    np.savez(path, **arrays, truncated=np.array([1, 0, 1]), lengths=np.array(LENGTHS))
    check_whole(load(path), episodes())


def test_observations_one_longer_end_to_end(tmp_path):
    path = tmp_path / "trajectories.npz"
    found = episodes()
    arrays = {
        "obs": np.concatenate([e["observations"] for e in found]),
        "acts": np.concatenate([e["actions"] for e in found]),
        "rews": np.concatenate([e["rewards"] for e in found]),
        "terminal": np.array([False, True, False]),
        "indices": np.cumsum(LENGTHS)[:-1],
    }
    np.savez(path, **arrays)
    data = load(path)
    check_whole(data, found)
    reading = data.metadata["reading"]
    assert any("'indices' says where each of 3 episodes begins" in n for n in reading["notes"])
    assert "indices" not in reading["unused"]
    np.savez(path, **{**arrays, "indices": np.array([9, 4])})
    refused(path, "'indices' says that episode 1 begins at step 9 and the next at 4")
    # Whatever else is called so is left alone.
    np.savez(path, **{**arrays, "obs": arrays["obs"][:-3], "terminal": np.arange(23) == 15})
    assert "indices" in load(path).metadata["reading"]["unused"]


def test_full_episodes_need_no_length_and_end_with_their_row(tmp_path):
    path = tmp_path / "log.npz"
    draw = np.random.default_rng(3)
    arrays = {
        "observations": draw.normal(size=(5, 6, 2)),
        "actions": draw.integers(0, 3, (5, 6)),
        "rewards": draw.normal(size=(5, 6)),
        "terminals": np.zeros((5, 6), bool),
    }
    np.savez(path, **arrays)
    data = load(path)
    assert data.episode_lengths().tolist() == [5] * 5 and data.spaces.discrete
    np.testing.assert_array_equal(data.rewards, arrays["rewards"][:, :-1].ravel().astype("f4"))
    # Where a simulator was reset within its row, the row goes on with another episode.
    arrays["terminals"][2, 2] = True
    np.savez(path, **arrays)
    assert load(path).episode_lengths().tolist() == [5, 5, 3, 2, 5, 5]


def test_what_is_padding_is_not_guessed(tmp_path):
    path = tmp_path / "log.npz"
    np.savez(path, **padded(0.0, flags=False))
    refused(path, "episode 0 holds nothing but zeros from step 4 on", "'lengths'")
    np.savez(path, **padded(0.25), lengths=np.array([4, 13, 7]))
    refused(path, "'lengths' says that episode 1 has 13 steps", "1 to 12")
    np.savez(path, **padded(0.25), mask=np.arange(12) % 2 * np.ones((3, 1)))
    refused(path, "episode 0 goes on at step 1 after steps that do not count")
    np.savez(path, **padded(0.25), lengths=np.array(LENGTHS), mask=np.ones((3, 12)))
    refused(path, "contradict each other on how long episode 0 is")
    np.savez(path, **padded(0.25), is_last=np.zeros(3), lengths=np.array(LENGTHS))
    refused(path, "ends has one value for each of 3 episodes")
    np.savez(path, **{**padded(0.25), "observations": np.zeros((3, 20, 2))})
    refused(path, "rewards are laid out [episode, step] = [3, 12]")
