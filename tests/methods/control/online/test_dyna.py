"""What another method is made to learn from, step by step."""

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.feed import Feed
from headwater.core.method import AbstractDynamics, AbstractMethod, AbstractPolicy, Info
from headwater.core.records import ModelPrediction, ModelStep, Transitions
from headwater.core.spaces import Box, Discrete, Spaces
from headwater.methods.control.model_based.factored_dynamics import FactoredDynamics
from headwater.methods.control.offline.discrete_cql import DiscreteCQL
from headwater.methods.control.online.dqn import DQN
from headwater.methods.control.online.dyna import Dyna

_SPACES = Spaces(Box((0.0,), (9.0,)), Discrete(3), horizon=9)


class _Counted(eqx.Module):
    updates: jax.Array


class _Counting(AbstractMethod[Spaces, Transitions, _Counted], AbstractDynamics[_Counted]):
    """From x by action a to x + a; 0 brings x, and nothing follows what exceeds 5."""

    feed: ClassVar[Feed] = Feed.STORED
    info: ClassVar[Info] = Info("young2023benefits", summary="counts")

    def init(self, problem: Spaces, *, key) -> _Counted:
        return _Counted(jnp.zeros((), jnp.int32))

    def update(self, state: _Counted, data: Transitions, *, key):
        return _Counted(state.updates + 1), {"rows": jnp.asarray(float(data.reward.shape[0]))}

    def predict(self, state, observation, action) -> ModelPrediction:
        raise NotImplementedError

    def step(self, state, observation, action, *, key) -> ModelStep:
        following = observation + action
        return ModelStep(following, 10.0 * state.updates + observation[0], following[0] > 5.0)


class _Kept(eqx.Module):
    seen: Transitions


class _Keeping(AbstractMethod[Spaces, Transitions, _Kept], AbstractPolicy[_Kept]):
    """Keeps what it was given, and acts at random."""

    feed: ClassVar[Feed] = Feed.ACTING
    info: ClassVar[Info] = Info("young2023benefits", summary="keeps")

    def init(self, problem: Spaces, *, key) -> _Kept:
        rows = 5 * 4
        none, no = jnp.zeros((rows, 1)), jnp.zeros(rows, bool)
        return _Kept(Transitions(none, jnp.zeros(rows, jnp.int32), jnp.zeros(rows), none, no, no))

    def update(self, state: _Kept, data: Transitions, *, key):
        return _Kept(data), {"seen": jnp.asarray(1.0)}

    def act(self, state, observation, *, key, explore: bool):
        return jax.random.randint(key, (), 0, 3, jnp.int32) if explore else jnp.zeros((), int), ()


def _batch() -> Transitions:
    x, no = jnp.asarray([[0.0], [3.0], [5.0]]), jnp.zeros(3, bool)
    return Transitions(x, jnp.zeros(3, jnp.int32), jnp.zeros(3), x, no, no)


@pytest.mark.oracle
def test_rollouts_follow_the_model_from_rows_of_the_batch():
    method = Dyna(rollouts=5, rollout_steps=4, inner=_Keeping(), dynamics=_Counting())
    state = method.init(_SPACES, key=jax.random.key(0))
    begun, restarted = set(), 0
    for seed in range(6):
        after, metrics = jax.jit(method.update)(state, _batch(), key=jax.random.key(seed))
        assert int(after.model.updates) == 1
        assert {n: float(v) for n, v in metrics.items()} == {"seen": 1.0, "model_rows": 3.0}
        seen = jax.tree.map(lambda x: np.asarray(x).reshape(4, 5, -1)[..., 0], after.inner.seen)
        np.testing.assert_array_equal(seen.next_observation, seen.observation + seen.action)
        # The model has learned from the batch before it is asked.
        np.testing.assert_array_equal(seen.reward, 10.0 + seen.observation)
        np.testing.assert_array_equal(seen.terminal, seen.next_observation > 5.0)
        np.testing.assert_array_equal(seen.truncated[-1], ~seen.terminal[-1])
        assert not seen.truncated[:-1].any()
        begun |= set(seen.observation[0].tolist())
        for t in range(3):
            again = seen.terminal[t]
            following = np.where(again, seen.observation[0], seen.next_observation[t])
            np.testing.assert_array_equal(seen.observation[t + 1], following)
            restarted += int(again.sum())
    assert begun == {0.0, 3.0, 5.0} and restarted > 0


@pytest.mark.equivalence
def test_it_acts_as_its_inner_method():
    learner = DQN(hidden_sizes=(4,), initial_exploration_rate=0.5)
    method = Dyna(inner=learner, dynamics=FactoredDynamics(hidden_sizes=(4,)))
    state = method.init(_SPACES, key=jax.random.key(0))
    for i in range(20):
        key, x = jax.random.key(i), jnp.asarray([float(i)])
        for explore in (True, False):
            ours = method.act(state, x, key=key, explore=explore)[0]
            theirs = learner.act(state.inner, x, key=key, explore=explore)[0]
            assert int(ours) == int(theirs)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"inner": DiscreteCQL()}, r"Dyna.inner = DiscreteCQL\(.*must be a method that acts"),
        ({"dynamics": DQN()}, r"Dyna.dynamics = DQN\(.*must be a method that learns where"),
    ],
)
def test_what_is_refused(change, sentence):
    with pytest.raises(SpecificationError, match=f"(?s){sentence}"):
        dataclasses.replace(Dyna(), **change)
