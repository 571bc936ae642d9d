"""The point in a square against a walk in NumPy."""

import jax
import numpy as np
import pytest

from headwater.environments.black_boxes.point_reach import GOALS, PointReach


def walked(genes, radius):
    """Where the point ends, and the steps that count: those in the area that was entered first."""
    genes = np.asarray(genes, np.float64)
    first, second, last = genes[:10], genes[11:36], genes[37:47]
    place, area, steps = np.zeros(2), None, np.zeros(len(GOALS))
    for _ in range(50):
        hidden = np.tanh(place @ first.reshape(2, 5) + genes[10])
        hidden = np.tanh(hidden @ second.reshape(5, 5) + genes[36])
        move = np.tanh(hidden @ last.reshape(5, 2) + genes[47])
        place = np.clip(place + 0.05 * move, -1.0, 1.0)
        for i, goal in enumerate(GOALS):
            if np.abs(place - goal).max() <= radius and area in (None, i):
                area, steps[i] = i, steps[i] + 1
    return place, steps


# Of edges that no number of whole steps ends at: rounding would decide there.
@pytest.mark.parametrize("radius", (0.12, 0.27))
def test_it_walks_and_counts_as_in_numpy(radius):
    box = PointReach(radius=radius)
    genes = np.random.default_rng(0).uniform(-2.0, 2.0, (60, 48)).astype(np.float32)
    found = jax.jit(jax.vmap(lambda x: box.measured(None, x)))(genes)
    expected = [walked(x, radius) for x in genes]
    np.testing.assert_allclose(found.measures, [place for place, _ in expected], atol=1e-4)
    value = np.asarray([steps.max() for _, steps in expected])
    assert np.mean(np.asarray(found.value) == value) > 0.95 and value.max() > 5
    assert np.all(found.value <= 50.0) and len(set(value)) > 3
