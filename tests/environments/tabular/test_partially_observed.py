"""Observed processes: that they show what they are made of, and what may be given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.processes import make_process, process_names
from headwater.environments.tabular.partially_observed import (
    partially_observed_tasks,
)
from headwater.ops.tabular.latent_models import observation_law
from headwater.sources.episodes import FreshEpisodes, play

KEY = jax.random.key(0)


def test_observations_have_the_law_of_the_model():
    task = partially_observed_tasks(tasks=2, hidden=3, actions=2, horizon=2, key=KEY)
    process = jax.tree.map(lambda x: x[1], task.process)
    even = jnp.full((2, 4, 2), 0.5)
    keys = jax.random.split(jax.random.key(1), 20_000)
    data = jax.jit(jax.vmap(lambda key: play(process, even, key=key)))(keys)
    seen, done = np.asarray(data.state), np.asarray(data.action)
    number = seen @ np.asarray([16, 4, 1])
    law = observation_law(process.initial, process.transition, process.emission, steps=2)
    for plan in range(4):
        counts = np.bincount(number[done @ np.asarray([2, 1]) == plan], minlength=64)
        np.testing.assert_allclose(counts / counts.sum(), law[plan], atol=0.025)
    earned = np.asarray(process.reward)[np.arange(2), seen[:, :2], done]
    np.testing.assert_allclose(data.reward, earned, rtol=1e-6)


def test_only_looks_differ_where_transitions_are_shared():
    process = partially_observed_tasks(tasks=3, key=KEY).process
    assert np.ptp(process.transition, axis=0).max() == 0.0
    assert np.ptp(process.emission, axis=0).max() > 0.1
    own = partially_observed_tasks(tasks=3, shared=False, key=KEY).process
    assert np.ptp(own.transition, axis=0).max() > 0.1


def test_a_task_tells_rewards_and_sizes_but_not_where_hidden_states_start():
    task = partially_observed_tasks(tasks=3, horizon=2, key=KEY)
    assert task.problem.tasks == 3 and task.problem.sizes == (2, 4, 3)
    assert task.problem.initial is None
    np.testing.assert_array_equal(task.problem.reward, task.process.reward)
    assert FreshEpisodes(task.process, tasks=3).init(key=KEY).steps == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden": 0}, "hidden = 0 must be at least one"),
        ({"emission_concentration": 0.0}, "emission_concentration = 0 must be above zero"),
    ],
)
def test_sizes_that_cannot_be_are_refused(change, said):
    with pytest.raises(SpecificationError, match=said):
        partially_observed_tasks(**change, key=KEY)


def test_tasks_that_are_learned_together_go_by_name():
    assert {"partially-observed-tasks", "shared-feature-tasks"} <= set(process_names())
    task = make_process("partially-observed-tasks", tasks=2, hidden=3, seed=4)
    assert task.problem.tasks == 2 and task.process.transition.shape == (2, 3, 3, 3)
