"""Counting a course's episodes, and finding processes where budgets mean something."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.finite import FiniteProcess
from headwater.environments.tabular.constrained import rover
from headwater.evaluation.constrained import best_within, binding, course_of
from headwater.evaluation.instances import stacked
from headwater.methods.tabular.constrained.rcpo import RCPO

BUDGET = 0.3


ROVER = rover(("S00", "0P0", "00G"), horizon=6)


KEY = jax.random.key(3)


def test_a_course_counts_its_episodes_and_sums_them():
    method = RCPO(episodes_per_update=4)
    course = course_of(method, stacked([ROVER] * 2), [BUDGET], draws=6, every=3, explore=True,
                       key=KEY)  # fmt: skip
    assert course.episodes.tolist() == [12, 24]
    # Nothing is learned before the first mark, so what was seen is what is expected of chance.
    longer = course_of(method, stacked([ROVER] * 2), [BUDGET], draws=1, every=1, explore=True,
                       key=KEY)  # fmt: skip
    np.testing.assert_allclose(course.exact[:, 0], longer.exact[:, 0])
    with pytest.raises(SpecificationError, match="draws = 5 must be a multiple of every = 2"):
        course_of(method, stacked([ROVER]), [BUDGET], draws=5, every=2, explore=True, key=KEY)


def test_processes_where_budgets_mean_something_are_found():
    def make(key):
        free = jax.random.bernoulli(key)
        reward = jnp.asarray([[0.0, 1.0]])
        cost = jnp.where(free, 0.0, jnp.asarray([[[0.0], [1.0]]]))
        return FiniteProcess.from_arrays(np.ones((1, 2, 1)), reward, horizon=1, cost=cost)

    for process in binding(make, lowest=0.1, highest=0.5, count=3, key=KEY):
        assert best_within(process, [1.0]).spent[0] == 1.0


def test_budgets_that_cannot_be_kept_are_explained():
    with pytest.raises(SpecificationError, match="the process has no costs: give `cost`"):
        best_within(dataclasses.replace(ROVER, cost=None), [0.3])
    with pytest.raises(SpecificationError, match="no policy keeps to budget 0 = -1"):
        best_within(ROVER, [-1.0])
