"""Actions keep the user's numbers; one-hot rows are actions; bounds may be those of the data."""

import numpy as np
import pytest

import headwater
from headwater.core.errors import DataError, SpecificationError
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.datasets.columns.options import Options
from headwater.datasets.dataset import Dataset
from headwater.datasets.formats.directory_format import read_directory
from headwater.datasets.read import load, load_blocks
from headwater.datasets.write import convert, write


def built(actions, **options):
    rows = len(actions)
    observations = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
    ends = np.arange(rows) % 4 == 3
    return Dataset.from_arrays(observations, np.asarray(actions), np.ones(rows), ends, **options)


def notes(data):
    return data.metadata.get("reading", {}).get("notes", [])


@pytest.mark.parametrize(
    ("actions", "options", "space"),
    [
        ([0, 2, 1, 0], {}, Discrete(3)),
        # A number that does not occur among few is still an action.
        ([0, 3, 2, 0], {}, Discrete(4)),
        ([-1, 1, 0, 1], {}, Discrete(3, (-1, 0, 1))),
        ([-1, 1, -1, 1], {}, Discrete(3, (-1, 0, 1))),
        ([1, 2, 3, 1], {}, Discrete(3, (1, 2, 3))),
        ([1, 2, 3, 1], {"action_count": 4}, Discrete(4)),
        ([1, 2, 3, 1], {"action_count": 3}, Discrete(3, (1, 2, 3))),
        ([2, 3, 2, 3], {}, Discrete(4)),
        ([7, 1007, 7, 40], {}, Discrete(3, (7, 40, 1007))),
        ([5, 9, 5, 5], {"action_labels": [9, 7, 5]}, Discrete(3, (9, 7, 5))),
    ],
)
def test_numbers_of_actions(actions, options, space, tmp_path):
    data = built(actions, **options)
    assert data.spaces.action == space
    np.testing.assert_array_equal(data.raw_actions(), actions)
    np.testing.assert_array_equal(np.asarray(space.names)[data.actions], actions)
    np.testing.assert_array_equal(space.to_canonical(np.asarray(actions)), data.actions)
    assert Spaces.from_json(data.spaces.to_json()).action == space
    for name in ("log.npz", "log.parquet", "log.hdf5", "columns"):
        again = load(write(data, tmp_path / name))
        assert again.spaces.action == space, name
        np.testing.assert_array_equal(again.raw_actions(), actions)


def test_continuous_actions_that_are_whole_numbers_are_told():
    (note,) = notes(built([0.0, 1.0, 1.0, 0.0]))
    assert note == (
        "actions are read as continuous; all of them are whole numbers: if they number discrete "
        "actions, say action_labels=[0, 1] (`--action-labels 0 1`)"
    )
    again = built([0.0, 1.0, 1.0, 0.0], action_labels=[0, 1])
    assert again.spaces.discrete and again.actions.tolist() == [0, 1, 1, 0]
    for options in ({"discrete": False}, {"action_low": 0, "action_high": 1}):
        assert notes(built([0.0, 1.0, 1.0, 0.0], **options)) == []
    assert notes(built([0.0, 0.5, 1.0, 0.0])) == []
    with pytest.raises(DataError, match=r"discrete actions, say action_labels=\[0, 1, 2, 3\]"):
        built([0.0, 1.0, 3.0, 0.0])


def test_what_is_inferred_of_numbers_is_said():
    assert notes(built([0, 2, 1, 0])) == []
    assert notes(built([1, 2, 3, 1])) == [
        "actions are numbered 1 to 3; say action_labels or action_count if there are others"
    ]
    assert notes(built([7, 1007, 7, 40])) == [
        "the actions are the 3 numbers that occur between 7 and 1007; say action_labels or "
        "action_count if there are others"
    ]


@pytest.mark.parametrize(
    ("actions", "options", "message"),
    [
        (
            [0, 1, 5, 0],
            {"action_labels": [0, 1]},
            "holds 5 at row 2, which is none of the 2 action",
        ),
        (
            [0, 1, 0, 0],
            {"action_labels": [0, 1, 1]},
            "must be different whole numbers, one for each",
        ),
        (
            [0, 1, 0, 0],
            {"action_labels": [0, 1], "action_count": 3},
            "are 2 action_labels for 3 act",
        ),
        ([0.0, 0.5, 0, 0], {"action_labels": [0, 1]}, "holds 0.5 at row 1: discrete actions are"),
        (
            [0, -3, 0, 0],
            {"action_count": 2},
            "holds -3 at row 1, but discrete actions are numbered",
        ),
        ([[0.5], [0.1], [0], [0]], {"action_bounds": "all"}, "the only choice is 'data'"),
        ([[0.5, 1], [0.5, 2], [0.5, 3], [0.5, 4]], {"action_bounds": "data"}, "component 0 of the"),
        (
            [[0, 1], [1, 0], [1, 0], [1, 0]],
            {"action_count": 3},
            "one-hot rows of 2, but action_cou",
        ),
    ],
)
def test_what_does_not_fit_is_refused(actions, options, message):
    with pytest.raises((DataError, SpecificationError), match=message):
        built(actions, **options)


