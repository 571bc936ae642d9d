"""Importance sampling of episodes and of steps, as values of which the mean is the estimate."""

from typing import NamedTuple

import numpy as np

from headwater.datasets.dataset import Dataset

WEIGHING = ("is", "wis", "pdis", "wpdis", "dr", "wdr")
WITH_MODEL = ("dr", "wdr")
_WHOLE = ("is", "wis")


class Judged(NamedTuple):
    """What an estimator says, and how much each episode has to do with it.

    **Arguments:** `value`; `influence`: `[episode]`, with `value` as its mean; how it varies
    between episodes says how uncertain the value is.
    """

    value: float
    influence: np.ndarray


class WeightedEpisodes:
    """The log as tables `[episode, step]`, padded after each episode's end.

    After its end an episode rests: it earns nothing, and its weight stays what it was, so that
    weights which add up to 1 at every step count it still.

    **Arguments:** `data`; `log_ratio`: `[row]`, log of the evaluated policy's probability of the
    logged action over that of the policy that logged it, minus infinity for what is never done;
    `discount`; `max_weight`: what the product of ratios up to a step is clipped at.
    """

    def __init__(
        self,
        data: Dataset,
        log_ratio: np.ndarray,
        discount: float,
        max_weight: float = float("inf"),
    ):
        self.lengths = data.episode_lengths()
        self.count, self.steps = data.episodes, int(self.lengths.max())
        self.at = (
            data.episode_of_row,
            np.arange(data.size) - np.repeat(data.episode_starts[:-1], self.lengths),
        )
        self.discounts = discount ** np.arange(self.steps)
        cumulative = np.cumsum(self.table(log_ratio), axis=1)
        # Ratios are relative to the largest, which cancels where weights are normalised.
        largest = float(cumulative.max())
        self.log_shift = largest if largest > 600.0 else 0.0
        self.ratios = np.exp(cumulative - self.log_shift)
        self.scale = float(np.exp(min(self.log_shift, 700.0)))
        clipped = np.minimum(self.ratios, max_weight / self.scale)
        self.clipped = float(ratio((self.ratios - clipped).sum(), self.ratios.sum()))
        self.ratios = clipped
        self.rewards = self.table(data.rewards)
        last = data.episode_starts[1:] - 1
        cut = data.truncations[last] & ~data.terminals[last]
        self.lost = float(np.mean(cut * discount**self.lengths))

    def table(self, column: np.ndarray) -> np.ndarray:
        """A column of the log `[row]` as `[episode, step]`, zero after the end."""
        table = np.zeros((self.count, self.steps))
        table[self.at] = column
        return table

    def effective(self, name: str) -> float:
        """Effective number of episodes, of the last step's weights or averaged over steps.

        The average is harmonic, as variances add up: a step that no weight reaches leaves nothing.
        """
        ratios = self.ratios[:, -1:] if name in _WHOLE else self.ratios
        largest = np.maximum(ratios.max(axis=0), 1e-300)
        ratios = ratios / largest[None]
        sizes = ratio(ratios.sum(0) ** 2, (ratios**2).sum(0))
        if not sizes.all():
            return 0.0
        return float(1.0 / np.average(1.0 / sizes, weights=self._weights(name)))

    def average(self, name: str) -> float:
        """Mean ratio over episodes, of the last step or averaged over steps: 1 in expectation."""
        means = self.ratios.mean(axis=0) * self.scale
        means = means[-1:] if name in _WHOLE else means
        return float(np.average(means, weights=self._weights(name)))

    def _weights(self, name: str) -> np.ndarray:
        return np.ones(1) if name in _WHOLE else self.discounts


def weighted_estimate(
    name: str, episodes: WeightedEpisodes, values: np.ndarray | None, errors: np.ndarray | None
) -> Judged:
    """What the estimator `name` says.

    A ratio of two means varies, to first order, as one mean: `value + w/mean(w)·(x - value)`.

    **Arguments:** `name`: of `WEIGHING`; `values`, `errors`: for `dr` and `wdr`, the learned value
    of each first observation `[episode]`, and the temporal-difference error of each row `[row]`.
    """
    ratios, discounts = episodes.ratios, episodes.discounts
    if name in _WHOLE:
        weights, returns = ratios[:, -1], episodes.rewards @ discounts
        if name == "is":
            each = episodes.scale * weights * returns
            return Judged(float(each.mean()), each)
        mean = weights.mean()
        value = float(ratio(np.mean(weights * returns), mean))
        return Judged(value, value + ratio(weights * (returns - value), mean))
    modelled = name in WITH_MODEL
    gains = episodes.table(errors) if modelled and errors is not None else episodes.rewards
    base = values if modelled and values is not None else np.zeros(episodes.count)
    if name in ("pdis", "dr"):
        each = base + episodes.scale * ((ratios * gains) @ discounts)
        return Judged(float(each.mean()), each)
    means = ratios.mean(0)
    parts = ratio((ratios * gains).mean(0), means)
    influence = base + (parts + ratio(ratios * (gains - parts), means)) @ discounts
    return Judged(float(base.mean() + parts @ discounts), influence)


def ratio(above, below) -> np.ndarray:
    """A quotient, 0 where nothing is below."""
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), below)
    return np.divide(above, below, out=np.zeros(above.shape), where=below > 0.0)
