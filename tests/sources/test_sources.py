"""Sources: frequencies, buffers, mixtures and continuity against models in NumPy."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.method import AbstractMethod, AbstractPolicy, Agent, Info
from headwater.core.records import Transitions
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.control.pendulum import Pendulum
from headwater.sources.collect import Collect
from headwater.sources.mixed import Mixed, interleave, mixed
from headwater.sources.replay import NoState, Replay
from headwater.sources.ring import empty, push, sample
from headwater.sources.rollout import Rollout
from headwater.sources.weighted import WeightedReplay


def _numbered(count: int, start: int = 0) -> Transitions:
    """Rows whose reward is their number."""
    number = jnp.arange(start, start + count, dtype=jnp.float32)
    wide = jnp.repeat(number[:, None], 3, axis=1)
    no = jnp.zeros(count, bool)
    return Transitions(wide, wide[:, :1] / 1e7, number, wide + 1, no, no)


class _Push(AbstractMethod[Spaces, Transitions, NoState], AbstractPolicy[NoState]):
    """Always pushes the same way and learns nothing."""

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info("of no paper", "tests the sources")

    action: float = 0.0

    def init(self, problem, *, key):
        return NoState()

    def update(self, state, data, *, key):
        return state, {}

    def act(self, state, observation, *, key, explore):
        assert explore, "collecting explores"
        return jnp.full((1,), self.action), ()


def _pushing(action: float) -> Agent:
    return Agent(_Push(action), NoState())


# Replay -----------------------------------------------------------------------------------------


def _drawn(source, draws: int, key) -> np.ndarray:
    @jax.jit
    def rewards(key):
        return source.draw(NoState(), _pushing(0.0), key=key)[1].reward

    return np.asarray(jax.vmap(rewards)(jax.random.split(key, draws))).reshape(-1)


def test_replay_draws_every_row_equally_often(key):
    rows = _drawn(Replay(_numbered(50), 256), 100, key)
    counts = np.bincount(rows.astype(int), minlength=50)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_rows_stay_together(key):
    data = Replay(_numbered(100), 64).draw(NoState(), _pushing(0.0), key=key)[1]
    np.testing.assert_array_equal(data.observation[:, 1], data.reward)
    np.testing.assert_array_equal(data.next_observation[:, 2], data.reward + 1)


def test_weighted_replay_draws_in_proportion(key):
    weights = np.asarray([0.0, 1.0, 3.0, 0.0, 0.5, 10.0, 0.0])
    rows = _drawn(WeightedReplay(_numbered(7), weights, 256), 200, key)
    counts = np.bincount(rows.astype(int), minlength=7)
    assert counts[[0, 3, 6]].sum() == 0, "rows of weight zero are never drawn"
    present = weights > 0
    expected = weights[present] / weights.sum() * len(rows)
    assert stats.chisquare(counts[present], expected).pvalue > 1e-3


def test_weights_stay_exact_for_a_million_rows(key):
    count = 1_000_000
    weights = np.ones(count)
    weights[count // 2 :] = 3.0
    weights[-1] = 0.0
    source = WeightedReplay(_numbered(count), weights, 4096)
    # Width of each row's share of the 2**32 points.
    ends = np.concatenate([[-1], np.asarray(source.upper, np.int64)])
    share = np.diff(ends) / 2.0**32
    np.testing.assert_allclose(share, weights / weights.sum(), atol=2.0**-31)
    rows = _drawn(source, 50, key)
    assert rows.max() < count - 1
    upper = np.mean(rows >= count // 2)
    assert abs(upper - 0.75) < 5 * np.sqrt(0.75 * 0.25 / len(rows))
    # A running sum of 32-bit floats would leave the last rows unequal or out of reach.
    last = rows[rows >= 0.9 * count]
    assert stats.kstest((last / count - 0.9) / 0.1, "uniform").pvalue > 1e-3


def test_one_positive_weight_is_always_drawn(key):
    for place in (0, 3, 6):
        weights = np.zeros(7)
        weights[place] = 1e-9
        rows = _drawn(WeightedReplay(_numbered(7), weights, 64), 10, key)
        assert set(rows) == {float(place)}


@pytest.mark.parametrize(
    "weights, message",
    [
        ([1.0, 2.0], r"3 transitions but weights of shape \(2,\)"),
        ([1.0, -1.0, 1.0], "not negative"),
        ([0.0, 0.0, 0.0], "not all zero"),
        ([1.0, np.nan, 1.0], "finite"),
    ],
)
def test_what_is_no_weight_is_refused(weights, message):
    with pytest.raises(SpecificationError, match=message):
        WeightedReplay(_numbered(3), np.asarray(weights))


# Ring buffer ------------------------------------------------------------------------------------


_SPACES = Spaces(Box((-1.0,) * 3, (1.0,) * 3), Box((-1.0,), (1.0,)))


def test_ring_is_a_list_that_forgets():
    random = np.random.default_rng(0)
    ring, capacity, model, number = empty(_SPACES, 10), 10, [], 0
    pushed = jax.jit(push)
    for count in random.integers(1, 11, 30):
        rows = _numbered(int(count), number)
        valid = random.random(count) < 0.7
        ring = pushed(ring, rows, jnp.asarray(valid))
        model += [float(r) for r, v in zip(np.asarray(rows.reward), valid) if v]
        number += int(count)
        assert int(ring.written) == len(model)
        expected = np.zeros(capacity)
        for i, value in enumerate(model):
            expected[i % capacity] = value
        np.testing.assert_array_equal(ring.data.reward, expected)
        np.testing.assert_array_equal(ring.data.observation[:, 0], expected)


def test_more_rows_than_fit_are_refused():
    with pytest.raises(ValueError, match="11 rows do not fit into a buffer of 10"):
        push(empty(_SPACES, 10), _numbered(11))


def test_only_rows_that_are_present_are_drawn(key):
    ring = push(empty(_SPACES, 10), _numbered(4, start=1))
    rewards = np.asarray(sample(ring, 500, key=key).reward)
    assert set(rewards) == {1.0, 2.0, 3.0, 4.0}
    for start in (5, 9, 13):
        ring = push(ring, _numbered(4, start=start))
    rewards = np.asarray(sample(ring, 500, key=key).reward)
    assert set(rewards) == set(np.arange(7.0, 17.0))


def test_discrete_actions_have_their_type():
    ring = empty(Spaces(Box((-1.0,), (1.0,)), Discrete(3)), 4)
    assert ring.data.action.shape == (4,) and ring.data.action.dtype == jnp.int32


# Mixtures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(8, 8), (12, 4), (6, 3, 9), (16,)])
def test_every_piece_of_a_mixture_has_the_same_shares(sizes):
    batch = interleave([_numbered(n, start=1000 * i) for i, n in enumerate(sizes)])
    origin = np.asarray(batch.reward) // 1000
    total = sum(sizes)
    # Nothing is lost or doubled.
    assert len(set(np.asarray(batch.reward))) == total
    for i, size in enumerate(sizes):
        for begin in range(total):
            for end in range(begin + 1, total + 1):
                found = np.sum(origin[begin:end] == i)
                assert abs(found - (end - begin) * size / total) <= 1.5, (i, begin, end)


def test_optional_columns_survive_only_where_all_have_them():
    rows = _numbered(4)
    known = Transitions(**{**vars(rows), "next_action": rows.action})
    assert interleave([known, rows]).next_action is None
    assert interleave([known, known]).next_action.shape == (8, 1)


def test_a_mixture_draws_from_each(key):
    source = mixed([Replay(_numbered(5), 6), Replay(_numbered(5, 1000), 2)])
    assert isinstance(source, Mixed)
    state = source.init(key=key)
    _, data = source.draw(state, _pushing(0.0), key=key)
    assert np.sum(np.asarray(data.reward) >= 1000) == 2 and data.reward.shape == (8,)


# Acting -----------------------------------------------------------------------------------------


def _assert_continuous(rows: Transitions, last) -> None:
    """Each step starts where the one before ended, except after an end."""
    follows = np.asarray(rows.observation[1:])
    reached = np.asarray(rows.next_observation[:-1])
    over = np.asarray(rows.terminal | rows.truncated)[:-1]
    np.testing.assert_allclose(follows[~over], reached[~over], rtol=1e-5, atol=1e-6)
    if over.any():
        assert not np.allclose(follows[over], reached[over])


def test_rollouts_go_on_across_draws(key):
    source = Rollout(Pendulum(), steps=90, copies=3)
    state, pieces = source.init(key=key), []
    draw = jax.jit(lambda state, key: source.draw(state, _pushing(0.5), key=key))
    for i in range(5):
        state, data = draw(state, jax.random.fold_in(key, i))
        assert data.reward.shape == (90, 3) and np.all(np.asarray(data.action) == 0.5)
        pieces.append(data)
    rows = jax.tree.map(lambda *x: jnp.concatenate(x), *pieces)
    _assert_continuous(rows, state)
    assert np.flatnonzero(np.asarray(rows.truncated[:, 0])).tolist() == [199, 399]
    assert int(source.environment_steps(state)) == 5 * 90 * 3


def test_random_and_warm_up_steps_are_counted_and_kept(key):
    source = Collect(
        Pendulum(),
        capacity=3000,
        batch_size=4,
        copies=2,
        steps_per_draw=6,
        random_steps=2101,
        warm_up_steps=11,
    )
    state = jax.jit(lambda k: source.prepare(source.init(key=k), _pushing(0.25), key=k))(key)
    # Rounded up to whole steps of both copies.
    assert int(state.steps) == 2102 + 12 == int(state.ring.written)
    action = np.asarray(state.ring.data.action)[:, 0]
    assert np.all(action[2102:2114] == 0.25) and np.all(action[2114:] == 0.0)
    assert not np.any(action[:2102] == 0.25)
    assert stats.kstest((action[:2102] + 1) / 2, "uniform").pvalue > 1e-3
    state, data = source.draw(state, _pushing(-0.5), key=key)
    assert int(state.steps) == 2114 + 6 and data.reward.shape == (4,)
    assert np.all(np.asarray(state.ring.data.action)[2114:2120] == -0.5)
    rows = jax.tree.map(lambda x: x[:2120].reshape(-1, 2, *x.shape[1:]), state.ring.data)
    _assert_continuous(rows, None)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps_per_draw": 3, "copies": 2}, "steps_per_draw=3 is no multiple of copies=2"),
        ({"steps_per_draw": 20, "capacity": 10}, "20 steps does not fit into a buffer of 10"),
        ({"steps_per_draw": 0, "random_steps": 0}, "at least one step before the first draw"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(SpecificationError, match=message):
        Collect(Pendulum(), **options)
