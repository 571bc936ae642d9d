"""From datasets to datasets, and to weights for drawing from them."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from headwater.core.errors import DataError, SpecificationError
from headwater.core.problems.history import frames_of, history_spaces
from headwater.core.problems.trajectory import as_trajectory, return_spaces, trajectory_spaces
from headwater.datasets.actions.confidence import inferred
from headwater.datasets.dataset import Dataset, with_statistics
from headwater.datasets.metadata import lacks_rewards


def return_weights(dataset: Dataset, temperature: float = 0.1) -> np.ndarray:
    """RW: probability of drawing each row, higher in episodes of higher return, float64 `[row]`.

    Returns are scaled to [0, 1] over the episodes; a row's probability is the softmax, over all
    rows, of its episode's value over `temperature`. A long episode so counts in proportion to its
    length. From Hong et al. 2023, arXiv 2306.13085. Raises `SpecificationError` unless
    `temperature` is positive.
    """
    return _softmax_over_rows(dataset, dataset.episode_returns(), temperature)


def advantage_weights(dataset: Dataset, temperature: float = 0.1) -> np.ndarray:
    """AW: like `return_weights`, by how much an episode did better than its start promised.

    The promise is a linear regression (with intercept) of the episodes' returns on their first
    observations, which takes the luck of the starting state out of the weight.
    """
    return _softmax_over_rows(dataset, episode_advantages(dataset), temperature)


def episode_advantages(dataset: Dataset) -> np.ndarray:
    """Return of each episode minus a linear prediction from its first observation `[episode]`."""
    returns = dataset.episode_returns()
    first = dataset.observations[dataset.episode_starts[:-1]].astype(np.float64)
    spread = first.std(0)
    # In units of its spread, so that the solver's cut-off treats all components alike.
    inputs = (first - first.mean(0)) / np.where(spread > 0, spread, 1.0)
    inputs = np.column_stack([np.ones(dataset.episodes), inputs])
    solution, *_ = np.linalg.lstsq(inputs, returns, rcond=None)
    return returns - inputs @ solution


def effective_sample_size(weights: np.ndarray) -> float:
    """(Σw)²/Σw²: the number of equally weighted rows that would be worth as much."""
    weights = np.asarray(weights, np.float64)
    return float(weights.sum() ** 2 / np.sum(weights**2))


def positive_sided_variance(returns: np.ndarray) -> float:
    """E[max(G − mean G, 0)²]: how far the better episodes stand out (Hong et al. 2023)."""
    returns = np.asarray(returns, np.float64)
    return float(np.mean(np.maximum(returns - returns.mean(), 0.0) ** 2))


def top_episodes(dataset: Dataset, fraction: float, discount: float = 1.0) -> Dataset:
    """The best `fraction` of the episodes by discounted return (at least one), in logged order.

    Raises `SpecificationError` unless the fraction is in (0, 1].
    """
    _require_rewards(dataset)
    if not 0.0 < fraction <= 1.0:
        raise SpecificationError(
            f"fraction = {fraction} is not in (0, 1]: give 0.1 for the best tenth of the episodes"
        )
    count = max(1, int(fraction * dataset.episodes + 1e-9))
    best = np.argsort(-dataset.episode_returns(discount), kind="stable")[:count]
    chosen = dataset.select_episodes(np.sort(best))
    chosen.metadata["top_fraction"] = float(fraction)
    return chosen


def mix(
    datasets: Sequence[Dataset],
    fractions: Sequence[float],
    *,
    size: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Whole episodes of several datasets, in a random order, in given shares of the transitions.

    **Arguments:** `fractions`: share of each dataset, together 1; `size`: transitions in all
    (default: as many as the scarcest part allows); a part takes random episodes until its share is
    reached, so that it may exceed it by less than one episode; `seed`: of the random choice.

    Raises `SpecificationError` for shares that do not fit and `DataError` if a part is too small.
    """
    shares = np.asarray(fractions, np.float64)
    if len(datasets) != shares.size or shares.size == 0:
        raise SpecificationError(
            f"there are {len(datasets)} datasets but {shares.size} fractions: give one for each"
        )
    if np.any(shares <= 0) or abs(shares.sum() - 1.0) > 1e-6:
        raise SpecificationError(
            f"fractions {shares.tolist()} must be positive and add up to 1: they are shares of the "
            "transitions"
        )
    if size is None:
        size = int(min(data.size / share for data, share in zip(datasets, shares)) + 1e-6)
    random = np.random.default_rng(seed)
    parts = []
    for number, (data, share) in enumerate(zip(datasets, shares)):
        needed = int(np.ceil(size * share - 1e-6))
        if data.size < needed:
            raise DataError(
                f"dataset {number} has {data.size:,} transitions but {needed:,} are needed for "
                f"{share:g} of {size:,}: ask for a smaller size"
            )
        order = random.permutation(data.episodes)
        total = np.cumsum(data.episode_lengths()[order])
        parts.append(data.select_episodes(order[: int(np.searchsorted(total, needed)) + 1]))
    together = Dataset.concatenate(parts)
    mixed = together.select_episodes(random.permutation(together.episodes))
    mixed.metadata["mixture"] = {
        "fractions": shares.tolist(),
        "transitions": [part.size for part in parts],
        "seed": seed,
    }
    return mixed


