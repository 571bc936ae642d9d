"""The scaling law of experts: what was planted is found, and its best sparsity by trying them."""

import numpy as np
import pytest

from headwater.analysis.sparsity_scaling import (
    FinishedRuns,
    SparsityLaw,
    best_sparsity,
    fit_sparsity_law,
)
from headwater.core.errors import DataError
from headwater.testing import check_analysis

PLANTED = SparsityLaw(0.9, 16_000.0, 5_000.0, 0.5, 17.0, 0.6, 0.4, -0.17, 0.16, 0.2)


def runs() -> FinishedRuns:
    size, seen, sparse = (
        x.ravel()
        for x in np.meshgrid([1e8, 1e9, 1e10, 1e11], [1e9, 1e10, 1e11, 1e12], [0, 0.5, 0.8, 0.95])
    )
    # Written out once more, number by number.
    losses = [
        0.9
        + 16_000 / n**0.6
        + 5_000 / d**0.4
        + 0.5 * (1 - s) ** 0.17
        + 17 / ((1 - s) ** 0.16 * n**0.2)
        for n, d, s in zip(size, seen, sparse)
    ]
    return FinishedRuns(size, seen, sparse, np.asarray(losses))


def test_a_planted_law_is_found():
    check_analysis(fit_sparsity_law, {"runs": runs()}, PLANTED, rows={"runs": None}, rtol=1e-3)


def test_sparser_models_are_best_where_operations_are_few():
    """At a number of parameters tokens get fewer as models get denser."""
    candidates = np.linspace(0.0, 0.98, 50)
    budgets = np.geomspace(1e18, 1e22, 5)
    expected = []
    for budget in budgets:
        losses = [PLANTED.loss(1e9, budget / (6 * 1e9 * (1 - s)), s) for s in candidates]
        expected.append(candidates[int(np.argmin(losses))])
    assert sorted(expected, reverse=True) == expected and expected[0] > expected[-1]
    check_analysis(
        best_sparsity,
        {"law": PLANTED, "parameters": 1e9, "compute": budgets, "candidates": candidates},
        np.asarray(expected),
        rows={"compute": 0},
    )


def test_what_cannot_be_fitted_is_refused():
    good = runs()
    with pytest.raises(DataError, match="9 runs do not tell ten numbers apart"):
        fit_sparsity_law(FinishedRuns(*(x[:9] for x in good)))
    with pytest.raises(DataError, match="must be positive"):
        fit_sparsity_law(good._replace(losses=good.losses - 10.0))
    with pytest.raises(DataError, match="less than 1"):
        fit_sparsity_law(good._replace(sparsity=good.sparsity + 0.5))
    with pytest.raises(DataError, match="one number for each run"):
        fit_sparsity_law(good._replace(tokens=good.tokens[:20]))
