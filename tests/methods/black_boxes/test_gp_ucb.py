"""GP-UCB against its formula in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from headwater.methods.black_boxes.gp_ucb import GPUCB

from .beliefs import GIVEN, GRID, posterior, proposed, seen, taught


@pytest.mark.parity
@pytest.mark.parametrize("bonus", [0.0, 1.0, 3.0])
def test_it_proposes_where_the_bound_is_highest(bonus):
    method = GPUCB(bonus_scale=bonus, **GIVEN)
    chosen = []
    for seed in range(4):
        points, values = seen(seed=seed)
        mean, covariance = posterior(points, values)
        best = np.argmax(mean + bonus * np.sqrt(np.diag(covariance)))
        point = proposed(method, taught(method, points, values))
        assert point[0] == GRID[best]
        chosen.append(int(best))
    assert len(set(chosen)) > 1


def test_what_is_on_its_way_is_taken_for_its_mean():
    points, values = seen()
    method = GPUCB(**GIVEN)
    state = taught(method, points, values)
    first = proposed(method, state)
    expect = jax.jit(lambda state, point: method.expect(state, point, jnp.asarray(0, jnp.int32)))
    waiting = expect(state, first)
    mean, _ = posterior(points, values)
    assert waiting.count == state.count + 1
    np.testing.assert_allclose(
        waiting.value[state.count], mean[round(20 * float(first[0]))], rtol=1e-5
    )
    # Its mean is as it was, it is surer, and so another point comes next.
    second = proposed(method, waiting)
    assert second[0] != first[0]