def scale_rewards(dataset: Dataset, scale: float = 1.0, shift: float = 0.0) -> Dataset:
    """The dataset with rewards `scale · reward + shift`.

    Reference returns are scaled along; a shift makes them meaningless (it adds up over an episode's
    length), so that scores can then no longer be normalised. Raises `SpecificationError` unless
    both numbers are finite and the scale is positive.
    """
    if not (np.isfinite(scale) and np.isfinite(shift) and scale > 0):
        raise SpecificationError(
            f"scale = {scale} and shift = {shift} must be finite, and the scale positive"
        )
    references = dataset.references()
    scaled = relabel(dataset, lambda data: data.rewards.astype(np.float64) * scale + shift)
    if shift == 0.0:
        del scaled.metadata["relabelled"]
        if references is not None:
            scaled.metadata["reference_returns"] = [
                references.random * scale,
                references.expert * scale,
            ]
    scaled.metadata["reward_scale"] = float(scale)
    scaled.metadata["reward_shift"] = float(shift)
    return scaled


def relabel(dataset: Dataset, reward: Callable[[Dataset], np.ndarray]) -> Dataset:
    """The dataset with other rewards; its scores can then no longer be normalised.

    **Arguments:** `reward`: from the dataset to one number per row. Raises `DataError` if it
    returns anything else.
    """
    rewards = np.asarray(reward(dataset))
    if rewards.shape != (dataset.size,) or rewards.dtype.kind not in "biuf":
        raise DataError(
            f"the new rewards have shape {rewards.shape} and type {rewards.dtype}: one number for "
            f"each of the {dataset.size:,} rows is needed"
        )
    bad = np.flatnonzero(~np.isfinite(rewards))
    if bad.size:
        raise DataError(f"the new reward is {rewards[bad[0]]} at row {bad[0]}: it must be finite")
    gone = ("reference_returns", "missing")
    metadata = {k: v for k, v in dataset.metadata.items() if k not in gone}
    changed = dataclasses.replace(
        dataset, rewards=rewards.astype(np.float32), metadata={**metadata, "relabelled": True}
    )
    return with_statistics(changed)