def test_numbers_that_differ_do_not_fit():
    ours, theirs = built([1, 2, 3, 1]).spaces, built([0, 1, 2, 0]).spaces
    assert ours.mismatch(theirs, "in the data", "in it") == (
        "actions are numbered 1, 2, 3 in the data and 0, 1, 2 in it"
    )
    with pytest.raises(
        SpecificationError, match="there is no action 4: actions are numbered 1, 2, 3"
    ):
        ours.action.to_canonical(np.array([1, 4]))


def test_minari_keeps_where_numbering_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    data = built([3, 5, 4, 3], action_labels=[3, 4, 5])
    again = load(write(data, tmp_path / "log-v0", "minari"))
    assert again.spaces.action == Discrete(3, (3, 4, 5))
    assert again.raw_actions().tolist() == [3, 5, 4, 3]
    with pytest.raises(
        DataError, match="the actions are not numbered one after the other, which Min"
    ):
        write(built([3, 9, 3, 3], action_labels=[3, 9]), tmp_path / "hole-v0", "minari")


def test_one_hot_rows_are_actions_and_that_is_said():
    rows = np.eye(3)[[0, 2, 1, 2]]
    data = built(rows)
    assert data.spaces.action == Discrete(3) and data.actions.tolist() == [0, 2, 1, 2]
    assert notes(data) == [
        "each row of actions is a single 1 among zeros: read as one of 3 discrete actions "
        "(discrete=False for a continuous vector)"
    ]
    assert isinstance(built(rows, discrete=False).spaces.action, Box)
    assert isinstance(built(rows, action_low=0, action_high=1).spaces.action, Box)
    assert isinstance(built(rows * 0.9).spaces.action, Box)
    # All alike: nothing says that these are choices.
    assert isinstance(built(np.eye(3)[[1, 1, 1, 1]]).spaces.action, Box)
    labelled = built(rows, action_labels=[10, 20, 30])
    assert labelled.raw_actions().tolist() == [10, 30, 20, 30]


def test_bounds_of_the_data(tmp_path):
    random = np.random.default_rng(0)
    raw = (random.normal(size=(12, 2)) * [1.0, 50.0] + [0.0, 300.0]).astype(np.float32)
    data = built(raw, action_bounds="data")
    np.testing.assert_allclose(data.spaces.action.low, raw.min(0))
    np.testing.assert_allclose(data.spaces.action.high, raw.max(0))
    np.testing.assert_allclose(data.raw_actions(), raw, rtol=1e-5)
    assert notes(data) == ["the bounds of the actions are the smallest and the largest in the data"]
    # What the user gives stays.
    half = built(raw, action_bounds="data", action_low=[-9, 0])
    assert half.spaces.action.low == (-9.0, 0.0)
    np.testing.assert_allclose(half.spaces.action.high, raw.max(0))
    # In blocks they are those of the whole.
    path = tmp_path / "log.npz"
    np.savez(
        path,
        observations=np.arange(12.0),
        actions=raw,
        rewards=np.ones(12),
        terminals=np.arange(12) % 4 == 3,
    )
    blocks = list(load_blocks(path, 4, Options(action_bounds="data")))
    assert all(block.spaces.action == data.spaces.action for block in blocks)


def test_blocks_with_other_numbers(tmp_path):
    def archive(actions):
        path = tmp_path / "log.npz"
        np.savez(
            path,
            observations=np.arange(8.0),
            actions=np.asarray(actions),
            rewards=np.ones(8),
            terminals=np.arange(8) % 4 == 3,
        )
        return path

    def in_blocks(path):
        return read_directory(convert(path, tmp_path / "columns", rows=4, overwrite=True))

    # An archive comes in one piece, so that these are two blocks of one file only if they are cut.
    for actions in ([0, 1, 0, 1, 2, 2, 0, 1], [1, 2, 1, 2, 1, 2, 3, 3]):
        path = archive(actions)
        assert in_blocks(path).raw_actions().tolist() == actions


def test_a_policy_answers_with_the_users_numbers(tmp_path):
    draw = np.random.default_rng(0)
    labels = np.array([-4, 7, 11])
    observed = draw.normal(size=(60, 3)).astype(np.float32)
    chosen = labels[(observed[:, 0] > 0).astype(int) + (observed[:, 1] > 0)]
    data = Dataset.from_arrays(
        observed, chosen, np.ones(60), np.arange(60) % 20 == 19, action_labels=labels
    )
    run = headwater.train(
        "BC", data, env="none", updates=200, seeds=1, batch_size=32, progress=False
    )
    answered = run.policy(observed)
    assert set(answered.tolist()) == {-4, 7, 11} and np.mean(answered == chosen) > 0.8
    runtime, _ = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    path = headwater.export(run, tmp_path / "policy.onnx")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"observation": observed})[0], answered)
    described = session.get_modelmeta().custom_metadata_map
    assert '"labels": [-4, 7, 11]' in described["spaces"]
