"""How often a policy visits what was logged: weights of rows that need no probabilities.

The weights `w` are those with which the logged rows balance the flow of the evaluated policy: for
every function f of a linear class, `Σ w(s, a)·(f(s, a) - γ·f(s', π)) / episodes` is the mean of
f over first observations. They are themselves in the class: random Fourier features of observation
and action (minimax weight learning, Uehara, Huang and Jiang 2020, in closed form). Long
episodes cost no variance of products of ratios, and policies may be deterministic.
"""

from typing import NamedTuple

import numpy as np

from headwater.core.spaces import Discrete
from headwater.datasets.dataset import Dataset
from headwater.evaluation.estimators.importance import Judged
from headwater.evaluation.fitted_value import Choices

_FEATURES = 256
_ROWS_TO_MEASURE = 500
_ROWS_AT_ONCE = 16_384
_RIDGE = 1e-3
"""Of the mean of the features' variances: below it a direction is not told from noise."""


class Marginal(NamedTuple):
    """The weights of rows, in expected discounted visits of an episode times episodes.

    **Arguments:** `weights`: `[row]`; `effective_episodes`: how many episodes of the policy itself
    would weigh as much; `negative`: share of the weight that has the wrong sign: where it is large,
    the log does not hold what the policy does; `beyond`: about what share of what the policy does
    is unlike anything in the log, as an action that was never taken is; `influence`: `[episode]`,
    of the value that the same features give.
    """

    weights: np.ndarray
    effective_episodes: float
    negative: float
    beyond: float
    influence: np.ndarray