def label_actions(
    dataset: Dataset, actions: np.ndarray, confidence: np.ndarray, *, by: str
) -> Dataset:
    """The dataset with every action that was not logged replaced by an inferred one.

    Which were logged and which inferred, and how surely, stays in `action_confidence` and is
    written with the data. Propensities are dropped, since nobody chose the inferred actions.

    **Arguments:** `actions`: canonical, one for each row of the dataset; those of rows whose action
    was logged are not used; `confidence`: in [0, 1], `[row]`; `by`: what inferred them.

    Raises `DataError` if they do not fit the dataset or hold what no action is.
    """
    actions, confidence = np.asarray(actions), np.asarray(confidence, np.float64)
    if actions.shape != dataset.actions.shape or confidence.shape != (dataset.size,):
        raise DataError(
            f"the inferred actions have shape {actions.shape} and their confidence "
            f"{confidence.shape}: {dataset.actions.shape} and {(dataset.size,)} are needed, one of "
            "each for every row"
        )
    low, high = (0, dataset.spaces.action_size - 1) if dataset.spaces.discrete else (-1.0, 1.0)
    rows = ~dataset.logged_actions
    if not np.all((actions[rows] >= low) & (actions[rows] <= high)):
        raise DataError(f"an inferred action is not within {low} to {high}")
    if not np.all((confidence[rows] >= 0) & (confidence[rows] <= 1)):
        raise DataError("the confidence in an inferred action is not within 0 to 1")
    filled = dataset.actions.copy()
    filled[rows] = actions[rows]
    sure = np.where(rows, inferred(confidence), np.float32(1.0))
    metadata = {**dataset.metadata, "inferred_actions": {"by": by, "rows": int(rows.sum())}}
    return dataclasses.replace(
        dataset,
        actions=filled,
        action_confidence=sure,
        log_propensities=None,
        metadata=metadata,
    )


def infer_rewards(
    dataset: Dataset, rewards: np.ndarray, *, by: str, comparisons: str | None, deviation: float
) -> Dataset:
    """The dataset with inferred rewards in all rows; the metadata say so wherever it is written.

    `inferred_rewards` of the metadata holds `by`, `comparisons`, `deviation`, the number of `rows`
    and `logged`: whether rewards had been logged, which these replace.

    **Arguments:** `rewards`: one for each row; `by`: what inferred them; `comparisons`: name of the
    file of comparisons that it learned from; `deviation`: the mean over rows of the deviation
    between those who predict the reward of a row.

    Raises `DataError` if they do not fit the dataset.
    """
    logged = not lacks_rewards(dataset.metadata) and "inferred_rewards" not in dataset.metadata
    inferred_dataset = relabel(dataset, lambda data: rewards)
    inferred_dataset.metadata["inferred_rewards"] = {
        "by": by,
        "comparisons": comparisons,
        "deviation": deviation,
        "rows": dataset.size,
        "logged": logged,
    }
    return inferred_dataset


def with_history(dataset: Dataset, length: int) -> Dataset:
    """The dataset with the last `length` frames of its episode as the observation of each row.

    What a frame is says `core/problems/history.py`; with `WithHistory` an environment shows the
    same. All windows are laid out, so that observations take `length` times the memory and more.

    **Arguments:** `length`: frames, that of the row included.

    Raises `SpecificationError` unless `length` is at least 1, or if there is a history already, and
    `DataError` if rows have no action.
    """
    unknown = np.flatnonzero(~dataset.known_actions)
    if unknown.size:
        raise DataError(
            f"row {unknown[0]} has no action, which histories hold: have it inferred (hw.label), "
            "or leave such rows out"
        )
    spaces = history_spaces(dataset.spaces, length)
    layout = frames_of(spaces)
    assert layout is not None
    actions = dataset.actions
    if dataset.spaces.discrete:
        actions = np.eye(dataset.spaces.action_size, dtype=np.float32)[actions]
    first = np.repeat(dataset.episode_starts[:-1], dataset.episode_lengths())
    rows = np.arange(dataset.size)
    # The action before the first observation of an episode is zeros, and nothing follows the last.
    before = np.where((rows > first)[:, None], np.roll(actions, 1, axis=0), np.float32(0.0))
    one = np.ones((dataset.size, 1), np.float32)
    frames = np.concatenate([dataset.observations, before, one], axis=1)
    following = np.concatenate([dataset.next_observations, actions, one], axis=1)
    back = rows[:, None] - np.arange(length - 1, -1, -1)
    there = (back >= first[:, None])[..., None]
    windows = np.where(there, frames[np.maximum(back, 0)], np.float32(0.0))
    after = np.concatenate([windows[:, 1:], following[:, None]], axis=1)
    parts = [list(part) for part in spaces.observation.parts or ()]
    changed = dataclasses.replace(
        dataset,
        observations=windows.reshape(dataset.size, -1),
        next_observations=after.reshape(dataset.size, -1),
        spaces=spaces,
        metadata={**dataset.metadata, "observation_parts": parts},
    )
    return with_statistics(changed)


