"""Transfer and forgetting of matrices that were worked out by hand."""

import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.evaluation.continual.transfer import transfer_scores

MATRIX = np.asarray([[80.0, 10.0, 20.0], [90.0, 60.0, 30.0], [50.0, 40.0, 70.0]])


def test_a_matrix_worked_out_by_hand():
    found = transfer_scores(MATRIX, np.asarray([5.0, 4.0, 6.0]))
    assert found.average == pytest.approx((50 + 40 + 70) / 3)
    assert found.backward_transfer == pytest.approx(((50 - 80) + (40 - 60)) / 2)
    # The first task was best after the second; what a task scored before it was learned is no best.
    assert found.forgetting == pytest.approx(((90 - 50) + (60 - 40)) / 2)
    assert found.forward_transfer == pytest.approx(((10 - 4) + (30 - 6)) / 2)


def test_seeds_are_apart_and_what_was_never_learned_is_not_forgotten():
    lucky = MATRIX.copy()
    lucky[0, 1] = 1_000.0
    found = transfer_scores(np.stack([MATRIX, lucky, 2 * MATRIX]))
    np.testing.assert_allclose(found.forgetting, [30.0, 30.0, 60.0])
    np.testing.assert_allclose(found.backward_transfer, [-25.0, -25.0, -50.0])
    assert found.forward_transfer is None


@pytest.mark.parametrize(
    ("matrix", "untrained", "message"),
    [
        (MATRIX[:2], None, r"\[after, task\], with a row for each of two or more tasks, not"),
        (MATRIX[:1, :1], None, r"two or more tasks, not \[1, 1\]"),
        (MATRIX, np.zeros(2), r"shape \[2\], but there are 3 tasks: give \[3\]"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(matrix, untrained, message):
    with pytest.raises(SpecificationError, match=message):
        transfer_scores(matrix, untrained)
