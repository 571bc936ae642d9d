"""The pool: rows of the dataset, all as likely, the same after an interruption."""

from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats

from headwater.api.train import train
from headwater.core.errors import DataError, SpecificationError
from headwater.core.method import Agent
from headwater.datasets.dataset import Dataset
from headwater.datasets.formats.directory_format import open_columns
from headwater.datasets.write import write
from headwater.methods.control.imitation.bc import BC
from headwater.runs import checkpoint
from headwater.runs.directory import RunDirectory
from headwater.runs.feeds import logged
from headwater.runs.loop import run
from headwater.runs.options import Options
from headwater.runs.stage import Stage
from headwater.sources import pooled
from headwater.sources.out_of_core import OutOfCoreReplay
from headwater.sources.pooled import Pool, PooledReplay

from .numbered_log import numbered_dataset, numbered_directory

METHOD = BC(hidden_sizes=(8,))
AGENT = Agent(METHOD, None)
KEYS = jax.random.split(jax.random.key(3), 2)


def _draws(source: PooledReplay, count: int, keys=KEYS, state=None):
    """Several draws with other keys each, and the state after them."""
    state = source.init(keys=keys) if state is None else state
    found = []
    for _ in range(count):
        mine = jax.vmap(jax.random.fold_in, (0, None))(keys, state.draws)
        state, data = source.draw(state, AGENT, keys=mine)
        found.append(data)
    return found, state


@pytest.mark.parametrize("discrete", (False, True))
@pytest.mark.parametrize("length", (1, 4, 25, 60, 130))
def test_every_row_is_a_row_of_the_dataset(tmp_path, discrete, length):
    path, dataset = numbered_directory(tmp_path, discrete=discrete)
    source = PooledReplay(path, 16, discount=0.9, pieces=3, length=length)
    expected = vars(dataset.transitions(0.9))
    for data in _draws(source, 12)[0]:
        rows = np.asarray(data.reward).astype(int)
        assert set(vars(data)) == set(expected)
        for name, column in expected.items():
            if column is None:
                assert getattr(data, name) is None
                continue
            np.testing.assert_array_equal(getattr(data, name), column[rows], err_msg=name)
            assert getattr(data, name).dtype == column.dtype


def test_rows_are_as_likely_as_each_other(tmp_path):
    path, dataset = numbered_directory(tmp_path)
    # Each draw finds another pool; one row of each is independent of the rest.
    source = PooledReplay(path, 8, pieces=2, length=4)
    rows = [int(data.reward[0, 0]) for data in _draws(source, 3000)[0]]
    counts = np.bincount(rows, minlength=dataset.size)
    assert counts.size == dataset.size
    assert stats.chisquare(counts).pvalue > 1e-4


def test_a_draw_replaces_as_many_rows_as_it_draws(tmp_path):
    path, _ = numbered_directory(tmp_path)
    source = PooledReplay(path, 6, pieces=8, length=4)
    _, state = _draws(source, 1)
    before = state.pool.take(np.arange(32))["reward"].copy()
    _, state = _draws(source, 2, state=state)
    after = state.pool.take(np.arange(32))["reward"]
    # Twelve rows are three pieces, the oldest ones.
    np.testing.assert_array_equal(before[12:], after[12:])
    assert not np.array_equal(before[:12], after[:12])


def test_draws_follow_from_the_keys_and_not_from_other_seeds(tmp_path):
    source = PooledReplay(numbered_directory(tmp_path)[0], 32, pieces=5, length=6)
    first, again = _draws(source, 3)[0], _draws(source, 3)[0]
    alone = _draws(source, 3, keys=KEYS[1:])[0]
    for one, other, mine in zip(first, again, alone):
        np.testing.assert_array_equal(one.observation, other.observation)
        np.testing.assert_array_equal(one.reward[1:], mine.reward)
        assert not np.array_equal(one.reward[0], one.reward[1])
    assert not source.uses_agent


def test_a_pool_goes_on_where_it_was(tmp_path):
    source = PooledReplay(numbered_directory(tmp_path)[0], 32, pieces=5, length=6)
    whole, _ = _draws(source, 7)
    _, state = _draws(source, 4)
    loaded = source.load(source.save(state), keys=KEYS)
    for one, other in zip(whole[4:], _draws(source, 3, state=loaded)[0]):
        np.testing.assert_array_equal(one.observation, other.observation)


def test_a_draw_can_be_repeated(tmp_path):
    source = PooledReplay(numbered_directory(tmp_path)[0], 32, pieces=5, length=6)
    _, early = _draws(source, 2)
    (one,), _ = _draws(source, 1, state=early)
    _draws(source, 9, state=early)
    (again,), _ = _draws(source, 1, state=early)
    np.testing.assert_array_equal(one.observation, again.observation)


def test_pieces_take_the_same_room_whatever_a_row_takes(tmp_path):
    narrow = PooledReplay(numbered_directory(tmp_path)[0], 4, pieces=2).init(keys=KEYS)
    assert narrow.pool.length == 512
    wide = Dataset.from_arrays(
        np.zeros((3, 4000)), np.zeros((3, 1)), np.zeros(3), [False] * 3, [False, False, True],
        np.zeros((3, 4000)), action_low=-1.0, action_high=1.0,
    )  # fmt: skip
    path = write(wide, tmp_path / "wide")
    state = PooledReplay(path, 4, pieces=2).init(keys=KEYS)
    assert state.pool.length == 2**17 // (2 * 16_000 + 4 + 4 + 2)


