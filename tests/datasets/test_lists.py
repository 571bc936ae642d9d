"""Episodes as lists in the rows of a table, JSON, arrays in a directory, LeRobot, RLDS's rows."""

import itertools
import json

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from headwater.core.errors import DataError
from headwater.core.spaces import Box
from headwater.datasets.read import load, load_blocks
from headwater.datasets.reading import reading_rows

LENGTHS, TERMINAL = (3, 1, 4), (True, False, True)
READING = "each row of the table is an episode, whose columns hold a list of its steps"


def trajectories(discrete=True):
    """Episodes as imitation keeps them: one observation more than actions."""
    draw = np.random.default_rng(3)
    return [
        {
            "obs": draw.normal(size=(n + 1, 2)).tolist(),
            "acts": draw.integers(0, 3, n).tolist()
            if discrete
            else draw.uniform(-1, 1, (n, 2)).tolist(),
            "rews": draw.normal(size=n).tolist(),
            "infos": ["{}"] * n,
            "terminal": ended,
        }
        for n, ended in zip(LENGTHS, TERMINAL)
    ]


def check(data, rows):
    """Against the same episodes laid end to end by hand."""
    np.testing.assert_allclose(
        data.observations, np.concatenate([np.array(r["obs"])[:-1] for r in rows]), atol=1e-6
    )
    np.testing.assert_allclose(
        data.next_observations, np.concatenate([np.array(r["obs"])[1:] for r in rows]), atol=1e-6
    )
    np.testing.assert_allclose(data.actions, np.concatenate([r["acts"] for r in rows]), atol=1e-6)
    if "rews" in rows[0]:
        np.testing.assert_allclose(
            data.rewards, np.concatenate([r["rews"] for r in rows]), atol=1e-6
        )
    assert data.episode_starts.tolist() == [0, *np.cumsum([len(r["acts"]) for r in rows])]
    ends = data.episode_starts[1:] - 1
    assert data.terminals[ends].tolist() == [r["terminal"] for r in rows]
    assert data.truncations[ends].tolist() == [not r["terminal"] for r in rows]
    assert np.count_nonzero(data.terminals | data.truncations) == len(rows)


@pytest.mark.parametrize("discrete", [True, False])
def test_a_row_for_each_trajectory(tmp_path, discrete):
    rows = trajectories(discrete)
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "log.parquet", row_group_size=2)
    data = load(tmp_path / "log.parquet")
    check(data, rows)
    assert data.metadata["reading"]["notes"] == [READING]
    assert data.metadata["reading"]["unused"] == ["infos"]
    blocks = list(load_blocks(tmp_path / "log.parquet", 1))
    assert sum(block.size for block in blocks) == sum(LENGTHS)
    # A table of steps with vectors of one number is no table of trajectories.
    steps = [{"obs": [1.0, 2.0], "act": [0.5], "rew": [1.0], "done": i == 2} for i in range(3)]
    parquet.write_table(arrow.Table.from_pylist(steps), tmp_path / "steps.parquet")
    assert load(tmp_path / "steps.parquet", dones="terminal").episodes == 1


def test_trajectories_without_rewards(tmp_path):
    rows = [{k: v for k, v in row.items() if k != "rews"} for row in trajectories()]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "log.parquet")
    data = load(tmp_path / "log.parquet")
    check(data, rows)
    assert data.metadata["missing"] == ["rewards"]


def test_lists_that_do_not_fit(tmp_path):
    rows = trajectories()
    rows[2]["rews"].append(0.0)
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"'rews' has 5 steps in row 2 but 'acts' has 4: all lists"):
        load(tmp_path / "log.parquet")


def fragments(cuts, numbers, **more):
    """Rows of a table that hold pieces of episodes, as samplers write them, and their steps.

    Five, three and six steps; the second episode is terminal.
    """
    draw = np.random.default_rng(4)
    lengths = (5, 3, 6)
    paths = [draw.normal(size=(n + 1, 2)) for n in lengths]
    steps = {
        "obs": np.concatenate([path[:-1] for path in paths]),
        "new_obs": np.concatenate([path[1:] for path in paths]),
        "actions": draw.uniform(-1, 1, (14, 1)),
        "rewards": draw.normal(size=14),
        "terminateds": np.arange(14) == 7,
        "eps_id": np.repeat(numbers, lengths),
        "t": np.concatenate([np.arange(n) for n in lengths]),
    }
    steps |= more
    steps = {name: values for name, values in steps.items() if values is not None}
    edges = (0, *cuts, 14)
    rows = [
        {name: values[begin:end].tolist() for name, values in steps.items()}
        for begin, end in itertools.pairwise(edges)
    ]
    return rows, steps


