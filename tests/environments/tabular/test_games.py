"""The pursuit: its moves by hand, and what may be given."""

import jax
import numpy as np
import pytest

from headwater.core.errors import SpecificationError
from headwater.environments.tabular.games import pursuit_grid

KEY = jax.random.key(0)


def test_who_is_caught_earns_nothing():
    game = pursuit_grid(size=2, horizon=3, slip=0.1, key=KEY)
    worth = np.asarray(jax.random.uniform(KEY, (4,)))
    start, costs = int(np.argmax(game.initial)), np.asarray(game.cost)
    assert divmod(start, 4) == (0, 3)
    # On a grid of two rows the first goes right to cell 1 or down to 2, and the other from cell 3
    # right to 2 or down to 1. Where each goes as it means to or slips, that is 0.9 and 0.1.
    for own in range(2):
        for reply in range(2):
            right, meets = (0.9, 0.1)[own], (0.9, 0.1)[reply]
            moved = np.asarray(game.transition[0, start, 2 * own + reply]).reshape(4, 4)
            np.testing.assert_allclose(moved[1, 2], right * meets, atol=1e-6)
            np.testing.assert_allclose(moved[2, 1], (1 - right) * (1 - meets), atol=1e-6)
            earned = right * meets * worth[1] + (1 - right) * (1 - meets) * worth[2]
            assert float(game.reward[0, start, 2 * own + reply]) == pytest.approx(earned, rel=1e-5)
            caught = right * (1 - meets) + (1 - right) * meets
            assert costs[0, start, 2 * own + reply, 0] == pytest.approx(caught, rel=1e-5)


def test_only_worths_are_drawn():
    one, other = (pursuit_grid(key=jax.random.key(seed)) for seed in range(2))
    np.testing.assert_array_equal(one.transition, other.transition)
    assert np.abs(one.reward - other.reward).max() > 0.1


def test_the_two_stay_on_a_common_diagonal():
    game = pursuit_grid(key=KEY)
    together = [
        (sum(divmod(a, 3)) - sum(divmod(b, 3))) % 3 == 0 for a in range(9) for b in range(9)
    ]
    reached = np.asarray(game.transition[0])[together] > 0.0
    assert reached.any() and not reached[..., ~np.asarray(together)].any()
    assert together[int(np.argmax(game.initial))]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 1}, "size = 1 must be at least 2"),
        ({"horizon": 0}, "horizon = 0 must be at least 1"),
        ({"slip": 1.5}, "slip = 1.5 must be a probability"),
    ],
)
def test_games_that_cannot_be_are_refused(options, said):
    with pytest.raises(SpecificationError, match=said):
        pursuit_grid(**options, key=KEY)
