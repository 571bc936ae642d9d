import jax
import jax.numpy as jnp
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.check import check_environment
from headwater.environments.exploration.corridors import Corridors


def _walk(task, actions):
    state, observation = task.reset(key=jax.random.key(0))
    seen, step = [int(observation[-1])], None
    for action in actions:
        state, step = task.step(state, jnp.asarray(action), key=jax.random.key(0))
        seen.append(int(step.observation[-1]))
        assert int(jnp.argmax(step.observation[:-1])) == seen[-1]
    assert step is not None
    return seen, float(step.reward), bool(step.terminal), bool(step.truncated)


def test_ways_through_the_corridors():
    task = Corridors(3, 2, goal=1)
    assert _walk(task, [1, 1]) == ([0, 3, 4], 1.0, True, False)
    assert _walk(task, [2, 2]) == ([0, 5, 6], 0.0, True, False)
    assert _walk(task, [0, 2, 1, 1]) == ([0, 1, 0, 3, 4], 1.0, True, False)
    assert _walk(task, [0, 1, 0, 1]) == ([0, 1, 0, 1, 0], 0.0, False, True)


def test_the_contract_and_refusals():
    check_environment(Corridors())
    with pytest.raises(SpecificationError, match=r"goal = 5 is none of the corridors 0 … 4"):
        Corridors(goal=5)
    with pytest.raises(SpecificationError, match="must be at least one"):
        Corridors(length=0)
