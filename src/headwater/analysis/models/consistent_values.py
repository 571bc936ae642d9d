"""How many value functions data leave, read by way of a model or by the Bellman equation."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from headwater.analysis.registry import analysis
from headwater.core.errors import DataError, SpecificationError

_SAME = 1e-8
"""Values that differ by less, in units of the largest, are the same."""


class ConsistentValues(NamedTuple):
    """Numbers of different optimal value functions that data leave.

    **Arguments:** `by_model`: of models that lead where the data say; `by_bellman`: of models whose
    values satisfy the Bellman equation on the data, wherever these models lead.
    """

    by_model: int
    by_bellman: int


@analysis(paper="young2023benefits")
def consistent_values(
    models: Int[np.ndarray, "model state action"],
    reward: Float[np.ndarray, "state action"],
    steps: Int[np.ndarray, "step 3"],
    discount: float = 0.9,
) -> ConsistentValues:
    r"""How many value functions are left by steps of a deterministic process with known rewards.

    The hypotheses are the optimal values $Q_m$ of a class of models $m$. A step $(s, a, s')$ is
    consistent with a model if $m(s, a) = s'$, and with values if $Q(s, a) = r(s, a) + \gamma
    \max_{a'} Q(s', a')$. The former implies the latter, so that learning a model first never leaves
    more. It leaves fewer where a wrong next state happens to be worth as much as the right one, and
    where what was seen of one state says something of others: of all models of a process, which say
    nothing, there is always one that leads right and has the same values.

    **Arguments:** `models`: the next state by each model; `reward`: of each state and action;
    `steps`: states, actions and next states; `discount`: γ.

    Raises `SpecificationError` for a discount outside [0, 1), and `DataError` for states or actions
    that there are not.
    """
    if not 0.0 <= discount < 1.0:
        raise SpecificationError(f"discount = {discount:g}: it must be at least 0 and less than 1")
    _check(models, steps)
    values = _optimal(models, reward.astype(np.float64), discount)
    state, action, following = steps.T
    leads = np.all(models[:, state, action] == following, axis=1)
    error = values[:, state, action] - reward[state, action]
    error = np.abs(error - discount * values[:, following].max(axis=-1))
    scale = max(float(np.abs(values).max(initial=0.0)), 1e-300)
    satisfies = np.all(error <= _SAME * scale, axis=1)
    numbers = _numbered(values.reshape(len(values), -1), _SAME * scale)
    return ConsistentValues(*(len(np.unique(numbers[left], axis=0)) for left in (leads, satisfies)))


def factored_models(bits: int, actions: int) -> Int[np.ndarray, "model state action"]:
    """All deterministic models of `bits` bits, each of which changes with itself and the action.

    A state is the number that the bits write, the first counting one. There are
    4^(`bits` · `actions`) of them.
    """
    # What one bit becomes, by action and by what it is.
    rules = np.indices((2,) * (2 * actions)).reshape(2 * actions, -1).T.reshape(-1, actions, 2)
    chosen = np.indices((len(rules),) * bits).reshape(bits, -1)
    state = np.arange(2**bits)
    models = np.zeros((chosen.shape[1], len(state), actions), int)
    for bit, rule in enumerate(chosen):
        models += np.swapaxes(rules[rule][:, :, (state >> bit) & 1], 1, 2) << bit
    return models


def _optimal(models: np.ndarray, reward: np.ndarray, discount: float) -> np.ndarray:
    """Optimal values of all models, `[model, state, action]`, by value iteration."""
    flat, values = models.reshape(len(models), -1), np.zeros(models.shape)
    while True:
        following = np.take_along_axis(values.max(axis=-1), flat, axis=1).reshape(models.shape)
        updated = reward + discount * following
        change = np.abs(updated - values).max(initial=0.0)
        values = updated
        # What is left to come is a small part of what counts as the same.
        if change <= 1e-3 * _SAME * (1.0 - discount) * np.abs(values).max(initial=0.0):
            return values


def _numbered(values: np.ndarray, apart: float) -> np.ndarray:
    """Values as whole numbers, one for all that are the same up to `apart`.

    To round them would part what lies on both sides of a half.
    """
    found, place = np.unique(values, return_inverse=True)
    number = np.cumsum(np.diff(found, prepend=found[:1]) > apart)
    return number[place].reshape(values.shape)


def _check(models: np.ndarray, steps: np.ndarray) -> None:
    states, actions = models.shape[1:]
    bounds = np.asarray([states, actions, states])
    outside = np.any((steps < 0) | (steps >= bounds), axis=1)
    if outside.any():
        row = int(np.argmax(outside))
        raise DataError(
            f"step {row} is {tuple(steps[row].tolist())}: there are {states} states and {actions} "
            "actions, counted from 0"
        )
    if models.size and (models.min() < 0 or models.max() >= states):
        raise DataError(f"a model leads to a state that is not among the {states}")
