"""Tasks that share unknown features: that they are linear in these, and what may be given."""

import jax
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.linear.shared_features import shared_feature_tasks

SIZES = {"tasks": 3, "states": 12, "actions": 4, "horizon": 2, "feature_size": 6, "rank": 3}


@pytest.mark.parametrize("shared", [True, False])
def test_tasks_are_linear_in_the_same_few_features_only_where_they_are_shared(shared):
    task = shared_feature_tasks(**SIZES, shared=shared, key=jax.random.key(0))
    rows = np.asarray(task.process.transition, np.float64).reshape(3, 2, 48, 12)
    reward = np.asarray(task.process.reward, np.float64).reshape(3, 2, 48, 1)
    both = np.concatenate([rows, reward], axis=-1)
    assert np.all(np.linalg.matrix_rank(both, tol=1e-4) == 3)
    # Columns of all tasks and steps span the features that any of them needs; each task's add up
    # to one, so that three times three have seven dimensions.
    together = np.moveaxis(both, 2, 0).reshape(48, -1)
    assert np.linalg.matrix_rank(together, tol=1e-4) == (3 if shared else 7)


def test_methods_are_told_what_is_seen():
    problem = shared_feature_tasks(**SIZES, key=jax.random.key(3)).problem
    seen = np.asarray(problem.features)
    assert seen.shape == (3, 2, 12, 4, 6) and problem.tasks == 3 and problem.reward is None
    np.testing.assert_array_equal(seen, np.broadcast_to(seen[0, 0], seen.shape))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tasks": 0}, "tasks = 0 must be at least one"),
        ({"rank": 7}, "no more orthogonal directions than features, 6"),
        ({"concentration": 0.0}, "concentration = 0 must be above zero"),
    ],
)
def test_sizes_that_cannot_be_are_refused(change, said):
    with pytest.raises(SpecificationError, match=said):
        shared_feature_tasks(**{**SIZES, **change}, key=jax.random.key(0))
