"""Value functions that data leave, against listing them by hand."""

import itertools

import numpy as np
import pytest

import headwater as hw
from headwater.analysis.models.consistent_values import consistent_values, factored_models
from headwater.core.errors import DataError, SpecificationError

_DISCOUNT = 0.5


def _all_models(states: int, actions: int) -> np.ndarray:
    found = itertools.product(range(states), repeat=states * actions)
    return np.asarray(list(found)).reshape(-1, states, actions)


def _by_hand(models, reward, steps):
    """The two numbers by walking each model's best path, one model and one step at a time."""
    left: tuple[set, set] = (set(), set())
    for model in models:
        value = np.zeros(len(reward))
        for _ in range(60):
            value = (reward + _DISCOUNT * value[model]).max(axis=1)
        q = reward + _DISCOUNT * value[model]
        name = tuple(np.round(q, 6).ravel())
        if all(model[s, a] == n for s, a, n in steps):
            left[0].add(name)
        if all(abs(q[s, a] - reward[s, a] - _DISCOUNT * value[n]) < 1e-6 for s, a, n in steps):
            left[1].add(name)
    return len(left[0]), len(left[1])


@pytest.mark.parametrize("factored", [False, True])
def test_value_functions_are_counted_as_by_hand(factored):
    models = factored_models(2, 2) if factored else _all_models(3, 2)
    reward = np.zeros(models.shape[1:])
    reward[-1] = 1.0
    steps = np.asarray([[0, 0, 1], [1, 1, 1], [1, 0, 0]])
    arguments = {"models": models, "reward": reward, "steps": steps, "discount": _DISCOUNT}
    expected = _by_hand(models, reward, steps)
    hw.testing.check_analysis(
        consistent_values, arguments, expected, rows={"steps": None, "models": None}
    )
    # Among all models there is one that leads right wherever another leads to as good a state.
    assert (expected[0] < expected[1]) == factored


def test_values_tell_where_a_step_led_where_no_two_states_are_worth_the_same():
    reward = np.random.default_rng(0).normal(size=(4, 2))
    found = consistent_values(factored_models(2, 2), reward, np.asarray([[0, 0, 1]]))
    assert found.by_model == found.by_bellman == 4**4 // 4


def test_the_same_values_are_counted_once_however_they_are_summed():
    """State 0 leads to what brings 3 once, or to what brings 1.5 for ever: 3 as well, in the limit.

    With a value of 128 elsewhere, 1.5 lies on a half of the last digit that counts.
    """
    reward = np.asarray([0.0, 3.0, 1.5, 0.0, 128.0])[:, None]
    models = np.asarray([[1, 3, 2, 3, 3], [2, 3, 2, 3, 3]])[:, :, None]
    found = consistent_values(models, reward, np.asarray([[1, 0, 3]]), 0.5)
    assert found == (1, 1)


def test_factored_models_are_all_those_whose_bits_change_by_themselves():
    models = factored_models(2, 2)
    assert models.shape == (256, 4, 2)
    found = {tuple(model.ravel()) for model in models}
    expected = {
        tuple(model.ravel())
        for model in _all_models(4, 1)
        if all(
            (model[s, 0] >> bit) & 1 == (model[other, 0] >> bit) & 1
            for s in range(4)
            for other in range(4)
            for bit in range(2)
            if (s >> bit) & 1 == (other >> bit) & 1
        )
    }
    # Each action by itself is such a model of one action, and any two of them go together.
    assert len(found) == 256 and len(expected) == 16
    assert {tuple(model[:, 0]) for model in models} == expected


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"discount": 1.0}, SpecificationError, "discount = 1: it must be at least 0"),
        ({"steps": np.asarray([[0, 0, 1], [4, 0, 0]])}, DataError, r"step 1 is \(4, 0, 0\): there"),
        ({"models": np.full((1, 4, 2), 4)}, DataError, "leads to a state that is not among the 4"),
    ],
)
def test_what_is_refused(change, error, sentence):
    arguments = {
        "models": factored_models(2, 2),
        "reward": np.zeros((4, 2)),
        "steps": np.asarray([[0, 0, 1]]),
    }
    with pytest.raises(error, match=sentence):
        consistent_values(**{**arguments, **change})
