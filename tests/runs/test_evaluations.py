"""Learning curves from the rows of evaluations."""

import numpy as np
import pytest

from headwater.core.errors import RunError
from headwater.runs.evaluations import learning_curve


def rows(returns):
    """Rows of `returns[update][seed]`, in the order in which a run adds them."""
    return [
        {"update": update, "environment_steps": 100 + 10 * update, "seed": seed, "returns": each}
        for update, seeds in returns.items()
        for seed, each in enumerate(seeds)
    ]


def test_a_learning_curve_holds_means_over_episodes_and_begins_before_any_step():
    steps, means = learning_curve(
        rows({0: [[1.0, 3.0], [5.0, 5.0]], 7: [[4.0, 0.0], [8.0, 9.0]]}), 2
    )
    np.testing.assert_array_equal(steps, [0.0, 170.0])
    np.testing.assert_array_equal(means, [[2.0, 2.0], [5.0, 8.5]])


def test_what_lacks_episodes_is_refused():
    with pytest.raises(RunError, match="as many returns for each seed at update 7"):
        learning_curve(rows({0: [[1.0], [2.0]], 7: [[1.0], [2.0, 3.0]]}), 2)
