"""Doing and undoing in turn, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.check import check_environment
from headwater.environments.control.peg_insertion import PegInsertion
from headwater.environments.control.pendulum import Pendulum
from headwater.environments.interaction import begin, interact
from headwater.environments.reset_free import DoneAndUndone

TASK = DoneAndUndone(PegInsertion(), steps=5, rounds=2)


def test_it_keeps_its_promises():
    check_environment(TASK)


def test_nothing_is_reset_until_the_rounds_are_over():
    act = lambda observation, key: jnp.asarray([0.0, -1.0])
    rows = interact(
        TASK, begin(TASK, 1, key=jax.random.key(0)), act, steps=40, key=jax.random.key(1)
    )[1]
    rows = jax.tree.map(lambda x: np.asarray(x[:, 0]), rows)
    np.testing.assert_array_equal(rows.observation[:, -1], np.arange(40) // 5 % 2)
    np.testing.assert_array_equal(rows.truncated, np.arange(40) % 20 == 19)
    follows = rows.next_observation[:-1] == rows.observation[1:]
    np.testing.assert_array_equal(follows.all(1), np.arange(39) % 20 != 19)


@pytest.mark.parametrize(("phase", "rewards"), [(0.0, [1.0, 0.0]), (1.0, [0.0, 1.0])])
def test_what_is_rewarded_is_what_is_asked_for(phase, rewards):
    found = []
    for side, height in ((0.0, 0.1), (0.5, 0.8)):
        state, _ = TASK.reset(key=jax.random.key(0))
        inner = type(state.inner)(jnp.asarray(side), jnp.asarray(height), state.inner.time)
        state = type(state)(inner, jnp.asarray(phase), jnp.asarray(int(5 * phase)))
        found.append(float(TASK.step(state, jnp.zeros(2), key=jax.random.key(0))[1].reward))
    assert found == rewards


def test_a_task_that_does_not_say_when_it_is_undone():
    with pytest.raises(SpecificationError, match="pendulum does not say when it is done and und"):
        DoneAndUndone(Pendulum())


def test_no_rounds():
    with pytest.raises(SpecificationError, match="rounds = 0 must both be at least 1"):
        DoneAndUndone(PegInsertion(), rounds=0)
