import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.check import check_environment
from headwater.environments.exploration.aliased_grid import AliasedGrid


def test_a_walk_to_the_goal_and_what_is_seen_on_it():
    task = AliasedGrid(size=3, left_share=1.0, visible=True)
    state, shown = task.reset(key=jax.random.key(0))
    # Closed above and on the left; row 0, column 0; begun on the left.
    assert np.asarray(shown).tolist() == [1, 0, 0, 1, 0, 0, 1]
    seen = []
    for action in (1, 2, 1, 2):
        state, step = task.step(state, jnp.asarray(action), key=jax.random.key(0))
        seen.append(np.asarray(step.observation).tolist()[:6])
    assert seen == [[1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1], [0, 1, 0, 0, 1, 2], [0, 1, 1, 0, 2, 2]]
    assert bool(step.terminal) and float(step.reward) == 1.0 and not bool(step.truncated)


def test_the_edge_stops_and_time_runs_out():
    task = AliasedGrid(left_share=0.0, horizon=2)
    state, shown = task.reset(key=jax.random.key(0))
    assert np.asarray(shown).tolist() == [1, 1, 0, 0]
    state, step = task.step(state, jnp.asarray(1), key=jax.random.key(0))
    assert np.asarray(step.observation).tolist() == [1, 1, 0, 0] and not bool(step.truncated)
    _, step = task.step(state, jnp.asarray(0), key=jax.random.key(0))
    assert bool(step.truncated) and not bool(step.terminal) and float(step.reward) == 0.0


def test_the_contract_and_refusals():
    check_environment(AliasedGrid())
    with pytest.raises(SpecificationError, match=r"left_share = 1\.5 in \[0, 1\]"):
        AliasedGrid(left_share=1.5)