def with_trajectory(dataset: Dataset, length: int) -> Dataset:
    """The dataset with the last `length` steps of its episode as the observation of each row.

    As `with_history`, with the sum of the rewards before it in every frame, so that a method that
    is conditioned on returns knows at each step what is left of one. With `WithTrajectory` an
    environment shows the same.

    **Arguments:** `length`: steps, that of the row included.

    Raises `SpecificationError` unless `length` is at least 1, or if there is a history already, and
    `DataError` if rows have no action, or there are no rewards.
    """
    if lacks_rewards(dataset.metadata):
        raise DataError(
            "trajectories hold the return so far, and this log has no rewards: fill them in "
            "(hw.label), or take with_history"
        )
    trajectory_spaces(dataset.spaces, length)
    sums = np.cumsum(dataset.rewards, dtype=np.float64)
    first = dataset.episode_starts[:-1]
    earlier = (sums - dataset.rewards)[first]
    after = sums - np.repeat(earlier, dataset.episode_lengths())
    before = after - dataset.rewards
    column = lambda values: values[:, None].astype(np.float32)
    widened = dataclasses.replace(
        dataset,
        observations=np.concatenate([dataset.observations, column(before)], axis=1),
        next_observations=np.concatenate([dataset.next_observations, column(after)], axis=1),
        spaces=return_spaces(dataset.spaces),
    )
    made = with_history(widened, length)
    box = as_trajectory(made.spaces.observation)
    parts = [list(part) for part in box.parts or ()]
    return dataclasses.replace(
        made,
        spaces=dataclasses.replace(made.spaces, observation=box),
        metadata={**made.metadata, "observation_parts": parts},
    )


def confident_rows(dataset: Dataset, at_least: float) -> Dataset:
    """The rows whose action was logged, or inferred with at least this confidence.

    Episodes that lose rows are cut there. Raises `SpecificationError` unless `at_least` is in
    [0, 1], and `DataError` if nothing is left.
    """
    if not 0.0 <= at_least <= 1.0:
        raise SpecificationError(
            f"at_least = {at_least} is not in [0, 1]: a confidence is a probability"
        )
    if dataset.action_confidence is None:
        return dataset
    keep = dataset.known_actions & (dataset.action_confidence >= at_least)
    return dataset if keep.all() else dataset.select_rows(keep)


def _require_rewards(dataset: Dataset) -> None:
    if lacks_rewards(dataset.metadata):
        raise DataError(
            "no episode is better than another: the data has no rewards; draw them all alike"
        )


def scaled_to_unit(values: np.ndarray) -> np.ndarray:
    """Values mapped onto [0, 1] by their smallest and largest (all 0 if they are equal)."""
    values = np.asarray(values, np.float64)
    width = values.max() - values.min()
    return (values - values.min()) / width if width > 0 else np.zeros_like(values)


def _softmax_over_rows(dataset: Dataset, values: np.ndarray, temperature: float) -> np.ndarray:
    _require_rewards(dataset)
    if not temperature > 0.0:
        raise SpecificationError(f"temperature = {temperature} must be positive")
    # Values at most 1: the largest exponent is 0, so that nothing overflows.
    exponentials = np.exp((scaled_to_unit(values) - 1.0) / temperature)
    weights = np.repeat(exponentials, dataset.episode_lengths())
    return weights / weights.sum()
