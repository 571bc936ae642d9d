"""Returns measured by acting, against returns known in advance."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from headwater.core.errors import SpecificationError
from headwater.core.method import AbstractPolicy
from headwater.core.spaces import Box, Spaces
from headwater.environments.environment import (
    AbstractEnvironment,
    AbstractHostEnvironments,
    AbstractHostTask,
    HostStep,
    Step,
)
from headwater.evaluation.returns import evaluate_returns

SPACES = Spaces(Box((0.0,), (100.0,)), Box((-1.0,), (1.0,)), horizon=5)
traced = []


class Level(eqx.Module):
    level: Float[Array, ""]


class Constant(AbstractPolicy[Level]):
    """Acts at its level; explores half a unit lower."""

    def act(self, state, observation, *, key, explore):
        traced.append(explore)
        return jnp.broadcast_to(state.level - 0.5 * explore, (1,)), ()


class Sum(AbstractEnvironment):
    """Rewards are the actions times the step's number; some episodes end after two steps."""

    name: ClassVar[str] = "sum"
    reference_returns: ClassVar[tuple[float, float]] = (0.0, 15.0)
    limit: int | None = 5
    short: bool = False

    @property
    def spaces(self):
        return Spaces(SPACES.observation, SPACES.action, horizon=self.limit)

    def reset(self, *, key):
        return jnp.zeros(()), jnp.zeros(1)

    def step(self, state, action, *, key):
        t = state + 1.0
        return t, Step(t[None], t * action[0], jnp.asarray(self.short) & (t >= 2), t >= 5)


class HostSums(AbstractHostEnvironments):
    exact = True

    def __init__(self, copies):
        self.t = np.zeros(copies)

    def reset(self, seeds):
        return np.zeros((self.t.size, 1), np.float32)

    def step(self, actions):
        assert actions.shape == (self.t.size, 1)
        self.t += 1.0
        over = self.t >= 5
        seen = self.t[:, None].astype(np.float32)
        reward = (self.t * actions[:, 0]).astype(np.float32)
        self.t[over] = 0.0
        here = self.t[:, None].astype(np.float32)
        nothing = np.zeros(over.shape, bool)
        return HostStep(here, seen, reward, nothing, over, ~nothing)

    def save(self):
        return {}

    def load(self, saved):
        return np.zeros((self.t.size, 1), np.float32)

    def close(self):
        pass


class HostSum(AbstractHostTask):
    @property
    def name(self):
        return "host-sum"

    @property
    def spaces(self):
        return SPACES

    def open(self, copies):
        return HostSums(copies)


STATES = Level(jnp.asarray([0.0, 1.0, -0.5]))


@pytest.mark.parametrize("task", [Sum(), HostSum()], ids=["pure", "host"])
@pytest.mark.parametrize("explore", [False, True])
def test_returns_are_the_sums_of_rewards(task, explore, key):
    found = evaluate_returns(Constant(), STATES, task, episodes=12, key=key, explore=explore)
    assert found.dtype == np.float64
    levels = np.asarray([0.0, 1.0, -0.5]) - 0.5 * explore
    np.testing.assert_allclose(found, np.repeat(15.0 * levels[:, None], 12, axis=1), rtol=1e-6)


def test_nothing_counts_after_the_end(key):
    found = evaluate_returns(Constant(), STATES, Sum(short=True), episodes=2, key=key)
    np.testing.assert_allclose(found[1], [3.0, 3.0])


@pytest.mark.parametrize("task", [Sum(), HostSum()], ids=["pure", "host"])
def test_a_second_call_does_not_trace_again(task, key):
    evaluate_returns(Constant(), STATES, task, episodes=3, key=key)
    before = len(traced)
    again = Level(STATES.level + 1.0)
    evaluate_returns(Constant(), again, task, episodes=3, key=jax.random.key(1))
    assert len(traced) == before


def test_what_cannot_be_evaluated_is_refused_in_words(key):
    with pytest.raises(SpecificationError, match="no time limit"):
        evaluate_returns(Constant(), STATES, Sum(limit=None), episodes=1, key=key)
    with pytest.raises(SpecificationError, match="at least one"):
        evaluate_returns(Constant(), STATES, Sum(), episodes=0, key=key)
