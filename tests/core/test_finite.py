import jax.numpy as jnp
import numpy as np
import pytest

from headwater.core.errors import DataError, SpecificationError
from headwater.core.finite import FiniteProcess

ROWS = np.full((3, 2, 3), 1 / 3)
REWARD = np.zeros((3, 2))


def _changed(array, at, value):
    array = np.array(array)
    array[at] = value
    return array


def test_stationary_arrays_are_repeated():
    process = FiniteProcess.from_arrays(ROWS, REWARD + 0.5, 2, horizon=4)
    assert (process.horizon, process.states, process.actions) == (4, 3, 2)
    assert process.transition.shape == (4, 3, 2, 3) and process.transition.dtype == jnp.float32
    np.testing.assert_array_equal(process.reward, np.full((4, 3, 2), 0.5))
    assert process.initial.tolist() == [0.0, 0.0, 1.0]


def test_either_array_can_say_how_many_steps_there_are():
    assert FiniteProcess.from_arrays(np.stack([ROWS] * 5), REWARD).horizon == 5
    assert FiniteProcess.from_arrays(ROWS, np.zeros((6, 3, 2))).horizon == 6


def test_steps_stay_in_order():
    reward = np.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(FiniteProcess.from_arrays(ROWS, reward).reward, reward)


def test_rows_that_nearly_add_up_are_scaled():
    process = FiniteProcess.from_arrays(ROWS * (1.0 + 5e-6), REWARD, horizon=1)
    np.testing.assert_allclose(process.transition, ROWS[None], rtol=1e-7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transition": "rows"}, "transition is not an array of numbers"),
        ({"transition": [[0.5, 0.5]]}, r"transition has shape \(1, 2\): it must be \[state, act"),
        ({"transition": np.ones((3, 2, 4)) / 4}, "has 3 states but 4 next states"),
        ({"reward": np.zeros((2, 3))}, r"last two axes must be \(3, 2\)"),
        ({"horizon": None}, "neither transition nor reward has a step axis"),
        ({"horizon": 0}, "horizon says that an episode has 0 steps: at least one is needed"),
        ({"horizon": 2.5}, "horizon = 2.5 must be a whole number"),
        ({"reward": np.zeros((3, 3, 2))}, "has 2 steps, but the step axis of reward says 3"),
        ({"initial": 3}, "initial = 3 is not one of the states 0 … 2"),
        ({"initial": [1.0, 0.0]}, r"initial has shape \(2,\), but transition has 3 states"),
    ],
)
def test_shapes_that_do_not_fit_are_explained(changes, message):
    given = {"transition": ROWS, "reward": REWARD, "horizon": 2, **changes}
    with pytest.raises(SpecificationError, match=message):
        FiniteProcess.from_arrays(**given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"transition": _changed(ROWS, (2, 1, 0), 0.5)},
            "^transition: the probabilities at state 2, action 1 add up to 1.166667, not to 1$",
        ),
        (
            {"transition": _changed(np.stack([ROWS] * 2), (1, 2, 0, 1), 0.0)},
            "the probabilities at step 1, state 2, action 0 add up to 0.6666667, not to 1$",
        ),
        (
            {"transition": _changed(ROWS, (0, 1, 2), -0.1)},
            "at state 0, action 1 of next state 2 is -0.1: probabilities must not be negative$",
        ),
        (
            {"transition": _changed(ROWS, (0, 1, 2), np.nan)},
            "at state 0, action 1 of next state 2 is nan: probabilities must be finite$",
        ),
        ({"initial": [0.5, 0.0, 0.0]}, "^initial: the probabilities add up to 0.5, not to 1$"),
        ({"initial": [1.5, -0.5, 0.0]}, "^initial: the probability at state 1 is -0.5"),
        (
            {"reward": _changed(REWARD, (1, 1), np.inf)},
            "^reward: at state 1, action 1 it is inf: rewards must be finite$",
        ),
        (
            {"reward": _changed(np.zeros((2, 3, 2)), (1, 0, 1), 1.5), "reward_range": (0.0, 1.0)},
            "at step 1, state 0, action 1 it is 1.5, outside of the declared range 0 to 1$",
        ),
    ],
)
def test_wrong_numbers_are_named_with_their_place(changes, message):
    given = {"transition": ROWS, "reward": REWARD, "horizon": 2, **changes}
    with pytest.raises(DataError, match=message):
        FiniteProcess.from_arrays(**given)
