"""SquareCB against the formula on ridge regression in float64."""

import numpy as np
import pytest

from headwater.methods.bandits.square_cb import SquareCB

from .rounds import LINEAR_PROBLEMS, probabilities, ridge_twin, rounds


@pytest.mark.parity
@pytest.mark.parametrize("problem", LINEAR_PROBLEMS[:2], ids=str)
def test_it_weighs_inverse_gaps(problem):
    data = rounds(problem, 100)
    found = probabilities(SquareCB(gap_weight=3.0), problem, data)
    for i, (mean, _) in enumerate(ridge_twin(problem, data, 1.0)):
        best = int(np.argmax(mean))
        shares = [1.0 / (4 + 3.0 * np.sqrt(i) * (mean[best] - m)) for m in mean]
        shares[best] = 0.0
        shares[best] = 1.0 - sum(shares)
        np.testing.assert_allclose(found[i], shares, atol=1e-4, err_msg=f"round {i}")
