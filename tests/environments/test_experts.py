import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.check import check_environment
from headwater.environments.control.cable_routing import CableRouting
from headwater.environments.control.clip_insertion import ClipInsertion
from headwater.environments.control.pendulum import Pendulum
from headwater.environments.experts import Advised, corrected
from headwater.environments.history import WithHistory
from headwater.environments.interaction import begin, interact, random_action

KEY = jax.random.key(3)
HADAMARD = functools.reduce(np.kron, 4 * [np.asarray([[1.0, 1.0], [1.0, -1.0]], np.float32)])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_rows_hold_what_the_expert_would_have_done(share):
    # Without noise the situation can be read off the view, and so can the right primitive.
    plain = CableRouting(noise=0.0)
    task = WithHistory(plain, 2)
    advised = Advised(task)
    always = lambda observation, key: jnp.zeros((), jnp.int32)
    walk = jax.jit(
        lambda at: corrected(advised, at, always, expert_share=share, steps=60, key=KEY)[1]
    )
    rows = walk(begin(advised, 5, key=KEY))
    size = task.spaces.observation_size
    assert rows.observation.shape == rows.next_observation.shape == (60, 5, size)
    assert rows.action.dtype == jnp.int32
    views = np.asarray(rows.observation).reshape(-1, 2, size // 2)[:, 1, :16]
    facts = np.round(views @ HADAMARD[:7].T / 4.0).astype(int)
    assert (facts[:, 3:].sum(1) == 1).all()
    np.testing.assert_array_equal(np.asarray(rows.action).reshape(-1), facts[:, 3:].argmax(1))
    # What was done is in the frames that follow, and who always routes gets stuck somewhere.
    frames = np.asarray(rows.next_observation).reshape(60, 5, 2, size // 2)[:, :, 1]
    done = frames[..., 16:20].argmax(-1)
    if share:
        np.testing.assert_array_equal(done, rows.action)
        assert float(rows.reward.sum()) > 10
    else:
        assert not done.any() and set(np.unique(rows.action)) >= {1, 2, 3}
        assert float(rows.reward.sum()) == 0


def test_continuous_advice():
    advised = Advised(ClipInsertion())
    check_environment(advised)
    act = lambda o, key: random_action(advised.spaces, key=key)
    shown = interact(advised, begin(advised, 2, key=KEY), act, steps=4, key=KEY)[1].observation
    observation, advice = advised.parted(shown)
    np.testing.assert_allclose(advice[..., 0], np.clip(-2.0 * observation[..., 0], -1.0, 1.0))
    np.testing.assert_array_equal(advice[..., 1], 1.0)


def test_a_task_without_an_expert_is_refused():
    for task in (Pendulum(), WithHistory(Pendulum(), 2)):
        with pytest.raises(SpecificationError, match="pendulum does not say what an expert"):
            Advised(task)
