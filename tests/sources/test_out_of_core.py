"""Replay from disk: the rows of the dataset in memory, and the run of its compiled twin."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from headwater.core.errors import DataError, SpecificationError
from headwater.core.method import Agent
from headwater.datasets.formats.directory_format import open_columns
from headwater.datasets.write import write
from headwater.methods.control.imitation.bc import BC
from headwater.runs import checkpoint
from headwater.runs.directory import RunDirectory
from headwater.runs.loop import run
from headwater.runs.stage import Stage
from headwater.sources import out_of_core
from headwater.sources.mixed import HostMixed, Mixed
from headwater.sources.out_of_core import OutOfCoreReplay, gather
from headwater.sources.replay import Replay

from .numbered_log import numbered_dataset, numbered_directory

METHOD = BC(hidden_sizes=(8,))
AGENT = Agent(METHOD, None)
KEYS = jax.random.split(jax.random.key(3), 3)


def _drawn(source: OutOfCoreReplay, keys=KEYS):
    return source.draw(source.init(keys=keys), AGENT, keys=keys)[1]


# Rows -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("discrete", (False, True))
def test_every_row_equals_the_row_in_memory(tmp_path, discrete):
    path, dataset = numbered_directory(tmp_path, discrete=discrete)
    state = OutOfCoreReplay(path, discount=0.9).init(keys=KEYS)
    rows = np.random.default_rng(1).permutation(np.arange(2 * dataset.size) % dataset.size)
    found = gather(state, rows.reshape(2, -1))
    expected = {k: v for k, v in vars(dataset.transitions(0.9)).items() if v is not None}
    assert set(found) == set(expected)
    for name, column in expected.items():
        np.testing.assert_array_equal(found[name], column[rows.reshape(2, -1)], err_msg=name)
        assert found[name].dtype == column.dtype


@pytest.mark.parametrize("discrete", (False, True))
def test_a_draw_has_a_seed_axis_and_the_rows_of_its_twin(tmp_path, discrete):
    path, dataset = numbered_directory(tmp_path, discrete=discrete)
    found = _drawn(OutOfCoreReplay(path, 16, discount=0.99))
    twin = Replay(jax.tree.map(jnp.asarray, dataset.transitions()), 16)
    for i, key in enumerate(KEYS):
        _, expected = twin.draw(twin.init(key=key), AGENT, key=key)
        for name, column in vars(expected).items():
            if column is None:
                assert getattr(found, name) is None
                continue
            np.testing.assert_array_equal(getattr(found, name)[i], column, err_msg=name)


def test_without_a_discount_there_are_no_returns(tmp_path):
    found = _drawn(OutOfCoreReplay(numbered_directory(tmp_path)[0], 4))
    assert found.return_to_go is None and found.next_action.shape == (3, 4, 2)


@pytest.mark.parametrize("block", (1, 5, 10, 60, 1000))
@pytest.mark.parametrize("discount", (0.0, 0.9, 1.0))
def test_returns_do_not_depend_on_the_blocks(tmp_path, monkeypatch, block, discount):
    path, dataset = numbered_directory(tmp_path)
    monkeypatch.setattr(out_of_core, "_BLOCK", block)
    state = OutOfCoreReplay(path, discount=discount).init(keys=KEYS)
    expected = dataset.returns_to_go(discount)
    assert state.return_to_go is not None
    found = state.return_to_go.take(np.arange(state.size))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


# Draws ------------------------------------------------------------------------------------------


def test_rows_are_uniform(tmp_path):
    path, dataset = numbered_directory(tmp_path)
    found = np.asarray(_drawn(OutOfCoreReplay(path, 20_000)).reward).astype(int)
    for each in found:
        counts = np.bincount(each, minlength=dataset.size)
        assert counts.size == dataset.size
        assert stats.chisquare(counts).pvalue > 1e-4


def test_draws_follow_from_the_keys_alone(tmp_path):
    source = OutOfCoreReplay(numbered_directory(tmp_path)[0], 32)
    first, again = _drawn(source), _drawn(source)
    np.testing.assert_array_equal(first.observation, again.observation)
    assert len({np.asarray(each).tobytes() for each in first.reward}) == 3
    np.testing.assert_array_equal(_drawn(source, KEYS[1:]).reward, first.reward[1:])
    assert not source.uses_agent


# Runs -------------------------------------------------------------------------------------------


def _run(source, spaces, directory=None, updates=24):
    stages = [Stage("only", METHOD, source, updates, updates_per_draw=2)]
    evaluate = lambda method, states, key: np.zeros((2, 1))
    options = {"evaluate": evaluate, "evaluations": 3, "logs": 6}
    return run(stages, spaces, seeds=2, directory=directory, **options)


def _assert_close(one, other, **tolerance):
    pairs = zip(
        jax.tree.leaves(one.outcomes["only"].state),
        jax.tree.leaves(other.outcomes["only"].state),
        strict=True,
    )
    for x, y in pairs:
        np.testing.assert_allclose(x, y, **tolerance)


def test_a_run_equals_that_of_its_twin_in_memory(tmp_path):
    path, dataset = numbered_directory(tmp_path)
    twin = Replay(jax.tree.map(jnp.asarray, dataset.transitions()), 16)
    spaces = open_columns(path).spaces
    on_disk, in_memory = _run(OutOfCoreReplay(path, 16), spaces), _run(twin, dataset.spaces)
    _assert_close(on_disk, in_memory, rtol=1e-3, atol=1e-5)


def test_a_mixture_equals_its_twin_in_memory(tmp_path):
    path, dataset = numbered_directory(tmp_path)
    data = jax.tree.map(jnp.asarray, dataset.transitions())
    host = HostMixed((OutOfCoreReplay(path, 8, 0.99), OutOfCoreReplay(path, 8, 0.99)))
    assert not host.uses_agent
    pure = Mixed((Replay(data, 8), Replay(data, 8)))
    _assert_close(_run(host, dataset.spaces), _run(pure, dataset.spaces), rtol=1e-3, atol=1e-5)


class _Interrupted(Exception):
    pass


def test_an_interrupted_run_continues_exactly(tmp_path, monkeypatch):
    path, dataset = numbered_directory(tmp_path)
    source = OutOfCoreReplay(path, 16)
    whole = _run(source, dataset.spaces)
    directory = RunDirectory.create(tmp_path / "run", {})
    save, saved = checkpoint.save, []

    def interrupt(*arguments, **options):
        save(*arguments, **options)
        saved.append(arguments[1].update)
        raise _Interrupted

    monkeypatch.setattr(checkpoint, "save", interrupt)
    with pytest.raises(_Interrupted):
        _run(source, dataset.spaces, directory)
    monkeypatch.undo()
    assert 0 < saved[0] < 24
    _assert_close(_run(source, dataset.spaces, directory), whole, rtol=0, atol=0)


# Errors -----------------------------------------------------------------------------------------


def test_a_missing_directory_is_said(tmp_path):
    with pytest.raises(DataError, match=r"nowhere/dataset.json is missing or damaged"):
        OutOfCoreReplay(tmp_path / "nowhere").init(keys=KEYS)


def test_a_truncated_file_is_said(tmp_path):
    path, _ = numbered_directory(tmp_path)
    file = path / "next_observations.npy"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(DataError, match=r"next_observations\.npy is missing, truncated or corrupt"):
        OutOfCoreReplay(path).init(keys=KEYS)


def test_a_run_that_drew_in_another_way_is_not_continued(tmp_path):
    path, _ = numbered_directory(tmp_path)
    source = OutOfCoreReplay(path, 8)
    saved = source.save(source.init(keys=KEYS))
    with pytest.raises(DataError, match=r"batch_size is 32 now, was 8"):
        OutOfCoreReplay(path, 32).load(saved, keys=KEYS)
    del saved["batch_size"]
    with pytest.raises(DataError, match=r"batch_size is 8 now, was not known"):
        source.load(saved, keys=KEYS)


def test_other_data_than_the_run_began_with_is_refused(tmp_path):
    path, _ = numbered_directory(tmp_path)
    source = OutOfCoreReplay(path)
    state = source.init(keys=KEYS)
    saved = source.save(state)
    assert source.load(saved, keys=KEYS).size == state.size == 60
    other = OutOfCoreReplay(write(numbered_dataset(lengths=(5, 4)), tmp_path / "other"))
    with pytest.raises(DataError, match="has 9 rows but had 60 when the run was interrupted"):
        other.load(saved, keys=KEYS)


def test_no_room_for_the_returns_is_said(tmp_path, monkeypatch):
    path, _ = numbered_directory(tmp_path)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(out_of_core, "_write_returns", full)
    with pytest.raises(DataError, match=r"60 rows cannot be stored .*No space left.*TMPDIR"):
        OutOfCoreReplay(path, discount=0.9).init(keys=KEYS)


def test_more_rows_than_can_be_drawn_are_refused(tmp_path, monkeypatch):
    path, _ = numbered_directory(tmp_path)
    monkeypatch.setattr(out_of_core, "_MOST_ROWS", 59)
    with pytest.raises(DataError, match="has 60 rows, but no more than 59 can be replayed"):
        OutOfCoreReplay(path).init(keys=KEYS)


def test_an_empty_batch_is_refused():
    with pytest.raises(SpecificationError, match="batch_size=0"):
        OutOfCoreReplay("anywhere", 0)


def test_the_path_may_be_text(tmp_path):
    path, dataset = numbered_directory(tmp_path)
    assert OutOfCoreReplay(str(path)).init(keys=KEYS).size == dataset.size
    assert json.loads((path / "dataset.json").read_text())["rows"] == dataset.size


@pytest.mark.parametrize("discrete", [False, True])
def test_columns_that_are_not_mapped_hold_the_same_rows(tmp_path, monkeypatch, discrete):
    path, _ = numbered_directory(tmp_path, discrete=discrete)
    source = OutOfCoreReplay(path, 64, discount=0.9)
    mapped = _drawn(source)
    for room in (0, 200):
        monkeypatch.setattr(out_of_core, "_MAPPED", room)
        for one, other in zip(jax.tree.leaves(mapped), jax.tree.leaves(_drawn(source))):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_a_column_that_shrinks_is_noticed(tmp_path, monkeypatch):
    path, _ = numbered_directory(tmp_path)
    monkeypatch.setattr(out_of_core, "_MAPPED", 0)
    source = OutOfCoreReplay(path, 64)
    state = source.init(keys=KEYS)
    with (path / "rewards.npy").open("r+b") as file:
        file.truncate(140)
    with pytest.raises(DataError, match="column 'rewards' became shorter while it was in use"):
        source.draw(state, AGENT, keys=KEYS)