class _Features:
    """Random Fourier features of observations and actions, and 1."""

    def __init__(self, data: Dataset, seed: int):
        rng = np.random.default_rng(seed)
        self.space = data.spaces.action
        self.mean = data.observations.mean(0, dtype=np.float64)
        spread = data.observations.std(0, dtype=np.float64)
        self.scale = np.where(spread > 1e-6, 1.0 / np.maximum(spread, 1e-6), 0.0)
        chosen = rng.integers(0, data.size, (2, _ROWS_TO_MEASURE))
        here = [self._standard(data.observations[rows]) for rows in chosen]
        # The middle distance between two rows, in observations and in actions alike.
        width = _middle(here[0] - here[1])
        self.waves = rng.normal(size=(here[0].shape[1], _FEATURES)) / width
        size = data.spaces.action_size
        acting = np.sqrt(2.0)
        if not isinstance(self.space, Discrete):
            acting = _middle(data.actions[chosen[0]] - data.actions[chosen[1]])
        self.action_waves = rng.normal(size=(size, _FEATURES)) / acting
        self.phases = rng.uniform(0.0, 2.0 * np.pi, _FEATURES)

    def _standard(self, observations: np.ndarray) -> np.ndarray:
        return (observations - self.mean) * self.scale

    def alone(self, observations: np.ndarray) -> np.ndarray:
        """Of observations, whatever is done in them, `[row, feature]`."""
        return _with_one(np.cos(self._standard(observations) @ self.waves + self.phases))

    def chosen(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Of actions that were taken, `[row, feature]`."""
        discrete = isinstance(self.space, Discrete)
        turn = self.action_waves[actions] if discrete else actions @ self.action_waves
        return _with_one(np.cos(self._standard(observations) @ self.waves + self.phases + turn))

    def expected(self, observations: np.ndarray, choices: Choices) -> np.ndarray:
        """Of a policy, averaged over what it may do, `[row, feature]`."""
        angles = self._standard(observations) @ self.waves + self.phases
        weights = np.asarray(choices.weights, np.float64)
        if choices.actions is None:
            # The cosine of a sum, so that no action needs a pass of its own.
            along = weights @ np.cos(self.action_waves)
            across = weights @ np.sin(self.action_waves)
            return _with_one(np.cos(angles) * along - np.sin(angles) * across)
        turns = np.asarray(choices.actions, np.float64) @ self.action_waves
        return _with_one(np.einsum("rc,rcf->rf", weights, np.cos(angles[:, None] + turns)))


def marginal_weights(
    data: Dataset, first: Choices, following: Choices, discount: float, seed: int = 0
) -> Marginal:
    """The weights under which logged rows are as those of the policy.

    **Arguments:** `data`; `first`, `following`: what the policy does in the first observation of
    each episode, and in the next observation of each row; `discount`; `seed`: of the features.
    """
    features, rng = _Features(data, seed), np.random.default_rng(seed)
    size, count = _FEATURES + 1, data.episodes
    flow, products, gained = np.zeros((size, size)), np.zeros((size, size)), np.zeros(size)
    for rows in _blocks(data.size):
        here, change = _change(features, data, following, rows, discount)
        flow += here.T @ change
        products += here.T @ here
        gained += here.T @ data.rewards[rows].astype(np.float64)
    start = features.expected(data.observations[data.episode_starts[:-1]], first)
    ridge = _RIDGE * np.diag(products).mean() * np.eye(size)
    visits = np.linalg.solve(flow.T + ridge, start.sum(0))
    values = np.linalg.solve(flow + ridge, gained)
    weights, errors = np.zeros(data.size), np.zeros(data.size)
    for rows in _blocks(data.size):
        here, change = _change(features, data, following, rows, discount)
        weights[rows] = here @ visits
        errors[rows] = data.rewards[rows] - change @ values
    within = np.add.reduceat(weights * errors, data.episode_starts[:-1])
    total = np.abs(weights).sum()
    kept = weights.sum() ** 2 / max(float((weights**2).sum()), 1e-300)
    return Marginal(
        weights,
        float(kept * count / data.size),
        float(np.abs(weights[weights < 0]).sum() / max(total, 1e-300)),
        max(
            _beyond(start[rng.permutation(count)[:_ROWS_TO_MEASURE]], products, ridge),
            _beyond(_next(features, data, following, rng), products, ridge),
        ),
        start @ values + within,
    )


def _next(features: _Features, data: Dataset, following: Choices, rng) -> np.ndarray:
    """Features of what the policy does after some of the rows that are not terminal."""
    rows = rng.permutation(np.flatnonzero(~data.terminals))[:_ROWS_TO_MEASURE]
    actions = following.actions
    part = Choices(None if actions is None else actions[rows], following.weights[rows])
    return features.expected(data.next_observations[rows], part)


def _beyond(features: np.ndarray, products: np.ndarray, ridge: np.ndarray) -> float:
    """The length of these features in directions that the log's rows do not have, as a share.

    Functions that differ there alone are all alike to the log, so that whatever they say of these
    rows is made up. A policy that does in one step of five what was never done has about a fifth.
    """
    if not len(features):
        return 0.0
    missing = np.linalg.solve(products + ridge, ridge @ features.T).T
    shares = (features * missing).sum(1) / np.maximum((features**2).sum(1), 1e-300)
    return float(np.sqrt(np.clip(shares.mean(), 0.0, 1.0)))


def marginal_estimate(data: Dataset, marginal: Marginal) -> Judged:
    """The logged rewards, weighted by how often the policy would earn them (`mis`)."""
    value = float(marginal.weights @ data.rewards.astype(np.float64)) / data.episodes
    return Judged(value, marginal.influence - marginal.influence.mean() + value)


def doubly_robust_marginal(
    data: Dataset, marginal: Marginal, values: np.ndarray, errors: np.ndarray
) -> Judged:
    """The learned value, corrected where the weighted rows contradict it (`drl`).

    **Arguments:** `values`: learned, of each first observation `[episode]`; `errors`: temporal
    difference of the learned value in each row `[row]`.
    """
    each = values + np.add.reduceat(marginal.weights * errors, data.episode_starts[:-1])
    return Judged(float(each.mean()), each)


def logged_estimate(data: Dataset, discount: float, seed: int = 0) -> Judged:
    """What the policy that logged the data is worth itself.

    Beyond the end of a truncated episode its value is that which the features give it, from the
    steps that were logged.
    """
    each = data.episode_returns(discount)
    last = data.episode_starts[1:] - 1
    cut = data.truncations[last] & ~data.terminals[last]
    if not cut.any():
        return Judged(float(each.mean()), each)
    features, size = _Features(data, seed), _FEATURES + 1
    flow, squares, gained = np.zeros((size, size)), np.zeros(size), np.zeros(size)
    for rows in _blocks(data.size):
        here = features.alone(data.observations[rows])
        onward = discount * ~data.terminals[rows]
        flow += here.T @ (here - onward[:, None] * features.alone(data.next_observations[rows]))
        squares += (here**2).sum(0)
        gained += here.T @ data.rewards[rows].astype(np.float64)
    values = np.linalg.solve(flow + _RIDGE * squares.mean() * np.eye(size), gained)
    beyond = features.alone(data.next_observations[last]) @ values
    each = each + cut * discount ** data.episode_lengths() * beyond
    return Judged(float(each.mean()), each)


def _change(features: _Features, data: Dataset, following: Choices, rows: slice, discount: float):
    """Features of rows, and by how much they exceed those of what follows, discounted."""
    here = features.chosen(data.observations[rows], data.actions[rows])
    actions = following.actions
    part = Choices(None if actions is None else actions[rows], following.weights[rows])
    after = features.expected(data.next_observations[rows], part)
    return here, here - (discount * ~data.terminals[rows])[:, None] * after


def _blocks(size: int):
    for begin in range(0, size, _ROWS_AT_ONCE):
        yield slice(begin, min(begin + _ROWS_AT_ONCE, size))


def _middle(differences: np.ndarray) -> float:
    lengths = np.linalg.norm(np.asarray(differences, np.float64), axis=1)
    lengths = lengths[lengths > 0]
    return float(np.median(lengths)) if lengths.size else 1.0


def _with_one(features: np.ndarray) -> np.ndarray:
    return np.column_stack([features, np.ones(len(features))])
