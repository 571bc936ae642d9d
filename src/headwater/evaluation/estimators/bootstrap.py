"""Intervals over episodes, and how sure it is that a policy is the best, or better, of several."""

import numpy as np

_AT_ONCE = 250


def episode_interval(
    influence: np.ndarray, level: float, resamples: int, seed: int
) -> tuple[float, float] | None:
    """An interval for the mean over episodes, by the bootstrap of its t statistic.

    Resampled means are divided by their own standard errors, which is what keeps the coverage where
    a few episodes weigh much. `None` with fewer than three episodes.

    **Arguments:** `influence`: `[episode]`; `level`: nominal coverage; `resamples`; `seed`.
    """
    count, mean = influence.size, float(influence.mean())
    if count < 3:
        return None
    error = float(influence.std(ddof=1) / np.sqrt(count))
    if error == 0.0:
        return mean, mean
    centred, statistics = influence - mean, []
    for means, errors in _resampled_means(centred, resamples, seed):
        statistics.append((means / np.maximum(errors, 1e-12 * error))[errors > 0])
    tail = 0.5 * (1.0 - level)
    low, high = np.quantile(np.concatenate(statistics), [tail, 1.0 - tail])
    return mean - float(high) * error, mean - float(low) * error


def probability_best(influences: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """How often each policy has the highest mean over the same resampled episodes, `[policy]`.

    **Arguments:** `influences`: `[policy, episode]`. Ties are shared.
    """
    wins = np.zeros(len(influences))
    for counts in _resampled(influences.shape[1], resamples, seed):
        means = counts @ influences.T / influences.shape[1]
        best = means == means.max(axis=1, keepdims=True)
        wins += (best / best.sum(axis=1, keepdims=True)).sum(0)
    return wins / resamples


def confidence_above_zero(differences: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """How sure it is that each mean is above zero, however many means there are, `[policy]`.

    One minus the chance with which the largest t statistic of all of them would be as high if every
    mean were zero, by the bootstrap of that largest statistic. The best of several that are no
    better than the behaviour is thus taken for better as rarely as a single one.

    **Arguments:** `differences`: `[policy, episode]`, from the behaviour. What is zero in every
    episode is not above zero.
    """
    count = differences.shape[1]
    means = differences.mean(axis=1)
    errors = differences.std(axis=1, ddof=1) / np.sqrt(count) if count > 1 else 0.0 * means
    told = errors > 0.0
    if not told.any():
        return (means > 0.0).astype(np.float64)
    centred = (differences - means[:, None])[told]
    largest = []
    for again, errors_again in _resampled_means(centred, resamples, seed):
        # Episodes that are all alike have no error of their own.
        spread = np.where(errors_again > 1e-12 * errors[told], errors_again, errors[told])
        largest.append((again / spread).max(axis=1))
    highest = np.concatenate(largest)
    confidence = (means > 0.0).astype(np.float64)
    statistics = means[told] / errors[told]
    confidence[told] = (highest[:, None] < statistics).mean(axis=0)
    return confidence


def _resampled_means(centred: np.ndarray, resamples: int, seed: int):
    """Means of resampled episodes and their standard errors, `[resample *policy]`, in pieces.

    **Arguments:** `centred`: `[*policy, episode]`.
    """
    count = centred.shape[-1]
    for counts in _resampled(count, resamples, seed):
        means = counts @ centred.T / count
        spread = np.maximum(counts @ (centred**2).T / count - means**2, 0.0)
        yield means, np.sqrt(spread / (count - 1))


def _resampled(count: int, resamples: int, seed: int):
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _AT_ONCE):
        size = min(_AT_ONCE, resamples - start)
        yield rng.multinomial(count, np.full(count, 1 / count), size).astype(np.float64)
