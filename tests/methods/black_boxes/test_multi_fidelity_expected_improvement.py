"""Expected improvement over fidelities against its formula in NumPy."""

import jax
import numpy as np
import pytest
from scipy.stats import norm

from headwater.methods.black_boxes.multi_fidelity_expected_improvement import (
    MultiFidelityExpectedImprovement,
)

from .beliefs import GIVEN, GRID, NOISE, kernel, seen, taught

COSTS = (0.2, 1.0)


def joint(points, levels, others, other_levels):
    """Covariances of an autoregression of slope 1: the last is the first and something more."""
    both_last = (levels[:, None] == 1) & (other_levels[None, :] == 1)
    return kernel(points, others) * (1.0 + both_last)


@pytest.mark.parity
def test_it_proposes_what_is_worth_most_for_its_cost():
    method, chosen = MultiFidelityExpectedImprovement(**GIVEN), []
    ask = jax.jit(lambda state: method.propose(state, key=jax.random.key(0)))
    for seed in range(8):
        points, values = seen(rows=7, seed=seed)
        levels = np.array([0, 0, 0, 0, 0, 1, 1], np.int32)
        state = taught(method, points, values, fidelities=levels, costs=COSTS)
        points, grid = points.astype(float), GRID.astype(float)
        noisy = joint(points, levels, points, levels) + NOISE**2 * np.eye(7)
        cheap, exact = np.zeros(21, int), np.ones(21, int)
        both = np.concatenate([grid, grid]), np.concatenate([cheap, exact])
        cross = joint(*both, points, levels)
        mean = cross @ np.linalg.solve(noisy, values)
        covariance = joint(*both, *both) - cross @ np.linalg.solve(noisy, cross.T)
        deviation = np.sqrt(np.diag(covariance))
        known = joint(points, np.ones(7, int), points, levels) @ np.linalg.solve(noisy, values)
        z = (mean[21:] - known.max()) / deviation[21:]
        gain = deviation[21:] * (z * norm.cdf(z) + norm.pdf(z))
        related = np.diag(covariance[:21, 21:]) / (deviation[:21] * deviation[21:])
        unknown = 1.0 - NOISE / np.sqrt(deviation**2 + NOISE**2)
        worth = np.stack([gain * related * unknown[:21] * 5.0, gain * unknown[21:]])
        level, place = np.unravel_index(np.argmax(worth), worth.shape)
        point, fidelity = ask(state)
        assert (point[0], fidelity) == (GRID[place], level)
        chosen.append((int(place), int(level)))
    assert {level for _, level in chosen} == {0, 1} and len(set(chosen)) > 2, chosen
