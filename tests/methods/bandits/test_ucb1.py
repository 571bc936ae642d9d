"""UCB1 against its index in float64."""

import jax
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.core.problems.arms import Arms
from headwater.methods.bandits.ucb1 import UCB1

from .rounds import one_best, probabilities, rounds, rows


@pytest.mark.parity
def test_it_pulls_the_highest_index():
    problem = Arms(4, low=-1.0, high=3.0)
    data = rounds(problem, 200)
    found = probabilities(UCB1(bonus_scale=0.5), problem, data)
    counts, sums = np.zeros(4), np.zeros(4)
    for i, (_, _, arm, reward, _) in enumerate(rows(data)):
        if np.any(counts == 0):
            expected = (counts == 0) / np.sum(counts == 0)
        else:
            width = np.sqrt(2.0 * np.log(counts.sum()) / counts)
            expected = one_best(sums / counts + 0.5 * 4.0 * width)
        np.testing.assert_allclose(found[i], expected, atol=1e-6, err_msg=f"round {i}")
        counts[arm] += 1
        sums[arm] += reward


def test_it_says_what_it_needs():
    with pytest.raises(SpecificationError, match="UCB1 takes all rounds for alike"):
        UCB1().init(Arms(3, 2), key=jax.random.key(0))
    with pytest.raises(SpecificationError, match="UCB1 needs to know what rewards lie between"):
        UCB1().init(Arms(3, high=float("inf")), key=jax.random.key(0))