@pytest.mark.parametrize("left_out", [None, "t", "new_obs"])
@pytest.mark.parametrize("cuts", [(2, 4, 6), (5, 8), (7, 10), (3,)])
def test_an_episode_goes_on_in_the_next_row(tmp_path, left_out, cuts):
    rows, steps = fragments(cuts, (41, 7, 90), **({left_out: None} if left_out else {}))
    path = tmp_path / "log.parquet"
    parquet.write_table(arrow.Table.from_pylist(rows), path, row_group_size=1)
    data = load(path)
    kept = np.ones(14, bool)
    if left_out == "new_obs":
        kept[[4, 13]] = False
    np.testing.assert_allclose(data.rewards, steps["rewards"][kept], atol=1e-6)
    np.testing.assert_allclose(data.observations, steps["obs"][kept], atol=1e-6)
    lengths = [4, 3, 5] if left_out == "new_obs" else [5, 3, 6]
    assert data.episode_lengths().tolist() == lengths
    assert np.flatnonzero(data.terminals).tolist() == [sum(lengths[:2]) - 1]
    assert any("a row goes on with the episode" in n for n in data.metadata["reading"]["notes"])
    blocks = list(load_blocks(path, 1))
    assert np.concatenate([block.episode_lengths() for block in blocks]).tolist() == lengths


def test_rows_of_the_same_number_are_episodes_unless_their_steps_follow(tmp_path):
    # Three episodes that all have the same number, and are told apart by where steps begin again.
    rows, _ = fragments((5, 8), (3, 3, 3))
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "log.parquet")
    assert load(tmp_path / "log.parquet").episode_lengths().tolist() == [5, 3, 6]
    rows, _ = fragments((5, 8), (3, 3, 3), t=None)
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "log.parquet")
    assert load(tmp_path / "log.parquet").episode_lengths().tolist() == [5, 3, 6]


@pytest.mark.parametrize("layout", ["lines", "list", "inside", "one"])
def test_json(tmp_path, layout):
    rows = trajectories()
    rows = rows[:1] if layout == "one" else rows
    text = {
        "lines": "\n".join(map(json.dumps, rows)),
        "list": json.dumps(rows),
        "inside": json.dumps({"version": 1, "trajectories": rows}),
        "one": json.dumps(rows[0], indent=1),
    }[layout]
    path = tmp_path / ("log.jsonl" if layout == "lines" else "log.json")
    path.write_text(text)
    check(load(path), rows)


