"""Weights of rows by their nearness to good ones, against their definition."""

import numpy as np
import pytest

import headwater as hw
from headwater.analysis.models.objective_mismatch import nearness_weights
from headwater.core.errors import DataError, SpecificationError


def test_rows_near_good_ones_count_most():
    draw = np.random.default_rng(0)
    # The last entry never changes, and says nothing.
    rows = np.concatenate([draw.normal(size=(40, 2)) * [1.0, 5.0], np.ones((40, 1))], axis=1)
    good = np.concatenate([draw.normal(size=(7, 2)), np.full((7, 1), 3.0)], axis=1)
    expected = []
    for row in rows:
        apart = [
            np.sqrt(sum(((row[i] - other[i]) / rows[:, i].std()) ** 2 for i in range(2)) / 3.0)
            for other in good
        ]
        expected.append(np.exp(-min(apart) / 0.3))
    expected = np.asarray(expected) / np.mean(expected)
    hw.testing.check_analysis(
        nearness_weights,
        {"rows": rows, "good": good, "temperature": 0.3},
        expected,
        rows={"rows": 0, "good": None},
    )


@pytest.mark.parametrize(
    ("rows", "good", "temperature", "error", "sentence"),
    [
        (np.ones((3, 2)), np.ones((3, 1)), 0.2, DataError, "rows have 2 entries and good rows 1"),
        (np.ones((3, 2)), np.ones((0, 2)), 0.2, DataError, "there are no rows to compare"),
        (np.ones((3, 2)), np.ones((3, 2)), 0.0, SpecificationError, "temperature = 0: it must be"),
    ],
)
def test_what_is_refused(rows, good, temperature, error, sentence):
    with pytest.raises(error, match=sentence):
        nearness_weights(rows, good, temperature)