def test_a_pool_of_wide_rows_is_no_larger(tmp_path, monkeypatch):
    monkeypatch.setattr(pooled, "_POOL_BYTES", 10_000)
    source = PooledReplay(numbered_directory(tmp_path)[0], 4, length=5)
    pool = source.init(keys=KEYS).pool
    room = sum(held.nbytes for held in pool.take(np.arange(5 * pool.pieces)).values())
    assert 9_000 < room <= 10_000
    monkeypatch.setattr(pooled, "_POOL_BYTES", 1)
    assert source.init(keys=KEYS).pool.pieces == 1


class _Interrupted(Exception):
    pass


def test_an_interrupted_run_continues_exactly(tmp_path, monkeypatch):
    path, _ = numbered_directory(tmp_path)
    spaces = open_columns(path).spaces

    def go(directory=None):
        source = PooledReplay(path, 16, pieces=6, length=5)
        stages = [Stage("only", METHOD, source, 24, updates_per_draw=2)]
        evaluate = lambda method, states, key: np.zeros((2, 1))
        options = {"evaluate": evaluate, "evaluations": 3, "logs": 6}
        return run(stages, spaces, seeds=2, directory=directory, **options)

    whole = go()
    directory = RunDirectory.create(tmp_path / "run", {})
    save = checkpoint.save

    def interrupt(*arguments, **options):
        save(*arguments, **options)
        raise _Interrupted

    monkeypatch.setattr(checkpoint, "save", interrupt)
    with pytest.raises(_Interrupted):
        go(directory)
    monkeypatch.undo()
    continued = go(directory)
    for one, other in zip(
        jax.tree.leaves(whole.outcomes["only"].state),
        jax.tree.leaves(continued.outcomes["only"].state),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def _logged(path: Path):
    return logged.Logged(logged.DataChoice(str(path), {}, None), Options(from_disk=True))


def test_large_data_on_disk_is_drawn_through_a_pool(tmp_path, monkeypatch):
    path, _ = numbered_directory(tmp_path)
    assert type(_logged(path).source(METHOD, 4)) is OutOfCoreReplay
    monkeypatch.setattr(logged, "_LARGE", 100)
    # A pool of its usual size would be filled with these few rows a million times.
    monkeypatch.setattr(pooled, "_POOL_BYTES", 2**16)
    assert type(_logged(path).source(METHOD, 4)) is PooledReplay
    train(METHOD, path, from_disk=True, env=None, updates=4, batch_size=4, progress=False)


def test_draws_of_wide_rows_are_small(tmp_path, monkeypatch):
    path, _ = numbered_directory(tmp_path)
    found = _logged(path)
    assert found.updates_per_draw(1000, 256) == 8
    assert found.updates_per_draw(1024, 256) == 32
    monkeypatch.setattr(logged, "_DRAWN_BYTES", 256 * 40)
    assert found.updates_per_draw(1024, 256) == 1


# Errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ("batch_size", "pieces", "length"))
def test_sizes_below_one_are_refused(name):
    with pytest.raises(SpecificationError, match=f"{name}=0 must be at least 1"):
        PooledReplay("anywhere", **{name: 0})


def test_other_data_on_resumption_are_refused(tmp_path):
    source = PooledReplay(numbered_directory(tmp_path)[0], 4)
    saved = source.save(source.init(keys=KEYS))
    other = PooledReplay(write(numbered_dataset(lengths=(5, 4)), tmp_path / "other"), 4)
    with pytest.raises(DataError, match="has 9 rows but had 60 when the run was interrupted"):
        other.load(saved, keys=KEYS)


def test_a_run_that_drew_row_by_row_is_not_continued(tmp_path):
    path, _ = numbered_directory(tmp_path)
    rows = OutOfCoreReplay(path, 4)
    saved = rows.save(rows.init(keys=KEYS))
    with pytest.raises(DataError, match=r"in another way \(pieces is 4,096 now, was not known"):
        PooledReplay(path, 4).load(saved, keys=KEYS)


@pytest.mark.parametrize("changed", ({"batch_size": 8}, {"pieces": 3}, {"length": 7}))
def test_a_run_that_drew_in_another_way_is_not_continued(tmp_path, changed):
    path, _ = numbered_directory(tmp_path)
    source = PooledReplay(path, 4, pieces=2, length=5)
    saved = source.save(source.init(keys=KEYS))
    other = PooledReplay(path, **{"batch_size": 4, "pieces": 2, "length": 5, **changed})
    with pytest.raises(DataError, match="drew its rows in another way"):
        other.load(saved, keys=KEYS)


def test_a_pool_knows_how_far_it_is_when_the_disk_fails(tmp_path, monkeypatch):
    source = PooledReplay(numbered_directory(tmp_path)[0], 4, pieces=4, length=4)
    whole, _ = _draws(source, 6)
    _, state = _draws(source, 2)
    _, late = _draws(source, 3, state=state)
    copy, left = Pool._copy, iter(range(2))

    def fails(pool, *arguments):
        if next(left, None) is None:
            raise DataError("the disk is gone")
        copy(pool, *arguments)

    # The older state has its pool filled anew, which fails on the way.
    monkeypatch.setattr(Pool, "_copy", fails)
    with pytest.raises(DataError, match="gone"):
        _draws(source, 1, state=state)
    monkeypatch.undo()
    np.testing.assert_array_equal(
        whole[5].observation, _draws(source, 1, state=late)[0][0].observation
    )


def test_a_column_that_shrinks_is_noticed(tmp_path):
    path, _ = numbered_directory(tmp_path)
    source = PooledReplay(path, 64, pieces=40, length=5)
    state = source.init(keys=KEYS)
    with (path / "rewards.npy").open("r+b") as file:
        file.truncate(140)
    with pytest.raises(DataError, match="column 'rewards' became shorter while it was in use"):
        source.draw(state, AGENT, keys=KEYS)
