import itertools

import jax
import jax.numpy as jnp
import numpy as np

from headwater.environments.tabular.finite import random_process
from headwater.evaluation.model_error import worst_model_error


def _processes():
    return [
        random_process(states=2, actions=2, horizon=2, key=jax.random.key(seed))
        for seed in range(2)
    ]


def test_the_worst_error_is_that_of_the_worst_of_all_policies():
    true, other = _processes()
    transition, model = np.asarray(true.transition), np.asarray(other.transition)
    distance = 0.5 * np.abs(transition - model).sum(-1)
    worst = 0.0
    for choice in itertools.product(range(2), repeat=4):
        actions = np.reshape(choice, (2, 2))
        here, met = np.asarray(true.initial, np.float64), 0.0
        for step in range(2):
            rows = np.arange(2), actions[step]
            met += here @ distance[step][rows]
            here = here @ transition[step][rows]
        worst = max(worst, met / 2.0)
    np.testing.assert_allclose(worst_model_error(true, other.transition), worst, rtol=1e-5)


def test_several_processes_have_an_error_each():
    true, other = _processes()
    both = jax.tree.map(lambda *x: jnp.stack(x), true, other)
    found = worst_model_error(both, jnp.stack([other.transition, other.transition]))
    np.testing.assert_allclose(found[0], worst_model_error(true, other.transition), rtol=1e-5)
    assert float(found[1]) == 0.0