def test_json_lines_of_steps_with_objects_inside(tmp_path):
    draw = np.random.default_rng(1)
    seen = draw.normal(size=(6, 2))
    lines = [
        {"state": {"x": x, "y": y}, "action": int(i % 2), "reward": i, "terminated": i == 3}
        for i, (x, y) in enumerate(seen)
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    turned = load(tmp_path / "log.jsonl", columns={"observations": ["state.y", "state.x"]})
    np.testing.assert_allclose(turned.observations, seen[:5, ::-1], atol=1e-6)
    data = load(tmp_path / "log.jsonl")
    np.testing.assert_allclose(data.observations, seen[:5], atol=1e-6)
    assert data.rewards.tolist() == [0, 1, 2, 3, 4] and data.terminals.tolist()[3]
    (tmp_path / "log.jsonl").write_text('{"obs": 1}\n{"obs": "')
    with pytest.raises(DataError, match="it is no JSON Lines with an object of the same fields"):
        load(tmp_path / "log.jsonl")
    (tmp_path / "log.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="this JSON holds no table: give a list of objects"):
        load(tmp_path / "log.json")


def test_arrays_in_files_of_their_own_and_records(tmp_path):
    draw = np.random.default_rng(2)
    columns = {
        "observations": draw.normal(size=(8, 2)),
        "actions": draw.uniform(-1, 1, (8, 1)),
        "rewards": draw.normal(size=8),
        "terminals": np.arange(8) % 4 == 3,
    }
    (tmp_path / "log").mkdir()
    for name, values in columns.items():
        np.save(tmp_path / "log" / f"{name}.npy", values)
    record = np.zeros(8, [(n, "f8", v.shape[1:]) for n, v in columns.items()])
    for name, values in columns.items():
        record[name] = values
    np.save(tmp_path / "records.npy", record)
    for place in (tmp_path / "log", tmp_path / "records.npy"):
        data = load(place)
        np.testing.assert_allclose(data.observations, columns["observations"], atol=1e-6)
        np.testing.assert_allclose(data.rewards, columns["rewards"], atol=1e-6)
        assert data.episodes == 2
    np.save(tmp_path / "log" / "rewards.npy", np.array([None] * 8), allow_pickle=True)
    with pytest.raises(DataError, match="array 'rewards' holds Python objects"):
        load(tmp_path / "log")


def lerobot(place, *, rewards=True, done=True, files=2):
    """Two files of frames, an episode of five in each, with a camera that Parquet does not hold."""
    (place / "meta").mkdir(parents=True)
    (place / "data" / "chunk-000").mkdir(parents=True)
    draw = np.random.default_rng(4)
    states = draw.normal(size=(5 * files, 3)).astype(np.float32)
    actions = draw.uniform(-50, 50, (5 * files, 2)).astype(np.float32)
    features = {
        "observation.state": {"dtype": "float32", "shape": [3]},
        "observation.images.top": {"dtype": "video", "shape": [3, 4, 4]},
        "action": {"dtype": "float32", "shape": [2]},
    }
    for file in range(files):
        rows = slice(5 * file, 5 * file + 5)
        table = {
            "observation.state": list(states[rows]),
            "action": list(actions[rows]),
            "episode_index": np.full(5, file),
            "frame_index": np.arange(5),
            **({"next.reward": np.arange(5.0)} if rewards else {}),
            **({"next.done": np.arange(5) == 4} if done else {}),
        }
        parquet.write_table(arrow.table(table), place / f"data/chunk-000/file-{file:03d}.parquet")
    info = {"codebase_version": "v3.0", "fps": 30, "features": features, "robot_type": "so100"}
    (place / "meta" / "info.json").write_text(json.dumps(info))
    return states, actions


def test_lerobot(tmp_path):
    states, actions = lerobot(tmp_path / "a")
    data = load(tmp_path / "a")
    np.testing.assert_array_equal(data.observations, states)
    np.testing.assert_allclose(data.raw_actions(), actions, atol=1e-4)
    np.testing.assert_allclose(bounds(data), actions.min(0))
    assert data.episodes == 2 and data.terminals.sum() == 2
    assert (data.metadata["fps"], data.metadata["robot_type"]) == (30, "so100")
    told = dict.fromkeys(text for label, text in reading_rows(data.metadata))
    assert "what cameras saw is left out: observation.images.top" in told
    assert any(text.startswith("'next.done' is taken as the end of the process") for text in told)
    # What the user says goes first.
    cut = load(tmp_path / "a", dones="truncated", action_low=-60.0, action_high=60.0)
    assert cut.terminals.sum() == 0 and len(cut) == 8
    assert bounds(cut) == (-60.0, -60.0)


def test_lerobot_without_rewards_and_flags(tmp_path):
    lerobot(tmp_path / "a", rewards=False, done=False)
    data = load(tmp_path / "a")
    assert data.metadata["missing"] == ["rewards"]
    assert data.episodes == 2 and data.truncations.sum() == 2
    (tmp_path / "a" / "meta" / "info.json").write_text("{")
    with pytest.raises(DataError, match=r"meta/info\.json cannot be read"):
        load(tmp_path / "a")


def rlds(**more):
    """Two episodes of three steps, each with the last observation as a row of its own."""
    draw = np.random.default_rng(5)
    last = np.arange(8) % 4 == 3
    return {
        "observation": draw.normal(size=(8, 2)).tolist(),
        "action": np.where(last, 0, [0, 1, 1, 0, 1, 0, 1, 0]),
        "reward": np.where(last, 0.0, np.arange(8.0)),
        "is_first": np.arange(8) % 4 == 0,
        "is_last": last,
        "is_terminal": np.arange(8) == 3,
        **more,
    }


def test_the_last_row_of_an_episode_may_be_an_observation_alone(tmp_path):
    steps = rlds()
    path = tmp_path / "log.parquet"
    parquet.write_table(arrow.table(steps), path)
    data = load(path, last_row="observation")
    seen = np.array(steps["observation"])
    kept = [0, 1, 2, 4, 5, 6]
    np.testing.assert_allclose(data.observations, seen[kept], atol=1e-6)
    np.testing.assert_allclose(data.next_observations, seen[np.add(kept, 1)], atol=1e-6)
    assert data.rewards.tolist() == [0, 1, 2, 4, 5, 6]
    assert data.terminals.tolist() == [False, False, True, False, False, False]
    assert data.truncations.tolist() == [False, False, False, False, False, True]
    assert "dropped_rows" not in data.metadata
    together = np.concatenate(
        [block.rewards for block in load_blocks(path, 1, _options(last_row="observation"))]
    )
    assert together.tolist() == data.rewards.tolist()
    # Unasked, it is said what was assumed.
    plain = load(path)
    assert any("say last_row='observation'" in text for _, text in reading_rows(plain.metadata))
    parquet.write_table(arrow.table(rlds(reward=np.arange(8.0))), path)
    with pytest.raises(DataError, match=r"the last row of an episode, row 3, has the reward 3"):
        load(path, last_row="observation")


def _options(**said):
    from headwater.datasets.columns.options import Options

    return Options(**said)


def bounds(data):
    """Lower bounds of continuous actions."""
    assert isinstance(data.spaces.action, Box)
    return data.spaces.action.low
