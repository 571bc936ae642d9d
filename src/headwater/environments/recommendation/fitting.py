"""What a log of recommendations says of how often items are responded to, and how they differ."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from headwater.core.errors import DataError
from headwater.environments.recommendation.short_videos import ShortVideos

_STEP, _REACH = 0.01, 8.0
"""Log-odds that are looked at: how far apart, and how far from those of all rows together."""
_WIDEST = 2.0
"""Deviation of log-odds: beyond it, some items would have fifty times the rate of others."""


class RateFit(NamedTuple):
    """Log-odds of a response, normal over items.

    **Arguments:** `level`, `spread`: mean and standard deviation over items, of the largest
    marginal likelihood; `gain`: of its logarithm over that of items which are all alike, in nats;
    `log_odds`: of each item, expected given its own rows.
    """

    level: float
    spread: float
    gain: float
    log_odds: Float[np.ndarray, " item"]


def fit_rates(shown: np.ndarray, responded: np.ndarray) -> RateFit:
    """Rates of a response that differ from item to item, by the largest marginal likelihood.

    The items that are shown may depend on anything but the response itself: what counts is how
    often each was. With few responses the spread that is found is often 0.

    **Arguments:** `shown`: how often each item was, `[item]`; `responded`: how often with a
    response, `[item]`.

    Raises `DataError` for counts that cannot be, or if the response never or always came.
    """
    from scipy.special import log_expit, logit

    shown, responded = np.asarray(shown), np.asarray(responded)
    if shown.ndim != 1 or shown.shape != responded.shape or not shown.size:
        raise DataError(
            f"shown and responded have shapes {list(shown.shape)} and {list(responded.shape)}: "
            "both need one count for each item"
        )
    if not all(np.issubdtype(each.dtype, np.number) for each in (shown, responded)) or not (
        np.all(np.isfinite(shown))
        and np.all(shown == np.round(shown))
        and np.all(responded == np.round(responded))
    ):
        raise DataError("shown and responded hold something else than counts: give whole numbers")
    if np.any(responded < 0) or np.any(responded > shown):
        item = int(np.flatnonzero((responded < 0) | (responded > shown))[0])
        raise DataError(
            f"item {item} was responded to {responded[item]} times and shown {shown[item]} times: "
            "count rows, of which some have a response"
        )
    total = responded.sum() / max(1, shown.sum())
    if not 0.0 < total < 1.0:
        raise DataError(
            f"the response came {'never' if total == 0 else 'always'}: its rate cannot be fitted"
        )
    middle = float(logit(total))
    points = int(_REACH / _STEP)
    odds = middle + _STEP * np.arange(-points, points + 1)
    hits, misses = responded[:, None], (shown - responded)[:, None]
    likelihood = hits * log_expit(odds) + misses * log_expit(-odds)
    largest = likelihood.max(axis=1, keepdims=True)
    scaled = np.exp(likelihood - largest)

    def prior(level: int, spread: float) -> np.ndarray:
        """How probable each of the log-odds is, around that of number `level`."""
        if spread == 0.0:
            return (np.arange(len(odds)) == level).astype(np.float64)
        density = np.exp(-0.5 * ((odds - odds[level]) / spread) ** 2)
        return density / density.sum()

    def best(levels: np.ndarray, spreads: np.ndarray) -> tuple[int, float, float]:
        pairs = [(int(level), float(spread)) for level in levels for spread in spreads]
        each = scaled @ np.stack([prior(*pair) for pair in pairs], axis=1)
        with np.errstate(divide="ignore"):
            totals = np.log(each).sum(axis=0) + largest.sum()
        at = int(np.argmax(totals))
        return *pairs[at], float(totals[at])

    coarse = round(0.1 / _STEP)
    level, spread, _ = best(points + coarse * np.arange(-20, 21), np.arange(0.0, _WIDEST, 0.05))
    near = np.round(np.clip(spread + 0.01 * np.arange(-5, 6), 0.0, _WIDEST), 2)
    level, spread, found = best(level + np.arange(-coarse, coarse + 1), near)
    posterior = scaled * prior(level, spread)
    log_odds = (posterior / posterior.sum(axis=1, keepdims=True)) @ odds
    gain = found - float(likelihood[:, points].sum())
    return RateFit(float(odds[level]), spread, max(0.0, gain), log_odds)


def fit_short_videos(
    environment: ShortVideos,
    shown: np.ndarray,
    responded: np.ndarray,
    *,
    response: str = "like",
) -> tuple[ShortVideos, RateFit]:
    """Sessions with as many items as the log has, one response of which comes as it does there.

    Counts say nothing of interests, of how long anything is watched, of the other responses or of
    when somebody leaves: these stay as `environment` has them, whose videos are drawn anew from its
    seed if the log has another number of items.

    **Arguments:** `shown`, `responded`: as of `fit_rates`; `response`: which of the environment's.
    Raises `DataError` as `fit_rates` does, or if there is no such response.
    """
    names = environment.auxiliary_rewards
    if response not in names:
        raise DataError(f"there is no response '{response}': there are {', '.join(names)}")
    fit = fit_rates(shown, responded)
    fitted = environment
    if environment.items != len(fit.log_odds):
        fitted = dataclasses.replace(environment, items=len(fit.log_odds), videos=None)
    videos = fitted.shown
    rates = videos.response.at[:, names.index(response)].set(jnp.asarray(fit.log_odds, jnp.float32))
    videos = dataclasses.replace(videos, response=rates)
    return dataclasses.replace(fitted, videos=videos), fit
