"""Returns by level, and the gap, against returns and deviations that are known."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.core.method import AbstractPolicy
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.environments.control.pendulum import Pendulum
from headwater.environments.environment import AbstractEnvironment, AbstractLevels, Step
from headwater.evaluation.levels.generalisation_gap import generalisation_gap, level_returns


class Sums(AbstractEnvironment, AbstractLevels):
    """Three steps, each of which pays the number of the level, where the action is 1."""

    name: ClassVar[str] = "sums"
    reference_returns: ClassVar[None] = None
    first: int = 5
    count: int = eqx.field(static=True, default=2)

    @property
    def spaces(self):
        return Spaces(Box((0.0,), (99.0,)), Discrete(2), horizon=3)

    @property
    def levels(self):
        return self.count

    def level(self, index):
        return dataclasses.replace(self, first=self.first + index, count=1)

    def reset(self, *, key):
        level = self.first + jax.random.randint(key, (), 0, self.count)
        return level, level[None].astype(jnp.float32)

    def step(self, state, action, *, key):
        reward = (state * action).astype(jnp.float32)
        over = jnp.zeros((), bool)
        return state, Step(state[None].astype(jnp.float32), reward, over, over)


class Below(AbstractPolicy):
    """Takes action 1 on levels below its own number, and everywhere to explore."""

    def act(self, state, observation, *, key, explore):
        return jnp.asarray((observation[0] < state) | explore, jnp.int32), ()


def test_returns_are_those_of_each_level():
    states = jnp.asarray([6.0, 8.0])
    found = level_returns(Below(), states, Sums(), [0, 1, 3], key=jax.random.key(0))
    np.testing.assert_array_equal(found, [[15.0, 0.0, 0.0], [15.0, 18.0, 0.0]])
    found = level_returns(
        Below(), states, Sums(), [3, 0], key=jax.random.key(0), episodes=2, explore=True
    )
    np.testing.assert_array_equal(found, [[24.0, 15.0]] * 2)


def test_the_gap_and_its_intervals_are_those_of_seeds_and_levels():
    rng = np.random.default_rng(0)
    # Seeds shift both kinds of levels alike, so that the gap does not have their spread.
    seeds, spread, noise = 40, 3.0, 1.0
    shift = spread * rng.standard_normal((seeds, 1))
    levels = [noise * rng.standard_normal((1, count)) for count in (30, 50)]
    seen, unseen = 10.0 + shift + levels[0], 7.0 + shift + levels[1]
    found = generalisation_gap(seen, unseen, resamples=8000)
    assert (found.seen_levels, found.unseen_levels, found.gap.seeds) == (30, 50, seeds)
    assert found.gap.point == pytest.approx(seen.mean() - unseen.mean())
    assert found.seen.point == pytest.approx(seen.mean())
    of_levels = levels[0].var() / 30 + levels[1].var() / 50
    expected = {"gap": of_levels, "unseen": shift.var() / seeds + levels[1].var() / 50}
    for name, variance in expected.items():
        interval = getattr(found, name)
        width = 2 * 1.96 * variance**0.5
        assert interval.high - interval.low == pytest.approx(width, rel=0.06)
    # Of two seeds, only levels are drawn anew.
    again = generalisation_gap(seen[:2], unseen[:2], resamples=8000)
    width = 2 * 1.96 * of_levels**0.5
    assert again.gap.high - again.gap.low == pytest.approx(width, rel=0.06)


def test_what_cannot_be_judged_is_said():
    with pytest.raises(SpecificationError, match="pendulum has no numbered levels"):
        level_returns(Below(), jnp.ones(1), Pendulum(), [0], key=jax.random.key(0))
    with pytest.raises(SpecificationError, match="0 levels with 1 episodes each"):
        level_returns(Below(), jnp.ones(1), Sums(), [], key=jax.random.key(0))
    with pytest.raises(DataError, match=r"shapes \(2, 3\) and \(1, 3\)"):
        generalisation_gap(np.ones((2, 3)), np.ones((1, 3)))
    with pytest.raises(DataError, match="some returns are not finite"):
        generalisation_gap(np.full((1, 2), np.nan), np.ones((1, 2)))
